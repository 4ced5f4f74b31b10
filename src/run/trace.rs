//! What ran when, as a trace that `chrome://tracing` and Perfetto open. Holds op names and shapes, never text.

use super::Traffic;
use crate::graph::{Graph, Node};
use crate::{cpu, gpu};
use serde_json::{Value, json};
use std::time::Instant;

/// Events of all runs so far.
pub struct Trace {
    begin: Instant,
    events: Vec<Event>,
}

/// One run of one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The op.
    pub op: &'static str,
    /// The step it is: `attn_q`.
    pub label: &'static str,
    /// Which of the op's kernels; `cpu` for its CPU code.
    pub variant: &'static str,
    /// Layer it belongs to.
    pub layer: Option<u32>,
    /// Types and shapes of its sources and of its result, written out.
    pub src: Vec<String>,
    /// See `src`.
    pub dst: String,
    /// Bytes of weights that it has to read.
    pub weights: f64,
    /// When it began, in nanoseconds from the trace's beginning.
    pub start: u64,
    /// Nanoseconds it took.
    pub length: u64,
}

const CPU: &str = "cpu";

impl Default for Trace {
    fn default() -> Self {
        Trace { begin: Instant::now(), events: Vec::new() }
    }
}

impl Trace {
    pub(super) fn add_cpu(&mut self, graph: &Graph, timings: &[cpu::Timing]) {
        for t in timings {
            let start = t.start.duration_since(self.begin).as_nanos() as u64;
            let length = t.end.duration_since(t.start).as_nanos() as u64;
            self.add(graph, &graph.nodes[t.node], CPU, start, length);
        }
    }

    /// Device clocks have their own zero: the run is placed so that it ends now. `kernels` are those of the program.
    pub(super) fn add_gpu(&mut self, graph: &Graph, timings: &[gpu::Timing], kernels: &[(usize, &str, &'static str)]) {
        let now = self.begin.elapsed().as_nanos() as u64;
        let end = timings.iter().map(|t| t.end).max().unwrap_or(0);
        for t in timings {
            let variant = kernels.iter().find(|(node, ..)| *node == t.node).map_or("", |(.., variant)| *variant);
            let start = (now + t.start).saturating_sub(end);
            self.add(graph, &graph.nodes[t.node], variant, start, t.end.saturating_sub(t.start));
        }
    }

    fn add(&mut self, graph: &Graph, node: &Node, variant: &'static str, start: u64, length: u64) {
        self.events.push(Event {
            op: node.op.name(),
            label: node.label,
            variant,
            layer: node.layer,
            src: node.src.iter().map(|t| format!("{:?}", t.meta)).collect(),
            dst: format!("{:?}", node.dst.meta),
            weights: Traffic::of_node(graph, node, 0).weights,
            start,
            length,
        });
    }

    /// All runs of all nodes, in the order in which they were noted.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The trace as Chrome's JSON: times in microseconds.
    pub fn to_json(&self) -> Value {
        let name = |track: u32, name: &str| json!({"ph": "M", "pid": 1, "tid": track, "name": "thread_name", "args": {"name": name}});
        let (cpu_track, gpu_track) = (1, 2);
        let mut events = vec![name(cpu_track, "CPU"), name(gpu_track, "GPU")];
        events.extend(self.events.iter().map(|e| {
            let args = json!({"op": e.op, "variant": e.variant, "layer": e.layer, "src": e.src, "dst": e.dst});
            json!({
                "ph": "X", "pid": 1, "tid": if e.variant == CPU { cpu_track } else { gpu_track },
                "name": format!("{} {}", e.op, e.label), "cat": e.op,
                "ts": e.start as f64 / 1000.0, "dur": e.length as f64 / 1000.0, "args": args,
            })
        }));
        json!({"traceEvents": events, "displayTimeUnit": "ns"})
    }
}
