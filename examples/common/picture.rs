//! Pictures made of images: sheets of digits, and which were taken for which. All are SVG.

use std::fs;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Result;
use super::digits::{Digits, KINDS};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Draws a picture of a size into a file.
fn draw(path: &Path, size: [i32; 2], content: impl FnOnce(&Area) -> Drawn) -> Result<()> {
    let cannot = |e: &dyn std::fmt::Display| format!("cannot draw {}: {e}", path.display());
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (size[0] as u32, size[1] as u32)).into_drawing_area();
        area.fill(&WHITE).map_err(|e| cannot(&e))?;
        content(&area).map_err(|e| cannot(&e))?;
        area.present().map_err(|e| cannot(&e))?;
    }
    Ok(fs::write(path, svg).map_err(|e| cannot(&e))?)
}

/// Writes around a point.
fn write(area: &Area, text: &str, at: (i32, i32), height: i32, colour: &RGBColor) -> Drawn {
    let style = ("sans-serif", height).into_text_style(area).color(colour).pos(Pos::new(HPos::Center, VPos::Center));
    Ok(area.draw(&Text::new(text.to_string(), at, style))?)
}

/// Draws an image into a square with this corner; paper is left as it is, but for a frame.
fn image(area: &Area, digits: &Digits, which: usize, corner: (i32, i32), side: i32) -> Drawn {
    let ink = |&pixel: &u8| f64::from(pixel) / f64::from(digits.ink);
    squares(area, digits.size, digits.image(which).iter().map(ink), (corner, side), &BLACK)
}

/// Draws the rows of a table of numbers from 0 to 1 as squares within a framed square with a corner and a side.
fn squares(
    area: &Area,
    size: [usize; 2],
    values: impl Iterator<Item = f64>,
    (corner, side): ((i32, i32), i32),
    colour: &RGBColor,
) -> Drawn {
    let [height, width] = size.map(|n| n as i32);
    let end = |(x, y): (i32, i32)| (corner.0 + x * side / width, corner.1 + y * side / height);
    area.draw(&Rectangle::new([corner, end((width, height))], BLACK.mix(0.15)))?;
    for (i, value) in (0..).zip(values).filter(|(_, value)| *value > 0.0) {
        let (x, y) = (i % width, i / width);
        area.draw(&Rectangle::new([end((x, y)), end((x + 1, y + 1))], colour.mix(value).filled()))?;
    }
    Ok(())
}

/// A picture with what was said of it.
pub struct Captioned {
    /// Rows of pixels, 0 for paper to 1 for black: a square.
    pub pixels: Vec<f32>,
    /// What is right.
    pub right: String,
    /// Who said what.
    pub said: Vec<(String, String)>,
    /// For each word of the last one, and for the end, the weights of the places that were looked at: rows of a square.
    pub looks: Vec<Vec<f32>>,
}

/// A sheet of pictures with their captions, and for each word where the net looked. A place of the grid is drawn where
/// the middle of what it sees is: `middle` is that of the first one, as a part of the side, and of the last one as far
/// from the other edge.
pub fn captions(path: &Path, title: &str, pictures: &[Captioned], middle: f64) -> Result<()> {
    const SIDE: i32 = 78;
    const GAP: i32 = 12;
    let wide = pictures.iter().map(|c| c.looks.len()).max().unwrap_or(0) as i32;
    let line = 20 * (1 + pictures.iter().map(|c| c.said.len()).max().unwrap_or(0) as i32);
    let (left, high) = (3 * GAP + 2 * SIDE, line + 2 * SIDE + 2 * GAP);
    let size = [left + ((SIDE + GAP) * wide).max(900), 60 + high * pictures.len() as i32];
    draw(path, size, |area| {
        write(area, title, (size[0] / 2, 30), 18, &BLACK)?;
        for (n, picture) in (0..).zip(pictures) {
            let top = 60 + n * high;
            let side = picture.pixels.len().isqrt();
            let ink = |x: &f32| f64::from(*x);
            squares(area, [side; 2], picture.pixels.iter().map(ink), ((GAP, top), 2 * SIDE), &BLACK)?;
            let texts = picture.said.iter().map(|(who, text)| (who.as_str(), text));
            for (i, (who, text)) in (0..).zip([("right", &picture.right)].into_iter().chain(texts)) {
                let colour = if *text == picture.right { &BLACK } else { &RGBColor(200, 60, 40) };
                let at = (left, top + 20 * i);
                area.draw(&Text::new(format!("{who}: {text}"), at, ("sans-serif", 16).into_font().color(colour)))?;
            }
            let words = picture.said.last().map_or("", |s| &s.1).split(' ').chain(["."]);
            for (i, (word, look)) in (0..).zip(words.zip(&picture.looks)) {
                let (x, y) = (left + i * (SIDE + GAP), top + line + 24);
                write(area, word, (x + SIDE / 2, y - 14), 16, &BLACK)?;
                let faint = |x: &f32| 0.35 * f64::from(*x);
                squares(area, [side; 2], picture.pixels.iter().map(faint), ((x, y), SIDE), &BLACK)?;
                let places = look.len().isqrt();
                let of_side = (1.0 - 2.0 * middle) * places as f64 / (places - 1) as f64;
                let inner = (f64::from(SIDE) * of_side).round() as i32;
                let rim = (SIDE - inner) / 2;
                let weight = |x: &f32| 0.8 * f64::from(*x);
                squares(
                    area,
                    [places; 2],
                    look.iter().map(weight),
                    ((x + rim, y + rim), inner),
                    &RGBColor(40, 90, 200),
                )?;
            }
        }
        Ok(())
    })
}

/// A sheet with one column for each kind: above a line some real digits, below it others.
pub fn sheet(path: &Path, title: &str, real: &Digits, others: &Digits, rows: usize) -> Result<()> {
    const SIDE: i32 = 56;
    const GAP: i32 = 8;
    let real_rows = (rows / 4).max(1);
    let height = 60 + (SIDE + GAP) * (rows + real_rows) as i32 + 3 * GAP;
    let width = GAP + (SIDE + GAP) * KINDS as i32;
    draw(path, [width, height], |area| {
        write(area, title, (width / 2, 30), 18, &BLACK)?;
        let mut top = 60;
        for (digits, rows) in [(real, real_rows), (others, rows)] {
            for kind in 0..KINDS {
                let of_kind = (0..digits.count()).filter(|&i| usize::from(digits.labels[i]) == kind).take(rows);
                for (row, which) in (0..).zip(of_kind) {
                    let corner = (GAP + (SIDE + GAP) * kind as i32, top + (SIDE + GAP) * row);
                    image(area, digits, which, corner, SIDE)?;
                }
            }
            top += (SIDE + GAP) * rows as i32 + 2 * GAP;
            let line = top - 2 * GAP;
            if line < height - 3 * GAP {
                area.draw(&Rectangle::new([(0, line), (width, line + 2)], BLACK.filled()))?;
            }
        }
        Ok(())
    })
}

/// Which digits were taken for which: a table of counts, and beside it those that were mistaken.
pub fn confusion(path: &Path, title: &str, digits: &Digits, names: &[u8]) -> Result<()> {
    const CELL: i32 = 44;
    const SHOWN: usize = 24;
    let (left, top, table) = (70, 90, CELL * KINDS as i32);
    let beside = left + table + 40;
    let mut counts = [[0; KINDS]; KINDS];
    for (&is, &name) in digits.labels.iter().zip(names) {
        counts[usize::from(is)][usize::from(name)] += 1;
    }
    let mistaken = || (0..digits.count()).filter(|&i| digits.labels[i] != names[i]);
    draw(path, [beside + 6 * 80, top + table + 60], |area| {
        write(area, title, (beside / 2 + 3 * 80, 28), 20, &BLACK)?;
        write(area, "is", (left / 3, top + table / 2), 16, &BLACK)?;
        write(area, "was taken for", (left + table / 2, top + table + 36), 16, &BLACK)?;
        for (is, row) in (0..).zip(&counts) {
            let (most, y) = (row.iter().sum::<i32>().max(1), top + CELL * is);
            write(area, &is.to_string(), (left - 18, y + CELL / 2), 16, &BLACK)?;
            write(area, &is.to_string(), (left + CELL * is + CELL / 2, top + table + 14), 16, &BLACK)?;
            for (name, &count) in (0..).zip(row) {
                let (x, colour) =
                    (left + CELL * name, if is == name { &RGBColor(40, 90, 160) } else { &RGBColor(200, 60, 40) });
                // The root shows also single mistakes among a thousand.
                let part = (f64::from(count) / f64::from(most)).sqrt();
                let square = [(x, y), (x + CELL - 2, y + CELL - 2)];
                area.draw(&Rectangle::new(
                    square,
                    if count > 0 { colour.mix(part) } else { BLACK.mix(0.04) }.filled(),
                ))?;
                if count > 0 {
                    let ink = if part > 0.5 { &WHITE } else { &BLACK };
                    write(area, &count.to_string(), (x + CELL / 2 - 1, y + CELL / 2), 14, ink)?;
                }
            }
        }
        let all = mistaken().count();
        let heading = if all > SHOWN { format!("mistakes: {SHOWN} of {all}") } else { format!("mistakes: {all}") };
        write(area, &heading, (beside + 3 * 80, 64), 16, &BLACK)?;
        for (n, which) in (0..).zip(mistaken().take(SHOWN)) {
            let corner = (beside + n % 6 * 80, top + n / 6 * 100);
            image(area, digits, which, corner, 64)?;
            let said = format!("{} → {}", digits.labels[which], names[which]);
            write(area, &said, (corner.0 + 32, corner.1 + 78), 14, &BLACK)?;
        }
        Ok(())
    })
}
