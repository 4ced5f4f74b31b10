//! Which chains the device's sampling operation can do, and with which numbers.

use super::SamplerOptions;
use super::order::Kind;

/// Parameters of sampling on the device: top-k, top-p, min-p, temperature, draw, in this order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DeviceSampling {
    /// Temperature, above 0; 0 if the best token (of equal ones the lowest id) is taken and the rest does not matter.
    pub temp: f32,
    /// Tokens to keep, 1 to [`DeviceSampling::MAX_TOP_K`].
    pub top_k: u32,
    /// Probability to hold; 1: all of the top k.
    pub top_p: f32,
    /// Share of the highest probability; 0: all.
    pub min_p: f32,
    /// Seed for [`super::uniform`].
    pub seed: u64,
}

impl DeviceSampling {
    /// The most tokens the device keeps in order.
    pub const MAX_TOP_K: i32 = 128;
}

/// The plan of the active stages `order`, or `None` if one of them needs the CPU. The caller has seen to it that there
/// is no bias, no mirostat and no adaptive-p.
pub(super) fn plan(order: &[Kind], o: &SamplerOptions, seed: u64) -> Option<DeviceSampling> {
    use Kind::*;
    if o.is_greedy() && order.iter().all(|kind| matches!(kind, TopNSigma | TopK | TopP | MinP | Temperature)) {
        // None of these takes the best token away, wherever it stands.
        return Some(DeviceSampling { temp: 0.0, top_k: 1, top_p: 1.0, min_p: 0.0, seed });
    }
    let mut rest = order.iter().peekable();
    let mut next_is = |kind: Kind| rest.next_if(|&&next| next == kind).is_some();
    if o.is_greedy() || !next_is(TopK) || o.top_k > DeviceSampling::MAX_TOP_K {
        return None;
    }
    let top_p = if next_is(TopP) { o.top_p } else { 1.0 };
    let min_p = if next_is(MinP) { o.min_p } else { 0.0 };
    let temp = if next_is(Temperature) { o.temp } else { 1.0 };
    let simple = rest.next().is_none() && o.dynatemp_range <= 0.0 && o.min_keep <= 1;
    simple.then_some(DeviceSampling { temp, top_k: o.top_k as u32, top_p, min_p, seed })
}

#[cfg(test)]
mod tests {
    use super::super::{Sampler, VocabInfo};
    use super::*;

    type Change = fn(&mut SamplerOptions);

    fn plan_of(options: SamplerOptions) -> Option<DeviceSampling> {
        let info = VocabInfo { tokens: 1000, context: 64, dry_breakers: &[vec![1]] };
        Sampler::new(&options, &info).unwrap().device_plan()
    }

    fn defaults() -> SamplerOptions {
        SamplerOptions { seed: Some(9), ..Default::default() }
    }

    #[test]
    fn chains_the_device_can_do() {
        let usual = DeviceSampling { temp: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05, seed: 9 };
        let greedy = DeviceSampling { temp: 0.0, top_k: 1, top_p: 1.0, min_p: 0.0, seed: 9 };
        let seeded = |o: SamplerOptions| plan_of(SamplerOptions { seed: Some(9), ..o });
        assert_eq!(seeded(defaults()), Some(usual));
        assert_eq!(seeded(SamplerOptions::greedy()), Some(greedy));
        let reordered = SamplerOptions { samplers: "temperature;min_p;top_k".into(), ..SamplerOptions::greedy() };
        assert_eq!(seeded(reordered), Some(greedy));
        let missing = SamplerOptions { samplers: "top_k".into(), ..SamplerOptions::greedy() };
        assert_eq!(seeded(missing), Some(greedy));
        let bare = SamplerOptions { top_p: 1.0, min_p: 0.0, temp: 1.0, top_k: 128, ..defaults() };
        assert_eq!(seeded(bare), Some(DeviceSampling { temp: 1.0, top_k: 128, top_p: 1.0, min_p: 0.0, seed: 9 }));
        // Penalties of no effect are no penalties.
        assert_eq!(seeded(SamplerOptions { repeat_penalty: 1.3, repeat_last_n: 0, ..defaults() }), Some(usual));
    }

    #[test]
    fn chains_that_need_the_cpu() {
        let cases: [(&str, Change); 15] = [
            ("a large top-k", |o| o.top_k = 129),
            ("no top-k", |o| o.top_k = 0),
            ("bias", |o| o.logit_bias = vec![(1, 0.5)]),
            ("penalties", |o| o.repeat_penalty = 1.1),
            ("penalties, greedy", |o| (o.presence_penalty, o.temp) = (0.1, 0.0)),
            ("dry", |o| o.dry_multiplier = 0.8),
            ("top-n-sigma", |o| o.top_n_sigma = 1.0),
            ("typical", |o| o.typical_p = 0.9),
            ("typical, greedy", |o| (o.typical_p, o.temp) = (0.9, 0.0)),
            ("xtc", |o| o.xtc_probability = 0.5),
            ("dynamic temperature", |o| o.dynatemp_range = 0.1),
            ("mirostat", |o| o.mirostat = 2),
            ("adaptive-p", |o| o.adaptive_target = 0.3),
            ("min_keep", |o| o.min_keep = 2),
            ("another order", |o| o.samplers = "temperature;top_k;top_p;min_p".into()),
        ];
        for (name, change) in cases {
            let mut options = defaults();
            change(&mut options);
            assert_eq!(plan_of(options), None, "{name}");
        }
    }
}
