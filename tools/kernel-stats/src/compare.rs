//! Two records beside each other: what has changed, and what must not.

use crate::record::{Record, Row};
use crate::table::{COMMAND, short};
use std::fmt::Write;

/// How much more vector instructions per multiplication and addition may become, and how much less without being recorded.
const SLACK: f64 = 1.03;

/// A figure that is shown if it has changed.
struct Figure {
    name: &'static str,
    of: fn(&Row) -> f64,
}

const FIGURES: [Figure; 9] = [
    Figure { name: "VGPRs", of: |r| r.vgprs },
    Figure { name: "waves", of: |r| r.waves },
    Figure { name: "vector", of: Row::vector_rate },
    Figure { name: "all", of: |r| r.all / r.per() },
    Figure { name: "LDS", of: |r| r.local / r.per() },
    Figure { name: "in flight", of: |r| r.flight },
    Figure { name: "B in flight", of: |r| r.flight_bytes },
    Figure { name: "round trips", of: |r| r.round_trips / r.per() },
    Figure { name: "branches", of: |r| r.branches / r.per() },
];

/// What has changed from `old` to `new`, as Markdown. `wanted` says which names of `old` the new record would have.
pub fn diff(old: &Record, new: &Record, wanted: impl Fn(&str) -> bool) -> String {
    let mut out = format!("# From {} to {}\n", old.driver, new.driver);
    let heads = FIGURES.iter().map(|f| f.name).collect::<Vec<_>>().join(" | ");
    let (mut same, mut added, mut rows) = (0, Vec::new(), String::new());
    for e in &new.entries {
        let title = format!("{} ({})", e.name, e.family);
        let Some(before) = old.row(&e.family, &e.name) else {
            added.push(title);
            continue;
        };
        let cells = FIGURES.map(|f| match (short((f.of)(before)), short((f.of)(&e.row))) {
            (a, b) if a == b => String::new(),
            (a, b) => format!("{a} → {b}"),
        });
        match cells.iter().all(String::is_empty) {
            true => same += 1,
            false => writeln!(rows, "| {} | {} | {} |", e.name, e.family, cells.join(" | ")).expect("a string"),
        }
    }
    if !rows.is_empty() {
        write!(out, "\n| kernel | on | {heads} |\n|---|---|{}\n{rows}", "---|".repeat(FIGURES.len()))
            .expect("a string");
    }
    let families = new.families();
    let gone = (old.entries.iter()).filter(|e| families.contains(&e.family.as_str()) && wanted(&e.name));
    let gone = gone.filter(|e| new.row(&e.family, &e.name).is_none());
    let gone: Vec<String> = gone.map(|e| format!("{} ({})", e.name, e.family)).collect();
    writeln!(out, "\nUnchanged: {same}.").expect("a string");
    for (what, list) in [("New", added), ("Gone", gone)] {
        if !list.is_empty() {
            writeln!(out, "{what}: {}.", list.join(", ")).expect("a string");
        }
    }
    out
}

/// What is worse than recorded, and what is better and so wants to be recorded. Empty where all is as it was.
pub fn held(recorded: &Record, now: &Record) -> Vec<String> {
    let mut all = Vec::new();
    let mut better = 0;
    for e in &now.entries {
        let title = format!("{} ({})", e.name, e.family);
        let Some(before) = recorded.row(&e.family, &e.name) else {
            all.push(format!("{title} is new: record it"));
            continue;
        };
        let row = &e.row;
        let rate = (before.vector_rate(), row.vector_rate());
        let mut say = |what: &str, (a, b): (f64, f64), worse: bool, improved: bool| {
            if worse {
                all.push(format!("{title}: {what} {} → {}", short(a), short(b)));
            } else if improved {
                better += 1;
                all.push(format!("{title}: {what} {} → {}, better than recorded: record it", short(a), short(b)));
            }
        };
        say("waves", (before.waves, row.waves), row.waves < before.waves, row.waves > before.waves);
        let what = if row.macs > 0.0 { "vector instructions per MAC" } else { "vector instructions" };
        say(what, rate, rate.1 > rate.0 * SLACK, rate.1 * SLACK < rate.0);
        say("loads in flight", (before.flight, row.flight), row.flight < before.flight, row.flight > before.flight);
    }
    for e in &recorded.entries {
        if now.row(&e.family, &e.name).is_none() {
            all.push(format!("{} ({}) is gone: record it", e.name, e.family));
        }
    }
    if !all.is_empty() {
        let how = if better > 0 { "What is better is recorded by" } else { "What is meant to change is recorded by" };
        all.push(format!("{how} `{COMMAND}`; what has changed, by `… -- --diff benches/results/kernels-radv.json`"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Entry;

    fn record(rows: &[(&str, Row)]) -> Record {
        let entry = |(name, row): &(&str, Row)| Entry {
            family: "rdna2".into(),
            group: "A".into(),
            name: (*name).into(),
            row: *row,
        };
        Record { driver: "Mesa 22.3.6".into(), entries: rows.iter().map(entry).collect() }
    }

    const ROW: Row = Row { macs: 32.0, vector: 100.0, waves: 10.0, flight: 8.0, ..Row::ZERO };

    #[test]
    fn worse_figures_are_told_and_better_ones_are_to_be_recorded() {
        let old = record(&[("a", ROW)]);
        assert_eq!(held(&old, &old), [""; 0]);
        let check = |row: Row| held(&old, &record(&[("a", row)]));
        assert_eq!(check(Row { vector: 103.0, ..ROW }), [""; 0]);
        assert_eq!(check(Row { vector: 104.0, ..ROW })[0], "a (rdna2): vector instructions per MAC 3.12 → 3.25");
        assert_eq!(check(Row { waves: 9.0, ..ROW })[0], "a (rdna2): waves 10 → 9");
        assert_eq!(check(Row { flight: 7.0, ..ROW })[0], "a (rdna2): loads in flight 8 → 7");
        let better = check(Row { vector: 50.0, waves: 12.0, ..ROW });
        assert_eq!(better[0], "a (rdna2): waves 10 → 12, better than recorded: record it");
        assert!(better[1].ends_with("3.12 → 1.56, better than recorded: record it"));
        assert!(better[2].contains(COMMAND));
        // Twice as much in a step that computes twice as much is the same.
        assert_eq!(check(Row { macs: 64.0, vector: 200.0, ..ROW }), [""; 0]);
    }

    #[test]
    fn kernels_that_come_and_go_are_to_be_recorded() {
        let all = held(&record(&[("a", ROW), ("b", ROW)]), &record(&[("a", ROW), ("c", ROW)]));
        assert_eq!(all[..2], ["c (rdna2) is new: record it", "b (rdna2) is gone: record it"]);
    }

    #[test]
    fn a_diff_shows_what_has_changed_alone() {
        let old = record(&[("a", ROW), ("b", ROW), ("c", ROW)]);
        let new = record(&[("a", Row { vector: 64.0, ..ROW }), ("b", ROW), ("d", ROW)]);
        let text = diff(&old, &new, |_| true);
        assert!(text.contains("| a | rdna2 |  |  | 3.12 → 2 |  |  |  |  |  |  |\n"), "{text}");
        assert!(text.contains("Unchanged: 1.\nNew: d (rdna2).\nGone: c (rdna2).\n"), "{text}");
        assert!(!diff(&old, &new, |name| name != "c").contains("Gone"), "what was not looked at is not gone");
        assert!(!diff(&old, &old, |_| true).contains('|'), "a table without rows says nothing");
    }
}
