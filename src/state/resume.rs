//! Sequences that are kept elsewhere: from which points one can continue, and how it comes back.

use super::error::Full;
use super::group::Group;
use super::item::Item;
use super::pages::{NULL_PAGE, pages_of};
use super::pool::{Pool, SeqId};
use super::sequence::{Sequence, Table};
use super::snapshot::Snapshot;
use super::tree::Place;

/// A point from which a sequence can continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point<'p> {
    /// Its items up to there.
    pub len: usize,
    /// The pages of their cells, by group, as [`Pool::table`] gives them.
    pub tables: Vec<&'p [u32]>,
    /// How many of these pages, by group, from the first on, are not needed to continue; some of them may be gone.
    pub gone: Vec<usize>,
}

impl Pool {
    /// The points of a sequence's items, ascending, from which it can continue: the snapshots on its way, if layers have windows, and its end,
    /// unless it is empty. From one to the next the pages that are not needed never become fewer. Not for sequences with slots: their state is
    /// in no page.
    pub fn points(&self, seq: SeqId) -> Vec<Point<'_>> {
        let sequence = &self.sequences[seq.0];
        let end = sequence.salt.and_then(|salt| self.tree.find(salt, &sequence.items));
        let on_way = |snapshot: &&Snapshot| {
            let place = Place { node: snapshot.node, len: snapshot.len };
            snapshot.len < sequence.len() && end.is_some_and(|end| self.tree.common(place, end) == snapshot.len)
        };
        let snapshots = self.snapshots.list.iter().filter(on_way);
        let mut points: Vec<Point> = snapshots.map(|s| self.point(sequence, s.len, &s.windows)).collect();
        points.sort_by_key(|point| point.len);
        points.extend((sequence.len() > 0).then(|| self.point(sequence, sequence.len(), &[])));
        points
    }

    /// The point at `len` items, with the tables of a snapshot, by group, for groups with windows if there are any.
    fn point<'p>(&self, sequence: &'p Sequence, len: usize, windows: &'p [Table]) -> Point<'p> {
        let of_group = |(g, group): (usize, &Group)| {
            let table = windows.get(g).filter(|_| group.window.is_some()).unwrap_or(&sequence.tables[g]);
            (&table.pages[..pages_of(len)], group.first_kept(len).max(table.first))
        };
        let (tables, gone) = self.groups.iter().enumerate().map(of_group).unzip();
        Point { len, tables, gone }
    }

    /// Adds items to a sequence whose cells the caller writes into its pages, where no step computes them; of group `g` the first `gone[g]`
    /// pages, counted along the sequence, are never read again.
    ///
    /// # Errors
    /// As [`Pool::reserve`]; then the sequence is good for nothing but to be closed.
    pub fn resume(&mut self, seq: SeqId, items: &[Item], gone: &[usize]) -> Result<(), Full> {
        let sequence = &mut self.sequences[seq.0];
        let end = sequence.len() + items.len();
        assert!(gone.iter().all(|gone| *gone <= pages_of(end)), "{gone:?} pages are gone of {end} cells");
        for ((table, group), gone) in sequence.tables.iter_mut().zip(&mut self.groups).zip(gone) {
            table.trim(&mut group.pages, *gone);
            if table.pages.len() < *gone {
                table.pages.resize(*gone, NULL_PAGE);
                table.first = *gone;
            }
        }
        self.reserve(seq, items.len())?;
        self.commit(seq, items);
        Ok(())
    }
}
