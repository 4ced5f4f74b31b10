//! What a user types in a chat: prompts, `"""` blocks and slash commands, as data.

mod editor;
mod input;

pub use editor::Editor;
pub use input::{Blocks, Input};

use crate::base::{Error, Result};
use std::path::PathBuf;

/// A slash command.
#[derive(Debug, Clone, PartialEq)]
pub enum ReplCommand {
    /// Tell the commands.
    Help,
    /// Change a setting: `/set temp 0.2`.
    Set {
        /// A sampler flag's name without its dashes, `system`, or `think`.
        key: String,
        /// The new value.
        value: String,
    },
    /// Tell something: `/show model`.
    Show(Topic),
    /// Go on with a saved chat.
    Load(PathBuf),
    /// Save the chat.
    Save(PathBuf),
    /// Save it with what was computed of it.
    SaveCache(PathBuf),
    /// Forget the chat.
    Clear,
    /// Throw the last answer away and give another.
    Regen,
    /// Take a text file into the next prompt.
    Read(PathBuf),
    /// Leave.
    Exit,
}

/// What `/show` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// The model: architecture, sizes, format.
    Model,
    /// The settings in force.
    Settings,
    /// The system prompt.
    System,
    /// The chat template.
    Template,
    /// Tokens used, and how fast.
    Stats,
    /// The chat so far.
    History,
}

const TOPICS: &[(&str, Topic)] = &[
    ("model", Topic::Model),
    ("settings", Topic::Settings),
    ("system", Topic::System),
    ("template", Topic::Template),
    ("stats", Topic::Stats),
    ("history", Topic::History),
];

/// What `/help` prints.
pub const HELP: &str = "\
/set KEY VALUE   change a setting: temp, top-k, seed, system …   /set system You are brief.
/show TOPIC      model, settings, system, template, stats or history
/read FILE       take a text file into the next prompt
/regen           another answer to the last prompt
/clear           forget the chat
/save FILE       save the chat       /load FILE   go on with a saved one
/save --cache FILE   save it with what was computed: going on computes none of it again
/help            this                /exit        leave (exit, quit, bye and Ctrl-D too)
\"\"\"              begins and ends a prompt of several lines
Ctrl-C           stops an answer; again leaves
A line that begins with a space is never a command.
";

/// The names of the commands, for completion and hints.
pub const COMMANDS: &[&str] = &["/help", "/set", "/show", "/load", "/save", "/clear", "/regen", "/read", "/exit"];

impl ReplCommand {
    /// Whether `line` is meant as a command: it begins with a slash and a known name.
    pub fn is_known(line: &str) -> bool {
        name_of(line).is_some_and(|name| COMMANDS.contains(&name) || name == "/?" || name == "/bye" || name == "/quit")
    }

    /// Reads a line that begins with a slash. Fails, saying what to write, where it is no command.
    pub fn parse(line: &str) -> Result<ReplCommand> {
        let (name, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
        let rest = rest.trim();
        match name {
            "/help" | "/?" => alone(name, rest, ReplCommand::Help),
            "/clear" => alone(name, rest, ReplCommand::Clear),
            "/regen" => alone(name, rest, ReplCommand::Regen),
            "/exit" | "/bye" | "/quit" => alone(name, rest, ReplCommand::Exit),
            "/load" => file(name, rest).map(ReplCommand::Load),
            "/save" => {
                match rest.strip_prefix("--cache").filter(|rest| rest.trim_start() != *rest || rest.is_empty()) {
                    Some(rest) => file("/save --cache", rest.trim()).map(ReplCommand::SaveCache),
                    None => file(name, rest).map(ReplCommand::Save),
                }
            }
            "/read" => file(name, rest).map(ReplCommand::Read),
            "/show" => show(rest),
            "/set" => set(rest),
            _ => Err(unknown(name)),
        }
    }
}

fn name_of(line: &str) -> Option<&str> {
    line.starts_with('/').then(|| line.split_whitespace().next()).flatten()
}

fn alone(name: &str, rest: &str, command: ReplCommand) -> Result<ReplCommand> {
    if rest.is_empty() {
        return Ok(command);
    }
    Err(Error::usage(format!("{name} takes nothing after it"))
        .help("a prompt that begins with a slash needs a space before it"))
}

/// A path, which may be quoted, and may begin with `~`.
fn file(name: &str, rest: &str) -> Result<PathBuf> {
    let quoted = |q: char| rest.strip_prefix(q).and_then(|r| r.strip_suffix(q));
    let path = quoted('"').or_else(|| quoted('\'')).unwrap_or(rest);
    if path.is_empty() {
        return Err(Error::usage(format!("{name} needs a file")).help(format!("write {name} FILE")));
    }
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(inner), Some(home)) => Ok(home.join(inner)),
        _ => Ok(path.into()),
    }
}

fn show(rest: &str) -> Result<ReplCommand> {
    if rest.is_empty() {
        return Ok(ReplCommand::Show(Topic::Model));
    }
    let topic = TOPICS.iter().find(|(name, _)| *name == rest);
    topic.map(|(_, topic)| ReplCommand::Show(*topic)).ok_or_else(|| {
        let names: Vec<&str> = TOPICS.iter().map(|(name, _)| *name).collect();
        Error::usage(format!("nothing to show of {rest:?}"))
            .help(format!("write /show and one of {}", names.join(", ")))
    })
}

fn set(rest: &str) -> Result<ReplCommand> {
    let (key, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let (key, value) = (key.trim_start_matches('-').replace('_', "-"), value.trim().to_string());
    // An empty system prompt is one: the template's own is left out.
    if key.is_empty() || (value.is_empty() && key != "system") {
        return Err(Error::usage("/set needs a key and a value").help("write it as /set temp 0.2"));
    }
    Ok(ReplCommand::Set { key, value })
}

fn unknown(name: &str) -> Error {
    let near = COMMANDS.iter().find(|c| name.len() > 1 && (c.starts_with(name) || name.starts_with(**c)));
    let hint = near.map_or("/help lists the commands.".to_string(), |c| format!("did you mean {c}?"));
    Error::usage(format!("no command {name}"))
        .help(format!("{hint} A prompt that begins with a slash needs a space before it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let parse = |line: &str| ReplCommand::parse(line).unwrap();
        assert_eq!(parse("/help"), ReplCommand::Help);
        assert_eq!(parse("/bye "), ReplCommand::Exit);
        assert_eq!(parse("/show"), ReplCommand::Show(Topic::Model));
        assert_eq!(parse("/show stats"), ReplCommand::Show(Topic::Stats));
        assert_eq!(parse("/set temp 0.2"), ReplCommand::Set { key: "temp".into(), value: "0.2".into() });
        assert_eq!(parse("/set --top_k 1"), ReplCommand::Set { key: "top-k".into(), value: "1".into() });
        let system = ReplCommand::Set { key: "system".into(), value: "You  are brief.".into() };
        assert_eq!(parse("/set system  You  are brief."), system);
        assert_eq!(parse("/set system"), ReplCommand::Set { key: "system".into(), value: String::new() });
        assert_eq!(parse("/save a chat.json"), ReplCommand::Save("a chat.json".into()));
        assert_eq!(parse("/save --cache a chat"), ReplCommand::SaveCache("a chat".into()));
        assert_eq!(parse("/save --cached"), ReplCommand::Save("--cached".into()));
        assert_eq!(parse("/load \"a chat.json\""), ReplCommand::Load("a chat.json".into()));
        assert_eq!(parse("/read notes.txt"), ReplCommand::Read("notes.txt".into()));
    }

    #[test]
    fn every_command_of_the_list_is_known_and_in_the_help() {
        for name in COMMANDS {
            assert!(HELP.contains(name), "{name}");
            assert!(ReplCommand::is_known(name) && ReplCommand::is_known(&format!("{name} x")), "{name}");
        }
        for (name, topic) in TOPICS {
            assert_eq!(ReplCommand::parse(&format!("/show {name}")).unwrap(), ReplCommand::Show(*topic));
            assert!(HELP.contains(name), "{name}");
        }
    }

    #[test]
    fn mistakes_say_what_to_write() {
        let says = |line: &str| ReplCommand::parse(line).unwrap_err().to_string();
        assert!(says("/etc/passwd").contains("space"));
        assert!(says("/rege").contains("/regen"));
        assert!(says("/").contains("/help"));
        assert!(says("/clear all").contains("nothing after"));
        assert!(says("/save").contains("/save FILE"));
        assert!(says("/save --cache").contains("/save --cache FILE"));
        assert!(says("/set temp").contains("/set temp 0.2"));
        assert!(says("/show me").contains("template"));
        assert!(!ReplCommand::is_known("/etc/passwd") && !ReplCommand::is_known(" /help"));
    }
}
