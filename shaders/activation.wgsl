// Activation functions; a flag picks one. Definitions and sources: src/ops/unary.rs.

// exp stays finite: WGSL may assume that there are no infinities.
fn sigmoid(x: f32) -> f32 {
  return 1.0 / (1.0 + exp(-max(x, -80.0)));
}

// Some drivers compute tanh from exponentials that overflow; beyond 10 it is 1 in f32.
fn tanh_safe(x: f32) -> f32 {
  return tanh(clamp(x, -10.0, 10.0));
}

#if GELU_ERF
// The error function to 1.5e-7. Source: Abramowitz and Stegun 7.1.26.
fn erf(x: f32) -> f32 {
  let a = abs(x);
  let t = 1.0 / (1.0 + 0.3275911 * a);
  let poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  let y = 1.0 - poly * exp(-min(a * a, 80.0));
  return select(y, -y, x < 0.0);
}
#end

fn activate(x: f32) -> f32 {
#if SILU
  return x * sigmoid(x);
#end
#if GELU
  // 0.5 (1 + tanh z) = sigmoid(2z), z = sqrt(2/pi) (x + 0.044715 x^3)
  return x * sigmoid(1.5957691216057308 * x * (1.0 + 0.044715 * x * x));
#end
#if GELU_ERF
  return 0.5 * x * (1.0 + erf(x * 0.7071067811865476));
#end
#if GELU_QUICK
  return x * sigmoid(1.702 * x);
#end
#if RELU
  return max(x, 0.0);
#end
#if RELU_SQUARED
  return max(x, 0.0) * max(x, 0.0);
#end
#if SIGMOID
  return sigmoid(x);
#end
#if TANH
  return tanh_safe(x);
#end
}
