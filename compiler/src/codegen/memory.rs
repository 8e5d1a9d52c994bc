//! Code memory: who owns it and when it goes.
//!
//! Dropping a `JITModule` leaks its code; only `free_memory` gives it back, and nothing may run it afterwards. So
//! the module lives behind the one type that hands out kernels, and kernels can be called only through a borrow of
//! it. Executors share it in an `Arc`.

use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::time::Duration;

use cranelift_jit::JITModule;
use cranelift_module::FuncId;

use super::{KernelFn, KernelInfo, TileProducts};

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
