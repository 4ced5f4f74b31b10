// Attention's rows of queries, ROWS of them as one vector, and what is one for each row. A row past `last` stands for the last.

#if ROWS_1
alias Rows = f32;
alias Indices = u32;

fn rows_from(first: u32, last: u32) -> Indices { return min(first, last); }
fn gather_q(at: Indices) -> Rows { return q[at]; }
fn gather_pos(at: Indices) -> Indices { return position_of(at); }
fn first_cells(p: Indices) -> Indices { return first_cell(p); }
#if ALIBI
fn slopes(head: Indices) -> Rows { return slope(head); }
#end
#if SPLIT
fn put_softmax(at: Indices, greatest: Rows, sum: Rows, count: u32) {
    if count > 0u { softmax[at] = vec2(greatest, sum); }
}
#else
#if SINKS
fn gather_sinks(head: Indices) -> Rows { return sinks[head]; }
#end
#end
fn put(at: Indices, v: Rows, count: u32) {
    if count > 0u { y[at] = v; }
}
#end

#if ROWS_2
alias Rows = vec2<f32>;
alias Indices = vec2<u32>;

fn rows_from(first: u32, last: u32) -> Indices { return min(first + vec2(0u, 1u), Indices(last)); }
fn gather_q(at: Indices) -> Rows { return vec2(q[at.x], q[at.y]); }
fn gather_pos(at: Indices) -> Indices { return vec2(position_of(at.x), position_of(at.y)); }
fn first_cells(p: Indices) -> Indices { return vec2(first_cell(p.x), first_cell(p.y)); }
#if ALIBI
fn slopes(head: Indices) -> Rows { return vec2(slope(head.x), slope(head.y)); }
#end
#if SPLIT
fn put_softmax(at: Indices, greatest: Rows, sum: Rows, count: u32) {
    if count > 0u { softmax[at.x] = vec2(greatest.x, sum.x); }
    if count > 1u { softmax[at.y] = vec2(greatest.y, sum.y); }
}
#else
#if SINKS
fn gather_sinks(head: Indices) -> Rows { return vec2(sinks[head.x], sinks[head.y]); }
#end
#end
fn put(at: Indices, v: Rows, count: u32) {
    if count > 0u { y[at.x] = v.x; }
    if count > 1u { y[at.y] = v.y; }
}
#end

#if ROWS_4
alias Rows = vec4<f32>;
alias Indices = vec4<u32>;

fn rows_from(first: u32, last: u32) -> Indices { return min(first + vec4(0u, 1u, 2u, 3u), Indices(last)); }
fn gather_q(at: Indices) -> Rows { return vec4(q[at.x], q[at.y], q[at.z], q[at.w]); }
fn gather_pos(at: Indices) -> Indices { return vec4(position_of(at.x), position_of(at.y), position_of(at.z), position_of(at.w)); }
fn first_cells(p: Indices) -> Indices { return vec4(first_cell(p.x), first_cell(p.y), first_cell(p.z), first_cell(p.w)); }
#if ALIBI
fn slopes(head: Indices) -> Rows { return vec4(slope(head.x), slope(head.y), slope(head.z), slope(head.w)); }
#end
#if SPLIT
fn put_softmax(at: Indices, greatest: Rows, sum: Rows, count: u32) {
    if count > 0u { softmax[at.x] = vec2(greatest.x, sum.x); }
    if count > 1u { softmax[at.y] = vec2(greatest.y, sum.y); }
    if count > 2u { softmax[at.z] = vec2(greatest.z, sum.z); }
    if count > 3u { softmax[at.w] = vec2(greatest.w, sum.w); }
}
#else
#if SINKS
fn gather_sinks(head: Indices) -> Rows { return vec4(sinks[head.x], sinks[head.y], sinks[head.z], sinks[head.w]); }
#end
#end
fn put(at: Indices, v: Rows, count: u32) {
    if count > 0u { y[at.x] = v.x; }
    if count > 1u { y[at.y] = v.y; }
    if count > 2u { y[at.z] = v.z; }
    if count > 3u { y[at.w] = v.w; }
}
#end

#if ALIBI
fn slope(h: u32) -> f32 {
    if h < params.slope_heads { return pow(params.slope_base, f32(h + 1u)); }
    return pow(params.slope_base_rest, f32(2u * (h - params.slope_heads) + 1u));
}
#end
