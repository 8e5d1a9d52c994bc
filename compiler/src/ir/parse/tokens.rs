//! A text as words: names, numbers, values, signs, and the ends of lines. Comments are left out.

use std::fmt;

use super::ParseError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// `lstm.gates.w`
    Word(String),
    /// `"any name"`
    Quoted(String),
    /// `12`, `-0.5`, `1e-7`, `-inf`
    Number(String),
    /// `%3`
    Value(usize),
    /// One of `{ } [ ] ( ) : = , < ..`
    Sign(&'static str),
    NewLine,
    End,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub line: usize,
    pub column: usize,
}

impl Place {
    pub fn error(self, message: impl Into<String>) -> ParseError {
        ParseError { line: self.line, column: self.column, message: message.into() }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Kind::Word(text) | Kind::Number(text) => write!(f, "`{text}`"),
            Kind::Quoted(text) => write!(f, "`{text:?}`"),
            Kind::Value(n) => write!(f, "`%{n}`"),
            Kind::Sign(sign) => write!(f, "`{sign}`"),
            Kind::NewLine => f.write_str("the end of the line"),
            Kind::End => f.write_str("the end of the text"),
        }
    }
}

const SIGNS: [&str; 12] = ["..", "<=", "{", "}", "[", "]", "(", ")", ":", "=", ",", "<"];

/// The words of a text, each with its place; every line ends with [`Kind::NewLine`], the text with [`Kind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<(Kind, Place)>, ParseError> {
    let mut tokens = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let (mut rest, mut column) = (line, 1);
        loop {
            // Counted on from word to word, so that a long line takes no longer than many short ones.
            let trimmed = rest.trim_start();
            column += rest[..rest.len() - trimmed.len()].chars().count();
            rest = trimmed;
            let place = Place { line: number + 1, column };
            let Some(first) = rest.chars().next().filter(|&c| c != ';') else {
                tokens.push((Kind::NewLine, place));
                break;
            };
            let (kind, length) = match first {
                '"' => quoted(rest).map_err(|e| place.error(e))?,
                '%' => {
                    let digits = prefix(&rest[1..], |c| c.is_ascii_digit());
                    let number = digits.parse().map_err(|_| place.error("expected a number after `%`"))?;
                    (Kind::Value(number), 1 + digits.len())
                }
                c if c.is_ascii_alphabetic() || c == '_' => {
                    let word = prefix(rest, |c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
                    (Kind::Word(word.to_string()), word.len())
                }
                c if c.is_ascii_digit() || c == '-' => {
                    let length = number_length(rest);
                    (Kind::Number(rest[..length].to_string()), length)
                }
                c => match SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
                    Some(sign) => (Kind::Sign(sign), sign.len()),
                    None => return Err(place.error(format!("{c:?} begins no word"))),
                },
            };
            tokens.push((kind, place));
            column += rest[..length].chars().count();
            rest = &rest[length..];
        }
    }
    tokens.push((Kind::End, Place { line: text.lines().count() + 1, column: 1 }));
    Ok(tokens)
}

fn prefix(text: &str, inside: impl Fn(char) -> bool) -> &str {
    &text[..text.find(|c| !inside(c)).unwrap_or(text.len())]
}

/// Bytes of the number that a text starts with; whether they are one is seen when they are read. A `..` ends it.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut n = 1;
    while let Some(&byte) = bytes.get(n) {
        let goes_on = match byte {
            b'.' => bytes.get(n + 1) != Some(&b'.'),
            b'+' | b'-' => matches!(bytes[n - 1], b'e' | b'E'),
            _ => byte.is_ascii_alphanumeric(),
        };
        if !goes_on {
            break;
        }
        n += 1;
    }
    n
}

/// A quoted name with Rust's escapes, and its length in bytes.
fn quoted(text: &str) -> Result<(Kind, usize), &'static str> {
    const ESCAPE: &str = "expected an escape: \\\\, \\\", \\', \\n, \\r, \\t, \\0 or \\u{..}";
    let mut name = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Ok((Kind::Quoted(name), i + 1)),
            '\\' => name.push(match chars.next().ok_or(ESCAPE)?.1 {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                '0' => '\0',
                c @ ('\\' | '"' | '\'') => c,
                'u' => {
                    let digits: String =
                        chars.by_ref().map(|(_, c)| c).skip_while(|&c| c == '{').take_while(|&c| c != '}').collect();
                    u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32).ok_or(ESCAPE)?
                }
                _ => return Err(ESCAPE),
            }),
            c => name.push(c),
        }
    }
    Err("expected `\"` at the end of the name")
}
