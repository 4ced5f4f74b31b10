// Where the rows of a batch are: src/ops/places.rs. The shader binds `places`, and has params.places_offset, and in params.begins where
// the beginnings of the tables of its group of layers are.

const PAGE_CELLS: u32 = 64u;
const NO_ROW: u32 = 0xffffffffu;

fn position_of(row: u32) -> u32 { return places[params.places_offset + row]; }

// Where a row's table begins.
fn table_of(row: u32) -> u32 { return params.places_offset + places[params.places_offset + params.begins + row]; }

// The first cell of the page with this position.
fn page_of(table: u32, position: u32) -> u32 { return places[table + position / PAGE_CELLS] * PAGE_CELLS; }
