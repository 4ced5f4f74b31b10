// Where attention finds what it sees. The shader has params.window.

// So many positions, from a multiple of it on, lie in a row in the cache.
const RUN: u32 = 64u;

// The cell of a position that is a multiple of RUN.
fn cell_of(position: u32) -> u32 { return position; }

// The first position that a token at position `p` sees.
fn first_cell(p: u32) -> u32 {
    if params.window == 0u || p + 1u <= params.window { return 0u; }
    return p + 1u - params.window;
}
