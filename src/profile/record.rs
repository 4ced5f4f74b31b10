//! What a session did and how long each part took: the profile, built record by record, in one process or across a pipe.
//!
//! An [`Observer`] is told each [`Record`] as it comes; [`Profile`] puts them together. Names of ops, shapes and times are all
//! there is in it: no prompt, no answer, no file's name.

use crate::plan::MemoryUse;
use crate::plan::roofline::Roofline;
use serde::{Deserialize, Serialize};
use std::sync::mpsc;

/// The version of what is written: of traces, of summaries and of records on a pipe.
pub const VERSION: u32 = 1;

/// Events that are kept; the oldest runs' go first. Some 40 MB.
const MOST_EVENTS: usize = 1 << 20;

/// A device that runs layers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceFacts {
    /// `CPU` or `GPU`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The system interface and the driver, or the vector instructions and the number of threads.
    pub driver: String,
    /// What it can do at the most, where that was measured.
    pub roofline: Option<Roofline>,
    /// What of its work is timed as one, in words; empty if each op or dispatch is.
    #[serde(default)]
    pub timing: String,
}

/// Where a layer lies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerFacts {
    /// Its number; `None` for what lies before the first and after the last.
    pub layer: Option<u32>,
    /// Index of its device.
    pub device: usize,
    /// Bytes of its weights, as they lie in the file.
    pub weights: u64,
}

/// What a session is made of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The model's architecture.
    pub architecture: String,
    /// Bytes of all weights in the file.
    pub weights: u64,
    /// Tokens of context.
    pub context: usize,
    /// Types of the cache: `f16`, or `q8_0/f16` where keys and values differ.
    pub kv: String,
    /// The devices.
    pub devices: Vec<DeviceFacts>,
    /// What lies where.
    pub placement: Vec<LayerFacts>,
}

/// One step of a batch as a device runs it: a dispatch, or an op on the CPU.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KernelFacts {
    /// Index of its device.
    pub device: usize,
    /// The op.
    pub op: String,
    /// Which of the op's kernels; `cpu` for its CPU code.
    pub variant: String,
    /// The shaders' files; empty on the CPU.
    pub shader: String,
    /// The step it is: `attn_q`.
    pub label: String,
    /// Layer it belongs to.
    pub layer: Option<u32>,
    /// Tokens of the batch.
    pub tokens: usize,
    /// Types and shapes of the node's sources and of its result, written out.
    pub src: Vec<String>,
    /// See `src`.
    pub dst: String,
    /// Type of what it multiplies by: weights, keys. Empty if nothing is multiplied.
    pub factor: String,
    /// Bytes of weights that a run has to read.
    pub weights: f64,
}

impl KernelFacts {
    /// `matmul/vec ffn_down`.
    pub fn name(&self) -> String {
        format!("{}/{} {}", self.op, self.variant, self.label)
    }
}

/// One run of one kernel. Times are nanoseconds from the profile's beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Row", into = "Row")]
pub struct Event {
    /// Index of the kernel.
    pub kernel: u32,
    /// The number of the run.
    pub run: u32,
    /// When it began.
    pub start: u64,
    /// How long it took.
    pub length: u64,
    /// Bytes that it has to move: weights, its part of the cache, and activations.
    pub bytes: f64,
    /// Operations, a multiplication and an addition being two.
    pub flops: f64,
}

/// An event as it is written, without names.
type Row = (u32, u32, u64, u64, f64, f64);

impl From<Row> for Event {
    fn from((kernel, run, start, length, bytes, flops): Row) -> Event {
        Event { kernel, run, start, length, bytes, flops }
    }
}

impl From<Event> for Row {
    fn from(e: Event) -> Row {
        (e.kernel, e.run, e.start, e.length, e.bytes, e.flops)
    }
}

/// One batch on its way through the model. Times are nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its number.
    pub run: u32,
    /// Tokens of the batch: 1 for a token of an answer.
    pub tokens: usize,
    /// Tokens that lay in the cache before.
    pub past: usize,
    /// When the host began with it, from the profile's beginning.
    pub start: u64,
    /// When the host had its result. Tokens overlap where the next is submitted before this one is read.
    pub end: u64,
    /// The GPU's time, from its first dispatch to its last.
    pub gpu: u64,
    /// The CPU's time for the model.
    pub cpu: u64,
    /// The host's time for encoding and submitting.
    pub submit: u64,
    /// The host's time spent waiting for the GPU.
    pub wait: u64,
    /// The host's time for taking what was read back.
    pub readback: u64,
    /// The memory of each device, where it has changed.
    pub memory: Vec<MemoryUse>,
}

/// A piece of a profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// What the session is made of. Comes first; a later one replaces it.
    Facts(Facts),
    /// More kernels: their indices follow those known already.
    Kernels(Vec<KernelFacts>),
    /// A run that is done, and what it consisted of.
    Run(Run, Vec<Event>),
}

/// Is told what a session does, on the thread that computes: it must not wait for anything.
pub trait Observer: Send {
    /// Takes a record.
    fn observe(&mut self, record: &Record);
}

/// To another thread, which may be slow. When it has gone, records go nowhere.
impl Observer for mpsc::Sender<Record> {
    fn observe(&mut self, record: &Record) {
        let _ = self.send(record.clone());
    }
}

/// What a session did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// What it is made of.
    pub facts: Facts,
    /// All kernels.
    pub kernels: Vec<KernelFacts>,
    /// All runs, in order.
    pub runs: Vec<Run>,
    /// What the runs consisted of, in order. Of long sessions the newest part.
    pub events: Vec<Event>,
}

impl Observer for Profile {
    fn observe(&mut self, record: &Record) {
        match record {
            Record::Facts(facts) => self.facts = facts.clone(),
            Record::Kernels(more) => self.kernels.extend_from_slice(more),
            Record::Run(run, events) => {
                if self.events.len() + events.len() > MOST_EVENTS {
                    // A quarter at a time: what is left moves to the front.
                    self.events.drain(..self.events.len() / 4);
                }
                // Records may come from another process: what points nowhere is left out.
                self.events.extend(events.iter().filter(|e| (e.kernel as usize) < self.kernels.len()));
                self.runs.push(run.clone());
            }
        }
    }
}

impl Profile {
    /// The kernel of an event.
    pub fn kernel(&self, event: &Event) -> &KernelFacts {
        &self.kernels[event.kernel as usize]
    }

    /// The events of one run.
    pub fn events_of(&self, run: u32) -> &[Event] {
        let start = self.events.partition_point(|e| e.run < run);
        let end = self.events.partition_point(|e| e.run <= run);
        &self.events[start..end]
    }

    /// The device at `index`; a nameless one where there is none.
    pub fn device(&self, index: usize) -> DeviceFacts {
        self.facts.devices.get(index).cloned().unwrap_or_default()
    }

    /// The memory of each device, as it was last.
    pub fn memory(&self) -> Vec<MemoryUse> {
        let mut last: Vec<MemoryUse> = Vec::new();
        for memory in self.runs.iter().flat_map(|r| &r.memory) {
            match last.iter_mut().find(|m| m.device == memory.device) {
                Some(known) => *known = *memory,
                None => last.push(*memory),
            }
        }
        last
    }

    /// Nanoseconds from the result of the run before to that of `runs[i]`, where both are tokens of an answer: what a reader waits
    /// for a token. `None` for others.
    pub fn token_time(&self, i: usize) -> Option<u64> {
        let [before, this] = self.runs.get(i.checked_sub(1)?..=i)? else { return None };
        let answer = this.tokens == 1 && this.past == before.past + before.tokens;
        answer.then(|| this.end.saturating_sub(before.end)).filter(|t| *t > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_make_a_profile_and_survive_a_pipe() {
        let event = |run, kernel| Event { run, kernel, start: 5, length: 7, bytes: 1.5, flops: 2.0 };
        let run = |run, end| Run { run, tokens: 1, past: run as usize, end, ..Run::default() };
        let records = [
            Record::Facts(Facts { architecture: "llama".into(), ..Facts::default() }),
            Record::Kernels(vec![KernelFacts { op: "matmul".into(), layer: Some(3), ..KernelFacts::default() }]),
            Record::Run(run(0, 10), vec![event(0, 0), event(0, 9)]),
            Record::Run(run(1, 35), vec![event(1, 0)]),
        ];
        let mut profile = Profile::default();
        for record in &records {
            let line = serde_json::to_string(record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), *record);
            profile.observe(record);
        }
        assert_eq!(profile.events, [event(0, 0), event(1, 0)], "an event of an unknown kernel is left out");
        assert_eq!(profile.events_of(1), [event(1, 0)]);
        assert_eq!((profile.token_time(0), profile.token_time(1)), (None, Some(25)));
        assert_eq!(serde_json::to_string(&event(1, 2)).unwrap(), "[2,1,5,7,1.5,2.0]");
    }

    #[test]
    fn of_a_long_session_the_newest_part_is_kept() {
        let mut profile = Profile { kernels: vec![KernelFacts::default()], ..Profile::default() };
        for run in 0..5 {
            let events = vec![Event { run, ..Event::default() }; MOST_EVENTS / 4];
            profile.observe(&Record::Run(Run { run, ..Run::default() }, events));
        }
        assert_eq!((profile.events.len(), profile.events[0].run, profile.runs.len()), (MOST_EVENTS, 1, 5));
    }
}
