//! GPT-2's spelling of bytes: every byte is a printable character, so that a vocabulary is a list of plain words.
//! Printable Latin-1 stands for itself, the other 68 bytes are U+0100 … U+0143 in order; a space is `Ġ`.
//! Source: `bytes_to_unicode` of GPT-2's encoder.py.

/// Whether the byte stands for itself.
const fn printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// Byte by character − U+0000, for characters below U+0144.
const BYTES: [Option<u8>; 0x144] = {
    let mut table = [None; 0x144];
    let (mut byte, mut next) = (0usize, 0x100);
    while byte < 256 {
        if printable(byte as u8) {
            table[byte] = Some(byte as u8);
        } else {
            table[next] = Some(byte as u8);
            next += 1;
        }
        byte += 1;
    }
    table
};

/// The bytes that `spelled` stands for, `None` if a character stands for none.
pub(super) fn decode(spelled: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(spelled).ok()?;
    text.chars().map(|c| *BYTES.get(c as usize)?).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let mut seen: Vec<u8> =
            (0..0x144u32).filter_map(|c| decode(char::from_u32(c)?.to_string().as_bytes())).flatten().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..=255).collect::<Vec<u8>>());
        assert_eq!(decode("Ġhé".as_bytes()), Some(vec![b' ', b'h', 0xE9]));
        assert_eq!(decode("Ċĉ".as_bytes()), Some(b"\n\t".to_vec()));
        assert_eq!(decode("▁a".as_bytes()), None);
        assert_eq!(decode(b"\xFF"), None);
    }
}
