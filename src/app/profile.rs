//! `profile`: runs a model and shows where the time goes, or shows traces that were saved.

use super::complete::{self, CompleteArgs};
use super::{load, term, window};
use crate::base::{Error, Result};
use crate::profile::Profile;
use crate::profile::statistics::{Group, Phase, Total, tokens, totals};
use clap::Args;
use std::path::PathBuf;

/// Arguments of `profile`.
#[derive(Debug, Args)]
pub struct ProfileArgs {
    /// Traces that --trace wrote, to look at instead of running a model: one, or two to compare.
    #[arg(value_name = "TRACE", num_args = 0..=2)]
    traces: Vec<PathBuf>,
    /// Print the slowest kernels and open no window.
    #[arg(long, env = "WGPU_LLM_NO_WINDOW")]
    no_window: bool,
    #[command(flatten)]
    complete: CompleteArgs,
}

/// Kernels in the table.
const ROWS: usize = 12;

/// Shows, and prints the slowest kernels.
pub fn run(args: &ProfileArgs) -> Result<()> {
    if !args.traces.is_empty() {
        return traces(args);
    }
    // Before anything is loaded: without a text there is nothing to run.
    let text = args.complete.text.read()?;
    let mut session = load::session(&args.complete.engine)?;
    let window = if args.no_window { None } else { Some(load::watch(&mut session)?) };
    if window.is_none() {
        load::trace(&mut session)?;
    }
    let done = complete::go_on(&args.complete, &text, &mut session);
    if let Err(e) = load::finish(&args.complete.engine, &mut session, done) {
        // The window keeps what there is: the records' sender goes with the session.
        drop(session);
        window.into_iter().for_each(|mut window| window.finish());
        return Err(e);
    }
    let profile = session.engine().trace()?.cloned().unwrap_or_default();
    term::print(table(&profile))?;
    session.engine().set_trace(false)?;
    window.map_or(Ok(()), |window| {
        term::clear_interrupt();
        term::note("close the window to leave");
        window.wait()
    })
}

fn traces(args: &ProfileArgs) -> Result<()> {
    if !args.no_window {
        return window::files(&args.traces);
    }
    for path in &args.traces {
        let text =
            std::fs::read_to_string(path).map_err(|e| Error::io("can't read the trace", e).at(path.display()))?;
        let json = serde_json::from_str(&text)
            .map_err(|e| Error::format("this is no JSON").because(e).help("name a file that --trace wrote"));
        let profile =
            json.and_then(|json| crate::profile::chrome::from_json(&json)).map_err(|e| e.at(path.display()))?;
        term::print(table(&profile))?;
    }
    Ok(())
}

/// The kernels that take most of the time, of answers and of prompts.
fn table(profile: &Profile) -> String {
    let mut out = String::new();
    for device in profile.facts.devices.iter().filter(|d| !d.timing.is_empty()) {
        out += &format!("{} has no clock of its own; its times are of {}\n", device.name, device.timing);
    }
    for (name, phase) in [("prompt", Phase::Prompt), ("answer", Phase::Answer)] {
        let t = tokens(profile, phase);
        if t.runs == 0 {
            continue;
        }
        let ms = |ns: f64| format!("{:.2} ms", ns / 1e6);
        out += &format!(
            "{name}: {} tokens at {:.1} t/s; a batch takes {} on the GPU, {} on the CPU, {} to submit, {} of waiting\n",
            t.tokens,
            t.rate(),
            ms(t.gpu),
            ms(t.cpu),
            ms(t.submit),
            ms(t.wait)
        );
        let heads = ["KERNEL", "RUNS", "TIME", "MEAN", "P95", "GB/s", "GFLOP/s", "ROOFLINE"];
        let mut rows = vec![heads.map(String::from).to_vec()];
        rows.extend(totals(profile, Group::Kernel, phase).iter().take(ROWS).map(row));
        out += &term::table(&rows);
        out.push('\n');
    }
    out
}

fn row(t: &Total) -> Vec<String> {
    let us = |ns: f64| format!("{:.1} µs", ns / 1e3);
    vec![
        t.name.clone(),
        t.count.to_string(),
        format!("{:.1} %", 100.0 * t.fraction),
        us(t.mean()),
        us(t.p95 as f64),
        format!("{:.1}", t.rate() / 1e9),
        format!("{:.1}", t.flop_rate() / 1e9),
        t.of_peak.map_or("?".into(), |p| format!("{:.0} %", 100.0 * p)),
    ]
}
