//! SentencePiece's compiled normalizer (`precompiled_charsmap`): a table of prefixes and what replaces them.
//!
//! Layout, little-endian: size of the trie in bytes (u32), the trie, then NUL-terminated replacements.
//! The trie is a Darts double array of u32 units: bits 0–7 label, bit 8 has a leaf, bits 10–30 offset to the children
//! (times 256 where bit 9 is set); a leaf has bit 31 set and the offset of its replacement in the rest.
//! Source: S. Yata, darts-clone; sentencepiece/src/normalizer.cc.

use crate::base::{Error, Result};

/// No prefix is longer. A trie that runs in circles would otherwise cost the whole text at every byte of it.
const MAX_PREFIX: usize = 64;

/// A compiled normalizer. Every step through it is checked: a broken one replaces less, and no more.
#[derive(Debug, Default)]
pub(super) struct CharsMap {
    units: Vec<u32>,
    replacements: Vec<u8>,
}

impl CharsMap {
    /// Parses the table; empty bytes are the table that replaces nothing. Fails if the sizes do not fit.
    pub fn new(bytes: &[u8]) -> Result<CharsMap> {
        if bytes.is_empty() {
            return Ok(CharsMap::default());
        }
        let parts = bytes
            .split_first_chunk()
            .and_then(|(size, rest)| rest.split_at_checked(u32::from_le_bytes(*size) as usize));
        let (trie, replacements) = parts.filter(|(trie, _)| trie.len().is_multiple_of(4)).ok_or_else(|| {
            Error::format("the sizes of tokenizer.ggml.precompiled_charsmap do not fit")
                .at(format!("{} bytes", bytes.len()))
        })?;
        let units = trie.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]));
        Ok(CharsMap { units: units.collect(), replacements: replacements.to_vec() })
    }

    /// The longest prefix of `text` that has a replacement: its length (whole characters) and the replacement.
    pub fn longest<'m>(&'m self, text: &str) -> Option<(usize, &'m str)> {
        let mut best = None;
        let mut at = children(*self.units.first()?);
        for (i, byte) in text.bytes().take(MAX_PREFIX).enumerate() {
            at ^= usize::from(byte);
            let Some(unit) =
                self.units.get(at).copied().filter(|unit| byte != 0 && unit & (1 << 31 | 0xFF) == u32::from(byte))
            else {
                break;
            };
            at ^= children(unit);
            if unit >> 8 & 1 == 1 && text.is_char_boundary(i + 1) {
                let leaf = self.units.get(at).map(|leaf| (leaf & (u32::MAX >> 1)) as usize);
                best = leaf.and_then(|offset| self.replacement(offset)).map(|with| (i + 1, with)).or(best);
            }
        }
        best
    }

    fn replacement(&self, offset: usize) -> Option<&str> {
        let rest = self.replacements.get(offset..)?;
        let end = rest.iter().position(|&byte| byte == 0)?;
        std::str::from_utf8(&rest[..end]).ok()
    }
}

/// The offset from a unit to its children, to be combined with their labels by XOR.
fn children(unit: u32) -> usize {
    ((unit >> 10) << ((unit & 1 << 9) >> 6)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table that turns "A" into "a" and "AB" into "xy".
    fn table() -> Vec<u8> {
        let mut units = [0u32; 512];
        let at = |offset: u32, label: u32| (offset ^ label) as usize;
        units[0] = 1 << 10; // the root: children at 1 ^ label
        let a = at(1, 0x41);
        let offset_a = 256 ^ a as u32;
        units[a] = 0x41 | 1 << 8 | offset_a << 10;
        units[256] = 1 << 31; // leaf of "A": children ^ 0, replacement at 0
        let b = at(256, 0x42);
        let offset_b = 400 ^ b as u32;
        units[b] = 0x42 | 1 << 8 | offset_b << 10;
        units[400] = 1 << 31 | 2;
        let trie: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        [&(trie.len() as u32).to_le_bytes()[..], &trie, b"a\0xy\0"].concat()
    }

    #[test]
    fn longest_prefix_wins() {
        let map = CharsMap::new(&table()).expect("sound");
        assert_eq!(map.longest("ABC"), Some((2, "xy")));
        assert_eq!(map.longest("AC"), Some((1, "a")));
        assert_eq!(map.longest("B"), None);
        assert_eq!(map.longest(""), None);
        assert_eq!(CharsMap::new(&[]).expect("empty").longest("A"), None);
    }

    #[test]
    fn broken_tables_do_no_harm() {
        for bytes in [&[1u8][..], &[255, 255, 255, 255, 0], &[3, 0, 0, 0, 1, 2, 3]] {
            assert!(CharsMap::new(bytes).expect_err("broken").to_string().contains("do not fit"));
        }
        // Every unit out of range, replacements cut off.
        let mut bytes = table();
        bytes.truncate(bytes.len() - 4);
        assert_eq!(CharsMap::new(&bytes).expect("parses").longest("AB"), None);
        let mut bytes = table();
        bytes[4..4 + 2048].iter_mut().for_each(|byte| *byte |= 0xF0);
        assert_eq!(CharsMap::new(&bytes).expect("parses").longest("AB"), None);
    }
}
