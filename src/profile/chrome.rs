//! A profile as a trace that `chrome://tracing` and Perfetto open, and back. Holds op names and shapes, never text.
//!
//! Tracks: one per device with its kernels, and the host's with what a token waits for; counters of memory and of tokens per
//! second. What viewers do not show lies beside them under `wgpu_llm`, so that the file is the whole profile.

use super::record::{Event, Facts, KernelFacts, Observer, Profile, Record, Run, VERSION};
use crate::base::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::io::{self, Write};

/// The whole of a profile but its events.
#[derive(Serialize, Deserialize)]
struct Rest<'p> {
    version: u32,
    facts: Cow<'p, Facts>,
    kernels: Cow<'p, [KernelFacts]>,
    runs: Cow<'p, [Run]>,
}

impl<'p> Rest<'p> {
    fn of(profile: &'p Profile) -> Rest<'p> {
        let Profile { facts, kernels, runs, .. } = profile;
        Rest { version: VERSION, facts: Cow::Borrowed(facts), kernels: kernels.into(), runs: runs.into() }
    }
}

/// The category of events that are kernels.
const KERNEL: &str = "kernel";
/// The host's track; devices have their index and one more.
const HOST: usize = 0;

fn microseconds(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

/// Takes an event of a trace.
type Sink<'s> = &'s mut dyn FnMut(Value) -> io::Result<()>;

/// Writes the profile as Chrome's JSON, with times in microseconds. Event by event: a long session has a million, and all of them as
/// values take a gigabyte. Wants a writer that gathers small pieces (`BufWriter`), and empties it.
pub fn write(profile: &Profile, mut out: impl Write) -> io::Result<()> {
    out.write_all(b"{\"traceEvents\":[")?;
    let mut first = true;
    each(profile, &mut |event| {
        if !std::mem::take(&mut first) {
            out.write_all(b",\n")?;
        }
        Ok(serde_json::to_writer(&mut out, &event)?)
    })?;
    out.write_all(b"],\"displayTimeUnit\":\"ns\",\"wgpu_llm\":")?;
    serde_json::to_writer(&mut out, &Rest::of(profile))?;
    out.write_all(b"}\n")?;
    out.flush()
}

/// All events of the trace, one after the other.
fn each(profile: &Profile, sink: Sink) -> io::Result<()> {
    let track = |tid: usize, name: &str| json!({"ph": "M", "pid": 1, "tid": tid, "name": "thread_name", "args": {"name": name}});
    sink(track(HOST, "host"))?;
    for (i, device) in profile.facts.devices.iter().enumerate() {
        sink(track(i + 1, &device.kind))?;
    }
    for e in &profile.events {
        sink(event(profile, e))?;
    }
    for (i, run) in profile.runs.iter().enumerate() {
        host(run, sink)?;
        counters(profile, i, sink)?;
    }
    Ok(())
}

fn event(profile: &Profile, e: &Event) -> Value {
    let kernel = profile.kernel(e);
    json!({
        "ph": "X", "pid": 1, "tid": kernel.device + 1, "name": format!("{} {}", kernel.op, kernel.label), "cat": KERNEL,
        "ts": microseconds(e.start), "dur": microseconds(e.length),
        "args": {
            "variant": kernel.variant, "shader": kernel.shader, "layer": kernel.layer, "kernel": e.kernel, "run": e.run,
            "bytes": e.bytes, "flops": e.flops,
        },
    })
}

/// What the host did for a run.
fn host(run: &Run, sink: Sink) -> io::Result<()> {
    let read = run.end.saturating_sub(run.readback);
    let slices = [
        ("submit", run.start, run.submit),
        ("wait", read.saturating_sub(run.wait), run.wait),
        ("readback", read, run.readback),
    ];
    for (name, start, length) in slices.into_iter().filter(|(.., length)| *length > 0) {
        sink(json!({
            "ph": "X", "pid": 1, "tid": HOST, "name": name, "cat": "host",
            "ts": microseconds(start), "dur": microseconds(length), "args": {"run": run.run, "tokens": run.tokens},
        }))?;
    }
    Ok(())
}

fn counters(profile: &Profile, i: usize, sink: Sink) -> io::Result<()> {
    let run = &profile.runs[i];
    let mut counter = |at: u64, name: &str, args: Value| {
        sink(json!({"ph": "C", "pid": 1, "name": name, "ts": microseconds(at), "args": args}))
    };
    for m in &run.memory {
        let name = format!("memory of the {}", profile.device(m.device).kind);
        counter(run.start, &name, json!({"weights": m.weights, "cache": m.cache, "other": m.other}))?;
    }
    match profile.token_time(i) {
        Some(time) => counter(run.end, "tokens per second", json!({"tokens": 1e9 / time as f64})),
        None => Ok(()),
    }
}

/// The profile that [`write()`] wrote.
pub fn from_json(trace: &Value) -> Result<Profile> {
    let rest = trace.get("wgpu_llm").ok_or_else(|| {
        Error::format("this is no trace of wgpu-llm").help("write one with --trace FILE, or with `wgpu-llm profile`")
    })?;
    let version = rest["version"].as_u64().unwrap_or(0);
    if version != u64::from(VERSION) {
        let what = format!("a trace of version {version}; this program reads {VERSION}");
        return Err(Error::unsupported(what).help("open it with the wgpu-llm that wrote it"));
    }
    let damaged = |e: serde_json::Error| Error::format("the trace is damaged").because(e);
    let Rest { facts, kernels, runs, .. } = Rest::deserialize(rest).map_err(damaged)?;
    let mut runs = runs.into_owned();
    let list = trace["traceEvents"].as_array().map_or(&[][..], Vec::as_slice);
    let mut events = Vec::with_capacity(list.len());
    for e in list.iter().filter(|e| e["cat"] == KERNEL) {
        let (args, ns) = (&e["args"], |v: &Value| (v.as_f64().unwrap_or(0.0) * 1000.0).round() as u64);
        let index = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let (Some(kernel), Some(run)) = (index(&args["kernel"]), index(&args["run"])) else {
            return Err(Error::format("the trace is damaged: an event without its kernel"));
        };
        let number = |v: &Value| v.as_f64().unwrap_or(0.0);
        let (bytes, flops) = (number(&args["bytes"]), number(&args["flops"]));
        events.push(Event { kernel, run, start: ns(&e["ts"]), length: ns(&e["dur"]), bytes, flops });
    }
    // Of a file in bad hands neither order nor references are sure.
    events.sort_by_key(|e| e.run);
    runs.sort_by_key(|r| r.run);
    let (facts, kernels) = (facts.into_owned(), kernels.into_owned());
    let mut profile = Profile { facts, kernels, runs: Vec::new(), events: Vec::new() };
    profile.observe(&Record::Run(Run::default(), events));
    profile.runs = runs;
    Ok(profile)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::record::DeviceFacts;
    use super::*;
    use crate::plan::MemoryUse;

    pub fn profile() -> Profile {
        let device = |kind: &str| DeviceFacts { kind: kind.into(), ..DeviceFacts::default() };
        let facts = Facts { devices: vec![device("CPU"), device("GPU")], ..Facts::default() };
        let kernel = |device, op: &str| KernelFacts {
            device,
            op: op.into(),
            label: "x".into(),
            tokens: 1,
            ..KernelFacts::default()
        };
        let event = |kernel, run, start| Event { kernel, run, start, length: 1_234_567, bytes: 3.0, flops: 0.5 };
        let memory = vec![MemoryUse { device: 1, weights: 10, cache: 20, other: 5 }];
        let run = |run: u32, end, memory| Run {
            run,
            tokens: 1,
            past: run as usize,
            end,
            submit: 5,
            wait: 7,
            memory,
            ..Run::default()
        };
        Profile {
            facts,
            kernels: vec![kernel(0, "add"), kernel(1, "matmul")],
            runs: vec![run(0, 1_000_000, memory), run(1, 3_000_000, Vec::new())],
            events: vec![event(0, 0, 0), event(1, 0, 1_234_567), event(1, 1, 9_876_543_210)],
        }
    }

    fn written(profile: &Profile) -> Value {
        let mut bytes = Vec::new();
        write(profile, &mut bytes).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn a_trace_is_the_whole_profile() {
        let profile = profile();
        assert_eq!(from_json(&written(&profile)).unwrap(), profile);
        assert_eq!(from_json(&written(&Profile::default())).unwrap(), Profile::default());
    }

    #[test]
    fn a_disk_that_is_full_is_told() {
        let mut little = [0; 200];
        let error = write(&profile(), &mut little[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }

    #[test]
    fn viewers_find_tracks_slices_and_counters() {
        let trace = written(&profile());
        let of = |ph: &str| trace["traceEvents"].as_array().unwrap().iter().filter(|e| e["ph"] == ph).count();
        assert_eq!((of("M"), of("X"), of("C")), (3, 3 + 4, 2));
        let second = |e: &&Value| e["name"] == "tokens per second";
        let counter = trace["traceEvents"].as_array().unwrap().iter().find(second).unwrap();
        assert_eq!(counter["args"]["tokens"], 500.0);
    }

    #[test]
    fn other_files_are_refused_in_words() {
        let error = |v: Value| from_json(&v).unwrap_err().to_string();
        assert!(error(json!({"traceEvents": []})).contains("no trace of wgpu-llm"));
        assert!(error(json!({"wgpu_llm": {"version": 99}})).contains("version 99"));
        assert!(error(json!({"wgpu_llm": {"version": 1}})).contains("damaged"));
        let mut trace = written(&profile());
        trace["traceEvents"][3]["args"]["kernel"] = 77.into();
        assert_eq!(from_json(&trace).unwrap().events.len(), 2, "what points nowhere is left out");
    }
}
