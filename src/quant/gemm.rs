//! The loops around every product of weights with many columns: panels of sixteen rows are unpacked tile by tile, two at a
//! time, and meet all columns while they are in the first-level cache. What panels hold and how they are multiplied, a
//! [`Product`] says; how weights lie in memory, their format.

use super::activations::Activations;
use super::tile::ROWS;
use crate::simd::{Columns, Kernel, Level, Simd};
use std::cell::RefCell;
use std::marker::PhantomData;

/// Rows of weights.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    /// From the first row on; what follows the last may be there, too.
    pub bytes: &'a [u8],
    /// Bytes of a panel, or of a row where rows lie as in a file.
    pub step: usize,
    /// Weights in a row.
    pub k: usize,
    /// How many rows.
    pub rows: usize,
}

/// How tiles of sixteen rows are unpacked. All methods must be `#[inline(always)]`.
pub(super) trait Unpack: 'static {
    /// A tile, unpacked.
    type Panel: 'static;
    /// Weights of a row in a tile.
    const TILE: usize;
    /// Rows that one step of [`Weights::step`] goes on.
    const ROWS_PER_STEP: usize;
    /// Rows that meet a tile of all columns before its next one comes: their sums and that tile's activations fit the second-level
    /// cache, from which activations are then read more often than from the third.
    const BATCH: usize = 8 * ROWS;

    /// Lends what the thread keeps to unpack panels in.
    fn with_panels<T>(f: impl FnOnce(&mut [Self::Panel; 2]) -> T) -> T;
    /// Unpacks tile `t` of panel `p`; rows that are not there become zero.
    fn unpack<S: Simd>(s: S, w: &Weights<'_>, p: usize, t: usize, to: &mut Self::Panel);
}

/// A way to multiply unpacked panels with columns. All methods must be `#[inline(always)]`.
pub(super) trait Product: Unpack {
    /// How many of so many columns are multiplied at a time, and for how many sums lie together; the same, or more.
    fn group<S: Simd>(columns: usize) -> usize;
    /// Adds the products of tile `t` of the first `used` panels with all columns to `sums`: group by group, and in each panel by
    /// panel and column by column.
    fn multiply<S: Simd>(
        s: S,
        panels: &[Self::Panel; 2],
        used: usize,
        acts: &Activations,
        t: usize,
        sums: &mut [[f32; ROWS]],
    );
}

/// A product with as many columns as there are registers for their sums. The method must be `#[inline(always)]`.
pub(super) trait FewColumns: Unpack {
    /// Adds the products of tile `t` of the first `used` panels with `C` columns from `c` on to the first of `sums`.
    fn add<S: Simd, const C: usize>(
        s: S,
        panels: &[Self::Panel; 2],
        used: usize,
        acts: &Activations,
        at: (usize, usize),
        sums: &mut [[f32; ROWS]],
    );
}

impl<P: FewColumns> Product for P {
    #[inline(always)]
    fn group<S: Simd>(columns: usize) -> usize {
        match columns {
            6.. if S::REGISTERS >= 32 => 6,
            4.. if S::REGISTERS >= 32 => 4,
            2.. => 2,
            _ => 1,
        }
    }

    #[inline(always)]
    fn multiply<S: Simd>(
        s: S,
        panels: &[P::Panel; 2],
        used: usize,
        acts: &Activations,
        t: usize,
        sums: &mut [[f32; ROWS]],
    ) {
        let mut c = 0;
        while c < acts.columns() {
            let (at, sums) = ((t, c), &mut sums[2 * c..]);
            let group = Self::group::<S>(acts.columns() - c);
            match group {
                6 => P::add::<S, 6>(s, panels, used, acts, at, sums),
                4 => P::add::<S, 4>(s, panels, used, acts, at, sums),
                2 => P::add::<S, 2>(s, panels, used, acts, at, sums),
                _ => P::add::<S, 1>(s, panels, used, acts, at, sums),
            }
            c += group;
        }
    }
}

thread_local! {
    /// The sums of a batch, while tile after tile is added: pair of panels by pair. Where the results go, columns lie so far
    /// apart that they would drive each other out of the caches.
    static SUMS: RefCell<Vec<[f32; ROWS]>> = const { RefCell::new(Vec::new()) };
}

/// The products of all rows with all columns.
pub(super) fn multiply<P: Product>(level: Level, w: Weights<'_>, acts: &Activations, out: &mut Columns<'_>) {
    P::with_panels(|panels| {
        SUMS.with_borrow_mut(|sums| {
            for first in (0..w.rows).step_by(P::BATCH) {
                let rows = P::BATCH.min(w.rows - first);
                let w = Weights { bytes: &w.bytes[first / P::ROWS_PER_STEP * w.step..], rows, ..w };
                level.run(Batch::<P> { w, panels, sums, acts, first, out, product: PhantomData });
            }
        });
    });
}

/// Some rows' products, to rows `first` … of the output.
struct Batch<'a, 'b, P: Product> {
    w: Weights<'a>,
    panels: &'a mut [P::Panel; 2],
    sums: &'a mut Vec<[f32; ROWS]>,
    acts: &'a Activations,
    first: usize,
    out: &'a mut Columns<'b>,
    product: PhantomData<P>,
}

impl<P: Product> Kernel for Batch<'_, '_, P> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Batch { w, panels, sums, acts, first, out, .. } = self;
        let used = w.rows.div_ceil(ROWS);
        let mut width = 0;
        while width < acts.columns() {
            width += P::group::<S>(acts.columns() - width);
        }
        sums.clear();
        sums.resize(used.div_ceil(2) * 2 * width, [0.0; ROWS]);
        for t in 0..w.k.div_ceil(P::TILE) {
            for (i, sums) in sums.chunks_exact_mut(2 * width).enumerate() {
                let used = (used - 2 * i).min(2);
                for (p, to) in panels.iter_mut().enumerate().take(used) {
                    s.enter(UnpackTile::<P> { w, p: 2 * i + p, t, to });
                }
                P::multiply(s, panels, used, acts, t, sums);
            }
        }
        // Column by column: what a column gets lies together, and the columns far apart.
        let mut c = 0;
        while c < acts.columns() {
            let group = P::group::<S>(acts.columns() - c);
            for i in 0..group.min(acts.columns() - c) {
                let out = &mut out.row(c + i)[first..first + w.rows];
                for (p, out) in out.chunks_mut(ROWS).enumerate() {
                    put(out, &sums[p / 2 * 2 * width + 2 * c + p % 2 * group + i]);
                }
            }
            c += group;
        }
    }
}

/// [`Unpack::unpack`], out of line.
struct UnpackTile<'a, P: Unpack> {
    w: Weights<'a>,
    p: usize,
    t: usize,
    to: &'a mut P::Panel,
}

impl<P: Unpack> Kernel for UnpackTile<'_, P> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        P::unpack(s, &self.w, self.p, self.t, self.to);
    }
}

/// Writes as many sums as there is room for.
#[inline(always)]
pub(super) fn put(out: &mut [f32], sums: &[f32; ROWS]) {
    match out.first_chunk_mut() {
        // One move, and no call.
        Some(out) => *out = *sums,
        None => out.copy_from_slice(&sums[..out.len()]),
    }
}
