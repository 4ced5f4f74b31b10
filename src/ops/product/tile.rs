//! How `matmul_tile` is divided among workgroups and threads, by what there is to multiply.

use crate::ops::Caps;

/// How a workgroup of `matmul_tile` divides its work; see the shader.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub rows: usize,
    pub tokens: usize,
    pub step: u32,
    pub quads: u32,
    pub slices: u32,
    pub threads: u32,
}

impl Tile {
    pub const PLAIN: Tile = Tile { rows: 64, tokens: 64, step: 32, quads: 1, slices: 1, threads: 256 };
    /// Eight rows by eight tokens for each thread: a quarter fewer instructions, where there is work for many of them.
    pub const BIG: Tile = Tile { rows: 128, tokens: 128, step: 16, quads: 2, ..Tile::PLAIN };
    /// For few tokens. Two slices make up for workgroups that few tokens are too few for.
    const SLICED: Tile = Tile { rows: 32, slices: 2, threads: 128, ..Tile::PLAIN };
    /// The same for many rows: tokens are read half as often.
    const SLICED_HIGH: Tile = Tile { rows: 64, threads: 256, ..Tile::SLICED };
    /// Bytes of workgroup memory of [`SLICED_HIGH`](Self::SLICED_HIGH) with 32 tokens.
    const HIGH_SHARED: u32 = 24 << 10;

    /// The tile of an exact product of `rows` rows by `tokens` tokens that share their weights.
    pub fn of(rows: usize, tokens: usize, caps: &Caps) -> Tile {
        let few = if tokens <= 16 { 16 } else { 32 };
        match tokens {
            33.. => Tile::PLAIN,
            _ if rows >= HIGH && caps.max_shared >= Tile::HIGH_SHARED => Tile { tokens: few, ..Tile::SLICED_HIGH },
            _ => Tile { tokens: few, ..Tile::SLICED },
        }
    }

    /// Whether there is enough for tiles of [`BIG`](Self::BIG) to be tried.
    pub fn fits_big(rows: usize, tokens: usize) -> bool {
        rows >= Tile::BIG.rows && tokens > Tile::PLAIN.tokens
    }

    /// Whether there are enough of them to occupy a card, so that they are the best there.
    pub fn wants_big(rows: usize, tokens: usize, caps: &Caps) -> bool {
        let tiles = rows.div_ceil(Tile::BIG.rows) * tokens.div_ceil(Tile::BIG.tokens);
        caps.speed >= Caps::CARD && tiles >= BIG_TILES
    }

    /// The shader's constants.
    pub fn consts(&self) -> Vec<(&'static str, u32)> {
        vec![
            ("ROWS", self.rows as u32),
            ("TOKENS", self.tokens as u32),
            ("STEP", self.step),
            ("QUADS", self.quads),
            ("SLICES", self.slices),
            ("WG", self.threads),
        ]
    }
}

/// Tiles of [`Tile::BIG`] that occupy a card.
const BIG_TILES: usize = 128;
/// Rows from which on [`Tile::SLICED_HIGH`] has workgroups enough.
const HIGH: usize = 8192;
