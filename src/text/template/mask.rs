//! What users wrote, written in other characters.

use super::control::ControlTokens;
use crate::base::{Error, Result};
use aho_corasick::AhoCorasick;
use regex::Regex;
use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::LazyLock;

/// Words that a template may compare with what users wrote: its names and its quoted strings.
#[derive(Debug)]
pub struct Words {
    whole: HashSet<String>,
    literals: AhoCorasick,
}

impl Words {
    /// The words of a template's source.
    pub fn of(source: &str) -> Result<Words> {
        static WORD: LazyLock<Regex> = LazyLock::new(|| {
            let quoted = r#"'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*""#;
            Regex::new(&format!(r"(?s)\{{[{{%]|[%}}]\}}|{quoted}|[A-Za-z_][A-Za-z0-9_]*")).expect("a valid pattern")
        });
        let (mut whole, mut literals, mut inside) = (HashSet::new(), BTreeSet::new(), false);
        for found in WORD.find_iter(source) {
            match found.as_str() {
                "{{" | "{%" => inside = true,
                "}}" | "%}" => inside = false,
                _ if !inside => {}
                quoted if quoted.starts_with(['\'', '"']) => {
                    let plain = quoted[1..quoted.len() - 1].replace("\\n", "\n").replace("\\t", "\t");
                    let plain = plain.replace("\\'", "'").replace("\\\"", "\"").replace("\\\\", "\\");
                    whole.insert(plain.trim().to_string());
                    literals.insert(plain);
                }
                name => drop(whole.insert(name.to_string())),
            }
        }
        literals.retain(|literal| !literal.trim().is_empty());
        let literals = AhoCorasick::new(literals);
        let literals = literals.map_err(|e| Error::format("no automaton for the template's words").because(e))?;
        Ok(Words { whole, literals })
    }
}

/// A substitution of characters: each for one that occurs nowhere else, is a letter, has no case, and is written alike by
/// `repr` and `tojson`. The order of the letters is kept, so that sorted names stay sorted.
pub struct Cipher {
    ascii: [char; 128],
    others: HashMap<char, char>,
    back: HashMap<char, char>,
}

/// Rare ideographs: what stands for others.
const POOL: [Range<u32>; 2] = [0x3400..0x4DB0, 0x20000..0x2A6D0];

/// Characters that templates and serializers treat apart stay as they are: white space, quotes, what gets escaped.
pub fn is_fixed(c: char) -> bool {
    c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '\\')
}

/// Whether a character may stand for another.
pub fn is_stand_in(c: char) -> bool {
    POOL.iter().any(|range| range.contains(&u32::from(c)))
}

impl Cipher {
    /// For the characters of `data`; what stands for them occurs neither there nor in `taken`.
    pub fn new(data: &Map<String, Value>, taken: &[&str]) -> Result<Cipher> {
        let mut used = Used::default();
        data.values().for_each(|value| used.value(value));
        let mut plain: Vec<char> = used.chars().filter(|c| !is_fixed(*c)).collect();
        plain.sort_by_key(|c| (c.to_lowercase().next(), *c));
        taken.iter().for_each(|text| used.text(text));
        let free = POOL.into_iter().flatten().filter_map(char::from_u32).filter(|c| !used.has(*c));
        let pairs: Vec<(char, char)> = plain.iter().copied().zip(free).collect();
        if pairs.len() < plain.len() {
            return Err(Error::usage("the conversation uses too many different characters"));
        }
        let mut cipher = Cipher {
            ascii: std::array::from_fn(|i| i as u8 as char),
            others: HashMap::new(),
            back: pairs.iter().map(|(c, stand_in)| (*stand_in, *c)).collect(),
        };
        for (c, stand_in) in pairs {
            match cipher.ascii.get_mut(c as usize) {
                Some(slot) => *slot = stand_in,
                None => drop(cipher.others.insert(c, stand_in)),
            }
        }
        Ok(cipher)
    }

    fn hide(&self, c: char) -> char {
        match self.ascii.get(c as usize) {
            Some(stand_in) => *stand_in,
            None => self.others.get(&c).copied().unwrap_or(c),
        }
    }

    /// What a character stands for, if it stands for another.
    pub fn reveal(&self, c: char) -> Option<char> {
        if is_stand_in(c) { self.back.get(&c).copied() } else { None }
    }
}

/// The characters that occur.
struct Used {
    ascii: [bool; 128],
    others: HashSet<char>,
}

impl Default for Used {
    fn default() -> Used {
        Used { ascii: [false; 128], others: HashSet::new() }
    }
}

impl Used {
    fn text(&mut self, text: &str) {
        for c in text.chars() {
            match self.ascii.get_mut(c as usize) {
                Some(seen) => *seen = true,
                None => drop(self.others.insert(c)),
            }
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => items.iter().for_each(|item| self.value(item)),
            Value::Object(map) => map.iter().for_each(|(key, value)| {
                self.text(key);
                self.value(value);
            }),
            _ => {}
        }
    }

    fn has(&self, c: char) -> bool {
        self.ascii.get(c as usize).copied().unwrap_or_else(|| self.others.contains(&c))
    }

    fn chars(&self) -> impl Iterator<Item = char> {
        let ascii = (0..128u8).filter(|i| self.ascii[usize::from(*i)]).map(char::from);
        ascii.chain(self.others.iter().copied())
    }
}

/// What is written in other characters, and what stays.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Outside of control tokens, only the characters that these begin or end with.
    pub edges_only: bool,
    /// The template's own words stay wherever they occur, unless a whole control token would stay with them.
    pub keep_words: bool,
    /// Control tokens that stay in the assistant's turns.
    pub keep_tokens: Vec<usize>,
}

/// Rewrites what users wrote.
pub struct Mask<'a> {
    /// By which characters.
    pub cipher: &'a Cipher,
    /// Which of it.
    pub plan: &'a Plan,
    /// The template's words.
    pub words: &'a Words,
    /// The vocabulary's control tokens.
    pub control: &'a ControlTokens,
}

impl Mask<'_> {
    /// The names a template finds, with what users wrote in them rewritten. The names themselves, the keys of messages
    /// and the roles everybody knows are the format's, not the user's.
    pub fn names(&self, names: &Map<String, Value>) -> Map<String, Value> {
        let value = |name: &str, value: &Value| match value {
            Value::Array(items) if name == "messages" => items.iter().map(|item| self.message(item)).collect(),
            other => self.value(other, false),
        };
        names.iter().map(|(name, v)| (name.clone(), value(name, v))).collect()
    }

    fn message(&self, message: &Value) -> Value {
        let Value::Object(map) = message else { return self.value(message, false) };
        let assistant = map.get("role").is_some_and(|role| role == "assistant");
        let value = |key: &str, value: &Value| match value.as_str() {
            Some(role) if key == "role" && ROLES.contains(&role) => value.clone(),
            _ => self.value(value, assistant),
        };
        Value::Object(map.iter().map(|(key, v)| (key.clone(), value(key, v))).collect())
    }

    fn value(&self, value: &Value, assistant: bool) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text, assistant)),
            Value::Array(items) => items.iter().map(|item| self.value(item, assistant)).collect(),
            Value::Object(map) => {
                let entry = |(key, value): (&String, &Value)| (self.text(key, assistant), self.value(value, assistant));
                Value::Object(map.iter().map(entry).collect())
            }
            other => other.clone(),
        }
    }

    fn text(&self, text: &str, assistant: bool) -> String {
        let word = text.trim();
        if self.words.whole.contains(word)
            && !self.control.is_in(word)
            && (self.plan.keep_words || !self.control.has_part(word))
        {
            return text.to_string();
        }
        let mut stays = vec![false; text.len()];
        let (kept, hidden): (Vec<_>, Vec<_>) = (self.control.find(text).into_iter())
            .partition(|(_, token)| assistant && self.plan.keep_tokens.contains(token));
        kept.into_iter().for_each(|(range, _)| stays[range].fill(true));
        let hidden: Vec<Range<usize>> = hidden.into_iter().map(|(range, _)| range).collect();
        if self.plan.keep_words {
            self.keep_words(text, &hidden, &mut stays);
        }
        let mut tokens = hidden.iter().peekable();
        let rewrite = |(at, c): (usize, char)| {
            while tokens.next_if(|token| token.end <= at).is_some() {}
            let in_token = tokens.peek().is_some_and(|token| token.start <= at);
            let hide = !stays[at] && (in_token || !self.plan.edges_only || self.control.is_edge(c));
            if hide && !is_fixed(c) { self.cipher.hide(c) } else { c }
        };
        text.char_indices().map(rewrite).collect()
    }

    /// Marks the template's own words in a text, as far as they leave something of each control token to hide.
    fn keep_words(&self, text: &str, hidden: &[Range<usize>], stays: &mut [bool]) {
        for found in self.words.literals.find_overlapping_iter(text) {
            let word = found.range();
            let next = hidden.get(hidden.partition_point(|token| token.start < word.start));
            if next.is_none_or(|token| token.end > word.end) {
                stays[word].fill(true);
            }
        }
        for token in hidden {
            let mut chars = text[token.clone()].char_indices();
            if chars.all(|(i, c)| is_fixed(c) || stays[token.start + i]) {
                stays[token.clone()].fill(false);
            }
        }
    }
}

/// The roles that are the format's own words.
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];
