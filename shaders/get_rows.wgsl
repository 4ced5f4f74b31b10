// y[t] = scale * table[ids[t]], plus beside[t] with ADD; one thread per eight values. Rows `first .. first + rows_here` of the table are in this
// shard; ids outside all of the table give zeros, written with the first shard.

#if !PLAIN
#import quant
#end

struct Params {
  rows: u32, // tokens
  n: u32,    // values of a row
  first: u32,
  rows_here: u32,
  rows_all: u32,
  ids_offset: u32,
  y_offset: u32,
#if PLAIN
  table_stride: u32,
  table_offset: u32,
#else
  planes: vec4<u32>,
  row_w8: u32, // eights of a row, padding included
#end
  scale: f32,
#if ADD
  beside_stride: u32,
  beside_offset: u32,
#end
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
#if PLAIN
@group(0) @binding(3) var<storage, read> table: array<f32>;
#else
@group(0) @binding(3) var<storage, read> wq: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> wd: array<u32>;
#end

#if ADD
@group(0) @binding(5) var<storage, read> beside: array<f32>;
#end

// Values 8 i .. 8 i + 7 of row `row` of the shard.
fn eight(row: u32, i: u32) -> array<vec4<f32>, 2> {
#if PLAIN
  var out: array<vec4<f32>, 2>;
  for (var j = 0u; j < 8u; j++) {
    if (8u * i + j < params.n) {
      out[j / 4u][j % 4u] = table[params.table_offset + row * params.table_stride + 8u * i + j];
    }
  }
  return out;
#else
  return quant_w8(row * params.row_w8 + i);
#end
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let t = id.y + id.z * groups.y;
  if (8u * id.x >= params.n || t >= params.rows) {
    return;
  }
  let row = ids[params.ids_offset + t];
  let here = row >= params.first && row - params.first < params.rows_here;
  let nowhere = row >= params.rows_all && params.first == 0u;
  if (!here && !nowhere) {
    return;
  }
  var values: array<vec4<f32>, 2>;
  if (here) {
    values = eight(row - params.first, id.x);
  }
  let to = params.y_offset + t * params.n + 8u * id.x;
  for (var j = 0u; j < min(8u, params.n - 8u * id.x); j++) {
    var value = params.scale * values[j / 4u][j % 4u];
#if ADD
    value += beside[params.beside_offset + t * params.beside_stride + 8u * id.x + j];
#end
    y[to + j] = value;
  }
}
