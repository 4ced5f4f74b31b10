// Nothing but products of small f16 matrices, added up in f32, by a device's units for them. One subgroup to a workgroup.

#if EDGE16
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;
#else
alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sum = coop_mat8x8<f32, C>;
#end

struct Params {
  rounds: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

var<workgroup> tile: array<f16, EDGE * EDGE>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  for (var i = thread; i < EDGE * EDGE; i += WG) {
    tile[i] = f16(i % 7u) * 0.125h;
  }
  workgroupBarrier();
  // Where there is less memory than work, workgroups share it: what they compute is of no matter.
  let place = group.x % (arrayLength(&y) / (EDGE * EDGE)) * EDGE * EDGE;
  let left = coopLoad<Left>(&tile[0], EDGE);
  let right = coopLoad<Right>(&tile[0], EDGE);
  // Four sums in flight; what they start from is of no matter.
  var a = coopLoad<Sum>(&y[place], EDGE);
  var b = a;
  var c = a;
  var d = a;
  for (var i = 0u; i < params.rounds; i++) {
    a = coopMultiplyAdd(left, right, a);
    b = coopMultiplyAdd(left, right, b);
    c = coopMultiplyAdd(left, right, c);
    d = coopMultiplyAdd(left, right, d);
  }
  coopStore(a + b + c + d, &y[place], EDGE);
}
