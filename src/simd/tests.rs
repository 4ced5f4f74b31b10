//! Every operation of every level against the portable twin, and the primitives against f64.

use super::exp::{Exp, Gelu, GeluErf, Map, Sigmoid, Swish, Tanh, Unary};
use super::math::{Axpy, Dot, Max, NarrowF16};
use super::*;
use half::f16;

/// Numbers from −1 to 1.
fn noise(n: usize) -> Vec<f32> {
    let mut state = 7u32;
    let mut draw = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| draw()).collect()
}

fn close(got: f32, want: f64, size: f64, what: &str, level: Level) {
    let error = (got as f64 - want).abs();
    assert!(error <= size, "{what} at {}: {got} instead of {want}", level.name());
}

/// All operations that must give the same bits everywhere.
struct Operations<'a> {
    floats: &'a [f32],
    bytes: &'a [u8],
}

impl SimdKernel for Operations<'_> {
    type Out = Vec<u32>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<u32> {
        let mut out = Vec::new();
        let mut floats = |v: S::Floats| {
            let mut to = [0.0; 16];
            s.store(v, &mut to);
            out.extend(to.map(f32::to_bits));
        };
        let (a, b) = (s.floats(array(self.floats, 0)), s.floats(array(self.floats, 16)));
        for v in [s.add(a, b), s.sub(a, b), s.mul(a, b), s.div(a, b), s.max(a, b), s.min(a, b)] {
            floats(v);
        }
        floats(s.fold([a, b, s.add(a, b), s.mul(a, b)]));
        floats(s.fold_across([a, b, s.add(a, b), s.mul(a, b)]));
        let n = s.floats(&std::array::from_fn(|i| 18.0 * i as f32 - 126.0));
        floats(s.exp2_int(n));
        floats(s.widen_bf16(array(self.bytes, 0)));
        floats(s.widen_i8(bytemuck::cast_ref::<[u8; 16], _>(array(self.bytes, 0))));
        floats(s.exponents(array(self.bytes, 0)));
        floats(s.exponents(&std::array::from_fn(|i| i as u8)));
        floats(s.widen_f16(&std::array::from_fn(|i| self.bytes[i] & 0xbf)));
        let acts: [i8; 64] = std::array::from_fn(|i| (self.bytes[64 + i] as i8).max(-127));
        let (mut unsigned, mut signed) = (s.zero(), s.zero());
        let mut all = 0;
        for i in 0..16 {
            let a: [i8; 4] = *array(&acts, 4 * i);
            let w: [u8; 64] = std::array::from_fn(|j| self.bytes[j].wrapping_add(i as u8));
            unsigned = s.dot_words(s.times_256(unsigned), s.words(&w.map(|w| w & 127)), a, false);
            signed = s.dot_words(signed, s.weights_signed(s.words(&w)), a, true);
            all += a.iter().map(|a| *a as i32).sum::<i32>();
        }
        let signed = s.sub_int(signed, s.signed_zero() * all);
        for v in [unsigned, signed, s.add_ints(unsigned, signed)] {
            floats(s.to_floats(v));
        }
        let mut square = [a; 16];
        for (i, row) in square.iter_mut().enumerate() {
            *row = s.add(a, s.splat(64.0 * i as f32));
        }
        s.transpose(square).into_iter().for_each(&mut floats);
        let scalars = [s.sum(a), s.max_lane(a), s.amax(a, b)];
        out.extend(scalars.map(f32::to_bits));

        let mut words = |v: S::Words| {
            let mut to = [0; 64];
            s.store_words(v, &mut to);
            out.extend(to.map(u32::from));
        };
        let (a, b) = (s.words(array(self.bytes, 0)), s.words(array(self.bytes, 64)));
        let table = std::array::from_fn(|i| 5 * i as i8 - 40);
        let nibbles = s.and_words(s.shr_words(a, 4), s.splat_words(15));
        for v in [s.and_words(a, b), s.or_words(a, b), s.shr_words(a, 3), s.shr_words(a, 0), s.shl_words(b, 5), nibbles]
        {
            words(v);
        }
        words(s.lookup_words(&table, nibbles));
        let mut codes = [0; 16];
        s.store_i8(s.mul(s.floats(array(self.floats, 0)), s.splat(127.0)), &mut codes);
        out.extend(codes.map(|c| c as u32));
        out
    }
}

#[test]
fn operations_are_the_same_at_every_level() {
    let mut values = noise(64);
    // Ties of rounding, zeros of both signs.
    values[..5].copy_from_slice(&[0.5 / 127.0, 1.5 / 127.0, -2.5 / 127.0, 0.0, -0.0]);
    let bytes: Vec<u8> = noise(128).iter().map(|v| (v * 128.0) as i8 as u8).collect();
    let run = |level: Level| level.run(Operations { floats: &values, bytes: &bytes });
    let want = run(Level::Portable);
    for level in Level::available() {
        assert_eq!(run(level), want, "{}", level.name());
    }
}

/// f16 to f32, of whole vectors.
struct Widen<'a>(&'a [f16], &'a mut [f32]);

impl SimdKernel for Widen<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (x, out) in self.0.as_chunks::<16>().0.iter().zip(self.1.as_chunks_mut().0) {
            s.store(s.widen_f16(bytemuck::cast_ref(x)), out);
        }
    }
}

#[test]
fn every_f16_is_exact_both_ways() {
    let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    for level in Level::available() {
        let mut wide = vec![0.0; all.len()];
        level.run(Widen(&all, &mut wide));
        for (h, v) in all.iter().zip(&wide) {
            assert!(h.to_f32() == *v || h.is_nan() && v.is_nan(), "{h} became {v} at {}", level.name());
        }
        // Halfway between neighbours too, where rounding to even shows.
        let between: Vec<f32> = wide.iter().map(|v| v * (1.0 + 1.0 / 2048.0)).collect();
        for x in [wide, between] {
            let mut narrow = vec![f16::ZERO; x.len()];
            level.run(NarrowF16(&x, &mut narrow));
            for (x, h) in x.iter().zip(&narrow) {
                assert!(f16::from_f32(*x) == *h || x.is_nan() && h.is_nan(), "{x} became {h} at {}", level.name());
            }
        }
    }
}

#[test]
fn reductions_match_f64() {
    for n in (0..70).chain([1000]) {
        let (a, b) = (noise(2 * n)[..n].to_vec(), noise(2 * n)[n..].to_vec());
        let exact = |a: &[f32]| a.iter().zip(&b).map(|(a, b)| *a as f64 * *b as f64).sum::<f64>();
        let size = 1e-7 * (n + 1) as f64;
        for level in Level::available() {
            close(level.run(Dot(&a, &b)), exact(&a), size, "dot", level);
            let largest = a.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(level.run(Max(&a)), largest, "max at {}", level.name());
            let mut y = b.clone();
            level.run(Axpy(0.75, &a, &mut y));
            for i in 0..n {
                close(y[i], 0.75 * a[i] as f64 + b[i] as f64, 2e-7, "axpy", level);
            }
        }
    }
}

/// Runs `f` over a wide range at every level; `size` bounds the error relative to max(|want|, `floor`).
fn check_map(f: impl Unary, want: impl Fn(f64) -> f64, what: &str, floor: f64, size: f64) {
    let x: Vec<f32> = (-4000..4001).map(|i| i as f32 * 0.02713).collect();
    for level in Level::available() {
        let mut y = x.clone();
        let sum = level.run(Map(f, &mut y)) as f64;
        for (x, y) in x.iter().zip(&y) {
            let want = want(*x as f64);
            if want.abs() < f32::MAX as f64 {
                close(*y, want, size * want.abs().max(floor), what, level);
            } else {
                assert_eq!(*y, f32::INFINITY, "{what}({x}) at {}", level.name());
            }
        }
        let exact: f64 = y.iter().map(|v| *v as f64).sum();
        let size: f64 = y.iter().map(|v| v.abs() as f64).sum();
        assert!(sum == exact || (sum - exact).abs() < 1e-6 * size, "{what}: sum {sum} instead of {exact}");
        let mut bad = [0.0, f32::NAN, 1.0];
        level.run(Map(f, &mut bad));
        assert!(bad[1].is_nan() && !bad[0].is_nan() && !bad[2].is_nan(), "{what} and NaN at {}", level.name());
    }
}

/// erf by a series without cancellation: 2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (2n + 1)!!.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / (2 * n + 1) as f64;
        sum += term;
    }
    sum * 2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp()
}

#[test]
fn exponentials_match_f64() {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    check_map(Exp { shift: 0.0 }, f64::exp, "exp", 1.2e-38, 2e-7);
    // The difference is one of f32, like the argument.
    check_map(Exp { shift: 3.0 }, |x| ((x as f32 - 3.0) as f64).exp(), "exp with a shift", 1.2e-38, 2e-7);
    check_map(Sigmoid, sigmoid, "sigmoid", 1e-30, 3e-7);
    check_map(Tanh, f64::tanh, "tanh", 1.0, 3e-7);
    check_map(Swish { scale: 1.0 }, |x| x * sigmoid(x), "silu", 1e-30, 3e-7);
    // 1.702 · x rounds: at −109 by 7e-6, and so does its exponential.
    check_map(Swish { scale: 1.702 }, |x| x * sigmoid(1.702 * x), "gelu_quick", 1e-30, 2e-5);
    let gelu = |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
    check_map(Gelu, gelu, "gelu", 1.0, 3e-7);
    check_map(GeluErf, |x| 0.5 * x * (1.0 + erf(x / 2f64.sqrt())), "gelu_erf", 1.0, 5e-7);
}

#[test]
fn a_level_can_be_named() {
    for level in Level::ALL {
        assert!(Level::ALL.iter().filter(|l| l.name() == level.name()).count() == 1);
    }
    assert!(Level::available().any(|l| l == Level::best()) && Level::Portable.is_available());
}
