//! Subnormal numbers count as zero in whatever is run, and the caller's control register is left alone.
//!
//! Given normal numbers, however small, no program of the corpus, no derivative and no optimiser gives a subnormal one,
//! on one thread or on more, in 32 or 64 bits, on every instruction set; and the bits are those of one thread.

mod check;
mod corpus;

use check::{Found, same_bits, sizes, values};
use retrograd::compiler::interpret::Values;
use retrograd::compiler::ir::{DType, Program};
use retrograd::prelude::*;
use retrograd::runtime::float::Float;
use retrograd::runtime::optimizer::{Clip, Optimizer, training_program};
use retrograd::runtime::session::{Session, Sharing};
use retrograd::runtime::settings::{InstructionSet, Settings};
use retrograd::testing::{Numbers, run};

/// The least normal numbers.
const F32_LEAST: f64 = f32::MIN_POSITIVE as f64;
const F64_LEAST: f64 = f64::MIN_POSITIVE;

/// Values of a program, all floats brought down to the size of `scale`, but not below the least normal number.
fn small(program: &Program, mut values: Values, scale: f64, least: f64) -> Values {
    for (name, data) in &mut values {
        if data.ty.dtype == DType::F32 && !name.contains("mask") && !name.contains("window.") {
            for x in &mut data.x {
                let y = x.re * scale;
                x.re = if y.abs() < least { 0.0 } else { y };
                if least > F64_LEAST {
                    // As the engine is given it.
                    x.re = f64::from(x.re as f32);
                }
            }
        }
    }
    assert_eq!(values.len(), program.parameters.len() + program.inputs.len());
    values
}

/// What a run gives, none of which may be subnormal.
fn flushed<E: Float>(session: &mut Session<E>, values: &Values, least: f64) -> Found<Numbers> {
    let numbers = run(session, values, &sizes(5, 3)).map_err(|e| format!("running: {e}"))?;
    for (name, x) in &numbers {
        if let Some(i) = x.iter().position(|x| *x != 0.0 && x.abs() < least) {
            return Err(format!("{name}[{i}] is {:e}", x[i]));
        }
    }
    Ok(numbers)
}

fn check_precision<E: Float>(program: &Program, set: InstructionSet, scales: &[f64], least: f64) -> Found {
    let settings = Settings::new().instruction_set(set);
    let mut session = Session::<E>::new(program, settings).map_err(|e| e.to_string())?;
    let mut team = Session::<E>::new(program, settings.threads(3)).map_err(|e| e.to_string())?;
    for &scale in scales {
        let at = |e: String| {
            format!("`{}` of numbers of {scale:e} in {} bits, {set}: {e}", program.name, 8 * size_of::<E>())
        };
        let values = small(program, values(program, &sizes(5, 3), 7), scale, least);
        let expected = flushed(&mut session, &values, least).map_err(at)?;
        for sharing in [Sharing::Rows, Sharing::Features] {
            team.share(sharing);
            let given = flushed(&mut team, &values, least).map_err(at)?;
            same_bits(&format!("3 threads, {sharing:?}"), &given, &expected).map_err(at)?;
        }
    }
    Ok(())
}

fn check(program: &Program) -> Found {
    InstructionSet::available().try_for_each(|set| {
        check_precision::<f32>(program, set, &[1e-13, 1e-19, 2e-38], F32_LEAST)?;
        check_precision::<f64>(program, set, &[1e-103, 4e-308], F64_LEAST)
    })
}

/// The programs, those with an objective differentiated.
fn check_all(programs: impl IntoIterator<Item = Program>) {
    let joint = |p: Program| if p.objective.is_some() { p.backward().expect("it has an objective") } else { p };
    let failures: Vec<String> = programs.into_iter().filter_map(|p| check(&joint(p)).err()).collect();
    assert!(failures.is_empty(), "{} programs fail:\n\n{}\n", failures.len(), failures.join("\n\n"));
}

#[test]
fn cells_and_loops() {
    check_all(corpus::cells::programs().into_iter().chain(corpus::loops::programs()));
}

#[test]
fn models() {
    check_all(corpus::models::programs());
}

#[test]
fn functions() {
    let all = corpus::ops::programs().into_iter().chain(corpus::ops::along_features());
    check_all(all.chain(corpus::shapes::programs()));
}

#[test]
fn optimisers() {
    let program = corpus::record("rows", |p| {
        let words = p.embedding("words", p.labels("word"), 7, 5);
        p.minimize(p.affine("readout", words, 3).square().mean_features().mean_rows());
    });
    let joint = program.backward().expect("it has an objective");
    let optimisers: [(&str, Box<dyn Optimizer>); 4] = [
        ("adam", Box::new(Adam::new(1e-3))),
        ("adamw", Box::new(AdamW::new(1e-3))),
        ("rmsprop", Box::new(RmsProp::new(1e-3))),
        ("sgd", Box::new(Sgd::new(0.1).momentum(0.9))),
    ];
    for (name, optimiser) in optimisers {
        let training = training_program(&joint, &*optimiser, Clip::default()).expect("it is recorded");
        check(&training).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

/// A state halves from 1: it is 2^-t as long as that is normal, and then 0. Its derivative, 2^-(T - 1 - t) at the step t
/// that a parameter is looked up for, is too.
#[test]
fn what_decays_ends_in_zero() {
    let program = corpus::record("halves", |p| {
        let (begin, step) = (p.input("begin", 9), p.labels_sequence("step"));
        let given = p.embedding("given", step, 140, 9);
        let run = p.scan("halves", |s| {
            let h = s.state_from("h", begin);
            s.next(h, 0.5 * h + s.at(given))
        });
        p.output("all", run.all());
        p.minimize(run.last().sum().sum_rows());
    });
    let joint = program.backward().expect("it has an objective");
    let (steps, batch) = (140, 2);
    let begin = vec![1.0; batch * 9];
    let number: Vec<i32> = (0..steps as i32).flat_map(|t| [t, t]).collect();
    let shapes = ([batch, 9], [steps, batch]);
    let feed = Feed::new().f32_slice("begin", &shapes.0, &begin).i32_slice("step", &shapes.1, &number);
    for threads in 1..=2 {
        let mut session = Session::<f32>::new(&joint, threads).expect("it compiles here");
        session.share(Sharing::Rows);
        session.run(&feed).expect("inputs fit");
        let expected = |halvings: i32| if halvings <= 126 { 0.5f32.powi(halvings) } else { 0.0 };
        let all = session.output("all").expect("an output");
        for ((t, _, _), x) in all.into_dimensionality::<ndarray::Ix3>().expect("[T, B, 9]").indexed_iter() {
            assert_eq!(x.to_bits(), expected(t as i32 + 1).to_bits(), "state {t}, {threads} threads");
        }
        let gradient = session.output("d.given.table").expect("an output");
        for ((t, _), x) in gradient.into_dimensionality::<ndarray::Ix2>().expect("[140, 9]").indexed_iter() {
            // Two samples.
            let each = expected((steps - 1 - t) as i32);
            assert_eq!(x.to_bits(), (2.0 * each).to_bits(), "derivative {t}, {threads} threads");
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod register {
    use std::arch::asm;

    use super::*;

    fn read() -> u32 {
        let mut word = 0u32;
        // SAFETY: it writes four bytes to a local variable.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut word) };
        word
    }

    fn write(word: u32) {
        // SAFETY: it reads four bytes.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const word) };
    }

    /// Rounding up, rounding towards zero, sticky flags, and all exceptions unmasked: of no consequence to the bits of a
    /// run, and there afterwards.
    #[test]
    fn whatever_the_caller_has_set_results_are_the_same_and_it_stays_set() {
        let program = corpus::record("net", |p| {
            let x = p.sequence("x", 5);
            let run = p.scan("lstm", |s| retrograd::cells::lstm(s, s.at(x), 9));
            p.output("y", run.all());
            p.minimize(p.affine("readout", run.last(), 3).square().mean_features().mean_rows());
        });
        let x: Vec<f32> =
            (0..6 * 4 * 5).map(|i| (i as f32 * 0.37).sin() * if i % 7 == 0 { 1e-39 } else { 1.0 }).collect();
        let feed = || Feed::new().f32_slice("x", &[6, 4, 5], &x);
        let train = |word: u32| {
            let default = read();
            write(word);
            let mut trainer = program.trainer(Adam::new(1e-2)).threads(2).schedule(Schedule::cosine(9)).compile();
            let trainer = trainer.as_mut().expect("it compiles here");
            let losses: Vec<u64> = (0..3).map(|_| trainer.step(&feed()).expect("inputs fit").loss.to_bits()).collect();
            let evaluated = trainer.evaluate(&feed()).expect("inputs fit").to_bits();
            let mut stream = trainer.stream(4).expect("it compiles here");
            let mut y = vec![0.0; 4 * 9];
            for step in x.chunks(4 * 5) {
                stream.set_f32("x", step).expect("its size");
                stream.advance().expect("all is set");
                stream.get_f32("y", &mut y).expect("its size");
            }
            let after = read();
            write(default);
            assert_eq!(after, word, "{word:#x} is there afterwards");
            let y: Vec<u32> = y.iter().map(|y| y.to_bits()).collect();
            (losses, evaluated, y)
        };
        let expected = train(0x1f80);
        // Masks are bits 7 to 12, the rounding mode bits 13 and 14, sticky flags bits 0 to 5.
        for word in [0x1f80 | 0b10 << 13, 0x1f80 | 0b11 << 13, 0x1fbf, 0x9fc0, 0x0000] {
            assert_eq!(train(word), expected, "{word:#x}");
        }
    }
}
