//! What a timeline is made of: what host and devices did, as rectangles. Of a million events those that can be seen.

use super::Scene;
use crate::{colour, words};
use eframe::egui::Color32;
use wgpu_llm::low_level::profile::{Event, Run};

/// Points: what is narrower is left out beside another of its row.
const LEAST_WIDTH: f64 = 1.0 / 3.0;

/// A rectangle to be drawn. Its texts are made when they are: there may be a million events.
pub struct Slice<'p> {
    /// From the top: the host, and three for each device.
    pub row: usize,
    /// Nanoseconds.
    pub start: f64,
    /// Nanoseconds.
    pub end: f64,
    /// What it stands for.
    pub what: What<'p>,
}

/// What a slice stands for; times are nanoseconds.
pub enum What<'p> {
    /// A part of what the host did for a run, its colour, and its time.
    Host(&'static str, usize, u64),
    /// A run on one device, and the time of its kernels.
    Run(&'p Run, u64),
    /// A layer, and the time of its kernels.
    Layer(u32, u64),
    /// A kernel.
    Kernel(&'p Event),
}

impl What<'_> {
    /// What stands on it.
    pub fn name(&self, scene: &Scene) -> String {
        match self {
            What::Host(name, ..) => (*name).into(),
            What::Run(run, _) if run.tokens == 1 => format!("token {}", run.past),
            What::Run(run, _) => format!("{} tokens", run.tokens),
            What::Layer(layer, _) => format!("layer {layer}"),
            What::Kernel(e) => {
                let kernel = scene.profile.kernel(e);
                format!("{} {}", kernel.op, kernel.label)
            }
        }
    }

    /// Its colour.
    pub fn fill(&self, scene: &Scene) -> Color32 {
        match self {
            What::Host(_, fill, _) => colour::nth(*fill),
            What::Run(..) => colour::nth(9),
            What::Layer(layer, _) => colour::nth(if layer % 2 == 0 { 7 } else { 0 }),
            What::Kernel(e) => scene.ops.of(&scene.profile.kernel(e).op),
        }
    }

    /// What is told where the pointer is.
    pub fn hint(&self, scene: &Scene) -> String {
        match self {
            What::Host(name, _, length) => format!("host: {name} {}", words::time(*length as f64)),
            What::Run(_, busy) | What::Layer(_, busy) => {
                format!("{}: {} of kernels", self.name(scene), words::time(*busy as f64))
            }
            What::Kernel(e) => hint(scene, e),
        }
    }
}

/// Slices as they are found, but for those that nobody could see.
struct Sieve<'p> {
    span: (f64, f64),
    /// [`LEAST_WIDTH`] in nanoseconds.
    least: f64,
    /// Where the last slice of each row ends.
    ends: Vec<f64>,
    slices: Vec<Slice<'p>>,
}

impl<'p> Sieve<'p> {
    fn add(&mut self, row: usize, (start, end): (f64, f64), what: What<'p>) {
        let Some(last) = self.ends.get_mut(row).filter(|_| end >= self.span.0 && start <= self.span.1) else { return };
        if end - start >= self.least || end > *last + self.least {
            *last = end;
            self.slices.push(Slice { row, start, end, what });
        }
    }
}

/// Kernels that belong together: when, and their time.
#[derive(Clone, Copy)]
struct Part {
    span: (f64, f64),
    busy: u64,
}

impl Part {
    fn of(e: &Event) -> Part {
        Part { span: (e.start as f64, e.start.saturating_add(e.length) as f64), busy: e.length }
    }

    fn and(self, other: Part) -> Part {
        let span = (self.span.0.min(other.span.0), self.span.1.max(other.span.1));
        Part { span, busy: self.busy.saturating_add(other.busy) }
    }
}

/// What is in view, in a drawing that is `width` points wide.
pub fn slices<'p>(scene: &Scene<'p>, span: (f64, f64), width: f32) -> Vec<Slice<'p>> {
    let least = (span.1 - span.0) / f64::from(width.max(1.0)) * LEAST_WIDTH;
    let ends = vec![f64::MIN; 1 + 3 * scene.profile.facts.devices.len()];
    let mut sieve = Sieve { span, least, ends, slices: Vec::new() };
    for run in scene.profile.runs.iter().filter(|r| r.end as f64 >= span.0 && r.start as f64 <= span.1) {
        host(run, &mut sieve);
        for device in 0..scene.profile.facts.devices.len() {
            flame(scene, run, device, &mut sieve);
        }
    }
    sieve.slices
}

fn host(run: &Run, sieve: &mut Sieve) {
    let read = run.end.saturating_sub(run.readback);
    let parts = [
        ("submit", run.start, run.submit, 8),
        ("wait", read.saturating_sub(run.wait), run.wait, 9),
        ("readback", read, run.readback, 4),
    ];
    for (name, start, length, fill) in parts.into_iter().filter(|(_, _, length, _)| *length > 0) {
        sieve.add(0, (start as f64, start.saturating_add(length) as f64), What::Host(name, fill, length));
    }
}

/// Token, layers and kernels of one run on one device.
fn flame<'p>(scene: &Scene<'p>, run: &'p Run, device: usize, sieve: &mut Sieve<'p>) {
    let row = 1 + 3 * device;
    let (mut whole, mut layer): (Option<Part>, Option<(u32, Part)>) = (None, None);
    let add_layer = |layer: Option<(u32, Part)>, sieve: &mut Sieve<'p>| {
        if let Some((number, part)) = layer {
            sieve.add(row + 1, part.span, What::Layer(number, part.busy));
        }
    };
    for e in scene.profile.events_of(run.run) {
        let kernel = scene.profile.kernel(e);
        if kernel.device != device {
            continue;
        }
        let part = Part::of(e);
        sieve.add(row + 2, part.span, What::Kernel(e));
        whole = Some(whole.map_or(part, |sum| sum.and(part)));
        layer = match (layer, kernel.layer) {
            (Some((known, sum)), Some(this)) if known == this => Some((known, sum.and(part))),
            (before, this) => {
                add_layer(before, sieve);
                this.map(|number| (number, part))
            }
        };
    }
    add_layer(layer, sieve);
    if let Some(part) = whole {
        sieve.add(row, part.span, What::Run(run, part.busy));
    }
}

/// What is known of a kernel's run.
fn hint(scene: &Scene, e: &Event) -> String {
    let kernel = scene.profile.kernel(e);
    let seconds = e.length.max(1) as f64 / 1e9;
    let layer = kernel.layer.map_or(String::new(), |l| format!(", layer {l}"));
    let mut hint = format!(
        "{}{layer}\n{}, {}, {}",
        kernel.name(),
        words::time(e.length as f64),
        words::rate(e.bytes / seconds),
        words::flops(e.flops / seconds)
    );
    if !kernel.dst.is_empty() {
        hint += &format!("\n{} gives {}", kernel.src.join(", "), kernel.dst);
    }
    hint
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::colour::Ops;
    use wgpu_llm::low_level::profile::Profile;
    use wgpu_llm::low_level::profile::statistics::Phase;
    use wgpu_llm::low_level::profile::{DeviceFacts, Facts, KernelFacts};

    /// Runs of 400 kernels in four layers on the second device, 100 ns each, one after the other.
    fn profile(runs: u32) -> Profile {
        let kernel =
            |layer| KernelFacts { device: 1, op: "matmul".into(), label: "q".into(), layer, ..KernelFacts::default() };
        let run = |run| Run {
            run,
            tokens: 1,
            start: u64::from(run) * 40_000,
            end: u64::from(run + 1) * 40_000,
            ..Run::default()
        };
        let event = |i| Event {
            kernel: i % 400 / 100,
            run: i / 400,
            start: u64::from(i) * 100,
            length: 100,
            ..Event::default()
        };
        Profile {
            facts: Facts { devices: vec![DeviceFacts::default(); 2], ..Facts::default() },
            kernels: (0..4).map(|layer| kernel(Some(layer))).collect(),
            runs: (0..runs).map(run).collect(),
            events: (0..runs * 400).map(event).collect(),
        }
    }

    #[test]
    fn of_many_events_those_that_can_be_seen_are_drawn() {
        let (profile, ops) = (profile(500), Ops::default());
        let scene = Scene { profile: &profile, phase: Phase::All, ops: &ops, version: 0 };
        let rows = |span| {
            let mut rows = vec![Vec::new(); 7];
            slices(&scene, span, 1000.0).iter().for_each(|s| rows[s.row].push((s.start, s.end, s.what.name(&scene))));
            rows
        };
        // All: 20 µs to a point.
        let all = rows((0.0, 20e6));
        assert!(all[..4].iter().all(Vec::is_empty), "neither the host nor the first device did anything");
        assert_eq!((all[4].len(), all[5].len()), (500, 2000));
        assert!((2000..=3000).contains(&all[6].len()), "{} of 200000 kernels", all[6].len());
        assert!(all[6].windows(2).all(|w| w[1].0 - w[0].1 < 20e3), "no point is left empty");
        // A microsecond of the second run, and what touches it.
        let part = rows((45_000.0, 46_000.0));
        assert_eq!(
            part[6].iter().map(|k| k.0).collect::<Vec<_>>(),
            (0..12).map(|i| 44_900.0 + 100.0 * f64::from(i)).collect::<Vec<_>>()
        );
        assert_eq!(part[6][0].2, "matmul q");
        assert_eq!(
            (&part[5][..], &part[4][..]),
            (&[(40e3, 50e3, "layer 0".into())][..], &[(40e3, 80e3, "token 0".into())][..])
        );
    }

    #[test]
    fn hints_tell_the_time_of_all_kernels() {
        let (profile, ops) = (profile(1), Ops::default());
        let scene = Scene { profile: &profile, phase: Phase::All, ops: &ops, version: 0 };
        let all = slices(&scene, (0.0, 40e3), 1000.0);
        let hints: Vec<String> = all.iter().map(|s| s.what.hint(&scene)).collect();
        assert!(hints.contains(&"token 0: 40.0 µs of kernels".into()), "{hints:?}");
        assert!(hints.contains(&"layer 3: 10.0 µs of kernels".into()), "{hints:?}");
        assert!(hints[0].starts_with("matmul/ q, layer 0\n100 ns, "), "{hints:?}");
    }
}
