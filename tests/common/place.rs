//! A folder with a tiny model in it, and the program run there as a user would.
// Each test file uses a part of this.
#![allow(dead_code)]

use super::fixture;
use serde_json::{Value as Json, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The program with an environment of its own.
pub fn program(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgpu-llm"));
    command.env_clear().env("HOME", home).env("HF_HUB_CACHE", home).env("HF_HUB_OFFLINE", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A folder with a model file in it.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub model: PathBuf,
}

impl Place {
    pub fn new(bytes: &[u8]) -> Place {
        let dir = tempfile::tempdir().expect("a folder");
        let model = dir.path().join("model.gguf");
        fs::write(&model, bytes).expect("written");
        Place { dir, model }
    }

    /// With the tiny model, after `change` to its specification.
    pub fn with(change: impl FnOnce(&mut Json)) -> Place {
        let mut json = fixture::talker();
        change(&mut json);
        Place::new(&fixture::bytes(&json).expect("well formed"))
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = program(self.dir.path());
        command.current_dir(self.dir.path()).args(args).arg("-m").arg(&self.model);
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("runs")
    }

    /// What the chat makes of the lines in `input`, greedily on the CPU.
    pub fn chat(&self, input: impl AsRef<[u8]>, args: &[&str]) -> Output {
        talk(self.command(&["chat", "--device", "cpu", "--temp", "0"]).args(args), input)
    }

    /// A file in the folder.
    pub fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).expect("written");
        path
    }
}

/// What the program makes of `input` from a pipe.
pub fn talk(command: &mut Command, input: impl AsRef<[u8]>) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("runs");
    // A program that ends early closes the pipe: that is no failure of the test.
    let _ = child.stdin.take().expect("piped").write_all(input.as_ref());
    child.wait_with_output().expect("ends")
}

/// Sets a text among a specification's keys.
pub fn set(json: &mut Json, key: &str, value: &str) {
    fixture::set(json, key, json!(["STRING"]), value.into());
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
pub fn expect(output: &Output, code: i32, says: &str) {
    assert_eq!(output.status.code(), Some(code), "{}{}", stdout(output), stderr(output));
    assert!(stderr(output).contains(says), "{:?} lacks {says:?}", stderr(output));
}

/// The command's standard output, as JSON.
#[track_caller]
pub fn parsed(output: &Output) -> Json {
    expect(output, 0, "");
    serde_json::from_str(&stdout(output)).unwrap_or_else(|e| panic!("{e}: {}", stdout(output)))
}
