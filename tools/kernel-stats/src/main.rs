//! The command line: see README.md.

use clap::Parser;
use kernel_stats::family::{FAMILIES, Family, radv};
use kernel_stats::measure::{Wanted, child, measure};
use kernel_stats::record::Record;
use kernel_stats::{NO_RADV, compare, recorded, table};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Show what AMD's open GPU compiler (Mesa's RADV) makes of the kernels: registers, waves, instructions. No GPU is needed.
#[derive(Parser)]
#[command(name = "kernel-stats")]
struct Args {
    /// Compile for these families only: rdna2, rdna3, vega
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = family)]
    family: Vec<Family>,
    /// Look at kernels only whose names have all these words
    #[arg(long, value_name = "WORD")]
    filter: Vec<String>,
    /// Print a record for --diff instead of tables
    #[arg(long, conflicts_with_all = ["diff", "loops"])]
    json: bool,
    /// Show what has changed since a record
    #[arg(long, value_name = "FILE", conflicts_with = "loops")]
    diff: Option<PathBuf>,
    /// Show every loop of the kernels
    #[arg(long)]
    loops: bool,
    /// Look at the SPIR-V files of a folder instead (NAME.spv; NAME.json beside it may give specialization, subgroup, macs)
    #[arg(long, value_name = "DIR")]
    peer: Option<PathBuf>,
    /// Write the kernels' assembly to a folder
    #[arg(long, value_name = "DIR")]
    asm: Option<PathBuf>,
    /// Take the RADV that this file names (radeon_icd*.json), instead of the system's
    #[arg(long, value_name = "FILE")]
    icd: Option<PathBuf>,
    /// Write benches/results/kernels-radv.{json,md} anew
    #[arg(long, conflicts_with_all = ["json", "diff", "loops", "peer", "family", "filter"])]
    record: bool,
    /// Be one of the processes that compile: part I of N
    #[arg(long, value_name = "I/N", hide = true, value_parser = part)]
    child: Option<[usize; 2]>,
}

fn family(name: &str) -> Result<Family, String> {
    let names = FAMILIES.map(|f| f.name).join(", ");
    Family::find(name).ok_or(format!("there are {names}"))
}

fn part(text: &str) -> Result<[usize; 2], String> {
    let (part, parts) = text.split_once('/').ok_or("I/N is wanted")?;
    let number = |t: &str| t.parse().map_err(|_| format!("{t} is no number"));
    Ok([number(part)?, number(parts)?.max(1)])
}

fn main() -> ExitCode {
    let args = Args::parse();
    let icd = match (args.child, radv(args.icd.as_deref())) {
        (None, Err(e)) => {
            eprintln!("kernel-stats: {e}");
            return ExitCode::from(NO_RADV);
        }
        (_, icd) => icd.unwrap_or_default(),
    };
    match run(args, &icd) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("kernel-stats: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args, icd: &Path) -> Result<(), String> {
    let wanted = Wanted { filter: args.filter, peer: args.peer, assembly: args.asm, loops: args.loops };
    if let (Some(part), [family]) = (args.child, &args.family[..]) {
        return child(&wanted, *family, part, &mut std::io::stdout());
    }
    if let Some(folder) = wanted.peer.as_deref().filter(|folder| !folder.is_dir()) {
        return Err(format!("{}: there is no such folder of SPIR-V files", folder.display()));
    }
    let old = args.diff.as_deref().map(read).transpose()?;
    let families = if args.family.is_empty() { FAMILIES.to_vec() } else { args.family };
    let exe = std::env::current_exe().map_err(|e| format!("where this program lies is not known: {e}"))?;
    let found = measure(&exe, icd, &families, &wanted)?;
    let record = &found.record;
    match old {
        _ if args.record => {
            if !found.problems.is_empty() {
                return Err(format!("not recorded:\n  {}", found.problems.join("\n  ")));
            }
            let json = record.to_json();
            write(&recorded("json"), &json)?;
            // Of what is kept, whose figures are rounded.
            write(&recorded("md"), &table::page(&Record::parse(&json)?))?;
            println!("{} kernels recorded, {}", record.entries.len(), record.driver);
        }
        Some(old) => print!("{}", compare::diff(&old, record, |name| wanted.takes(name))),
        None if args.json => print!("{}", record.to_json()),
        None if args.loops => {
            for (name, loops) in &found.loops {
                println!("{name}");
                loops.iter().for_each(|line| println!("  {line}"));
            }
        }
        None => print!("# {}\n\n{}", record.driver, table::markdown(record)),
    }
    match &found.problems[..] {
        [] if record.entries.is_empty() => Err("no kernel's name has these words".into()),
        [] => Ok(()),
        some => Err(format!("{} kernels are wrong:\n  {}", some.len(), some.join("\n  "))),
    }
}

fn read(path: &Path) -> Result<Record, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Record::parse(&text).map_err(|e| format!("{}: {e}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
