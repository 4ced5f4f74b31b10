//! Once warm, drawing a token allocates nothing: counted by the allocator of this test binary.

#[path = "common/counting.rs"]
mod counting;

use counting::allocations;
use wgpu_llm::low_level::sample::{Sampler, SamplerOptions, VocabInfo, uniform};

#[test]
fn a_warm_sampler_allocates_nothing() {
    const TOKENS: usize = 5_000;
    let everything = SamplerOptions {
        logit_bias: vec![(5, 1.0)],
        repeat_penalty: 1.1,
        repeat_last_n: 32,
        dry_multiplier: 0.8,
        dry_penalty_last_n: 64,
        top_n_sigma: 3.0,
        typical_p: 0.95,
        xtc_probability: 0.5,
        dynatemp_range: 0.2,
        seed: Some(1),
        ..Default::default()
    };
    let cases = [
        SamplerOptions { seed: Some(1), ..Default::default() },
        SamplerOptions::greedy(),
        SamplerOptions { top_k: 0, ..everything.clone() },
        SamplerOptions { mirostat: 1, ..everything.clone() },
        SamplerOptions { mirostat: 2, ..everything.clone() },
        SamplerOptions { adaptive_target: 0.3, ..everything.clone() },
        everything,
    ];
    let breakers = [vec![3], vec![4, 5]];
    let info = VocabInfo { tokens: TOKENS, context: 4096, dry_breakers: &breakers };
    // A different row per token, so that different numbers of tokens survive each stage.
    let rows: Vec<Vec<f32>> = (0..8).map(|row| (0..TOKENS as u64).map(|i| uniform(row, i) * 12.0).collect()).collect();
    for options in cases {
        let mut sampler = Sampler::new(&options, &info).expect("options are sound");
        let mut text = Vec::with_capacity(500);
        let mut draw = |i: usize| {
            let token = sampler.sample(&rows[i % rows.len()], &text).expect("logits are finite");
            sampler.accept(token);
            text.push(token);
        };
        (0..300).for_each(&mut draw);
        let before = allocations();
        (300..500).for_each(&mut draw);
        assert_eq!(allocations() - before, 0, "{}", sampler.chain());
    }
}
