//! What a test takes at the least: bytes, operations, and their time on a device that does as much as was measured. Reading
//! and multiplying go on at once, so a batch takes the longer of both.

use super::args::{Setting, Test};
use super::roofline;
use crate::app::term;
use crate::base::Result;
use crate::gpu;
use crate::graph::{Graph, Place};
use crate::plan::Work;
use crate::plan::fit::Layers;
use crate::plan::roofline::{Roofline, cpu, gpu as measure_gpu};
use crate::run::Session;

/// What devices can do at the most, as measured in this run.
pub struct Peaks {
    gpu: Option<Roofline>,
    /// By number of threads.
    cpu: Vec<(u32, Option<Roofline>)>,
}

impl Peaks {
    /// Measures what the settings need, and says so.
    pub fn measure(settings: &[Setting], device: Option<&gpu::Device>) -> Result<Self> {
        let gpu = device.map(measure_gpu).transpose()?;
        let on_cpu = settings.iter().filter(|s| device.is_none() || s.layers == Layers::Count(0));
        let mut threads: Vec<u32> = on_cpu.map(|s| s.threads).collect();
        threads.sort_unstable();
        threads.dedup();
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let measured = |n: u32| (n, cpu(if n == 0 { cores } else { n as usize }));
        let peaks = Peaks { gpu, cpu: threads.into_iter().map(measured).collect() };
        for roofline in peaks.gpu.iter().chain(peaks.cpu.iter().filter_map(|(_, r)| r.as_ref())) {
            term::note(format_args!("at the most: {}", roofline::line(roofline)));
        }
        Ok(peaks)
    }

    /// Where all layers run in one place, what that place can do.
    fn of(&self, session: &mut Session, setting: &Setting) -> Option<Roofline> {
        match session.engine().device_map().single()? {
            Place::Gpu => self.gpu,
            Place::Cpu => self.cpu.iter().find(|(n, _)| *n == setting.threads)?.1,
        }
    }
}

/// What a token of a test needs, on average.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Need {
    /// Bytes of weights and cache that are moved.
    pub bytes: f64,
    /// Multiplications and additions.
    pub operations: f64,
    /// Ops of the graph that run.
    pub nodes: f64,
    /// Its time on the device at its best, where that was measured.
    pub least: Option<Least>,
}

/// Seconds that a token takes at the least.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Least {
    /// To move its bytes.
    pub memory: f64,
    /// To do its operations.
    pub arithmetic: f64,
    /// Both at once.
    pub both: f64,
}

impl Least {
    /// Which of the two it is that takes longer.
    pub fn bound(&self) -> &'static str {
        if self.memory >= self.arithmetic { "memory" } else { "arithmetic" }
    }
}

impl Need {
    /// What `test` needs after the first tokens of `setting`.
    pub fn of(session: &mut Session, setting: &Setting, test: &Test, peaks: &Peaks) -> Result<Need> {
        let roofline = peaks.of(session, setting);
        let mut all = Need { least: roofline.map(|_| Least::default()), ..Need::default() };
        let (batch, mut past, mut left) = (session.batch(), setting.depth as usize, test.prompt as usize);
        while left > 0 {
            let tokens = left.min(batch);
            left -= tokens;
            let graph = session.engine().graph(tokens, usize::from(left == 0))?;
            all.add(&graph, past, roofline.as_ref());
            past += tokens;
        }
        let graph = session.engine().graph(1, 1)?;
        (0..test.answer as usize).for_each(|i| all.add(&graph, past + i, roofline.as_ref()));
        Ok(all.divided(f64::from(test.tokens())))
    }

    fn add(&mut self, graph: &Graph, past: usize, roofline: Option<&Roofline>) {
        let work = Work::of(graph, past);
        self.bytes += work.bytes();
        self.operations += work.operations();
        self.nodes += graph.nodes.len() as f64;
        if let (Some(least), Some(roofline)) = (&mut self.least, roofline) {
            let (memory, arithmetic) = (work.bytes() / roofline.read, work.seconds(roofline));
            least.memory += memory;
            least.arithmetic += arithmetic;
            least.both += memory.max(arithmetic);
        }
    }

    fn divided(self, n: f64) -> Need {
        let least = |l: Least| Least { memory: l.memory / n, arithmetic: l.arithmetic / n, both: l.both / n };
        Need {
            bytes: self.bytes / n,
            operations: self.operations / n,
            nodes: self.nodes / n,
            least: self.least.map(least),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::DType;
    use crate::model::{Model, synth::Synthetic};
    use crate::ops::Serial;
    use crate::plan::Options;
    use std::sync::Arc;

    #[test]
    fn prompts_are_bound_by_arithmetic_and_answers_by_memory() {
        let synthetic: Synthetic = "llama-tiny:q8_0".parse().unwrap();
        let model = Model::new(synthetic.model_file(&Serial, &mut |_| Ok(())).unwrap()).unwrap();
        let options = Options { context: 256, batch: 64, threads: 1, ..Options::default() };
        let mut session = Session::new(Arc::new(model), None, options).unwrap();
        // A byte is read in the time of eight operations: more than the two of an answer's token, less than a batch's.
        let roofline = Roofline { read: 1e9, f32: 8e9, ..Roofline::default() };
        let peaks = Peaks { gpu: None, cpu: vec![(1, Some(roofline))] };
        let kv = DType::F16.into();
        let setting = Setting { layers: Layers::Auto, kv, batch: 64, ubatch: 64, threads: 1, depth: 0 };
        let mut need = |prompt, answer| Need::of(&mut session, &setting, &Test { prompt, answer }, &peaks).unwrap();
        let (prompt, answer, mixed) = (need(128, 0), need(0, 16), need(128, 16));
        let (p, a, both) = (prompt.least.unwrap(), answer.least.unwrap(), mixed.least.unwrap());
        assert_eq!((p.bound(), a.bound()), ("arithmetic", "memory"));
        let same = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-9;
        assert!(same(p.both, p.arithmetic) && same(a.both, a.memory) && same(a.memory, answer.bytes / 1e9));
        assert!(both.both > both.memory.max(both.arithmetic), "each part by what bounds it: {both:?}");
        // A batch of 64 runs its graph once.
        assert!(prompt.nodes * 32.0 < answer.nodes && prompt.operations < answer.operations);
        let unknown = Peaks { gpu: None, cpu: vec![(1, None)] };
        assert_eq!(Need::of(&mut session, &setting, &Test { prompt: 1, answer: 0 }, &unknown).unwrap().least, None);
    }
}
