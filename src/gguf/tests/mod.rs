//! Tests of the reader and the writer.

mod build;
mod files;
mod malformed;
mod round_trip;
mod stream;

use super::*;
use crate::base::{DType, Shape};

/// The folder with the big test data, or a word about why the test is skipped.
fn test_data() -> Option<std::path::PathBuf> {
    let folder = std::env::var_os("WGPU_LLM_TEST_DATA");
    if folder.is_none() {
        assert!(std::env::var_os("WGPU_LLM_DATA").is_none_or(|v| v != "require"), "WGPU_LLM_TEST_DATA is not set");
        eprintln!("skipped: WGPU_LLM_TEST_DATA does not name the folder with the test data");
    }
    folder.map(Into::into)
}

#[test]
fn real_model_opens_mapped_and_read() {
    let Some(folder) = test_data() else { return };
    let path = folder.join("SmolLM2-135M-Instruct.Q4_1.gguf");
    let mapped = Gguf::open(&path).unwrap();
    let read = Gguf::open_with(&path, Mmap::No).unwrap();
    assert_eq!(mapped.metadata(), read.metadata());
    assert_eq!(mapped.tensors(), read.tensors());
    assert_eq!(mapped.metadata().need::<&str>("general.architecture").unwrap(), "llama");
    assert_eq!(mapped.metadata().strings("tokenizer.ggml.tokens").unwrap().unwrap().len(), 49_152);
    let embeddings = mapped.need_tensor("token_embd.weight").unwrap();
    assert_eq!(embeddings.shape.dims(), [49_152, 576]);
    for tensor in mapped.tensors() {
        let data = mapped.data(tensor).unwrap();
        assert_eq!(data, read.data(tensor).unwrap());
        let mut copy = vec![0; data.len().min(100)];
        mapped.read_into(tensor, data.len() - copy.len(), &mut copy).unwrap();
        assert!(data.ends_with(&copy));
    }
    assert_eq!(mapped.need_tensor("output_norm.weight").unwrap().dtype, DType::F32);
}

/// The reader and the writer agree byte for byte with a file that another program wrote.
#[test]
fn real_vocabularies_are_written_back_unchanged() {
    let Some(folder) = test_data() else { return };
    let mut same = 0;
    for file in std::fs::read_dir(folder.join("llama.cpp/models")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|e| e != "gguf") {
            continue;
        }
        let gguf = Gguf::open(&path).unwrap_or_else(|e| panic!("{e}"));
        let written = gguf.writer().unwrap().to_bytes(|_, _| Ok(())).unwrap();
        let original = std::fs::read(&path).unwrap();
        assert!(written[8..].starts_with(&original[8..]), "{} came out differently", path.display());
        same += 1;
    }
    assert!(same > 0, "no vocabularies in {}", folder.display());
    println!("{same} vocabularies written back unchanged");
}

#[test]
fn getters_check_types_and_ranges() {
    let mut m = Metadata::new();
    m.set("u8", 200u8);
    m.set("i64", -1i64);
    m.set("big", u64::MAX);
    m.set("f32", 1.5f32);
    m.set("f64", 1e300f64);
    m.set("nan", f32::NAN);
    m.set("bool", true);
    m.set("text", "grüß");
    m.set("bytes", Value::String(vec![0xff]));
    m.set("ints", vec![1i16, -2, 3]);
    m.set("floats", vec![1f64, 2.5]);
    m.set("nans", vec![0f32, f32::NAN]);
    m.set("bools", vec![true, false]);
    m.set("strings", Strings::from_iter([&b"a"[..], b"", b"\xffb"]));

    assert_eq!(m.u32("u8").unwrap(), Some(200));
    assert_eq!(m.i32("i64").unwrap(), Some(-1));
    assert_eq!(m.u64("big").unwrap(), Some(u64::MAX));
    assert_eq!(m.f32("f32").unwrap(), Some(1.5));
    assert_eq!(m.bool("bool").unwrap(), Some(true));
    assert_eq!(m.str("text").unwrap(), Some("grüß"));
    assert_eq!(m.need::<&[u8]>("bytes").unwrap(), [0xff]);
    assert_eq!(m.i32s("ints").unwrap(), Some(vec![1, -2, 3]));
    assert_eq!(m.f32s("floats").unwrap(), Some(vec![1.0, 2.5]));
    assert_eq!(m.bools("bools").unwrap(), Some(vec![true, false]));
    assert_eq!(m.strings("strings").unwrap().unwrap().iter().collect::<Vec<_>>(), [&b"a"[..], b"", b"\xffb"]);
    assert_eq!(m.u32("none").unwrap(), None);

    let wrong = [
        (m.u32("i64").unwrap_err(), "key i64: wanted an integer that fits u32, found i64 -1"),
        (m.i32("big").unwrap_err(), "key big: wanted an integer that fits i32, found u64 18446744073709551615"),
        (m.u32("f32").unwrap_err(), "key f32: wanted an integer that fits u32, found f32 1.5"),
        (m.u32("nan").unwrap_err(), "key nan: wanted an integer that fits u32, found f32 NaN"),
        (m.u32("ints").unwrap_err(), "key ints: wanted an integer that fits u32, found an array of i16"),
        (m.u32s("ints").unwrap_err(), "key ints: wanted an array of integers that fit u32, found -2 at index 1"),
        (m.f32("nan").unwrap_err(), "key nan: wanted a finite float, found f32 NaN"),
        (m.f32("u8").unwrap_err(), "key u8: wanted a finite float, found u8 200"),
        (m.f32s("nans").unwrap_err(), "key nans: wanted an array of floats without NaN, found NaN at index 1"),
        (m.bool("u8").unwrap_err(), "key u8: wanted a bool, found u8 200"),
        (m.str("bytes").unwrap_err(), "key bytes: wanted a string in UTF-8, found the bytes \"\u{fffd}\""),
        (m.str("bool").unwrap_err(), "key bool: wanted a string in UTF-8, found bool true"),
        (m.strings("text").unwrap_err(), "key text: wanted an array of strings, found string \"grüß\""),
        (m.bools("ints").unwrap_err(), "key ints: wanted an array of bools, found an array of i16"),
    ];
    for (e, message) in wrong {
        assert_eq!(e.to_string(), message);
    }
    // Too big for an f32: infinite would not be finite either.
    assert!(m.f32("f64").is_err());
    let missing = m.need::<u32>("llama.block_count").unwrap_err().to_string();
    assert!(missing.starts_with("the file has no key llama.block_count (an integer that fits u32)"), "{missing}");
}

#[test]
fn one_number_per_layer() {
    let mut m = Metadata::new();
    m.set("one", 8u32);
    m.set("each", vec![1u32, 0, 3]);
    m.set("float", 1f32);
    assert_eq!(m.u32_per_layer("one", 3).unwrap(), Some(vec![8; 3]));
    assert_eq!(m.u32_per_layer("each", 3).unwrap(), Some(vec![1, 0, 3]));
    assert_eq!(m.u32_per_layer("none", 3).unwrap(), None);
    assert!(m.u32_per_layer("each", 4).unwrap_err().to_string().contains("key each: an array of 3 for 4 layers"));
    assert!(m.u32_per_layer("float", 4).is_err());
}

#[test]
fn metadata_keeps_its_order_through_changes() {
    let mut m = Metadata::new();
    for key in ["a", "b", "c"] {
        assert!(m.set(key, key).is_none());
    }
    assert_eq!(m.set("b", 1u8), Some("b".into()));
    assert_eq!(m.remove("a"), Some("a".into()));
    assert_eq!(m.remove("a"), None);
    assert_eq!(m.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!((m.u32("b").unwrap(), m.str("c").unwrap(), m.len()), (Some(1), Some("c"), 2));
}

#[test]
fn values_for_people_are_short() {
    assert_eq!(Value::from("a\n").to_string(), r#""a\n""#);
    assert_eq!(Value::from("ß".repeat(100)).to_string(), format!("\"{}\"… (200 bytes)", "ß".repeat(60)));
    assert_eq!(Value::from((0..10).collect::<Vec<i32>>()).to_string(), "[0, 1, 2, 3, 4, 5, 6, 7, … 10 in all]");
    assert_eq!(Value::from(vec![true]).to_string(), "[true]");
    assert_eq!(Value::from(Strings::from_iter(["x"])).type_name(), "array of string");
}
