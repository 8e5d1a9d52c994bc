//! Shorter texts of the same finding.
//!
//! A line is left out, or a value's name is replaced by another wherever it is used and its own line left out; where the
//! case still ends in a finding, the shorter text is gone on with, until no line can go. Most such texts are no programs,
//! which finds nothing, and so keeps the line. What aborts its process cannot be reduced here.

use crate::worker::guarded;
use crate::{Counts, Target};

/// The shortest text that is come to, of a case that ends in a finding.
pub fn reduce(target: &mut dyn Target, case: u64, text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
    let mut finds = |lines: &[String]| {
        let text = lines.join("\n") + "\n";
        guarded(|| target.run_text(&text, case, &mut Counts::new())).is_err()
    };
    loop {
        let before = lines.len();
        for at in (0..lines.len()).rev() {
            let without = |lines: &[String]| [&lines[..at], &lines[at + 1..]].concat();
            let shorter = without(&lines);
            if finds(&shorter) {
                lines = shorter;
                continue;
            }
            // One whole loop.
            if lines[at].trim_start().starts_with("scan ")
                && let Some(n) = lines[at..].iter().position(|l| l == "  }")
            {
                let shorter = [&lines[..at], &lines[at + n + 1..]].concat();
                if finds(&shorter) {
                    lines = shorter;
                    continue;
                }
            }
            let Some((name, ty)) = defined(&lines[at]) else { continue };
            let others = lines[..at].iter().filter_map(|l| defined(l)).filter(|(n, t)| *t == ty && *n != name);
            let mut names: Vec<String> = others.map(|(n, _)| n.to_string()).collect();
            names.extend(["0".to_string(), "1".to_string()]);
            for other in names.iter().rev().take(6) {
                let shorter: Vec<String> = without(&lines).iter().map(|l| replaced(l, name, other)).collect();
                if finds(&shorter) {
                    lines = shorter;
                    break;
                }
            }
        }
        if lines.len() == before {
            return lines.join("\n") + "\n";
        }
    }
}

/// The name and type of a line that makes a value.
fn defined(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.trim_start().split_once(": ")?;
    Some((name, rest.split(" = ").next()?)).filter(|(name, _)| name.starts_with('%'))
}

/// The line with another name where the name stands as a word.
fn replaced(line: &str, name: &str, other: &str) -> String {
    let words = line.split_inclusive([' ', ',']);
    let word = |w: &str| {
        let bare = w.trim_end_matches([' ', ',']);
        if bare == name { format!("{other}{}", &w[bare.len()..]) } else { w.to_string() }
    };
    words.map(word).collect()
}
