// Functions of one value (ACT, SCALE, SOFTCAP, CLAMP) or of a gate and a value (GLU), alone or behind a product; flags pick one.
// Their constants are params.a and params.b. Definitions: src/ops/unary.rs, src/ops/glu.rs.

#if ACT
#import activation
#end

#if GLU
fn glu_eval(g: f32, u: f32) -> f32 {
#if CLAMPED
  let bounded = min(g, params.b);
  let sigmoid = 1.0 / (1.0 + exp(-max(params.a * bounded, -80.0)));
  return (clamp(u, -params.b, params.b) + 1.0) * bounded * sigmoid;
#else
  return activate(g) * u;
#end
}
#else
fn unary_eval(v: f32) -> f32 {
#if ACT
  return activate(v);
#end
#if SCALE
  return params.a * v;
#end
#if SOFTCAP
  // tanh is 1 in f32 from 10 on, and some drivers overflow far beyond.
  return params.a * tanh(clamp(v / params.a, -10.0, 10.0));
#end
#if CLAMP
  return min(max(v, params.a), params.b);
#end
}
#end
