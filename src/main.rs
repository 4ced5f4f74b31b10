//! The binary `wgpu-llm`.

fn main() {}
