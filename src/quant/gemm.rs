//! The loops around every product of weights with many columns: panels of sixteen rows are unpacked tile by tile, two at a
//! time, and meet all columns while they are in the first-level cache. What panels hold and how they are multiplied, a
//! [`PanelProduct`] says; how weights lie in memory, their format.

use super::activations::Activations;
use super::tile::{CHUNK, ROWS};
use crate::simd::{Columns, Level, Simd, SimdKernel};
use std::cell::RefCell;
use std::marker::PhantomData;

/// Rows of weights.
#[derive(Clone, Copy)]
pub(super) struct WeightRows<'a> {
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
    /// Rows that one step of [`WeightRows::step`] goes on.
    const ROWS_PER_STEP: usize;
    /// Rows that meet a tile of all columns before its next one comes: their sums and that tile's activations fit the second-level
    /// cache, from which activations are then read more often than from the third.
    const BATCH: usize = 8 * ROWS;

    /// Where tile `t` of panel `p` lies, if it is worth fetching ahead; nothing of what is not there.
    #[inline(always)]
    fn tile<'a>(_w: &WeightRows<'a>, _p: usize, _t: usize) -> &'a [u8] {
        &[]
    }
    /// Lends what the thread keeps to unpack panels in.
    fn with_panels<T>(f: impl FnOnce(&mut [Self::Panel; 2]) -> T) -> T;
    /// Unpacks tile `t` of panel `p`; rows that are not there become zero.
    fn unpack<S: Simd>(s: S, w: &WeightRows<'_>, p: usize, t: usize, to: &mut Self::Panel);
}

/// A way to multiply unpacked panels with columns. All methods must be `#[inline(always)]`.
pub(super) trait PanelProduct: Unpack {
    /// How many of the columns from `from` on are multiplied at a time, and for how many sums lie together; as many as there are, or more.
    fn group<S: Simd>(acts: &Activations, from: usize) -> usize;
    /// Adds the products of tile `t` of the first `used` panels with all columns to `sums`: group by group, and in each panel by
    /// panel and column by column. Meanwhile `next` is fetched, the tiles that follow.
    fn multiply<S: Simd>(
        s: S,
        panels: &[Self::Panel; 2],
        used: usize,
        acts: &Activations,
        t: usize,
        next: [&[u8]; 2],
        sums: &mut [[f32; ROWS]],
    );
}

/// What is unpacked next, fetched a few lines at a time while products are made: requests for all of it at once would wait for each other,
/// and the products for them.
pub(super) struct Ahead<'a> {
    rest: [&'a [u8]; 2],
    /// Bytes of each that are fetched at a time.
    step: usize,
}

impl<'a> Ahead<'a> {
    /// All of `tiles` in `steps` steps.
    fn new(tiles: [&'a [u8]; 2], steps: usize) -> Self {
        let lines = tiles[0].len().max(tiles[1].len()).div_ceil(64);
        Ahead { rest: tiles, step: lines.div_ceil(steps) * 64 }
    }

    /// The next step.
    #[inline(always)]
    pub fn fetch<S: Simd>(&mut self, s: S) {
        for rest in &mut self.rest {
            let (now, later) = rest.split_at(self.step.min(rest.len()));
            for line in (0..now.len()).step_by(64) {
                s.prefetch(now.as_ptr().wrapping_add(line));
            }
            *rest = later;
        }
    }
}

/// A product with as many columns as there are registers for their sums. Methods must be `#[inline(always)]`.
pub(super) trait FewColumns: Unpack {
    /// Adds the products of tile `t` of the first `used` panels with `C` columns from `c` on to the first of `sums`.
    fn add<S: Simd, const C: usize>(
        s: S,
        panels: &[Self::Panel; 2],
        used: usize,
        acts: &Activations,
        at: (usize, usize),
        ahead: &mut Ahead<'_>,
        sums: &mut [[f32; ROWS]],
    );
}

impl<P: FewColumns> PanelProduct for P {
    #[inline(always)]
    fn group<S: Simd>(acts: &Activations, from: usize) -> usize {
        match acts.columns() - from {
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
        next: [&[u8]; 2],
        sums: &mut [[f32; ROWS]],
    ) {
        let (mut c, mut passes) = (0, 0);
        while c < acts.columns() {
            c += Self::group::<S>(acts, c);
            passes += 1;
        }
        let chunks = P::TILE.min(acts.k() - t * P::TILE).div_ceil(CHUNK);
        let mut ahead = Ahead::new(next, passes * chunks);
        let mut c = 0;
        while c < acts.columns() {
            let (at, ahead, sums) = ((t, c), &mut ahead, &mut sums[2 * c..]);
            let group = Self::group::<S>(acts, c);
            match group {
                6 => P::add::<S, 6>(s, panels, used, acts, at, ahead, sums),
                4 => P::add::<S, 4>(s, panels, used, acts, at, ahead, sums),
                2 => P::add::<S, 2>(s, panels, used, acts, at, ahead, sums),
                _ => P::add::<S, 1>(s, panels, used, acts, at, ahead, sums),
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
pub(super) fn multiply<P: PanelProduct>(level: Level, w: WeightRows<'_>, acts: &Activations, out: &mut Columns<'_>) {
    P::with_panels(|panels| {
        SUMS.with_borrow_mut(|sums| {
            for first in (0..w.rows).step_by(P::BATCH) {
                let rows = P::BATCH.min(w.rows - first);
                let w = WeightRows { bytes: &w.bytes[first / P::ROWS_PER_STEP * w.step..], rows, ..w };
                level.run(Batch::<P> { w, panels, sums, acts, first, out, product: PhantomData });
            }
        });
    });
}

/// Some rows' products, to rows `first` … of the output.
struct Batch<'a, 'b, P: PanelProduct> {
    w: WeightRows<'a>,
    panels: &'a mut [P::Panel; 2],
    sums: &'a mut Vec<[f32; ROWS]>,
    acts: &'a Activations,
    first: usize,
    out: &'a mut Columns<'b>,
    product: PhantomData<P>,
}

impl<P: PanelProduct> SimdKernel for Batch<'_, '_, P> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Batch { w, panels, sums, acts, first, out, .. } = self;
        let used = w.rows.div_ceil(ROWS);
        let mut width = 0;
        while width < acts.columns() {
            width += P::group::<S>(acts, width);
        }
        sums.clear();
        sums.resize(used.div_ceil(2) * 2 * width, [0.0; ROWS]);
        let tiles = w.k.div_ceil(P::TILE);
        for t in 0..tiles {
            for (i, sums) in sums.chunks_exact_mut(2 * width).enumerate() {
                let used_here = (used - 2 * i).min(2);
                for (p, to) in panels.iter_mut().enumerate().take(used_here) {
                    s.enter(UnpackTile::<P> { w, p: 2 * i + p, t, to });
                }
                // The next two panels, or the first with their next tile, or those of the next batch.
                let (p, t_next) = match (2 * i + 2 < used, t + 1 < tiles) {
                    (true, _) => (2 * i + 2, t),
                    (false, true) => (0, t + 1),
                    (false, false) => (used, 0),
                };
                let next = [P::tile(&w, p, t_next), P::tile(&w, p + 1, t_next)];
                P::multiply(s, panels, used_here, acts, t, next, sums);
            }
        }
        // Column by column: what a column gets lies together, and the columns far apart.
        let mut c = 0;
        while c < acts.columns() {
            let group = P::group::<S>(acts, c);
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
    w: WeightRows<'a>,
    p: usize,
    t: usize,
    to: &'a mut P::Panel,
}

impl<P: Unpack> SimdKernel for UnpackTile<'_, P> {
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
