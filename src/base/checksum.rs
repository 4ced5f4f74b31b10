//! A checksum of bytes that come piece by piece: it finds damage, and guards against no attacker.

/// 64 bits over bytes, however they are cut into pieces.
///
/// Words of 8 bytes, the last one filled up with zeros, are mixed in one after the other, and then the length. Each step is a bijection of the
/// sum and of the word: a file that differs in one word never has the same sum.
#[derive(Debug, Clone)]
pub struct Checksum {
    sum: u64,
    len: u64,
    // What came since the last whole word.
    rest: [u8; 8],
}

impl Default for Checksum {
    fn default() -> Self {
        Checksum { sum: 0x9E37_79B9_7F4A_7C15, len: 0, rest: [0; 8] }
    }
}

impl Checksum {
    /// Of these bytes alone.
    pub fn of(bytes: &[u8]) -> u64 {
        let mut sum = Checksum::default();
        sum.add(bytes);
        sum.value()
    }

    /// Adds bytes.
    pub fn add(&mut self, mut bytes: &[u8]) {
        let begun = (self.len % 8) as usize;
        self.len += bytes.len() as u64;
        if begun > 0 {
            let (now, later) = bytes.split_at(bytes.len().min(8 - begun));
            self.rest[begun..begun + now.len()].copy_from_slice(now);
            if begun + now.len() < 8 {
                return;
            }
            self.sum = mix(self.sum, u64::from_le_bytes(self.rest));
            bytes = later;
        }
        let (words, rest) = bytes.as_chunks();
        self.sum = words.iter().fold(self.sum, |sum, word| mix(sum, u64::from_le_bytes(*word)));
        self.rest[..rest.len()].copy_from_slice(rest);
    }

    /// The sum of what was added so far.
    pub fn value(&self) -> u64 {
        let mut last = [0; 8];
        let begun = (self.len % 8) as usize;
        last[..begun].copy_from_slice(&self.rest[..begun]);
        let sum = mix(mix(self.sum, u64::from_le_bytes(last)), self.len);
        sum ^ sum >> 32
    }
}

// An odd factor has an inverse, and so has a rotation.
fn mix(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(0xD6E8_FEB8_6659_FD93).rotate_left(29)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_depends_on_every_bit_and_on_no_cut() {
        let bytes: Vec<u8> = (0..100_u32).map(|i| (i * 37 % 251) as u8).collect();
        for len in [0, 1, 7, 8, 9, 40, 100] {
            let whole = Checksum::of(&bytes[..len]);
            for piece in [1, 3, 8, 13] {
                let mut sum = Checksum::default();
                bytes[..len].chunks(piece).for_each(|piece| sum.add(piece));
                assert_eq!(sum.value(), whole, "{len} bytes in pieces of {piece}");
            }
            for bit in 0..8 * len {
                let mut other = bytes[..len].to_vec();
                other[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(Checksum::of(&other), whole, "bit {bit} of {len} bytes");
            }
        }
        assert_ne!(Checksum::of(&[0; 8]), Checksum::of(&[0; 9]), "zeros count");
        assert_ne!(Checksum::of(&[]), Checksum::of(&[0]), "zeros count");
    }
}
