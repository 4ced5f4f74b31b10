//! From graph to schedule: who runs which nodes, what crosses between devices, and which memory each temporary gets.
//!
//! Temporaries share slots: a slot is free again after the last node that reads it. A node's result never shares a slot with
//! its sources, so ops need not think about overlap. Slots are separate buffers, because a GPU tracks hazards per buffer.

use super::{BufId, Graph, Storage};
use std::collections::HashMap;
use std::ops::Range;

/// Where nodes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Place {
    Cpu,
    Gpu,
}

/// Consecutive nodes that run in one place.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Where.
    pub place: Place,
    /// Which nodes.
    pub nodes: Range<usize>,
}

/// A temporary that crosses to the other place before a segment runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    /// The segment that needs it.
    pub before: usize,
    /// What crosses.
    pub buf: BufId,
    /// Where it comes from.
    pub from: Place,
    /// Where it goes.
    pub to: Place,
}

/// Memory of temporaries in one place, by index into [`Schedule::slots`].
pub type Slot = usize;

/// Who runs what, and in which memory.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schedule {
    /// In running order; they cover all nodes.
    pub segments: Vec<Segment>,
    /// Crossings, ordered by the segment they precede.
    pub copies: Vec<Copy>,
    /// Size in bytes of every slot of each place.
    pub slots: HashMap<Place, Vec<usize>>,
    /// The slot of each temporary in each place where it lives.
    pub slot_of: HashMap<(Place, BufId), Slot>,
}

/// Indices of `sizes`, the largest first: in this order slots of all programs are given the same memory.
pub fn by_size(sizes: &[usize]) -> Vec<Slot> {
    let mut order: Vec<Slot> = (0..sizes.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(sizes[*i]));
    order
}

impl Schedule {
    /// Plans `graph` with node `i` running at `place(i)`.
    pub fn new(graph: &Graph, place: impl Fn(usize) -> Place) -> Schedule {
        let mut schedule = Schedule::default();
        for i in 0..graph.nodes.len() {
            let here = place(i);
            match schedule.segments.last_mut() {
                Some(last) if last.place == here => last.nodes.end = i + 1,
                _ => schedule.segments.push(Segment { place: here, nodes: i..i + 1 }),
            }
        }
        schedule.find_copies(graph);
        for here in [Place::Cpu, Place::Gpu] {
            schedule.assign_slots(graph, here);
        }
        schedule
    }

    /// Everything in one place.
    pub fn single(graph: &Graph, place: Place) -> Schedule {
        Self::new(graph, |_| place)
    }

    fn find_copies(&mut self, graph: &Graph) {
        let mut homes: HashMap<BufId, Vec<Place>> = HashMap::new();
        for (s, segment) in self.segments.iter().enumerate() {
            for node in &graph.nodes[segment.nodes.clone()] {
                for src in node.src.iter().filter(|t| *graph.storage(t) == Storage::Temp) {
                    let places = homes.get_mut(&src.buf).expect("a temporary is written before it is read");
                    if !places.contains(&segment.place) {
                        self.copies.push(Copy { before: s, buf: src.buf, from: places[0], to: segment.place });
                        places.push(segment.place);
                    }
                }
                homes.entry(node.dst.buf).or_insert_with(|| vec![segment.place]);
            }
        }
    }

    /// Linear scan over the nodes: the smallest free slot that fits, else the largest free one grown, else a new one.
    fn assign_slots(&mut self, graph: &Graph, here: Place) {
        let (births, deaths) = self.lifetimes(graph, here);
        let mut sizes: Vec<usize> = Vec::new();
        let mut free: Vec<Slot> = Vec::new();
        for i in 0..graph.nodes.len() {
            for buf in births.get(&i).into_iter().flatten() {
                let need = graph.buffers[buf.0 as usize].meta.span_bytes();
                let fitting = free.iter().copied().filter(|s| sizes[*s] >= need).min_by_key(|s| sizes[*s]);
                let slot = fitting.or_else(|| free.iter().copied().max_by_key(|s| sizes[*s])).unwrap_or_else(|| {
                    sizes.push(0);
                    sizes.len() - 1
                });
                free.retain(|s| *s != slot);
                sizes[slot] = sizes[slot].max(need);
                self.slot_of.insert((here, *buf), slot);
            }
            free.extend(deaths.get(&i).into_iter().flatten().map(|buf| self.slot_of[&(here, *buf)]));
        }
        self.slots.insert(here, sizes);
    }

    /// Temporaries by the node before which they begin to live in `here`, and by the node after which they no longer do.
    #[allow(clippy::type_complexity)]
    fn lifetimes(&self, graph: &Graph, here: Place) -> (HashMap<usize, Vec<BufId>>, HashMap<usize, Vec<BufId>>) {
        let mut span: HashMap<BufId, (usize, usize)> = HashMap::new();
        let mut touch = |buf: BufId, at: usize| {
            let (start, end) = span.entry(buf).or_insert((at, at));
            *start = (*start).min(at);
            *end = (*end).max(at);
        };
        for segment in self.segments.iter().filter(|s| s.place == here) {
            for i in segment.nodes.clone() {
                let node = &graph.nodes[i];
                for t in node.src.iter().chain([&node.dst]).filter(|t| *graph.storage(t) == Storage::Temp) {
                    touch(t.buf, i);
                }
            }
        }
        // A crossing reads its source just before the segment it precedes, and writes its target there.
        for copy in self.copies.iter().filter(|c| c.from == here || c.to == here) {
            touch(copy.buf, self.segments[copy.before].nodes.start);
        }
        if let Some(output) = graph.output.filter(|t| *graph.storage(t) == Storage::Temp)
            && span.contains_key(&output.buf)
        {
            span.entry(output.buf).and_modify(|(_, end)| *end = graph.nodes.len());
        }
        let mut births: HashMap<usize, Vec<BufId>> = HashMap::new();
        let mut deaths: HashMap<usize, Vec<BufId>> = HashMap::new();
        let mut all: Vec<_> = span.into_iter().collect();
        all.sort_unstable();
        for (buf, (start, end)) in all {
            births.entry(start).or_default().push(buf);
            deaths.entry(end).or_default().push(buf);
        }
        (births, deaths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Meta;
    use crate::graph::Input;
    use crate::ops::{Add, Unary};

    fn chain(n: usize) -> Graph {
        let mut g = Graph::new();
        let mut x = g.input(Input::Rows, Meta::f32([4, 8]));
        for _ in 0..n {
            let y = g.op("scale", Unary::Scale(2.0), &[x]).unwrap();
            x = g.op("add", Add { scale: 1.0 }, &[y, x]).unwrap();
        }
        g.output = Some(x);
        g
    }

    #[test]
    fn live_temporaries_never_share_a_slot() {
        let g = chain(6);
        for cut in 0..=g.nodes.len() {
            let schedule = Schedule::new(&g, |i| if i < cut { Place::Cpu } else { Place::Gpu });
            for here in [Place::Cpu, Place::Gpu] {
                let (births, deaths) = schedule.lifetimes(&g, here);
                let mut live: Vec<BufId> = Vec::new();
                for i in 0..=g.nodes.len() {
                    live.extend(births.get(&i).into_iter().flatten());
                    let mut slots: Vec<_> = live.iter().map(|b| schedule.slot_of[&(here, *b)]).collect();
                    slots.sort_unstable();
                    slots.dedup();
                    assert_eq!(slots.len(), live.len(), "cut {cut}, node {i}");
                    live.retain(|b| !deaths.get(&i).is_some_and(|d| d.contains(b)));
                }
            }
        }
    }

    #[test]
    fn a_chain_needs_three_slots_and_one_cut_copies_what_lives_across() {
        let g = chain(6);
        assert_eq!(Schedule::single(&g, Place::Cpu).slots[&Place::Cpu].len(), 3);
        let schedule = Schedule::new(&g, |i| if i < 5 { Place::Gpu } else { Place::Cpu });
        assert_eq!(schedule.segments.len(), 2);
        assert_eq!(schedule.copies.len(), 2, "the scaled value and the sum it is added to: {:?}", schedule.copies);
    }
}
