//! Boxes and edges as a picture: SVG, laid out in layers, without a tool in between.
//!
//! The layout is Sugiyama's, Tagawa's and Toda's (1981): each box on a layer below all that it reads and, where nothing
//! hinders, right above the first that reads it; an edge over several layers bends at a point on each; the order
//! within layers by the mean place of neighbours, swept down and up; and places by the same means, kept apart. What is
//! within a frame is laid out first, and is a box of its size around it. All of it is deterministic.

use std::fmt::Write;

/// Fills of boxes: what comes in, what is learnt, what goes out, and what is around others.
pub(crate) const INPUT: &str = "#cfe8f7";
pub(crate) const PARAMETER: &str = "#fdf6cf";
pub(crate) const OUTPUT: &str = "#d9f2d9";
pub(crate) const FRAME: &str = "#fafafa";

/// Size of a letter, and of what is around a text and between boxes.
const LETTER: (f64, f64) = (6.6, 14.0);
const INSET: f64 = 6.0;
const GAP: (f64, f64) = (14.0, 28.0);
/// How often layers are swept for order and for places.
const SWEEPS: usize = 12;

/// What stands at one place of a layout: a box, or a bend of an edge.
#[derive(Default)]
struct Place {
    lines: Vec<String>,
    colour: &'static str,
    /// What is drawn in a frame, below its lines.
    inner: String,
    size: (f64, f64),
    layer: usize,
    /// Its middle.
    x: f64,
    /// What it reads, as places; bends once edges are cut into layers.
    above: Vec<usize>,
    below: Vec<usize>,
}

impl Place {
    fn is_bend(&self) -> bool {
        self.lines.is_empty()
    }
}

/// Boxes and the edges between them.
#[derive(Default)]
pub(crate) struct Block {
    places: Vec<Place>,
}

/// Elements of SVG, drawn from the origin, and how large they are.
pub(crate) struct Picture {
    text: String,
    size: (f64, f64),
}

impl Picture {
    /// A file of its own.
    pub fn document(&self) -> String {
        let (picture, (width, height)) = (&self.text, self.size);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"monospace\" font-size=\"11\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{picture}</svg>\n"
        )
    }
}

impl Block {
    /// A box with these lines, below boxes that were added before.
    pub fn add(&mut self, lines: Vec<String>, colour: &'static str, above: Vec<usize>) -> usize {
        let letters = lines.iter().map(|l| l.chars().count()).max().unwrap_or(0) as f64;
        let size = (letters * LETTER.0 + 2.0 * INSET, lines.len() as f64 * LETTER.1 + 2.0 * INSET);
        self.places.push(Place { lines, colour, size, above, ..Place::default() });
        self.places.len() - 1
    }

    /// A box around a picture that is drawn already, below its lines.
    pub fn frame(&mut self, lines: Vec<String>, colour: &'static str, inner: Picture, above: Vec<usize>) -> usize {
        let place = self.add(lines, colour, above);
        let size = &mut self.places[place].size;
        *size = (size.0.max(inner.size.0), size.1 + inner.size.1);
        self.places[place].inner = inner.text;
        place
    }

    /// Lays everything out and draws it.
    pub fn draw(mut self) -> Picture {
        let layers = self.layers();
        self.bend();
        let mut rows: Vec<Vec<usize>> = vec![Vec::new(); layers];
        for (i, place) in self.places.iter().enumerate() {
            rows[place.layer].push(i);
        }
        for i in 0..self.places.len() {
            for above in self.places[i].above.clone() {
                self.places[above].below.push(i);
            }
        }
        self.order(&mut rows);
        self.spread(&rows);
        self.picture(&rows)
    }

    /// Gives each place its layer; their number.
    fn layers(&mut self) -> usize {
        for i in 0..self.places.len() {
            self.places[i].layer = self.places[i].above.iter().map(|&a| self.places[a].layer + 1).max().unwrap_or(0);
        }
        // What only waits to be read waits right above its first reader.
        let mut first: Vec<Option<usize>> = vec![None; self.places.len()];
        for i in (0..self.places.len()).rev() {
            let place = &mut self.places[i];
            if let (Some(reader), true) = (first[i], place.above.is_empty()) {
                place.layer = reader - 1;
            }
            for &a in &self.places[i].above {
                let layer = self.places[i].layer;
                first[a] = Some(first[a].map_or(layer, |f| f.min(layer)));
            }
        }
        self.places.iter().map(|p| p.layer + 1).max().unwrap_or(0)
    }

    /// Cuts edges over several layers into edges over one. Edges from one place share their bends.
    fn bend(&mut self) {
        let boxes = self.places.len();
        let mut chains: Vec<Vec<usize>> = (0..boxes).map(|i| vec![i]).collect();
        for i in 0..boxes {
            let readers_above = self.places[i].layer;
            for k in 0..self.places[i].above.len() {
                let from = self.places[i].above[k];
                while self.places[from].layer + chains[from].len() < readers_above {
                    let last = *chains[from].last().expect("a chain starts with its box");
                    let layer = self.places[from].layer + chains[from].len();
                    self.places.push(Place { size: (2.0, 0.0), layer, above: vec![last], ..Place::default() });
                    chains[from].push(self.places.len() - 1);
                }
                self.places[i].above[k] = chains[from][readers_above - self.places[from].layer - 1];
            }
        }
    }

    /// Orders each layer by the mean place of what its boxes are joined with, so that edges seldom cross.
    fn order(&mut self, rows: &mut [Vec<usize>]) {
        let number = |places: &mut Vec<Place>, row: &[usize]| {
            row.iter().enumerate().for_each(|(at, &i)| places[i].x = at as f64);
        };
        rows.iter().for_each(|row| number(&mut self.places, row));
        for sweep in 0..SWEEPS {
            let down = sweep % 2 == 0;
            for k in 0..rows.len() {
                let k = if down { k } else { rows.len() - 1 - k };
                let row = &mut rows[k];
                let mean = |i: usize| self.mean(i, down).unwrap_or(self.places[i].x);
                row.sort_by(|&a, &b| mean(a).total_cmp(&mean(b)));
                number(&mut self.places, row);
            }
        }
    }

    /// The mean place of what a place is joined with above or below.
    fn mean(&self, i: usize, above: bool) -> Option<f64> {
        let place = &self.places[i];
        let joined = if above { &place.above } else { &place.below };
        let sum: f64 = joined.iter().map(|&j| self.places[j].x).sum();
        (!joined.is_empty()).then(|| sum / joined.len() as f64)
    }

    /// Gives places their x: near their neighbours', in order and apart.
    fn spread(&mut self, rows: &[Vec<usize>]) {
        for row in rows {
            let mut x = 0.0;
            for &i in row {
                self.places[i].x = x + self.places[i].size.0 / 2.0;
                x += self.places[i].size.0 + GAP.0;
            }
        }
        for sweep in 0..SWEEPS {
            let down = sweep % 2 == 0;
            for k in 0..rows.len() {
                let k = if down { k } else { rows.len() - 1 - k };
                let row = &rows[k];
                let wanted: Vec<f64> = row.iter().map(|&i| self.mean(i, down).unwrap_or(self.places[i].x)).collect();
                // Pushed apart from the left and from the right: the middle of the two keeps order and distance.
                let apart = |a: usize, b: usize| (self.places[a].size.0 + self.places[b].size.0) / 2.0 + GAP.0;
                let (mut left, mut right) = (wanted.clone(), wanted);
                for j in 1..row.len() {
                    left[j] = left[j].max(left[j - 1] + apart(row[j - 1], row[j]));
                }
                for j in (1..row.len()).rev() {
                    right[j - 1] = right[j - 1].min(right[j] - apart(row[j - 1], row[j]));
                }
                for (j, &i) in row.iter().enumerate() {
                    self.places[i].x = (left[j] + right[j]) / 2.0;
                }
            }
        }
        let left = self.places.iter().map(|p| p.x - p.size.0 / 2.0).fold(f64::INFINITY, f64::min);
        self.places.iter_mut().for_each(|p| p.x += GAP.0 - left);
    }

    fn picture(&self, rows: &[Vec<usize>]) -> Picture {
        let height = |row: &Vec<usize>| row.iter().map(|&i| self.places[i].size.1).fold(0.0, f64::max);
        let mut top = GAP.0;
        let mut tops = Vec::new();
        for row in rows {
            tops.push(top);
            top += height(row) + GAP.1;
        }
        let size = (self.places.iter().map(|p| p.x + p.size.0 / 2.0).fold(0.0, f64::max) + GAP.0, top - GAP.1 + GAP.0);
        let mut text = String::new();
        for place in &self.places {
            let end = tops[place.layer];
            for &above in &place.above {
                let from = &self.places[above];
                let start = tops[from.layer] + from.size.1;
                // An edge comes in from above the layer, bends there, and goes straight through it.
                let (x0, x1, middle) = (from.x, place.x, end - GAP.1 / 2.0);
                let through = if place.is_bend() { end + height(&rows[place.layer]) } else { end };
                let before = end - GAP.1;
                line(
                    &mut text,
                    &format!(
                        "<path d=\"M{x0:.1} {start:.1}V{before:.1}C{x0:.1} {middle:.1} {x1:.1} {middle:.1} {x1:.1} \
                         {end:.1}V{through:.1}\" fill=\"none\" stroke=\"#888\"/>"
                    ),
                );
            }
        }
        for place in self.places.iter().filter(|p| !p.is_bend()) {
            let (width, height) = place.size;
            let (x, y) = (place.x - width / 2.0, tops[place.layer]);
            line(
                &mut text,
                &format!(
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"3\" \
                     fill=\"{}\" stroke=\"#444\"/>",
                    place.colour
                ),
            );
            for (k, words) in place.lines.iter().enumerate() {
                let baseline = y + INSET + LETTER.1 * (k as f64 + 0.8);
                let at = x + INSET;
                line(&mut text, &format!("<text x=\"{at:.1}\" y=\"{baseline:.1}\">{}</text>", escape(words)));
            }
            if !place.inner.is_empty() {
                let below = y + 2.0 * INSET + LETTER.1 * place.lines.len() as f64;
                line(&mut text, &format!("<g transform=\"translate({x:.1} {below:.1})\">"));
                text += &place.inner;
                line(&mut text, "</g>");
            }
        }
        Picture { text, size }
    }
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a String takes all that is written");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
