// kv_read for caches in blocks of 32 values.

fn kv_key(i: u32) -> array<f32, KV_UNIT> {
    let block = i * KV_UNIT / 32u;
    return kv_decode(keys[i], kv_half(keys[params.key_scales + block / 2u], block));
}

fn kv_value(i: u32) -> array<f32, KV_UNIT> {
    let block = i * KV_UNIT / 32u;
    return kv_decode(values[i], kv_half(values[params.value_scales + block / 2u], block));
}
