//! A compiled program that can be run: values go in by name, and come out by name.

use std::sync::Arc;
use std::time::Duration;

use ndarray::{ArrayD, ArrayViewD, IxDyn};
use retrograd_compiler::codegen::KernelTable;
use retrograd_compiler::interpret::{self, Values};
use retrograd_compiler::ir::op::Data;
use retrograd_compiler::ir::{DType, Extent, Program, Sizes, Type};
use retrograd_compiler::pipeline::{self, Compiled};
use retrograd_compiler::plan::{Checkpointing, Port, Unit, Work};
use retrograd_compiler::time::CarriedState;

use crate::error::RunError;
use crate::execute::Executor;
use crate::feed::{self, Feed, View};
use crate::float::Float;
use crate::init;

/// A program compiled for floats of type `E`, with its parameters and memory.
///
/// Sizes are those of what it is fed: any T ≥ 1 and B ≥ 1, without compiling again.
pub struct Session<E: Float = f32> {
    program: Program,
    executor: Executor<E>,
    /// States that each run takes from the last one.
    carried: Vec<CarriedState>,
    /// The carried states are those of a run of this batch size; `None`: they start anew.
    going: Option<usize>,
}

impl<E: Float> Session<E> {
    /// Compiles a program for this machine, with `threads` threads. Parameters are zero until they are set.
    ///
    /// # Errors
    /// [`RunError::Compile`] if code cannot be generated here.
    pub fn new(program: &Program, threads: usize) -> Result<Session<E>, RunError> {
        Session::with_carried(program, Vec::new(), threads, None)
    }

    /// As [`new`](Session::new), keeping only some states of its loops and computing the others again: memory for time.
    /// What it computes has the same bits. `session.compiled().plan.memory(&sizes)` says how much it will hold.
    ///
    /// ```
    /// use retrograd_compiler::ir::{Program, Sizes};
    /// use retrograd_compiler::plan::Checkpointing;
    /// use retrograd_runtime::session::Session;
    ///
    /// let program = Program::record("follow", |p| {
    ///     let x = p.sequence("x", 1);
    ///     let run = p.scan("follow", |s| {
    ///         let h = s.state("h", 64);
    ///         s.next(h, s.affine("cell", s.at(x), 64).tanh() * 0.5 + h * 0.5)
    ///     });
    ///     p.minimize(run.all().square().mean_features().mean_rows());
    /// })?
    /// .backward()?;
    /// let whole = Session::<f32>::new(&program, 1)?;
    /// let session = Session::<f32>::checkpointed(&program, 1, Checkpointing::Sqrt)?;
    /// let memory = |session: &Session<f32>| session.compiled().plan.memory(&Sizes::new(10_000, 4));
    /// assert!(2 * memory(&session) < memory(&whole));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As there, and for segments of no steps.
    pub fn checkpointed(
        program: &Program,
        threads: usize,
        checkpointing: Checkpointing,
    ) -> Result<Session<E>, RunError> {
        Session::with_carried(program, Vec::new(), threads, Some(checkpointing))
    }

    pub(crate) fn with_carried(
        program: &Program,
        carried: Vec<CarriedState>,
        threads: usize,
        checkpointing: Option<Checkpointing>,
    ) -> Result<Session<E>, RunError> {
        if checkpointing == Some(Checkpointing::Every(0)) {
            return Err(RunError::Setting {
                setting: "the number of steps between checkpoints".to_string(),
                given: "0".to_string(),
                allowed: "at least 1 is needed".to_string(),
            });
        }
        let compiled = compile::<E>(program, checkpointing, false)?;
        let executor = Executor::new(Arc::new(compiled), threads);
        Ok(Session { program: program.clone(), executor, carried, going: None })
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
            return Err(RunError::Setting {
                setting: format!("parameter `{name}`"),
                given: format!("shape {:?}", values.shape()),
                allowed: format!("one of {}", names(ports)),
            });
        };
        if ports[i].shape != values.shape() {
            return Err(RunError::Setting {
                setting: format!("parameter `{name}`"),
                given: format!("shape {:?}", values.shape()),
                allowed: format!("shape {:?}", ports[i].shape),
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

    /// Time in each phase of the plan since [`measure`](Session::measure), and where it starts: before the first loop,
    /// in each loop, between and behind them; packing weights and sums over rows apart from the rest. With checkpoints,
    /// all that runs segment by segment is one phase.
    pub fn phases(&self) -> Vec<(String, Duration)> {
        let mut phases: Vec<(String, Duration)> = Vec::new();
        let mut place = "before".to_string();
        for (unit, time) in self.compiled().plan.units.iter().zip(self.executor.measured()) {
            let name = match unit {
                Unit::Loop(l) => {
                    place = format!("after {}", l.name);
                    format!("loop {}", l.name)
                }
                Unit::Sweep(sweep) => format!("sweep over {}", sweep.axis.letter()),
                Unit::Stage(stage) => match stage.work {
                    Work::Pack { .. } => "pack".to_string(),
                    Work::ReduceProduct { .. } => "weight gradients".to_string(),
                    Work::ReduceRows { .. } => "sums over rows".to_string(),
                    _ => place.clone(),
                },
            };
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
            let values = other.array(&other.compiled().plan.parameters[i]);
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
        self.check_memory(&resolved.sizes)?;
        self.bind(&resolved.sizes);
        let compiled = Arc::clone(self.compiled());
        for (view, port) in resolved.views.iter().zip(&compiled.plan.inputs) {
            match view {
                Some(View::F32(a)) => {
                    fill(&mut self.executor, port, a.iter().map(|&x| E::from_f64(f64::from(x))));
                }
                Some(View::I32(a)) => fill(&mut self.executor, port, a.iter().copied()),
                None => {}
            }
        }
        self.advance();
        Ok(())
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
        if self.going.is_none() {
            self.start();
        }
        self.executor.run();
        self.going = Some(self.executor.sizes().batch);
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
        if let Some(bound) = self.program.inputs[i].bound {
            let view = ArrayViewD::from_shape(IxDyn(&[values.len()]), values).expect("one dimension");
            feed::check_range(&port.name, &view, bound)?;
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
        if port.shape.iter().product::<usize>() * self.executor.sizes().rows(port.extent) != len {
            return Err(RunError::WrongLength { input: port.name.clone(), shape: self.shape(port), length: len });
        }
        Ok(())
    }

    /// Binds to sizes; what is carried from run to run comes along if the batch stays the same.
    pub(crate) fn bind(&mut self, sizes: &Sizes) {
        if self.executor.sizes() == sizes {
            return;
        }
        let ports: Vec<Port> = self
            .carried
            .iter()
            .filter(|_| self.going == Some(sizes.batch))
            .map(|c| self.input_port(&c.input).clone())
            .collect();
        let kept: Vec<ArrayD<E>> = ports.iter().map(|p| self.array(p)).collect();
        self.executor.bind(sizes);
        for (port, values) in ports.iter().zip(kept) {
            fill(&mut self.executor, port, values.iter().copied());
        }
    }

    fn input_port(&self, name: &str) -> &Port {
        let ports = &self.compiled().plan.inputs;
        ports.iter().find(|p| p.name == name).expect("a program's inputs are the plan's")
    }

    /// Gives carried states their initial values, which depend on parameters and inputs at most.
    fn start(&mut self) {
        if self.carried.is_empty() {
            return;
        }
        let sizes = &self.executor.sizes().clone();
        let mut values = Values::new();
        let plan = Arc::clone(self.compiled());
        for (port, leaf) in plan.plan.parameters.iter().zip(self.program.parameters.iter().map(|p| p.value)) {
            values.insert(port.name.clone(), self.data(port, self.program.ty(leaf)));
        }
        for (port, leaf) in plan.plan.inputs.iter().zip(self.program.inputs.iter().map(|i| i.value)) {
            values.insert(port.name.clone(), self.data(port, self.program.ty(leaf)));
        }
        let wanted: Vec<_> = self.carried.iter().map(|c| c.initial).collect();
        let initial = interpret::evaluate(&self.program, &values, sizes, &wanted);
        for (c, data) in self.carried.clone().iter().zip(initial) {
            let port = self.input_port(&c.input).clone();
            fill(&mut self.executor, &port, data.x.iter().map(|x| E::from_f64(x.re)));
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
    pub(crate) fn stored(&self, name: &str) -> ArrayD<E> {
        self.array(self.input_port(name))
    }

    /// Sets a stored input; the array has its shape.
    pub(crate) fn set_stored(&mut self, name: &str, values: &ArrayD<E>) {
        let port = self.input_port(name).clone();
        fill(&mut self.executor, &port, values.iter().copied());
    }

    /// Batch size of the carried states, where a run has left some.
    pub(crate) fn going(&self) -> Option<usize> {
        self.going
    }

    /// Restores carried states of a batch of this size.
    pub(crate) fn resume(&mut self, sizes: &Sizes, states: &[(String, ArrayD<E>)]) {
        self.executor.bind(sizes);
        for (name, values) in states {
            self.set_stored(name, values);
        }
        self.going = Some(sizes.batch);
    }

    pub(crate) fn carried(&self) -> &[CarriedState] {
        &self.carried
    }

    /// An output of the last run as an array: `[T, B, features..]`, `[B, features..]` or `[features..]`. The objective
    /// is named `objective`.
    pub fn output(&self, name: &str) -> Option<ArrayD<E>> {
        let port = self.compiled().plan.outputs.iter().find(|p| p.name == name)?;
        if port.integer { None } else { Some(self.array(port)) }
    }

    /// An integer output of the last run.
    pub fn output_i32(&self, name: &str) -> Option<ArrayD<i32>> {
        let port = self.compiled().plan.outputs.iter().find(|p| p.name == name && p.integer)?;
        let mut x = Vec::new();
        self.executor.read::<i32>(port, |row| x.extend_from_slice(row));
        Some(ArrayD::from_shape_vec(IxDyn(&self.shape(port)), x).expect("as many values as the shape says"))
    }

    /// A shared scalar output as a number.
    pub fn scalar(&self, name: &str) -> Option<f64> {
        let port = self.compiled().plan.outputs.iter().find(|p| p.name == name)?;
        let mut value = None;
        self.executor.read::<E>(port, |row| value = Some(row[0].into()));
        value
    }

    /// Copies an output's rows one behind another into a slice, without allocating. False if there is no such float
    /// output or it has another number of elements.
    pub fn copy_output(&self, name: &str, into: &mut [E]) -> bool {
        let Some(port) = self.compiled().plan.outputs.iter().find(|p| p.name == name && !p.integer) else {
            return false;
        };
        let width = port.spans[0].len;
        if into.len() != width * self.executor.sizes().rows(port.extent) {
            return false;
        }
        let mut rows = into.chunks_exact_mut(width);
        self.executor.read::<E>(port, |row| rows.next().expect("counted").copy_from_slice(row));
        true
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

    fn array(&self, port: &Port) -> ArrayD<E> {
        let mut x = Vec::new();
        self.executor.read::<E>(port, |row| x.extend_from_slice(row));
        ArrayD::from_shape_vec(IxDyn(&self.shape(port)), x).expect("as many values as the shape says")
    }
}

/// Compiles for the routines of this machine.
pub(crate) fn compile<E: Float>(
    program: &Program,
    checkpointing: Option<Checkpointing>,
    texts: bool,
) -> Result<Compiled, RunError> {
    let table: KernelTable = E::table();
    pipeline::compile(program, E::PRECISION, &table, checkpointing, texts)
        .map_err(|e| RunError::Compile { program: program.name.clone(), reason: Box::new(e) })
}

fn fill<E: Float, T: Copy>(executor: &mut Executor<E>, port: &Port, mut values: impl Iterator<Item = T>) {
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

fn names(ports: &[Port]) -> String {
    ports.iter().map(|p| format!("`{}`", p.name)).collect::<Vec<_>>().join(", ")
}
