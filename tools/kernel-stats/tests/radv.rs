//! The kernels under a real GPU compiler: nothing spills, loops that load do not branch, and nothing is worse than recorded.

use kernel_stats::compare::held;
use kernel_stats::device::Info;
use kernel_stats::record::{Record, Row};
use kernel_stats::spirv::module;
use kernel_stats::{NO_RADV, recorded, table};
use std::process::Command;
use std::sync::OnceLock;
use wgpu_llm::low_level::base::Meta;
use wgpu_llm::low_level::ops::{Add, Caps, Op};

/// What is not as it should be today, and why. A line whose kernels are mended has to go.
const KNOWN: &[Known] = &[
    Known {
        shader: "matmul_tile",
        rule: "branches in a loop that loads",
        most: 3.0,
        why: "zeros past k are a branch around the loads of x; with 32 tokens, half of the threads have none to put into the tile",
    },
    Known {
        shader: "attention",
        rule: "branches in a loop that loads",
        most: 2.0,
        why: "the soft cap is a parameter; threads without a share of the values load none",
    },
    Known {
        shader: "matmul_vec",
        rule: "branches in a loop that loads",
        most: 8.0,
        why: "in bytes, blocks with outliers are multiplied twice: one branch for each token",
    },
    Known {
        shader: "quantize",
        rule: "branches in a loop that loads",
        most: 1.0,
        why: "what rounding leaves of a block with outliers is stored for these alone",
    },
    Known {
        shader: "matmul_tile_int8",
        rule: "spills registers",
        most: 174.0,
        why: "on RDNA3 with Mesa 22 alone, which has fewer registers for 64 sums than Mesa 25: that one spills none",
    },
    Known { shader: "matmul_tile_int8", rule: "takes scratch memory", most: 13312.0, why: "for what is spilled" },
];

struct Known {
    /// What its kernels' names begin with.
    shader: &'static str,
    /// What is wrong with them, of [`RULES`].
    rule: &'static str,
    /// How much of it there is at the most.
    most: f64,
    /// Why it is so.
    why: &'static str,
}

struct Rule {
    name: &'static str,
    /// How often it is broken.
    broken: fn(&Row) -> f64,
}

const RULES: [Rule; 4] = [
    Rule { name: "spills registers", broken: |r| r.spills },
    Rule { name: "takes scratch memory", broken: |r| r.scratch },
    Rule { name: "branches in a loop that loads", broken: |r| r.load_branches },
    Rule { name: "loads in a loop that runs once", broken: |r| r.single_loops },
];

/// All kernels' figures, compiled once. Without RADV, says that `test` was skipped, or fails if `WGPU_LLM_RADV=require`.
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
        for (rule, count) in
            RULES.iter().map(|rule| (rule, (rule.broken)(&entry.row))).filter(|(_, count)| *count > 0.0)
        {
            let shader = entry.name.split(' ').next();
            let is = |k: &Known| k.rule == rule.name && shader == Some(k.shader) && count <= k.most;
            match KNOWN.iter().position(is) {
                Some(known) => used[known] = true,
                None => wrong.push(format!("{} ({}) {}: {count}", entry.name, entry.family, rule.name)),
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

/// Others' kernels are compiled as ours are: one of ours, written to a file, gives what the same kernel gives.
#[test]
fn files_of_others_are_compiled_as_ours_are() {
    let Some(now) = now("files_of_others_are_compiled_as_ours_are") else { return };
    let x = Meta::f32([1, 4096]);
    let pass = Add { scale: 1.0 }.gpu(&[x, x], &x, &Caps::BASELINE).remove(0).passes.remove(0);
    let info =
        Info { name: String::new(), driver: String::new(), radv: true, caps: Caps::BASELINE, dot: false, int8: false };
    let words = module(&pass, &info).expect("a module").words;
    let folder = tempfile::tempdir().expect("a folder");
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    std::fs::write(folder.path().join("add.spv"), bytes).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kernel-stats"));
    let run =
        command.args(["--json", "--family", "vega,rdna2", "--peer"]).arg(folder.path()).output().expect("it runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let others = Record::parse(&String::from_utf8_lossy(&run.stdout)).expect("a record");
    assert_eq!(others.families(), ["vega", "rdna2"]);
    for family in others.families() {
        assert_eq!(others.row(family, "add"), now.row(family, "add 4096 plain"), "{family}");
    }
}

#[test]
fn without_a_driver_it_is_said_what_is_missing() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kernel-stats"));
    let run = command.args(["--icd", "/nowhere/radeon_icd.json"]).output().expect("it runs");
    assert_eq!(run.status.code(), Some(NO_RADV.into()));
    assert_eq!(String::from_utf8_lossy(&run.stderr), "kernel-stats: there is no /nowhere/radeon_icd.json\n");
}
