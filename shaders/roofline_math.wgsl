// Nothing but arithmetic: each thread keeps eight sums of four in flight, more than the latency of any unit.
// f32, or f16 with F16; with DOT4 dot products of four bytes.

#if DOT4
alias Sum = vec4<i32>;
#else
#if F16
alias Sum = vec4<f16>;
#else
alias Sum = vec4<f32>;
#end
#end

struct Params {
  rounds: u32,
  // What the compiler must not know: 0.5 as f32, or four bytes.
  factor: f32,
  bytes: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

#if DOT4
fn dot4(a: i32) -> i32 {
  // The sum is an operand too: a product of constants would be taken out of the loop.
  return a + dot4I8Packed(u32(a), params.bytes);
}

fn next(sum: Sum) -> Sum {
  return Sum(dot4(sum.x), dot4(sum.y), dot4(sum.z), dot4(sum.w));
}
#else
fn next(sum: Sum) -> Sum {
#if F16
  let factor = Sum(f16(params.factor));
#else
  let factor = Sum(params.factor);
#end
  // Converges to 1 / (1 - factor): nothing overflows.
  return fma(sum, factor, Sum(1));
}
#end

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
#if DOT4
  let start = Sum(i32(id.x));
#else
#if F16
  let start = Sum(f16(id.x & 7u));
#else
  let start = Sum(f32(id.x & 7u));
#end
#end
  var a = start;
  var b = start + Sum(1);
  var c = start + Sum(2);
  var d = start + Sum(3);
  var e = start + Sum(4);
  var f = start + Sum(5);
  var g = start + Sum(6);
  var h = start + Sum(7);
  for (var i = 0u; i < params.rounds; i++) {
    a = next(a);
    b = next(b);
    c = next(c);
    d = next(d);
    e = next(e);
    f = next(f);
    g = next(g);
    h = next(h);
    a = next(a);
    b = next(b);
    c = next(c);
    d = next(d);
    e = next(e);
    f = next(f);
    g = next(g);
    h = next(h);
  }
  if (id.x < arrayLength(&y)) {
    y[id.x] = vec4<f32>(a + b + c + d + e + f + g + h);
  }
}
