//! Tells reasoning from answer in what a model writes, while it streams.
//!
//! Most families put the reasoning in tags at the start (`<think>…</think>`), which the prompt may have opened already;
//! gpt-oss writes messages on channels (its "harmony" format). Text that may be the start of a tag is held back until it
//! is known, so a tag cut anywhere between two pieces is still seen, and a tag is never shown by halves.

use std::borrow::Cow;

/// A piece of output, in the order it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Reasoning: `reasoning_content`.
    Reasoning(String),
    /// Answer: `content`.
    Content(String),
    /// Arguments of a call that the format itself addresses to a tool.
    Call {
        /// To whom: `functions.get_weather`.
        to: String,
        /// More of the arguments.
        text: String,
    },
}

/// How a model marks its reasoning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReasoningStyle {
    /// Not at all.
    None,
    /// Between two tags at the start of the answer.
    Tags {
        /// What begins reasoning.
        open: Cow<'static, str>,
        /// What ends it.
        close: Cow<'static, str>,
    },
    /// Messages on channels: `<|channel|>analysis<|message|>…<|end|>`.
    Channels,
}

/// What begins and ends reasoning. One list for templates, prompts and answers, so that none knows a mark that the others miss.
const TAGS: [(&str, &str); 9] = [
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("[THINK]", "[/THINK]"),
    ("<|channel>thought", "<channel|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
    ("<think>", "</think>"),
];

/// Formats that put the answer between marks as well: what begins reasoning there, what begins the answer and what ends it.
const FRAMES: [(&str, &str, &str); 2] = [
    ("<|START_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<|open|>think<|sep|>", "<|open|>response<|sep|>", "<|close|>response<|sep|>"),
];

const MESSAGE: &str = "<|message|>";
const ENDS: [&str; 4] = ["<|end|>", "<|return|>", "<|call|>", "<|start|>"];

/// A header longer than this is no header.
const MAX_HEADER: usize = 1024;

impl ReasoningStyle {
    /// The style of a model whose chat template this is.
    pub fn of_template(source: &str) -> ReasoningStyle {
        if source.contains("<|channel|>") && source.contains(MESSAGE) {
            return ReasoningStyle::Channels;
        }
        // Templates that read reasoning back name the closing tag; the opening one may stand in the prompt only.
        let found = TAGS.into_iter().find(|(open, close)| source.contains(close) || source.contains(open));
        found.map_or(ReasoningStyle::None, ReasoningStyle::tags)
    }

    /// The style of the reasoning that a prompt has opened, if it ends inside it: in `<think>` with nothing after it, say. It tells
    /// more than the template, which may put its tags together from parts.
    pub fn opened_by(prompt: &str) -> Option<ReasoningStyle> {
        let end = prompt.trim_end();
        if let Some(tags) = TAGS.into_iter().find(|(open, _)| end.ends_with(open)) {
            return Some(Self::tags(tags));
        }
        // Hunyuan 3 has a name of the model's in every tag: <think:NAME>.
        let open = &end[end.rfind("<think:")?..];
        let name = open.strip_prefix("<think:")?.strip_suffix('>')?;
        let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "-_.:".contains(c));
        plain.then(|| ReasoningStyle::Tags { open: open.to_string().into(), close: format!("</think:{name}>").into() })
    }

    fn tags((open, close): (&'static str, &'static str)) -> ReasoningStyle {
        ReasoningStyle::Tags { open: open.into(), close: close.into() }
    }

    /// What begins and ends the answer proper.
    fn frame(&self) -> Option<(&'static str, &'static str)> {
        let ReasoningStyle::Tags { open, .. } = self else { return None };
        FRAMES.iter().find(|(reasoning, ..)| reasoning == open).map(|&(_, begin, end)| (begin, end))
    }
}

#[derive(Debug, PartialEq)]
enum State {
    /// Nothing but white space so far: reasoning may begin.
    Start,
    /// In reasoning; whether anything of it was shown.
    Reasoning { begun: bool },
    /// The reasoning is over: white space before the answer goes, and the mark that begins it.
    Gap,
    /// In the answer, up to the mark that ends it.
    Framed(&'static str),
    /// In the answer, to the end.
    Answer,
    /// In a channel's header.
    Header,
    /// In a channel's message.
    Message(Channel),
}

#[derive(Debug, Clone, PartialEq)]
enum Channel {
    Reasoning,
    Answer,
    Call(String),
}

/// Splits one answer.
#[derive(Debug)]
pub struct ReasoningSplitter {
    style: ReasoningStyle,
    state: State,
    /// Text not yet decided on.
    held: String,
    out: Vec<Piece>,
}

impl ReasoningSplitter {
    /// For one answer. `in_reasoning`: the prompt ends inside open reasoning
    /// ([`Prompt::opens_reasoning`](crate::text::Prompt::opens_reasoning)).
    pub fn new(style: ReasoningStyle, in_reasoning: bool) -> ReasoningSplitter {
        let state = match style {
            ReasoningStyle::None => State::Answer,
            ReasoningStyle::Channels => State::Header,
            ReasoningStyle::Tags { .. } if in_reasoning => State::Reasoning { begun: false },
            ReasoningStyle::Tags { .. } => State::Start,
        };
        ReasoningSplitter { style, state, held: String::new(), out: Vec::new() }
    }

    /// Takes more output; returns what is decided.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        while self.step() {}
        std::mem::take(&mut self.out)
    }

    /// The output is over: returns the rest.
    pub fn finish(mut self) -> Vec<Piece> {
        let rest = std::mem::take(&mut self.held);
        match &self.state {
            State::Reasoning { .. } => self.emit_reasoning(rest.trim_end()),
            State::Start | State::Framed(_) | State::Answer => self.emit(Channel::Answer, &rest),
            State::Header if !rest.trim_start().starts_with("<|") => self.emit(Channel::Answer, rest.trim()),
            State::Gap => self.emit(Channel::Answer, rest.trim_start()),
            State::Header => {}
            State::Message(channel) => self.emit(channel.clone(), &rest),
        }
        self.out
    }

    /// One decision; false when more text is needed.
    fn step(&mut self) -> bool {
        match (&self.state, self.style.clone()) {
            (State::Start, ReasoningStyle::Tags { open, .. }) => self.at_start(&open),
            (State::Reasoning { .. }, ReasoningStyle::Tags { close, .. }) => self.in_reasoning(&close),
            (State::Gap, _) => {
                let blank = self.held.len() - self.held.trim_start().len();
                self.held.drain(..blank);
                !self.held.is_empty() && self.begin_answer()
            }
            (&State::Framed(end), _) => self.in_frame(end),
            (State::Header, _) => self.in_header(),
            (State::Message(channel), _) => {
                let channel = channel.clone();
                self.in_message(channel)
            }
            _ => {
                let rest = std::mem::take(&mut self.held);
                self.emit(Channel::Answer, &rest);
                false
            }
        }
    }

    fn at_start(&mut self, open: &str) -> bool {
        let text = self.held.trim_start();
        if let Some(rest) = text.strip_prefix(open) {
            self.held = rest.to_string();
            self.state = State::Reasoning { begun: false };
            return true;
        }
        if open.starts_with(text) {
            return false;
        }
        if self.style.frame().is_some_and(|(begin, _)| text.starts_with(begin) || begin.starts_with(text)) {
            self.state = State::Gap;
            return true;
        }
        self.state = State::Answer;
        true
    }

    /// Takes the mark that begins the answer, where there is one.
    fn begin_answer(&mut self) -> bool {
        self.state = match self.style.frame() {
            Some((begin, end)) if self.held.starts_with(begin) => {
                self.held.drain(..begin.len());
                State::Framed(end)
            }
            Some((begin, _)) if begin.starts_with(&self.held) => return false,
            _ => State::Answer,
        };
        true
    }

    fn in_frame(&mut self, end: &str) -> bool {
        let found = self.held.find(end);
        let shown = found.unwrap_or_else(|| self.held.len() - partial_suffix(&self.held, &[end]));
        let text: String = self.held.drain(..shown).collect();
        self.emit(Channel::Answer, &text);
        if found.is_some() {
            self.held.drain(..end.len());
            self.state = State::Answer;
        }
        found.is_some()
    }

    fn in_reasoning(&mut self, close: &str) -> bool {
        if let Some(at) = self.held.find(close) {
            let reasoning = self.held[..at].trim_end().to_string();
            self.held.drain(..at + close.len());
            self.emit_reasoning(&reasoning);
            self.state = State::Gap;
            return true;
        }
        // White space at the end may be the end of the reasoning, where it is dropped.
        let keep = partial_suffix(&self.held, &[close]);
        let shown = self.held[..self.held.len() - keep].trim_end().len();
        let reasoning: String = self.held.drain(..shown).collect();
        self.emit_reasoning(&reasoning);
        false
    }

    fn in_header(&mut self) -> bool {
        let text = self.held.trim_start();
        if !text.starts_with("<|") && !"<|".starts_with(text) {
            // No format at all: a model that answers plainly.
            self.state = State::Message(Channel::Answer);
            return true;
        }
        let Some(at) = self.held.find(MESSAGE) else {
            if self.held.len() > MAX_HEADER {
                self.state = State::Message(Channel::Answer);
                return true;
            }
            return false;
        };
        let header: String = self.held.drain(..at + MESSAGE.len()).collect();
        let to = header.split_once("to=").map(|(_, to)| to.split(['<', ' ']).next().unwrap_or("").to_string());
        let channel = header.split_once("<|channel|>").map_or("", |(_, channel)| channel);
        self.state = State::Message(match to {
            Some(to) if to != "user" => Channel::Call(to),
            _ if channel.starts_with("analysis") => Channel::Reasoning,
            _ => Channel::Answer,
        });
        true
    }

    fn in_message(&mut self, channel: Channel) -> bool {
        let end = ENDS.iter().filter_map(|end| self.held.find(end).map(|at| (at, end.len()))).min();
        let Some((at, len)) = end else {
            let keep = partial_suffix(&self.held, &ENDS);
            let text: String = self.held.drain(..self.held.len() - keep).collect();
            self.emit(channel, &text);
            return false;
        };
        let text: String = self.held.drain(..at).collect();
        self.held.drain(..len);
        self.emit(channel, &text);
        // The next header may begin without its `<|start|>`; give it one, so that it reads as a header.
        self.held.insert_str(0, "<|start|>");
        self.state = State::Header;
        self.held.len() > "<|start|>".len()
    }

    fn emit_reasoning(&mut self, text: &str) {
        let State::Reasoning { begun } = &mut self.state else { return };
        let text = if *begun { text } else { text.trim_start() };
        *begun |= !text.is_empty();
        let text = text.to_string();
        self.emit(Channel::Reasoning, &text);
    }

    fn emit(&mut self, channel: Channel, text: &str) {
        if text.is_empty() {
            return;
        }
        let text = text.to_string();
        self.out.push(match channel {
            Channel::Reasoning => Piece::Reasoning(text),
            Channel::Answer => Piece::Content(text),
            Channel::Call(to) => Piece::Call { to, text },
        });
    }
}

/// Length of the longest end of `text` that begins one of `tags`.
pub(super) fn partial_suffix(text: &str, tags: &[impl AsRef<str>]) -> usize {
    let longest = tags.iter().map(|tag| tag.as_ref().len() - 1).max().unwrap_or(0).min(text.len());
    (1..=longest)
        .rev()
        .find(|n| {
            let end = text.len() - n;
            text.is_char_boundary(end) && tags.iter().any(|tag| tag.as_ref().starts_with(&text[end..]))
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const THINK: ReasoningStyle =
        ReasoningStyle::Tags { open: Cow::Borrowed("<think>"), close: Cow::Borrowed("</think>") };

    /// Reasoning, content and calls of an output given in pieces of `size` characters.
    fn split(style: ReasoningStyle, in_reasoning: bool, text: &str, size: usize) -> (String, String, String) {
        let mut splitter = ReasoningSplitter::new(style, in_reasoning);
        let chars: Vec<char> = text.chars().collect();
        let mut pieces = Vec::new();
        for chunk in chars.chunks(size) {
            pieces.extend(splitter.push(&chunk.iter().collect::<String>()));
        }
        pieces.extend(splitter.finish());
        let (mut reasoning, mut content, mut calls) = (String::new(), String::new(), String::new());
        for piece in pieces {
            match piece {
                Piece::Reasoning(text) => reasoning += &text,
                Piece::Content(text) => content += &text,
                Piece::Call { to, text } => {
                    if !calls.contains(&to) {
                        calls += &format!("{to}:");
                    }
                    calls += &text;
                }
            }
        }
        (reasoning, content, calls)
    }

    #[test]
    fn any_cut_gives_the_same_split() {
        let channels = ReasoningStyle::Channels;
        let opened = |prompt: &str| ReasoningStyle::opened_by(prompt).unwrap();
        let (kimi, apriel) = (opened("<|open|>think<|sep|>"), opened("Here are my reasoning steps:\n"));
        let cases = [
            (THINK, false, "<think>\nüber 2+2\n\n</think>\n\n4 <think> stays", "über 2+2", "4 <think> stays", ""),
            (THINK, true, "\ntwo </thin two\n</think>4", "two </thin two", "4", ""),
            (THINK, false, "  plain <think>x</think>", "", "  plain <think>x</think>", ""),
            (THINK, false, "<thin", "", "<thin", ""),
            (THINK, true, "cut short  ", "cut short", "", ""),
            (THINK, false, "<think></think>", "", "", ""),
            (THINK, true, "a</think>b</think>c", "a", "b</think>c", ""),
            (ReasoningStyle::None, false, "<think>x</think>", "", "<think>x</think>", ""),
            (
                kimi.clone(),
                true,
                "hm<|close|>think<|sep|><|open|>response<|sep|>4 <|close|> ok<|close|>response<|sep|>",
                "hm",
                "4 <|close|> ok",
                "",
            ),
            (kimi.clone(), false, " <|open|>response<|sep|>4<|close|>resp", "", "4<|close|>resp", ""),
            (kimi.clone(), true, "hm<|close|>think<|sep|>\n<|open|>res", "hm", "<|open|>res", ""),
            (kimi, false, "<|open|>table", "", "<|open|>table", ""),
            (apriel, true, "Add.\n[BEGIN FINAL RESPONSE]\n4", "Add.", "4", ""),
            (
                channels.clone(),
                false,
                "<|channel|>analysis<|message|>hm 1<2<|end|><|start|>assistant<|channel|>final<|message|>4 <| ok<|return|>",
                "hm 1<2",
                "4 <| ok",
                "",
            ),
            (
                channels.clone(),
                false,
                "<|channel|>analysis<|message|>look<|end|><|start|>assistant to=functions.f<|channel|>commentary json<|message|>{\"a\": 1}<|call|>",
                "look",
                "",
                "functions.f:{\"a\": 1}",
            ),
            (
                channels.clone(),
                false,
                "<|channel|>commentary to=functions.g <|constrain|>json<|message|>{}<|call|>",
                "",
                "",
                "functions.g:{}",
            ),
            (channels.clone(), false, "<|channel|>commentary<|message|>First, …<|end|>", "", "First, …", ""),
            (channels.clone(), false, "just text <|end|>", "", "just text ", ""),
            (channels, false, "<|channel|>final<|message|>cut", "", "cut", ""),
        ];
        for (style, in_reasoning, text, reasoning, content, calls) in cases {
            for size in 1..=text.chars().count() {
                let found = split(style.clone(), in_reasoning, text, size);
                assert_eq!(found, (reasoning.into(), content.into(), calls.into()), "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn decided_text_is_not_held_back() {
        let mut splitter = ReasoningSplitter::new(THINK, false);
        assert_eq!(splitter.push("<think>one"), [Piece::Reasoning("one".into())]);
        assert_eq!(splitter.push(" two </"), [Piece::Reasoning(" two".into())]);
        assert_eq!(splitter.push("b>"), [Piece::Reasoning(" </b>".into())]);
        assert_eq!(splitter.push("</think>\n"), []);
        assert_eq!(splitter.push("4"), [Piece::Content("4".into())]);
        assert_eq!(splitter.push("</"), [Piece::Content("</".into())]);
    }

    #[test]
    fn a_header_without_end_becomes_content() {
        let text = "<|channel|>".to_string() + &"x".repeat(5000);
        assert_eq!(split(ReasoningStyle::Channels, false, &text, 7).1, text);
    }

    #[test]
    fn a_prompt_that_ends_in_any_style_of_reasoning_opens_it() {
        for (open, close) in TAGS {
            for end in ["", "\n", "\n\n"] {
                let opened = ReasoningStyle::opened_by(&format!("<|assistant|>{open}{end}"));
                assert_eq!(opened, Some(ReasoningStyle::tags((open, close))), "{open}");
            }
            assert_eq!(ReasoningStyle::opened_by(&format!("{open}hm{close}")), None, "{close}");
        }
        let named = |open: &str, close: &str| ReasoningStyle::Tags {
            open: open.to_string().into(),
            close: close.to_string().into(),
        };
        let opened = ReasoningStyle::opened_by("<｜hy_Assistant:opensource｜><think:opensource>");
        assert_eq!(opened, Some(named("<think:opensource>", "</think:opensource>")));
        for closed in ["<think:a></think:a>", "<think:>", "<think:a b>", "x<think:a", "", "<|assistant|>"] {
            assert_eq!(ReasoningStyle::opened_by(closed), None, "{closed}");
        }
        assert_eq!(split(opened.unwrap(), true, "hm</think:opensource>4", 1).0, "hm");
    }

    #[test]
    fn styles_of_templates() {
        let style = ReasoningStyle::of_template;
        assert_eq!(style("a '</think>' in content"), THINK);
        assert_eq!(style("<|start|>assistant<|channel|>final<|message|>"), ReasoningStyle::Channels);
        assert_eq!(style("[THINK]"), ReasoningStyle::tags(("[THINK]", "[/THINK]")));
        assert_eq!(style("'<mm:think>'"), ReasoningStyle::tags(("<mm:think>", "</mm:think>")));
        assert_eq!(style("<|im_start|>"), ReasoningStyle::None);
    }
}
