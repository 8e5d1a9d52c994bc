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
    let [height, width] = digits.size.map(|n| n as i32);
    let end = |(x, y): (i32, i32)| (corner.0 + x * side / width, corner.1 + y * side / height);
    area.draw(&Rectangle::new([corner, end((width, height))], BLACK.mix(0.15)))?;
    for (i, &pixel) in (0..).zip(digits.image(which)).filter(|(_, pixel)| **pixel > 0) {
        let (x, y) = (i % width, i / width);
        let ink = BLACK.mix(f64::from(pixel) / f64::from(digits.ink)).filled();
        area.draw(&Rectangle::new([end((x, y)), end((x + 1, y + 1))], ink))?;
    }
    Ok(())
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
