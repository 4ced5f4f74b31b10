//! The text of an answer while its tokens come: whole characters, up to a stop string.

use crate::text::{StopStrings, Tokenizer, take_whole};

/// Turns tokens into text as [`Detokenizer`](crate::text::Detokenizer) does for text that goes on from a prompt. It borrows no
/// tokenizer, so that an answer can own it.
#[derive(Debug)]
pub(super) struct AnswerText {
    show_special: bool,
    /// The beginning of a character; at most three bytes.
    pending: Vec<u8>,
    stops: Option<Stops>,
}

/// A search for stop strings that also knows which one it found.
#[derive(Debug)]
struct Stops {
    search: StopStrings,
    all: Vec<String>,
    /// What `search` holds back.
    held: String,
    found: Option<String>,
}

impl AnswerText {
    pub fn new(show_special: bool, stops: &[String]) -> Self {
        let all: Vec<_> = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        let search = StopStrings::new(all.iter().cloned());
        let stops = (!all.is_empty()).then_some(Stops { search, all, held: String::new(), found: None });
        AnswerText { show_special, pending: Vec::with_capacity(64), stops }
    }

    /// Takes a token; returns the text that is certain by now.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> String {
        if self.show_special || !tokenizer.is_hidden(token) {
            self.pending.extend_from_slice(tokenizer.token_bytes(token));
        }
        let mut whole = String::new();
        take_whole(&mut self.pending, &mut whole);
        match &mut self.stops {
            Some(stops) => stops.push(&whole),
            None => whole,
        }
    }

    /// Ends the text; returns what was held back. An unfinished character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let broken = if self.pending.is_empty() { "" } else { "\u{fffd}" };
        self.pending.clear();
        match &mut self.stops {
            Some(stops) => stops.push(broken) + &stops.search.finish(),
            None => broken.to_owned(),
        }
    }

    /// Whether a stop string ended the text.
    pub fn is_stopped(&self) -> bool {
        self.stops.as_ref().is_some_and(|stops| stops.found.is_some())
    }

    /// The stop string that ended the text.
    pub fn take_stop(&mut self) -> Option<String> {
        self.stops.as_mut()?.found.take()
    }
}

impl Stops {
    fn push(&mut self, piece: &str) -> String {
        if self.search.found() || piece.is_empty() {
            return String::new();
        }
        self.held += piece;
        let text = self.search.push(piece);
        self.held.drain(..text.len());
        if self.search.found() {
            // The search stops at the first end of any, so of those that begin here it found the shortest.
            let here = self.all.iter().filter(|stop| self.held.starts_with(stop.as_str()));
            self.found = here.min_by_key(|stop| stop.len()).cloned();
        }
        text
    }
}
