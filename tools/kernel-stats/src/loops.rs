//! Loops of a kernel's machine code, and how often they run.
//!
//! Mesa lays blocks out in the order of the program, so a loop is what lies between a jump back and its target. How often it runs is
//! known where a counter is compared with a constant; a counter that begins with the thread's number counts as beginning with 0.

use crate::assembly::{Block, Instruction, Kind};
use std::ops::Range;

/// A loop.
#[derive(Debug, Clone, PartialEq)]
pub struct Loop {
    /// Its blocks, by their places.
    pub blocks: Range<usize>,
    /// How often it runs, where that is a constant.
    pub trips: Option<f64>,
    /// The loops in it.
    pub inner: Vec<Loop>,
}

/// The outermost loops of a kernel, in order.
pub fn find(blocks: &[Block]) -> Vec<Loop> {
    let place = |number: u32| blocks.iter().position(|b| b.number == number);
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (i, block) in blocks.iter().enumerate() {
        let targets = block.instructions.iter().filter_map(|instruction| match instruction.kind {
            Kind::Branch(to) => place(to).filter(|to| *to <= i),
            _ => None,
        });
        for start in targets {
            match ranges.iter_mut().find(|r| r.start == start) {
                Some(range) => range.end = range.end.max(i + 1),
                None => ranges.push(start..i + 1),
            }
        }
    }
    // Outer ones first.
    ranges.sort_by_key(|r| (r.start, std::cmp::Reverse(r.end)));
    nest(blocks, &before(blocks), &ranges)
}

/// The blocks after which each can come.
fn before(blocks: &[Block]) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new(); blocks.len()];
    for (i, block) in blocks.iter().enumerate() {
        for instruction in &block.instructions {
            if let Kind::Branch(to) = instruction.kind
                && let Some(place) = blocks.iter().position(|b| b.number == to)
            {
                all[place].push(i);
            }
        }
        let ends = block.instructions.last().is_some_and(|l| l.name == "s_branch" || l.name.starts_with("s_endpgm"));
        if let Some(next) = all.get_mut(i + 1).filter(|_| !ends) {
            next.push(i);
        }
    }
    all
}

/// `ranges` in order, outer ones first.
fn nest(blocks: &[Block], before: &[Vec<usize>], ranges: &[Range<usize>]) -> Vec<Loop> {
    let mut all = Vec::new();
    let mut rest = ranges;
    while let Some((outer, behind)) = rest.split_first() {
        let count = behind.iter().take_while(|r| r.start < outer.end).count();
        let inner = nest(blocks, before, &behind[..count]);
        let mut this = Loop { blocks: outer.clone(), trips: None, inner };
        this.trips = Counting { blocks, before, of: &this }.trips();
        all.push(this);
        rest = &behind[count..];
    }
    all
}

impl Loop {
    /// All loops in it, itself first.
    pub fn all(&self) -> Vec<&Loop> {
        std::iter::once(self).chain(self.inner.iter().flat_map(Loop::all)).collect()
    }

    /// Its instructions that are not in an inner loop.
    pub fn own<'a>(&'a self, blocks: &'a [Block]) -> impl Iterator<Item = &'a Instruction> {
        let within = move |i: &usize| !self.inner.iter().any(|l| l.blocks.contains(i));
        self.blocks.clone().filter(within).flat_map(move |i| &blocks[i].instructions)
    }
}

/// A number as it is written: `128`, `0x80`, `-1`.
fn number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Registers that an operand names: `v3` is 3 to 3 of `v`, `s[4:7]` 4 to 7 of `s`.
fn registers(operand: &str) -> Option<(char, u32, u32)> {
    let kind = operand.chars().next().filter(|c| "sv".contains(*c))?;
    let rest = &operand[1..];
    match rest.strip_prefix('[').and_then(|r| r.strip_suffix(']')) {
        Some(range) => {
            let (first, last) = range.split_once(':').unwrap_or((range, range));
            Some((kind, first.parse().ok()?, last.parse().ok()?))
        }
        None => rest.parse().ok().map(|n| (kind, n, n)),
    }
}

/// Whether `i` writes `register`.
fn writes(i: &Instruction, register: &str) -> bool {
    let none = ["s_cmp", "v_cmpx", "s_bitcmp", "ds_write", "ds_store"].iter().any(|p| i.name.starts_with(p));
    let holds = match i.kind {
        Kind::Store | Kind::Branch(_) | Kind::Wait(_) | Kind::Barrier | Kind::Hint => false,
        _ => !none,
    };
    let (Some(to), Some(of)) = (i.operands.first().and_then(|o| registers(o)), registers(register)) else {
        return false;
    };
    holds && to.0 == of.0 && to.1 <= of.1 && of.1 <= to.2
}

/// A loop whose trips are counted.
struct Counting<'a> {
    blocks: &'a [Block],
    /// See [`before`].
    before: &'a [Vec<usize>],
    of: &'a Loop,
}

impl<'a> Counting<'a> {
    /// The constant that `operand` is, or holds when the loop begins.
    fn value(&self, operand: &str) -> Option<i64> {
        if let Some(n) = number(operand) {
            return Some(n);
        }
        registers(operand)?;
        // Whatever way the loop is come to, the same constant must have been put there last.
        let mut ways: Vec<usize> = self.before[self.of.blocks.start].clone();
        ways.retain(|b| !self.of.blocks.contains(b));
        let (mut seen, mut found) = (ways.clone(), None);
        while let Some(block) = ways.pop() {
            let Some(set) = self.blocks[block].instructions.iter().rev().find(|i| writes(i, operand)) else {
                let next: Vec<usize> = self.before[block].iter().copied().filter(|b| !seen.contains(b)).collect();
                if self.before[block].is_empty() {
                    return None;
                }
                seen.extend(&next);
                ways.extend(next);
                continue;
            };
            let moves = set.name.contains("mov_b32") || set.name.starts_with("s_movk_i32");
            let value = number(set.operands.get(1).filter(|_| moves && set.operands.len() == 2)?)?;
            // s_movk_i32 extends the sign of 16 bits.
            let value = if set.name.starts_with("s_movk") { i64::from(value as i16) } else { value };
            if *found.get_or_insert(value) != value {
                return None;
            }
        }
        found
    }

    /// The constant that `operand` is all the time.
    fn constant(&self, operand: &str) -> Option<i64> {
        let mut within = self.blocks[self.of.blocks.clone()].iter().flat_map(|b| &b.instructions);
        if within.any(|i| writes(i, operand)) { None } else { self.value(operand) }
    }

    /// The register and the constant of an instruction's last two operands, and whether the register comes first.
    fn mixed(&self, i: &'a Instruction) -> Option<(&'a str, i64, bool)> {
        let [.., a, b] = &i.operands[..] else { return None };
        match (self.constant(a), self.constant(b)) {
            (None, Some(c)) => Some((a, c, true)),
            (Some(c), None) => Some((b, c, false)),
            _ => None,
        }
    }

    /// Registers that grow by a constant.
    fn counters(&self, own: &[&'a Instruction]) -> Vec<Counter<'a>> {
        let adds = own.iter().filter_map(|i| {
            let to = i.operands.first()?.as_str();
            if i.name.starts_with("s_addk_i32") {
                return Some((to, to, number(i.operands.get(1)?)?));
            }
            let known = ["s_add_i32", "s_add_u32", "v_add_nc_u32", "v_add_u32", "v_add_co_u32"];
            // What is written in the loop is no constant, so the other operand must be.
            let (from, step, _) = known.iter().find(|k| i.name.starts_with(**k)).and_then(|_| self.mixed(i))?;
            Some((to, from, step))
        });
        let copied = |to: &str, from: &str| {
            own.iter().any(|i| i.name.contains("mov_b32") && matches!(&i.operands[..], [a, b] if a == to && b == from))
        };
        let counts = adds.filter(|(to, from, step)| *step > 0 && (to == from || copied(from, to)));
        counts.map(|(after, before, step)| Counter { before, after, step }).collect()
    }

    /// Whether the loop goes on where a comparison holds, if the branch that follows ends the loop or begins it again by it.
    fn goes_on(&self, then: &[&Instruction]) -> Option<bool> {
        let taken = ["s_cselect", "s_cmov", "s_addc", "s_subb"];
        let next =
            then.iter().find(|i| matches!(i.kind, Kind::Branch(_)) || taken.iter().any(|t| i.name.starts_with(t)));
        let (Kind::Branch(to), name) = next.map(|i| (i.kind, i.name.as_str()))? else { return None };
        let place = self.blocks.iter().position(|b| b.number == to);
        let again = place == Some(self.of.blocks.start);
        let leaves = place.is_none_or(|p| !self.of.blocks.contains(&p));
        (again || leaves).then_some(again == (name.ends_with("scc1") || name.ends_with("nz")))
    }

    /// How often the loop runs, if a comparison of a counter ends it.
    fn trips(&self) -> Option<f64> {
        let own: Vec<&Instruction> = self.of.own(self.blocks).collect();
        let counters = self.counters(&own);
        own.iter().enumerate().find_map(|(at, i)| {
            let (_, relation) = i.name.split_once("_cmp").filter(|(unit, _)| ["s", "v"].contains(unit))?;
            let relation = relation.trim_start_matches(['k', 'x']).trim_start_matches('_').get(..2)?;
            let goes_on = self.goes_on(&own[at + 1..])?;
            let (register, bound, first) = self.mixed(i)?;
            // A multiple by a power of two may be what is compared.
            let (register, shift) = own.iter().find_map(|s| self.scaled(s, register)).unwrap_or((register, 0));
            let counter = counters.iter().find(|c| c.before == register || c.after == register)?;
            // register < bound, or its opposite; else the bound itself belongs to it.
            let exclusive = match relation {
                "lt" | "ge" => first,
                "gt" | "le" => !first,
                // It goes on while both are equal: once, for the counter counts on.
                "eq" if goes_on => return Some(1.0),
                "ne" | "lg" if !goes_on => return Some(1.0),
                "eq" | "ne" | "lg" => true,
                _ => return None,
            };
            let bound = (bound + i64::from(!exclusive) + (1 << shift) - 1) >> shift;
            let step = counter.step as f64;
            Some(match self.value(counter.before) {
                Some(start) => ((bound - start) as f64 / step).ceil().max(0.0),
                None => (bound as f64 / step).max(0.0),
            })
        })
    }

    /// The register and the shift of which `register` is a multiple by `i`.
    fn scaled(&self, i: &'a Instruction, register: &str) -> Option<(&'a str, u32)> {
        let shift = i.name.starts_with("s_lshl_b32") || i.name.starts_with("v_lshlrev_b32");
        if !shift || i.operands.first().is_none_or(|to| to != register) {
            return None;
        }
        let (from, by, _) = self.mixed(i)?;
        Some((from, u32::try_from(by).ok().filter(|by| *by < 31)?))
    }
}

/// A register that grows by `step`; `after` holds it when it has grown.
struct Counter<'a> {
    before: &'a str,
    after: &'a str,
    step: i64,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::assembly::blocks;

    /// Of an attention kernel for RDNA 2, by Mesa 22.3.6: cells in steps of 32; in each, a loop by threads and one by channels.
    pub(crate) const ATTENTION: &str = "\
BB0:
\ts_movk_i32 s1, 0x80                                          ; b0010080
\ts_buffer_load_dwordx4 s[20:23], s[8:11], 0x14
\ts_movk_i32 s20, 0x800
BB20:
\ts_cmp_ge_u32 s12, s13
\ts_cbranch_scc1 BB64
BB23:
\ts_barrier
\tv_mov_b32_e32 v15, v0
BB24:
\ts_mov_b64 s[18:19], exec
\tv_cmpx_le_u32_e32 s20, v15
BB25:
\ts_andn2_b64 s[18:19], s[18:19], exec
\ts_cbranch_scc0 BB39
BB32:
\tv_cmpx_gt_u32_e32 s13, v18
\ts_cbranch_execz BB35
BB33:
\tbuffer_load_dword v18, v18, s[24:27], 0 offen
\ts_waitcnt vmcnt(0)
BB35:
\tds_write2_b32 v16, v18, v19 offset1:1
\tv_add_nc_u32_e32 v15, s1, v15
\ts_branch BB24
BB39:
\ts_mov_b32 s16, 0
BB40:
\ts_cmp_ge_u32 s16, s1
\ts_cbranch_scc1 BB44
BB43:
\tds_read_b32 v16, v16
\ts_waitcnt lgkmcnt(0)
\tv_fmac_f32_e32 v15, v16, v17
\ts_add_u32 s16, s16, 1
\ts_branch BB40
BB44:
\ts_add_u32 s12, s12, 32
\ts_branch BB20
BB64:
\ts_endpgm
";

    #[test]
    fn loops_are_nested_and_run_as_often_as_constants_say() {
        let all = find(&blocks(ATTENTION));
        let [cells] = &all[..] else { panic!("{all:?}") };
        assert_eq!((cells.blocks.clone(), cells.trips), (1..12, None));
        let inner: Vec<_> = cells.inner.iter().map(|l| (l.blocks.clone(), l.trips)).collect();
        // 2048 by threads of 128, and 128 channels one by one.
        assert_eq!(inner, [(3..8, Some(16.0)), (9..11, Some(128.0))]);
    }

    #[test]
    fn counters_are_compared_in_many_ways() {
        let trips = |before: &str, within: &str| {
            let text = format!("BB0:\n{before}\nBB1:\n{within}\ns_cbranch_scc1 BB1\nBB2:\ns_endpgm\n");
            find(&blocks(&text))[0].trips
        };
        let start = "s_mov_b32 s4, 2";
        assert_eq!(trips(start, "s_cmp_lt_u32 s4, 10\ns_add_u32 s4, s4, 4"), Some(2.0));
        assert_eq!(trips(start, "s_cmp_le_u32 s4, 10\ns_addk_i32 s4, 0x4"), Some(3.0));
        assert_eq!(trips(start, "s_cmp_lg_u32 s4, 10\ns_add_i32 s4, s4, 4"), Some(2.0));
        assert_eq!(trips(start, "s_add_i32 s5, s4, 4\ns_cmp_lt_u32 s5, 10\ns_mov_b32 s4, s5"), Some(2.0));
        // A thread's number at first, then steps of the workgroup: part of the threads runs once more.
        assert_eq!(trips("", "v_cmp_gt_u32_e32 vcc, 0x180, v1\nv_add_u32_e32 v1, 0x100, v1"), Some(1.5));
        // Eight times the counter.
        let eight = "v_lshlrev_b32_e32 v2, 3, v1\nv_cmp_gt_u32_e32 vcc, 0x800, v2\nv_add_co_u32_e32 v1, vcc, 64, v1";
        assert_eq!(trips("", eight), Some(4.0));
        // A bound that is another one on another way.
        let ways = "s_mov_b32 s4, 0\ns_mov_b32 s7, 16\ns_cbranch_vccz BB8\nBB7:\ns_mov_b32 s7, 8\nBB8:\ns_nop 0";
        assert_eq!(trips(ways, "s_add_i32 s4, s4, 1\ns_cmp_lt_u32 s4, s7"), None);
        assert_eq!(trips(&ways.replace("16", "8"), "s_add_i32 s4, s4, 1\ns_cmp_lt_u32 s4, s7"), Some(8.0));
        let other = ways.replace("BB8:", "s_endpgm\nBB8:");
        assert_eq!(trips(&other, "s_add_i32 s4, s4, 1\ns_cmp_lt_u32 s4, s7"), Some(16.0));
        // A comparison that chooses is none that ends the loop.
        let chooses = "s_cmp_lt_i32 s4, 1\ns_cselect_b64 vcc, -1, 0\ns_add_i32 s4, s4, 1\ns_cmp_lg_u32 s4, 4";
        assert_eq!(trips(start, chooses), Some(2.0));
        assert_eq!(trips("s_mov_b32 s4, 0", "s_add_i32 s4, s4, 1\ns_cmp_eq_i32 s4, 0"), Some(1.0));
        // A bound that is loaded, or changes.
        assert_eq!(trips(start, "s_cmp_lt_u32 s4, s7\ns_add_u32 s4, s4, 4"), None);
        let loaded = "s_mov_b32 s7, 8\ns_buffer_load_dwordx4 s[4:7], s[8:11], 0x0";
        assert_eq!(trips(loaded, "s_cmp_lt_u32 s4, s7\ns_add_u32 s4, s4, 4"), None);
        assert_eq!(trips("s_mov_b32 s7, 8", "s_cmp_lt_u32 s4, s7\ns_add_u32 s4, s4, 4\ns_add_u32 s7, s7, 1"), None);
    }
}
