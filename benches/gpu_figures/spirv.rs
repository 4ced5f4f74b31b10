//! Instructions of the hot loops, counted in the SPIR-V that drivers get: without checks of bounds, as releases run.

use super::caps;
use naga::back::spv;
use std::collections::HashMap;
use wgpu_llm::base::{DType, Meta};
use wgpu_llm::gpu::Shader;
use wgpu_llm::ops::{Caps, Kernel, MatMul, Op, Pass};

fn words(pass: &Pass, caps: &Caps) -> Vec<u32> {
    let shader = Shader::new(pass).expect("a shader");
    let info = shader.validate(caps).expect("a valid shader");
    let options =
        spv::Options { flags: spv::WriterFlags::DEBUG, force_loop_bounding: false, ..spv::Options::default() };
    spv::write_vec(&shader.module, &info, &options, None).expect("SPIR-V")
}

/// A loop: its own instructions, with those of what it calls, and the loops in it.
#[derive(Default)]
struct Loop {
    own: usize,
    inner: Vec<Loop>,
    /// The label behind it.
    end: u32,
}

#[derive(Default)]
struct Counted {
    names: HashMap<String, u32>,
    /// Functions, as loops that run once.
    functions: HashMap<u32, Loop>,
}

impl Counted {
    /// naga writes functions behind what they call, and a loop's blocks before the label behind it.
    fn of(words: &[u32]) -> Counted {
        let mut all = Counted::default();
        let (mut at, mut id, mut open) = (5, 0, Vec::<Loop>::new());
        while at < words.len() {
            let (op, len) = (words[at] & 0xffff, (words[at] >> 16) as usize);
            match op {
                // Names.
                5 => {
                    let bytes: Vec<u8> = words[at + 2..at + len].iter().flat_map(|w| w.to_le_bytes()).collect();
                    let name = bytes.iter().take_while(|b| **b != 0).map(|b| *b as char).collect();
                    all.names.insert(name, words[at + 1]);
                }
                54 => (id, open) = (words[at + 2], vec![Loop::default()]),
                56 => drop(all.functions.insert(id, open.remove(0))),
                246 => open.push(Loop { end: words[at + 1], ..Loop::default() }),
                248 if open.last().is_some_and(|l| l.end == words[at + 1]) => {
                    let done = open.pop().expect("it is there");
                    open.last_mut().expect("a function").inner.push(done);
                }
                // Line numbers, parameters, variables, labels, merges and returns are no work.
                8 | 55 | 59 | 247 | 248 | 253 | 254 => {}
                _ => {
                    let called = if op == 57 { all.functions.get(&words[at + 3]).map_or(0, |f| f.own) } else { 0 };
                    if let Some(inner) = open.last_mut() {
                        inner.own += 1 + called;
                    }
                }
            }
            at += len;
        }
        all
    }

    fn function(&self, name: &str) -> &Loop {
        &self.functions[&self.names[name]]
    }
}

pub fn matvec() {
    println!("\n## The mat-vec's hot loop, SPIR-V instructions per weight\n");
    println!(
        "`quant_w8` decodes eight weights of one row. With them each row needs two dot products of four and two sums; reading eight"
    );
    println!("activations is shared by a workgroup's four rows.\n");
    println!("| format | bits | decode | decode and multiply |\n|---|---|---|---|");
    for dtype in wgpu_llm::quant::SUPPORTED {
        let kernel = kernels(*dtype, 1, &caps()).remove(0);
        let all = Counted::of(&words(&kernel.passes[0], &caps()));
        let (decode, x8) = (all.function("quant_w8").own as f64, all.function("x8").own as f64);
        let bits = dtype.block_bytes() as f64 * 8.0 / dtype.block() as f64;
        let multiply = (4.0 + x8 / 4.0) / 8.0;
        println!("| {dtype} | {bits:.2} | {:.2} | {:.2} |", decode / 8.0, decode / 8.0 + multiply);
    }
}

fn kernels(dtype: DType, tokens: usize, caps: &Caps) -> Vec<Kernel> {
    let src = [Meta::new(dtype, [4096, 4096]), Meta::f32([tokens, 4096])];
    MatMul.gpu(&src, &Meta::f32([tokens, 4096]), caps)
}

/// Of prompts' kernels: what a thread does to load a weight and an activation, and to multiply.
pub fn tiles() {
    println!("\n## The tiles' hot loops, SPIR-V instructions of a thread\n");
    println!(
        "For q4_0 and 512 tokens. Loading: per weight, shared by a tile's tokens, and per activation, shared by its 64 rows."
    );
    println!(
        "Multiplying: per product of one weight by one activation. Matrices count as what each thread of their subgroup of 32 issues.\n"
    );
    println!("| variant | tokens of a tile | a weight | an activation | a product |\n|---|---|---|---|---|");
    let coop = |n| Caps { f16: true, coop: Some(n), ..caps() };
    for (caps, wanted) in [(coop(8), ["tile_x4", "tile_f16", "tile_coop8"].as_slice()), (coop(16), &["tile_coop16"])] {
        for kernel in kernels(DType::Q4_0, 512, &caps).iter().filter(|k| wanted.contains(&k.variant)) {
            let pass = kernel.passes.iter().find(|p| p.shader == "matmul_tile").expect("a tile");
            let of = |name: &str| pass.consts.iter().find(|(n, _)| *n == name).expect("a constant").1 as f64;
            let all = Counted::of(&words(pass, &caps));
            let steps = all.function("main").inner.iter().find(|l| l.inner.len() == 3).expect("the loop along k");
            let [weights, inputs, multiply] = &steps.inner[..] else { unreachable!("three loops") };
            let eight = |l: &Loop| l.own as f64 / 8.0;
            let each = of("TOKENS") * 16.0 / of("WG");
            let product = match kernel.variant {
                "tile_coop8" => multiply.own as f64 / (4.0 * 8f64.powi(3) / 32.0),
                "tile_coop16" => multiply.own as f64 / (4.0 * 16f64.powi(3) / 32.0),
                _ => (multiply.own as f64 + each * multiply.inner[0].own as f64) / (16.0 * each),
            };
            let (name, tokens) = (kernel.variant, of("TOKENS"));
            println!("| {name} | {tokens} | {:.1} | {:.1} | {product:.3} |", eight(weights), eight(inputs));
        }
    }
}
