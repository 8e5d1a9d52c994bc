//! Machine code for the kernels of a plan, through Cranelift.
//!
//! Cranelift's vectors are 128 bits wide, so the work that decides speed stays outside: the matrix micro-kernel and
//! the vector maths are routines of the runtime, whose addresses come in a [`KernelTable`] and which are called once
//! a tile or a row. What is generated is everything around them: which memory, which block, and the fused pointwise
//! arithmetic on the tile while it is hot.
//!
//! A kernel is a C function of [`KernelFn`]'s type. It touches only rows `row0..row1`, panels `panel0..panel1` of
//! the accesses its stage lists, and its scratch. [`CompiledKernels`] owns the code and frees it when it is dropped.

mod emit;
mod instructions;
mod levels;
mod memory;
mod products;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, available_parallelism};
use std::time::Instant;

use cranelift_codegen::Context;
use cranelift_codegen::ir::{AbiParam, Signature, types};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::FunctionBuilderContext;
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, ModuleError, ModuleReloc, default_libcall_names};

use instructions::Features;
pub use instructions::{InstructionSet, UnknownInstructionSet};
use memory::CodeMemory;
pub use memory::CompiledKernels;
pub use products::{Place, ProductsFn, RowPart, TileProduct, TileProducts};

use crate::error::CodegenError;
use crate::ir::op::Unary;
use crate::plan::{Kernel, KernelOp, Plan, Target, Work};

/// Float width of a compiled program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// For training and inference.
    F32,
    /// For checking gradients through the same generated code.
    F64,
}

impl Precision {
    /// Bytes of a float.
    pub fn size(self) -> usize {
        match self {
            Precision::F32 => 4,
            Precision::F64 => 8,
        }
    }
}

/// Routines of the runtime that generated code calls, for one precision.
#[derive(Clone, Debug)]
pub struct KernelTable {
    instruction_set: InstructionSet,
    panel: usize,
    products: usize,
    unary: Vec<(Unary, usize)>,
    pow: usize,
}

impl KernelTable {
    /// A table of routines that use `instruction_set`, as the code around them may:
    ///
    /// - `panel`: columns of a packed panel;
    /// - `products`: address of the routine that computes a tile's products, a [`ProductsFn`];
    /// - `unary`: addresses of vector functions `extern "C" fn(x, y, n)`, n a multiple of 64 bytes of elements, one for
    ///   each function that vector maths has;
    /// - `pow`: address of `extern "C" fn(x, y, out, n)`: x to the power of y.
    ///
    /// # Safety
    /// The addresses are of functions of these types, for elements of the precision that programs are compiled for with
    /// this table, and stay so for as long as such a program is run. They compute what their names say within the slices
    /// that they are given, in panels of this width. The machine has the instruction set.
    pub unsafe fn new(
        instruction_set: InstructionSet,
        panel: usize,
        products: usize,
        unary: Vec<(Unary, usize)>,
        pow: usize,
    ) -> KernelTable {
        KernelTable { instruction_set, panel, products, unary, pow }
    }

    /// The instructions that they use, and that the code around them may use.
    pub fn instruction_set(&self) -> InstructionSet {
        self.instruction_set
    }

    /// Columns of a packed panel.
    pub fn panel(&self) -> usize {
        self.panel
    }
}

/// The type of a kernel: for each access the address of row 0 at the step, scratch, first and last row, first and last panel.
pub type KernelFn = unsafe extern "C" fn(*const *mut u8, *mut u8, usize, usize, usize, usize);

/// Parameters of a [`KernelFn`].
const PARAMETERS: usize = 6;

/// Kernels that are worth a thread to compile them.
const FEW: usize = 3;

/// Facts about a kernel's code.
#[derive(Clone, Debug, Default)]
pub struct KernelInfo {
    /// Scratch it needs, in bytes.
    pub scratch: usize,
    /// Bytes of machine code.
    pub code_size: usize,
    /// Cranelift's input, if asked for.
    pub clif: Option<String>,
    /// Machine code as text, if asked for.
    pub disassembly: Option<String>,
}

/// Compiles all kernels of a plan, on up to as many threads as there are cores. `texts` also keeps CLIF and disassembly of each.
///
/// # Errors
/// If this machine cannot be compiled for, or memory for code cannot be had.
pub fn compile(
    plan: &Plan,
    precision: Precision,
    table: &KernelTable,
    texts: bool,
) -> Result<CompiledKernels, CodegenError> {
    let started = Instant::now();
    let isa = table.instruction_set.isa()?;
    // Kernels that differ only in where their rows are, as those of equal layers do, have one function.
    let mut known: HashMap<Kernel, usize> = HashMap::new();
    let mut distinct: Vec<&Kernel> = Vec::new();
    let mut functions: Vec<usize> = Vec::new();
    for kernel in kernels(plan) {
        let function = *known.entry(kernel.shape()).or_insert(distinct.len());
        if function == distinct.len() {
            distinct.push(kernel);
        }
        functions.push(function);
    }
    let codes = Job::new(&*isa, precision, table, texts).compile_all(&distinct)?;
    let bytes: usize = codes.iter().map(|code| code.bytes.len() + code.alignment as usize).sum();
    let mut builder = JITBuilder::with_isa(isa, default_libcall_names());
    builder.memory_provider(Box::new(CodeMemory::new(bytes)?));
    let mut module = JITModule::new(builder);
    let signature = signature(module.target_config().default_call_conv);
    let failed = |e: ModuleError| match e {
        ModuleError::Allocation { err } => CodegenError::Memory(err.to_string()),
        // With all functions defined, what is left is to make their memory executable.
        ModuleError::Backend(e) => CodegenError::Memory(format!("{e:#}")),
        e => CodegenError::Module(e.to_string()),
    };
    let mut define = |(i, code): (usize, &Code)| -> Result<(), CodegenError> {
        let id =
            module.declare_function(&format!("retrograd_kernel_{i}"), Linkage::Local, &signature).map_err(failed)?;
        assert_eq!(id, FuncId::from_u32(i as u32), "functions are numbered as they are declared");
        module.define_function_bytes(id, code.alignment, &code.bytes, &code.relocs).map_err(failed)
    };
    let defined = codes.iter().enumerate().try_for_each(&mut define);
    if let Err(e) = defined.and_then(|()| module.finalize_definitions().map_err(failed)) {
        // SAFETY: nothing has been called and no address has been given out.
        unsafe { module.free_memory() };
        return Err(e);
    }
    let functions = functions.into_iter().map(|i| (FuncId::from_u32(i as u32), codes[i].info.clone())).collect();
    let products = codes.into_iter().map(|code| code.products).collect();
    Ok(CompiledKernels::new(module, functions, products, started.elapsed()))
}

/// Machine code of one kernel, not yet where it will run.
struct Code {
    bytes: Vec<u8>,
    alignment: u64,
    relocs: Vec<ModuleReloc>,
    products: Pin<Box<TileProducts>>,
    info: KernelInfo,
}

/// What all kernels have in common.
struct Job<'a> {
    isa: &'a dyn TargetIsa,
    features: Features,
    precision: Precision,
    table: &'a KernelTable,
    texts: bool,
}

impl<'a> Job<'a> {
    fn new(isa: &'a dyn TargetIsa, precision: Precision, table: &'a KernelTable, texts: bool) -> Job<'a> {
        Job { isa, features: Features::of(table.instruction_set, isa), precision, table, texts }
    }

    /// Compiles kernel `i`, which nothing else needs to know of.
    fn compile(&self, desk: &mut Desk, i: usize, kernel: &Kernel) -> Result<Code, CodegenError> {
        let Desk { context, builder } = desk;
        context.clear();
        context.set_disasm(self.texts);
        context.func.signature = signature(self.isa.default_call_conv());
        let config = self.isa.frontend_config();
        let (scratch, products) =
            emit::kernel(&mut context.func, builder, config, kernel, self.precision, self.table, self.features)?;
        let clif = self.texts.then(|| context.func.display().to_string());
        let failed = |e| CodegenError::Module(format!("{e:?}"));
        context.compile(self.isa, &mut Default::default()).map_err(|e| failed(e.inner))?;
        let code = context.compiled_code().expect("just compiled");
        let id = FuncId::from_u32(i as u32);
        let relocs = code.buffer.relocs().iter().map(|reloc| ModuleReloc::from_mach_reloc(reloc, &context.func, id));
        let bytes = code.code_buffer().to_vec();
        Ok(Code {
            alignment: u64::from(code.buffer.alignment),
            relocs: relocs.collect(),
            products,
            info: KernelInfo { scratch, code_size: bytes.len(), clif, disassembly: code.vcode.clone() },
            bytes,
        })
    }

    /// Compiles all, the largest first, a thread for every few. Which compiles which does not show in the code.
    fn compile_all(&self, kernels: &[&Kernel]) -> Result<Vec<Code>, CodegenError> {
        static CORES: OnceLock<usize> = OnceLock::new();
        let cores = *CORES.get_or_init(|| available_parallelism().map_or(1, NonZero::get));
        let mut order: Vec<usize> = (0..kernels.len()).collect();
        order.sort_by_key(|&i| Reverse(kernels[i].nodes.len()));
        let next = AtomicUsize::new(0);
        let work = || {
            let mut desk = Desk { context: Context::new(), builder: FunctionBuilderContext::new() };
            let taken = std::iter::from_fn(|| order.get(next.fetch_add(1, Ordering::Relaxed)));
            taken.map(|&i| (i, self.compile(&mut desk, i, kernels[i]))).collect::<Vec<_>>()
        };
        let mut codes = std::thread::scope(|scope| {
            let threads = cores.min(kernels.len().div_ceil(FEW));
            // Threads that cannot be had are done without.
            let others = (1..threads).filter_map(|_| Builder::new().spawn_scoped(scope, work).ok());
            let others: Vec<_> = others.collect();
            let own = work();
            let others = others.into_iter().map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            others.fold(own, |all, some| all.into_iter().chain(some).collect())
        });
        codes.sort_by_key(|(i, _)| *i);
        codes.into_iter().map(|(_, code)| code).collect()
    }
}

/// What a thread compiles with, one kernel after another.
struct Desk {
    context: Context,
    builder: FunctionBuilderContext,
}

fn signature(convention: CallConv) -> Signature {
    let mut signature = Signature::new(convention);
    signature.params = vec![AbiParam::new(types::I64); PARAMETERS];
    signature
}

/// The kernels of a plan, in order.
fn kernels(plan: &Plan) -> impl Iterator<Item = &Kernel> {
    plan.stages().filter_map(|(stage, _)| match &stage.work {
        Work::Kernel(kernel) => Some(kernel),
        _ => None,
    })
}

/// Instructions of each kernel of a plan, in order, as code for one particular machine: x86-64 with AVX2 and FMA. They
/// are the same wherever and however often they are counted, so a change to what is generated shows in a review, where
/// a clock would show nothing. The plan is for a panel of 16 floats of 4 bytes.
///
/// ```
/// use retrograd_compiler::{codegen, ir::Program, pipeline, plan};
/// let tanh = Program::record("tanh", |p| p.output("y", p.input("x", 64).square() + 1.0))?;
/// let plan = plan::plan(&pipeline::lower(&tanh), codegen::COUNTED, None);
/// # if cfg!(target_arch = "x86_64") {
/// assert!((10..200).contains(&codegen::count_instructions(&plan)?[0]));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If this build of the compiler cannot generate code for x86-64.
pub fn count_instructions(plan: &Plan) -> Result<Vec<usize>, CodegenError> {
    assert_eq!(plan.target, COUNTED, "a plan for the machine that is counted for");
    let failed = |e: &dyn std::fmt::Display| CodegenError::Machine(e.to_string());
    let mut machine = cranelift_codegen::isa::lookup_by_name("x86_64-unknown-linux-gnu").map_err(|e| failed(&e))?;
    for feature in ["sse3", "ssse3", "sse41", "sse42", "popcnt", "avx", "avx2", "fma", "bmi1", "bmi2", "lzcnt"] {
        machine.enable(&format!("has_{feature}")).map_err(|e| failed(&e))?;
    }
    let isa = machine.finish(flags()?).map_err(|e| failed(&e))?;
    // Nothing is called: any address will do.
    let routines = kernels(plan).flat_map(|kernel| &kernel.nodes).filter_map(|node| match node.op {
        KernelOp::Unary(u) if node.op.is_routine() => Some((u, 0)),
        _ => None,
    });
    let table = KernelTable {
        instruction_set: InstructionSet::Avx2,
        panel: COUNTED.panel,
        products: 0,
        unary: routines.collect(),
        pow: 0,
    };
    let codes = Job::new(&*isa, Precision::F32, &table, true).compile_all(&kernels(plan).collect::<Vec<_>>())?;
    let count = |code: Code| code.info.disassembly.unwrap_or_default().lines().filter(|l| l.starts_with("  ")).count();
    Ok(codes.into_iter().map(count).collect())
}

/// The machine that [`count_instructions`] counts for.
pub const COUNTED: Target = Target { panel: 16, float_size: 4 };

fn flags() -> Result<settings::Flags, CodegenError> {
    let mut flags = settings::builder();
    let verifier = if cfg!(debug_assertions) { "true" } else { "false" };
    for (name, value) in [
        ("is_pic", "false"),
        ("use_colocated_libcalls", "false"),
        ("opt_level", "speed"),
        ("enable_verifier", verifier),
        ("unwind_info", "false"),
    ] {
        flags.set(name, value).map_err(|e| CodegenError::Machine(e.to_string()))?;
    }
    Ok(settings::Flags::new(flags))
}
