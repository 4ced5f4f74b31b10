//! In steady decode the batcher allocates nothing but the texts of events: counted by the allocator of this test binary.

#[path = "common/counting.rs"]
mod counting;

use counting::allocations;
use std::sync::Arc;
use wgpu_llm::base::{Error, Result};
use wgpu_llm::low_level::run::batcher::{Batcher, Compute, Draw, Event, Request, Results, Vocabulary};
use wgpu_llm::low_level::run::schedule::{Settings, Step};
use wgpu_llm::low_level::sample::SamplerOptions;
use wgpu_llm::low_level::state::{GroupSpec, Pool, PoolSpec};
use wgpu_llm::low_level::text::{SpecialIds, Tokenizer, VocabSource};

const REQUESTS: usize = 16;
const VOCAB: usize = 259;

/// Draws the same token always.
struct Same {
    ahead: bool,
}

/// How many outputs there are, and how many of them are drawn on the host.
struct Pending(usize, usize);

impl Compute for Same {
    type Pending = Pending;

    fn runs_ahead(&self, _before: &Step, _next: &Step) -> bool {
        self.ahead
    }

    async fn submit(&mut self, _: &Step, _: &Pool, draws: &[Draw], _: Option<&[u32]>) -> Result<Pending> {
        Ok(Pending(draws.len(), draws.iter().filter(|draw| **draw == Draw::Host).count()))
    }

    async fn finish(&mut self, pending: Pending, results: &mut Results) -> Result<()> {
        results.tokens.resize(pending.0, 100);
        results.logits.resize(pending.1 * VOCAB, 0.5);
        Ok(())
    }

    async fn recover(&mut self, error: Error) -> Result<()> {
        Err(error)
    }
}

struct Bytes(Option<Tokenizer>);

impl Vocabulary for Bytes {
    fn size(&self) -> usize {
        VOCAB
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        self.0.as_ref()
    }
}

fn tokenizer() -> Tokenizer {
    let special = ["<unk>", "<s>", "</s>"].map(|text| (text.to_owned(), 3));
    let all = special.into_iter().chain((0..=255).map(|byte| (format!("<0x{byte:02X}>"), 6)));
    let (tokens, types): (Vec<_>, Vec<_>) = all.map(|(text, kind)| (text.into_bytes(), kind)).unzip();
    let ids = SpecialIds { unk: Some(0), bos: Some(1), eos: Some(2), ..SpecialIds::default() };
    let (model, scores) = ("llama".to_owned(), Some(vec![0.0; VOCAB]));
    Tokenizer::new(VocabSource { model, tokens, token_types: Some(types), scores, ids, ..VocabSource::default() })
        .expect("sound")
}

/// Allocations of 1,000 steps.
fn count(ahead: bool, sampling: SamplerOptions, tokenizer: Option<Tokenizer>) -> u64 {
    let groups = vec![GroupSpec { window: None, pages: 401 }];
    let pool = PoolSpec { groups, slots: 0, snapshots: 4 };
    let mut batcher = Batcher::new(Same { ahead }, Arc::new(Bytes(tokenizer)), pool, Settings::default());
    let submit = |i: usize| {
        let sampling = SamplerOptions { seed: Some(1), ..sampling.clone() };
        let prompt = (0..20).map(|token| (token + 10 * i) as u32).collect();
        batcher.submit(Request { sampling, ignore_end: true, ..Request::new(prompt, 1400) }).expect("it fits")
    };
    let mut handles: Vec<_> = (0..REQUESTS).map(submit).collect();
    let mut step = |n: usize| {
        let mut tokens = 0;
        for _ in 0..n {
            assert!(batcher.step().expect("nothing fails"));
            for handle in &mut handles {
                while let Some(event) = handle.try_next() {
                    tokens += matches!(event, Event::Token { .. }) as usize;
                }
            }
        }
        tokens
    };
    step(50);
    let before = allocations();
    assert_eq!(step(1000), 1000 * REQUESTS);
    allocations() - before
}

#[test]
fn the_batcher_allocates_nothing_in_steady_decode() {
    let on_host = SamplerOptions { repeat_penalty: 1.1, ..SamplerOptions::default() };
    for ahead in [false, true] {
        assert_eq!(count(ahead, SamplerOptions::default(), None), 0);
        assert_eq!(count(ahead, on_host.clone(), None), 0);
    }
}

#[test]
fn a_text_is_one_allocation() {
    assert_eq!(count(true, SamplerOptions::greedy(), Some(tokenizer())), (1000 * REQUESTS) as u64);
}
