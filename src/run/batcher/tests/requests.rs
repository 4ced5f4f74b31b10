//! Which requests are taken, and what is reported before their first token.

use super::*;
use crate::run::schedule::SubmitError;
use std::error::Error;

#[test]
fn what_cannot_be_answered_is_refused() {
    let settings = Settings { context: 10, outputs: 4, queue: 1, ..Settings::default() };
    let mut batcher = batcher_with(&[(None, 20)], settings, Fake::new(&spec(&[(None, 20)])));
    let _waits = batcher.submit(request("x", 1)).expect("sound");
    let ok = request("prompt", 1);
    let sampling = SamplerOptions { top_p: 2.0, ..SamplerOptions::default() };
    let cases = [
        (Request { prompt: vec![], ..ok.clone() }, "the prompt is empty"),
        (request("a long prompt", 1), "has 13 tokens, which exceeds the available context size of 10"),
        (Request { choices: 0, ..ok.clone() }, "0 choices were asked for: 1 to 4 are possible"),
        (Request { choices: 5, ..ok.clone() }, "5 choices"),
        (Request { prompt: vec![VOCAB as u32], ..ok.clone() }, "token 260 is outside the vocabulary of 260"),
        (Request { logprobs: Some(21), ..ok.clone() }, "21 tokens were asked for; ask for 0 to 20"),
        (Request { sampling, ..ok.clone() }, "top_p is 2"),
        (ok, "1 requests wait already"),
    ];
    for (request, message) in cases {
        let error = batcher.submit(request).expect_err(message);
        assert!(error.kind() == ErrorKind::Usage && error.to_string().contains(message), "{error}");
    }
    let error = batcher.submit(request("x", 1)).expect_err("the queue is full");
    let source = error.source().and_then(|source| source.downcast_ref::<SubmitError>());
    assert_eq!(source, Some(&SubmitError::QueueFull { waiting: 1 }));
    while batcher.step().expect("it goes on") {}
    check_empty(&mut batcher);
}

#[test]
fn stop_strings_need_a_tokenizer() {
    struct Ids;
    impl Vocabulary for Ids {
        fn size(&self) -> usize {
            VOCAB
        }
        fn tokenizer(&self) -> Option<&Tokenizer> {
            None
        }
    }
    let spec = spec(&[(None, 20)]);
    let mut batcher = Batcher::new(Fake::new(&spec), Arc::new(Ids), spec, Settings::default());
    let with_stop = |stop: &str| Request { stops: vec![stop.to_owned()], ..request("x", 5) };
    assert!(batcher.submit(with_stop("a")).expect_err("no text").to_string().contains("need a tokenizer"));
    let record = run_one(&mut batcher, with_stop(""));
    assert_eq!((record.only().text.as_str(), record.only().tokens.len()), ("", 5));
}

#[test]
fn progress_of_a_prompt_is_reported_piece_by_piece() {
    let settings = Settings { prompt_rows: 32, ..Settings::default() };
    let mut batcher = batcher_with(&[(None, 20)], settings, Fake::new(&spec(&[(None, 20)])));
    let prompt = "x".repeat(100);
    let record = run_one(&mut batcher, request(&prompt, 2));
    assert_eq!((record.queued, record.started), (Some(0), Some(0)));
    assert_eq!(record.progress, [(32, 0), (64, 0), (96, 0), (100, 0)]);
    assert_eq!(record.only().usage, Usage { prompt_tokens: 100, cached_tokens: 0, tokens: 2 });
    let again = run_one(&mut batcher, request(&prompt, 2));
    assert_eq!((again.started, &again.progress[..]), (Some(99), &[(100, 99)][..]));
    assert_eq!(again.only().usage.cached_tokens, 99);
    assert_eq!(again.only().tokens, record.only().tokens);
    batcher.forget_prefixes();
    assert_eq!(run_one(&mut batcher, request(&prompt, 2)).started, Some(0));
}

#[test]
fn a_prompt_that_another_computes_is_shared() {
    let settings = Settings { prompt_rows: 64, ..Settings::default() };
    let mut batcher = batcher_with(&[(None, 20)], settings, Fake::new(&spec(&[(None, 20)])));
    let prompt = "y".repeat(200);
    let mut records: Vec<_> = (0..3)
        .map(|i| request(&format!("{prompt}{i}"), 3))
        .map(|request| Record::new(request.clone(), batcher.submit(request).expect("sound")))
        .collect();
    run(&mut batcher, &mut records);
    let cached: Vec<_> = records.iter().map(|record| record.only().usage.cached_tokens).collect();
    assert_eq!(cached, [0, 200, 200]);
    assert_eq!(records[1].progress, [(200, 200), (201, 200)]);
    check_empty(&mut batcher);
}

#[test]
fn lower_priorities_go_first() {
    let settings = Settings { sequences: 1, ..Settings::default() };
    let mut batcher = batcher_with(&[(None, 20)], settings, Fake::new(&spec(&[(None, 20)])));
    let prompts = [("a", 1), ("b", 0), ("c", -1)];
    let mut records: Vec<_> = prompts
        .into_iter()
        .map(|(prompt, priority)| Request { priority, ..request(prompt, 3) })
        .map(|request| Record::new(request.clone(), batcher.submit(request).expect("sound")))
        .collect();
    let mut order = Vec::new();
    while batcher.step().expect("it goes on") {
        records.iter_mut().for_each(Record::pump);
        let ended = records.iter().enumerate().filter(|(_, record)| record.has_ended()).map(|(i, _)| i);
        order.extend(ended.filter(|i| !order.contains(i)).collect::<Vec<_>>());
    }
    assert_eq!(order[..2], [2, 1]);
    assert_eq!(records.iter().map(|record| record.queued).collect::<Vec<_>>(), [Some(0); 3]);
}
