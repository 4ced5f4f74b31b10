//! What ran when, as a trace that `chrome://tracing` and Perfetto open. Holds op names and shapes, never text.

use crate::graph::{Graph, Node};
use crate::{cpu, gpu};
use serde_json::{Value, json};
use std::time::Instant;

/// Events of all runs so far.
pub struct Trace {
    begin: Instant,
    events: Vec<Value>,
}

const CPU_TRACK: u32 = 1;
const GPU_TRACK: u32 = 2;

impl Default for Trace {
    fn default() -> Self {
        let name = |track: u32, name: &str| json!({"ph": "M", "pid": 1, "tid": track, "name": "thread_name", "args": {"name": name}});
        Trace { begin: Instant::now(), events: vec![name(CPU_TRACK, "CPU"), name(GPU_TRACK, "GPU")] }
    }
}

impl Trace {
    pub(super) fn add_cpu(&mut self, graph: &Graph, timings: &[cpu::Timing]) {
        for t in timings {
            let start = t.start.duration_since(self.begin).as_nanos() as u64;
            let length = t.end.duration_since(t.start).as_nanos() as u64;
            self.add(&graph.nodes[t.node], CPU_TRACK, start, length);
        }
    }

    /// Device clocks have their own zero: the run is placed so that it ends now.
    pub(super) fn add_gpu(&mut self, graph: &Graph, timings: &[gpu::Timing]) {
        let now = self.begin.elapsed().as_nanos() as u64;
        let end = timings.iter().map(|t| t.end).max().unwrap_or(0);
        for t in timings {
            self.add(
                &graph.nodes[t.node],
                GPU_TRACK,
                (now + t.start).saturating_sub(end),
                t.end.saturating_sub(t.start),
            );
        }
    }

    fn add(&mut self, node: &Node, track: u32, start: u64, length: u64) {
        let sources: Vec<String> = node.src.iter().map(|t| format!("{:?}", t.meta)).collect();
        let args =
            json!({"op": node.op.name(), "layer": node.layer, "src": sources, "dst": format!("{:?}", node.dst.meta)});
        self.events.push(json!({
            "ph": "X", "pid": 1, "tid": track, "name": format!("{} {}", node.op.name(), node.label), "cat": node.op.name(),
            "ts": start as f64 / 1000.0, "dur": length as f64 / 1000.0, "args": args,
        }));
    }

    /// The trace as Chrome's JSON: times in microseconds.
    pub fn to_json(&self) -> Value {
        json!({"traceEvents": self.events, "displayTimeUnit": "ns"})
    }
}
