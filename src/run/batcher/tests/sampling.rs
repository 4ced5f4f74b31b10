//! Who draws tokens, with which random numbers, and how likely they were.

use super::fake::{device_draw, expected};
use super::*;
use crate::ops::Threads;

#[test]
fn each_choice_has_its_own_random_numbers() {
    for sampling in [SamplerOptions { seed: Some(9), ..SamplerOptions::default() }, on_host(9)] {
        let mut batcher = batcher();
        let one = run_one(&mut batcher, Request { sampling: sampling.clone(), ..request("prompt", 20) });
        let four = run_one(&mut batcher, Request { sampling, choices: 4, ..request("prompt", 20) });
        assert_eq!((one.seed, four.seed), (9, 9));
        assert_eq!(one.only().tokens, four.choices[0].tokens);
        for (i, choice) in four.choices.iter().enumerate() {
            assert_eq!(choice.tokens, expected(&[None], &four.request, i, 9, 1000).0);
            assert!(four.choices[..i].iter().all(|before| before.tokens != choice.tokens));
        }
        check_empty(&mut batcher);
    }
}

#[test]
fn a_request_without_a_seed_gets_one() {
    let mut batcher = batcher();
    let sampling = SamplerOptions::default();
    let records = [(); 2].map(|()| run_one(&mut batcher, Request { sampling: sampling.clone(), ..request("x", 20) }));
    assert_ne!(records[0].seed, records[1].seed);
    for record in &records {
        assert_eq!(record.only().tokens, expected(&[None], &record.request, 0, record.seed, 1000).0);
    }
}

#[test]
fn random_numbers_count_the_tokens_of_the_answer() {
    let mut batcher = batcher();
    let record = run_one(&mut batcher, request("x", 1));
    let hash = |tokens: &[u32]| expected(&[None], &Request { prompt: tokens.to_vec(), ..request("", 1) }, 0, 5, 1).0[0];
    assert_eq!(record.only().tokens[0], hash(&bytes("x")));
    assert_ne!(device_draw(1, 5, 0), device_draw(1, 5, 1));
}

#[test]
fn log_probabilities_are_those_of_the_raw_logits() {
    let logits = [0.0, 2.0f32.ln(), f32::NEG_INFINITY, 2.0f32.ln(), 3.0f32.ln()];
    let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
    let got = TokenLogprobs::of(&logits, 0, 3);
    assert!(close(got.chosen, (1.0f64 / 8.0).ln()), "{got:?}");
    assert_eq!(got.top.iter().map(|top| top.0).collect::<Vec<_>>(), [4, 1, 3]);
    assert!(got.top.iter().zip([3.0f64, 2.0, 2.0]).all(|(top, p)| close(top.1, (p / 8.0).ln())), "{got:?}");
    assert_eq!(TokenLogprobs::of(&logits, 2, 0), TokenLogprobs { chosen: -9999.0, top: vec![] });
    let all = TokenLogprobs::of(&logits, 4, 20);
    assert_eq!(all.top.iter().map(|top| top.0).collect::<Vec<_>>(), [4, 1, 3, 0, 2]);
    assert_eq!(all.top[4].1, TokenLogprobs::LEAST);
    assert_eq!(TokenLogprobs::of(&[-1e38, 3e38], 0, 1), TokenLogprobs { chosen: -9999.0, top: vec![(1, 0.0)] });
}

#[test]
fn log_probabilities_come_with_their_tokens() {
    let mut batcher = batcher();
    let greedy = run_one(&mut batcher, Request { logprobs: Some(3), ..request("prompt", 10) });
    for (token, logprobs) in greedy.only().tokens.iter().zip(&greedy.only().logprobs) {
        assert!(logprobs.top.len() == 3 && logprobs.top[0] == (*token, logprobs.chosen) && logprobs.chosen < 0.0);
    }
    assert_eq!(greedy.only().logprobs.len(), 10);
    let none = run_one(&mut batcher, Request { logprobs: Some(0), sampling: on_host(3), ..request("prompt", 10) });
    assert!(none.only().logprobs.len() == 10 && none.only().logprobs.iter().all(|logprobs| logprobs.top.is_empty()));
}

#[test]
fn rows_whose_tokens_the_host_draws_share_steps_with_others() {
    let mut batcher = batcher();
    let requests = [SamplerOptions::greedy(), on_host(1)].map(|sampling| Request { sampling, ..request("x", 100) });
    let submit = |request: Request| Record::new(request.clone(), batcher.submit(request).expect("sound"));
    let mut records = requests.map(submit);
    run(&mut batcher, &mut records);
    let steps = batcher.compute().seen.steps;
    assert!((100..110).contains(&steps), "{steps} steps for 100 tokens of both");
}

struct TwoThreads;

impl Threads for TwoThreads {
    fn threads(&self) -> usize {
        3
    }

    fn run(&self, f: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            (0..3).for_each(|thread| drop(scope.spawn(move || f(thread))));
        });
    }
}

#[test]
fn several_threads_draw_what_one_thread_draws() {
    let draw = |threads: Option<&'static (dyn Threads + Send + Sync)>| {
        let mut batcher = batcher();
        batcher.compute_mut().threads = threads;
        let requests = (0..10).map(|i| Request { sampling: on_host(i), choices: 2, ..request("together", 10) });
        let mut records: Vec<_> =
            requests.map(|request| Record::new(request.clone(), batcher.submit(request).expect("sound"))).collect();
        run(&mut batcher, &mut records);
        records.into_iter().flat_map(|record| record.choices).map(|choice| choice.tokens).collect::<Vec<_>>()
    };
    assert_eq!(draw(Some(&TwoThreads)), draw(None));
}
