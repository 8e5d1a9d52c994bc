//! Which instruction set runs is the user's choice: by a setting, which all that a trainer makes follow, or by an
//! environment variable. What the machine does not have is an error when a program is compiled.

mod check;

use std::process::Command;

use ndarray::arr2;
use retrograd::cells;
use retrograd::compiler::codegen::Precision;
use retrograd::prelude::*;
use retrograd::runtime::error::{DecodeError, RunError};
use retrograd::runtime::float::Float;
use retrograd::runtime::session::Session;
use retrograd::runtime::settings::INSTRUCTION_SET_VARIABLE;
use retrograd::runtime::stages::stages_with;

/// What tests in a process of their own are told by.
const CHILD: &str = "RETROGRAD_TEST_CHILD";

fn program() -> Program {
    let program = Program::record("tagger", |p| {
        let (x, tag) = (p.sequence("x", 5), p.labels_sequence("tag"));
        let h = p.scan("lstm", |s| cells::lstm(s, s.at(x), 12)).all();
        let logits = p.affine("readout", cells_of_norm(h), 3);
        p.output("logits", logits);
        p.minimize(logits.cross_entropy(tag));
    });
    program.expect("no mistakes")
}

/// Rows with sums, selections and routines, so that all forms of kernels are there.
fn cells_of_norm(h: Expr) -> Expr {
    let centred = h - h.mean_features();
    (centred / (centred.square().mean_features() + 1e-5).sqrt()).relu() + h.softplus()
}

/// A set of another architecture.
const ELSEWHERE: InstructionSet =
    if cfg!(target_arch = "aarch64") { InstructionSet::Avx2 } else { InstructionSet::Neon };

#[test]
fn all_that_a_trainer_makes_follows_its_setting() {
    let program = program();
    for set in InstructionSet::available() {
        let mut trainer =
            program.trainer(Adam::new(0.1)).instruction_set(set).threads(2).compile().expect("it is here");
        assert_eq!(trainer.session().compiled().instruction_set, set);
        let stream = trainer.stream(2).expect("it is here");
        assert_eq!(stream.session().compiled().instruction_set, set);
        let mut decoder = trainer.decoder("time").expect("it is here");
        assert_eq!(decoder.stream().session().compiled().instruction_set, set);
        let feed = Feed::new().f32_slice("x", &[2, 1, 5], &[0.5; 10]).i32_slice("tag", &[2, 1], &[0, 2]);
        let loss = trainer.evaluate(&feed).expect("a finite number");
        assert_eq!(trainer.step(&feed).expect("a finite number").loss, loss, "{set}: evaluation uses the same code");
        let stream = program.stream_with(1, 0, Settings::new().instruction_set(set)).expect("it is here");
        assert_eq!(stream.session().compiled().instruction_set, set);
        let settings = Settings::new().instruction_set(set);
        let mut decoder = program.decoder_with("time", 0, settings).expect("it is here");
        assert_eq!(decoder.stream().session().compiled().instruction_set, set);
    }
}

#[test]
fn what_the_machine_does_not_have_is_refused() {
    let program = program();
    let settings = Settings::new().instruction_set(ELSEWHERE);
    let available = InstructionSet::available().map(|set| format!("`{set}`")).collect::<Vec<_>>().join(", ");
    let expected = format!("the instruction set is `{ELSEWHERE}`; this machine has {available}");
    let refused = |error: Option<RunError>| {
        let error = error.expect("it is refused");
        assert!(matches!(error, RunError::Setting { .. }));
        assert_eq!(error.to_string(), expected);
    };
    refused(Session::<f32>::new(&program, settings).err());
    refused(program.trainer(Adam::new(0.1)).instruction_set(ELSEWHERE).compile().err());
    refused(program.stream_with(1, 0, settings).err());
    match program.decoder_with("time", 0, settings).err() {
        Some(DecodeError::Run(error)) => refused(Some(error)),
        other => panic!("{other:?}"),
    }
    refused(stages_with::<f32>(&program, settings).err());
}

/// Runs the test `child` of this file with what the variable says, and gives what it writes.
fn with_variable(word: &str) -> String {
    let me = std::env::current_exe().expect("a test is a program");
    let mut command = Command::new(me);
    command.args(["--exact", "child", "--nocapture"]).env(CHILD, "1").env(INSTRUCTION_SET_VARIABLE, word);
    let output = command.output().expect("it starts");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find_map(|line| line.split("compiled: ").nth(1));
    line.unwrap_or_else(|| panic!("no result in {text}")).to_string()
}

#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let program = Program::record("twice", |p| p.output("y", 2.0 * p.input("x", 2))).expect("no mistakes");
    match Session::<f32>::new(&program, 1) {
        Ok(mut session) => {
            session.run(&Feed::new().f32("x", arr2(&[[1.0, 2.0]]).view())).expect("inputs fit");
            println!("compiled: {}", session.compiled().instruction_set);
        }
        Err(e) => println!("compiled: {e}"),
    }
    // A setting goes before the environment, whatever that says.
    let settings = Settings::new().instruction_set(InstructionSet::Portable);
    let session = Session::<f32>::new(&program, settings).expect("every machine has it");
    assert_eq!(session.compiled().instruction_set, InstructionSet::Portable);
}

#[test]
fn the_environment_chooses() {
    for set in InstructionSet::available() {
        assert_eq!(with_variable(set.name()), set.name());
    }
    assert_eq!(with_variable(""), InstructionSet::best().name(), "nothing is said");
    assert_eq!(with_variable("Portable"), "portable");
    let available = InstructionSet::available().map(|set| format!("`{set}`")).collect::<Vec<_>>().join(", ");
    for word in ["avx3", ELSEWHERE.name()] {
        let expected =
            format!("the environment variable RETROGRAD_INSTRUCTION_SET is `{word}`; this machine has {available}");
        assert_eq!(with_variable(word), expected);
    }
}

/// Machine code of a set uses no instruction of a larger one.
#[test]
#[cfg(target_arch = "x86_64")]
fn code_keeps_to_its_set() {
    let (program, is_wide) = (program(), |code: &str| code.lines().any(|l| l.trim_start().starts_with('v')));
    let code = |set| {
        let settings = Settings::new().instruction_set(set);
        let stages = stages_with::<f32>(&program, settings).expect("it is here");
        stages.kernels.into_iter().map(|k| k.disassembly).collect::<Vec<_>>().join("\n")
    };
    let portable = code(InstructionSet::Portable);
    assert!(portable.contains("mulps") && !is_wide(&portable), "no AVX in portable code:\n{portable}");
    let of_sse4 = ["pblend", "blendv", "round", "pinsr", "pextr", "insertps", "pshufb", "palignr", "movddup", "haddp"];
    let found = of_sse4.iter().find(|name| portable.contains(*name));
    assert_eq!(found, None, "nothing behind SSE2 in portable code");
    for set in InstructionSet::available().filter(|&set| set != InstructionSet::Portable) {
        assert!(is_wide(&code(set)), "{set} has AVX");
    }
}

/// Operands of a comparison that do not lie on whole vectors: without AVX no instruction may take them from memory.
#[test]
fn operands_lie_anywhere() {
    let program = Program::record("anywhere", |p| {
        let x = p.sequence("x", 11);
        let (a, b) = (x.slice_axis(0, 1..6), x.slice_axis(0, 3..8));
        p.output("y", select(a.gt(b), a, b * 2.0) + a.maximum(b) + a.minimum(b));
    });
    let program = program.expect("no mistakes");
    let sizes = Sizes { batch: 3, steps: vec![2] };
    check::check(&program, &[sizes], check::FULL).unwrap();
    #[cfg(target_arch = "x86_64")]
    for stages in
        [InstructionSet::Portable].map(|set| stages_with::<f64>(&program, Settings::new().instruction_set(set)))
    {
        let code = stages.expect("every machine has it").kernels.remove(0).disassembly;
        let packed = |line: &&str| {
            let name = line.split_whitespace().next().unwrap_or_default();
            (name.ends_with("ps") || name.ends_with("pd")) && !name.starts_with("mov")
        };
        assert!(code.lines().any(|line| packed(&line)), "there is something to look at");
        let from_memory = code.lines().filter(packed).find(|line| line.contains('(') && !line.contains("rip"));
        assert_eq!(from_memory, None, "{code}");
    }
}

/// What the gate prints.
#[test]
fn tests_run_on() {
    let sets = check::sets::sets();
    assert!(!sets.is_empty());
    println!("tests run on: {}", sets.iter().map(|set| set.name()).collect::<Vec<_>>().join(", "));
}

/// A table of routines says what it is of.
#[test]
fn tables_are_of_their_set() {
    for set in InstructionSet::available() {
        assert_eq!(f32::table(set).instruction_set(), set);
        assert_eq!(f64::table(set).instruction_set(), set);
        assert_eq!(<f32 as Float>::PRECISION, Precision::F32);
    }
}
