//! Many answers at once as a user meets them: `complete --parallel`, and files of requests. No answer depends on how many there are.
#![cfg(feature = "cli")]

#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/place.rs"]
mod place;

use place::{Place, expect, stderr, stdout, talk};
use serde_json::{Value as Json, json};
use std::process::Output;

/// Flags that forbid all tokens but the printable ones, so that nothing ends early.
fn endless() -> Vec<String> {
    (96..128).flat_map(|id| ["--logit-bias".to_string(), format!("{id}-inf")]).collect()
}

/// What the program makes of prompts in a file.
fn lines(place: &Place, prompts: &str, args: &[&str]) -> Output {
    let file = place.write("prompts.txt", prompts);
    let ban = endless();
    let ban: Vec<&str> = ban.iter().map(String::as_str).collect();
    let fixed = ["complete", "--device", "cpu", "-f", file.to_str().unwrap()];
    place.run(&[&fixed[..], args, &ban].concat())
}

fn json_lines(output: &Output) -> Vec<Json> {
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Prompts of many lengths; some begin alike, one goes on as another's answer might.
fn prompts() -> String {
    let system = "You are a helpful assistant. Answer in one word, without any punctuation at all: ";
    let of = |i: usize| match i % 4 {
        0 => format!("{system}what is {i}?"),
        1 => "abc".repeat(1 + i),
        2 => format!("\"line {i}\\nnext\""),
        _ => format!("hello {i}"),
    };
    (0..13).map(|i| of(i) + "\n").collect()
}

#[test]
fn answers_do_not_depend_on_how_many_are_computed_at_once() {
    let place = Place::with(|_| {});
    for sampling in [
        &["--temp", "0"][..],
        &["-s", "7", "--temp", "1.2"],
        &["-s", "7", "--repeat-penalty", "1.3", "--dry-multiplier", "0.5"],
        &["-s", "7", "--mirostat", "2"],
    ] {
        let run = |n: &str| {
            let output = lines(&place, &prompts(), &[&["--parallel", n, "--json", "-n", "12"], sampling].concat());
            expect(&output, 0, "13 answers in ");
            json_lines(&output)
        };
        let (one, some, many) = (run("1"), run("8"), run("64"));
        assert_eq!(one.len(), 13);
        for (i, answer) in one.iter().enumerate() {
            assert_eq!(
                (answer["index"].as_u64(), answer["tokens"].as_array().map(Vec::len)),
                (Some(i as u64), Some(12))
            );
            // A seed is given, or the draw needs none.
            if sampling[0] == "-s" {
                assert_eq!(answer["seed"], 7 + i as u64);
            }
        }
        let without_seed = |answers: &[Json]| {
            let texts = answers.iter().map(|answer| (answer["text"].clone(), answer["tokens"].clone()));
            texts.collect::<Vec<_>>()
        };
        assert_eq!(without_seed(&one), without_seed(&some), "{sampling:?}");
        assert_eq!(without_seed(&one), without_seed(&many), "{sampling:?}");
    }
}

#[test]
fn an_answer_is_what_its_prompt_gets_alone() {
    let place = Place::with(|_| {});
    let args = ["--parallel", "4", "-s", "3", "--json", "-n", "9"];
    let all = json_lines(&lines(&place, "hello\n\nabc abc\n   \n\"one\\ntwo\"\n", &args));
    assert_eq!(all.len(), 3, "empty lines are no prompts");
    for (answer, prompt) in all.iter().zip(["hello", "abc abc", "one\ntwo"]) {
        let seed = answer["seed"].to_string();
        let ban = endless();
        let ban: Vec<&str> = ban.iter().map(String::as_str).collect();
        let alone = ["complete", "--device", "cpu", "-p", prompt, "-s", &seed, "--json", "-n", "9"];
        let mut alone = place::parsed(&place.run(&[&alone[..], &ban].concat()));
        alone["index"] = answer["index"].clone();
        assert_eq!(alone.as_object(), answer.as_object());
    }
}

#[test]
fn lines_are_answered_in_order_and_a_prompt_that_is_too_long_has_an_error_in_its_place() {
    let place = Place::with(|_| {});
    let long = "x".repeat(400);
    let prompts = format!("hello\n{long}\n\"broken\nabc\n");
    let text = lines(&place, &prompts, &["-np", "2", "--temp", "0", "-n", "5"]);
    assert_eq!(text.status.code(), Some(1), "{}", stderr(&text));
    let said = stderr(&text);
    assert!(said.contains("2 of 4 prompts have no answer") && said.contains("2 answers in "), "{said}");
    let out = String::from_utf8(text.stdout).unwrap();
    let out: Vec<&str> = out.lines().collect();
    assert_eq!(out.len(), 4);
    assert!(out[1].starts_with("error: this prompt takes 400 tokens, and the context has 256"), "{}", out[1]);
    assert!(out[2].starts_with("error: a prompt that begins with \" is a JSON string"), "{}", out[2]);

    let json = lines(&place, &prompts, &["-np", "2", "--temp", "0", "-n", "5", "--json"]);
    let of = |line: &str| serde_json::from_str::<Json>(line).expect("JSON");
    let records: Vec<Json> = String::from_utf8(json.stdout).unwrap().lines().map(of).collect();
    assert_eq!((&records[1]["index"], &records[1]["error"]["prompt_tokens"]), (&1.into(), &400.into()));
    assert_eq!(records[1]["error"]["context"], 256);
    assert!(records[2]["error"]["message"].is_string());
    for i in [0, 3] {
        let answer = records[i]["text"].as_str().unwrap();
        let quoted = answer.starts_with('"') || answer.contains('\n');
        assert_eq!(out[i], if quoted { Json::from(answer).to_string() } else { answer.to_owned() });
        assert_eq!((&records[i]["stop"], &records[i]["truncated"]), (&"length".into(), &false.into()));
    }
    // A full context is never silent.
    let full = lines(&place, "hello\nabc\n", &["-np", "2", "--temp", "0", "-n", "-1", "-c", "32", "--json"]);
    expect(&full, 0, "2 of the answers end because the context of 32 tokens is full");
    let full = json_lines(&full);
    assert!(full.iter().all(|answer| answer["truncated"] == true && answer["stop"] == "length"));
    assert_eq!(full[0]["tokens"].as_array().unwrap().len(), 28, "as without --parallel");
}

#[test]
fn prompts_come_from_a_pipe_too_and_what_makes_no_sense_is_refused() {
    let place = Place::with(|_| {});
    let base = ["complete", "--device", "cpu", "-np", "3", "-n", "2", "--temp", "0"];
    let piped = talk(&mut place.command(&[&base[..], &["-f", "-"]].concat()), "a\nb\nc\n");
    expect(&piped, 0, "answering standard input: 3 prompts");
    assert_eq!(stdout(&piped).lines().count(), 3);
    for (args, says) in [
        (&["-f", "x", "-n", "-2"][..], "-n -2 is for one text"),
        (&["-f", "x", "--context-shift"], "--context-shift is for one text"),
        (&["-p", "x"], "--parallel answers the lines of a file"),
        (&["-f", "x", "-np", "0"], "--parallel <N>"),
        (&["-f", "x", "-np", "257"], "--parallel <N>"),
    ] {
        expect(&place.run(&[&base[..], args].concat()), 2, says);
    }
    expect(&place.run(&["chat", "-np", "2"]), 2, "there is no -np here: there is no server for other programs yet");
    let empty = talk(&mut place.command(&[&base[..], &["-f", "-"]].concat()), "\n\n");
    assert_eq!(stdout(&empty), "");
}

/// A file of requests of all kinds.
fn requests() -> Vec<Json> {
    let chat = |i: usize, body: Json| {
        let text = format!("Hello there, how are you today, number {i}?");
        let mut all = json!({"messages": [{"role": "user", "content": text}], "max_tokens": 10});
        all.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        json!({"custom_id": format!("c{i}"), "url": "/v1/chat/completions", "body": all})
    };
    let plain = |i: usize, body: Json| {
        let mut all = json!({"prompt": "abc".repeat(1 + i), "max_tokens": 8});
        all.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        json!({"custom_id": format!("p{i}"), "url": "/v1/completions", "body": all})
    };
    let of = |i: usize| match i % 5 {
        0 => chat(i, json!({"temperature": 0})),
        1 => plain(i, json!({"seed": i})),
        2 => chat(i, json!({"temperature": 1.3, "top_p": 0.8, "seed": i})),
        3 => plain(i, json!({"temperature": 0, "stop": ["e", "a"]})),
        _ => plain(i + 100, json!({})),
    };
    (0..15).map(of).collect()
}

/// What stands in a file of answers, by the requests' names, without what may differ from run to run.
fn answers(path: &std::path::Path) -> std::collections::BTreeMap<String, Json> {
    let text = std::fs::read_to_string(path).expect("readable");
    let of = |line: &str| {
        let mut answer: Json = serde_json::from_str(line).expect("JSON");
        if let Some(body) = answer["response"]["body"].as_object_mut() {
            body.remove("created");
            body["usage"].as_object_mut().unwrap().remove("prompt_tokens_details");
        }
        (answer["custom_id"].as_str().unwrap().to_owned(), answer)
    };
    text.lines().map(of).collect()
}

#[test]
fn a_file_of_requests_has_the_same_answers_however_many_are_computed_at_once() {
    let place = Place::with(|_| {});
    let all: Vec<String> = requests().iter().map(Json::to_string).collect();
    let file = place.write("requests.jsonl", all.join("\n"));
    let run = |n: &str, answers: &std::path::Path, says: &str| {
        let files = ["--batch-file", file.to_str().unwrap(), "-o", answers.to_str().unwrap(), "-np", n];
        let more = ["complete", "--device", "cpu", "-s", "5", "--repeat-penalty", "1.1"];
        expect(&place.run(&[&more[..], &files].concat()), 0, says);
    };
    let [one, eight] = ["one", "eight"].map(|name| place.dir.path().join(name));
    run("1", &one, "15 answers, 3 of them errors");
    run("8", &eight, "15 answers, 3 of them errors");
    assert_eq!(answers(&one), answers(&eight));
    assert!(answers(&one).values().any(|answer| answer["response"]["body"]["choices"][0]["finish_reason"] == "stop"));
    // What is there is not done again.
    let text = std::fs::read_to_string(&eight).unwrap();
    let whole: Vec<&str> = text.lines().filter(|line| !line.contains("\"response\":null")).collect();
    std::fs::write(&eight, whole[..5].join("\n") + "\n" + &whole[5][..50]).unwrap();
    run("8", &eight, "10 answers, 3 of them errors, 5 were there before");
    assert_eq!(answers(&one), answers(&eight));
}
