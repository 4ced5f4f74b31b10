//! Cuts text into the words that merging may not cross, in time linear in the text.
//!
//! The `regex` crate has no look-ahead and needs no backtracking, so long runs cannot blow up. The one look-ahead that
//! the original expressions use, `\s+(?!\S)`, only asks whether a run of white space is followed by a word: then its
//! last character is left to that word. [`Tail`] does so after the match.

use regex::Regex;
use std::ops::Range;

/// What to do with white space at the end of a match, in place of a look-ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing.
    Whole,
    /// For patterns with `\s+(?!\S)`: a run before a word leaves its last character to the word.
    LeaveOne,
    /// The same for patterns with `\s*[\r\n]+` too: a match that ends a line stays whole.
    LeaveOneOfLine,
    /// `\s{512}(?!\S)|\s{256}(?!\S)|…|\s{4}(?!\S)|\s{1,2}(?!\S)|\s`: cut in powers of two, largest first; one that ends a line
    /// stays whole.
    Powers,
}

/// One step of a pre-tokenizer. Matches become words, and so does what lies between them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Split {
    /// A regular expression that never matches the empty string.
    Regex(&'static str, Tail),
    /// Runs of digits in threes from the right: `\d{1,3}(?=(?:\d{3})*\b)`; without the `\b` unless `ends_word`.
    Triples {
        /// The expression of a run.
        run: &'static str,
        /// Only runs that no letter follows.
        ends_word: bool,
    },
}

/// A compiled sequence of splits.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    steps: Vec<(Regex, Split)>,
}

impl PreTokenizer {
    /// Compiles the steps. Panics on a bad pattern: they are constants, and a test compiles them all.
    pub fn new(splits: &[Split]) -> PreTokenizer {
        let compile = |split: &Split| {
            let (Split::Regex(pattern, _) | Split::Triples { run: pattern, .. }) = *split;
            (Regex::new(pattern).expect("a constant pattern"), *split)
        };
        PreTokenizer { steps: splits.iter().map(compile).collect() }
    }

    /// The words of `text`, in order; together they are the text.
    pub fn words(&self, text: &str) -> Vec<Range<usize>> {
        let mut words = vec![];
        if !text.is_empty() {
            words.push(0..text.len());
        }
        for (regex, split) in &self.steps {
            let mut cut = Words { ranges: Vec::with_capacity(words.len()), base: 0, end: 0 };
            for word in words {
                cut.base = word.start;
                cut.end = 0;
                let piece = &text[word];
                match *split {
                    Split::Regex(_, tail) => cut.matches(regex, tail, piece),
                    Split::Triples { ends_word, .. } => cut.triples(regex, ends_word, piece),
                }
                cut.to(piece.len());
            }
            words = cut.ranges;
        }
        words
    }
}

/// The words found so far; offsets are relative to the piece that begins at `base`.
struct Words {
    ranges: Vec<Range<usize>>,
    base: usize,
    end: usize,
}

impl Words {
    /// Ends a word at `end`, unless it were empty.
    fn to(&mut self, end: usize) {
        if end > self.end {
            self.ranges.push(self.base + self.end..self.base + end);
            self.end = end;
        }
    }

    fn matches(&mut self, regex: &Regex, tail: Tail, piece: &str) {
        while let Some(found) = regex.find_at(piece, self.end) {
            self.to(found.start());
            let text = found.as_str();
            let last = text.chars().next_back();
            let ends_line = matches!(last, Some('\r' | '\n'));
            let blank = last.is_some_and(char::is_whitespace);
            let at_end = found.end() == piece.len();
            match tail {
                _ if !blank => self.to(found.end()),
                Tail::Whole => self.to(found.end()),
                Tail::LeaveOneOfLine | Tail::Powers if ends_line => self.to(found.end()),
                Tail::Powers => self.powers(text, at_end),
                Tail::LeaveOne | Tail::LeaveOneOfLine => {
                    let kept = found.end() - if at_end { 0 } else { last.map_or(0, char::len_utf8) };
                    self.to(if kept > found.start() { kept } else { found.end() });
                }
            }
        }
    }

    /// Cuts a run of white space in powers of two. Before a word, the last character is left for the next match unless
    /// it is all there is.
    fn powers(&mut self, run: &str, at_end: bool) {
        let ends: Vec<usize> = run.char_indices().map(|(at, c)| self.end + at + c.len_utf8()).collect();
        let free = if at_end || ends.len() == 1 { ends.len() } else { ends.len() - 1 };
        let mut done = 0;
        while done < free {
            let step = (2..=9).rev().map(|bits| 1 << bits).find(|&step| step <= free - done);
            done += step.unwrap_or_else(|| (free - done).min(2));
            self.to(ends[done - 1]);
        }
    }

    fn triples(&mut self, regex: &Regex, ends_word: bool, piece: &str) {
        for run in regex.find_iter(piece) {
            let next = piece[run.end()..].chars().next();
            if ends_word && next.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            self.to(run.start());
            let digits = run.as_str().chars().count();
            for (i, (at, _)) in run.as_str().char_indices().enumerate() {
                if (digits - i).is_multiple_of(3) {
                    self.to(run.start() + at);
                }
            }
            self.to(run.end());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::pre::rules;

    fn words<'a>(name: &str, text: &'a str) -> Vec<&'a str> {
        let pre = PreTokenizer::new(rules(name).expect("a known name").splits);
        pre.words(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn spaces_go_to_the_word_that_follows() {
        assert_eq!(words("gpt-2", "a   b \n c's  "), ["a", "  ", " b", " \n", " c", "'s", "  "]);
        assert_eq!(words("gpt-2", "\tx"), ["\t", "x"]);
        assert_eq!(words("gpt-2", ""), [""; 0]);
        assert_eq!(
            words("llama-bpe", "a   b \n\n  c'S 12345"),
            ["a", "  ", " b", " \n\n", " ", " c", "'S", " ", "123", "45"]
        );
        assert_eq!(words("llama-bpe", "x \u{a0}y"), ["x", " ", "\u{a0}y"]);
        assert_eq!(words("deepseek-llm", "ab  \n 12中"), ["ab", "  ", "\n", " ", "12", "中"]);
    }

    #[test]
    fn digits_in_threes_from_the_right() {
        assert_eq!(words("afmoe", "1234567"), ["1", "234", "567"]);
        assert_eq!(words("tiny_aya", "1234 123456"), ["1", "234", " ", "123", "456"]);
        assert_eq!(words("tiny_aya", "1234x"), ["123", "4", "x"]);
        assert_eq!(words("superbpe", "a b 12345!"), ["a b ", "12", "345", "!"]);
    }

    #[test]
    fn white_space_in_powers_of_two() {
        let lengths = |text: &str| words("jais-2", text).iter().map(|word| word.len()).collect::<Vec<_>>();
        assert_eq!(lengths(&" ".repeat(1024 + 7)), [512, 512, 4, 2, 1]);
        assert_eq!(lengths(&format!("{}x", " ".repeat(8))), [4, 2, 1, 2]);
        assert_eq!(lengths("  \n x"), [3, 2]);
    }

    #[test]
    fn words_are_the_text() {
        let text = "It's  1234 \u{3000}天 \r\n\t\u{1F600}e\u{301} <|x|> ½ ʼn\u{85}!? \n \n";
        for name in crate::text::pre_tokenizer_names() {
            assert_eq!(words(name, text).concat(), text, "{name}");
        }
    }

    /// 128 KiB of many kinds through every pre-tokenizer; a quadratic one would take hours.
    #[test]
    fn long_runs_are_cut_in_linear_time() {
        let units = ["A", "a", "天", " ", "\n", " \n", "7", ".", "'", " A", "\u{301}", "\u{1F600}"];
        let splits: std::collections::BTreeMap<String, &str> = crate::text::pre_tokenizer_names()
            .map(|name| (format!("{:?}", rules(name).expect("known").splits), name))
            .collect();
        for name in splits.values() {
            let pre = PreTokenizer::new(rules(name).expect("known").splits);
            for unit in units {
                for end in ["", "x", "\n"] {
                    let text = unit.repeat((1 << 20) / unit.len() / 8) + end;
                    let words = pre.words(&text);
                    assert_eq!(words.first().map(|word| word.start), Some(0), "{name} {unit:?}");
                    assert!(words.windows(2).all(|pair| pair[0].end == pair[1].start), "{name} {unit:?}");
                    assert_eq!(words.last().map(|word| word.end), Some(text.len()), "{name} {unit:?}");
                }
            }
        }
    }
}
