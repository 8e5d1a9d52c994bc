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
mod levels;
mod memory;

use std::collections::HashMap;
use std::time::Instant;

use cranelift_codegen::Context;
use cranelift_codegen::ir::{AbiParam, Signature, types};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::FunctionBuilderContext;
use cranelift_jit::{ArenaMemoryProvider, JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, default_libcall_names};

pub use memory::CompiledKernels;

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
    /// Columns of a packed panel.
    pub panel: usize,
    /// Address of the matrix micro-kernel, `extern "C" fn(*const GemmCall)`.
    pub gemm: usize,
    /// Addresses of vector functions `extern "C" fn(x, y, n)`, n a multiple of 64 bytes of elements.
    pub unary: Vec<(Unary, usize)>,
    /// Address of `extern "C" fn(x, y, out, n)`: x to the power of y.
    pub pow: usize,
}

/// One access of a stage, as a kernel sees it: element 0 of row 0 at step t is at `base + t·step`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RowBase {
    /// Address at step 0.
    pub base: *mut u8,
    /// Bytes from a step to the next.
    pub step: isize,
}

/// The type of a kernel: accesses, scratch, step, first and last row, first and last panel.
pub type KernelFn = unsafe extern "C" fn(*const RowBase, *mut u8, usize, usize, usize, usize, usize);

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

/// Compiles all kernels of a plan. `texts` also keeps CLIF and disassembly of each.
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
    let isa = isa()?;
    let fma = has_fma(&*isa);
    let mut builder = JITBuilder::with_isa(isa, default_libcall_names());
    let kernels: Vec<&Kernel> = plan
        .stages()
        .filter_map(|(s, _)| match &s.work {
            Work::Kernel(k) => Some(k),
            _ => None,
        })
        .collect();
    // Each node becomes at most some dozens of instructions for each of a panel's vectors.
    let nodes: usize = kernels.iter().map(|k| k.nodes.len() + 16).sum();
    let reserve = (nodes * 16 * 1024).next_multiple_of(1 << 20).max(1 << 20);
    let provider = ArenaMemoryProvider::new_with_size(reserve).map_err(|e| CodegenError::Memory(e.to_string()))?;
    builder.memory_provider(Box::new(provider));
    let mut module = JITModule::new(builder);
    let mut functions: Vec<(FuncId, KernelInfo)> = Vec::new();
    let mut context = module.make_context();
    let mut builder_context = FunctionBuilderContext::new();
    // Kernels that differ only in where their rows are, as those of equal layers do, have one function.
    let mut known: HashMap<String, usize> = HashMap::new();
    for (i, kernel) in kernels.iter().enumerate() {
        let same = *known.entry(kernel.shape()).or_insert(i);
        if same < i {
            functions.push(functions[same].clone());
            continue;
        }
        let compiled = define(&mut module, &mut context, &mut builder_context, i, kernel, precision, table, fma, texts);
        match compiled {
            Ok(f) => functions.push(f),
            Err(e) => {
                // SAFETY: nothing has been called and no address has been given out.
                unsafe { module.free_memory() };
                return Err(e);
            }
        }
    }
    if let Err(e) = module.finalize_definitions() {
        // SAFETY: as above.
        unsafe { module.free_memory() };
        return Err(CodegenError::Module(e.to_string()));
    }
    Ok(CompiledKernels::new(module, functions, started.elapsed()))
}

#[expect(clippy::too_many_arguments, reason = "the state of one compile")]
fn define(
    module: &mut JITModule,
    context: &mut Context,
    builder_context: &mut FunctionBuilderContext,
    index: usize,
    kernel: &Kernel,
    precision: Precision,
    table: &KernelTable,
    fma: bool,
    texts: bool,
) -> Result<(FuncId, KernelInfo), CodegenError> {
    let fail = |e: &dyn std::fmt::Display| CodegenError::Module(e.to_string());
    let mut signature: Signature = module.make_signature();
    signature.params = vec![AbiParam::new(types::I64); 7];
    let id = module
        .declare_function(&format!("retrograd_kernel_{index}"), Linkage::Local, &signature)
        .map_err(|e| fail(&e))?;
    context.func.signature = signature;
    let config = module.target_config();
    let scratch = emit::kernel(&mut context.func, builder_context, config, kernel, precision, table, fma);
    let clif = texts.then(|| context.func.display().to_string());
    context.set_disasm(texts);
    module.define_function(id, context).map_err(|e| CodegenError::Module(format!("{e:?}")))?;
    let code = context.compiled_code().expect("just compiled");
    let info = KernelInfo {
        scratch,
        code_size: code.code_info().total_size as usize,
        clif,
        disassembly: if texts { code.vcode.clone() } else { None },
    };
    module.clear_context(context);
    Ok((id, info))
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
    let mut builder_context = FunctionBuilderContext::new();
    let kernels = plan.stages().filter_map(|(s, _)| match &s.work {
        Work::Kernel(k) => Some(k),
        _ => None,
    });
    let count = |kernel: &Kernel| {
        let mut context = Context::new();
        context.func.signature = Signature::new(isa.default_call_conv());
        context.func.signature.params = vec![AbiParam::new(types::I64); 7];
        let config = isa.frontend_config();
        // Nothing is called: any address will do.
        let routine = |op: &KernelOp| match op {
            KernelOp::Unary(u) if op.is_routine() => Some((*u, 0)),
            _ => None,
        };
        let unary = kernel.nodes.iter().filter_map(|node| routine(&node.op)).collect();
        let table = KernelTable { panel: COUNTED.panel, gemm: 0, unary, pow: 0 };
        emit::kernel(&mut context.func, &mut builder_context, config, kernel, Precision::F32, &table, true);
        context.set_disasm(true);
        let code =
            context.compile(&*isa, &mut Default::default()).map_err(|e| CodegenError::Module(format!("{e:?}")))?;
        let text = code.vcode.as_deref().unwrap_or_default();
        Ok(text.lines().filter(|line| line.starts_with("  ")).count())
    };
    kernels.map(count).collect()
}

/// The machine that [`count_instructions`] counts for.
pub const COUNTED: Target = Target { panel: 16, float_size: 4 };

fn isa() -> Result<OwnedTargetIsa, CodegenError> {
    let machine = cranelift_native::builder().map_err(|e| CodegenError::Machine(e.to_string()))?;
    machine.finish(flags()?).map_err(|e| CodegenError::Machine(e.to_string()))
}

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

/// Whether `fma` is one instruction; otherwise it would be a call for each lane.
fn has_fma(isa: &dyn cranelift_codegen::isa::TargetIsa) -> bool {
    match isa.triple().architecture {
        target_lexicon::Architecture::X86_64 => {
            let on = |name: &str| isa.isa_flags().iter().any(|f| f.name == name && f.as_bool() == Some(true));
            on("has_avx") && on("has_fma")
        }
        _ => true,
    }
}
