// The cache, to be written: words, or for blocks (KV_BLOCKS) words that several threads write.

#if KV_BLOCKS
@group(0) @binding(8) var<storage, read_write> keys: array<atomic<u32>>;
@group(0) @binding(9) var<storage, read_write> values: array<atomic<u32>>;
#else
@group(0) @binding(8) var<storage, read_write> keys: array<u32>;
@group(0) @binding(9) var<storage, read_write> values: array<u32>;
#end
