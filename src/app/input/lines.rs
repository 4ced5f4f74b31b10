//! A text from a pipe, line by line as it comes.

use super::decode::Encoding;
use super::{MAX_PROMPT, PLACE};
use crate::app::term;
use crate::base::{Error, Result};
use std::io::{self, BufRead, Read};

/// Lines of standard input, or of what stands for it.
pub struct Lines<R> {
    input: R,
    /// Known from the first line on.
    encoding: Option<Encoding>,
    /// Lines that were begun.
    count: usize,
    /// Whether the line before was too long to be read to its end.
    unfinished: bool,
}

impl<R: BufRead> Lines<R> {
    /// The lines that are still to come.
    pub fn new(input: R) -> Lines<R> {
        Lines { input, encoding: None, count: 0, unfinished: false }
    }

    /// Where the last line stands, for errors.
    pub fn place(&self) -> String {
        format!("{PLACE}, line {}", self.count)
    }

    /// The number of the last line, from 1.
    pub fn number(&self) -> usize {
        self.count
    }

    /// The next line with its end; `None` after the last. Fails if one has more than 16 MiB: then the next call goes on with the
    /// line after it.
    pub fn next_line(&mut self) -> Result<Option<String>> {
        while std::mem::take(&mut self.unfinished) {
            term::check_interrupt()?;
            self.unfinished = self.read(&mut Vec::new())?;
        }
        let mut bytes = Vec::new();
        self.unfinished = self.read(&mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.count += 1;
        let (encoding, start) = match self.encoding {
            Some(encoding) => (encoding, 0),
            None => Encoding::of(&bytes),
        };
        self.encoding = Some(encoding);
        if self.unfinished {
            return Err(Error::usage(format!("a line of more than {}", term::bytes(MAX_PROMPT)))
                .help("give prompts of reasonable length, one per line"));
        }
        Ok(Some(super::told(&bytes, encoding, start, &self.place())))
    }

    /// Appends the next line's bytes; whether it goes on after as many as a line may have.
    fn read(&mut self, bytes: &mut Vec<u8>) -> Result<bool> {
        let read = match self.encoding {
            // The first line tells: a mark of UTF-16 is no UTF-8.
            None => self.read_first(bytes),
            Some(encoding) => self.read_by(encoding, bytes),
        };
        read.map_err(|e| Error::io("can't read prompts", e).at(PLACE))
    }

    fn read_first(&mut self, bytes: &mut Vec<u8>) -> io::Result<bool> {
        while bytes.len() < 2 && !bytes.ends_with(b"\n") && self.input.by_ref().take(1).read_to_end(bytes)? > 0 {}
        if bytes.ends_with(b"\n") {
            return Ok(false);
        }
        self.read_by(Encoding::of(bytes).0, bytes)
    }

    fn read_by(&mut self, encoding: Encoding, bytes: &mut Vec<u8>) -> io::Result<bool> {
        if encoding == Encoding::Utf8 {
            self.input.by_ref().take(MAX_PROMPT).read_until(b'\n', bytes)?;
            return Ok(bytes.len() as u64 >= MAX_PROMPT && !bytes.ends_with(b"\n"));
        }
        while (bytes.len() as u64) < MAX_PROMPT {
            let before = bytes.len();
            self.input.by_ref().take(2).read_to_end(bytes)?;
            match bytes[before..] {
                [a, b] if encoding.unit([a, b]) != u16::from(b'\n') => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut lines = Lines::new(bytes);
        std::iter::from_fn(|| lines.next_line().unwrap()).collect()
    }

    #[test]
    fn lines_from_a_pipe_are_text_whatever_they_are() {
        assert_eq!(lines(b"one\ntw\xffo"), ["one\n", "tw\u{fffd}o"]);
        assert_eq!(lines(b"\xef\xbb\xbfone\n\xef\xbb\xbf\n"), ["one\n", "\u{feff}\n"]);
        assert_eq!(lines(b"\n\xff\xfe"), ["\n", "\u{fffd}\u{fffd}"]);
        assert_eq!(lines(b"\xff"), ["\u{fffd}"]);
        assert_eq!(lines(b"\xff\n\xfe\n"), ["\u{fffd}\n", "\u{fffd}\n"]);
        assert_eq!(lines(b""), [""; 0]);
        // U+0A0A and U+010A have bytes that look like a line's end.
        let utf16: Vec<u8> =
            "\u{feff}one\u{0a0a}\n\u{010a}two\r\n🦙".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(lines(&utf16), ["one\u{0a0a}\n", "\u{010a}two\r\n", "🦙"]);
        let utf16: Vec<u8> = "\u{feff}\n\u{010a}\n".encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(lines(&utf16), ["\n", "\u{010a}\n"]);
    }

    #[test]
    fn a_line_without_an_end_is_refused_and_passed_over() {
        let mut endless = Lines::new(io::BufReader::new(io::repeat(b'x')));
        assert!(endless.next_line().unwrap_err().to_string().contains("16.0 MiB"));

        let mut long = vec![b'x'; 40 << 20];
        long.extend(b"\nshort\n");
        let mut lines = Lines::new(&long[..]);
        assert!(lines.next_line().is_err());
        assert_eq!((lines.next_line().unwrap().as_deref(), lines.number()), (Some("short\n"), 2));
        assert_eq!(lines.next_line().unwrap(), None);
    }
}
