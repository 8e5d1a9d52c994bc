//! Code memory: where it is, who owns it and when it goes.
//!
//! All code of a program is in one map, [`CodeMemory`], that is writable while the code is copied there and executable
//! afterwards, never both at once. A system that forbids executable memory, or has no more maps for this process, says so
//! in an error.
//!
//! Dropping a `JITModule` leaks its code; only `free_memory` gives it back, and nothing may run it afterwards. So
//! the module lives behind the one type that hands out kernels, and kernels can be called only through a borrow of
//! it. Executors share it in an `Arc`.

use std::io;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::time::Duration;

use cranelift_jit::{BranchProtection, JITMemoryKind, JITMemoryProvider, JITModule, SystemMemoryProvider};
use cranelift_module::{FuncId, ModuleResult};

use super::{KernelFn, KernelInfo, TileProducts};
use crate::error::CodegenError;

/// Memory for code of a known size.
///
/// Cranelift's own arena panics where the system refuses to make memory executable. Its provider of single maps does
/// not, but takes a map for each function: here it gives one, which is handed out piece by piece.
pub(super) struct CodeMemory {
    maps: SystemMemoryProvider,
    start: *mut u8,
    bytes: usize,
    used: usize,
}

// SAFETY: `start` points into a map that `maps` owns and that moves with it.
unsafe impl Send for CodeMemory {}

impl CodeMemory {
    /// Room for so many bytes, alignment of functions included.
    pub(super) fn new(bytes: usize) -> Result<CodeMemory, CodegenError> {
        let mut maps = SystemMemoryProvider::new();
        let bytes = bytes.max(1);
        let start = maps.allocate(bytes, 1, JITMemoryKind::Executable);
        let start = start.map_err(|e| CodegenError::Memory(e.to_string()))?;
        Ok(CodeMemory { maps, start, bytes, used: 0 })
    }
}

impl JITMemoryProvider for CodeMemory {
    fn allocate(&mut self, size: usize, align: u64, kind: JITMemoryKind) -> io::Result<*mut u8> {
        let first = usize::try_from(align).ok().and_then(|align| self.used.checked_next_multiple_of(align));
        let end = first.and_then(|first| first.checked_add(size)).filter(|&end| end <= self.bytes);
        match (kind, first, end) {
            (JITMemoryKind::Executable, Some(first), Some(end)) => {
                self.used = end;
                // The map starts on a page, to which any alignment of functions is small.
                Ok(self.start.wrapping_add(first))
            }
            // Veneers of far calls, and data: there are none, but others may have what they ask for.
            (kind, _, _) => self.maps.allocate(size, align, kind),
        }
    }

    unsafe fn free_memory(&mut self) {
        // SAFETY: the caller's promise, that nothing runs in this memory or will.
        unsafe { self.maps.free_memory() };
    }

    fn finalize(&mut self, branch_protection: BranchProtection) -> ModuleResult<()> {
        self.maps.finalize(branch_protection)
    }
}

/// The machine code of a plan's kernels, in the order of its stages.
pub struct CompiledKernels {
    module: ManuallyDrop<JITModule>,
    kernels: Vec<(KernelFn, KernelInfo)>,
    /// Code refers to them by address.
    _products: Vec<Pin<Box<TileProducts>>>,
    time: Duration,
}

// SAFETY: the module is not touched between construction and drop; what is shared is finished, immutable code.
unsafe impl Sync for CompiledKernels {}

impl CompiledKernels {
    pub(super) fn new(
        module: JITModule,
        functions: Vec<(FuncId, KernelInfo)>,
        products: Vec<Pin<Box<TileProducts>>>,
        time: Duration,
    ) -> CompiledKernels {
        let kernels = functions
            .into_iter()
            .map(|(id, info)| {
                let address = module.get_finalized_function(id);
                // SAFETY: the function was defined with the signature of `KernelFn` in the C convention.
                let f = unsafe { std::mem::transmute::<*const u8, KernelFn>(address) };
                (f, info)
            })
            .collect();
        CompiledKernels { module: ManuallyDrop::new(module), kernels, _products: products, time }
    }

    /// Number of kernels.
    pub fn len(&self) -> usize {
        self.kernels.len()
    }

    /// Whether the plan has no kernel.
    pub fn is_empty(&self) -> bool {
        self.kernels.is_empty()
    }

    /// Facts about kernel `i`.
    pub fn info(&self, i: usize) -> &KernelInfo {
        &self.kernels[i].1
    }

    /// How long compiling took.
    pub fn time(&self) -> Duration {
        self.time
    }

    /// Runs kernel `i`.
    ///
    /// # Safety
    /// `bases` has for each access of the kernel's stage the address of row 0 at the present step, valid for the given rows
    /// and panels with the strides of the plan; `scratch` has the kernel's scratch size and is not in use elsewhere; no other
    /// thread works on the same rows and panels.
    pub unsafe fn call(
        &self,
        i: usize,
        bases: &[*mut u8],
        scratch: *mut u8,
        range: std::ops::Range<usize>,
        panels: std::ops::Range<usize>,
    ) {
        // SAFETY: by the caller's promise; the code lives as long as `self`.
        unsafe {
            (self.kernels[i].0)(bases.as_ptr(), scratch, range.start, range.end, panels.start, panels.end);
        }
    }
}

impl Drop for CompiledKernels {
    fn drop(&mut self) {
        // SAFETY: taken once, here; no kernel can run any more, since calls borrow `self`.
        unsafe { ManuallyDrop::take(&mut self.module).free_memory() };
    }
}
