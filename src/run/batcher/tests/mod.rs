//! The batcher with an engine made of arrays: each rule by itself, and all of them under random requests.

mod devices;
mod endings;
mod fake;
mod record;
mod requests;
mod sampling;
mod simulation;
mod texts;
mod threads;

use super::*;
use crate::base::ErrorKind;
use crate::run::schedule::{FinishReason, Settings};
use crate::sample::SamplerOptions;
use crate::state::{GroupSpec, PoolSpec};
use crate::text::{SpecialIds, Tokenizer, VocabSource};
use fake::Fake;
use record::{Choice, Record};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Tokens of the vocabulary: three special ones, one for each byte, and a word.
const VOCAB: usize = 260;
/// The word: `abcab`.
const WORD: u32 = 259;
/// The token that ends an answer.
const END: u32 = 2;

/// The token that stands for a byte.
fn byte(byte: u8) -> u32 {
    3 + byte as u32
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(byte).collect()
}

struct Bytes(Tokenizer);

impl Vocabulary for Bytes {
    fn size(&self) -> usize {
        VOCAB
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        Some(&self.0)
    }
}

/// A vocabulary of bytes.
fn vocabulary() -> Arc<dyn Vocabulary> {
    static BYTES: LazyLock<Arc<Bytes>> = LazyLock::new(|| {
        let special = [("<unk>", 2), ("<s>", 3), ("</s>", 3)].map(|(text, kind)| (text.to_owned(), kind));
        let all = special.into_iter().chain((0..=255).map(|byte| (format!("<0x{byte:02X}>"), 6)));
        let all = all.chain([("abcab".to_owned(), 1)]);
        let (tokens, types): (Vec<_>, Vec<_>) = all.map(|(text, kind)| (text.into_bytes(), kind)).unzip();
        let ids = SpecialIds { unk: Some(0), bos: Some(1), eos: Some(END), ..SpecialIds::default() };
        let scores = Some(vec![0.0; tokens.len()]);
        let source = VocabSource {
            model: "llama".to_owned(),
            tokens,
            token_types: Some(types),
            scores,
            ids,
            ..VocabSource::default()
        };
        Arc::new(Bytes(Tokenizer::new(source).expect("sound")))
    });
    BYTES.clone()
}

/// A pool with groups of a window and pages that can be handed out.
fn spec(groups: &[(Option<usize>, usize)]) -> PoolSpec {
    let group = |(window, pages): &(Option<usize>, usize)| GroupSpec { window: *window, pages: pages + 1 };
    PoolSpec { groups: groups.iter().map(group).collect(), slots: 0, snapshots: 8 }
}

fn batcher_with(groups: &[(Option<usize>, usize)], settings: Settings, fake: Fake) -> Batcher<Fake> {
    Batcher::new(fake, vocabulary(), spec(groups), settings)
}

/// A batcher with plenty of pages.
fn batcher() -> Batcher<Fake> {
    let groups = [(None, 200)];
    batcher_with(&groups, Settings::default(), Fake::new(&spec(&groups)))
}

/// Greedy, and nothing but the limit ends it.
fn request(prompt: &str, limit: usize) -> Request {
    let sampling = SamplerOptions { seed: Some(5), ..SamplerOptions::greedy() };
    Request { ignore_end: true, sampling, ..Request::new(bytes(prompt), limit) }
}

/// Sampling that only the host can do.
fn on_host(seed: u64) -> SamplerOptions {
    SamplerOptions { seed: Some(seed), repeat_penalty: 1.3, ..SamplerOptions::default() }
}

/// Steps until nothing is left, and takes the events of all handles.
fn run(batcher: &mut Batcher<Fake>, records: &mut [Record]) {
    for _ in 0..100_000 {
        let left = batcher.step().expect("the engine recovers");
        records.iter_mut().for_each(Record::pump);
        if !left {
            return;
        }
    }
    panic!("{:?}", batcher.counts());
}

/// What becomes of one request.
fn run_one(batcher: &mut Batcher<Fake>, request: Request) -> Record {
    let handle = batcher.submit(request.clone()).expect("it can run");
    let mut record = Record::new(request, handle);
    run(batcher, std::slice::from_mut(&mut record));
    record
}

/// Nothing is left in the pool, once the cached prefixes are dropped.
fn check_empty(batcher: &mut Batcher<Fake>) {
    assert!(batcher.is_idle());
    batcher.forget_prefixes();
    let pool = batcher.scheduler().pool();
    pool.check().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(pool.sequences(), 0);
    for group in 0..batcher.compute().groups() {
        let usage = pool.usage(group);
        assert_eq!(usage.free, usage.pages, "pages of group {group} are lost");
    }
}
