// What the matrix products read and write, and what follows the product: flags as in matmul_vec.wgsl.

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> wq: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> wd: array<u32>;
#if DOT4
@group(0) @binding(3) var<storage, read> x: array<vec4<u32>>; // as quantize.wgsl has it
#else
#if X4
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
#else
@group(0) @binding(3) var<storage, read> x: array<f32>;
#end
#end
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
#if BIAS
@group(0) @binding(5) var<storage, read> bias: array<f32>;
#end
#if ADD
@group(0) @binding(8) var<storage, read> residual: array<f32>;
#end

#if POINTWISE
#import pointwise
#end
