//! Which instruction set to use, found out once.

#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;
#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
#[cfg(target_arch = "aarch64")]
use super::neon_dot::{DOTPROD, I8MM, PLAIN};
use super::portable::Portable;
use super::tiles::Tiles;
use super::vector::Simd;
#[cfg(all(test, target_arch = "x86_64"))]
use super::vnni::EVEX;
#[cfg(target_arch = "x86_64")]
use super::vnni::{NONE, VEX};
use crate::base::{Error, Result};
use std::sync::OnceLock;

/// The environment's variable that names a level.
const VARIABLE: &str = "WGPU_LLM_SIMD";

/// A computation written against [`Simd`]; see the module's documentation. `run` must be `#[inline(always)]`, and so
/// must whatever it calls with a vector.
pub trait SimdKernel {
    /// What it gives.
    type Out;
    /// Does the work with the instructions of `s`.
    fn run<S: Simd>(self, s: S) -> Self::Out;
}

/// A set of instructions that kernels are compiled for. Ordered: of those of one machine, later is faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Portable, with the twin of units for tiles: what those are compared with where a machine has none.
    PortableTiles,
    /// What the compiler makes of plain Rust for the target.
    Portable,
    /// AVX2, FMA, F16C: x86 since 2013.
    Avx2,
    /// The same, and AVX-VNNI, byte dot products of 256 bits: Intel's cores since 2021 (Alder Lake), which have no AVX-512.
    AvxVnni,
    /// AVX-512 F, BW, VL, DQ, VNNI: servers since 2019, Zen 4.
    Avx512,
    /// The same, and AMX for tiles of bf16: Intel's servers since 2023.
    Amx,
    /// NEON: every aarch64.
    Neon,
    /// NEON with byte dot products: Apple's chips, servers since 2019, telephones since 2018.
    NeonDotprod,
    /// The same with products of small matrices of bytes: Apple's chips since the M2, servers since 2021.
    NeonI8mm,
    /// WebAssembly's 128-bit vectors.
    Simd128,
}

impl Level {
    /// All levels, slowest first.
    pub const ALL: [Level; 10] = [
        Level::PortableTiles,
        Level::Portable,
        Level::Avx2,
        Level::AvxVnni,
        Level::Avx512,
        Level::Amx,
        Level::Neon,
        Level::NeonDotprod,
        Level::NeonI8mm,
        Level::Simd128,
    ];

    /// The name used by `WGPU_LLM_SIMD`.
    pub fn name(self) -> &'static str {
        match self {
            Level::PortableTiles => "portable+tiles",
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::AvxVnni => "avxvnni",
            Level::Avx512 => "avx512",
            Level::Amx => "amx",
            Level::Neon => "neon",
            Level::NeonDotprod => "neon+dotprod",
            Level::NeonI8mm => "neon+i8mm",
            Level::Simd128 => "simd128",
        }
    }

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(not(target_feature = "simd128"))]
            Level::PortableTiles | Level::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => Avx2::<NONE>::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => has_vnni(),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => super::avx512::Avx512::<false>::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Level::Amx => Level::Avx512.is_available() && super::amx::Amx::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => Neon::<PLAIN>::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            Level::NeonDotprod => Neon::<DOTPROD>::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            Level::NeonI8mm => Neon::<I8MM>::detect().is_some(),
            // A module with these vectors is refused where they are not: it need not carry the other levels' code, a sixth of it.
            #[cfg(target_feature = "simd128")]
            Level::Simd128 => true,
            _ => false,
        }
    }

    /// The levels this machine can run, slowest first: tests go through all of them.
    pub fn available() -> impl Iterator<Item = Level> {
        Level::ALL.into_iter().filter(|l| l.is_available())
    }

    /// The level of this name. Fails for what is none, or none that this machine has.
    pub fn named(name: &str) -> Result<Level> {
        let all: Vec<&str> = Level::available().map(Level::name).collect();
        let wrong =
            |what: String| Err(Error::usage(what).at(VARIABLE).help(format!("this machine has {}", all.join(", "))));
        match Level::ALL.into_iter().find(|l| l.name().eq_ignore_ascii_case(name)) {
            Some(level) if level.is_available() => Ok(level),
            Some(level) => wrong(format!("this machine cannot run {}", level.name())),
            None => wrong(format!("there are no CPU instructions named {name:?}")),
        }
    }

    /// The level that the environment variable `WGPU_LLM_SIMD` asks for; `None` where it is unset or empty. Fails as [`named`](Level::named).
    pub fn asked() -> Result<Option<Level>> {
        let name = std::env::var_os(VARIABLE).unwrap_or_default();
        if name.is_empty() { Ok(None) } else { Level::named(&name.to_string_lossy()).map(Some) }
    }

    /// The level that was [`asked`](Level::asked) for, or the fastest here, even if what was asked for is an error, which
    /// programs report when they start. Found out once.
    pub fn best() -> Level {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(|| {
            let asked = Level::asked().ok().flatten();
            asked.or_else(|| Level::available().last()).unwrap_or(Level::Portable)
        })
    }

    /// What multiplies tiles, where there is something.
    pub fn tiles(self) -> Option<Tiles> {
        match self {
            #[cfg(not(target_feature = "simd128"))]
            Level::PortableTiles => Some(Tiles::Portable),
            #[cfg(target_arch = "x86_64")]
            Level::Amx => super::amx::Amx::detect().map(Tiles::Amx),
            _ => None,
        }
    }

    /// How many vectors its registers hold.
    pub fn registers(self) -> usize {
        struct Registers;
        impl SimdKernel for Registers {
            type Out = usize;

            #[inline(always)]
            fn run<S: Simd>(self, _s: S) -> usize {
                S::REGISTERS
            }
        }
        self.run(Registers)
    }

    /// Runs `kernel` with this level's instructions, or the portable ones where it is not available.
    #[inline]
    pub fn run<K: SimdKernel>(self, kernel: K) -> K::Out {
        match self {
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => enter(Avx2::<NONE>::detect(), kernel),
            #[cfg(all(test, target_arch = "x86_64"))]
            Level::AvxVnni if Avx2::<VEX>::detect().is_none() => enter(Avx2::<EVEX>::detect(), kernel),
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => enter(Avx2::<VEX>::detect(), kernel),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => enter(super::avx512::Avx512::<false>::detect(), kernel),
            #[cfg(target_arch = "x86_64")]
            Level::Amx => enter(super::avx512::Avx512::<true>::detect(), kernel),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => enter(Neon::<PLAIN>::detect(), kernel),
            #[cfg(target_arch = "aarch64")]
            Level::NeonDotprod => enter(Neon::<DOTPROD>::detect(), kernel),
            #[cfg(target_arch = "aarch64")]
            Level::NeonI8mm => enter(Neon::<I8MM>::detect(), kernel),
            #[cfg(target_feature = "simd128")]
            _ => enter(Some(super::simd128::Simd128), kernel),
            #[cfg(not(target_feature = "simd128"))]
            _ => enter(Some(Portable), kernel),
        }
    }
}

/// Whether AVX-VNNI's instructions are there; in tests also where AVX-512's stand in for them, which do the same.
#[cfg(target_arch = "x86_64")]
fn has_vnni() -> bool {
    #[cfg(test)]
    if Avx2::<EVEX>::detect().is_some() {
        return true;
    }
    Avx2::<VEX>::detect().is_some()
}

#[inline]
fn enter<S: Simd, K: SimdKernel>(token: Option<S>, kernel: K) -> K::Out {
    match token {
        Some(s) => s.enter(kernel),
        None => kernel.run(Portable),
    }
}
