//! Random numbers as a pure function of seed and draw number, bit for bit the same on every platform and on the GPU.
//!
//! A generator with state would have to be carried between CPU, GPU and restarts of a session; a hash of
//! `(seed, step)` needs nothing carried, and the draw of token 1000 can be repeated without the 999 before it.
//! Only wrapping 32-bit integer operations are used, since WGSL has no others.
//!
//! The numbers: the words `[seed low, seed high, step low, step high + domain · 0x9e3779b9]` go through PCG4D; the upper
//! 24 bits of the last word, times 2⁻²⁴, are the number. Domains keep the draw and XTC's coin apart.
//! Twin: `shaders/rng.wgsl`, `fn rng_uniform(seed: vec2<u32>, step: u32) -> f32` (domain 0, steps below 2³²).
//! Source: PCG4D of Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020.

use std::hash::{BuildHasher, RandomState};

/// Uniform in `[0, 1)`, a multiple of 2⁻²⁴, for draw number `step` of a run seeded with `seed`.
///
/// ```
/// assert_eq!(wgpu_llm::base::uniform(42, 0), wgpu_llm::base::uniform(42, 0));
/// assert_ne!(wgpu_llm::base::uniform(42, 0), wgpu_llm::base::uniform(42, 1));
/// ```
pub fn uniform(seed: u64, step: u64) -> f32 {
    SeededRng { seed, step }.uniform(RngDomain::Draw)
}

/// What a random number is for. Numbers of different domains are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum RngDomain {
    /// The draw of the token; what [`uniform`] and the GPU give.
    Draw = 0,
    /// XTC's coin: whether it acts on this token.
    Xtc = 1,
}

/// The random numbers of one draw.
#[derive(Debug, Clone, Copy)]
pub struct SeededRng {
    /// Seed of the run.
    pub seed: u64,
    /// Number of the draw, from 0.
    pub step: u64,
}

impl SeededRng {
    /// Uniform in `[0, 1)`; the same each time for the same domain.
    pub fn uniform(&self, domain: RngDomain) -> f32 {
        let apart = (domain as u32).wrapping_mul(0x9e37_79b9);
        let words = [
            self.seed as u32,
            (self.seed >> 32) as u32,
            self.step as u32,
            ((self.step >> 32) as u32).wrapping_add(apart),
        ];
        // 24 bits: every value is exact in f32, and 1.0 cannot come out.
        (pcg4d(words)[3] >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }
}

/// Hashes four words into four; every output bit depends on every input bit.
fn pcg4d(words: [u32; 4]) -> [u32; 4] {
    let mix = |[x, y, z, w]: [u32; 4]| {
        let x = x.wrapping_add(y.wrapping_mul(w));
        let y = y.wrapping_add(z.wrapping_mul(x));
        let z = z.wrapping_add(x.wrapping_mul(y));
        let w = w.wrapping_add(y.wrapping_mul(z));
        [x, y, z, w]
    };
    let v = words.map(|word| word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    mix(mix(v).map(|word| word ^ (word >> 16)))
}

/// A seed for a run that named none, from the randomness the standard library seeds its hash maps with.
/// (A browser offers it little: there the page should pass a seed.)
pub fn fresh_seed() -> u64 {
    RandomState::new().hash_one(0u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bits, written down: a change here changes every seeded run of every user.
    #[test]
    fn golden_bits() {
        let bits = |seed, step| (uniform(seed, step) * (1 << 24) as f32) as u32;
        let got =
            [bits(0, 0), bits(0, 1), bits(1, 0), bits(42, 7), bits(u64::MAX, 0xffff_ffff), bits(1 << 32, 1 << 32)];
        assert_eq!(got, GOLDEN);
        let coin = SeededRng { seed: 42, step: 7 }.uniform(RngDomain::Xtc);
        assert_eq!((coin * (1 << 24) as f32) as u32, GOLDEN_COIN);
    }
    const GOLDEN: [u32; 6] = [13_837_640, 11_559_037, 6_438_153, 6_244_896, 16_272_338, 9_883_810];
    const GOLDEN_COIN: u32 = 2_655_261;

    /// 100 cells, successive steps and successive seeds alike: chi-square of 99 degrees of freedom stays below 148.2
    /// (99.9 %), and so do pairs of neighbours over a 10 × 10 grid.
    #[test]
    fn uniform_is_uniform() {
        let chi_square = |cells: &[u32; 100]| {
            let expected = cells.iter().sum::<u32>() as f64 / 100.0;
            cells.iter().map(|&n| (n as f64 - expected).powi(2) / expected).sum::<f64>()
        };
        let streams: [fn(u64) -> f32; 3] =
            [|i| uniform(1, i), |i| uniform(i, 0), |i| SeededRng { seed: 1, step: i }.uniform(RngDomain::Xtc)];
        for stream in streams {
            let (mut single, mut pairs) = ([0u32; 100], [0u32; 100]);
            for i in 0..100_000 {
                let (a, b) = (stream(i), stream(i + 1));
                assert!((0.0..1.0).contains(&a));
                single[(a * 100.0) as usize] += 1;
                pairs[(a * 10.0) as usize * 10 + (b * 10.0) as usize] += 1;
            }
            assert!(chi_square(&single) < 148.2, "{}", chi_square(&single));
            assert!(chi_square(&pairs) < 148.2, "{}", chi_square(&pairs));
        }
    }

    #[test]
    fn domains_and_seeds_differ() {
        let rng = SeededRng { seed: 3, step: 9 };
        assert_ne!(rng.uniform(RngDomain::Draw), rng.uniform(RngDomain::Xtc));
        assert_ne!(fresh_seed(), fresh_seed());
    }

    /// The GPU twin is valid WGSL and has the agreed signature.
    #[test]
    fn wgsl_twin_validates() {
        use naga::valid::{Capabilities, ValidationFlags, Validator};
        let source = include_str!("../../shaders/rng.wgsl");
        let module = naga::front::wgsl::parse_str(source).unwrap_or_else(|e| panic!("{}", e.emit_to_string(source)));
        Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module).expect("valid");
        let (_, f) = module.functions.iter().find(|(_, f)| f.name.as_deref() == Some("rng_uniform")).expect("function");
        assert_eq!(f.arguments.len(), 2);
    }
}
