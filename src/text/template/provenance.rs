//! Who wrote which characters of a rendering, found by rendering again with what users wrote in other characters.
//!
//! Nothing is marked in the text. The first rendering is the prompt's text. For the second, every character that came with
//! the request is exchanged for a stand-in: an ideograph that occurs nowhere else, one for one (`mask`). If the second
//! rendering has the same number of characters as the first, and each is either the same or a stand-in for it, then the
//! stand-ins show which characters users wrote: those become text segments, the rest is the template's.
//!
//! Why that is sound: a stand-in can only come from the request, so what is marked is theirs. What is not marked came out
//! the same with every exchanged character gone from the input, so the template did not copy it from one. A control token
//! in a template segment therefore holds no exchanged character of a user's, even if users' pieces would only be put
//! together to one, or change case, or where a template cuts, joins, trims or serializes them.
//!
//! Templates also look at what users wrote: they compare it (`type == 'text'`), search it (`'</think>' in content`), cut
//! it. Where the exchange changes what they do, the renderings do not align, and less is exchanged, in this order:
//!  1. all but words that are the template's own as a whole and no part of a control token (`text`, `string`);
//!  2. all but the template's quoted strings, wherever they occur; yet of each control token something is exchanged, so
//!     that no token which users wrote can stay whole;
//!  3. as 2, but control tokens that the template's source names stay in the assistant's own turns, as few as need be:
//!     templates read `</think>` there. Those remain template text: a model's own earlier output is trusted this far;
//!  4. the same three with, outside of control tokens, only the characters exchanged that tokens begin or end with: a token
//!     needs both ends in template text to count.
//!
//! Where characters cannot be followed at all (they became `&lt;`), a rendering in which the same control tokens stand as
//! in one without users' ends of tokens has none of theirs. What is left is refused with an error: there a template treats
//! a control token in the text of a user, system or tool as its own, and guessing would let users forge.
//!
//! Limits: white space, quotes and backslashes are never exchanged, so a control token of nothing else is not guarded; nor
//! is one that a template spells out of numbers of the request.

use super::control::ControlTokens;
use super::environment::Unescaped;
use super::mask::{Cipher, Mask, Plan, Words, is_fixed, is_stand_in};
use super::prompt::Prompt;
use crate::base::{Error, Result};
use serde_json::{Map, Value};
use std::ops::Range;

/// What is needed to tell users from the template.
pub struct Inputs<'a> {
    /// Everything that came with the request, by the names under which the template finds it.
    pub names: &'a Map<String, Value>,
    /// The template's source and the texts it is given besides.
    pub own: [&'a str; 3],
    /// The template's words.
    pub words: &'a Words,
    /// The vocabulary's control tokens.
    pub control: &'a ControlTokens,
}

/// Renders, and finds out what of the text users wrote. Fails as `render` does, and where control tokens that users wrote
/// cannot be told from the template's own.
pub fn attribute(inputs: &Inputs, render: impl Fn(&Map<String, Value>, Unescaped) -> Result<String>) -> Result<Prompt> {
    let text = render(inputs.names, |_| false)?;
    let [source, bos, eos] = inputs.own;
    let cipher = Cipher::new(inputs.names, &[source, bos, eos, &text])?;
    let hide = |plan: &Plan| {
        let mask = Mask { cipher: &cipher, plan, words: inputs.words, control: inputs.control };
        render(&mask.names(inputs.names), is_stand_in).ok()
    };
    let attempt = |plan: &Plan| align(&text, &hide(plan)?, &cipher);
    let parsed = parsed_tokens(inputs);
    for edges_only in [false, true] {
        for keep_words in [false, true] {
            if let Some(user) = attempt(&Plan { edges_only, keep_words, keep_tokens: Vec::new() }) {
                let user = join(&text, user, inputs.control);
                return Ok(Prompt::new(text, user));
            }
        }
        let mut plan = Plan { edges_only, keep_words: true, keep_tokens: parsed.clone() };
        let Some(mut user) = attempt(&plan).filter(|_| !parsed.is_empty()) else { continue };
        // Only what must stay stays.
        for token in &parsed {
            let fewer: Vec<usize> = plan.keep_tokens.iter().copied().filter(|kept| kept != token).collect();
            let trial = Plan { keep_tokens: fewer, ..plan.clone() };
            if let Some(found) = attempt(&trial) {
                (plan, user) = (trial, found);
            }
        }
        let user = join(&text, user, inputs.control);
        return Ok(Prompt::new(text, user));
    }
    // Texts whose characters cannot be followed, but in which there is no control token to begin with: if there are as many
    // with and without what tokens begin and end with, users wrote none.
    let mut written = Vec::new();
    inputs.names.values().for_each(|value| tokens_in(value, inputs.control, &mut written));
    let tokens = |text: &str| inputs.control.find(text).into_iter().map(|(_, token)| token).collect::<Vec<_>>();
    let hidden = hide(&Plan { edges_only: true, keep_words: true, keep_tokens: Vec::new() });
    match hidden {
        Some(hidden) if written.is_empty() && tokens(&hidden) == tokens(&text) => Ok(Prompt::new(text, Vec::new())),
        _ => Err(undecided(&written, inputs.control)),
    }
}

/// The control tokens in the assistant's turns that the template's source names: it may look for them there.
fn parsed_tokens(inputs: &Inputs) -> Vec<usize> {
    let messages = inputs.names.get("messages").and_then(Value::as_array);
    let assistants = messages.into_iter().flatten().filter(|message| message["role"] == "assistant");
    let mut found = Vec::new();
    assistants.for_each(|message| tokens_in(message, inputs.control, &mut found));
    found.retain(|token| inputs.own.iter().any(|text| text.contains(inputs.control.text(*token))));
    found
}

/// The control tokens anywhere in a value, each once.
fn tokens_in(value: &Value, control: &ControlTokens, found: &mut Vec<usize>) {
    match value {
        Value::String(text) => {
            for (_, token) in control.find(text) {
                if !found.contains(&token) {
                    found.push(token);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| tokens_in(item, control, found)),
        Value::Object(map) => map.values().for_each(|value| tokens_in(value, control, found)),
        _ => {}
    }
}

fn undecided(written: &[usize], control: &ControlTokens) -> Error {
    let texts: Vec<&str> = written.iter().map(|token| control.text(*token)).take(8).collect();
    let what = "the chat template reads messages in a way that users' text cannot be told from its own";
    match texts.is_empty() {
        true => Error::usage(what),
        false => Error::usage(what).help(format!("leave the control tokens out of them: {}", texts.join(" "))),
    }
}

/// The byte ranges of `text` that users wrote, given the rendering of hidden words; none if it differs otherwise.
fn align(text: &str, hidden: &str, cipher: &Cipher) -> Option<Vec<Range<usize>>> {
    let mut user: Vec<Range<usize>> = Vec::new();
    let mut others = hidden.chars();
    for (at, c) in text.char_indices() {
        let other = others.next()?;
        match cipher.reveal(other) {
            Some(stands_for) if same_letter(stands_for, c) => {
                let end = at + c.len_utf8();
                match user.last_mut() {
                    Some(last) if last.end == at => last.end = end,
                    _ => user.push(at..end),
                }
            }
            None if other == c => {}
            _ => return None,
        }
    }
    others.next().is_none().then_some(user)
}

/// The same, but for upper and lower case: templates change it, and stand-ins have none.
fn same_letter(a: char, b: char) -> bool {
    a == b || a.to_lowercase().eq(b.to_lowercase())
}

/// Makes whole what belongs to users: control tokens of which they wrote a part, and the gaps of white space and quotes
/// between their words, unless a control token stands in one.
fn join(text: &str, user: Vec<Range<usize>>, control: &ControlTokens) -> Vec<Range<usize>> {
    let tokens = control.find(text).into_iter().map(|(range, _)| range);
    let theirs = |token: &Range<usize>| {
        let next = user.partition_point(|range| range.end <= token.start);
        user.get(next).is_some_and(|range| range.start < token.end)
    };
    let mut all: Vec<Range<usize>> = user.iter().cloned().chain(tokens.filter(theirs)).collect();
    all.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<usize>> = Vec::with_capacity(all.len());
    for range in all {
        match joined.last_mut() {
            Some(last) if range.start <= last.end || is_gap(&text[last.end..range.start], control) => {
                last.end = last.end.max(range.end);
            }
            _ => joined.push(range),
        }
    }
    joined
}

fn is_gap(text: &str, control: &ControlTokens) -> bool {
    text.chars().all(is_fixed) && !control.is_in(text)
}
