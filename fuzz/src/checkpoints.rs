//! Checkpoints with changed bytes, or with other values behind a checksum that fits.
//!
//! A file with changed bytes is refused, or it is loaded as the one that was saved. One whose values were changed by a
//! program that knows the format is refused too, or training goes on from it: what is then saved holds the same tensors,
//! and a step gives a report or a typed error.

use std::fs;
use std::path::PathBuf;

use ndarray::{Array3, ArrayD, Ix3};
use retrograd::prelude::*;
use retrograd::runtime::checkpoint::Checkpoint;

use crate::{Counts, Random, Target};

/// A training with a file that it has saved.
struct Saved {
    trainer: Trainer,
    bytes: Vec<u8>,
    whole: Checkpoint,
}

/// See the module's text.
pub struct Checkpoints {
    saved: Vec<Saved>,
    path: PathBuf,
    other: PathBuf,
}

impl Default for Checkpoints {
    fn default() -> Checkpoints {
        Checkpoints::new()
    }
}

fn numbers(steps: usize) -> (Array3<f32>, ArrayD<i32>) {
    let x = Array3::from_shape_fn((steps, 2, 2), |(t, b, i)| ((t * 3 + b * 5 + i) % 7) as f32 * 0.2 - 0.5);
    let words = ndarray::Array2::from_shape_fn((steps, 2), |(t, b)| ((t + b) % 3) as i32);
    (x, words.into_dyn())
}

fn step(trainer: &mut Trainer) -> bool {
    let (x, words) = numbers(4);
    let feed = Feed::new()
        .f32("x", x.view().into_dimensionality::<Ix3>().expect("three dimensions"))
        .i32("word", words.view());
    trainer.sequence(&feed).is_ok()
}

/// A state of floats and one of integers, a table, and a statistic that the program updates.
fn program() -> Program {
    Program::record("checkpointed", |p| {
        let (x, word) = (p.sequence("x", 2), p.labels_sequence("word"));
        let table = p.parameter("table", [3, 2], Init::Normal(1.0));
        let first = p.parameter("first", 3, Init::Constant(0.0)).argmax();
        let run = p.scan("net", |s| {
            let (h, before) = (s.state("h", 3), s.state_from("before", first));
            s.next(before, s.at(word));
            let seen = table.lookup(before) + s.at(x);
            s.next(h, (s.linear("h", h, 3) + s.affine("x", seen, 3)).tanh())
        });
        p.minimize(p.affine("out", run.all(), 2).mse(x));
    })
    .expect("a program without mistakes")
}

impl Checkpoints {
    /// Trains a little, in four ways, and keeps what is saved.
    ///
    /// # Panics
    /// If that fails.
    pub fn new() -> Checkpoints {
        let folder = [PathBuf::from("/dev/shm"), std::env::temp_dir()].into_iter().find(|f| f.is_dir());
        let file =
            |name| folder.clone().unwrap_or_default().join(format!("retrograd-fuzz-{name}-{}", std::process::id()));
        let (path, other, program) = (file("checkpoint"), file("again"), program());
        let trainers = [
            program.trainer(Adam::new(0.01)).compile(),
            program.trainer(Sgd::new(0.01)).carry_state(true).compile(),
            program.trainer(Adam::new(0.01)).truncate(2, 4).compile(),
            program.trainer(RmsProp::new(0.01)).truncate(3, 2).compile(),
        ];
        let saved = trainers.map(|trainer| {
            let mut trainer = trainer.expect("code for this machine");
            assert!(step(&mut trainer), "a step is taken");
            trainer.save_with(&path, &[("place", "4711".to_string())]).expect("a file is written");
            let (bytes, whole) =
                (fs::read(&path).expect("it was written"), Checkpoint::load(&path).expect("as it was written"));
            Saved { trainer, bytes, whole }
        });
        Checkpoints { saved: saved.into(), path, other }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.other);
    }
}

/// Bytes are changed, cut off, doubled.
fn damage(bytes: &mut Vec<u8>, rng: &mut Random) {
    for _ in 0..rng.of(&[1, 1, 1, 2, 4]) {
        let n = bytes.len();
        if n == 0 {
            return;
        }
        // The head holds more than its share of what can go wrong.
        let head = if rng.once_in(2) { n.min(600) } else { n };
        let at = rng.below(head);
        match rng.below(8) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.below(256) as u8),
            2 => {
                let end = (at + 1 + rng.below(16)).min(n);
                bytes.drain(at..end);
            }
            3 => bytes[at] = rng.of(b"0123456789,:[]{}\"-"),
            4 => {
                let end = (at + 1 + rng.below(32)).min(n);
                let part = bytes[at..end].to_vec();
                let to = rng.below(n);
                bytes.splice(to..to, part);
            }
            5 => bytes[at] = rng.below(256) as u8,
            _ => bytes[at] ^= 1 << rng.below(8),
        }
    }
}

/// Other values in a file that is whole.
fn forge(whole: &Checkpoint, rng: &mut Random) -> Checkpoint {
    let mut forged = whole.clone();
    for _ in 0..rng.of(&[1, 1, 2]) {
        let names: Vec<String> = forged.names().map(str::to_string).collect();
        if rng.once_in(2) || names.is_empty() {
            let key = rng.of(&[
                "steps",
                "rate",
                "batch",
                "resets",
                "held",
                "truncation",
                "program",
                "optimizer",
                "user.place",
                "new",
            ]);
            let value = rng.of(&[
                "0",
                "1",
                "2",
                "3",
                "4",
                "-1",
                "NaN",
                "inf",
                "1e-3",
                "1e39",
                "",
                "0 1",
                "1 1 1 0",
                "2",
                "0 99",
                "adam",
                "sgd",
                "checkpointed",
                "none",
                "18446744073709551615",
                "9007199254740993",
                "k1 = 2, k2 = 4",
                "\u{0}",
                "λ",
            ]);
            forged.note(key, value);
            continue;
        }
        let name = rng.of(&names);
        let shape = rng.of(&[
            vec![],
            vec![1],
            vec![3],
            vec![2, 3],
            vec![3, 3],
            vec![3, 2],
            vec![0],
            vec![2],
            vec![1, 2],
            vec![3, 2, 2],
        ]);
        let shape = if rng.once_in(2) { own_shape(whole, &name).unwrap_or(shape) } else { shape };
        let special = rng.of(&[f32::NAN, f32::INFINITY, -1.0, 0.5, 1e38, 0.0, 1.0, f32::MIN_POSITIVE / 8.0]);
        match rng.below(5) {
            0 => forged.insert(name, ArrayD::from_elem(shape, rng.of(&[-1, 0, 2, 3, i32::MAX, i32::MIN]))),
            1 => forged.insert(name, ArrayD::from_elem(shape, f64::from(special))),
            2 => {
                let taken = own_shape(whole, &name).unwrap_or_default();
                let _ = forged.take::<f32>(&name, &taken);
            }
            3 => forged.insert("stranger", ArrayD::from_elem(shape, special)),
            _ => forged.insert(name, ArrayD::from_elem(shape, special)),
        }
    }
    forged
}

fn own_shape(whole: &Checkpoint, name: &str) -> Option<Vec<usize>> {
    whole.tensor(name).map(|t| t.shape().to_vec())
}

impl Target for Checkpoints {
    fn run(&mut self, case: u64, counts: &mut Counts) -> Result<(), String> {
        let mut rng = Random::new(case, 0);
        let which = rng.below(self.saved.len());
        let Saved { trainer, bytes, whole } = &mut self.saved[which];
        let is_forged = rng.once_in(2);
        if is_forged {
            forge(whole, &mut rng).save(&self.path).map_err(|e| format!("is not saved: {e}"))?;
        } else {
            let mut bytes = bytes.clone();
            damage(&mut bytes, &mut rng);
            fs::write(&self.path, bytes).map_err(|e| e.to_string())?;
        }
        let loaded = trainer.load(&self.path);
        let count = match (is_forged, loaded.is_ok()) {
            (true, true) => "forged taken",
            (true, false) => "forged refused",
            (false, true) => "damaged taken",
            (false, false) => "damaged refused",
        };
        *counts.entry(count).or_default() += 1;
        if loaded.is_err() {
            return Ok(());
        }
        let file = Checkpoint::load(&self.path).map_err(|e| format!("is loaded once and not twice: {e}"))?;
        if !is_forged && !same_tensors(&file, whole) {
            return Err("a damaged file is taken as another".to_string());
        }
        trainer.save(&self.other).map_err(|e| format!("what was loaded is not saved: {e}"))?;
        let again =
            Checkpoint::load(&self.other).map_err(|e| format!("what was loaded and saved is not loaded: {e}"))?;
        if !same_tensors(&again, &file) {
            return Err("what is loaded and saved has other tensors".to_string());
        }
        *counts.entry(if step(trainer) { "gone on" } else { "refused to go on" }).or_default() += 1;
        let place = self.path.clone();
        fs::write(&place, &*bytes).map_err(|e| e.to_string())?;
        trainer.load(&place).map_err(|e| format!("the file as it was saved is refused after that: {e}"))
    }

    fn show(&mut self, case: u64) -> String {
        let mut rng = Random::new(case, 0);
        let saved = &self.saved[rng.below(self.saved.len())];
        match rng.once_in(2) {
            true => format!("{:?}", forge(&saved.whole, &mut rng)),
            false => {
                let mut bytes = saved.bytes.clone();
                damage(&mut bytes, &mut rng);
                String::from_utf8_lossy(&bytes[..bytes.len().min(1500)]).into_owned()
            }
        }
    }
}

/// Bit for bit: NaN is NaN.
fn same_tensors(a: &Checkpoint, b: &Checkpoint) -> bool {
    let all =
        |c: &Checkpoint| c.names().map(|n| (n.to_string(), c.tensor(n).map(|t| format!("{t:?}")))).collect::<Vec<_>>();
    all(a) == all(b)
}
