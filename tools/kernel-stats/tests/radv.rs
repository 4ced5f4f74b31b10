//! The kernels under a real GPU compiler: nothing spills, loops that load do not branch, and nothing is worse than recorded.

use kernel_stats::NO_RADV;
use kernel_stats::compare::held;
use kernel_stats::record::{Record, Row};
use kernel_stats::{recorded, table};
use std::process::Command;
use std::sync::OnceLock;

/// What is not as it should be today, and why. A line whose kernels are mended has to go.
const KNOWN: &[Known] = &[];

struct Known {
    /// What its kernels' names begin with.
    shader: &'static str,
    /// What is wrong with them, of [`RULES`].
    rule: &'static str,
    /// Why it is so.
    why: &'static str,
}

struct Rule {
    name: &'static str,
    breaks: fn(&Row) -> bool,
}

const RULES: [Rule; 4] = [
    Rule { name: "spills registers", breaks: |r| r.spills > 0.0 },
    Rule { name: "takes scratch memory", breaks: |r| r.scratch > 0.0 },
    Rule { name: "branches in a loop that loads", breaks: |r| r.load_branches > 0.0 },
    Rule { name: "loads in a loop that runs once", breaks: |r| r.single_loops > 0.0 },
];

/// All kernels' figures, compiled once. Without RADV, says that `test` was skipped, or fails where `WGPU_LLM_RADV=require`.
fn now(test: &str) -> Option<&'static Record> {
    static FOUND: OnceLock<Result<Record, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let run = Command::new(env!("CARGO_BIN_EXE_kernel-stats")).arg("--json").output().expect("it is built");
        let complaints = String::from_utf8_lossy(&run.stderr).trim().to_owned();
        match run.status.code() {
            Some(0) => Ok(Record::parse(&String::from_utf8_lossy(&run.stdout)).expect("a record")),
            Some(code) if code == i32::from(NO_RADV) => Err(complaints),
            _ => panic!("{complaints}"),
        }
    });
    match found {
        Ok(record) => Some(record),
        Err(e) => {
            let why = format!("{test}: SKIPPED, {e}");
            assert!(std::env::var_os("WGPU_LLM_RADV").is_none_or(|v| v != "require"), "{why}");
            eprintln!("{why}");
            None
        }
    }
}

fn kept() -> Record {
    Record::parse(&std::fs::read_to_string(recorded("json")).expect("it is in the repository")).expect("a record")
}

#[test]
fn no_kernel_spills_and_no_loop_that_loads_branches() {
    let Some(now) = now("no_kernel_spills_and_no_loop_that_loads_branches") else { return };
    let (mut wrong, mut used) = (Vec::new(), vec![false; KNOWN.len()]);
    for entry in &now.entries {
        for rule in RULES.iter().filter(|rule| (rule.breaks)(&entry.row)) {
            let is = |k: &Known| k.rule == rule.name && entry.name.split(' ').next() == Some(k.shader);
            match KNOWN.iter().position(is) {
                Some(known) => used[known] = true,
                None => wrong.push(format!("{} ({}) {}", entry.name, entry.family, rule.name)),
            }
        }
    }
    assert!(wrong.is_empty(), "{} kernels:\n  {}", wrong.len(), wrong.join("\n  "));
    let mended = KNOWN.iter().zip(used).filter(|(_, used)| !used);
    let mended: Vec<String> = mended.map(|(k, _)| format!("{} {} ({})", k.shader, k.rule, k.why)).collect();
    assert!(mended.is_empty(), "no longer so, take it out of KNOWN:\n  {}", mended.join("\n  "));
}

#[test]
fn no_kernel_is_worse_than_recorded() {
    let Some(now) = now("no_kernel_is_worse_than_recorded") else { return };
    let recorded = kept();
    if recorded.driver != now.driver {
        let (then, here) = (&recorded.driver, &now.driver);
        eprintln!("no_kernel_is_worse_than_recorded: SKIPPED, recorded with {then}, and here is {here}");
        return;
    }
    let problems = held(&recorded, now);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_table_shows_what_is_recorded() {
    let page = std::fs::read_to_string(recorded("md")).expect("it is in the repository");
    assert!(page == table::page(&kept()), "kernels-radv.md is not of kernels-radv.json: `{}`", table::COMMAND);
}
