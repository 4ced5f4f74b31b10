// What a token sees. The shader has params.window, params.cells, params.unit, params.first_token, and GROUP and TILE.

#import places

// The first position that a token at position `p` sees.
fn first_cell(p: u32) -> u32 {
    if params.window == 0u || p + 1u <= params.window { return 0u; }
    return p + 1u - params.window;
}

// How many positions are there up to the one of a token: it sees none beyond. No position is trusted to lie in the context.
fn cells_to(token: u32) -> u32 {
    let p = position_of(token);
    return select(min(p + 1u, params.cells), 0u, p == NO_ROW);
}

// The token of the first row of the tile that a row is in. Tiles begin with units of rows, and do not cross them.
fn tile_token(row: u32) -> u32 {
    let start = params.first_token * GROUP;
    let unit = start + (row - start) / params.unit * params.unit;
    return (unit + (row - unit) / TILE * TILE) / GROUP;
}
