//! Intel's AMX, by inline assembly: the intrinsics are not stable yet. Its registers hold a tile each.
//!
//! Nothing of it outlives a call: tiles are configured first and released last, so threads carry no state of theirs.
#![allow(unsafe_code)]

use super::tiles::{TILE_ROWS, Tile, TileSums};
use bytemuck::Zeroable;
use std::arch::asm;
use std::sync::OnceLock;

/// Proof that tiles of bf16 are there and may be used.
#[derive(Debug, Clone, Copy)]
pub struct Amx(());

/// What LDTILECFG reads: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIG: Config = Config {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};
const _: () = assert!(size_of::<Config>() == 64 && size_of::<Tile>() == 64 * TILE_ROWS);
const _: () = assert!(size_of::<TileSums>() == 4 * size_of::<Tile>());

impl Amx {
    /// A token, if the machine has the units and the system lets this process use them.
    pub fn detect() -> Option<Self> {
        static FOUND: OnceLock<bool> = OnceLock::new();
        FOUND.get_or_init(|| has_instructions() && may_use()).then_some(Amx(()))
    }

    /// See [`super::Tiles::multiply`], which has checked the lengths.
    pub(super) fn multiply(self, weights: [&[Tile]; 2], acts: &[Tile], per: usize, add: bool, sums: &mut [TileSums]) {
        let chunks = weights[0].len();
        if chunks == 0 {
            if !add {
                sums.fill(TileSums::zeroed());
            }
            return;
        }
        // SAFETY: the token proves the instructions; the configuration is a valid one.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &CONFIG, options(readonly, nostack, preserves_flags)) };
        for (sums, acts) in sums.iter_mut().zip(acts.chunks_exact(2 * per)) {
            // SAFETY: `chunks` tiles are read from both panels and, as `chunks` ≤ `per`, from both groups of columns; a block of
            // sums is four tiles, read and written. Nothing else in this program uses the tiles' registers.
            unsafe {
                asm!(
                    "test {add:e}, {add:e}",
                    "jz 3f",
                    "tileloadd tmm0, [{c} + {s}]",
                    "tileloadd tmm1, [{c} + {s} + 1024]",
                    "tileloadd tmm2, [{c} + {s} + 2048]",
                    "tileloadd tmm3, [{c} + {s} + 3072]",
                    "jmp 2f",
                    "3:",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    "tileloadd tmm4, [{x0} + {s}]",
                    "tileloadd tmm6, [{w0} + {s}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{w1} + {s}]",
                    "tdpbf16ps tmm2, tmm4, tmm7",
                    "tileloadd tmm5, [{x1} + {s}]",
                    "tdpbf16ps tmm1, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "add {x0}, 1024",
                    "add {x1}, 1024",
                    "add {w0}, 1024",
                    "add {w1}, 1024",
                    "dec {n}",
                    "jnz 2b",
                    "tilestored [{c} + {s}], tmm0",
                    "tilestored [{c} + {s} + 1024], tmm1",
                    "tilestored [{c} + {s} + 2048], tmm2",
                    "tilestored [{c} + {s} + 3072], tmm3",
                    add = in(reg) u32::from(add),
                    c = in(reg) sums,
                    s = in(reg) 64usize,
                    x0 = inout(reg) acts.as_ptr() => _,
                    x1 = inout(reg) acts[per..].as_ptr() => _,
                    w0 = inout(reg) weights[0].as_ptr() => _,
                    w1 = inout(reg) weights[1].as_ptr() => _,
                    n = inout(reg) chunks => _,
                    options(nostack),
                );
            }
        }
        // SAFETY: as above.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }

    /// Four products at a time, of zeros, which take as long as any.
    pub(super) fn roofline(self, rounds: usize) -> f64 {
        // SAFETY: as in `multiply`; no memory is used.
        unsafe {
            asm!(
                "ldtilecfg [{config}]",
                "2:",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm5, tmm6",
                "tdpbf16ps tmm2, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "dec {n}",
                "jnz 2b",
                "tilerelease",
                config = in(reg) &CONFIG,
                n = inout(reg) rounds.max(1) => _,
                options(readonly, nostack),
            );
        }
        (rounds.max(1) * 4 * 16 * 16 * 32 * 2) as f64
    }
}

/// Whether the processor has the instructions.
fn has_instructions() -> bool {
    const BF16: u32 = 1 << 22;
    const TILES: u32 = 1 << 24;
    is_x86_feature_detected!("avx512f") && std::arch::x86_64::__cpuid_count(7, 0).edx & (BF16 | TILES) == BF16 | TILES
}

/// Whether the system saves the tiles' registers of this process. Linux must be asked once (Documentation/arch/x86/xstate.rst);
/// nobody has tried this elsewhere.
#[cfg(target_os = "linux")]
fn may_use() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XTILEDATA: libc::c_ulong = 18;
    // SAFETY: the call takes two numbers and gives one; where it is not known it does nothing.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn may_use() -> bool {
    false
}
