//! A compiled program that can be run: values go in by name, and come out by name.

use std::sync::Arc;
use std::time::Duration;

use ndarray::{ArrayD, ArrayViewD, IxDyn};
use retrograd_compiler::codegen::KernelTable;
use retrograd_compiler::interpret::{self, Values};
use retrograd_compiler::ir::op::Data;
use retrograd_compiler::ir::sizes::times;
use retrograd_compiler::ir::{Axis, DType, Extent, Input, Program, Sizes, Type, Value};
use retrograd_compiler::pipeline::{self, Compiled};
use retrograd_compiler::plan::{Checkpointing, Port};
use retrograd_compiler::time::CarriedState;

use crate::error::{RunError, nearest};
use crate::execute::Executor;
pub use crate::execute::Sharing;
use crate::feed::{self, Feed, View};
use crate::float::Float;
use crate::flush::Flushing;
use crate::init;
use crate::settings::Settings;
use crate::tensor::{Item, Tensor};

/// A program compiled for floats of type `E`, with its parameters and memory.
///
/// Sizes are those of what it is fed: any T ≥ 1 and B ≥ 1, without compiling again.
pub struct Session<E: Float = f32> {
    program: Program,
    executor: Executor<E>,
    /// States that each run takes from the last one.
    carried: Vec<Carried>,
    /// The carried states are those of a run of this batch size; `None`: they start anew.
    going: Option<usize>,
    /// Steps of each axis that carried states have seen since their start.
    seen: [usize; Axis::MAX as usize],
    /// Whether there is a run whose outputs can be read.
    ran: bool,
    /// For each output that must not be read, why: see [`Session::withhold`].
    withheld: Vec<Option<usize>>,
}

/// A state that is carried from run to run.
struct Carried {
    /// Name of the input that holds it.
    input: String,
    /// What it starts from; `None` where the program itself chooses that.
    initial: Option<Value>,
}

impl<E: Float> Session<E> {
    /// Compiles a program for this machine. Settings may be just a number of threads; none counts as one. Parameters are
    /// zero until they are set.
    ///
    /// # Errors
    /// [`RunError::Compile`] if code cannot be generated here; [`RunError::Setting`] for settings without a meaning, such
    /// as segments of no steps or an instruction set that this machine does not have.
    pub fn new(program: &Program, settings: impl Into<Settings>) -> Result<Session<E>, RunError> {
        Session::with(program, Vec::new(), settings.into())
    }

    /// As [`new`](Session::new), for a program with states that its updates carry from run to run, also when the number
    /// of steps changes: the inputs of these names. What they start from the program chooses itself, as one that was
    /// made by [`truncate`](retrograd_compiler::time::truncate()) does.
    ///
    /// # Errors
    /// As there.
    pub fn carrying(
        program: &Program,
        states: Vec<String>,
        settings: impl Into<Settings>,
    ) -> Result<Session<E>, RunError> {
        let carried = states.into_iter().map(|input| Carried { input, initial: None });
        Session::with(program, carried.collect(), settings.into())
    }

    pub(crate) fn with_carried(
        program: &Program,
        carried: Vec<CarriedState>,
        settings: Settings,
    ) -> Result<Session<E>, RunError> {
        let carried = carried.into_iter().map(|c| Carried { input: c.input, initial: Some(c.initial) });
        Session::with(program, carried.collect(), settings)
    }

    fn with(program: &Program, carried: Vec<Carried>, settings: Settings) -> Result<Session<E>, RunError> {
        if let Some(Checkpointing::Every(0) | Checkpointing::Keep(0)) = settings.checkpointing {
            return Err(RunError::Setting {
                setting: "the number of steps of a segment".to_string(),
                given: "0".to_string(),
                allowed: "at least 1 is needed".to_string(),
            });
        }
        let program = checked(program)?;
        for state in &carried {
            let stored = |i: &&Input| !feed::is_given(&program, i);
            if !program.inputs.iter().filter(stored).any(|i| i.name == state.input) {
                let stored: Vec<String> =
                    program.inputs.iter().filter(stored).map(|i| format!("`{}`", i.name)).collect();
                return Err(RunError::Setting {
                    setting: "a state to carry".to_string(),
                    given: format!("`{}`", state.input),
                    allowed: match stored.is_empty() {
                        true => "the program has no inputs that it updates".to_string(),
                        false => format!("inputs that the program updates are {}", stored.join(", ")),
                    },
                });
            }
        }
        // Constants are folded as everybody's are.
        let _flushing = Flushing::begin();
        let compiled = compile::<E>(&program, &settings, false)?;
        let executor = Executor::new(Arc::new(compiled), settings.threads)?;
        let withheld = vec![None; program.outputs.len()];
        Ok(Session { program, executor, carried, going: None, seen: [0; Axis::MAX as usize], ran: false, withheld })
    }

    /// Runs with so many threads from now on; none counts as one. Results have the same bits whatever it is.
    ///
    /// ```
    /// # use retrograd_compiler::ir::Program;
    /// # use retrograd_runtime::session::Session;
    /// let program = Program::record("twice", |p| p.output("y", 2.0 * p.input("x", 2)))?;
    /// let mut session = Session::<f32>::new(&program, 1)?;
    /// session.set_threads(2)?;
    /// assert!(session.set_threads(20_000).is_err()); // there are still two
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// More threads than are allowed, or than the system gives, or no memory for what each has for itself; it goes on with
    /// those that it had.
    pub fn set_threads(&mut self, threads: usize) -> Result<(), RunError> {
        self.executor.set_threads(threads)
    }

    /// Says how the threads share their work from now on. Results have the same bits whichever it is.
    ///
    /// ```
    /// use ndarray::arr2;
    /// use retrograd_compiler::ir::Program;
    /// use retrograd_runtime::{feed::Feed, session::{Session, Sharing}};
    ///
    /// let program = Program::record("twice", |p| p.output("y", 2.0 * p.input("x", 2)))?;
    /// let mut session = Session::<f32>::new(&program, 1)?;
    /// session.set_threads(2)?;
    /// session.share(Sharing::Features);
    /// session.run(&Feed::new().f32("x", arr2(&[[1.0, 2.0]]).view()))?;
    /// assert_eq!(session.output("y").unwrap(), arr2(&[[2.0, 4.0]]).into_dyn());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn share(&mut self, sharing: Sharing) {
        self.executor.share(sharing);
    }

    /// The program as it was given.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Plan, code and times of the compile.
    pub fn compiled(&self) -> &Arc<Compiled> {
        self.executor.compiled()
    }

    /// How long compiling took.
    pub fn compile_time(&self) -> Duration {
        self.compiled().time()
    }

    /// Bytes of memory held for values.
    pub fn memory(&self) -> usize {
        self.executor.memory()
    }

    /// The sizes of the last run.
    pub fn sizes(&self) -> &Sizes {
        self.executor.sizes()
    }

    /// Sets every parameter as its initialiser says.
    ///
    /// # Errors
    /// If an initialiser does not fit its parameter's shape.
    pub fn initialise(&mut self, seed: u64) -> Result<(), RunError> {
        let _flushing = Flushing::begin();
        for (i, values) in init::parameters(&self.program, seed)?.into_iter().enumerate() {
            let values = values.as_slice().expect("initialisers make dense arrays");
            self.set_parameter_at(i, values.iter().map(|&x| E::from_f64(f64::from(x))));
        }
        Ok(())
    }

    /// A parameter's value.
    pub fn parameter(&self, name: &str) -> Option<ArrayD<E>> {
        let port = self.compiled().plan.parameters.iter().find(|p| p.name == name)?;
        Some(self.array(port))
    }

    /// Sets a parameter.
    ///
    /// # Errors
    /// If there is none of this name, or it has another shape.
    pub fn set_parameter(&mut self, name: &str, values: ArrayViewD<E>) -> Result<(), RunError> {
        let ports = &self.compiled().plan.parameters;
        let Some(i) = ports.iter().position(|p| p.name == name) else {
            let declared: Vec<String> = ports.iter().map(|p| p.name.clone()).collect();
            let nearest = nearest(name, declared.iter().map(String::as_str)).map(str::to_string);
            return Err(RunError::UnknownParameter { given: name.to_string(), nearest, declared });
        };
        if ports[i].shape != values.shape() {
            return Err(RunError::Setting {
                setting: format!("the shape of what parameter `{name}` is set to"),
                given: format!("{:?}", values.shape()),
                allowed: format!("the parameter has shape {:?}", ports[i].shape),
            });
        }
        self.set_parameter_at(i, values.iter().copied());
        Ok(())
    }

    fn set_parameter_at(&mut self, i: usize, values: impl Iterator<Item = E>) {
        let port = self.compiled().plan.parameters[i].clone();
        fill(&mut self.executor, &port, values);
        self.executor.parameters_changed();
    }

    /// Starts measuring how long each unit of the plan takes.
    pub fn measure(&mut self) {
        self.executor.measure();
    }

    /// Time in each phase of the plan ([`Plan::cost`](retrograd_compiler::plan::Plan::cost) says which there are, and what
    /// they must cost at least) since [`measure`](Session::measure).
    pub fn phases(&self) -> Vec<(String, Duration)> {
        let mut phases: Vec<(String, Duration)> = Vec::new();
        for (name, time) in self.compiled().plan.phase_names().into_iter().zip(self.executor.measured()) {
            match phases.iter_mut().find(|(n, _)| *n == name) {
                Some((_, total)) => *total += *time,
                None => phases.push((name, *time)),
            }
        }
        phases
    }

    /// Has the next run prepare its weights anew, as after an update: for measuring.
    pub fn touch_parameters(&mut self) {
        self.executor.parameters_changed();
    }

    /// Names of all parameters, in order.
    pub fn parameter_names(&self) -> impl Iterator<Item = &str> {
        self.program.parameters.iter().map(|p| p.name.as_str())
    }

    /// Gives this session the parameters of another of the same program.
    pub(crate) fn take_parameters(&mut self, other: &Session<E>) {
        for i in 0..self.compiled().plan.parameters.len() {
            let values: ArrayD<E> = other.array(&other.compiled().plan.parameters[i]);
            self.set_parameter_at(i, values.iter().copied());
        }
    }

    /// Forgets carried states: the next run starts from their initial values.
    pub fn reset_state(&mut self) {
        self.going = None;
    }

    /// Runs the program on these inputs.
    ///
    /// # Errors
    /// Whatever is wrong with the inputs.
    pub fn run(&mut self, feed: &Feed) -> Result<(), RunError> {
        let resolved = feed::resolve(&self.program, feed)?;
        if let Some(carried) = self.going
            && !self.carried.is_empty()
            && carried != resolved.sizes.batch
        {
            return Err(RunError::BatchChanged { given: resolved.sizes.batch, carried });
        }
        let seen = self.seeing(|axis| resolved.ends.latest(axis).unwrap_or(resolved.sizes.steps(axis)))?;
        self.check_memory(&resolved.sizes)?;
        self.bind(&resolved.sizes)?;
        let _flushing = Flushing::begin();
        let compiled = Arc::clone(self.compiled());
        for (i, (view, port)) in resolved.views.iter().zip(&compiled.plan.inputs).enumerate() {
            let input = &self.program.inputs[i];
            let extent = self.program.ty(input.value).extent;
            match view {
                // Past a sample's end a label may be any number: 0 is one that everything takes.
                Some(View::I32(a)) if input.bound.is_some() && resolved.ends.are_on(extent) => {
                    let (width, batch) = (a.shape()[2..].iter().product::<usize>(), a.shape()[1]);
                    let own = |(i, &x)| match resolved.ends.counts(extent, &[i / width / batch, i / width % batch]) {
                        true => x,
                        false => 0,
                    };
                    fill(&mut self.executor, port, a.iter().enumerate().map(own));
                }
                Some(View::F32(a)) => {
                    fill(&mut self.executor, port, a.iter().map(|&x| E::from_f64(f64::from(x))));
                }
                Some(View::I32(a)) => fill(&mut self.executor, port, a.iter().copied()),
                None => {}
            }
        }
        self.advance();
        self.seen = seen;
        Ok(())
    }

    /// Steps that carried states have seen after so many more, which must be within the program's limits.
    pub(crate) fn seeing(&self, steps: impl Fn(Axis) -> usize) -> Result<[usize; Axis::MAX as usize], RunError> {
        let goes_on = self.going.is_some() && !self.carried.is_empty();
        let before = if goes_on { self.seen } else { [0; Axis::MAX as usize] };
        let seen = std::array::from_fn(|i| before[i].saturating_add(steps(Axis(i as u8))));
        match self.program.limits.iter().find(|l| seen[usize::from(l.axis.0)] > l.steps) {
            None => Ok(seen),
            Some(l) => Err(RunError::TooManySteps {
                axis: self.program.axes[usize::from(l.axis.0)].clone(),
                steps: seen[usize::from(l.axis.0)],
                most: l.steps,
                place: l.place,
            }),
        }
    }

    /// Whether what these sizes need at least is within the limit, where there is one.
    fn check_memory(&self, sizes: &Sizes) -> Result<(), RunError> {
        let plan = &self.compiled().plan;
        let Some(Checkpointing::Fit(limit)) = plan.checkpointing else { return Ok(()) };
        if self.executor.sizes() == sizes && self.executor.memory() <= limit {
            return Ok(());
        }
        match plan.memory(sizes) {
            least if least > limit => Err(RunError::MemoryLimit { limit, least, sizes: sizes.clone() }),
            _ => Ok(()),
        }
    }

    /// Runs again on the inputs that are there.
    pub fn advance(&mut self) {
        self.begin();
        self.executor.run();
        self.ran = true;
    }

    /// Nothing has been run, as far as outputs are concerned.
    pub(crate) fn forget_outputs(&mut self) {
        self.ran = false;
        self.withheld.fill(None);
    }

    /// Has output `i` not be read, since input `needs` of the program was not given. Lasts until
    /// [`forget_outputs`](Session::forget_outputs).
    pub(crate) fn withhold(&mut self, i: usize, needs: usize) {
        self.withheld[i].get_or_insert(needs);
    }

    /// An output that can be read.
    ///
    /// # Errors
    /// Why it cannot be.
    fn readable(&self, name: &str, asked: DType) -> Result<&Port, RunError> {
        let plan = &self.compiled().plan;
        let ports = &plan.outputs;
        let Some(i) = ports.iter().position(|p| p.name == name) else {
            // The objective has this name, unless an output has it.
            if let (Some(objective), "objective", DType::F32, true) = (&plan.objective, name, asked, self.ran) {
                return Ok(objective);
            }
            let declared: Vec<String> = ports.iter().map(|p| p.name.clone()).collect();
            let nearest = nearest(name, declared.iter().map(String::as_str)).map(str::to_string);
            return Err(RunError::UnknownOutput { given: name.to_string(), nearest, declared });
        };
        let output = || name.to_string();
        if !self.ran {
            return Err(RunError::NotComputed { output: output() });
        }
        if let Some(&Some(needs)) = self.withheld.get(i) {
            let input = &self.program.inputs[needs];
            let expected = self.program.ty(input.value).clone();
            return Err(RunError::OutputNeedsInput { output: output(), input: input.name.clone(), expected });
        }
        if ports[i].integer != (asked == DType::I32) {
            let given = self.program.output(name).map(|v| self.program.ty(v).clone());
            return Err(RunError::OutputDType { output: output(), given: given.expect("an output"), asked });
        }
        Ok(&ports[i])
    }

    /// Gives carried states their initial values if there are none of a run before.
    pub(crate) fn begin(&mut self) {
        if self.going.is_none() {
            self.start();
        }
        self.going = Some(self.executor.sizes().batch);
    }

    /// [`advance`](Session::advance) by one step of each axis, if carried states have room for it.
    pub(crate) fn advance_step(&mut self) -> Result<(), RunError> {
        let seen = self.seeing(|_| 1)?;
        self.advance();
        self.seen = seen;
        Ok(())
    }

    /// Gives each row of the carried states the value of row `from[row]`. Allocates nothing once `rows` has had the size
    /// of the largest state.
    pub(crate) fn reorder(&mut self, from: &[usize], rows: &mut Rows<E>) {
        let compiled = Arc::clone(self.compiled());
        for state in &self.carried {
            let ports = &compiled.plan.inputs;
            let port = ports.iter().find(|p| p.name == state.input).expect("a program's inputs are the plan's");
            match port.integer {
                true => permute(&mut self.executor, port, from, &mut rows.integers),
                false => permute(&mut self.executor, port, from, &mut rows.floats),
            }
        }
    }

    /// Copies rows into input `i`, at the sizes that are bound.
    pub(crate) fn write_input(&mut self, i: usize, values: &[E]) -> Result<(), RunError> {
        let compiled = Arc::clone(self.compiled());
        let port = &compiled.plan.inputs[i];
        self.check_input(i, false, values.len())?;
        fill(&mut self.executor, port, values.iter().copied());
        Ok(())
    }

    /// As [`write_input`](Session::write_input), for integers.
    pub(crate) fn write_input_i32(&mut self, i: usize, values: &[i32]) -> Result<(), RunError> {
        let compiled = Arc::clone(self.compiled());
        let port = &compiled.plan.inputs[i];
        self.check_input(i, true, values.len())?;
        let view = ArrayViewD::from_shape(IxDyn(&[values.len()]), values).expect("one dimension");
        feed::check_integers(&self.program, &self.program.inputs[i], &view, None)?;
        if self.program.lengths.iter().any(|(name, _)| *name == port.name) {
            // Of a step: those that go on have 1 or more, those that wait 0.
            feed::check_lengths(&port.name, values.iter().copied(), i32::MAX as usize)?;
        }
        fill(&mut self.executor, port, values.iter().copied());
        Ok(())
    }

    fn check_input(&self, i: usize, integer: bool, len: usize) -> Result<(), RunError> {
        let port = &self.compiled().plan.inputs[i];
        if port.integer != integer {
            let given = if integer { DType::I32 } else { DType::F32 };
            let expected = self.program.ty(self.program.inputs[i].value).clone();
            return Err(RunError::WrongDType { input: port.name.clone(), given, expected });
        }
        if times(port.shape.iter().product(), self.executor.sizes().rows(port.extent)) != len {
            return Err(RunError::WrongLength { input: port.name.clone(), shape: self.shape(port), length: len });
        }
        Ok(())
    }

    /// Binds to sizes; what is carried from run to run comes along if the batch stays the same. Without memory for them
    /// all is as before.
    pub(crate) fn bind(&mut self, sizes: &Sizes) -> Result<(), RunError> {
        if self.executor.sizes() == sizes {
            return Ok(());
        }
        let ports: Vec<Port> = self
            .carried
            .iter()
            .filter(|_| self.going == Some(sizes.batch))
            .map(|c| self.input_port(&c.input).clone())
            .collect();
        let kept: Vec<Tensor> = ports.iter().map(|p| self.tensor(p)).collect();
        self.executor.bind(sizes)?;
        for (port, values) in ports.iter().zip(&kept) {
            self.set_tensor(port, values);
        }
        Ok(())
    }

    fn input_port(&self, name: &str) -> &Port {
        let ports = &self.compiled().plan.inputs;
        ports.iter().find(|p| p.name == name).expect("a program's inputs are the plan's")
    }

    /// Gives carried states their initial values, which depend on parameters and inputs at most.
    fn start(&mut self) {
        let started = self.carried.iter().filter_map(|c| Some((c.input.clone(), c.initial?)));
        let (inputs, wanted): (Vec<String>, Vec<Value>) = started.unzip();
        if inputs.is_empty() {
            return;
        }
        let _flushing = Flushing::begin();
        let sizes = &self.executor.sizes().clone();
        let mut values = Values::new();
        let plan = Arc::clone(self.compiled());
        // Only what they depend on: most start from a number, and weights may be large.
        let needed = self.program.graph.reachable(wanted.iter().copied());
        let parameters = plan.plan.parameters.iter().zip(self.program.parameters.iter().map(|p| p.value));
        let inputs_of = plan.plan.inputs.iter().zip(self.program.inputs.iter().map(|i| i.value));
        for (port, leaf) in parameters.chain(inputs_of).filter(|(_, leaf)| needed[leaf.index()]) {
            values.insert(port.name.clone(), self.data(port, self.program.ty(leaf)));
        }
        let initial = interpret::evaluate(&self.program, &values, sizes, &wanted);
        for (input, data) in inputs.iter().zip(initial) {
            let port = self.input_port(input).clone();
            if port.integer {
                fill(&mut self.executor, &port, data.x.iter().map(|x| x.re as i32));
            } else {
                fill(&mut self.executor, &port, data.x.iter().map(|x| E::from_f64(x.re)));
            }
        }
    }

    fn data(&self, port: &Port, ty: &Type) -> Data {
        use retrograd_compiler::ir::dual::Dual;
        let mut x = Vec::new();
        if port.integer {
            self.executor.read::<i32>(port, |row| x.extend(row.iter().map(|&v| Dual::new(f64::from(v)))));
        } else {
            self.executor.read::<E>(port, |row| x.extend(row.iter().map(|&v| Dual::new(v.into()))));
        }
        Data { ty: ty.clone(), x }
    }

    /// A stored input: a state of an optimiser or of a loop.
    pub(crate) fn stored(&self, name: &str) -> Tensor {
        self.tensor(self.input_port(name))
    }

    /// Sets a stored input; the tensor has its element type and shape.
    pub(crate) fn set_stored(&mut self, name: &str, values: &Tensor) {
        let port = self.input_port(name).clone();
        self.set_tensor(&port, values);
    }

    /// Whether all indices of a tensor for a stored input are in range.
    pub(crate) fn check_stored(&self, name: &str, values: &Tensor) -> Result<(), RunError> {
        let input = self.program.input(name).expect("one of its inputs");
        match i32::of(values) {
            Some(values) => feed::check_integers(&self.program, input, &values.view(), None),
            None => Ok(()),
        }
    }

    /// Name of the element type of a stored input.
    pub(crate) fn stored_element(&self, name: &str) -> &'static str {
        if self.input_port(name).integer { i32::NAME } else { E::NAME }
    }

    fn tensor(&self, port: &Port) -> Tensor {
        if port.integer { i32::wrap(self.array(port)) } else { E::wrap(self.array(port)) }
    }

    fn set_tensor(&mut self, port: &Port, values: &Tensor) {
        const SAME: &str = "a tensor of the port's element type";
        if port.integer {
            fill(&mut self.executor, port, i32::of(values).expect(SAME).iter().copied());
        } else {
            fill(&mut self.executor, port, E::of(values).expect(SAME).iter().copied());
        }
    }

    /// A stored float input, row-major.
    pub(crate) fn stored_floats(&self, name: &str) -> ArrayD<E> {
        self.array(self.input_port(name))
    }

    /// Sets a stored float input; there are as many values as it has.
    pub(crate) fn set_stored_floats(&mut self, name: &str, values: &[E]) {
        let port = self.input_port(name).clone();
        fill(&mut self.executor, &port, values.iter().copied());
    }

    /// Names of the inputs that hold the states which each run takes from the last one.
    pub(crate) fn carried(&self) -> impl Iterator<Item = &str> {
        self.carried.iter().map(|c| c.input.as_str())
    }

    /// Batch size of the carried states, where a run has left some.
    pub(crate) fn going(&self) -> Option<usize> {
        self.going
    }

    /// Steps of each axis that carried states have seen since their start.
    pub(crate) fn seen(&self) -> [usize; Axis::MAX as usize] {
        self.seen
    }

    /// The last run was refused: carried states have not seen its steps.
    pub(crate) fn take_back(&mut self, seen: [usize; Axis::MAX as usize]) {
        self.seen = seen;
    }

    /// Restores carried states of a batch of this size, which have seen so many steps of each axis.
    pub(crate) fn resume(
        &mut self,
        sizes: &Sizes,
        states: &[(String, Tensor)],
        seen: [usize; Axis::MAX as usize],
    ) -> Result<(), RunError> {
        self.executor.bind(sizes)?;
        for (name, values) in states {
            self.set_stored(name, values);
        }
        self.going = Some(sizes.batch);
        self.seen = seen;
        Ok(())
    }

    /// Whether it is the input of a carried state.
    pub(crate) fn is_carried(&self, input: &str) -> bool {
        self.carried.iter().any(|c| c.input == input)
    }

    /// The objective of the last run, if the program has one.
    ///
    /// ```
    /// use ndarray::arr1;
    /// use retrograd_compiler::ir::Program;
    /// use retrograd_runtime::{feed::Feed, session::Session};
    ///
    /// let program = Program::record("mean", |p| p.minimize(p.input("x", ())))?;
    /// let mut session = Session::<f64>::new(&program, 1)?;
    /// session.run(&Feed::new().f32("x", arr1(&[1.0, 3.0]).view()))?;
    /// assert_eq!(session.objective(), Some(2.0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn objective(&self) -> Option<f64> {
        let port = self.compiled().plan.objective.as_ref().filter(|_| self.ran)?;
        let mut value = None;
        self.executor.read::<E>(port, |row| value = Some(row[0].into()));
        value
    }

    /// An output of the last run as an array: `[T, B, features..]`, `[B, features..]` or `[features..]`. The
    /// [objective](Session::objective) is named `objective`, where no output is.
    ///
    /// `None` if there is no float output of this name, or nothing has been run yet.
    pub fn output(&self, name: &str) -> Option<ArrayD<E>> {
        self.readable(name, DType::F32).ok().map(|port| self.array(port))
    }

    /// An integer output of the last run.
    pub fn output_i32(&self, name: &str) -> Option<ArrayD<i32>> {
        self.readable(name, DType::I32).ok().map(|port| self.array(port))
    }

    /// A shared scalar float output as a number.
    pub fn scalar(&self, name: &str) -> Option<f64> {
        let port = self.readable(name, DType::F32).ok()?;
        let mut value = None;
        self.executor.read::<E>(port, |row| value = Some(row[0].into()));
        value
    }

    /// Copies an output's rows one after another into a slice, without allocating.
    ///
    /// # Errors
    /// If there is no such float output, it has another number of elements, or nothing has been run yet.
    pub fn copy_output(&self, name: &str, into: &mut [E]) -> Result<(), RunError> {
        self.copy(self.readable(name, DType::F32)?, into)
    }

    /// As [`copy_output`](Session::copy_output), for integers.
    ///
    /// # Errors
    /// As there.
    pub fn copy_output_i32(&self, name: &str, into: &mut [i32]) -> Result<(), RunError> {
        self.copy(self.readable(name, DType::I32)?, into)
    }

    fn copy<T: Item>(&self, port: &Port, into: &mut [T]) -> Result<(), RunError> {
        let width = port.spans[0].len;
        if into.len() != times(width, self.executor.sizes().rows(port.extent)) {
            let (output, shape) = (port.name.clone(), self.shape(port));
            return Err(RunError::OutputLength { output, shape, length: into.len() });
        }
        let mut rows = into.chunks_exact_mut(width);
        self.executor.read::<T>(port, |row| rows.next().expect("counted").copy_from_slice(row));
        Ok(())
    }

    fn shape(&self, port: &Port) -> Vec<usize> {
        let sizes = self.executor.sizes();
        let mut shape = match port.extent {
            Extent::Shared => vec![],
            Extent::Batch => vec![sizes.batch],
            Extent::Time(axis) => vec![sizes.steps(axis), sizes.batch],
        };
        shape.extend(&port.shape);
        shape
    }

    fn array<T: Item>(&self, port: &Port) -> ArrayD<T> {
        let mut x = Vec::new();
        self.executor.read::<T>(port, |row| x.extend_from_slice(row));
        ArrayD::from_shape_vec(IxDyn(&self.shape(port)), x).expect("as many values as the shape says")
    }
}

/// A program that may be run: well formed, and with a bound on each integer input that reaches a table.
///
/// Programs are both where they are recorded or read. A pass behind that is trusted with neither: it may make new
/// inputs, which get their bounds here, and a fault of one must not become an access out of bounds.
fn checked(program: &Program) -> Result<Program, RunError> {
    let failed = |e| RunError::Compile { program: program.name.clone(), reason: Box::new(e) };
    program.to_draft().finish().map_err(failed)
}

/// Room for the rows of one state.
#[derive(Default)]
pub(crate) struct Rows<E> {
    floats: Vec<E>,
    integers: Vec<i32>,
}

fn permute<E: Float, T: Item>(executor: &mut Executor<E>, port: &Port, from: &[usize], rows: &mut Vec<T>) {
    let width = port.spans[0].len;
    rows.clear();
    executor.read::<T>(port, |row| rows.extend_from_slice(row));
    let mut from = from.iter();
    executor.write::<T>(port, |row| {
        let &source = from.next().expect("one for each row");
        row.copy_from_slice(&rows[source * width..][..width]);
    });
}

/// Compiles for the routines of this machine.
pub(crate) fn compile<E: Float>(program: &Program, settings: &Settings, texts: bool) -> Result<Compiled, RunError> {
    let table: KernelTable = E::table(settings.chosen_instruction_set()?);
    pipeline::compile(program, E::PRECISION, &table, settings.checkpointing, texts)
        .map_err(|e| RunError::Compile { program: program.name.clone(), reason: Box::new(e) })
}

fn fill<E: Float, T: Item>(executor: &mut Executor<E>, port: &Port, mut values: impl Iterator<Item = T>) {
    let mut missing = false;
    executor.write::<T>(port, |row| {
        let mut filled = 0;
        for (slot, value) in row.iter_mut().zip(&mut values) {
            *slot = value;
            filled += 1;
        }
        missing |= filled < row.len();
    });
    assert!(!missing, "there are as many values as the port has");
}
