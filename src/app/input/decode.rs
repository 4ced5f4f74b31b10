//! Bytes to text by one rule: UTF-8, or UTF-16 where a byte-order mark says so; what is neither becomes U+FFFD.

/// How a text is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// The usual one.
    Utf8,
    /// Two bytes a unit, the lower one first.
    Utf16Le,
    /// Two bytes a unit, the higher one first.
    Utf16Be,
}

/// What could not be read in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid {
    /// Bytes before the first place, a byte-order mark included.
    pub offset: usize,
    /// The byte there.
    pub byte: u8,
    /// How many places there are.
    pub places: usize,
}

impl Invalid {
    fn note(found: &mut Option<Invalid>, offset: usize, byte: u8) {
        found.get_or_insert(Invalid { offset, byte, places: 0 }).places += 1;
    }
}

impl Encoding {
    /// The encoding that a text beginning with these bytes has, and the length of its byte-order mark.
    pub fn of(bytes: &[u8]) -> (Encoding, usize) {
        match bytes {
            [0xEF, 0xBB, 0xBF, ..] => (Encoding::Utf8, 3),
            [0xFF, 0xFE, ..] => (Encoding::Utf16Le, 2),
            [0xFE, 0xFF, ..] => (Encoding::Utf16Be, 2),
            _ => (Encoding::Utf8, 0),
        }
    }

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Utf8 => "UTF-8",
            Encoding::Utf16Le => "UTF-16 (little-endian)",
            Encoding::Utf16Be => "UTF-16 (big-endian)",
        }
    }

    /// The text that `bytes` from `start` on are, and what was replaced by U+FFFD.
    pub fn decode(self, bytes: &[u8], start: usize) -> (String, Option<Invalid>) {
        let (mut text, mut invalid) = (String::with_capacity(bytes.len() - start), None);
        if self == Encoding::Utf8 {
            let mut at = start;
            for chunk in bytes[start..].utf8_chunks() {
                text.push_str(chunk.valid());
                at += chunk.valid().len();
                if let Some(&byte) = chunk.invalid().first() {
                    Invalid::note(&mut invalid, at, byte);
                    text.push(char::REPLACEMENT_CHARACTER);
                }
                at += chunk.invalid().len();
            }
            return (text, invalid);
        }
        let mut at = start;
        for unit in char::decode_utf16(bytes[start..].as_chunks().0.iter().map(|pair| self.unit(*pair))) {
            if unit.is_err() {
                Invalid::note(&mut invalid, at, bytes[at]);
            }
            at += unit.as_ref().map_or(2, |c| 2 * c.len_utf16());
            text.push(unit.unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        if let Some(&byte) = bytes.get(at) {
            Invalid::note(&mut invalid, at, byte);
            text.push(char::REPLACEMENT_CHARACTER);
        }
        (text, invalid)
    }

    /// The unit that two bytes make.
    pub fn unit(self, pair: [u8; 2]) -> u16 {
        if self == Encoding::Utf16Be { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> (String, Option<Invalid>) {
        let (encoding, start) = Encoding::of(bytes);
        encoding.decode(bytes, start)
    }

    fn invalid(offset: usize, byte: u8, places: usize) -> Option<Invalid> {
        Some(Invalid { offset, byte, places })
    }

    #[test]
    fn what_is_not_utf8_is_replaced_and_counted() {
        assert_eq!(decode("é 天\0".as_bytes()), ("é 天\0".into(), None));
        assert_eq!(decode(b"a\xffb\xe5\xa4c"), ("a\u{fffd}b\u{fffd}c".into(), invalid(1, 0xff, 2)));
        assert_eq!(decode(b"\xef\xbb\xbfab\xe5"), ("ab\u{fffd}".into(), invalid(5, 0xe5, 1)));
        assert_eq!(decode(b""), (String::new(), None));
    }

    #[test]
    fn a_mark_names_the_encoding() {
        let text = "é🦙\n";
        let le: Vec<u8> = [0xFEFF].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = [0xFEFF].into_iter().chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect();
        assert_eq!((decode(&le), decode(&be)), ((text.into(), None), (text.into(), None)));
        assert_eq!((Encoding::of(&le).0, Encoding::of(&be).0), (Encoding::Utf16Le, Encoding::Utf16Be));
        // Half a pair, then a unit that is cut off.
        assert_eq!(decode(b"\xff\xfea\0\x00\xd8b\0c"), ("a\u{fffd}b\u{fffd}".into(), invalid(4, 0x00, 2)));
        assert_eq!(decode(b"\xfe\xff"), (String::new(), None));
    }
}
