//! Streams: a program that runs one step at a time and keeps its states between calls.
//!
//! A stream is compiled from the program as it is [outside of training](Program::outside_training), without its objective.
//! After each step its outputs are what the program gives of the steps so far, at the last of them. Outputs for which that
//! cannot be computed ([`time::obstacles`]) are not among a stream's; a program none of whose outputs can be is refused.
//!
//! **Which inputs must be set.** An output needs the inputs that it is computed of, at this step and, by way of states, at
//! those before. A step runs if all is set that one output needs; what else was not set withholds the outputs that need it
//! until the next reset: reading one is an error that names the input. So targets, which outputs beside the predictions may
//! need, are not asked for. [Lengths](retrograd_compiler::record::TimeAxis::lengths) that are not set are 1: samples go on.

use ndarray::ArrayD;
use retrograd_compiler::ir::{Axis, DType, Extent, Input, Op, Program, Sizes, Type, Value};
use retrograd_compiler::time::{self, CarriedState, Obstacle};

use crate::error::RunError;
use crate::feed::{Feed, View, check_type, is_given, position};
use crate::session::{Rows, Session};
use crate::settings::Settings;

/// A program that runs one step at a time and keeps its states between calls.
///
/// A step allocates nothing: inputs are copied into memory that is there, and outputs out of it.
///
/// All loops of the program take a step at a time, over whichever axis they run. Where one must have ended before another
/// begins, as an encoder before its decoder, the second is streamed by a [`Decoder`](crate::decode::Decoder).
///
/// ```
/// use retrograd_compiler::ir::Program;
/// use retrograd_runtime::train::Training;
///
/// let program = Program::record("mean", |p| {
///     let x = p.sequence("x", 1);
///     let run = p.scan("mean", |s| {
///         let m = s.state("m", 1);
///         s.next(m, 0.5 * m + 0.5 * s.at(x))
///     });
///     p.output("mean", run.all());
/// })?;
/// let mut stream = program.stream(1, 0)?;
/// let mut mean = [0.0];
/// for x in [4.0, 2.0] {
///     stream.set_f32("x", &[x])?;
///     stream.advance()?;
///     stream.get_f32("mean", &mut mean)?;
/// }
/// assert_eq!(mean, [2.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Stream {
    pub(crate) session: Session<f32>,
    /// For each input of the program, whether it has been set since the start.
    set: Vec<bool>,
    /// All inputs have been set.
    complete: bool,
    /// For each output of the program, the inputs that it needs.
    needs: Vec<Vec<usize>>,
    /// Lengths of samples: they are 1 where they are not set.
    lengths: Vec<usize>,
    /// Outputs of the program that no stream has, and why.
    refused: Vec<(String, Obstacle)>,
    /// Room for states that change places.
    rows: Rows<f32>,
}

impl Stream {
    pub(crate) fn new(program: &Program, batch: usize, settings: Settings) -> Result<Stream, RunError> {
        let _flushing = crate::flush::Flushing::begin();
        if batch == 0 {
            return Err(RunError::Setting {
                setting: "the batch of a stream".to_string(),
                given: "0".to_string(),
                allowed: "at least 1 is needed".to_string(),
            });
        }
        // The objective needs targets, which a stream has not: it goes, with the inputs that only it reads.
        let program = time::infer(&program.outside_training());
        let found = time::obstacles(&program.graph);
        let obstacle = |v: Value| found[v.index()].clone();
        for update in &program.updates {
            if let (Some(reason @ Obstacle::Backwards { .. }), Op::Parameter(name) | Op::Input(name)) =
                (obstacle(update.value), program.graph.op(update.target))
            {
                return Err(RunError::NotStepwise { output: name.clone(), reason });
            }
        }
        let refused: Vec<(String, Obstacle)> =
            program.outputs.iter().filter_map(|(name, v)| Some((name.clone(), obstacle(*v)?))).collect();
        if let (true, Some((output, reason))) = (program.outputs.len() == refused.len(), refused.first()) {
            return Err(RunError::NotStepwise { output: output.clone(), reason: reason.clone() });
        }
        let program = time::restrict(&program, |name| refused.iter().all(|(output, _)| output != name));
        let (program, carried) = time::carry_state(&program);
        let (needs, lengths) = (needs(&program, &carried), lengths(&program));
        let session = Session::with_carried(&program, carried, settings.one_step())?;
        let (set, rows) = (Vec::new(), Rows::default());
        let mut stream = Stream { session, set, complete: false, needs, lengths, refused, rows };
        stream.bind(batch)?;
        Ok(stream)
    }

    /// Starts anew with another number of samples, at least 1. No input is set then. Without memory for them all is as
    /// before.
    pub(crate) fn bind(&mut self, batch: usize) -> Result<(), RunError> {
        self.session.bind(&Sizes { batch, steps: vec![1; usize::from(Axis::MAX)] })?;
        self.session.reset_state();
        self.session.forget_outputs();
        let program = self.session.program();
        self.set = program.inputs.iter().map(|i| !is_given(program, i)).collect();
        self.complete = false;
        for i in self.lengths.clone() {
            self.session.write_input_i32(i, &vec![1; batch]).expect("a length of one step");
            self.set[i] = true;
        }
        Ok(())
    }

    pub(crate) fn initialise(&mut self, seed: u64) -> Result<(), RunError> {
        self.session.initialise(seed)
    }

    pub(crate) fn take_parameters(&mut self, other: &Session<f32>) {
        self.session.take_parameters(other);
    }

    /// Takes each step with so many threads from now on; none counts as one. One is what a stream starts with, and the best
    /// for small nets: with two, a step of an LSTM of 256 units gains, one of 64 does not. Threads wait for the next step
    /// some microseconds, and then sleep. Results have the same bits whatever it is.
    ///
    /// # Errors
    /// As [`Session::set_threads`].
    pub fn set_threads(&mut self, threads: usize) -> Result<(), RunError> {
        self.session.set_threads(threads)
    }

    /// Number of samples, each of which has a row of its own in inputs, states and outputs.
    pub fn batch(&self) -> usize {
        self.session.sizes().batch
    }

    /// Sets a float input for this step and those after it: `[B, features..]` one row after another, without a time
    /// axis.
    ///
    /// # Errors
    /// If there is no such input, or it has another number of elements.
    pub fn set_f32(&mut self, name: &str, values: &[f32]) -> Result<(), RunError> {
        let i = self.input(name)?;
        self.session.write_input(i, values)?;
        self.set[i] = true;
        Ok(())
    }

    /// Sets an integer input; see [`set_f32`](Stream::set_f32).
    ///
    /// # Errors
    /// As there, and if a value is out of the range that the program can look up.
    pub fn set_i32(&mut self, name: &str, values: &[i32]) -> Result<(), RunError> {
        let i = self.input(name)?;
        self.session.write_input_i32(i, values)?;
        self.set[i] = true;
        Ok(())
    }

    fn input(&self, name: &str) -> Result<usize, RunError> {
        position(self.session.program(), name)
    }

    /// Runs one step.
    ///
    /// # Errors
    /// If each output needs an input that has never been set, or a loop has [room][most] for no more steps.
    ///
    /// [most]: retrograd_compiler::record::Step::at_most
    pub fn advance(&mut self) -> Result<(), RunError> {
        if !self.complete {
            self.check_set()?;
            let unset = |needs: &Vec<usize>| needs.iter().copied().find(|&i| !self.set[i]);
            let withheld: Vec<Option<usize>> = self.needs.iter().map(unset).collect();
            for (output, input) in withheld.into_iter().enumerate() {
                if let Some(input) = input {
                    self.session.withhold(output, input);
                }
            }
            self.complete = self.set.iter().all(|&set| set);
        }
        self.session.advance_step()
    }

    /// All that one output needs has been set since the start; everything, if there is no output.
    fn check_set(&self) -> Result<(), RunError> {
        if self.complete {
            return Ok(());
        }
        let unset = |needs: &Vec<usize>| needs.iter().copied().find(|&i| !self.set[i]);
        let missing = match self.needs.iter().map(unset).reduce(|one, other| one.and(other).and(one)) {
            Some(missing) => missing,
            None => self.set.iter().position(|set| !set),
        };
        let Some(i) = missing else { return Ok(()) };
        let input = &self.session.program().inputs[i];
        let expected = self.session.program().ty(input.value).clone();
        Err(RunError::MissingInput { input: input.name.clone(), expected })
    }

    /// Names of the states: `<scan>.<state>`, such as `decoder.layer1.h`. Names that occur more than once have a number
    /// behind them from the second on.
    pub fn state_names(&self) -> impl Iterator<Item = &str> {
        self.session.carried().map(state_name)
    }

    /// A state after the last step: `[B, features..]`. `None` if there is no float state of this name, or no step has
    /// been run since the start.
    pub fn state(&self, name: &str) -> Option<ArrayD<f32>> {
        let input = self.float_state(name)?;
        self.session.going().map(|_| self.session.stored_floats(input))
    }

    /// Sets a state, from which the next step goes on: `[B, features..]`, one row after another. Before the first step,
    /// states that are not set start as the program says.
    ///
    /// # Errors
    /// If there is no float state of this name, it has another number of elements, or an input has never been set (what
    /// states start from may depend on it).
    pub fn set_state(&mut self, name: &str, values: &[f32]) -> Result<(), RunError> {
        let program = self.session.program();
        let Some(input) = self.float_state(name).and_then(|name| program.input(name)) else {
            let known = self.state_names().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
            return Err(RunError::Setting {
                setting: "the state to set".to_string(),
                given: format!("`{name}`"),
                allowed: format!("float states are among {known}"),
            });
        };
        let mut shape = vec![self.batch()];
        shape.extend(&program.ty(input.value).shape.0);
        let input = input.name.clone();
        if shape.iter().product::<usize>() != values.len() {
            return Err(RunError::WrongLength { input, shape, length: values.len() });
        }
        self.check_set()?;
        self.session.begin();
        self.session.set_stored_floats(&input, values);
        Ok(())
    }

    /// Gives each sample the states of another: row b goes on from where row `from[b]` is. The same row may be taken more
    /// than once, as the best hypotheses of a beam search are. Allocates nothing but for the first time.
    ///
    /// # Errors
    /// If `from` has not one row of this stream for each, or an input has never been set.
    pub fn reorder(&mut self, from: &[usize]) -> Result<(), RunError> {
        let batch = self.batch();
        if from.len() != batch || from.iter().any(|&row| row >= batch) {
            return Err(RunError::Setting {
                setting: "the new order of a stream's rows".to_string(),
                given: format!("{from:?}"),
                allowed: format!("{batch} rows are needed, each from 0 to {}", batch - 1),
            });
        }
        self.check_set()?;
        self.session.begin();
        self.session.reorder(from, &mut self.rows);
        Ok(())
    }

    fn float_state(&self, name: &str) -> Option<&str> {
        let program = self.session.program();
        let input = self.session.carried().find(|input| state_name(input) == name)?;
        program.input(input).filter(|i| program.ty(i.value).is_float()).map(|_| input)
    }

    /// Copies a float output of the last step, `[B, features..]` one row after another.
    ///
    /// # Errors
    /// If there is no such float output, it has another number of elements, no step has been run since the start, or an
    /// input that it needs was not set at each step since then.
    pub fn get_f32(&self, name: &str, into: &mut [f32]) -> Result<(), RunError> {
        self.told(name, self.session.copy_output(name, into))
    }

    /// Copies an integer output of the last step.
    ///
    /// ```
    /// use retrograd_compiler::ir::Program;
    /// use retrograd_runtime::train::Training;
    ///
    /// let program = Program::record("largest", |p| p.output("which", p.sequence("x", 3).argmax()))?;
    /// let mut stream = program.stream(2, 0)?;
    /// let mut which = [0; 2];
    /// let early = stream.get_i32("which", &mut which).unwrap_err().to_string();
    /// assert!(early.starts_with("output `which` has no value yet"), "{early}");
    /// stream.set_f32("x", &[1.0, 3.0, 2.0, 5.0, 0.0, 0.0])?;
    /// stream.advance()?;
    /// stream.get_i32("which", &mut which)?;
    /// assert_eq!(which, [1, 0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get_f32`](Stream::get_f32).
    pub fn get_i32(&self, name: &str, into: &mut [i32]) -> Result<(), RunError> {
        self.told(name, self.session.copy_output_i32(name, into))
    }

    /// Says of an output that the program has, and the stream has not, why that is so.
    fn told(&self, name: &str, result: Result<(), RunError>) -> Result<(), RunError> {
        match (&result, self.refused.iter().find(|(output, _)| output == name)) {
            (Err(RunError::UnknownOutput { .. }), Some((output, reason))) => {
                Err(RunError::NotStepwise { output: output.clone(), reason: reason.clone() })
            }
            _ => result,
        }
    }

    /// One step with named arrays, `[B, features..]` each: [`set_f32`](Stream::set_f32) for all of them, then
    /// [`advance`](Stream::advance).
    ///
    /// ```
    /// use retrograd_compiler::ir::Program;
    /// use retrograd_runtime::feed::Feed;
    /// use retrograd_runtime::train::Training;
    ///
    /// let program = Program::record("double", |p| p.output("y", p.sequence("x", 3) * 2.0))?;
    /// let mut stream = program.stream(2, 0)?;
    /// let x = ndarray::arr2(&[[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    /// stream.step(&Feed::new().f32("x", x.view()))?;
    /// let mut y = [0.0; 6];
    /// stream.get_f32("y", &mut y)?;
    /// assert_eq!(y, [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
    /// // The other way round it has as many numbers, and is refused all the same.
    /// let error = stream.step(&Feed::new().f32("x", x.t())).err().expect("refused").to_string();
    /// assert!(error.contains("[3, 2]"), "{error}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As there, and if an array is not of this shape. Then no input is set and no step is run.
    pub fn step(&mut self, feed: &Feed) -> Result<&Session<f32>, RunError> {
        let program = self.session.program();
        for (name, view) in feed.arrays()? {
            let ty = program.ty(program.inputs[self.input(name)?].value);
            check_type(name, view, &ty.at(ty.extent.min(Extent::Batch)))?;
            if ty.extent != Extent::Shared && view.shape()[0] != self.batch() {
                return Err(RunError::Setting {
                    setting: format!("the batch of a stream's input `{name}`"),
                    given: view.shape()[0].to_string(),
                    allowed: format!("this stream has {} samples", self.batch()),
                });
            }
        }
        for (name, view) in feed.arrays()? {
            match view {
                View::F32(a) => self.set_f32(name, a.as_standard_layout().as_slice().expect("standard layout"))?,
                View::I32(a) => self.set_i32(name, a.as_standard_layout().as_slice().expect("standard layout"))?,
            }
        }
        self.advance()?;
        Ok(&self.session)
    }

    /// Forgets the states: the next step is a first one. Inputs stay as they were set.
    pub fn reset(&mut self) {
        self.session.reset_state();
        self.session.forget_outputs();
        self.complete = false;
    }

    /// The compiled program behind it.
    pub fn session(&self) -> &Session<f32> {
        &self.session
    }
}

/// What the user calls a state that is carried by this input.
fn state_name(input: &str) -> &str {
    input.strip_prefix("state.").expect("inputs that carry states are named so")
}

/// For each output of a program with carried states, the inputs that it needs, at this step or at one before.
fn needs(program: &Program, carried: &[CarriedState]) -> Vec<Vec<usize>> {
    let of_value = |wanted: &[Value]| -> Vec<bool> {
        let needed = program.graph.reachable(wanted.iter().copied());
        program.inputs.iter().map(|i| needed[i.value.index()]).collect()
    };
    // What is stored comes from its update, and at first from what a state starts from.
    let stored: Vec<Option<Vec<bool>>> = program
        .inputs
        .iter()
        .map(|input| {
            let update = program.updates.iter().find(|u| u.target == input.value)?;
            let initial = carried.iter().find(|c| c.input == input.name).map(|c| c.initial);
            Some(of_value(&initial.into_iter().chain([update.value]).collect::<Vec<_>>()))
        })
        .collect();
    let closed = |mut needed: Vec<bool>| {
        let mut todo: Vec<usize> = (0..needed.len()).filter(|&i| needed[i]).collect();
        while let Some(i) = todo.pop() {
            for (j, more) in stored[i].iter().flatten().enumerate() {
                if *more && !needed[j] {
                    needed[j] = true;
                    todo.push(j);
                }
            }
        }
        (0..needed.len()).filter(|&i| needed[i] && stored[i].is_none()).collect()
    };
    program.outputs.iter().map(|(_, v)| closed(of_value(&[*v]))).collect()
}

/// The integers of each sample that nothing reads but the loops of lengths.
fn lengths(program: &Program) -> Vec<usize> {
    let graph = &program.graph;
    let roots = program.updates.iter().map(|u| u.target).chain(program.roots());
    let (mut by_loops, mut by_others) = (vec![false; graph.len()], vec![false; graph.len()]);
    roots.for_each(|v| by_others[v.index()] = true);
    for v in graph.values().rev() {
        let counts = matches!(graph.op(v), Op::Within(_));
        for o in graph.operands(v) {
            by_loops[o.index()] |= by_loops[v.index()] || counts;
            by_others[o.index()] |= by_others[v.index()] && !counts;
        }
    }
    let is_length = |i: &Input| {
        by_loops[i.value.index()]
            && !by_others[i.value.index()]
            && *program.ty(i.value) == Type { dtype: DType::I32, ..Type::float(Extent::Batch, ()) }
    };
    (0..program.inputs.len()).filter(|&i| is_length(&program.inputs[i])).collect()
}
