//! Reductions, scaled adds and a conversion on slices, which operations share.
//!
//! All run at [`Level::best`]. Sums are taken 32 values at a time, in the same order on every level.

use super::level::{Level, SimdKernel};
use super::vector::Simd;
use super::{array, array_mut};
use half::f16;

/// At most `N` values, then `pad`.
#[inline(always)]
pub(super) fn padded<T: Copy, const N: usize>(v: &[T], pad: T) -> [T; N] {
    let mut out = [pad; N];
    out[..v.len()].copy_from_slice(v);
    out
}

pub(super) struct Dot<'a>(pub &'a [f32], pub &'a [f32]);

impl SimdKernel for Dot<'_> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let Dot(a, b) = self;
        assert_eq!(a.len(), b.len(), "lengths of a dot product");
        let (mut even, mut odd) = (s.splat(0.0), s.splat(0.0));
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<32>(), b.as_chunks::<32>());
        for (a, b) in a.iter().zip(b) {
            even = s.mul_add(s.floats(array(a, 0)), s.floats(array(b, 0)), even);
            odd = s.mul_add(s.floats(array(a, 16)), s.floats(array(b, 16)), odd);
        }
        let (a, b): ([f32; 32], [f32; 32]) = (padded(a_rest, 0.0), padded(b_rest, 0.0));
        even = s.mul_add(s.floats(array(&a, 0)), s.floats(array(&b, 0)), even);
        odd = s.mul_add(s.floats(array(&a, 16)), s.floats(array(&b, 16)), odd);
        s.sum(s.add(even, odd))
    }
}

/// Σ a · b.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    Level::best().run(Dot(a, b))
}

pub(super) struct Max<'a>(pub &'a [f32]);

impl SimdKernel for Max<'_> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (whole, rest) = self.0.as_chunks::<16>();
        let mut largest = s.floats(&padded(rest, f32::NEG_INFINITY));
        for v in whole {
            largest = s.max(s.floats(v), largest);
        }
        s.max_lane(largest)
    }
}

/// The largest value, −∞ of none. NaN is passed over.
pub fn max(x: &[f32]) -> f32 {
    Level::best().run(Max(x))
}

pub(super) struct Axpy<'a>(pub f32, pub &'a [f32], pub &'a mut [f32]);

impl SimdKernel for Axpy<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Axpy(a, x, y) = self;
        assert_eq!(x.len(), y.len(), "lengths of a scaled addition");
        let a = s.splat(a);
        let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<16>(), y.as_chunks_mut::<16>());
        for (x, y) in x.iter().zip(y) {
            s.store(s.mul_add(a, s.floats(x), s.floats(y)), y);
        }
        let mut last = padded(y_rest, 0.0);
        s.store(s.mul_add(a, s.floats(&padded(x_rest, 0.0)), s.floats(&last)), &mut last);
        y_rest.copy_from_slice(&last[..y_rest.len()]);
    }
}

/// y += a · x.
pub fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
    Level::best().run(Axpy(a, x, y));
}

pub(super) struct NarrowF16<'a>(pub &'a [f32], pub &'a mut [f16]);

impl SimdKernel for NarrowF16<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let NarrowF16(x, out) = self;
        assert_eq!(x.len(), out.len(), "lengths of a conversion");
        let out: &mut [u8] = bytemuck::cast_slice_mut(out);
        let (whole, rest) = x.as_chunks::<16>();
        for (i, v) in whole.iter().enumerate() {
            s.narrow_f16(s.floats(v), array_mut(out, 32 * i));
        }
        let mut last = [0; 32];
        s.narrow_f16(s.floats(&padded(rest, 0.0)), &mut last);
        out[32 * whole.len()..].copy_from_slice(&last[..2 * rest.len()]);
    }
}

/// f32 to f16, to nearest even.
pub fn f32_to_f16(x: &[f32], out: &mut [f16]) {
    Level::best().run(NarrowF16(x, out));
}
