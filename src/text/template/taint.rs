//! A string that knows which of its bytes users wrote.
//!
//! Every string a template handles is a [`Text`]: the characters, and the byte ranges that came from messages, tools or
//! other request data. Slicing, joining, replacing and changing case carry the ranges along; comparing and searching look
//! at the characters only. So a template computes exactly what it would with plain strings, and each byte of the result
//! still says who wrote it.

use std::ops::Range;
use std::sync::Arc;

/// A string with the origin of each of its bytes.
#[derive(Clone, Debug, Default)]
pub struct Text {
    chars: Arc<str>,
    /// Byte ranges written by users: sorted, disjoint, not touching, not empty.
    user: Vec<Range<usize>>,
    /// Marked by the filters `safe` and `escape`: what is added to it gets escaped, as with Python's `Markup`.
    markup: bool,
}

impl Text {
    /// Text of the template itself.
    pub fn template(chars: impl Into<Arc<str>>) -> Text {
        Text { chars: chars.into(), ..Text::default() }
    }

    /// The same text, marked as free of anything to escape.
    pub fn into_markup(self) -> Text {
        Text { markup: true, ..self }
    }

    /// Whether it is so marked.
    pub fn is_markup(&self) -> bool {
        self.markup
    }

    /// The text with `& < > " '` as HTML entities, marked; unchanged if it is marked already.
    pub fn escape(&self) -> Text {
        if self.markup {
            return self.clone();
        }
        let mut out = TextBuilder::default();
        for (c, user) in self.chars() {
            match c {
                '&' => out.push_str("&amp;", user),
                '<' => out.push_str("&lt;", user),
                '>' => out.push_str("&gt;", user),
                '"' => out.push_str("&#34;", user),
                '\'' => out.push_str("&#39;", user),
                c => out.push_char(c, user),
            }
        }
        out.finish().into_markup()
    }

    /// Text that came with the request.
    pub fn user(chars: impl Into<Arc<str>>) -> Text {
        let chars = chars.into();
        let whole = Some(0..chars.len()).filter(|range| !range.is_empty());
        Text { chars, user: whole.into_iter().collect(), markup: false }
    }

    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.chars
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.chars.len()
    }

    /// The part in a byte range on character boundaries.
    pub fn slice(&self, range: Range<usize>) -> Text {
        if range == (0..self.len()) {
            return self.clone();
        }
        let mut part = TextBuilder::default();
        part.push_slice(self, range);
        Text { markup: self.markup, ..part.finish() }
    }

    /// The part that `part`, a subslice of [`Text::as_str`], covers.
    pub fn part(&self, part: &str) -> Text {
        let start = part.as_ptr() as usize - self.chars.as_ptr() as usize;
        self.slice(start..start + part.len())
    }

    /// Runs of one origin, in order: the characters, and whether a user wrote them.
    pub fn runs(&self) -> impl Iterator<Item = (&str, bool)> {
        let mut runs = Vec::with_capacity(2 * self.user.len() + 1);
        let mut at = 0;
        for range in &self.user {
            runs.push((&self.chars[at..range.start], false));
            runs.push((&self.chars[range.clone()], true));
            at = range.end;
        }
        runs.push((&self.chars[at..], false));
        runs.into_iter().filter(|(run, _)| !run.is_empty())
    }

    /// Each character with whether a user wrote it.
    pub fn chars(&self) -> impl DoubleEndedIterator<Item = (char, bool)> {
        let runs: Vec<_> = self.runs().collect();
        runs.into_iter().flat_map(|(run, user)| run.chars().map(move |c| (c, user)))
    }

    /// Every run put through `f`; what comes of a run keeps its origin.
    pub fn map(&self, mut f: impl FnMut(&str) -> String) -> Text {
        let mut out = TextBuilder::default();
        for (run, user) in self.runs() {
            out.push_str(&f(run), user);
        }
        Text { markup: self.markup, ..out.finish() }
    }

    /// Replaces `from` by `to`, at most `count` times. An empty `from` matches around every character, as in Python.
    pub fn replace(&self, from: &str, to: &Text, count: usize) -> Text {
        let mut out = TextBuilder::default();
        let mut at = 0;
        for (start, _) in self.chars.match_indices(from).take(count) {
            out.push_slice(self, at..start);
            out.push(to);
            at = start + from.len();
        }
        out.push_slice(self, at..self.len());
        out.finish()
    }

    /// Bytes this value holds, for the budget.
    pub fn weight(&self) -> usize {
        self.len() + self.user.len() * size_of::<Range<usize>>()
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        self.chars == other.chars
    }
}

/// Puts a [`Text`] together.
#[derive(Clone, Debug, Default)]
pub struct TextBuilder {
    chars: String,
    user: Vec<Range<usize>>,
}

impl TextBuilder {
    /// Appends characters of one origin.
    pub fn push_str(&mut self, chars: &str, user: bool) {
        if chars.is_empty() {
            return;
        }
        let start = self.chars.len();
        self.chars.push_str(chars);
        if user {
            self.mark(start..self.chars.len());
        }
    }

    /// Appends one character.
    pub fn push_char(&mut self, c: char, user: bool) {
        self.push_str(c.encode_utf8(&mut [0; 4]), user);
    }

    /// Appends a text with its origins.
    pub fn push(&mut self, text: &Text) {
        self.push_slice(text, 0..text.len());
    }

    /// Appends part of a text with its origins.
    pub fn push_slice(&mut self, text: &Text, range: Range<usize>) {
        let shift = self.chars.len();
        self.chars.push_str(&text.chars[range.clone()]);
        let first = text.user.partition_point(|r| r.end <= range.start);
        for marked in text.user[first..].iter().take_while(|r| r.start < range.end) {
            let (start, end) = (marked.start.max(range.start), marked.end.min(range.end));
            if start < end {
                self.mark(start - range.start + shift..end - range.start + shift);
            }
        }
    }

    /// Length in bytes so far.
    pub fn len(&self) -> usize {
        self.chars.len()
    }

    /// The text.
    pub fn finish(self) -> Text {
        Text { chars: self.chars.into(), user: self.user, markup: false }
    }

    fn mark(&mut self, range: Range<usize>) {
        match self.user.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.user.push(range),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &Text) -> String {
        text.runs().map(|(run, user)| if user { format!("[{run}]") } else { run.to_string() }).collect()
    }

    #[test]
    fn origins_follow_the_characters() {
        let mut b = TextBuilder::default();
        b.push_str("<a>", false);
        b.push(&Text::user("hé"));
        b.push(&Text::user("llo"));
        b.push_str("<b>", false);
        let text = b.finish();
        assert_eq!(show(&text), "<a>[héllo]<b>");
        assert_eq!(show(&text.slice(1..6)), "a>[hé]");
        assert_eq!(show(&text.part(&text.as_str()[4..])), "[éllo]<b>");
        assert_eq!(show(&text.replace("l", &Text::template("L"), 1)), "<a>[hé]L[lo]<b>");
        assert_eq!(show(&text.map(|s| s.to_uppercase())), "<A>[HÉLLO]<B>");
        assert_eq!(show(&Text::template("ab").replace("", &Text::user("-"), usize::MAX)), "[-]a[-]b[-]");
        assert_eq!(Text::user("x"), Text::template("x"), "comparison looks at characters only");
    }

    #[test]
    fn empty_pieces_leave_no_ranges() {
        assert_eq!(Text::user("").runs().count(), 0);
        assert_eq!(Text::user("abc").slice(1..1).user.len(), 0);
        assert_eq!(Text::user("abc").slice(3..3).user.len(), 0);
    }
}
