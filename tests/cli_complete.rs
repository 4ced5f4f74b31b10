//! `complete` as a user meets it: what happens when the context is full, and files of requests.
#![cfg(feature = "cli")]

#[path = "common/cli.rs"]
mod cli;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/place.rs"]
mod place;

use cli::{stderr, stdout};
use place::Place;
use serde_json::{Value as Json, json};
use std::process::Output;

fn parsed(output: &Output) -> Json {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_str(&stdout(output)).unwrap_or_else(|e| panic!("{e}: {}", stdout(output)))
}

/// Flags that forbid all tokens but the printable ones, so that nothing ends early.
fn endless() -> Vec<String> {
    (96..128).flat_map(|id| ["--logit-bias".to_string(), format!("{id}-inf")]).collect()
}

fn complete(place: &Place, args: &[&str]) -> Output {
    let ban = endless();
    let ban: Vec<&str> = ban.iter().map(String::as_str).collect();
    let fixed = ["complete", "--device", "cpu", "--temp", "0", "-p", "hello", "-c", "32"];
    place.run(&[&fixed[..], args, &ban].concat())
}

fn ids(json: &Json) -> Vec<u32> {
    json.as_array().expect("an array").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

#[test]
fn a_full_context_is_never_silent() {
    let place = Place::with(|_| {});
    let full = complete(&place, &["-n", "-1"]);
    assert!(stderr(&full).contains("the context of 32 tokens is full: the text ends here"), "{}", stderr(&full));
    let full = parsed(&complete(&place, &["-n", "-1", "--json"]));
    assert_eq!((&full["stop"], &full["truncated"]), (&"length".into(), &true.into()));
    assert_eq!(ids(&full["tokens"]).len(), 28, "5 of the prompt, 27 behind it, and one that is not in the cache");
    let short = parsed(&complete(&place, &["-n", "3", "--json"]));
    assert_eq!((&short["stop"], &short["truncated"]), (&"length".into(), &false.into()));
}

#[test]
fn a_shifted_context_goes_on_as_a_fresh_prompt_would() {
    let place = Place::with(|_| {});
    let shifted = parsed(&complete(&place, &["-n", "60", "--json", "--context-shift"]));
    let tokens = ids(&shifted["tokens"]);
    assert_eq!((tokens.len(), &shifted["truncated"]), (60, &false.into()));
    let prompt = ids(&parsed(&place.run(&["tokenize", "--json", "hello"]))["tokens"]);
    // Half of the 33 tokens are forgotten.
    let window = &[&prompt[..], &tokens[..28]].concat()[16..];
    let list = window.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let fresh = parsed(&place.run(&["eval", "--device", "cpu", "-c", "32", "--json", "--tokens", &list]));
    let logits = fresh["logits"][0].as_array().expect("logits").iter().map(|v| v.as_f64().expect("a number"));
    let best = logits.enumerate().take(96).max_by(|a, b| a.1.total_cmp(&b.1)).map(|(id, _)| id as u32);
    assert_eq!(Some(tokens[28]), best);
    // Kept tokens stay at the beginning.
    let kept = parsed(&complete(&place, &["-n", "60", "--json", "--context-shift", "--keep", "-1"]));
    assert_eq!((ids(&kept["tokens"]).len(), &ids(&kept["tokens"])[..28]), (60, &tokens[..28]));
    assert_ne!(ids(&kept["tokens"]), tokens);
    let nothing_left = complete(&place, &["-n", "60", "--context-shift", "--keep", "32"]);
    assert!(stderr(&nothing_left).contains("leaves no room"), "{}", stderr(&nothing_left));
}

/// The lines of a file, as JSON.
fn lines(path: &std::path::Path) -> Vec<Json> {
    let text = std::fs::read_to_string(path).expect("readable");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn a_file_of_requests_is_answered_and_a_stopped_job_goes_on() {
    let place = Place::with(|_| {});
    let chat = |id: &str, text: &str, more: Json| {
        let mut body = json!({"messages": [{"role": "user", "content": text}], "max_tokens": 6, "temperature": 0});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body}).to_string()
    };
    let requests = [
        chat("a", "Hi", json!({})),
        json!({"custom_id": "b", "url": "/v1/completions", "body": {"prompt": "abc", "max_tokens": 4, "seed": 7}})
            .to_string(),
        chat("c", "Hi", json!({"tools": []})),
        "not JSON".into(),
        chat("d", &"x".repeat(400), json!({})),
        json!({"custom_id": "e", "url": "/v1/embeddings", "body": {}}).to_string(),
        chat("f", "Hi", json!({"temperature": 1.5, "seed": 3, "top_p": 0.9})),
    ];
    let file = place.write("requests.jsonl", requests.join("\n"));
    let answers = place.dir.path().join("answers.jsonl");
    let run = || {
        let files = ["--batch-file", file.to_str().unwrap(), "-o", answers.to_str().unwrap()];
        let output = place.run(&[&["complete", "--device", "cpu"][..], &files].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    assert!(run().contains("7 answers, 4 of them errors"));
    let all = lines(&answers);
    let by = |id: &str| all.iter().find(|answer| answer["custom_id"] == id).unwrap_or_else(|| panic!("no {id}"));
    let a = &by("a")["response"]["body"];
    assert_eq!((&a["object"], &a["choices"][0]["finish_reason"]), (&"chat.completion".into(), &"length".into()));
    assert_eq!(
        (&a["usage"]["completion_tokens"], &a["choices"][0]["message"]["role"]),
        (&6.into(), &"assistant".into())
    );
    assert_eq!(by("b")["response"]["body"]["usage"]["prompt_tokens"], 3);
    for (id, text) in [("c", "unknown field `tools`"), ("d", "the context has 256"), ("e", "unknown variant")] {
        let message = by(id)["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(text), "{id}: {message}");
    }
    assert!(all.iter().any(|answer| answer["custom_id"].is_null()), "the line that is no JSON");

    // Killed within a line: what is whole stays, the rest is done again, to the same words.
    let whole = std::fs::read_to_string(&answers).unwrap();
    let good: Vec<&str> = whole.lines().filter(|line| line.contains("\"error\":null")).collect();
    let cut = good[0].to_owned() + "\n" + &good[1][..40];
    std::fs::write(&answers, &cut).unwrap();
    assert!(run().contains("6 answers, 4 of them errors, 1 were there before"));
    let text = |all: &[Json], id: &str| {
        let body = &all.iter().find(|answer| answer["custom_id"] == id).unwrap()["response"]["body"];
        body["choices"][0].clone()
    };
    for id in ["a", "b", "f"] {
        assert_eq!(text(&lines(&answers), id), text(&all, id), "{id}");
    }
    // A file of something else is not written to.
    let other = place.write("other.txt", "a letter\n");
    let output = place.run(&["complete", "--batch-file", file.to_str().unwrap(), "-o", other.to_str().unwrap()]);
    assert!(stderr(&output).contains("not one of answers") && std::fs::read_to_string(&other).unwrap() == "a letter\n");
}

#[test]
fn a_stop_string_ends_an_answer_and_is_not_part_of_it() {
    let place = Place::with(|_| {});
    let ask = |stop: Json| {
        let body = json!({"prompt": "hello", "max_tokens": 12, "temperature": 0, "stop": stop});
        let line = json!({"custom_id": "1", "url": "/v1/completions", "body": body}).to_string();
        let (file, answers) = (place.write("r.jsonl", line), place.dir.path().join("answers"));
        let _ = std::fs::remove_file(&answers);
        let ban = endless();
        let ban: Vec<&str> = ban.iter().map(String::as_str).collect();
        let files =
            ["complete", "--device", "cpu", "--batch-file", file.to_str().unwrap(), "-o", answers.to_str().unwrap()];
        let output = place.run(&[&files[..], &ban].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        lines(&answers)[0]["response"]["body"]["choices"][0].clone()
    };
    let whole = ask(json!(null));
    let text = whole["text"].as_str().unwrap().to_owned();
    assert_eq!((text.chars().count(), &whole["finish_reason"]), (12, &"length".into()));
    // Two characters that are two tokens.
    let stop: String = text.chars().skip(5).take(2).collect();
    let at = text.find(&stop).unwrap();
    let cut = ask(json!([stop, "never"]));
    assert_eq!((cut["text"].as_str().unwrap(), &cut["finish_reason"]), (&text[..at], &"stop".into()));
}

#[test]
fn a_prompt_that_is_refused_takes_nothing_of_a_cache_file_away() {
    let place = Place::with(|_| {});
    let run = |prompt: &str| {
        place.run(&["complete", "--device", "cpu", "-n", "4", "-c", "256", "--cache-file", "kept", "-p", prompt])
    };
    assert!(run("hello, what is the time over there?").status.success());
    let before = std::fs::read(place.dir.path().join("kept")).unwrap();
    let output = run(&"hello ".repeat(400));
    assert!(!output.status.success() && stderr(&output).contains("do not fit"), "{}", stderr(&output));
    assert_eq!(std::fs::read(place.dir.path().join("kept")).unwrap(), before);
}

#[test]
fn what_was_computed_is_kept_from_run_to_run() {
    let place = Place::with(|_| {});
    let ban = endless();
    let ban: Vec<&str> = ban.iter().map(String::as_str).collect();
    let run = |prompt: &str, more: &[&str]| {
        let fixed = ["complete", "--device", "cpu", "--temp", "0", "-n", "20", "-p", prompt];
        place.run(&[&fixed[..], more, &ban].concat())
    };
    let (prompt, kept) = ("hello, what is the time over there?", ["--cache-file", "kept"]);
    let plain = run(prompt, &[]);
    assert!(!stderr(&plain).contains("cache"), "{}", stderr(&plain));
    let first = run(prompt, &kept);
    let (size, path) =
        (|| std::fs::metadata(place.dir.path().join("kept")).unwrap().len(), place.dir.path().join("kept"));
    assert_eq!(stdout(&first), stdout(&plain));
    let says = stderr(&first);
    let written = format!("cache: writing {:.1} KiB to kept", size() as f64 / 1024.0);
    assert!(says.contains(&written) && !says.contains("cached"), "{says} lacks {written}");
    // The same again, what follows its answer, and what begins alike.
    let again = run(prompt, &kept);
    assert_eq!(stdout(&again), stdout(&plain));
    let says = stderr(&again);
    assert!(says.contains("cache: 54 tokens from kept") && says.contains("1 prompt token at"), "{says}");
    assert!(says.contains("(34 more were cached)"), "{says}");
    let longer = format!("{prompt}{} and then?", stdout(&plain).trim_end_matches('\n'));
    let (with, without) = (run(&longer, &kept), run(&longer, &[]));
    assert_eq!(stdout(&with), stdout(&without));
    assert!(stderr(&with).contains("(54 more were cached)"), "{}", stderr(&with));
    let other = run("hello, who is there?", &kept);
    assert_eq!(stdout(&other), stdout(&run("hello, who is there?", &[])));
    assert!(stderr(&other).contains("(9 more were cached)"), "{}", stderr(&other));

    // A file that is damaged counts as none, and is written anew.
    let whole = std::fs::read(&path).unwrap();
    for damaged in [&whole[..whole.len() - 1], &[&whole[..whole.len() - 1], &[whole[whole.len() - 1] ^ 1]].concat()] {
        std::fs::write(&path, damaged).unwrap();
        let output = run(prompt, &kept);
        assert_eq!(stdout(&output), stdout(&plain));
        let says = stderr(&output);
        assert!(
            says.contains("kept: the saved cache is damaged") && says.contains("everything is computed anew"),
            "{says}"
        );
        assert!(stderr(&run(prompt, &kept)).contains("(34 more were cached)"));
    }
    // What is something else stays as it is, and nothing is loaded for it.
    place.write("letter", "Dear Ann");
    let output = run(prompt, &["--cache-file", "letter"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("letter: the file is no saved cache of wgpu-llm") && output.stdout.is_empty());
    assert!(!stderr(&output).contains("model.gguf: llama"), "the model was opened: {}", stderr(&output));
    assert_eq!(std::fs::read_to_string(place.dir.path().join("letter")).unwrap(), "Dear Ann");
    let before = std::fs::read(&path).unwrap();
    let output = run(prompt, &["--cache-file", "kept", "--cache-type-k", "f32"]);
    assert!(
        output.status.code() == Some(2) && stderr(&output).contains("use --cache-type-k f16"),
        "{}",
        stderr(&output)
    );
    let output = Place::with(|json| json["seed"] = 5.into()).run(&[
        "complete",
        "-p",
        "a",
        "--cache-file",
        path.to_str().unwrap(),
    ]);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("is of the model"), "{}", stderr(&output));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    // It is for one text.
    let output = run(prompt, &["--cache-file", "kept", "--parallel", "2"]);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("--parallel"), "{}", stderr(&output));
}
