//! A plan for the device draws the tokens that the chain it stands for draws: the sampler against the op `sample`.

use wgpu_llm::low_level::base::{DType, Meta, View, ViewMut};
use wgpu_llm::low_level::ops::{DrawNumber, Op, Sample, SampleParams, Serial};
use wgpu_llm::low_level::sample::{Sampler, SamplerOptions, VocabInfo, uniform};

/// The op's token for the draw at `step`.
/// The position of the first token that is drawn.
const FIRST: u32 = 17;

fn by_the_op(params: SampleParams, logits: &[f32], step: u32) -> u32 {
    let words = params.words();
    let (tokens, mut drawn) = ([0u32], [0u32]);
    // Draws are counted from the position of the first drawn token, which the logits of the position before it give.
    let mut pos = [FIRST + step - 1];
    let list = |n| Meta::new(DType::U32, [n]);
    let src = [
        View::new(list(1), bytemuck::cast_slice(&tokens)),
        View::new(Meta::f32([1, logits.len()]), bytemuck::cast_slice(logits)),
        View::new(list(8), bytemuck::cast_slice(&words)),
        View::empty(list(1)),
    ];
    let positions = ViewMut { meta: list(1), data: bytemuck::cast_slice_mut(&mut pos) };
    let drawn_to = ViewMut { meta: list(1), data: bytemuck::cast_slice_mut(&mut drawn) };
    Sample.cpu_updating(&src, drawn_to, &mut [positions], &Serial);
    drawn[0]
}

#[test]
fn plan_and_chain_draw_the_same_tokens() {
    const TOKENS: usize = 3000;
    let rows: Vec<Vec<f32>> = (0..10).map(|row| (0..TOKENS as u64).map(|i| uniform(row, i) * 14.0).collect()).collect();
    let defaults = SamplerOptions::default();
    let cases = [
        defaults.clone(),
        SamplerOptions::greedy(),
        SamplerOptions { temp: 1.7, top_k: 128, min_p: 0.0, ..defaults.clone() },
        SamplerOptions { temp: 1.0, top_p: 1.0, min_p: 0.2, ..defaults.clone() },
        SamplerOptions { top_k: 1, ..defaults },
    ];
    for options in cases {
        for seed in 0..4 {
            let info = VocabInfo { tokens: TOKENS, context: 512, dry_breakers: &[] };
            let mut sampler =
                Sampler::new(&SamplerOptions { seed: Some(seed << 31), ..options.clone() }, &info).unwrap();
            let plan = sampler.device_plan().expect("a chain the device can do");
            let params = SampleParams {
                temp: plan.temp,
                top_k: plan.top_k,
                top_p: plan.top_p,
                min_p: plan.min_p,
                seed: plan.seed,
                draw: DrawNumber::From(FIRST),
            };
            for (step, row) in rows.iter().cycle().take(50).enumerate() {
                let want = by_the_op(params, row, step as u32);
                assert_eq!(
                    sampler.sample(row, &[]).unwrap(),
                    want,
                    "{} at step {step} of seed {seed}",
                    sampler.chain()
                );
            }
        }
    }
}
