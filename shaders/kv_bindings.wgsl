// The cache, to be written: words, or where it is in blocks (KEYS_BLOCKS, VALUES_BLOCKS) words that several threads write.

#if KEYS_BLOCKS
@group(0) @binding(8) var<storage, read_write> keys: array<atomic<u32>>;
#else
@group(0) @binding(8) var<storage, read_write> keys: array<u32>;
#end
#if VALUES_BLOCKS
@group(0) @binding(9) var<storage, read_write> values: array<atomic<u32>>;
#else
@group(0) @binding(9) var<storage, read_write> values: array<u32>;
#end
