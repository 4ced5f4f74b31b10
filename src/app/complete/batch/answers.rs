//! The file of answers: a line of JSON each, in OpenAI's form, added one by one. What is there already is not done again.

use super::Asked;
use super::request::Url;
use crate::app::complete::several::Completed;
use crate::base::{Error, Result, replace_with};
use crate::run::schedule::FinishReason;
use serde_json::{Value as Json, json};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What each line begins with, so that a torn one is known as ours.
const BEGINNING: &[u8] = b"{\"id\":";

/// A file of answers, at its end.
pub struct Answers {
    path: PathBuf,
    file: File,
    /// The ids of requests that have an answer.
    done: HashSet<String>,
}

/// Whether a line is an answer of ours, and then whose, if it is no failure.
fn of_line(line: &[u8]) -> Option<Option<String>> {
    let answer: Json = serde_json::from_slice(line).ok()?;
    let ours = ["custom_id", "response", "error"].iter().all(|key| answer.get(key).is_some());
    ours.then(|| answer["custom_id"].as_str().filter(|_| answer["error"].is_null()).map(str::to_owned))
}

impl Answers {
    /// Opens the file at `path`, or makes one. Failures go, since their requests are tried again, and so does a torn last line, of a
    /// process that was killed. A file of something else is left alone.
    pub fn open(path: &Path) -> Result<Answers> {
        let failed = |e| Error::io("can't open the file for the answers", e).at(path.display());
        let there = std::fs::metadata(path).ok();
        if there.is_some_and(|there| !there.is_file()) || path == Path::new("-") {
            return Err(Error::usage("answers go to a file").at(path.display()).help("name a file with -o"));
        }
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(path) {
            file.read_to_end(&mut bytes).map_err(failed)?;
        }
        let (mut done, mut kept) = (HashSet::new(), Vec::new());
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            match of_line(line) {
                Some(None) => {}
                Some(Some(id)) => {
                    kept.extend_from_slice(line.trim_ascii_end());
                    kept.push(b'\n');
                    done.insert(id);
                }
                None if line.trim_ascii().is_empty() => {}
                None if !line.ends_with(b"\n") && (line.starts_with(BEGINNING) || BEGINNING.starts_with(line)) => {}
                None => {
                    let error = Error::usage("this file is not one of answers").at(path.display());
                    return Err(error.help("name another one with -o"));
                }
            }
        }
        if kept != bytes {
            replace_with(path, |e| e, |out| out.write_all(&kept)).map_err(failed)?;
        }
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(failed)?;
        Ok(Answers { path: path.to_owned(), file, done })
    }

    /// Whether the request of this id has an answer.
    pub fn has(&self, custom_id: &str) -> bool {
        self.done.contains(custom_id)
    }

    /// Adds an answer: a whole line at once, so that a process that is stopped leaves no half of one.
    pub fn add(&mut self, answer: &Json) -> Result<()> {
        self.file.write_all(format!("{answer}\n").as_bytes()).map_err(|e| {
            Error::io("can't write the answer", e).at(self.path.display()).help("check the room on the disk")
        })
    }
}

/// The line for a request that has an answer.
pub fn success(asked: Asked, answer: Completed) -> Json {
    let Completed { content, reasoning, tokens, finish, prompt, cached, .. } = answer;
    let finish = if finish == FinishReason::Stop { "stop" } else { "length" };
    let (new, number) = (tokens.len(), asked.number);
    let usage = json!({
        "prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new,
        "prompt_tokens_details": {"cached_tokens": cached},
    });
    let (kind, object, mut choice) = match asked.url {
        Url::Chat => {
            let mut message = json!({"role": "assistant", "content": content});
            if !reasoning.is_empty() {
                message["reasoning_content"] = reasoning.into();
            }
            ("chatcmpl", "chat.completion", json!({"index": 0, "message": message}))
        }
        Url::Completion => ("cmpl", "text_completion", json!({"index": 0, "text": content})),
    };
    choice["logprobs"] = Json::Null;
    choice["finish_reason"] = finish.into();
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
    let body = json!({
        "id": format!("{kind}-{number}"), "object": object, "created": created,
        "model": asked.model.as_deref().unwrap_or("wgpu-llm"), "choices": [choice], "usage": usage,
    });
    json!({
        "id": format!("batch_req_{number}"), "custom_id": asked.custom_id,
        "response": {"status_code": 200, "request_id": format!("req_{number}"), "body": body}, "error": null,
    })
}

/// The line for a request that cannot be answered.
pub fn failure(custom_id: Option<String>, message: String) -> Json {
    json!({
        "id": null, "custom_id": custom_id, "response": null,
        "error": {"code": "invalid_request_error", "message": message},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "{\"id\":\"1\",\"custom_id\":\"a\",\"response\":{\"text\":\"café\"},\"error\":null}\n";
    const FAILED: &str = "{\"id\":null,\"custom_id\":\"b\",\"response\":null,\"error\":{\"message\":\"no\"}}\n";

    #[test]
    fn whole_answers_stay_and_failures_and_torn_lines_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("answers.jsonl");
        // Torn within a character, within the beginning, and nowhere: only the newline is missing.
        let torn = &WHOLE.as_bytes()[..WHOLE.find('é').unwrap() + 1];
        for (last, kept) in [(torn, 1), (b"{\"i".as_slice(), 1), (WHOLE.trim_end().as_bytes(), 2)] {
            std::fs::write(&path, [FAILED.as_bytes(), WHOLE.as_bytes(), last].concat()).unwrap();
            let mut answers = Answers::open(&path).unwrap();
            assert!(answers.has("a") && !answers.has("b"));
            answers.add(&serde_json::json!({"id": "2"})).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), WHOLE.repeat(kept) + "{\"id\":\"2\"}\n");
        }
    }

    #[test]
    fn files_of_something_else_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious.json");
        for text in
            ["{\"precious\":[1,2,3]}", "{\"custom_id\":\"a\",\"url\":\"/v1/completions\"}\n", "a letter\n", "letter"]
        {
            std::fs::write(&path, text).unwrap();
            assert!(Answers::open(&path).is_err(), "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert!(Answers::open(dir.path()).is_err() && Answers::open(Path::new("-")).is_err());
    }
}
