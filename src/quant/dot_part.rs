//! The innermost sums of the product of block formats: those of a chunk's codes, or of half of them, with one or both bytes of the
//! activations. Where a dot product of bytes takes several instructions, sums of 16 bits come first: three instructions for as many codes
//! become little more than two.
#![allow(clippy::needless_range_loop)] // r and c index several arrays at once

use super::format::Block;
use super::tile::{Source, TILE};
use crate::simd::{Simd, array};
use std::hint::black_box;
use std::marker::PhantomData;

/// Codes are signed, scaled per chunk, and there are no minima.
pub(super) const SIGNED: u32 = 1;
/// Half a chunk has a scale of its own.
pub(super) const HALVES: u32 = 2;
/// There are minima, and zero is code 0.
pub(super) const MINS: u32 = 4;
/// Codes are larger than [`SMALL`].
pub(super) const LARGE: u32 = 8;
/// The largest code of which a chunk's products may be added up in 16 bits; see [`Simd::dot_narrow`].
const SMALL: usize = 15;

/// Words whose products are added up in 16 bits before they are widened, if codes are unsigned.
const fn run(kind: u32) -> usize {
    match (kind & LARGE != 0, kind & HALVES != 0) {
        (false, false) => 8,
        (false, true) => 4,
        (true, false) => 4,
        (true, true) => 2,
    }
}

/// The largest of a format's codes as the product meets them.
const fn most<F: Block>() -> usize {
    let Some(table) = F::TABLE else { return (1 << F::BITS) - 1 };
    let (mut most, mut i) = (0, 0);
    while i < 16 {
        most = if table[i] > most { table[i] } else { most };
        i += 1;
    }
    most as usize
}

/// What the product must know of codes: some of the constants above.
pub(super) trait Kind {
    /// Those.
    const KIND: u32;
}

/// A kind that several formats have.
pub(super) struct Known<const KIND: u32>;

impl<const KIND: u32> Kind for Known<KIND> {
    const KIND: u32 = KIND;
}

/// A format's.
pub(super) struct Of<F>(PhantomData<F>);

impl<F: Block> Kind for Of<F> {
    const KIND: u32 = kind::<F>();
}

/// A format's.
pub(super) const fn kind<F: Block>() -> u32 {
    if F::SIGNED {
        return SIGNED;
    }
    let halves = if F::HALVES { HALVES } else { 0 };
    let mins = if F::SCALES.mins() { MINS } else { 0 };
    halves | mins | if most::<F>() > SMALL { LARGE } else { 0 }
}

/// One byte of each activation of a tile.
pub(super) type Codes = [[i8; 4]; TILE / 4];

/// Adds the products of part `PART` of chunk `j` with `B` bytes of each activation to their sums.
#[inline(always)]
pub(super) fn add_part<
    S: Simd,
    W: Source,
    K: Kind,
    const R: usize,
    const C: usize,
    const PART: usize,
    const B: usize,
>(
    s: S,
    panels: &[W; R],
    acts: &[[&Codes; C]; B],
    j: usize,
    sums: &mut [[[S::Ints; C]; R]; B],
) {
    if S::MATRICES
        && C == 2
        && let Some(words) = unpacked(panels)
    {
        return add_matrices::<S, K, R, C, PART, B>(s, words, acts, j, sums);
    }
    if !S::NARROW {
        for i in if K::KIND & HALVES != 0 { 4 * PART..4 * PART + 4 } else { 0..8 } {
            let w = words::<S, W, R>(s, panels, j, i);
            for c in 0..C {
                for b in 0..B {
                    for r in 0..R {
                        sums[b][r][c] = s.dot_words(sums[b][r][c], w[r], acts[b][c][8 * j + i], K::KIND & SIGNED != 0);
                    }
                }
            }
        }
        return;
    }
    if let Some(words) = unpacked(panels) {
        return add_words::<S, K, R, C, PART, B>(s, words, acts, j, sums);
    }
    let mut small = [[[s.zero(); C]; R]; B];
    // One after the other, so that words' numbers are constants: shifts by anything else are slow.
    macro_rules! word {
        ($($i:literal)*) => {$(
            if K::KIND & HALVES == 0 || $i / 4 == PART {
                add_word::<S, W, K, R, C, B>(s, panels, acts, j, $i, &mut small, sums);
            }
        )*};
    }
    word!(0 1 2 3 4 5 6 7);
}

/// The words of all chunks of each panel, if they lie there as they are.
#[inline(always)]
pub(super) fn unpacked<W: Source, const R: usize>(panels: &[W; R]) -> Option<[&[[u8; 64]; TILE / 4]; R]> {
    let mut words = [panels[0].words()?; R];
    for r in 1..R {
        words[r] = panels[r].words()?;
    }
    Some(words)
}

/// Adds the products of word `i` of chunk `j`, in 16 bits if codes are unsigned; before those overflow, they are widened.
#[inline(always)]
fn add_word<S: Simd, W: Source, K: Kind, const R: usize, const C: usize, const B: usize>(
    s: S,
    panels: &[W; R],
    acts: &[[&Codes; C]; B],
    j: usize,
    i: usize,
    small: &mut [[[S::Ints; C]; R]; B],
    sums: &mut [[[S::Ints; C]; R]; B],
) {
    let (narrow, run) = (K::KIND & SIGNED == 0, run(K::KIND));
    let w = words::<S, W, R>(s, panels, j, i);
    for c in 0..C {
        for b in 0..B {
            let a = acts[b][c][8 * j + i];
            for r in 0..R {
                if narrow {
                    let before = if i.is_multiple_of(run) { s.zero() } else { small[b][r][c] };
                    small[b][r][c] = s.dot_narrow(before, w[r], a);
                } else {
                    sums[b][r][c] = s.dot_words(sums[b][r][c], w[r], a, K::KIND & SIGNED != 0);
                }
            }
        }
    }
    if narrow && i % run == run - 1 {
        widen::<S, R, C, B>(s, small, sums);
    }
}

/// [`add_part`] in a loop that stays one: registers are few, and the compiler, seeing all words at once, would keep them on the stack for
/// the next column.
#[inline(always)]
fn add_words<S: Simd, K: Kind, const R: usize, const C: usize, const PART: usize, const B: usize>(
    s: S,
    words: [&[[u8; 64]; TILE / 4]; R],
    acts: &[[&Codes; C]; B],
    j: usize,
    sums: &mut [[[S::Ints; C]; R]; B],
) {
    let signed = K::KIND & SIGNED != 0;
    let count = if K::KIND & HALVES != 0 { 4 } else { 8 };
    let run = run(K::KIND);
    // Sums of two words are widened in the loop.
    let each = if run == 2 || signed { count } else { run };
    for first in (8 * j + PART * count..8 * j + (PART + 1) * count).step_by(each) {
        let pairs = first / 2..first / 2 + black_box(each / 2);
        let mut w: [&[[[u8; 64]; 2]]; R] = [&[]; R];
        for r in 0..R {
            w[r] = &words[r].as_chunks().0[pairs.clone()];
        }
        let mut a: [[&[[[i8; 4]; 2]]; C]; B] = [[&[]; C]; B];
        for b in 0..B {
            for c in 0..C {
                a[b][c] = &acts[b][c].as_chunks().0[pairs.clone()];
            }
        }
        let mut small = [[[s.zero(); C]; R]; B];
        for i in 0..pairs.len() {
            for h in 0..2 {
                let mut v = [s.words(&w[0][i][h]); R];
                for r in 1..R {
                    v[r] = s.words(&w[r][i][h]);
                }
                for c in 0..C {
                    for b in 0..B {
                        for r in 0..R {
                            if signed {
                                sums[b][r][c] = s.dot_words(sums[b][r][c], v[r], a[b][c][i][h], true);
                            } else {
                                let before = if h == 0 && run == 2 { s.zero() } else { small[b][r][c] };
                                small[b][r][c] = s.dot_narrow(before, v[r], a[b][c][i][h]);
                            }
                        }
                    }
                }
            }
            if !signed && run == 2 {
                widen::<S, R, C, B>(s, &small, sums);
            }
        }
        if !signed && run > 2 {
            widen::<S, R, C, B>(s, &small, sums);
        }
    }
}

/// [`add_part`] of two columns in products of small matrices.
#[inline(always)]
fn add_matrices<S: Simd, K: Kind, const R: usize, const C: usize, const PART: usize, const B: usize>(
    s: S,
    words: [&[[u8; 64]; TILE / 4]; R],
    acts: &[[&Codes; C]; B],
    j: usize,
    sums: &mut [[[S::Ints; C]; R]; B],
) {
    let count = if K::KIND & HALVES != 0 { 2 } else { 4 };
    for b in 0..B {
        for r in 0..R {
            let mut both = [s.zero(); 2];
            for i in 4 * j + PART * count..4 * j + (PART + 1) * count {
                let [first, second] = &words[r].as_chunks().0[i];
                let mut eights = [[0; 8]; 2];
                for c in 0..C {
                    eights[c] = *array(acts[b][c].as_flattened(), 8 * i);
                }
                both = s.dot_matrices(both, [s.words(first), s.words(second)], eights, K::KIND & SIGNED != 0);
            }
            both = s.columns(both);
            for c in 0..C {
                sums[b][r][c] = s.add_ints(sums[b][r][c], both[c]);
            }
        }
    }
}

/// Adds sums of 16 bits to those of 32.
#[inline(always)]
fn widen<S: Simd, const R: usize, const C: usize, const B: usize>(
    s: S,
    small: &[[[S::Ints; C]; R]; B],
    sums: &mut [[[S::Ints; C]; R]; B],
) {
    for b in 0..B {
        for r in 0..R {
            for c in 0..C {
                sums[b][r][c] = s.widen(sums[b][r][c], small[b][r][c]);
            }
        }
    }
}

/// Word `i` of chunk `j` of each panel.
#[inline(always)]
fn words<S: Simd, W: Source, const R: usize>(s: S, panels: &[W; R], j: usize, i: usize) -> [S::Words; R] {
    let mut w = [panels[0].word(s, j, i); R];
    for r in 1..R {
        w[r] = panels[r].word(s, j, i);
    }
    w
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    /// The largest sums that there can be stay within 16 bits.
    #[test]
    fn narrow_sums_do_not_overflow() {
        fn check<F: Block>() {
            assert!(F::SIGNED || most::<F>() * 2 * 127 * run(kind::<F>()) <= i16::MAX as usize, "{}", F::DTYPE);
        }
        check::<q4_0::Q4_0>();
        check::<q4_1::Q4_1>();
        check::<q5_0::Q5_0>();
        check::<q5_1::Q5_1>();
        check::<q2_k::Q2_K>();
        check::<q3_k::Q3_K>();
        check::<q4_k::Q4_K>();
        check::<q5_k::Q5_K>();
        check::<q6_k::Q6_K>();
        check::<mxfp4::MXFP4>();
    }
}
