//! Figures as Markdown.

use crate::count::loads;
use crate::record::{Entry, Record, Row};
use std::fmt::Write;

/// Digits that matter: rates below ten have two behind the point.
pub fn short(v: f64) -> String {
    let digits = if v == v.round() || v >= 100.0 { 0 } else { 2 };
    format!("{v:.digits$}")
}

/// All tables, a section for each group.
pub fn markdown(record: &Record) -> String {
    let mut out = String::new();
    let mut groups: Vec<&str> = Vec::new();
    for entry in &record.entries {
        if !groups.contains(&entry.group.as_str()) {
            groups.push(&entry.group);
        }
    }
    for group in groups {
        writeln!(out, "## {group}\n").expect("a string takes any text");
        out.push_str("| kernel | on | VGPRs | waves | LDS B | MACs | vector | scalar | memory | LDS | loads × B | first | in flight | round trips | branches |\n");
        out.push_str("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
        for (name, entries) in kernels(record, group) {
            for (i, e) in entries.iter().enumerate() {
                line(&mut out, if i == 0 { &name } else { "" }, e);
            }
        }
        out.push('\n');
    }
    out
}

/// A group's kernels with their families. A kernel of 2048² stands with that of 4096² where it is the same.
fn kernels<'a>(record: &'a Record, group: &str) -> Vec<(String, Vec<&'a Entry>)> {
    let mut all: Vec<(String, Vec<&Entry>)> = Vec::new();
    for entry in record.entries.iter().filter(|e| e.group == group) {
        match all.iter_mut().find(|(name, _)| *name == entry.name) {
            Some((_, entries)) => entries.push(entry),
            None => all.push((entry.name.clone(), vec![entry])),
        }
    }
    let figures = |entries: &[&Entry]| entries.iter().map(|e| (e.family.clone(), e.row)).collect::<Vec<_>>();
    let small: Vec<(String, Vec<(String, Row)>)> =
        all.iter().filter(|(n, _)| n.contains(SMALL)).map(|(n, e)| (n.replace(SMALL, LARGE), figures(e))).collect();
    let same = |name: &str, entries: &[&Entry]| small.iter().any(|(n, f)| n == name && *f == figures(entries));
    let merged: Vec<String> = all.iter().filter(|(n, e)| same(n, e)).map(|(n, _)| n.clone()).collect();
    all.retain(|(name, _)| !(name.contains(SMALL) && merged.contains(&name.replace(SMALL, LARGE))));
    for (name, _) in &mut all {
        if merged.contains(name) {
            *name = name.replace(LARGE, "4096x4096, 2048x2048");
        }
    }
    all
}

const SMALL: &str = "2048x2048";
const LARGE: &str = "4096x4096";

fn line(out: &mut String, name: &str, entry: &Entry) {
    let r = &entry.row;
    let each = |v: f64| short(v / r.per());
    let macs = if r.macs > 0.0 { short(r.macs) } else { "–".into() };
    let loads = loads(r).replace("none", "–");
    let count: f64 = r.loads().iter().map(|l| l.1).sum();
    writeln!(
        out,
        "| {name} | {} | {} | {} | {} | {macs} | {} | {} | {} | {} | {loads} | {} | {} of {} B | {} | {} |",
        entry.family,
        short(r.vgprs),
        short(r.waves),
        short(r.lds),
        each(r.vector),
        each(r.scalar + r.smem),
        each(count + r.stores),
        each(r.local),
        short(r.first),
        short(r.flight),
        short(r.flight_bytes),
        short(r.round_trips),
        short(r.branches),
    )
    .expect("a string takes any text");
}

/// The page that is kept: its head, and the tables.
pub fn page(record: &Record) -> String {
    let spilled = record.entries.iter().filter(|e| e.row.spills > 0.0 || e.row.scratch > 0.0);
    let spilled: Vec<String> = spilled
        .map(|e| format!("{} ({}: {} registers, {} B)", e.name, e.family, short(e.row.spills), short(e.row.scratch)))
        .collect();
    let spilled = if spilled.is_empty() { "none".into() } else { spilled.join(", ") };
    let threads = |e: &Entry| short(e.row.subgroup);
    let mut sizes: Vec<String> = record.entries.iter().map(threads).collect();
    sizes.sort();
    sizes.dedup();
    format!(
        "# Kernels as RADV compiles them, {}\n\n\
         Made by `{COMMAND}`; tools/kernel-stats/README.md says what the columns mean. No GPU was there: this is what Mesa's compiler\n\
         emits, not how long it takes. Counts are of one thread: per multiplication and addition (MAC) of a step of the main loop where the\n\
         shader says how many a step has, of the whole kernel elsewhere.\n\n\
         Threads of a subgroup: {}. Spilled registers and scratch memory: {spilled}.\n\n{}",
        record.driver,
        sizes.join(" or "),
        markdown(record).trim_end().to_owned() + "\n"
    )
}

/// What records anew.
pub const COMMAND: &str = "cargo run -p kernel-stats -- --record";
