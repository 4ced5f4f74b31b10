//! A kernel's figures, counted in its machine code.
//!
//! Blocks are walked in the order they lie in, each once: a branch that is not always taken counts as taken. Loops in what is counted
//! count as often as they run, or once where that is not known.

use crate::assembly::{Block, Kind};
use crate::loops::{Loop, find};
use crate::record::Row;
use std::collections::VecDeque;
use std::ops::Range;

/// A kernel's machine code with its loops.
pub struct Code {
    blocks: Vec<Block>,
    loops: Vec<Loop>,
    /// Whether stores are waited for as loads are (before RDNA).
    stores_wait: bool,
}

/// What is found on the way.
#[derive(Default)]
struct Walk {
    row: Row,
    waited: bool,
    /// Bytes of the loads that are in flight, the oldest first, and the round trip in which they were begun.
    flying: VecDeque<(u32, usize)>,
    /// Round trips so far, those of loops once.
    trip: usize,
}

impl Code {
    /// The loops of `blocks`. Before RDNA stores are waited for in the order of loads, with them.
    pub fn new(blocks: Vec<Block>, stores_wait: bool) -> Code {
        let loops = find(&blocks);
        Code { blocks, loops, stores_wait }
    }

    /// What is counted: a step of the main loop where steps are known to compute `macs`, else the whole kernel.
    pub fn figures(&self, macs: Option<u32>) -> Row {
        let main = macs.and_then(|_| self.main());
        let (range, loops) = match main {
            Some(main) => (main.blocks.clone(), &main.inner),
            None => (0..self.blocks.len(), &self.loops),
        };
        let mut walk = Walk::default();
        self.walk(range, loops, 1.0, &mut walk);
        let (load_branches, single_loops) = self.load_loops();
        let macs = if main.is_some() { macs.unwrap_or_default().into() } else { 0.0 };
        Row { macs, load_branches, single_loops, ..walk.row }
    }

    /// The loop in which most of the work is done: of those that run no constant number of times the one with most instructions of its
    /// own, loops of constant length included; else of all outermost ones.
    pub fn main(&self) -> Option<&Loop> {
        let all: Vec<&Loop> = self.loops.iter().flat_map(Loop::all).collect();
        let open = all.into_iter().filter(|l| l.trips.is_none());
        let most = |a: &&Loop, b: &&Loop| self.weight(a).total_cmp(&self.weight(b));
        open.max_by(most).or_else(|| self.loops.iter().max_by(most))
    }

    /// Instructions of a step, those of loops that run no constant number of times left out.
    fn weight(&self, of: &Loop) -> f64 {
        let inner = of.inner.iter().filter_map(|l| Some(l.trips? * self.weight(l)));
        of.own(&self.blocks).count() as f64 + inner.sum::<f64>()
    }

    fn walk(&self, range: Range<usize>, loops: &[Loop], times: f64, walk: &mut Walk) {
        let mut at = range.start;
        while at < range.end {
            if let Some(inner) = loops.iter().find(|l| l.blocks.start == at) {
                self.walk(inner.blocks.clone(), &inner.inner, times * inner.trips.unwrap_or(1.0), walk);
                at = inner.blocks.end;
                continue;
            }
            self.blocks[at].instructions.iter().for_each(|i| walk.step(i.kind, times, self.stores_wait));
            at += 1;
        }
    }

    /// Innermost loops, with the path of their numbers.
    fn innermost(&self) -> impl Iterator<Item = &Loop> {
        self.loops.iter().flat_map(Loop::all).filter(|l| l.inner.is_empty())
    }

    /// Branches within innermost loops that load, and how many of these run once at the most.
    fn load_loops(&self) -> (f64, f64) {
        let loads = |l: &&Loop| l.own(&self.blocks).any(|i| matches!(i.kind, Kind::Load(_)));
        let (mut branches, mut single) = (0.0, 0.0);
        for l in self.innermost().filter(loads) {
            branches += self.branches_within(l);
            single += f64::from(l.trips.is_some_and(|n| n <= 1.0));
        }
        (branches, single)
    }

    /// Branches of a loop that neither leave it nor begin it again.
    fn branches_within(&self, l: &Loop) -> f64 {
        let within = |to: u32| {
            let place = self.blocks.iter().position(|b| b.number == to);
            place.is_some_and(|p| l.blocks.contains(&p) && p != l.blocks.start)
        };
        l.own(&self.blocks).filter(|i| matches!(i.kind, Kind::Branch(to) if within(to))).count() as f64
    }

    /// A line for each loop: where it lies, how often it runs, what is in it.
    pub fn describe(&self) -> Vec<String> {
        let main = self.main().map(|l| l.blocks.clone());
        let line = |l: &Loop| {
            let mut walk = Walk::default();
            self.walk(l.blocks.clone(), &l.inner, 1.0, &mut walk);
            let r = walk.row;
            let (first, last) = (self.blocks[l.blocks.start].number, self.blocks[l.blocks.end - 1].number);
            let trips = l.trips.map_or("?".into(), |n| format!("{n}"));
            let kind = if main.as_ref() == Some(&l.blocks) { ", the main loop" } else { "" };
            let kind =
                if l.inner.is_empty() { kind.to_owned() } else { format!("{kind}, {} loops within", l.inner.len()) };
            let loads = loads(&r);
            format!(
                "BB{first}-BB{last}{kind}: runs {trips} times; {} instructions: {} vector, {} scalar, {} scalar loads, {} loads ({loads}), \
                 {} stores, {} workgroup memory, {} branches ({} within), {} round trips; {} loads before the first, {} in flight of {} B",
                r.all,
                r.vector,
                r.scalar,
                r.smem,
                r.loads().iter().map(|l| l.1).sum::<f64>(),
                r.stores,
                r.local,
                r.branches,
                self.branches_within(l),
                r.round_trips,
                r.first,
                r.flight,
                r.flight_bytes
            )
        };
        self.loops.iter().flat_map(Loop::all).map(line).collect()
    }
}

/// Loads by their bytes: `8 × 4 + 2 × 16`.
pub fn loads(row: &Row) -> String {
    let each = row.loads().into_iter().filter(|(_, n)| *n > 0.0);
    let all: Vec<String> = each.map(|(bytes, n)| format!("{} × {bytes}", (n * 100.0).round() / 100.0)).collect();
    if all.is_empty() { "none".into() } else { all.join(" + ") }
}

impl Walk {
    fn step(&mut self, kind: Kind, times: f64, stores_wait: bool) {
        let row = &mut self.row;
        row.all += times;
        match kind {
            Kind::Vector => row.vector += times,
            Kind::Dot => (row.vector, row.dot) = (row.vector + times, row.dot + times),
            Kind::Matrix => (row.vector, row.matrix) = (row.vector + times, row.matrix + times),
            Kind::Scalar => row.scalar += times,
            Kind::ScalarLoad => row.smem += times,
            Kind::Local => row.local += times,
            Kind::Barrier => row.barriers += times,
            Kind::Branch(_) => row.branches += times,
            Kind::Hint | Kind::Wait(None) => {}
            Kind::Store => {
                row.stores += times;
                if stores_wait {
                    self.flying.push_back((0, self.trip));
                }
            }
            Kind::Load(bytes) => {
                let count = match bytes {
                    1 => &mut row.load1,
                    2 => &mut row.load2,
                    4 => &mut row.load4,
                    8 => &mut row.load8,
                    12 => &mut row.load12,
                    _ => &mut row.load16,
                };
                *count += times;
                row.first += f64::from(!self.waited);
                self.flying.push_back((bytes, self.trip));
                let flight = self.flying.iter().filter(|l| l.0 > 0).count() as f64;
                row.flight = row.flight.max(flight);
                row.flight_bytes = row.flight_bytes.max(self.flying.iter().map(|l| l.0).sum::<u32>().into());
            }
            Kind::Wait(Some(left)) => {
                let done = self.flying.len().saturating_sub(left);
                let loads: Vec<_> = self.flying.drain(..done).filter(|l| l.0 > 0).collect();
                self.waited |= !loads.is_empty();
                // A load that was under way during the last round trip is waited for but shortly.
                if loads.iter().any(|l| l.1 == self.trip) {
                    row.round_trips += times;
                    self.trip += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assembly::blocks;
    use crate::loops::tests::ATTENTION;

    #[test]
    fn a_step_is_counted_with_its_inner_loops() {
        let code = Code::new(blocks(ATTENTION), false);
        let row = code.figures(Some(256));
        let expected = Row {
            macs: 256.0,
            all: 7.0 + 16.0 * 11.0 + 128.0 * 7.0,
            vector: 1.0 + 16.0 * 3.0 + 128.0,
            scalar: 3.0 + 16.0 * 2.0 + 128.0 * 2.0,
            local: 16.0 + 128.0,
            load4: 16.0,
            barriers: 1.0,
            branches: 2.0 + 16.0 * 3.0 + 128.0 * 2.0,
            round_trips: 16.0,
            first: 1.0,
            flight: 1.0,
            flight_bytes: 4.0,
            load_branches: 1.0,
            ..Row::ZERO
        };
        assert_eq!(row, expected);
        // The whole: the loop over cells counts once.
        let whole = code.figures(None);
        assert_eq!((whole.macs, whole.smem, whole.all), (0.0, 1.0, row.all + 4.0));
        assert_eq!(code.describe().len(), 3);
        assert!(code.describe()[0].starts_with("BB20-BB44, the main loop, 2 loops within: runs ? times"));
    }

    #[test]
    fn loads_fly_until_they_are_waited_for() {
        let load = |n: u32, bytes: &str| format!("buffer_load_{bytes} v{n}, v9, s[0:3], 0 offen\n");
        let wait = |n: u32| format!("s_waitcnt vmcnt({n})\n");
        let store = "s_waitcnt lgkmcnt(0)\nbuffer_store_dword v0, v9, s[0:3], 0 offen\n";
        let figures = |parts: &[&str], stores_wait| Code::new(blocks(&parts.concat()), stores_wait).figures(None);
        let (small, large) = (load(0, "dword"), load(1, "dwordx4"));
        // Two begun together are one round trip, however they are waited for; what is begun after the first has come is another.
        let row = figures(&["BB0:\n", &small, &large, &wait(1), &wait(0)], false);
        assert_eq!((row.first, row.flight, row.flight_bytes, row.round_trips), (2.0, 2.0, 20.0, 1.0));
        let row = figures(&["BB0:\n", &small, &large, &wait(1), &large, &wait(1), &wait(0)], false);
        assert_eq!((row.first, row.flight, row.flight_bytes, row.round_trips), (2.0, 2.0, 32.0, 2.0));
        // Vega waits for stores too, in order.
        let stored = ["BB0:\n", &small, store, &wait(1)];
        assert_eq!(figures(&stored, true).round_trips, 1.0);
        assert_eq!(figures(&stored, false).round_trips, 0.0);
    }

    #[test]
    fn a_loop_that_loads_once_is_told() {
        let text = "BB0:\nBB1:\nv_cmpx_le_u32_e32 0x100, v1\ns_cbranch_execz BB3\nBB2:\nglobal_load_b32 v2, v3, off\n\
                    s_waitcnt vmcnt(0)\nv_add_nc_u32_e32 v1, 0x100, v1\ns_branch BB1\nBB3:\ns_endpgm\n";
        let row = Code::new(blocks(text), false).figures(None);
        assert_eq!((row.single_loops, row.load_branches, row.load4), (1.0, 0.0, 1.0));
    }
}
