//! The tiny models of tests/data/archs and, with what real models of these architectures vary, tests/data/archs-more: GGUF bytes made from a specification of a few KB, and the reference's logits.
//!
//! value(i) of a tensor = scale · (2·u(i) − 1) + offset in f32, u(i) the top 24 bits of splitmix64 from the state
//! fnv1a64(name) xor seed, over 2²⁴.
// Each test file uses a part of this.
#![allow(dead_code)]

use serde_json::Value as Json;
use wgpu_llm::low_level::arch::Spec;
use wgpu_llm::low_level::base::{DType, Result, Shape};
use wgpu_llm::low_level::gguf::{Array, Gguf, Metadata, Strings, Value, Writer};

/// A model with what the reference computes for its prompt.
pub struct Fixture {
    pub name: String,
    pub gguf: Gguf,
    pub spec: Spec,
    /// Cells of the cache that the reference ran with: tables of rotary factors are chosen by it.
    pub context: usize,
    /// The prompt: one sequence from position 0.
    pub tokens: Vec<u32>,
    /// Where all logits are known.
    pub positions: Vec<usize>,
    /// The logits at these positions.
    pub logits: Vec<Vec<f32>>,
    /// The greatest logit at every position.
    pub argmax: Vec<usize>,
}

/// Folders of fixtures, and the contexts that the reference ran with, where a fixture does not say.
const FOLDERS: [(&str, usize); 2] = [("archs", 64), ("archs-more", 256)];

fn folder(folder: &str) -> String {
    format!("{}/tests/data/{folder}", env!("CARGO_MANIFEST_DIR"))
}

/// The specification file of a fixture.
pub fn json(name: &str) -> Json {
    let paths = FOLDERS.map(|(name_of_folder, _)| format!("{}/{name}.json", folder(name_of_folder)));
    let path = paths.iter().find(|path| std::fs::exists(path).is_ok_and(|yes| yes));
    let path = path.unwrap_or_else(|| panic!("no fixture is called {name}"));
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    // JSON has no infinities, but Python writes them.
    let text = text.replace("-Infinity", "null");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The names of all fixtures of architectures: one or two for each.
pub fn names() -> Vec<String> {
    names_in(FOLDERS[0].0)
}

/// The names of the others: what real models vary within their architecture.
pub fn more_names() -> Vec<String> {
    names_in(FOLDERS[1].0)
}

fn names_in(name: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder(name)).expect("fixtures lie in tests/data");
    let mut names: Vec<String> = entries
        .filter_map(|e| e.expect("readable").file_name().to_str()?.strip_suffix(".json").map(str::to_owned))
        .collect();
    names.sort();
    names
}

impl Fixture {
    /// Reads a fixture, makes its model and loads it.
    pub fn load(name: &str) -> Fixture {
        let json = json(name);
        let gguf = gguf(&json).unwrap_or_else(|e| panic!("{name}: {e}"));
        let spec = Spec::read(&gguf).unwrap_or_else(|e| panic!("{name}: {e}"));
        let numbers =
            |key: &str| -> Vec<usize> { list(&json[key]).iter().map(|v| v.as_u64().expect(key) as usize).collect() };
        let given = json["n_ctx"].as_u64().map(|n| n as usize);
        let default = FOLDERS
            .iter()
            .find(|(dir, _)| std::fs::exists(format!("{}/{name}.json", folder(dir))).is_ok_and(|yes| yes));
        let row = |row: &Json| list(row).iter().map(|v| v.as_f64().expect("a logit") as f32).collect();
        Fixture {
            name: name.to_owned(),
            context: given.or(default.map(|(_, context)| *context)).expect("found above"),
            gguf,
            spec,
            tokens: numbers("tokens").into_iter().map(|t| t as u32).collect(),
            positions: numbers("positions"),
            logits: list(&json["logits"]).iter().map(row).collect(),
            argmax: numbers("argmax"),
        }
    }
}

/// Gaps of the greatest logit to the next, relative to the spread of all, below which either may win.
pub const CLOSE: f32 = 1e-3;

/// Index of the greatest value, and by how much it leads the next, relative to the spread of all.
pub fn lead(logits: &[f32]) -> (usize, f32) {
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("a vocabulary");
    let others = || logits.iter().enumerate().filter(|(i, _)| *i != best).map(|(_, x)| *x);
    let (next, least) = (others().fold(f32::MIN, f32::max), others().fold(f32::MAX, f32::min));
    (best, (logits[best] - next) / (logits[best] - least))
}

impl Fixture {
    /// By how much the reference's greatest logit leads at known position `i`, relative to the spread of all.
    pub fn lead(&self, i: usize) -> f32 {
        lead(&self.logits[i]).1
    }
}

fn list(json: &Json) -> &[Json] {
    json.as_array().unwrap_or_else(|| panic!("an array, not {json}"))
}

/// The model a specification describes, through the writer and the reader.
pub fn gguf(json: &Json) -> Result<Gguf> {
    Gguf::from_bytes(bytes(json)?)
}

/// The file of the model a specification describes.
pub fn bytes(json: &Json) -> Result<Vec<u8>> {
    let mut metadata = Metadata::new();
    for entry in list(&json["kv"]) {
        let kinds: Vec<&str> = list(&entry[1]).iter().map(|k| k.as_str().expect("a type")).collect();
        metadata.set(entry[0].as_str().expect("a key"), value(&kinds, &entry[2]));
    }
    let seed = json["seed"].as_u64().expect("a seed");
    let mut writer = Writer::new(metadata)?;
    let mut data = Vec::new();
    for tensor in list(&json["tensors"]) {
        let name = tensor["name"].as_str().expect("a name");
        let dims: Vec<usize> =
            list(&tensor["shape"]).iter().rev().map(|n| n.as_u64().expect("a size") as usize).collect();
        let number = |key: &str| tensor[key].as_f64().expect(key) as f32;
        let values = values(name, seed, dims.iter().product(), number("scale"), number("offset"));
        writer.tensor(name, DType::F32, Shape::new(&dims))?;
        data.push(values);
    }
    writer.to_bytes(|i, out| out.put(bytemuck::cast_slice(&data[i])))
}

/// The specification of a tiny llama that can be talked to, though it makes no sense: a vocabulary of single characters, and a
/// chat template. Its context has 256 tokens.
pub fn talker() -> Json {
    let mut json = json("llama-dense");
    let mut tokens: Vec<String> = ('!'..='~').chain(['Ġ', 'Ċ']).map(String::from).collect();
    let plain = tokens.len();
    tokens.extend(["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"].map(String::from));
    let controls = plain..tokens.len();
    let end = tokens.len() - 1;
    (tokens.len()..128).for_each(|i| tokens.push(format!("tok_{i}")));
    let types: Vec<u32> = (0..128).map(|i| if controls.contains(&i) { 3 } else { 1 }).collect();
    let template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>";
    for (key, kind, value) in [
        ("tokenizer.ggml.model", serde_json::json!(["STRING"]), "gpt2".into()),
        ("tokenizer.ggml.pre", serde_json::json!(["STRING"]), "gpt-2".into()),
        ("tokenizer.ggml.tokens", serde_json::json!(["ARRAY", "STRING"]), tokens.into()),
        ("tokenizer.ggml.token_type", serde_json::json!(["ARRAY", "INT32"]), types.into()),
        ("tokenizer.ggml.merges", serde_json::json!(["ARRAY", "STRING"]), serde_json::json!([])),
        ("tokenizer.ggml.eos_token_id", serde_json::json!(["UINT32"]), end.into()),
        ("tokenizer.chat_template", serde_json::json!(["STRING"]), template.into()),
    ] {
        set(&mut json, key, kind, value);
    }
    json
}

/// The specification of a tiny llama with heads of `dim` channels: two of queries, one of keys and values.
pub fn with_heads(mut json: Json, dim: usize) -> Json {
    for (key, value) in [("key_length", dim), ("value_length", dim), ("head_count", 2), ("head_count_kv", 1)] {
        set(&mut json, &format!("llama.attention.{key}"), serde_json::json!(["UINT32"]), value.into());
    }
    for tensor in json["tensors"].as_array_mut().expect("an array") {
        let name = tensor["name"].as_str().expect("a name").to_owned();
        let heads = if name.contains("attn_q") || name.contains("attn_output") { 2 } else { 1 };
        let turned = name.contains("attn_output.weight");
        if (name.contains(".attn_") && !name.contains("norm") && !name.contains("attn_output.bias")) || turned {
            let shape = tensor["shape"].as_array_mut().expect("a shape");
            let at = if turned { 0 } else { shape.len() - 1 };
            shape[at] = (heads * dim).into();
        }
    }
    json
}

/// Sets a key of a specification.
pub fn set(json: &mut Json, key: &str, kind: Json, value: Json) {
    let entries = json["kv"].as_array_mut().expect("an array");
    entries.retain(|entry| entry[0] != key);
    entries.push(serde_json::json!([key, kind, value]));
}

fn value(kinds: &[&str], json: &Json) -> Value {
    let int = |v: &Json| v.as_i64().unwrap_or_else(|| panic!("an integer, not {v}"));
    let float = |v: &Json| v.as_f64().unwrap_or(f64::NEG_INFINITY) as f32;
    match kinds {
        ["STRING"] => Value::from(json.as_str().expect("a string")),
        ["UINT32"] => Value::U32(int(json) as u32),
        ["INT32"] => Value::I32(int(json) as i32),
        ["FLOAT32"] => Value::F32(float(json)),
        ["BOOL"] => Value::Bool(json.as_bool().expect("a bool")),
        ["ARRAY", kind] => Value::Array(match *kind {
            "STRING" => {
                let mut strings = Strings::new();
                list(json).iter().for_each(|s| strings.push(s.as_str().expect("a string").as_bytes()));
                Array::String(strings)
            }
            "UINT32" => Array::U32(list(json).iter().map(|v| int(v) as u32).collect()),
            "INT32" => Array::I32(list(json).iter().map(|v| int(v) as i32).collect()),
            "FLOAT32" => Array::F32(list(json).iter().map(float).collect()),
            kind => panic!("arrays of {kind}"),
        }),
        ["ARRAY"] => Value::Array(Array::U32(Vec::new())),
        kinds => panic!("values of {kinds:?}"),
    }
}

fn fnv1a64(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3))
}

fn values(name: &str, seed: u64, n: usize, scale: f32, offset: f32) -> Vec<f32> {
    let mut state = fnv1a64(name) ^ seed;
    let next = move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let u = ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32;
        scale * (2.0 * u - 1.0) + offset
    };
    std::iter::repeat_with(next).take(n).collect()
}
