//! Flags as llama.cpp's users type them, variables of the environment, and what the process does before anything else.
#![cfg(feature = "cli")]

#[path = "common/fixture.rs"]
mod fixture;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use wgpu_llm::low_level::simd::Level;

/// The program with an environment of its own, and a tiny model in its folder.
struct Program {
    dir: tempfile::TempDir,
}

impl Program {
    fn new() -> Program {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("model.gguf"), fixture::bytes(&fixture::talker()).expect("well formed"))
            .expect("written");
        Program { dir }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wgpu-llm"));
        let home: &Path = self.dir.path();
        command.env_clear().env("HOME", home).env("HF_HUB_CACHE", home).env("HF_HUB_OFFLINE", "1").current_dir(home);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("runs")
    }

    /// What the chat answers to the lines of `input`, greedily on the CPU.
    fn chat(&self, input: &str, args: &[&str]) -> Output {
        let all = [&["chat", "-m", "model.gguf", "-dev", "cpu", "--temp", "-1"], args].concat();
        let mut child = self.command(&all).stdin(Stdio::piped()).spawn().expect("runs");
        // A program that ends early closes the pipe: that is no failure of the test.
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        child.wait_with_output().expect("ends")
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn expect(output: &Output, code: i32, says: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{}{stderr}", stdout(output));
    assert!(stderr.contains(says), "{stderr:?} lacks {says:?}");
}

#[test]
fn llama_cpps_command_lines_run() {
    let program = Program::new();
    let line = "complete -m model.gguf -dev cpu -ngl -1 -c -1 -t -1 -s -1 --temperature -1 --top-k -1 --top-n-sigma -1 --predict 7 \
                -n 4 -fa on --jinja -no-cnv --no-warmup --samplers top_k;temperature -p hello --json";
    let output = program.run(&line.split_whitespace().collect::<Vec<_>>());
    expect(&output, 0, "");
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(json["tokens"].as_array().unwrap().len(), 4, "the last -n counts");
    let off = ["complete", "-m", "model.gguf", "-dev", "cpu", "-n", "2", "-p", "- hello", "-fa", "off"];
    expect(&program.run(&off), 0, "warning: -fa off changes nothing: attention is always fused here");
    expect(&program.run(&["complete", "-mg", "0", "-p", "a"]), 2, "there is no -mg here: one GPU and the CPU for now");
    expect(&program.run(&["chat", "-no-cnv"]), 2, "`complete` goes on with a text");
    expect(&program.run(&["complete", "-mgg", "1"]), 2, "unknown flag -mgg");
}

#[test]
fn an_empty_variable_is_none() {
    let program = Program::new();
    // The token that ends an answer is never drawn, whatever the seed.
    let endless = ["complete", "-m", "model.gguf", "-p", "a", "-n", "2", "-dev", "cpu", "-l", "99-inf"];
    let mut command = program.command(&endless);
    for name in [
        "SEED",
        "TEMP",
        "TOP_K",
        "N_PREDICT",
        "FILE",
        "PROMPT",
        "OFFLINE",
        "MODEL",
        "CTX_SIZE",
        "OVERRIDE_TENSOR",
        "JSON",
    ] {
        command.env(format!("WGPU_LLM_{name}"), "");
    }
    expect(&command.output().unwrap(), 0, "2 new");
    let mut command = program.command(&["complete", "-m", "model.gguf", "-p", "a", "-n", "2", "-dev", "cpu"]);
    expect(&command.env("WGPU_LLM_SEED", "x").output().unwrap(), 2, "-1 for another seed each time");
}

#[test]
fn a_wrong_level_is_an_error_and_a_right_one_is_taken() {
    let program = Program::new();
    let line = ["bench", "-m", "model.gguf", "-dev", "cpu", "-p", "4", "-n", "0", "-r", "1", "--json"];
    let at = |level: &str| program.command(&line).env("WGPU_LLM_SIMD", level).output().unwrap();
    let known: Vec<&str> = Level::available().map(Level::name).collect();
    expect(&at("avx9"), 2, "there are no CPU instructions named \"avx9\"");
    expect(&at("avx 2"), 2, &format!("this machine has {}", known.join(", ")));
    let lacking = Level::ALL.into_iter().find(|l| !l.is_available()).expect("x86's or ARM's");
    expect(&at(lacking.name()), 2, &format!("this machine cannot run {}", lacking.name()));
    // The portable ones, which debug builds run slowly, are named alone; the others measure.
    let (portable, fast): (Vec<_>, Vec<_>) = known.into_iter().partition(|name| name.starts_with("portable"));
    for name in portable {
        let output =
            program.command(&["tokenize", "-m", "model.gguf", "a"]).env("WGPU_LLM_SIMD", name).output().unwrap();
        expect(&output, 0, "");
    }
    for name in fast {
        // In any case of letters.
        let rows: serde_json::Value = serde_json::from_str(&stdout(&at(&name.to_uppercase()))).unwrap();
        assert_eq!(rows[0]["simd"], name);
    }
    let rows: serde_json::Value = serde_json::from_str(&stdout(&at(""))).unwrap();
    assert_eq!(rows[0]["simd"], Level::best().name());
}

/// With penalties another answer differs from the first only if the first is still remembered.
#[test]
fn another_answer_is_not_penalized_for_the_one_it_replaces() {
    let program = Program::new();
    let penalties = ["-n", "12", "--frequency-penalty", "2", "--repeat-penalty", "1.3", "--repeat-last-n", "-1"];
    let output = program.chat("hello there\n/regen\n/regen\n", &penalties);
    expect(&output, 0, "");
    let answers = stdout(&output);
    assert!(answers.len() > 15, "{answers:?}");
    let first = &answers.as_bytes()[..answers.len() / 3];
    assert_eq!(answers.as_bytes(), first.repeat(3), "{answers:?}");
}

#[test]
fn an_answer_until_the_context_is_full_forgets_nothing() {
    let program = Program::new();
    let ban: Vec<String> = (96..128).map(|id| format!("--logit-bias={id}-inf")).collect();
    let flags = |n: &'static str| ban.iter().map(String::as_str).chain(["-n", n]).collect::<Vec<_>>();
    let full = program.chat("hello\nhello\n", &flags("-2"));
    expect(&full, 0, "the context is full: the answer ends here");
    let stderr = String::from_utf8_lossy(&full.stderr);
    assert_eq!(stderr.matches("the answer ends here").count(), 2, "{stderr}");
    // To make room for the second question, not in the middle of an answer.
    assert!(stderr.matches("forgotten").count() <= 1, "{stderr}");
}

/// Mesa's layer writes to standard error where there is no display.
#[test]
fn nothing_is_written_to_standard_error_at_the_start() {
    let output = Program::new().run(&["--list-devices"]);
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    assert!(stdout(&output).contains("cpu"));
}
