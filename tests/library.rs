//! The library as programs meet it: a model from a file, chats with it, replies piece by piece; and the examples, which are such programs.

#[path = "common/fixture.rs"]
mod fixture;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use wgpu_llm::{ChatOptions, DeviceChoice, FinishReason, Loader, Model, Notice, SamplerOptions};

/// The tiny model's token that ends an answer.
const END: u32 = 99;

/// A tiny model in a folder of its own, which goes with the guard.
fn file() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, fixture::bytes(&fixture::talker()).expect("well formed")).expect("written");
    (dir, path)
}

fn load() -> (tempfile::TempDir, Model) {
    let (dir, path) = file();
    let model = Loader::new(path).device(DeviceChoice::Cpu).context(256).load().expect("it loads");
    (dir, model)
}

/// Greedy, and of at most `limit` tokens.
fn greedy(limit: usize) -> ChatOptions {
    ChatOptions { limit, sampling: SamplerOptions { temp: 0.0, ..SamplerOptions::default() }, ..ChatOptions::default() }
}

#[test]
fn a_reply_comes_piece_by_piece_and_joins_the_conversation() {
    let (_dir, model) = load();
    let mut chat = model.chat(greedy(12)).expect("a chat");
    chat.set_system("Be brief.");
    let pieces: Vec<_> = chat.ask("Hi").expect("asked").map(|piece| piece.expect("a piece")).collect();
    assert_eq!(pieces.iter().filter(|piece| piece.token.is_some()).count(), 12);
    let text: String = pieces.iter().map(|piece| piece.content.as_str()).collect();
    assert!(!text.is_empty());
    let said: Vec<_> = chat.messages().iter().map(|m| m.content.as_ref().and_then(|c| c.as_text()).unwrap()).collect();
    assert_eq!(said, ["Be brief.", "Hi", text.as_str()]);
    // The same conversation anew, while the first still has its turns: one cache, two chats, the same words.
    let mut other = model.chat(greedy(12)).expect("another chat");
    other.set_system("Be brief.");
    let whole = other.ask("Hi").expect("asked").finish().expect("a reply");
    assert_eq!((whole.content.as_str(), whole.generation.finish), (text.as_str(), FinishReason::Limit));
    let more = chat.ask("More").expect("asked").finish().expect("a reply");
    assert_eq!((more.generation.tokens.len(), chat.messages().len(), other.messages().len()), (12, 5, 3));
}

#[test]
fn a_chat_goes_on_from_a_file_and_computes_only_what_is_new() {
    let (dir, model) = load();
    // Only tokens of one character, so that the text of a reply has the reply's tokens.
    let mut options = greedy(12);
    options.sampling.logit_bias = (96..128).map(|token| (token, f32::NEG_INFINITY)).collect();
    let mut chat = model.chat(options.clone()).expect("a chat");
    chat.ask("Hi").expect("asked").finish().expect("a reply");
    let path = dir.path().join("kept");
    let size = chat.save_cache(&path).expect("saved");
    assert_eq!(size, std::fs::metadata(&path).expect("a file").len());
    let messages = chat.messages().to_vec();
    let want = chat.ask("More").expect("asked").finish().expect("a reply");

    let model =
        Loader::new(dir.path().join("model.gguf")).device(DeviceChoice::Cpu).context(256).load().expect("it loads");
    let mut other = model.chat(options).expect("a chat");
    let tokens = other.load_cache(&path).expect("loaded");
    assert_eq!(other.messages(), messages);
    let got = other.ask("More").expect("asked").finish().expect("a reply");
    assert_eq!((&got.content, got.cached, want.cached), (&want.content, tokens, tokens));
    assert_eq!(got.generation.prompt_tokens, got.prompt - tokens);
    let error = other.load_cache(dir.path().join("none")).expect_err("no such file");
    assert!(error.to_string().contains("there is no such file"), "{error}");
    assert_eq!(other.messages().len(), 4, "the chat is as it was");
}

#[test]
fn a_reply_that_is_dropped_is_stopped_and_the_chat_goes_on() {
    let (_dir, model) = load();
    // The token that ends an answer is never drawn.
    let mut options = greedy(100);
    options.sampling.logit_bias = vec![(END, f32::NEG_INFINITY)];
    let mut chat = model.chat(options).expect("a chat");
    let mut reply = chat.ask("Hi").expect("asked");
    assert!(reply.next().is_some_and(|piece| piece.is_ok()));
    drop(reply);
    assert_eq!(chat.messages().len(), 2, "what came of it stays");
    drop(chat.ask("Never mind").expect("asked"));
    assert_eq!(chat.messages().len(), 2, "of what nobody heard nothing stays");
    assert!(chat.ask("And now?").expect("asked").finish().expect("a reply").generation.tokens.len() <= 100);
}

#[test]
fn chats_of_several_threads_take_turns() {
    let (_dir, model) = load();
    let ask = |text: &str| {
        let mut chat = model.chat(greedy(8)).expect("a chat");
        chat.ask(text).expect("asked").finish().expect("a reply").content
    };
    let alone = ["one", "two", "three"].map(ask);
    let together = std::thread::scope(|scope| {
        ["one", "two", "three"].map(|text| scope.spawn(move || ask(text))).map(|t| t.join().expect("no panic"))
    });
    assert_eq!(together, alone);
}

#[test]
fn a_question_that_does_not_fit_is_an_error_and_does_not_stay() {
    let (_dir, model) = load();
    let mut chat = model.chat(greedy(8)).expect("a chat");
    let error = chat.ask("x".repeat(400)).expect("asked").finish().expect_err("it is too long");
    assert!(error.to_string().contains("the context has 256"), "{error}");
    assert!(chat.messages().is_empty());
    assert!(chat.ask("short").expect("asked").finish().is_ok());
}

#[test]
fn a_text_is_continued() {
    let (_dir, model) = load();
    let mut text = String::new();
    // The token that ends an answer is never drawn.
    let logit_bias = vec![(END, f32::NEG_INFINITY)];
    let options = SamplerOptions { temp: 0.0, logit_bias, ..SamplerOptions::default() };
    let mut on_text = |piece: &str| {
        text += piece;
        ControlFlow::Continue(())
    };
    let done = model.complete("abc", 5, &options, &mut on_text).expect("it goes on");
    assert_eq!((done.tokens.len(), done.finish, done.prompt_tokens), (5, FinishReason::Limit, 3));
    assert!(!text.is_empty());
    assert_eq!((model.context(), model.placed()), (256, "the CPU: as --device cpu asks"));
}

#[test]
fn loading_is_heard_of_and_can_be_ended() {
    let (_dir, path) = file();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let notes = heard.clone();
    let loader = Loader::new(&path).device(DeviceChoice::Cpu).context(512).on_notice(move |notice| {
        notes.lock().unwrap().push(notice);
        Ok(())
    });
    loader.load().expect("it loads");
    let heard = heard.lock().unwrap();
    let [warning, Notice::Weights { done: 0, total }, .., Notice::Weights { done, .. }] = heard.as_slice() else {
        panic!("{heard:?}");
    };
    assert!(matches!(warning, Notice::Warning(text) if text.contains("trained with 256")), "{warning:?}");
    assert_eq!(done, total);
    let refused = |_| Err(wgpu_llm::Error::usage("not today"));
    let error = Loader::new(&path).device(DeviceChoice::Cpu).on_notice(refused).load().err().expect("it was ended");
    assert!(error.to_string().contains("not today"), "{error}");
    let error = Loader::new("nowhere.gguf").load().err().expect("no such file");
    assert!(error.to_string().contains("nowhere.gguf"), "{error}");
}

/// Runs an example on the tiny model; what it prints.
fn example(name: &str, args: &[&str]) -> String {
    let (dir, path) = file();
    // Cargo puts examples beside the tests' folder.
    let tests = std::env::current_exe().expect("this program");
    let program = tests.parent().and_then(|deps| deps.parent()).expect("a folder").join("examples").join(name);
    let mut command = Command::new(&program);
    command.arg(path).args(args).env("XDG_CACHE_HOME", dir.path()).env("WGPU_LLM_DEVICE", "cpu");
    let output = command.output().unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_examples_run() {
    // A line for each question; an answer may have more.
    assert!(example("chat", &["Hi", "And?"]).lines().count() >= 2);
    let words = example("own_sampler", &[]);
    assert!(words.trim().len() >= 12 && words.trim().chars().all(|c| c.is_alphabetic() || c == ' '), "{words}");
    assert!(example("profile", &[]).contains("µs a token"));
    // The same prompt gets the same answer, in whatever company.
    let many = example("many", &["Hi", "And?", "Hi"]);
    let answers: Vec<&str> = many.split("(16 tokens)\n").collect();
    assert_eq!((answers.len(), answers[0]), (4, answers[2]), "{many}");
    let alone = example("embed_async", &["Hi"]);
    assert_eq!(alone.trim_end(), answers[0].trim_end());
}
