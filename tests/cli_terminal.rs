//! The chat on a terminal: what is typed ahead, what goes to a file and what to the screen, and how one leaves.
#![cfg(all(unix, feature = "cli"))]

#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/place.rs"]
mod place;
#[path = "common/pty.rs"]
mod pty;

use place::{Place, expect, stdout};
use pty::{Elsewhere, Terminal};
use std::fs::{self, File};
use std::process::Command;

/// The line editor, and a terminal that it can do nothing with.
const TERMS: [&str; 2] = ["xterm", "dumb"];

fn chat(place: &Place, term: &str) -> Command {
    let mut command = place.command(&["chat", "--device", "cpu", "--temp", "0", "-n", "3"]);
    command.env("TERM", term);
    command
}

/// A chat that waits for the first prompt.
fn started(place: &Place, term: &str) -> Terminal {
    let mut terminal = Terminal::start(chat(place, term), Elsewhere::default());
    terminal.wait_for(">>> ");
    terminal
}

#[test]
fn lines_that_arrive_together_are_all_taken() {
    let place = Place::with(|_| {});
    for term in TERMS {
        let mut terminal = started(&place, term);
        terminal.send("one\rtwo\rthree\r\"\"\"\rfirst\rsecond\r\"\"\"\r/show history\r");
        for asked in ["user: one", "user: two", "user: three", "user: first\r\nsecond\r\n"] {
            terminal.wait_for(asked);
        }
        terminal.send("/exit\r");
        assert_eq!(terminal.wait(), Some(0), "{term}");
    }
}

#[test]
fn what_is_typed_during_an_answer_is_the_next_prompt() {
    let place = Place::with(|_| {});
    for term in TERMS {
        let mut terminal = started(&place, term);
        terminal.send("one\r");
        for next in ["two", "three", "four"] {
            // The editor has let go of the terminal, and is not back yet.
            terminal.wait_for("\r\n");
            terminal.send(&format!("{next}\r"));
        }
        terminal.send("/show history\r");
        for asked in ["user: one", "user: two", "user: three", "user: four"] {
            terminal.wait_for(asked);
        }
        terminal.send("/exit\r");
        assert_eq!(terminal.wait(), Some(0), "{term}");
    }
}

#[test]
fn answers_go_to_a_file_and_the_rest_to_the_terminal() {
    let place = Place::with(|_| {});
    let piped = place.chat("one\ntwo\n", &["-n", "3"]);
    expect(&piped, 0, "");
    let path = place.dir.path().join("answers.txt");
    for (term, quiet) in [("xterm", false), ("dumb", false), ("xterm", true), ("dumb", true)] {
        let stderr = quiet.then(|| File::create(place.dir.path().join("stderr.txt")).unwrap());
        let stdout_file = Some(File::create(&path).unwrap());
        let mut terminal = Terminal::start(chat(&place, term), Elsewhere { stdout: stdout_file, stderr });
        terminal.wait_for(">>> ");
        terminal.send("one\r");
        terminal.wait_for("one");
        terminal.wait_for(">>> ");
        terminal.send("two\r/exit\r");
        assert_eq!(terminal.wait(), Some(0), "{term}");
        assert_eq!(fs::read_to_string(&path).unwrap(), stdout(&piped), "{term}, {quiet}");
    }
}

#[test]
fn a_line_that_says_goodbye_leaves() {
    let place = Place::with(|_| {});
    for word in ["exit", "quit", "bye"] {
        let mut terminal = started(&place, "xterm");
        terminal.send(&format!("{word}\r"));
        assert_eq!(terminal.wait(), Some(0), "{word}");
    }
    // From a pipe it is a prompt.
    let output = place.chat("exit\n/show history\n", &["-n", "3"]);
    expect(&output, 0, "user: exit");
}

#[test]
fn ctrl_c_drops_what_is_typed_and_leaves_an_empty_line() {
    let place = Place::with(|_| {});
    let mut terminal = started(&place, "xterm");
    for half in ["half a line", "another half"] {
        terminal.send(half);
        terminal.wait_for(half);
        terminal.send("\x03");
        terminal.wait_for("Ctrl-C again");
        terminal.wait_for(">>> ");
    }
    terminal.send("\"\"\"\r");
    terminal.wait_for("... ");
    terminal.send("\x03");
    terminal.wait_for("Ctrl-C again");
    terminal.wait_for(">>> ");
    terminal.send("\x03");
    assert_eq!(terminal.wait(), Some(130));
}

#[test]
fn a_mistake_on_a_terminal_is_told_and_the_chat_goes_on() {
    let place = Place::with(|_| {});
    let mut terminal = started(&place, "xterm");
    terminal.send(&format!("{}\r", "y".repeat(300)));
    terminal.wait_for("this prompt takes 303 tokens");
    terminal.wait_for(">>> ");
    terminal.send("a\x16\x04b\r/show history\r");
    terminal.wait_for("user: a");
    // Before the editor is there, it would be the end of a line that nobody reads.
    terminal.wait_for(">>> ");
    terminal.send("\x04");
    assert_eq!(terminal.wait(), Some(0));
}

#[test]
fn without_a_text_nothing_waits_for_the_terminal() {
    let place = Place::with(|_| {});
    for command in ["complete", "tokenize", "perplexity"] {
        let mut terminal = Terminal::start(place.command(&[command]), Elsewhere::default());
        terminal.wait_for("there is no text");
        assert_eq!(terminal.wait(), Some(2), "{command}");
    }
    let mut terminal = Terminal::start(place.command(&["tokenize", "-f", "-"]), Elsewhere::default());
    terminal.send("a\n\x04");
    terminal.wait_for("\"a\"");
    assert_eq!(terminal.wait(), Some(0));
}
