//! Floor 1: vector primitives, the one place that speaks `std::arch`.
//!
//! A kernel is written once against [`Simd`], in safe code, and [`Level::run`] compiles it once per instruction set:
//! every method of a token is `#[inline(always)]` (but the portable one's in debug builds, see there), so the kernel's body is inlined into an entry point that carries
//! `#[target_feature]`, and the intrinsics into the body. A token exists only if its features were detected, which is
//! what makes the intrinsics sound.
//!
//! Vectors have the same width on every level (16 × f32, 64 bytes): a level with narrower registers uses several.
//! So sums are taken in the same order everywhere, and whatever uses only exact operations and `add`/`mul` gives the
//! same bits on every machine. [`Simd::mul_add`] alone may round once or twice.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_dot;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod disjoint;
mod exp;
mod level;
mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_dot;
mod pages;
mod portable;
pub mod roofline;
#[cfg(target_feature = "simd128")]
mod simd128;
mod tiles;
mod vector;
#[cfg(target_arch = "x86_64")]
mod vnni;

pub use disjoint::{ColumnBlocks, Columns, RowBlocks};
pub use exp::{exp, exp_sum, gelu, gelu_erf, gelu_quick, sigmoid, silu, tanh};
pub use level::{Level, SimdKernel};
pub use math::{axpy, dot, f32_to_f16, max};
pub use pages::{Arena, ArenaSlice};
pub use portable::Portable;
pub use tiles::{TILE_DEPTH, TILE_ROWS, Tile, TileSums, Tiles};
pub use vector::Simd;

/// The `N` values of `v` from `at` on, as an array. Panics past the end.
#[inline(always)]
pub fn array<T, const N: usize>(v: &[T], at: usize) -> &[T; N] {
    v[at..at + N].try_into().expect("a slice of N values")
}

/// The `N` values of `v` from `at` on, to be written. Panics past the end.
#[inline(always)]
pub fn array_mut<T, const N: usize>(v: &mut [T], at: usize) -> &mut [T; N] {
    (&mut v[at..at + N]).try_into().expect("a slice of N values")
}

#[cfg(test)]
mod tests;
