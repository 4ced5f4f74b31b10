//! Cuts a template into text and the tokens of its tags, with Jinja2's whitespace rules as transformers sets them:
//! `trim_blocks` (a newline after a block tag goes), `lstrip_blocks` (blanks before a block tag on its own line go),
//! no newline at the end of the file.

use super::fault::{Fault, Result};
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// Text between tags.
    Text(Arc<str>),
    /// `{{`
    OutputStart,
    /// `}}`
    OutputEnd,
    /// `{%`
    BlockStart,
    /// `%}`
    BlockEnd,
    Name(Arc<str>),
    Str(String),
    Int(i128),
    Float(f64),
    /// An operator or bracket.
    Op(&'static str),
    End,
}

/// Longest first: the first that matches is taken.
const OPERATORS: [&str; 26] = [
    "==", "!=", ">=", "<=", "//", "**", "+", "-", "*", "/", "%", "~", "(", ")", "[", "]", "{", "}", "<", ">", "=", ".",
    ":", "|", ",", ";",
];

/// White space as Python's `str.isspace` has it.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// The tokens of `source` with their lines, ended by [`Token::End`].
pub fn tokenize(source: &str) -> Result<Vec<(Token, u32)>> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { rest: source, line: 1, at_line_start: true, tokens: Vec::new() };
    lexer.run()?;
    lexer.emit(Token::End);
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    rest: &'a str,
    line: u32,
    /// Whether the text to come begins a line: the last thing eaten ended with a newline.
    at_line_start: bool,
    tokens: Vec<(Token, u32)>,
}

impl<'a> Lexer<'a> {
    fn emit(&mut self, token: Token) {
        self.tokens.push((token, self.line));
    }

    fn fail<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(Fault::syntax(what, self.line))
    }

    /// Moves past `bytes` bytes, counting lines, and returns them.
    fn eat(&mut self, bytes: usize) -> &'a str {
        let (eaten, rest) = self.rest.split_at(bytes);
        self.line += eaten.bytes().filter(|b| *b == b'\n').count() as u32;
        self.rest = rest;
        if !eaten.is_empty() {
            self.at_line_start = eaten.ends_with('\n');
        }
        eaten
    }

    fn eat_space(&mut self) {
        self.eat(self.rest.len() - self.rest.trim_start_matches(is_space).len());
    }

    fn run(&mut self) -> Result<()> {
        loop {
            let tag = self
                .rest
                .match_indices('{')
                .map(|(at, _)| at)
                .find(|at| matches!(self.rest.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')));
            let Some(at) = tag else {
                let text = self.eat(self.rest.len());
                self.text(text);
                return Ok(());
            };
            let opening = self.rest.as_bytes()[at + 1];
            let sign = self.rest.as_bytes().get(at + 2).copied().filter(|c| matches!(c, b'-' | b'+'));
            let line_start = self.at_line_start;
            let text = self.eat(at);
            self.text(trim_before_tag(text, sign, opening != b'{', line_start));
            self.eat(2 + sign.is_some() as usize);
            match opening {
                b'{' => self.tag(Token::OutputStart)?,
                b'#' => self.comment()?,
                _ if self.is_raw() => self.raw()?,
                _ => self.tag(Token::BlockStart)?,
            }
        }
    }

    fn text(&mut self, text: &str) {
        if !text.is_empty() {
            self.emit(Token::Text(text.into()));
        }
    }

    fn comment(&mut self) -> Result<()> {
        let Some(end) = self.rest.find("#}") else {
            return self.fail("a comment without its end, #}");
        };
        let sign = self.rest[..end].chars().last();
        self.eat(end + 2);
        self.after_block(sign);
        Ok(())
    }

    /// What a block tag or comment takes with it behind its end.
    fn after_block(&mut self, sign: Option<char>) {
        match sign {
            Some('-') => self.eat_space(),
            Some('+') => {}
            _ => {
                if self.rest.starts_with('\n') {
                    self.eat(1);
                }
            }
        }
    }

    /// The length of `word` with blanks around it, if that comes next.
    fn word(&self, rest: &str, word: &str) -> Option<usize> {
        let after = rest.trim_start_matches(is_space).strip_prefix(word)?.trim_start_matches(is_space);
        Some(rest.len() - after.len())
    }

    fn is_raw(&self) -> bool {
        self.word(self.rest, "raw")
            .is_some_and(|n| self.rest[n..].starts_with("%}") || self.rest[n..].starts_with("-%}"))
    }

    fn raw(&mut self) -> Result<()> {
        self.eat(self.word(self.rest, "raw").unwrap_or(0));
        let strip = self.rest.starts_with('-');
        self.eat(if strip { 3 } else { 2 });
        if strip {
            self.eat_space();
        }
        for (at, _) in self.rest.match_indices("{%") {
            let inner = &self.rest[at + 2..];
            let sign = inner.bytes().next().filter(|c| matches!(c, b'-' | b'+'));
            let Some(word) = self.word(&inner[sign.is_some() as usize..], "endraw") else { continue };
            let line_start = self.at_line_start;
            let text = self.eat(at);
            self.text(trim_before_tag(text, sign, true, line_start));
            self.eat(2 + sign.is_some() as usize + word);
            let end_sign = self.rest.chars().next().filter(|c| matches!(c, '-' | '+'));
            self.eat(end_sign.is_some() as usize);
            if !self.rest.starts_with("%}") {
                return self.fail("expected %} after endraw");
            }
            self.eat(2);
            self.after_block(end_sign);
            return Ok(());
        }
        self.fail("a raw block without its endraw")
    }

    /// The tokens of one tag, up to and with its end.
    fn tag(&mut self, start: Token) -> Result<()> {
        let (end, end_token) = match start {
            Token::OutputStart => ("}}", Token::OutputEnd),
            _ => ("%}", Token::BlockEnd),
        };
        self.emit(start);
        let mut brackets: Vec<&str> = Vec::new();
        loop {
            self.eat_space();
            if brackets.is_empty() {
                let sign = self.rest.chars().next().filter(|c| matches!(c, '-' | '+'));
                if self.rest[sign.is_some() as usize..].starts_with(end) {
                    self.emit(end_token.clone());
                    self.eat(2 + sign.is_some() as usize);
                    match &end_token {
                        Token::BlockEnd => self.after_block(sign),
                        _ if sign == Some('-') => self.eat_space(),
                        _ => {}
                    }
                    return Ok(());
                }
            }
            let Some(c) = self.rest.chars().next() else {
                return self.fail(format!("a tag without its end, {end}"));
            };
            match c {
                '"' | '\'' => self.string(c)?,
                '0'..='9' => self.number()?,
                c if c == '_' || c.is_alphabetic() => {
                    let len = self.rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(self.rest.len());
                    let name = self.eat(len);
                    self.emit(Token::Name(name.into()));
                }
                _ => self.operator(&mut brackets)?,
            }
        }
    }

    fn operator(&mut self, brackets: &mut Vec<&'static str>) -> Result<()> {
        let Some(op) = OPERATORS.into_iter().find(|op| self.rest.starts_with(op)) else {
            let c = self.rest.chars().next().unwrap_or(' ');
            return self.fail(format!("unexpected character {c:?}"));
        };
        match op {
            "(" => brackets.push(")"),
            "[" => brackets.push("]"),
            "{" => brackets.push("}"),
            ")" | "]" | "}" if brackets.pop() != Some(op) => return self.fail(format!("unexpected {op}")),
            _ => {}
        }
        self.emit(Token::Op(op));
        self.eat(op.len());
        Ok(())
    }

    fn number(&mut self) -> Result<()> {
        let bytes = self.rest.as_bytes();
        let digits =
            |from: usize| from + bytes[from..].iter().take_while(|b| b.is_ascii_digit() || **b == b'_').count();
        let mut end = digits(0);
        let mut float = false;
        if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
            (end, float) = (digits(end + 1), true);
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = matches!(bytes.get(end + 1), Some(b'+' | b'-')) as usize;
            if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
                (end, float) = (digits(end + 1 + sign), true);
            }
        }
        let text = self.rest[..end].replace('_', "");
        let token = if float { text.parse().ok().map(Token::Float) } else { text.parse().ok().map(Token::Int) };
        let Some(token) = token else { return self.fail(format!("a number too large: {text}")) };
        self.emit(token);
        self.eat(end);
        Ok(())
    }

    fn string(&mut self, quote: char) -> Result<()> {
        let line = self.line;
        self.eat(1);
        let mut escaped = false;
        let end = self.rest.find(|c| {
            let closes = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        });
        let Some(end) = end else { return self.fail("a string without its closing quote") };
        let body = self.eat(end);
        self.eat(1);
        match unescape(body) {
            Some(text) => self.tokens.push((Token::Str(text), line)),
            None => return self.fail("a broken escape in a string"),
        }
        Ok(())
    }
}

/// The text before a tag, less the white space that the tag takes away.
fn trim_before_tag(text: &str, sign: Option<u8>, block: bool, line_start: bool) -> &str {
    match sign {
        Some(b'-') => text.trim_end_matches(is_space),
        None if block => {
            let from = text.rfind('\n').map_or(0, |at| at + 1);
            let blank = text[from..].chars().all(is_space);
            if blank && (from > 0 || line_start) { &text[..from] } else { text }
        }
        _ => text,
    }
}

/// Python's string escapes; an unknown one stays as it is.
fn unescape(body: &str) -> Option<String> {
    let mut out = String::with_capacity(body.len());
    let mut chars = body.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let escape = chars.next()?;
        let simple = match escape {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'v' => '\x0b',
            '\\' | '\'' | '"' => escape,
            '\n' => continue,
            'x' | 'u' | 'U' => {
                let len = [2, 4, 8]["xuU".find(escape)?];
                let code = chars.as_str().get(..len)?;
                chars = chars.as_str()[len..].chars();
                char::from_u32(u32::from_str_radix(code, 16).ok()?)?
            }
            '0'..='7' => {
                let more = chars.as_str().bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
                let code = format!("{escape}{}", &chars.as_str()[..more]);
                chars = chars.as_str()[more..].chars();
                char::from_u32(u32::from_str_radix(&code, 8).ok()?)?
            }
            other => {
                out.push('\\');
                other
            }
        };
        out.push(simple);
    }
    Some(out)
}
