//! Runs a plan: binds it to memory for given sizes, then goes through its stages.
//!
//! Binding gives every slot its memory and every kernel its addresses; it happens when sizes change, and a run
//! after that allocates nothing. How a team shares a stage or a loop, by rows or by features, is in `share`; what sums
//! over rows is split by output. So results have the same bits whatever the number of threads, and a row's result does
//! not depend on its batch mates.
//!
//! Sweeps, which run segment by segment, are in `sweep`.
//!
//! This file trusts the plan: that accesses are in range and stages in order. Inputs are checked before they get
//! here. So an executor is nothing for users: sessions have one, of a plan that nobody can change.
//!
//! All that points into memory for some sizes is one [`Binding`], which is complete before it takes the place of the
//! one before. Whatever is refused on the way, or panics, leaves an executor as it was.

mod list;
mod share;
mod sweep;

use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use retrograd_compiler::ir::sizes::{times, total};
use retrograd_compiler::ir::{Axis, Sizes};
use retrograd_compiler::pipeline::Compiled;
use retrograd_compiler::plan::{
    Access, At, BufferId, Carried, Domain, Kernel, Loop, Port, Rows, Segments, Slot, Span, Stage, Unit, Work,
};

use crate::arena::Arena;
use crate::error::RunError;
use crate::float::Float;
use crate::flush::Flushing;
use crate::gemm::{self, GemmCall, Kernels, PackB, Segment, SmallProduct};
use crate::memory::{self, Refused};
use crate::team::{Meeting, Team};
use crate::tensor::Item;

use list::List;
use share::{By, Piece, Share};
use sweep::Window;

pub use share::Sharing;

/// Rows of the whole sequence that a member takes at a time, so that what a stage reads stays in cache for it.
const CHUNK: usize = 240;

/// Bits of the number of a row that is scattered. Its place in the table has 31 more, and both are sorted as one number.
const ROW_BITS: u32 = 33;

/// What each member of the team has for itself.
struct Own<E> {
    scratch: Arena,
    product: Vec<E>,
    /// 64-bit sums of what it sums over rows.
    sums: Vec<f64>,
    /// The addresses of a kernel's accesses at the present step.
    bases: Vec<*mut u8>,
}

/// What a member does beside a loop.
type Aside<'a, E> = &'a (dyn Fn(&Run<'_, E>, Share) + Sync);

/// A stage bound to memory.
struct Bound {
    /// Which kernel it is, if it is one.
    kernel: usize,
    /// For each of its accesses the address of row 0 at step 0.
    bases: Vec<*mut u8>,
    /// And the bytes from a step to the next.
    steps: Vec<isize>,
    /// Its work, of all rows at one step if it is in a loop.
    effort: usize,
}

/// A plan bound to memory for some sizes.
struct Binding {
    /// All slots but those of one row.
    memory: Arena,
    sizes: Sizes,
    /// Lengths of segments at these sizes.
    segments: Segments,
    /// All stages, in the plan's order.
    bound: Vec<Bound>,
    /// Address of row 0 of each buffer.
    buffers: Vec<*mut u8>,
    /// Rows that are scattered, by where they go. The first member's alone.
    order: UnsafeCell<Vec<u64>>,
    /// What a run does at these sizes, if that is a list.
    list: Option<List>,
}

// SAFETY: pointers go into `memory` and into the slots of one row, which the executor that has this binding owns too;
// neither moves when their owners do, and nobody else has pointers to them.
unsafe impl Send for Binding {}

// SAFETY: the addresses of a kernel's accesses are set before each call; between calls they mean nothing. The rest is owned.
unsafe impl<E: Float> Send for Own<E> {}

/// A compiled program with its memory.
pub struct Executor<E: Float> {
    compiled: Arc<Compiled>,
    /// Slots of one row, which stay, in the order of the plan.
    shared: Arena,
    binding: Binding,
    kernels: &'static Kernels<E>,
    team: Team,
    sharing: Sharing,
    own: Vec<UnsafeCell<Own<E>>>,
    /// Parameters have changed since constant stages ran.
    stale: bool,
    /// Every run changes parameters.
    updates_parameters: bool,
    /// Time spent in each stage, where it is asked for; all of a loop's in its first.
    times: Option<Vec<Duration>>,
}

impl Binding {
    /// Memory for these sizes, and where all is in it. The slots of one row are there already, and are not written.
    fn new<E: Float>(
        compiled: &Compiled,
        shared: &Arena,
        kernels: &'static Kernels<E>,
        sizes: &Sizes,
    ) -> Result<Binding, RunError> {
        let plan = &compiled.plan;
        let segments = plan.segments(sizes);
        let sized = plan.slots.iter().filter(|slot| slot.rows != Rows::One);
        let memory = Arena::new(sized.map(|slot| slot.bytes(sizes, &segments))).map_err(|e| e.at(sizes))?;
        let (mut one, mut more) = (0..shared.len(), 0..memory.len());
        let address = |slot: &Slot| {
            let (arena, next) = match slot.rows {
                Rows::One => (shared, one.next()),
                _ => (&memory, more.next()),
            };
            arena.address(next.expect("a region for each slot"))
        };
        let addresses: Vec<*mut u8> = plan.slots.iter().map(address).collect();
        let buffers: Vec<*mut u8> = plan.buffers.iter().map(|b| addresses[b.slot]).collect();
        let order = UnsafeCell::new(order_of_scattered(compiled, sizes, &segments).map_err(|e| e.at(sizes))?);
        let mut run = Run {
            compiled,
            buffers: &buffers,
            bound: &[],
            own: &[],
            order: &order,
            sizes,
            segments: &segments,
            kernels,
            window: None,
        };
        let mut kernel = 0;
        let bound = plan.units.iter().flat_map(Unit::stages).map(|(stage, l)| {
            let bases = accesses(stage).map(|a| run.base(a)).collect();
            let steps = accesses(stage).map(|a| run.step(stage, l, a)).collect();
            let bound = Bound { kernel, bases, steps, effort: plan.effort(stage, sizes) };
            kernel += usize::from(matches!(stage.work, Work::Kernel(_)));
            bound
        });
        let bound: Vec<Bound> = bound.collect();
        run.bound = &bound;
        // With parameters that change in each run, constants are computed in each run.
        let list = if updates_parameters(compiled) { None } else { List::of(&run) };
        Ok(Binding { memory, sizes: sizes.clone(), segments, bound, buffers, order, list })
    }
}

/// Whether every run changes parameters, in place or by copy.
fn updates_parameters(compiled: &Compiled) -> bool {
    compiled.plan.updates.iter().any(|(_, _, is_parameter)| *is_parameter) || compiled.plan.writes_parameters()
}

impl<E: Float> Executor<E> {
    /// An executor with `threads` members.
    ///
    /// # Errors
    /// If memory for parameters cannot be had, and as for [`set_threads`](Executor::set_threads).
    pub fn new(compiled: Arc<Compiled>, threads: usize) -> Result<Executor<E>, RunError> {
        assert_eq!(compiled.precision, E::PRECISION, "a program runs in the precision it was compiled for");
        let kernels = Kernels::of(compiled.instruction_set).expect("a program is compiled where its instructions are");
        // Parameters must have their memory before any run.
        let sizes = Sizes { batch: 1, steps: vec![1; usize::from(Axis::MAX)] };
        let one_row = compiled.plan.slots.iter().filter(|slot| slot.rows == Rows::One);
        let shared = Arena::new(one_row.map(|slot| slot.row_bytes)).map_err(|e| e.at(&sizes))?;
        let mut this = Executor {
            binding: Binding::new(&compiled, &shared, kernels, &sizes)?,
            shared,
            kernels,
            updates_parameters: updates_parameters(&compiled),
            compiled,
            team: Team::alone(),
            sharing: Sharing::Auto,
            own: Vec::new(),
            stale: true,
            times: None,
        };
        this.count_rows();
        this.set_threads(threads)?;
        Ok(this)
    }

    /// Lets the team have so many members from now on; none counts as one.
    ///
    /// # Errors
    /// If there cannot be so many, or the memory that each has for itself cannot be had; then the team is the one it was.
    pub fn set_threads(&mut self, threads: usize) -> Result<(), RunError> {
        let team = Team::new(threads.max(1))?;
        let plan = &self.compiled.plan;
        let kernels = &self.compiled.kernels;
        let scratch = (0..kernels.len()).map(|i| kernels.info(i).scratch).max().unwrap_or(0);
        let product = plan.stages().map(|(stage, _)| product_scratch(&stage.work, self.kernels)).max().unwrap_or(0);
        let sums = plan.stages().map(|(stage, _)| summed_at_once(&stage.work)).max().unwrap_or(0);
        let most = plan.stages().map(|(stage, _)| accesses(stage).count()).max().unwrap_or(0);
        let own = || -> Result<_, Refused> {
            let mut own = Own {
                scratch: Arena::new([scratch])?,
                product: Vec::new(),
                sums: Vec::new(),
                bases: vec![std::ptr::null_mut(); most],
            };
            memory::reserve(&mut own.product, product)?;
            memory::reserve(&mut own.sums, sums)?;
            Ok(UnsafeCell::new(own))
        };
        let own: Result<Vec<_>, Refused> = (0..team.size()).map(|_| own()).collect();
        self.own = own.map_err(|e| e.at(&self.binding.sizes))?;
        self.team = team;
        Ok(())
    }

    /// Says how the team shares its work from now on.
    pub fn share(&mut self, sharing: Sharing) {
        self.sharing = sharing;
    }

    /// The program.
    pub fn compiled(&self) -> &Arc<Compiled> {
        &self.compiled
    }

    /// The sizes of the last run; the smallest before any.
    pub fn sizes(&self) -> &Sizes {
        &self.binding.sizes
    }

    /// Bytes of memory held for values.
    pub fn memory(&self) -> usize {
        self.shared.bytes() + self.binding.memory.bytes()
    }

    /// Makes ready for runs of these sizes. Values per sample or step are lost if sizes change; shared ones stay.
    ///
    /// The old memory goes when the new is there, of which nothing has been touched by then.
    ///
    /// # Errors
    /// If memory cannot be had; then all is as before.
    pub fn bind(&mut self, sizes: &Sizes) -> Result<(), RunError> {
        if self.binding.sizes != *sizes {
            self.binding = Binding::new(&self.compiled, &self.shared, self.kernels, sizes)?;
            self.count_rows();
            self.stale = true;
        }
        Ok(())
    }

    /// Writes the numbers of rows where kernels read them.
    fn count_rows(&mut self) {
        for &(buffer, extent) in &self.compiled.plan.row_counts {
            let count = self.binding.sizes.rows(extent) as f64;
            // SAFETY: the buffer has one row of at least one element.
            unsafe { *self.binding.buffers[buffer.0].cast::<E>() = E::from_f64(count) };
        }
    }

    /// Says that parameters have been written.
    pub fn parameters_changed(&mut self) {
        self.stale = true;
    }

    fn run_state(&self, window: Option<Window>) -> Run<'_, E> {
        let Executor { compiled, own, kernels, binding, .. } = self;
        let Binding { buffers, bound, sizes, segments, order, .. } = binding;
        Run { compiled, buffers, bound, own, order, sizes, segments, kernels, window }
    }

    /// Runs the program once. Inputs must have been written. Subnormal numbers count as zero (`flush`).
    pub fn run(&mut self) {
        let _flushing = Flushing::begin();
        self.team.revive();
        if let Some(list) =
            self.binding.list.as_ref().filter(|_| !self.stale && self.times.is_none() && self.team.size() == 1)
        {
            return list.run(&self.run_state(None));
        }
        let compiled = Arc::clone(&self.compiled);
        let mut first = 0;
        for unit in &compiled.plan.units {
            self.unit(unit, &mut first);
        }
        self.stale = self.updates_parameters;
        for i in 0..compiled.plan.updates.len() {
            let (value, port, parameter) = &compiled.plan.updates[i];
            let ports = if *parameter { &compiled.plan.parameters } else { &compiled.plan.inputs };
            if value.integer {
                self.copy_port::<i32>(value, &ports[*port]);
            } else {
                self.copy_port::<E>(value, &ports[*port]);
            }
        }
    }

    /// What a run reads, and who runs it.
    fn parts(&mut self, window: Option<Window>) -> (Run<'_, E>, &mut Team) {
        let Executor { compiled, own, team, kernels, binding, .. } = self;
        let Binding { buffers, bound, sizes, segments, order, .. } = binding;
        (Run { compiled, buffers, bound, own, order, sizes, segments, kernels, window }, team)
    }

    /// Runs a unit whose first stage is `first`, and counts its stages.
    fn unit(&mut self, unit: &Unit, first: &mut usize) {
        match unit {
            Unit::Stage(stage) => {
                if self.stale || !stage.constant {
                    self.timed(*first, |this| this.stage(stage, *first, None));
                }
                *first += 1;
            }
            Unit::Loop(l) => {
                self.timed(*first, |this| this.steps(l, *first, None, &|_, _| (), &|_, _| ()));
                *first += l.stages.len();
            }
            Unit::Sweep(sweep) => self.sweep(sweep, first),
        }
    }

    /// Does something, whose time counts as that of the stage `at`.
    fn timed(&mut self, at: usize, run: impl FnOnce(&mut Self)) {
        let started = self.times.is_some().then(Instant::now);
        run(self);
        if let (Some(times), Some(started)) = (&mut self.times, started) {
            // A loop may have no stages, and be the last of all.
            times.get_mut(at).into_iter().for_each(|time| *time += started.elapsed());
        }
    }

    /// Runs a stage outside of loops.
    fn stage(&mut self, stage: &Stage, at: usize, window: Option<Window>) {
        let sharing = self.sharing;
        let (run, team) = self.parts(window);
        let work = run.bound[at].effort;
        let rows = run.rows_of(stage);
        let by = sharing.of(&Piece { rows, work, in_loop: None }, team.size());
        if by == By::Nobody || !has_parts(stage, rows) {
            return run.rows(stage, at, Share::WHOLE);
        }
        let members = team.size();
        team.run_here(&|member| run.rows(stage, at, Share::new(member, members, by)));
    }

    /// Runs a loop, with something before and behind it.
    fn steps(&mut self, l: &Loop, first: usize, window: Option<Window>, before: Aside<E>, behind: Aside<E>) {
        let sharing = self.sharing;
        let (run, team) = self.parts(window);
        let of_step = total(run.bound[first..first + l.stages.len()].iter().map(|bound| bound.effort));
        let between = of_step / l.stages.len().max(1);
        let in_loop = Some((between, l.stages.iter().all(works_by_row)));
        let piece = Piece { rows: run.sizes.batch, work: times(of_step, run.steps_of(l.axis)), in_loop };
        let members = team.size();
        let by = sharing.of(&piece, members);
        let all = |share: Share, meet: &dyn Fn()| {
            before(&run, share);
            meet();
            run.steps(l, first, share, meet);
            behind(&run, share);
        };
        match by {
            By::Nobody => all(Share::WHOLE, &|| ()),
            By::Rows => team.run_here(&|member| all(Share::new(member, members, by), &|| ())),
            By::Features => {
                let meeting = Meeting::new(members);
                team.run_here(&|member| meeting.attend(|meet| all(Share::new(member, members, by), meet)));
            }
        }
    }

    /// Starts measuring the time of each stage of the plan, from nothing; that of a loop is its first stage's.
    pub fn measure(&mut self) {
        self.times = Some(vec![Duration::ZERO; self.binding.bound.len()]);
    }

    /// Time spent in each stage since [`measure`](Executor::measure).
    pub fn measured(&self) -> &[Duration] {
        self.times.as_deref().unwrap_or(&[])
    }

    /// Copies the rows of one port to another of the same type.
    fn copy_port<T: Item>(&self, from: &Port, into: &Port) {
        check_element::<T, E>(from);
        check_element::<T, E>(into);
        let run = self.run_state(None);
        for r in 0..run.sizes.rows(from.extent) {
            let x = run.address::<T>(&from.spans[0], 0, r);
            let y = run.address::<T>(&into.spans[0], 0, r);
            // SAFETY: both rows are within their buffers, which differ, and hold `len` elements of this type.
            unsafe { std::ptr::copy_nonoverlapping(x, y, from.spans[0].len) };
        }
    }

    /// The rows of a port, features one behind another. Its elements are of type `T`: `i32` or `E`.
    pub fn read<T: Item>(&self, port: &Port, mut take: impl FnMut(&[T])) {
        check_element::<T, E>(port);
        let run = self.run_state(None);
        let span = &port.spans[0];
        for r in 0..run.sizes.rows(port.extent) {
            // SAFETY: the plan keeps this row for reading, `len` elements of type `T` from its address.
            take(unsafe { std::slice::from_raw_parts(run.address::<T>(span, 0, r), span.len) });
        }
    }

    /// As [`read`](Executor::read), for writing.
    pub fn write<T: Item>(&mut self, port: &Port, mut give: impl FnMut(&mut [T])) {
        check_element::<T, E>(port);
        let run = self.run_state(None);
        let span = &port.spans[0];
        for r in 0..run.sizes.rows(port.extent) {
            // SAFETY: as for reading; `self` is borrowed exclusively and rows do not overlap.
            give(unsafe { std::slice::from_raw_parts_mut(run.address::<T>(span, 0, r), span.len) });
        }
    }
}

/// Elements of scratch that a member needs for products that are not generated. Weight gradients are not counted: theirs
/// is a cache's share, whatever the sizes.
fn product_scratch<E: Float>(work: &Work, kernels: &Kernels<E>) -> usize {
    match work {
        Work::MatrixRows { m, n, .. } => times(*m, n.next_multiple_of(kernels.nr)),
        Work::MatMul { mkn: [m, k, n], ta, tb, .. } => {
            SmallProduct { m: *m, k: *k, n: *n, a_is_transposed: *ta, b_is_transposed: *tb }.scratch_len(kernels)
        }
        _ => 0,
    }
}

/// Elements that a member sums in 64 bits at once, outside of products.
fn summed_at_once(work: &Work) -> usize {
    match work {
        Work::ReduceRows { into, .. } => into.len,
        Work::Scatter { width, .. } => *width,
        _ => 0,
    }
}

/// Memory for the order of rows that are scattered.
fn order_of_scattered(compiled: &Compiled, sizes: &Sizes, segments: &Segments) -> Result<Vec<u64>, Refused> {
    let plan = &compiled.plan;
    let scattered = plan.stages().map(|(stage, _)| {
        let Work::Scatter { index, carried, .. } = &stage.work else { return 0 };
        let has_totals = carried.is_some_and(|carried| plan.buffers[carried.totals.0].rows.count(sizes, segments) > 0);
        let rows = match stage.domain {
            Domain::Shared => 1,
            Domain::Batch | Domain::EachStep(_) => sizes.batch,
            Domain::Time(axis) => times(sizes.batch, sizes.steps(axis)),
        };
        if has_totals { 0 } else { times(rows, index.len) }
    });
    let most = scattered.max().unwrap_or(0);
    if most >> ROW_BITS > 0 {
        let reason = format!("at most 2^{ROW_BITS} rows can be scattered at once");
        return Err(Refused { asked: times(most, size_of::<u64>()), reason });
    }
    let mut order = Vec::new();
    memory::reserve(&mut order, most)?;
    Ok(order)
}

/// Panels that a kernel works on; none if it takes whole rows.
fn panels(compiled: &Compiled, kernel: &Kernel) -> usize {
    kernel.tile.as_ref().map_or(0, |tile| tile.n.div_ceil(compiled.plan.target.panel))
}

/// Memory is untyped: nothing may read integers as floats, or floats as those of another width.
fn check_element<T: Item, E: Float>(port: &Port) {
    let holds = if port.integer { i32::NAME } else { E::NAME };
    assert_eq!(T::NAME, holds, "elements of `{}`", port.name);
}

/// What a stage reads, then what it writes, as kernels number it.
fn accesses(stage: &Stage) -> impl Iterator<Item = &Access> {
    stage.reads.iter().chain(&stage.writes)
}

/// Whether a stage's rows can be taken through a whole loop by themselves.
fn works_by_row(stage: &Stage) -> bool {
    stage.domain == Domain::Batch && !takes_all_rows(&stage.work)
}

/// Whether what it gives is of all rows together.
fn takes_all_rows(work: &Work) -> bool {
    matches!(work, Work::Pack { .. } | Work::ReduceProduct { .. } | Work::ReduceRows { .. } | Work::Scatter { .. })
}

/// Whether there is something of a stage, over so many rows, for more than one member.
fn has_parts(stage: &Stage, rows: usize) -> bool {
    match &stage.work {
        Work::Kernel(kernel) if kernel.tile.is_some() => true,
        // One member does it.
        Work::Scatter { .. } => false,
        work => rows > 1 || takes_all_rows(work),
    }
}

/// What a run reads, shared by the team.
struct Run<'a, E: Float> {
    compiled: &'a Compiled,
    buffers: &'a [*mut u8],
    bound: &'a [Bound],
    own: &'a [UnsafeCell<Own<E>>],
    order: &'a UnsafeCell<Vec<u64>>,
    sizes: &'a Sizes,
    segments: &'a Segments,
    kernels: &'static Kernels<E>,
    /// The segment that is being run; steps are counted from its first.
    window: Option<Window>,
}

// SAFETY: members write disjoint rows or disjoint parts of an output, and each its own entry of `own`; the first alone writes
// `order`.
unsafe impl<E: Float> Sync for Run<'_, E> {}

impl<E: Float> Run<'_, E> {
    fn stride<T>(&self, access: &Access) -> usize {
        if self.is_one_row(access) { 0 } else { self.compiled.plan.buffers[access.buffer.0].stride * size_of::<T>() }
    }

    /// Whether all rows of a stage have the same row of a buffer.
    fn is_one_row(&self, access: &Access) -> bool {
        access.at == At::Shared || self.compiled.plan.buffers[access.buffer.0].rows == Rows::One
    }

    /// First row of an access at step t, as a row number.
    fn first_row(&self, access: &Access, t: usize) -> usize {
        let block = match access.at {
            At::Shared => 0,
            At::Row(block) => block,
            At::Step(shift) => self.first_block(access.buffer) + t + shift,
            At::FromEnd(axis, back) => self.end_block(access.buffer, axis) - back,
        };
        block * self.sizes.batch
    }

    fn element_size(&self, buffer: BufferId) -> usize {
        if self.compiled.plan.buffers[buffer.0].integer { 4 } else { size_of::<E>() }
    }

    /// The address of row 0 of an access at the segment's first step.
    fn base(&self, a: &Access) -> *mut u8 {
        self.buffers[a.buffer.0].wrapping_add(self.first_row(a, 0) * self.row_bytes(a))
    }

    /// Bytes from a step to the next.
    fn step(&self, stage: &Stage, l: Option<&Loop>, a: &Access) -> isize {
        let stepwise = l.is_some() || matches!(stage.domain, Domain::EachStep(_));
        if stepwise && matches!(a.at, At::Step(_)) { (self.row_bytes(a) * self.sizes.batch) as isize } else { 0 }
    }

    /// Bytes of a row of an access's buffer.
    fn row_bytes(&self, a: &Access) -> usize {
        self.compiled.plan.buffers[a.buffer.0].stride * self.element_size(a.buffer)
    }

    fn address<T>(&self, span: &Span, t: usize, row: usize) -> *mut T {
        let stride = self.compiled.plan.buffers[span.access.buffer.0].stride * size_of::<T>();
        let first = self.first_row(&span.access, t) * stride;
        let row = row * self.stride::<T>(&span.access);
        self.buffers[span.access.buffer.0].wrapping_add(first + row + span.offset * size_of::<T>()).cast()
    }

    /// One member's part of all steps of a loop; it meets the others behind each stage.
    fn steps(&self, l: &Loop, first: usize, share: Share, meet: &dyn Fn()) {
        let steps = self.steps_of(l.axis);
        for i in 0..steps {
            let t = if l.reverse { steps - 1 - i } else { i };
            for (i, stage) in l.stages.iter().enumerate() {
                self.stage(stage, first + i, t, share);
                meet();
            }
        }
    }

    /// One member's part of a stage outside of loops: at each step, if it goes by steps.
    fn rows(&self, stage: &Stage, at: usize, share: Share) {
        let Domain::EachStep(axis) = stage.domain else { return self.stage(stage, at, 0, share) };
        let steps = self.steps_of(axis);
        for i in 0..steps {
            let t = if self.compiled.plan.sums_from_the_end(axis) { steps - 1 - i } else { i };
            self.stage(stage, at, t, share);
        }
    }

    /// What a sum over these rows goes on from.
    fn carry(&self, domain: Domain, carried: Option<&Carried>, t: usize) -> gemm::Carry<E> {
        let batch = self.sizes.batch;
        let (done, ends) = match domain {
            Domain::Shared | Domain::Batch => (0, true),
            Domain::Time(axis) | Domain::EachStep(axis) => {
                let (first, len) = self.steps_in(axis);
                let all = self.sizes.steps(axis);
                let by_step = matches!(domain, Domain::EachStep(_));
                let (from, until) = if by_step { (first + t, first + t + 1) } else { (first, first + len) };
                match self.is_from_the_end(domain) {
                    true => (all - until, from == 0),
                    false => (from, until == all),
                }
            }
        };
        // Of one segment there is nothing to take along, and no memory.
        let place = |id: BufferId| {
            let rows = self.compiled.plan.buffers[id.0].rows;
            if rows.count(self.sizes, self.segments) > 0 { self.buffers[id.0] } else { std::ptr::null_mut() }
        };
        let totals: *mut f64 = carried.map_or(std::ptr::null_mut(), |carried| place(carried.totals).cast());
        assert!(!totals.is_null() || done == 0 && ends, "a sum in pieces has memory for what it takes along");
        let begun = carried.and_then(|carried| carried.begun).map_or(std::ptr::null_mut(), place);
        gemm::Carry { done: done * batch, ends, totals, begun: begun.cast() }
    }

    /// Of the rows of a sum, the first that is summed, as a pointer to its part of the span, and the elements to the next.
    fn summed<T>(&self, span: &Span, domain: Domain, t: usize, rows: usize) -> (*mut T, isize) {
        let stride = (self.stride::<T>(&span.access) / size_of::<T>()) as isize;
        if self.is_from_the_end(domain) && rows > 0 {
            (self.address::<T>(span, t, rows - 1), -stride)
        } else {
            (self.address::<T>(span, t, 0), stride)
        }
    }

    /// Whether sums over these rows run from the last to the first.
    fn is_from_the_end(&self, domain: Domain) -> bool {
        matches!(domain, Domain::Time(a) | Domain::EachStep(a) if self.compiled.plan.sums_from_the_end(a))
    }

    /// Rows of a stage: of the present segment, and of one step if it goes by steps.
    fn rows_of(&self, stage: &Stage) -> usize {
        match stage.domain {
            Domain::Shared => 1,
            Domain::Batch | Domain::EachStep(_) => self.sizes.batch,
            Domain::Time(axis) => self.sizes.batch * self.steps_of(axis),
        }
    }

    /// One member's part of the stage at this place, at step t.
    fn stage(&self, stage: &Stage, at: usize, t: usize, share: Share) {
        let rows = self.rows_of(stage);
        let mine = match stage.domain {
            Domain::Shared if share.member > 0 => 0..0,
            Domain::Shared => 0..1,
            _ => share.of(rows),
        };
        match &stage.work {
            Work::Kernel(k) => {
                // SAFETY: this entry is this member's own.
                let own = unsafe { &mut *self.own[share.member].get() };
                let Bound { kernel, bases, steps, .. } = &self.bound[at];
                for ((own, base), step) in own.bases.iter_mut().zip(bases).zip(steps) {
                    *own = base.wrapping_offset(step * t as isize);
                }
                let (rows, panels) = match panels(self.compiled, k) {
                    0 => (mine, 0..0),
                    panels => share.tile(rows, panels, stage.domain == Domain::Shared),
                };
                // SAFETY: bases were bound for these sizes; members' rows and panels are disjoint.
                unsafe { self.call(*kernel, &own.bases, own.scratch.address(0), rows, panels) };
            }
            // SAFETY: spans are the plan's, within their buffers; rows and parts of members are disjoint.
            work => unsafe { self.other(stage, work, t, rows, mine, share) },
        }
    }

    /// Calls a kernel, for some rows at a time.
    ///
    /// # Safety
    /// As [`CompiledKernels::call`](retrograd_compiler::codegen::CompiledKernels::call).
    unsafe fn call(
        &self,
        kernel: usize,
        bases: &[*mut u8],
        scratch: *mut u8,
        rows: Range<usize>,
        panels: Range<usize>,
    ) {
        for start in rows.clone().step_by(CHUNK) {
            let some = start..rows.end.min(start + CHUNK);
            // SAFETY: the caller's promise.
            unsafe { self.compiled.kernels.call(kernel, bases, scratch, some, panels.clone()) };
        }
    }

    /// Stages that are not generated.
    unsafe fn other(&self, stage: &Stage, work: &Work, t: usize, rows: usize, mine: Range<usize>, share: Share) {
        use std::slice::{from_raw_parts as slice, from_raw_parts_mut as slice_mut};
        // SAFETY: for all pointers below: `address` gives rows of buffers that are large enough for the span.
        unsafe {
            match work {
                Work::Kernel(_) => unreachable!("generated"),
                Work::Pack { from, k, n, into, k_total, k_offset } => {
                    let nr = self.kernels.nr;
                    let panels = share.of(n.div_ceil(nr));
                    if panels.is_empty() {
                        return;
                    }
                    let len = (k - 1) * from.k_stride + (n - 1) * from.n_stride + 1;
                    let src = slice(self.buffers[from.buffer.0].cast::<E>().add(from.offset), len);
                    let matrix = PackB { src, k_stride: from.k_stride, n_stride: from.n_stride, k: *k, n: *n };
                    let dst = self.buffers[into.0].cast::<E>().add(panels.start * k_total * nr);
                    let dst = slice_mut(dst, panels.len() * k_total * nr);
                    gemm::pack_b(&matrix, nr, dst, k_total * nr, *k_offset, panels);
                }
                Work::ReduceProduct { a, b, pairs, into, offset, stride, sums, carried } => {
                    let own = &mut *self.own[share.member].get();
                    let c = self.buffers[into.0].cast::<E>().add(*offset);
                    let (ki, n) = (a.len / pairs, b.len / pairs);
                    let ((a, lda), (b, ldb)) =
                        (self.summed::<E>(a, stage.domain, t, rows), self.summed::<E>(b, stage.domain, t, rows));
                    let carry = self.carry(stage.domain, carried.as_ref(), t);
                    let job = gemm::ReduceProduct {
                        a: a.cast_const(),
                        lda,
                        ki,
                        b: b.cast_const(),
                        ldb,
                        n,
                        rows: rows * pairs,
                        pairs: *pairs,
                        c,
                        ldc: *stride,
                        sums: sums.as_ref().map_or(std::ptr::null_mut(), |sums| self.address(sums, t, 0)),
                        carry: gemm::Carry { done: carry.done * pairs, ..carry },
                    };
                    let units = share.of(job.units(self.kernels));
                    gemm::reduce_product(self.kernels, &job, units, &mut own.product);
                }
                Work::ReduceRows { from, times, into, carried } => {
                    let sums = &mut (*self.own[share.member].get()).sums;
                    let (b, ldb) = self.summed::<E>(from, stage.domain, t, rows);
                    let times = times.as_ref().map(|times| {
                        let (a, lda) = self.summed::<E>(times, stage.domain, t, rows);
                        (a.cast_const(), lda)
                    });
                    let c = self.address::<E>(into, t, 0);
                    let (b, n) = (b.cast_const(), from.len);
                    let carry = self.carry(stage.domain, carried.as_ref(), t);
                    let mut job = gemm::ReduceRows { b, ldb, times, n, rows, c, carry };
                    let columns = job.columns(self.kernels, share.of(job.panels(self.kernels)));
                    if into.access.at == At::Shared {
                        gemm::reduce_rows(self.kernels, &job, columns, sums);
                        return;
                    }
                    // To one row per sample: each sample's rows are B apart.
                    let samples = self.sizes.batch;
                    (job.ldb, job.rows) = (ldb * samples as isize, rows / samples);
                    for i in 0..samples {
                        job.b = b.wrapping_offset(i as isize * ldb);
                        let r = if self.is_from_the_end(stage.domain) { samples - 1 - i } else { i };
                        job.c = self.address::<E>(into, t, r);
                        if let Some(carried) = carried.as_ref().filter(|_| !carry.totals.is_null()) {
                            let row =
                                self.compiled.plan.buffers[carried.totals.0].stride * size_of::<E>() / size_of::<f64>();
                            job.carry.totals = carry.totals.add(r * row);
                        }
                        gemm::reduce_rows(self.kernels, &job, columns.clone(), sums);
                    }
                }
                Work::MatrixRows { from, into, m, k, n, packed } => {
                    let own = &mut *self.own[share.member].get();
                    let nr = self.kernels.nr;
                    let panels = n.div_ceil(nr);
                    own.product.resize(own.product.len().max(m * panels * nr), E::default());
                    for r in mine {
                        let segment = Segment { a: self.address::<E>(from, t, r).cast_const(), am: *k, ak: 1, k: *k };
                        let call = GemmCall {
                            segments: &segment,
                            segment_count: 1,
                            b: self.buffers[packed.0].cast::<E>().cast_const(),
                            b_panel: k * nr,
                            b_k: nr,
                            c: own.product.as_mut_ptr(),
                            c_row: nr,
                            c_panel: m * nr,
                            m: *m,
                            panels,
                            ..GemmCall::bare()
                        };
                        (self.kernels.gemm)(&call);
                        let out = slice_mut(self.address::<E>(into, t, r), m * n);
                        for (i, out) in out.chunks_exact_mut(*n).enumerate() {
                            for (p, out) in out.chunks_mut(nr).enumerate() {
                                out.copy_from_slice(&own.product[p * m * nr + i * nr..][..out.len()]);
                            }
                        }
                    }
                }
                Work::MatMul { a, b, into, mkn: [m, k, n], ta, tb } => {
                    let scratch = &mut (*self.own[share.member].get()).product;
                    let (a_is_transposed, b_is_transposed) = (*ta, *tb);
                    let product = SmallProduct { m: *m, k: *k, n: *n, a_is_transposed, b_is_transposed };
                    for r in mine {
                        let x = slice(self.address::<E>(a, t, r).cast_const(), a.len);
                        let y = slice(self.address::<E>(b, t, r).cast_const(), b.len);
                        let out = slice_mut(self.address::<E>(into, t, r), m * n);
                        product.compute(self.kernels, x, y, out, scratch);
                    }
                }
                Work::Gather { table, index, into, width } => {
                    let table = self.address::<E>(table, t, 0);
                    for r in mine {
                        let index = slice(self.address::<i32>(index, t, r).cast_const(), index.len);
                        let out = slice_mut(self.address::<E>(into, t, r), into.len);
                        for (i, out) in index.iter().zip(out.chunks_exact_mut(*width)) {
                            out.copy_from_slice(slice(table.add(*i as usize * width), *width));
                        }
                    }
                }
                Work::Scatter { index, from, into, width, carried } => {
                    if share.member > 0 {
                        return;
                    }
                    let own = &mut *self.own[share.member].get();
                    let (width, n) = (*width, index.len);
                    let table = slice_mut(self.address::<E>(into, t, 0), into.len);
                    let carry = self.carry(stage.domain, carried.as_ref(), t);
                    let row = |i: usize| if self.is_from_the_end(stage.domain) { rows - 1 - i } else { i };
                    let place = |i: usize| *self.address::<i32>(index, t, row(i / n)).add(i % n) as usize;
                    let values = |i: usize| self.address::<E>(from, t, row(i / n)).add(i % n * width).cast_const();
                    let add = |sums: &mut [f64], i: usize| {
                        sums.iter_mut().zip(slice(values(i), width)).for_each(|(sum, x)| *sum += x.wide());
                    };
                    let leave = |into: &mut [E], sums: &[f64]| {
                        into.iter_mut().zip(sums).for_each(|(into, &sum)| *into = E::nearest(sum));
                    };
                    if !carry.totals.is_null() {
                        let totals = slice_mut(carry.totals, into.len);
                        if carry.done == 0 {
                            totals.fill(0.0);
                        }
                        (0..rows * n).for_each(|i| add(&mut totals[place(i) * width..][..width], i));
                        if carry.ends {
                            leave(table, totals);
                        }
                        return;
                    }
                    // One row of the table after another, each in 64 bits and in the order of its rows.
                    let order = &mut *self.order.get();
                    table.fill(E::default());
                    order.clear();
                    order.extend((0..rows * n).map(|i| (place(i) as u64) << ROW_BITS | i as u64));
                    order.sort_unstable();
                    own.sums.resize(own.sums.len().max(width), 0.0);
                    for same in order.chunk_by(|a, b| a >> ROW_BITS == b >> ROW_BITS) {
                        let sums = &mut own.sums[..width];
                        sums.fill(0.0);
                        same.iter().for_each(|key| add(sums, (key & ((1 << ROW_BITS) - 1)) as usize));
                        leave(&mut table[(same[0] >> ROW_BITS) as usize * width..][..width], sums);
                    }
                }
                Work::OneHot { index, into, n } => {
                    for r in mine {
                        let index = slice(self.address::<i32>(index, t, r).cast_const(), index.len);
                        let out = slice_mut(self.address::<E>(into, t, r), into.len);
                        out.fill(E::default());
                        for (i, out) in index.iter().zip(out.chunks_exact_mut(*n)) {
                            out[*i as usize] = E::ONE;
                        }
                    }
                }
                Work::Argmax { from, into, n } => {
                    for r in mine {
                        let scores = slice(self.address::<E>(from, t, r).cast_const(), from.len);
                        let out = slice_mut(self.address::<i32>(into, t, r), into.len);
                        for (scores, out) in scores.chunks_exact(*n).zip(out) {
                            let mut best = 0;
                            for (i, &x) in scores.iter().enumerate() {
                                let (x, most): (f64, f64) = (x.into(), scores[best].into());
                                if x > most || x.is_nan() && !most.is_nan() {
                                    best = i;
                                }
                            }
                            *out = best as i32;
                        }
                    }
                }
                Work::ToFloat { from, into } => {
                    for r in mine {
                        let x = slice(self.address::<i32>(from, t, r).cast_const(), from.len);
                        let out = slice_mut(self.address::<E>(into, t, r), into.len);
                        for (o, &x) in out.iter_mut().zip(x) {
                            *o = E::from_f64(f64::from(x));
                        }
                    }
                }
                Work::Choose { mask, yes, no, into } => {
                    for r in mine {
                        let mask = slice(self.address::<E>(mask, t, r).cast_const(), mask.len);
                        let yes = slice(self.address::<i32>(yes, t, r).cast_const(), yes.len);
                        let no = slice(self.address::<i32>(no, t, r).cast_const(), no.len);
                        let out = slice_mut(self.address::<i32>(into, t, r), into.len);
                        for (i, out) in out.iter_mut().enumerate() {
                            // One flag for all, or one for each.
                            let flag: f64 = mask[i.min(mask.len() - 1)].into();
                            *out = if flag != 0.0 { yes[i] } else { no[i] };
                        }
                    }
                }
                Work::Copy { from, into, dims, strides, into_strides } => {
                    let integer = self.compiled.plan.buffers[into.access.buffer.0].integer;
                    for r in mine {
                        if integer {
                            let (x, y) = (self.address::<i32>(from, t, r), self.address::<i32>(into, t, r));
                            copy(x, y, dims, strides, into_strides);
                        } else {
                            let (x, y) = (self.address::<E>(from, t, r), self.address::<E>(into, t, r));
                            copy(x, y, dims, strides, into_strides);
                        }
                    }
                }
                Work::Fill { into, value } => {
                    let integer = self.compiled.plan.buffers[into.access.buffer.0].integer;
                    for r in mine {
                        if integer {
                            // A whole number of 32 bits: programs are verified.
                            slice_mut(self.address::<i32>(into, t, r), into.len).fill(*value as i32);
                        } else {
                            slice_mut(self.address::<E>(into, t, r), into.len).fill(E::from_f64(*value));
                        }
                    }
                }
                Work::Within { from, into } => {
                    let first = self.window.map_or(0, |window| window.start * self.sizes.batch);
                    for r in mine {
                        let (step, sample) = ((first + r) / self.sizes.batch, (first + r) % self.sizes.batch);
                        let length = *self.address::<i32>(from, t, sample);
                        let is_own = usize::try_from(length).is_ok_and(|length| step < length);
                        *self.address::<E>(into, t, r) = if is_own { E::ONE } else { E::default() };
                    }
                }
                Work::PlaceLast { from, into, axis } => {
                    let before = (self.sizes.steps(*axis) - 1) * self.sizes.batch;
                    let first = self.window.map_or(0, |window| window.start * self.sizes.batch);
                    for r in mine {
                        let out = slice_mut(self.address::<E>(into, t, r), into.len);
                        match (first + r).checked_sub(before) {
                            None => out.fill(E::default()),
                            Some(last) => {
                                out.copy_from_slice(slice(self.address::<E>(from, t, last).cast_const(), from.len));
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A strided copy.
///
/// # Safety
/// All elements the dimensions and strides reach are readable and writable, and the two do not overlap.
unsafe fn copy<T: Copy>(from: *const T, into: *mut T, dims: &[usize], strides: &[usize], into_strides: &[usize]) {
    match dims.split_first() {
        // SAFETY: by the caller's promise, for the one element that is left.
        None => unsafe { *into = *from },
        // SAFETY: by the caller's promise, a run of elements, of which the dense ones are slices.
        Some((&n, [])) => unsafe {
            match (strides[0], into_strides[0]) {
                (1, 1) => std::ptr::copy_nonoverlapping(from, into, n),
                (0, 1) => std::slice::from_raw_parts_mut(into, n).fill(*from),
                (step, step_into) => (0..n).for_each(|i| *into.add(i * step_into) = *from.add(i * step)),
            }
        },
        Some((&n, rest)) => {
            for i in 0..n {
                // SAFETY: by the caller's promise, one index further inside.
                unsafe {
                    copy(
                        from.add(i * strides[0]),
                        into.add(i * into_strides[0]),
                        rest,
                        &strides[1..],
                        &into_strides[1..],
                    );
                }
            }
        }
    }
}
