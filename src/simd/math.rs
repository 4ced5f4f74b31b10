//! Reductions, scaled adds and conversions on slices, which operations share.
//!
//! All run at [`Level::best`]. Sums are taken 32 values at a time, in the same order on every level.

use super::level::{Kernel, Level};
use super::vector::Simd;
use super::{array, array_mut};
use half::{bf16, f16};

/// Values that can be read 16 at a time as f32.
pub(super) trait Source: Copy {
    fn len(self) -> usize;
    /// 16 values from `i` on.
    fn load<S: Simd>(self, s: S, i: usize) -> S::Floats;
    /// The values from `i` on, fewer than 16, then zeros.
    fn rest<S: Simd>(self, s: S, i: usize) -> S::Floats;
}

impl Source for &[f32] {
    #[inline(always)]
    fn len(self) -> usize {
        <[f32]>::len(self)
    }
    #[inline(always)]
    fn load<S: Simd>(self, s: S, i: usize) -> S::Floats {
        s.floats(array(self, i))
    }
    #[inline(always)]
    fn rest<S: Simd>(self, s: S, i: usize) -> S::Floats {
        s.floats(&padded(&self[i..], 0.0))
    }
}

impl Source for &[f16] {
    #[inline(always)]
    fn len(self) -> usize {
        <[f16]>::len(self)
    }
    #[inline(always)]
    fn load<S: Simd>(self, s: S, i: usize) -> S::Floats {
        s.widen_f16(array(bytemuck::cast_slice(self), 2 * i))
    }
    #[inline(always)]
    fn rest<S: Simd>(self, s: S, i: usize) -> S::Floats {
        s.widen_f16(&padded(bytemuck::cast_slice(&self[i..]), 0))
    }
}

impl Source for &[bf16] {
    #[inline(always)]
    fn len(self) -> usize {
        <[bf16]>::len(self)
    }
    #[inline(always)]
    fn load<S: Simd>(self, s: S, i: usize) -> S::Floats {
        s.widen_bf16(array(bytemuck::cast_slice(self), 2 * i))
    }
    #[inline(always)]
    fn rest<S: Simd>(self, s: S, i: usize) -> S::Floats {
        s.widen_bf16(&padded(bytemuck::cast_slice(&self[i..]), 0))
    }
}

/// At most `N` values, then `pad`.
#[inline(always)]
pub(super) fn padded<T: Copy, const N: usize>(v: &[T], pad: T) -> [T; N] {
    let mut out = [pad; N];
    out[..v.len()].copy_from_slice(v);
    out
}

pub(super) struct Dot<'a, A>(pub A, pub &'a [f32]);

impl<A: Source> Kernel for Dot<'_, A> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let Dot(a, b) = self;
        let n = a.len();
        assert_eq!(n, b.len(), "lengths of a dot product");
        let mut even = s.splat(0.0);
        let mut odd = even;
        let mut i = 0;
        while i + 32 <= n {
            even = s.mul_add(a.load(s, i), b.load(s, i), even);
            odd = s.mul_add(a.load(s, i + 16), b.load(s, i + 16), odd);
            i += 32;
        }
        if i + 16 <= n {
            even = s.mul_add(a.load(s, i), b.load(s, i), even);
            i += 16;
        }
        if i < n {
            odd = s.mul_add(a.rest(s, i), b.rest(s, i), odd);
        }
        s.sum(s.add(even, odd))
    }
}

/// Σ a · b.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    Level::best().run(Dot(a, b))
}

/// Σ a · b.
pub fn dot_f16(a: &[f16], b: &[f32]) -> f32 {
    Level::best().run(Dot(a, b))
}

/// Σ a · b.
pub fn dot_bf16(a: &[bf16], b: &[f32]) -> f32 {
    Level::best().run(Dot(a, b))
}

/// Σ x².
pub fn sum_squares(x: &[f32]) -> f32 {
    dot(x, x)
}

pub(super) struct Sum<'a>(pub &'a [f32]);

impl Kernel for Sum<'_> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (whole, rest) = self.0.as_chunks::<16>();
        let mut total = s.floats(&padded(rest, 0.0));
        for v in whole {
            total = s.add(total, s.floats(v));
        }
        s.sum(total)
    }
}

/// Σ x.
pub fn sum(x: &[f32]) -> f32 {
    Level::best().run(Sum(x))
}

pub(super) struct Max<'a>(pub &'a [f32]);

impl Kernel for Max<'_> {
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

pub(super) struct Amax<'a>(pub &'a [f32]);

impl Kernel for Amax<'_> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (whole, rest) = self.0.as_chunks::<32>();
        let rest: [f32; 32] = padded(rest, 0.0);
        let mut largest = s.amax(s.floats(array(&rest, 0)), s.floats(array(&rest, 16)));
        for v in whole {
            let v = s.amax(s.floats(array(v, 0)), s.floats(array(v, 16)));
            largest = f32::from_bits(largest.to_bits().max(v.to_bits()));
        }
        largest
    }
}

/// The largest magnitude, 0 of none, NaN where there is one.
pub fn amax(x: &[f32]) -> f32 {
    Level::best().run(Amax(x))
}

pub(super) struct Axpy<'a, A>(pub f32, pub A, pub &'a mut [f32]);

impl<A: Source> Kernel for Axpy<'_, A> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Axpy(a, x, y) = self;
        assert_eq!(x.len(), y.len(), "lengths of a scaled addition");
        let a = s.splat(a);
        let whole = y.len() / 16 * 16;
        for i in (0..whole).step_by(16) {
            let to = array_mut(y, i);
            s.store(s.mul_add(a, x.load(s, i), s.floats(to)), to);
        }
        let y = &mut y[whole..];
        if !y.is_empty() {
            let mut out = padded(y, 0.0);
            s.store(s.mul_add(a, x.rest(s, whole), s.floats(&out)), &mut out);
            y.copy_from_slice(&out[..y.len()]);
        }
    }
}

/// y += a · x.
pub fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
    Level::best().run(Axpy(a, x, y));
}

/// y += a · x.
pub fn axpy_f16(a: f32, x: &[f16], y: &mut [f32]) {
    Level::best().run(Axpy(a, x, y));
}

/// y += a · x.
pub fn axpy_bf16(a: f32, x: &[bf16], y: &mut [f32]) {
    Level::best().run(Axpy(a, x, y));
}

pub(super) struct Widen<'a, A>(pub A, pub &'a mut [f32]);

impl<A: Source> Kernel for Widen<'_, A> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Widen(x, out) = self;
        assert_eq!(x.len(), out.len(), "lengths of a conversion");
        let (whole, rest) = out.as_chunks_mut::<16>();
        let at = 16 * whole.len();
        for (i, out) in whole.iter_mut().enumerate() {
            s.store(x.load(s, 16 * i), out);
        }
        let mut last = [0.0; 16];
        s.store(x.rest(s, at), &mut last);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// f16 to f32, exactly.
pub fn f16_to_f32(x: &[f16], out: &mut [f32]) {
    Level::best().run(Widen(x, out));
}

/// bf16 to f32, exactly.
pub fn bf16_to_f32(x: &[bf16], out: &mut [f32]) {
    Level::best().run(Widen(x, out));
}

pub(super) struct NarrowF16<'a>(pub &'a [f32], pub &'a mut [f16]);

impl Kernel for NarrowF16<'_> {
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

/// f32 to bf16, to nearest even.
pub fn f32_to_bf16(x: &[f32], out: &mut [bf16]) {
    assert_eq!(x.len(), out.len(), "lengths of a conversion");
    for (x, out) in x.iter().zip(out) {
        *out = bf16::from_f32(*x);
    }
}
