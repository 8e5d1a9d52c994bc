//! Texts of programs with changed tokens: read, and if that is a program, compiled and run.
//!
//! Texts are those of the snapshots and of small random programs. Tokens are changed for others of their kind (numbers,
//! types, names), lines are taken out, doubled, exchanged, or taken from another text.

use std::fs;
use std::path::Path;

use retrograd::compiler::ir::{Op, Program, Sizes};
use retrograd::runtime::session::Session;
use retrograd::testing;

use crate::{Counts, Random, Target, generate};

/// Elements of all values of a run up to which it is run.
const ELEMENTS: usize = 1 << 17;
/// One of so many programs is compiled and run: most of the time would go there.
const RUN_ONE_IN: usize = 6;
const NUMBERS: [&str; 16] = [
    "0",
    "1",
    "2",
    "3",
    "5",
    "8",
    "64",
    "65536",
    "268435456",
    "2147483647",
    "4294967296",
    "18446744073709551615",
    "-1",
    "0.5",
    "inf",
    "nan",
];

/// See the module's text.
pub struct Texts {
    /// Of the snapshots.
    texts: Vec<Vec<String>>,
}

impl Default for Texts {
    fn default() -> Texts {
        Texts::new()
    }
}

impl Texts {
    /// Reads the snapshots.
    pub fn new() -> Texts {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/snapshots");
        let mut paths: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
        paths.sort();
        let texts = paths.into_iter().filter_map(|path| {
            let text = fs::read_to_string(path).ok()?;
            let program = &text[text.find("program ")?..];
            // Long texts cost much and hold nothing else.
            (program.len() < 2500 && Program::parse(program).is_ok())
                .then(|| program.lines().map(str::to_string).collect())
        });
        Texts { texts: texts.collect() }
    }

    fn base(&self, rng: &mut Random) -> Vec<String> {
        if self.texts.is_empty() || !rng.once_in(8) {
            let nodes = 1 + rng.below(4);
            return generate::program(rng, nodes).lines().map(str::to_string).collect();
        }
        rng.of(&self.texts)
    }

    fn text(&self, case: u64) -> String {
        let mut rng = Random::new(case, 0);
        let mut lines = self.base(&mut rng);
        for _ in 0..rng.of(&[1, 1, 1, 2, 3]) {
            self.change(&mut lines, &mut rng);
        }
        lines.join("\n") + "\n"
    }

    fn change(&self, lines: &mut Vec<String>, rng: &mut Random) {
        if lines.is_empty() {
            return;
        }
        let at = rng.below(lines.len());
        match rng.below(12) {
            0 => {
                lines.remove(at);
            }
            1 => lines.insert(at, lines[at].clone()),
            2 => {
                let other = rng.below(lines.len());
                lines.swap(at, other);
            }
            3 => {
                let other = self.base(rng);
                lines.insert(at, rng.of(&other));
            }
            4 => {
                // Bytes, as far as these are still a text.
                let mut characters: Vec<char> = lines[at].chars().collect();
                if !characters.is_empty() {
                    let i = rng.below(characters.len());
                    characters[i] =
                        rng.of(&['0', '9', '%', '"', '[', ']', ',', ' ', '}', '{', 'λ', '-', '<', '\\', '.']);
                }
                lines[at] = characters.into_iter().collect();
            }
            _ => {
                let mut tokens = tokens(&lines[at]);
                let candidates: Vec<usize> = (0..tokens.len()).filter(|&i| !tokens[i].trim().is_empty()).collect();
                if candidates.is_empty() {
                    return;
                }
                let i = rng.of(&candidates);
                let other: Vec<String> = match rng.once_in(3) {
                    true => self.base(rng),
                    false => lines.clone(),
                };
                let donor = tokens_of(&rng.of(&other));
                tokens[i] = match kind(&tokens[i]) {
                    Kind::Number if rng.once_in(2) => rng.of(&NUMBERS).to_string(),
                    of_kind => {
                        let alike: Vec<String> = donor.into_iter().filter(|t| kind(t) == of_kind).collect();
                        if alike.is_empty() { rng.of(&NUMBERS).to_string() } else { rng.of(&alike) }
                    }
                };
                lines[at] = tokens.concat();
            }
        }
    }
}

#[derive(PartialEq, Clone, Copy)]
enum Kind {
    Number,
    Name,
    Value,
    Other,
}

fn kind(token: &str) -> Kind {
    match token.bytes().next() {
        Some(b'0'..=b'9' | b'-') => Kind::Number,
        Some(b'%') => Kind::Value,
        Some(b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'"') => Kind::Name,
        _ => Kind::Other,
    }
}

/// Words, numbers and signs, spaces among them: together they are the line.
fn tokens(line: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == '%' || c == '-';
    for c in line.chars() {
        match tokens.last_mut() {
            Some(last) if word(c) && last.chars().all(word) => last.push(c),
            _ => tokens.push(c.to_string()),
        }
    }
    tokens
}

fn tokens_of(line: &str) -> Vec<String> {
    tokens(line).into_iter().filter(|t| !t.trim().is_empty()).collect()
}

impl Target for Texts {
    fn run(&mut self, case: u64, counts: &mut Counts) -> Result<(), String> {
        let text = self.text(case);
        self.run_text(&text, case, counts)
    }

    fn run_text(&mut self, text: &str, case: u64, counts: &mut Counts) -> Result<(), String> {
        let Ok(program) = Program::parse(text) else {
            *counts.entry("no program").or_default() += 1;
            return Ok(());
        };
        *counts.entry("programs").or_default() += 1;
        program.verify().map_err(|e| format!("was read and is not well formed: {e}"))?;
        let mut rng = Random::new(case, 1);
        if !rng.once_in(RUN_ONE_IN) {
            return Ok(());
        }
        let printed = program.to_string();
        let again = Program::parse(&printed).map_err(|e| format!("its text is not read back: {e}\n{printed}"))?;
        if again.to_string() != printed {
            return Err(format!("its text is read as another:\n{printed}\n{again}"));
        }
        let mut program = program;
        if program.objective.is_some() && rng.once_in(2) {
            let Ok(joint) = program.backward() else { return Ok(()) };
            program = joint;
        }
        let Ok(mut session) = Session::<f32>::new(&program, 1 + rng.below(2)) else {
            *counts.entry("refused by the compiler").or_default() += 1;
            return Ok(());
        };
        *counts.entry("compiled").or_default() += 1;
        let sizes = Sizes { batch: rng.of(&[1, 2, 3]), steps: vec![rng.of(&[1, 2, 5]); 4] };
        if elements(&program, &sizes).is_none_or(|n| n > ELEMENTS) {
            return Ok(());
        }
        let values = testing::values(&program, &sizes, case);
        match testing::run(&mut session, &values, &sizes) {
            Ok(_) => *counts.entry("run").or_default() += 1,
            Err(_) => *counts.entry("refused to run").or_default() += 1,
        }
        Ok(())
    }

    fn show(&mut self, case: u64) -> String {
        self.text(case)
    }
}

/// Of all values together.
fn elements(program: &Program, sizes: &Sizes) -> Option<usize> {
    let (mut total, mut graphs) = (0usize, vec![&program.graph]);
    while let Some(graph) = graphs.pop() {
        for v in graph.values() {
            let ty = graph.ty(v);
            let rows = if ty.extent == retrograd::compiler::ir::Extent::Shared { 1 } else { sizes.batch * 5 };
            let row = ty.shape.0.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
            total = total.checked_add(row.checked_mul(rows)?)?;
            if let Op::Scan(scan) = graph.op(v) {
                graphs.push(&scan.body);
            }
        }
    }
    Some(total)
}
