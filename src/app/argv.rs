//! The command line as it was typed, made ready for the parser: every flag by its long name, its value joined to it with `=`.
//!
//! The parser would read `-mg 0` as `-m g` and a stray 0, and `-1` as a flag. So flags are told apart here: by the parser's own list of
//! what a command has, and by the table of llama.cpp's flags. What follows a flag that takes a value is its value, whatever it looks like,
//! unless it is a flag itself.

use super::flags::{self, CHOICES, Fate, Takes};
use super::term;
use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command};
use std::ffi::{OsStr, OsString};
use std::iter::Peekable;

/// The arguments, the program's name first, as `command` understands them. A flag that is given twice counts once, as it was given last,
/// unless it collects. An empty variable of the environment is none.
pub fn parse(command: Command, args: impl IntoIterator<Item = OsString>) -> Result<ArgMatches, clap::Error> {
    let mut command = without_empty_variables(command).args_override_self(true);
    command.build();
    let args = rewrite(&command, args)?;
    command.try_get_matches_from(args)
}

fn without_empty_variables(command: Command) -> Command {
    let is_empty = |arg: &Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| if is_empty(&arg) { arg.env(None::<&str>) } else { arg })
        .mut_subcommands(without_empty_variables)
}

/// The arguments with every flag in its long form. What follows `--` is left alone.
fn rewrite(command: &Command, args: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, clap::Error> {
    let mut args = args.into_iter().peekable();
    let mut out: Vec<OsString> = args.next().into_iter().collect();
    let mut command = command;
    while let Some(arg) = args.next() {
        if arg == "--" {
            out.push(arg);
            out.extend(args);
            break;
        }
        if !is_flag_like(&arg) {
            command = arg.to_str().and_then(|name| command.find_subcommand(name)).unwrap_or(command);
            out.push(arg);
            continue;
        }
        let (name, value) = split(&arg);
        match meaning(command, &name) {
            Meaning::Own(own) => out.push(joined(command, own, value, &mut args).unwrap_or(arg)),
            Meaning::Attached(own) => out.push(join(own, &after(&arg, 2)).unwrap_or(arg)),
            Meaning::Other(flag) => {
                let value = value.or_else(|| value_of(command, flag.takes, &mut args));
                out.extend(replaced(command, &name, flag.fate, value)?);
            }
            Meaning::Unknown if is_word(&name) => return Err(unknown(command, &name)),
            // The parser says what it is like.
            Meaning::Unknown => out.push(arg),
        }
    }
    Ok(out)
}

/// What a flag's name stands for in a command.
enum Meaning<'c> {
    /// A flag of the command.
    Own(&'c Arg),
    /// The same with its value behind the letter, as in `-n4`.
    Attached(&'c Arg),
    /// One of llama.cpp's.
    Other(&'static flags::Flag),
    Unknown,
}

fn meaning<'c>(command: &'c Command, name: &str) -> Meaning<'c> {
    if let Some(own) = own(command, name) {
        return Meaning::Own(own);
    }
    if let Some(flag) = flags::find(name) {
        // By another name than the parser's. Rows that are refused have several flags each.
        let own = match flag.fate {
            Fate::Is(long) | Fate::IsIn(long, _) => own(command, long),
            Fate::Moot(_) | Fate::MootIn(..) => flag.names.split(' ').find_map(|name| own(command, name)),
            Fate::No(_) => None,
        };
        return own.map_or(Meaning::Other(flag), Meaning::Own);
    }
    let letter = name.get(..2).filter(|_| name.len() > 2 && !is_word(name));
    let attached = letter.and_then(|letter| own(command, letter)).filter(|own| own.get_action().takes_values());
    attached.map_or(Meaning::Unknown, Meaning::Attached)
}

/// The flag of `command` that is called so, dashes included.
fn own<'c>(command: &'c Command, name: &str) -> Option<&'c Arg> {
    let is_short =
        |arg: &&Arg| arg.get_short().is_some_and(|c| name.strip_prefix('-') == Some(c.encode_utf8(&mut [0; 4])));
    let is_long = |arg: &&Arg| arg.get_long().is_some_and(|long| name.strip_prefix("--") == Some(long));
    command.get_arguments().find(|arg| is_short(arg) || is_long(arg))
}

/// Whether it begins like a flag: a negative number and a lone dash do not.
fn is_flag_like(arg: &OsStr) -> bool {
    let bytes = arg.as_encoded_bytes();
    bytes.starts_with(b"--")
        || bytes.starts_with(b"-") && bytes.get(1).is_some_and(|b| !b.is_ascii_digit() && *b != b'.')
}

/// Whether a name has one dash and several letters.
fn is_word(name: &str) -> bool {
    let mut chars = name.chars().skip(1);
    let (first, second) = (chars.next(), chars.next());
    first.is_some_and(|c| c != '-') && second.is_some_and(char::is_alphabetic)
}

/// Name and value of `--name=value`; in the name dashes stand for underscores, as in `--top_k`.
fn split(arg: &OsStr) -> (String, Option<OsString>) {
    let bytes = arg.as_encoded_bytes();
    let at = bytes.iter().position(|b| *b == b'=').unwrap_or(bytes.len());
    let name = String::from_utf8_lossy(&bytes[..at]).into_owned();
    let value = (at < bytes.len()).then(|| after(arg, at + 1));
    (if name.starts_with("--") { name.replace('_', "-") } else { name }, value)
}

/// What follows the first `n` bytes, all of them ASCII in text that is not Unicode.
fn after(text: &OsStr, n: usize) -> OsString {
    match text.to_str() {
        Some(text) => text[n..].into(),
        None => rest_of_other_text(text, n),
    }
}

#[cfg(unix)]
fn rest_of_other_text(text: &OsStr, n: usize) -> OsString {
    use std::os::unix::ffi::OsStrExt;
    OsStr::from_bytes(&text.as_bytes()[n..]).to_owned()
}

#[cfg(windows)]
fn rest_of_other_text(text: &OsStr, n: usize) -> OsString {
    use std::os::windows::ffi::{OsStrExt, OsStringExt};
    OsString::from_wide(&text.encode_wide().skip(n).collect::<Vec<_>>())
}

#[cfg(not(any(unix, windows)))]
fn rest_of_other_text(text: &OsStr, n: usize) -> OsString {
    String::from_utf8_lossy(&text.as_encoded_bytes()[n..]).into_owned().into()
}

/// `--long=value`; `None` for a flag without a long name, which is left as it stands.
fn join(own: &Arg, value: &OsStr) -> Option<OsString> {
    let mut text = OsString::from(format!("--{}=", own.get_long()?));
    text.push(value);
    Some(text)
}

/// A flag of the command in its long form, with its value where it takes one and there is one.
fn joined(
    command: &Command,
    own: &Arg,
    value: Option<OsString>,
    args: &mut Peekable<impl Iterator<Item = OsString>>,
) -> Option<OsString> {
    let takes = if own.get_action().takes_values() { Takes::Value } else { Takes::Nothing };
    match value.or_else(|| value_of(command, takes, args)) {
        Some(value) => join(own, &value),
        None => own.get_long().map(|long| format!("--{long}").into()),
    }
}

/// Takes the value that follows a flag, if it does.
fn value_of(command: &Command, takes: Takes, args: &mut Peekable<impl Iterator<Item = OsString>>) -> Option<OsString> {
    let is_value = |next: &OsString| match takes {
        Takes::Nothing => false,
        Takes::Value => next != "--" && !(is_flag_like(next) && is_flag(command, next)),
        Takes::Choice => next.to_str().is_some_and(|next| CHOICES.contains(&next)),
    };
    args.next_if(is_value)
}

fn is_flag(command: &Command, arg: &OsStr) -> bool {
    matches!(meaning(command, &split(arg).0), Meaning::Own(_) | Meaning::Other(_))
}

/// What stands for one of llama.cpp's flags that `command` does not have by this name.
fn replaced(
    command: &Command,
    name: &str,
    fate: Fate,
    value: Option<OsString>,
) -> Result<Option<OsString>, clap::Error> {
    let no = |why: &str| Err(error(command, format!("there is no {name} here: {why}")));
    match fate {
        // Of another command: the parser says that this one does not have it.
        Fate::Is(long) => Ok(Some(match value {
            Some(value) => [OsString::from(long), "=".into(), value].into_iter().collect(),
            None => long.into(),
        })),
        Fate::MootIn(only, why) if command.get_name() != only => no(why),
        Fate::Moot(_) | Fate::MootIn(..) => {
            if let (Some(value), Fate::Moot(why)) = (value.as_deref().and_then(OsStr::to_str), fate)
                && flags::says_no(value)
            {
                term::warn(format_args!("{name} {value} changes nothing: {why}"));
            }
            Ok(None)
        }
        Fate::No(why) | Fate::IsIn(_, why) => no(why),
    }
}

fn error(command: &Command, what: String) -> clap::Error {
    command.clone().error(ErrorKind::UnknownArgument, what)
}

fn unknown(command: &Command, name: &str) -> clap::Error {
    let long = command.get_arguments().filter_map(|arg| Some(format!("--{}", arg.get_long()?)));
    let short = flags::FLAGS.iter().filter(|flag| !matches!(flag.fate, Fate::No(_))).flat_map(|f| f.names.split(' '));
    let letters = |name: &str| name.trim_start_matches('-').to_owned();
    let typed = letters(name);
    let near = long
        .chain(short.map(str::to_owned))
        .map(|known| (distance(&typed, &letters(&known)), known))
        .min()
        .filter(|(apart, _)| *apart <= typed.len() / 3);
    let tip = near.map_or(String::new(), |(_, known)| format!("\n\n  tip: a similar flag exists: {known}"));
    error(command, format!("unknown flag {name}{tip}"))
}

/// Letters to add, drop, change or swap with their neighbour to get from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // rows[i][j]: from the first i letters of a to the first j of b.
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (rows[i - 1][j - 1] + same).min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
#[path = "argv_tests.rs"]
mod tests;
