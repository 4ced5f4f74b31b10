//! What a profile comes to: kernels added up, and tokens.

use super::record::{Event, KernelFacts, Profile, Run};
use crate::base::DType;
use std::collections::HashMap;

/// What belongs together in a table of kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Group {
    /// The same step of all layers.
    #[default]
    Kernel,
    /// Each step of each layer.
    Layer,
    /// All steps of an op.
    Op,
}

/// Which runs count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// All.
    #[default]
    All,
    /// Batches of several tokens.
    Prompt,
    /// Single tokens.
    Answer,
}

impl Phase {
    /// Whether a batch of `tokens` counts.
    pub fn holds(self, tokens: usize) -> bool {
        match self {
            Phase::All => true,
            Phase::Prompt => tokens > 1,
            Phase::Answer => tokens == 1,
        }
    }
}

/// All runs of what belongs together.
#[derive(Debug, Clone, PartialEq)]
pub struct Total {
    /// `matmul/vec ffn_down`, or the op alone.
    pub name: String,
    /// The layer, where each is told by itself.
    pub layer: Option<u32>,
    /// One of its kernels: the first that ran.
    pub kernel: usize,
    /// How often it ran.
    pub count: usize,
    /// Nanoseconds together.
    pub total: u64,
    /// Of which no more than one in twenty took longer, in nanoseconds.
    pub p95: u64,
    /// Part of all kernels' time.
    pub fraction: f64,
    /// Bytes moved together.
    pub bytes: f64,
    /// Of these, weights.
    pub weights: f64,
    /// Operations together.
    pub flops: f64,
    /// The least time that the device would need by its roofline over the time it took; `None` where it was not measured.
    pub of_peak: Option<f64>,
    /// Whether memory bounds it rather than arithmetic; `None` if the roofline was not measured.
    pub memory_bound: Option<bool>,
}

impl Total {
    /// Nanoseconds of one run.
    pub fn mean(&self) -> f64 {
        self.total as f64 / self.count.max(1) as f64
    }

    /// Bytes per second.
    pub fn rate(&self) -> f64 {
        self.bytes / self.seconds()
    }

    /// Operations per second.
    pub fn flop_rate(&self) -> f64 {
        self.flops / self.seconds()
    }

    /// Bytes of weights per second.
    pub fn weight_rate(&self) -> f64 {
        self.weights / self.seconds()
    }

    /// Operations per byte.
    pub fn intensity(&self) -> f64 {
        self.flops / self.bytes.max(1.0)
    }

    fn seconds(&self) -> f64 {
        self.total.max(1) as f64 / 1e9
    }
}

/// The value that no more than one in twenty of `values` exceeds; sorts them.
pub fn p95(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    let at = (values.len() * 95).div_ceil(100);
    values.get(at.saturating_sub(1)).copied().unwrap_or(0)
}

/// Seconds that an event needs at the least: for its bytes, and for its operations.
pub fn least(profile: &Profile, event: &Event) -> Option<(f64, f64)> {
    let kernel = profile.kernel(event);
    let roofline = profile.facts.devices.get(kernel.device)?.roofline?;
    let dtype = DType::ALL.iter().find(|d| d.name() == kernel.factor).copied().unwrap_or(DType::F32);
    let (read, rate) = (roofline.read, roofline.rate(dtype));
    (read > 0.0 && rate > 0.0).then(|| (event.bytes / read, event.flops / rate))
}

/// The kernels of the runs of a phase added up, most expensive first.
pub fn totals(profile: &Profile, group: Group, phase: Phase) -> Vec<Total> {
    totals_of(profile, profile.events.iter().filter(|e| phase.holds(profile.kernel(e).tokens)), group)
}

/// The same for some events.
pub fn totals_of<'a>(profile: &Profile, events: impl Iterator<Item = &'a Event>, group: Group) -> Vec<Total> {
    let mut all: Vec<Sum> = Vec::new();
    // Many kernels make one total: each name is put together once.
    let mut of_kernel: HashMap<u32, usize> = HashMap::new();
    let mut of_name: HashMap<(String, Option<u32>), usize> = HashMap::new();
    for event in events {
        let i = *of_kernel.entry(event.kernel).or_insert_with(|| {
            let kernel = profile.kernel(event);
            let key = key(kernel, group);
            *of_name.entry(key.clone()).or_insert_with(|| {
                all.push(Sum::new(key, event.kernel as usize));
                all.len() - 1
            })
        });
        all[i].add(profile, event);
    }
    let time = all.iter().map(|s| s.total.total).sum::<u64>().max(1) as f64;
    let mut totals: Vec<Total> = all.into_iter().map(|sum| sum.finish(time)).collect();
    totals.sort_by_key(|t| std::cmp::Reverse(t.total));
    totals
}

fn key(kernel: &KernelFacts, group: Group) -> (String, Option<u32>) {
    match group {
        Group::Kernel => (kernel.name(), None),
        Group::Layer => (kernel.name(), kernel.layer),
        Group::Op => (kernel.op.clone(), None),
    }
}

/// A total under way.
struct Sum {
    total: Total,
    lengths: Vec<u64>,
    /// Seconds at the least: for all, and for memory and arithmetic each by themselves.
    least: Option<(f64, f64, f64)>,
}

impl Sum {
    fn new((name, layer): (String, Option<u32>), kernel: usize) -> Sum {
        let total = Total {
            name,
            layer,
            kernel,
            count: 0,
            total: 0,
            p95: 0,
            fraction: 0.0,
            bytes: 0.0,
            weights: 0.0,
            flops: 0.0,
            of_peak: None,
            memory_bound: None,
        };
        Sum { total, lengths: Vec::new(), least: Some((0.0, 0.0, 0.0)) }
    }

    fn add(&mut self, profile: &Profile, event: &Event) {
        let t = &mut self.total;
        t.count += 1;
        t.total += event.length;
        t.bytes += event.bytes;
        t.flops += event.flops;
        t.weights += profile.kernel(event).weights;
        self.lengths.push(event.length);
        let least = least(profile, event);
        self.least = self
            .least
            .zip(least)
            .map(|((all, m, a), (memory, arithmetic))| (all + memory.max(arithmetic), m + memory, a + arithmetic));
    }

    fn finish(mut self, time: f64) -> Total {
        let mut total = self.total;
        total.p95 = p95(&mut self.lengths);
        total.fraction = total.total as f64 / time;
        total.of_peak = self.least.map(|(all, ..)| all / total.seconds());
        total.memory_bound = self.least.map(|(_, memory, arithmetic)| memory >= arithmetic);
        total
    }
}

/// The runs of a phase in the mean. Times are nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tokens {
    /// Runs.
    pub runs: usize,
    /// Tokens of them together.
    pub tokens: usize,
    /// In the mean. Of an answer's tokens, from result to result; of a prompt's batches, from the beginning to the result, less
    /// what went by before the result of the batch before: they overlap.
    pub mean: f64,
    /// Of which no more than one in twenty took longer.
    pub p95: u64,
    /// See [`Run`].
    pub gpu: f64,
    /// See [`Run`].
    pub cpu: f64,
    /// See [`Run`].
    pub submit: f64,
    /// See [`Run`].
    pub wait: f64,
    /// See [`Run`].
    pub readback: f64,
}

impl Tokens {
    /// Tokens per second.
    pub fn rate(&self) -> f64 {
        if self.mean > 0.0 { self.tokens as f64 / self.runs as f64 / (self.mean / 1e9) } else { 0.0 }
    }
}

/// The runs of a phase in the mean.
pub fn tokens(profile: &Profile, phase: Phase) -> Tokens {
    let runs = || profile.runs.iter().enumerate().filter(|(_, r)| phase.holds(r.tokens));
    let n = runs().count();
    let mean = |f: &dyn Fn(&Run) -> u64| runs().map(|(_, r)| f(r) as f64).sum::<f64>() / n.max(1) as f64;
    let before = |i: usize| i.checked_sub(1).map_or(0, |before| profile.runs[before].end);
    let time = |(i, r): (usize, &Run)| match r.tokens {
        1 => profile.token_time(i),
        // The host hands over the next while the GPU computes one: that time is the first one's.
        _ => Some(r.end.saturating_sub(r.start.max(before(i)))),
    };
    let mut times: Vec<u64> = runs().filter_map(time).collect();
    Tokens {
        runs: n,
        tokens: runs().map(|(_, r)| r.tokens).sum(),
        mean: times.iter().sum::<u64>() as f64 / times.len().max(1) as f64,
        p95: p95(&mut times),
        gpu: mean(&|r| r.gpu),
        cpu: mean(&|r| r.cpu),
        submit: mean(&|r| r.submit),
        wait: mean(&|r| r.wait),
        readback: mean(&|r| r.readback),
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{DeviceFacts, Facts};
    use super::*;
    use crate::plan::roofline::Roofline;

    fn profile() -> Profile {
        let kernel = |label: &str, layer| KernelFacts {
            op: "matmul".into(),
            variant: "vec".into(),
            label: label.into(),
            layer: Some(layer),
            tokens: 1,
            factor: "q8_0".into(),
            weights: 100.0,
            ..KernelFacts::default()
        };
        let event = |kernel, length| Event { kernel, length, bytes: 200.0, flops: 50.0, ..Event::default() };
        let roofline = Some(Roofline { read: 1e9, f32: 1e9, ..Roofline::default() });
        Profile {
            facts: Facts { devices: vec![DeviceFacts { roofline, ..DeviceFacts::default() }], ..Facts::default() },
            kernels: vec![kernel("attn_q", 0), kernel("attn_q", 1), kernel("ffn_up", 0)],
            events: vec![event(0, 400), event(1, 600), event(2, 3000)],
            runs: Vec::new(),
        }
    }

    #[test]
    fn kernels_are_added_up_by_name_and_layer() {
        let profile = profile();
        let [up, q] = &totals(&profile, Group::Kernel, Phase::All)[..] else { panic!("two kernels") };
        assert_eq!((up.name.as_str(), up.count, up.total, up.fraction), ("matmul/vec ffn_up", 1, 3000, 0.75));
        assert_eq!((q.count, q.total, q.p95, q.mean()), (2, 1000, 600, 500.0));
        assert_eq!((q.rate(), q.flop_rate(), q.weight_rate()), (400.0 / 1e-6, 100.0 / 1e-6, 200.0 / 1e-6));
        // 200 bytes take 200 ns at a gigabyte per second, of 500.
        assert_eq!((q.of_peak, q.memory_bound), (Some(0.4), Some(true)));
        assert_eq!(totals(&profile, Group::Layer, Phase::All).len(), 3);
        assert_eq!(totals(&profile, Group::Op, Phase::Answer).len(), 1);
        assert!(totals(&profile, Group::Op, Phase::Prompt).is_empty());
        let mut unknown = profile.clone();
        unknown.facts.devices.clear();
        assert_eq!(totals(&unknown, Group::Kernel, Phase::All)[0].of_peak, None);
    }

    #[test]
    fn one_in_twenty_may_take_longer() {
        assert_eq!(p95(&mut (1..=100).collect::<Vec<_>>()), 95);
        assert_eq!((p95(&mut [7]), p95(&mut [])), (7, 0));
    }

    #[test]
    fn tokens_are_told_by_what_a_reader_waits() {
        let run = |run, tokens, past, start, end| Run { run, tokens, past, start, end, gpu: 10, ..Run::default() };
        let runs = vec![run(0, 8, 0, 0, 100), run(1, 1, 8, 90, 140), run(2, 1, 9, 130, 200)];
        let profile = Profile { runs, ..Profile::default() };
        let answer = tokens(&profile, Phase::Answer);
        assert_eq!((answer.runs, answer.mean, answer.p95, answer.gpu), (2, 50.0, 60, 10.0));
        assert_eq!(answer.rate(), 2e7);
        assert_eq!(tokens(&profile, Phase::Prompt).rate(), 8e7);
    }

    #[test]
    fn time_in_which_batches_overlap_counts_once() {
        let run = |run, start, end| Run { run, tokens: 8, past: 8 * run as usize, start, end, ..Run::default() };
        // Two that overlap with the one before, and one after a pause: 32 tokens in 300 ns and in 100 ns.
        let runs = vec![run(0, 0, 100), run(1, 20, 220), run(2, 30, 300), run(3, 500, 600)];
        let prompt = tokens(&Profile { runs, ..Profile::default() }, Phase::Prompt);
        assert_eq!((prompt.runs, prompt.tokens, prompt.mean, prompt.p95), (4, 32, 100.0, 120));
        assert_eq!(prompt.rate(), 8e7);
    }
}
