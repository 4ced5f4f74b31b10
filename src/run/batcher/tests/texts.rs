//! From tokens to text: whole characters, stop strings, end tokens.

use super::*;
use crate::base::uniform;
use crate::text::{DetokenizeOptions, Detokenizer};

/// What a script of tokens becomes, by token: the texts, the last one being what was held back.
fn texts(script: &[u32], stops: &[&str], change: fn(&mut Request)) -> (Vec<String>, Choice) {
    let mut batcher = batcher();
    batcher.compute_mut().scripts.insert(1, script.to_vec());
    let stops = stops.iter().map(|stop| stop.to_string()).collect();
    let mut request = Request { prompt: vec![1], ignore_end: false, stops, ..request("", script.len()) };
    change(&mut request);
    let mut record = Record::new(request.clone(), batcher.submit(request).expect("sound"));
    let mut handle = record.handle.take().expect("there");
    let mut texts = Vec::new();
    while !record.has_ended() {
        batcher.step().expect("it goes on");
        while let Some(event) = handle.try_next() {
            if let Event::Token { text, .. } | Event::Done { text, .. } = &event {
                texts.push(text.clone());
            }
            record.take(event);
        }
    }
    check_empty_after(batcher);
    (texts, record.choices.remove(0))
}

fn check_empty_after(mut batcher: Batcher<Fake>) {
    while batcher.step().expect("it goes on") {}
    check_empty(&mut batcher);
}

#[test]
fn characters_come_when_they_are_whole() {
    let (got, choice) = texts(&bytes("aé天🙂"), &[], |_| {});
    assert_eq!(got, ["a", "", "é", "", "", "天", "", "", "", "🙂", ""]);
    assert_eq!((choice.finish, choice.stop), (Some(FinishReason::Limit), None));
}

#[test]
fn what_is_no_character_is_replaced() {
    let (got, _) = texts(&[byte(b'a'), byte(0xe5), byte(0xa4), byte(b'b'), byte(0xff), byte(0xf0)], &[], |_| {});
    assert_eq!(got, ["a", "", "", "\u{fffd}b", "\u{fffd}", "", "\u{fffd}"]);
}

#[test]
fn a_token_that_ends_the_answer_is_not_part_of_it() {
    let script = [bytes("ab"), vec![END], bytes("c")].concat();
    let (got, choice) = texts(&script, &[], |_| {});
    assert_eq!((got.concat(), choice.tokens), ("ab".to_owned(), bytes("ab")));
    assert_eq!((choice.finish, choice.stop, choice.usage.tokens), (Some(FinishReason::Stop), None, 2));
    let (got, choice) = texts(&script, &[], |request| request.ignore_end = true);
    assert_eq!((got.concat(), choice.tokens), ("abc".to_owned(), script.clone()));
    let (got, _) = texts(&script, &[], |request| (request.ignore_end, request.show_special) = (true, true));
    assert_eq!(got.concat(), "ab</s>c");
}

#[test]
fn a_stop_string_ends_the_answer_and_is_not_sent() {
    let (got, choice) = texts(&bytes("xENEND!"), &["", "!!", "END"], |_| {});
    assert_eq!(got, ["x", "", "", "EN", "", "", ""]);
    assert_eq!((choice.finish, choice.stop.as_deref()), (Some(FinishReason::Stop), Some("END")));
    assert_eq!(choice.tokens, bytes("xENEND"));
}

#[test]
fn of_several_stop_strings_the_first_that_is_whole_counts() {
    for (text, stops, stop, before) in [
        ("xabcd", vec!["abcd", "abc"], "abc", "x"),
        ("xabcd", vec!["abcd", "bc"], "bc", "xa"),
        ("xabcd", vec!["b", "abcd"], "b", "xa"),
        ("xyab", vec!["yab", "ab"], "yab", "x"),
    ] {
        let (got, choice) = texts(&bytes(text), &stops, |_| {});
        assert_eq!((got.concat().as_str(), choice.stop.as_deref()), (before, Some(stop)));
    }
}

#[test]
fn what_was_no_stop_string_comes_in_the_end() {
    let (got, choice) = texts(&bytes("the EN"), &["END"], |_| {});
    assert_eq!(got, ["t", "h", "e", " ", "", "", "EN"]);
    assert_eq!((choice.finish, choice.stop), (Some(FinishReason::Limit), None));
}

#[test]
fn of_stop_strings_in_one_token_the_first_that_is_whole_counts() {
    for (stops, stop, before) in
        [(["abca", "abc"], "abc", "x"), (["cab", "ab"], "ab", "x"), (["cab", "bca"], "bca", "xa")]
    {
        let (got, choice) = texts(&[byte(b'x'), WORD], &stops, |_| {});
        assert_eq!((got.concat().as_str(), choice.stop.as_deref()), (before, Some(stop)));
    }
}

/// Random bytes, of which many are no characters, against the detokenizer and a search in the whole text.
#[test]
fn the_text_does_not_depend_on_how_tokens_cut_it() {
    let alphabet = [b'a', b'b', b'a', b'b', 0xc3, 0xa9, 0xe5, 0xa4, 0xa9];
    let stops = ["abab", "bbb", "éa", "\u{fffd}\u{fffd}\u{fffd}b"];
    let mut found = 0;
    for seed in 0..300 {
        let n = alphabet.len() as f32;
        let script: Vec<_> = (0..60).map(|i| byte(alphabet[(uniform(seed, i) * n) as usize])).collect();
        let (got, choice) = texts(&script, &stops, |_| {});
        let vocabulary = vocabulary();
        let options = DetokenizeOptions { continued: true, ..DetokenizeOptions::default() };
        let mut decoder = Detokenizer::new(vocabulary.tokenizer().expect("there"), options);
        let (mut text, mut stop) = (String::new(), None);
        for token in &script {
            text += decoder.push(*token);
            stop = stops.iter().filter_map(|stop| text.find(stop).map(|at| (at + stop.len(), at, *stop))).min();
            if stop.is_some() {
                break;
            }
        }
        match stop {
            Some((_, at, _)) => text.truncate(at),
            None => text += decoder.finish(),
        }
        found += stop.is_some() as usize;
        assert_eq!((got.concat(), choice.stop.as_deref()), (text, stop.map(|stop| stop.2)));
    }
    assert!(found > 50 && found < 300, "{found}");
}
