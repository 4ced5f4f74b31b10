//! exp and ln from additions, multiplications and divisions alone, so that seeded runs repeat on every platform.
//!
//! The standard library calls the platform's libm, whose last bit differs between systems; one flipped bit in a
//! probability can flip a token, and with it the rest of the text. Both are good to about 1 ulp of f64 before callers
//! round to f32.

use std::f64::consts::{LN_2, LOG2_E};

/// ln 2 in two parts: the first has 21 trailing zero bits, so that its product with an exponent is exact.
const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// 1 / k! for k from 0 to 13.
const FACTORIALS: [f64; 14] = {
    let mut inverse = [1.0; 14];
    let (mut k, mut factorial) = (1, 1u64);
    while k < 14 {
        factorial *= k as u64;
        inverse[k] = 1.0 / factorial as f64;
        k += 1;
    }
    inverse
};

/// eˣ. 0 below -708 (where f64 loses bits), infinite above 709.
pub(super) fn exp(x: f64) -> f64 {
    if x < -708.0 {
        return 0.0;
    }
    if x > 709.0 {
        return f64::INFINITY;
    }
    // x = n ln 2 + r with |r| <= ln 2 / 2; Taylor's series to r^13 leaves 4e-18.
    let n = (x * LOG2_E + 0.5).floor();
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let sum = FACTORIALS.iter().rev().fold(0.0, |sum, inverse| sum * r + inverse);
    sum * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

/// Natural logarithm; -inf at 0. For positive normal numbers, which every f32 is.
pub(super) fn ln(x: f64) -> f64 {
    if x <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if x == f64::INFINITY {
        return x;
    }
    // x = m 2^e with m in [sqrt ½, sqrt 2); ln m = 2 artanh((m - 1) / (m + 1)), |s| <= 0.172.
    let bits = x.to_bits();
    let mut e = (bits >> 52) as i64 - 1023;
    let mut m = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        e += 1;
    }
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    let mut series = 0.0;
    for k in (0..=10).rev() {
        series = series * s2 + 1.0 / (2 * k + 1) as f64;
    }
    e as f64 * LN2_HIGH + (e as f64 * LN2_LOW + 2.0 * s * series)
}

/// Base-2 logarithm.
pub(super) fn log2(x: f64) -> f64 {
    ln(x) / LN_2
}

/// xʸ for x ≥ 0.
pub(super) fn pow(x: f64, y: f64) -> f64 {
    if y == 0.0 {
        return 1.0;
    }
    exp(y * ln(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, want: f64) -> bool {
        got == want || ((got - want) / want).abs() < 1e-14
    }

    #[test]
    fn agrees_with_the_standard_library() {
        for i in -7000..7000 {
            let x = i as f64 * 0.1 + 0.000_123;
            assert!(close(exp(x), x.exp()), "exp {x}: {} {}", exp(x), x.exp());
            let y = x.exp();
            // Near 1 the logarithm is small, and its relative error grows with cancellation in e ln 2.
            assert!((ln(y) - y.ln()).abs() < 1e-15 * y.ln().abs().max(1.0), "ln {y}: {} {}", ln(y), y.ln());
        }
        for i in 1..1000 {
            let x = i as f64 * 0.01;
            assert!(close(pow(x, 2.5), x.powf(2.5)) && (log2(x) - x.log2()).abs() < 1e-14, "{x}");
        }
    }

    #[test]
    fn edges() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f64::NEG_INFINITY), 0.0);
        assert_eq!(exp(1e9), f64::INFINITY);
        assert_eq!(ln(1.0), 0.0);
        assert_eq!(ln(0.0), f64::NEG_INFINITY);
        assert_eq!(pow(0.0, 2.0), 0.0);
        assert_eq!(pow(0.0, 0.0), 1.0);
        // Bits, written down: they must be the same on every platform.
        assert_eq!(exp(-1.25).to_bits(), 0x3fd2_5618_372a_584f);
        assert_eq!(ln(0.3).to_bits(), 0xbff3_4378_fcbd_a721);
    }
}
