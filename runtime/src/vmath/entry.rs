//! The loops around the bodies of [`super::kernels`], compiled once for every
//! instruction set, and the tables of their entry points.

use super::kernels::{self as k, Elementwise};
use super::{Binary, InstructionSet, Table, Unary};

/// Elements worked on at a time: a constant, so that there is no scalar remainder;
/// two AVX2 vectors, which is as many as the sixteen registers carry through these
/// expressions without spilling. The loops over a block are too long for LLVM to
/// unroll into scalars before it vectorises them.
const BLOCK: usize = 16;

/// `y[i] = K(x[i])`. The block is read before any of it is written, so that `y` may
/// be `x`, and LLVM knows it may.
///
/// # Safety
///
/// As [`Unary`].
#[inline(always)]
unsafe fn map<K: Elementwise, const FMA: bool>(x: *const f32, y: *mut f32, n: usize) {
    let mut i = 0;
    while i + BLOCK <= n {
        // SAFETY: i + BLOCK <= n, and the caller vouches for n elements.
        let from = unsafe { x.add(i).cast::<[f32; BLOCK]>().read_unaligned() };
        let to = block::<K, FMA>(&from);
        // SAFETY: as above.
        unsafe { y.add(i).cast::<[f32; BLOCK]>().write_unaligned(to) };
        i += BLOCK;
    }
    // Apart from the loop: were the two to share the code for a block, it would go
    // through memory.
    if i < n {
        let rest = n - i;
        let mut from = [0.0; BLOCK];
        // SAFETY: `rest` elements are left of the caller's n, and rest < BLOCK.
        unsafe { std::ptr::copy_nonoverlapping(x.add(i), from.as_mut_ptr(), rest) };
        let to = block::<K, FMA>(&from);
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(to.as_ptr(), y.add(i), rest) };
    }
}

#[inline(always)]
fn block<K: Elementwise, const FMA: bool>(from: &[f32; BLOCK]) -> [f32; BLOCK] {
    let mut to = [0.0; BLOCK];
    for j in 0..BLOCK {
        to[j] = K::at::<FMA>(from[j]);
    }
    K::patch(from, &mut to);
    to
}

/// `y[i] = x[i]^z[i]`, in the manner of [`map`].
///
/// # Safety
///
/// As [`Binary`].
#[inline(always)]
unsafe fn map_pow<const FMA: bool>(x: *const f32, z: *const f32, y: *mut f32, n: usize) {
    let mut i = 0;
    while i < n {
        let len = BLOCK.min(n - i);
        let (mut a, mut b) = ([1.0; BLOCK], [1.0; BLOCK]);
        // SAFETY: i + len <= n, and the caller vouches for n elements; len <= BLOCK.
        unsafe {
            std::ptr::copy_nonoverlapping(x.add(i), a.as_mut_ptr(), len);
            std::ptr::copy_nonoverlapping(z.add(i), b.as_mut_ptr(), len);
        }
        let mut to = [0.0; BLOCK];
        for j in 0..BLOCK {
            to[j] = k::pow::<FMA>(a[j], b[j]);
        }
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(to.as_ptr(), y.add(i), len) };
        i += len;
    }
}

/// Compiles every function for one instruction set, as module `$module` with a
/// table `TABLE` in the order of [`super::Function`].
macro_rules! isa {
    ($module:ident, $set:ident, $fma:literal $(, $features:literal)?) => {
        pub(super) mod $module {
            use super::*;

            isa!(@unary $fma, [$($features)?],
                exp Exp, expm1 Expm1, ln Ln, log1p Log1p, tanh Tanh, sigmoid Sigmoid,
                silu Silu, softplus Softplus, erf Erf, normal_cdf NormalCdf, gelu Gelu, sin Sin, cos Cos);

            $(#[target_feature(enable = $features)])?
            unsafe extern "C" fn pow(x: *const f32, z: *const f32, y: *mut f32, n: usize) {
                // SAFETY: the contract of `Binary` is passed on.
                unsafe { map_pow::<$fma>(x, z, y, n) }
            }

            pub static TABLE: Table<f32> = Table {
                instruction_set: InstructionSet::$set,
                unary: [
                    exp as Unary<f32>, expm1, ln, log1p, tanh, sigmoid, silu, softplus,
                    erf, normal_cdf, gelu, sin, cos,
                ],
                binary: [pow as Binary<f32>],
            };
        }
    };
    (@unary $fma:literal, $features:tt, $($f:ident $kernel:ident),*) => {
        $(isa!(@one $fma, $features, $f $kernel);)*
    };
    (@one $fma:literal, [$($features:literal)?], $f:ident $kernel:ident) => {
        $(#[target_feature(enable = $features)])?
        unsafe extern "C" fn $f(x: *const f32, y: *mut f32, n: usize) {
            // SAFETY: the contract of `Unary` is passed on.
            unsafe { map::<k::$kernel, $fma>(x, y, n) }
        }
    };
}

isa!(portable, Portable, false);
#[cfg(target_arch = "x86_64")]
isa!(avx2, Avx2, true, "avx2,fma");
#[cfg(target_arch = "x86_64")]
isa!(avx512, Avx512, true, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma");
#[cfg(target_arch = "aarch64")]
isa!(neon, Neon, true, "neon");

/// The tables of all instruction sets of this architecture.
pub(super) static TABLES: &[&Table<f32>] = &[
    #[cfg(target_arch = "x86_64")]
    &avx512::TABLE,
    #[cfg(target_arch = "x86_64")]
    &avx2::TABLE,
    #[cfg(target_arch = "aarch64")]
    &neon::TABLE,
    &portable::TABLE,
];
