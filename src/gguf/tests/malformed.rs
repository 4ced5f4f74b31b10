//! Every kind of malformed file with the error it must give, and the good twins that must load.
//!
//! The same files are the corpus that fuzzing starts from: tools/fuzz/corpus/gguf.

use super::build::{ARRAY, BOOL, Build, F32, F64, I8, Q4_0, STRING, U32, array, string, tensor};
use super::*;
use std::fs;

/// What a reader must make of a file: load it, or fail with a message that has this in it.
type Verdict = Result<(), &'static str>;

/// All files: name, bytes, verdict.
fn cases() -> Vec<(&'static str, Vec<u8>, Verdict)> {
    [good(), bad_headers(), bad_pairs(), bad_lengths(), bad_tensor_entries(), bad_tensor_types(), bad_data()].concat()
}

fn good() -> Vec<(&'static str, Vec<u8>, Verdict)> {
    let every_type = (0u32..=12).filter(|&id| id != ARRAY).fold(Build::new(), |build, id| {
        let one = if id == STRING { string(b"\xff\xfe") } else { vec![1, 0, 0, 0, 0, 0, 0, 0] };
        let one = &one[..[1, 1, 2, 2, 4, 4, 4, 1, 10, 0, 8, 8, 8][id as usize]];
        let many = array(id, 3, &one.repeat(3));
        build.pair(&format!("one.{id}"), id, one).pair(&format!("many.{id}"), ARRAY, &many)
    });
    let good = [
        ("good_empty", Build { pairs: vec![], ..Build::new() }.bytes()),
        ("good_keys", every_type.bytes()),
        ("good_empty_array", Build::new().pair("a", ARRAY, &array(STRING, 0, &[])).bytes()),
        ("good_tensors", Build::tensors().bytes()),
        ("good_tensors_v2", Build { version: 2, ..Build::tensors() }.bytes()),
        ("good_padded_end", Build::tensors().data(96).bytes()),
        ("good_trailing_bytes", Build::tensors().data(999).bytes()),
        ("good_zero_dimension", Build::new().tensor("a", &[0, 2], Q4_0, 0).tensor("b", &[2, 0], F32, 0).bytes()),
        ("good_scalar", Build::new().tensor("a", &[], F32, 0).data(4).bytes()),
        ("good_longest_name", Build::new().tensor(&"n".repeat(63), &[1], F32, 0).data(4).bytes()),
        (
            "good_alignment_64",
            Build::new().align(64).tensor("a", &[1], F32, 0).tensor("b", &[1], F32, 64).data(68).bytes(),
        ),
        ("good_alignment_1", Build::new().align(1).tensor("a", &[1], I8, 0).tensor("b", &[1], F32, 1).data(5).bytes()),
    ];
    good.map(|(name, bytes)| (name, bytes, Ok(()))).to_vec()
}

fn bad_headers() -> Vec<(&'static str, Vec<u8>, Verdict)> {
    let version = |version| Build { version, ..Build::tensors() }.bytes();
    vec![
        ("no_bytes", vec![], Err("the file ends inside the magic number")),
        ("bad_magic", Build { magic: *b"GGML", ..Build::new() }.bytes(), Err("not a GGUF file")),
        ("version_0", version(0), Err("GGUF version 0 does not exist")),
        ("version_1", version(1), Err("GGUF version 1 is not supported")),
        ("version_future", version(4), Err("GGUF version 4 is not supported; versions 2 and 3 are")),
        ("big_endian", version(3u32.swap_bytes()), Err("the file is big-endian")),
        (
            "header_cut",
            Build::new().bytes()[..20].to_vec(),
            Err("the file ends inside key count: needs 8 bytes, has 4"),
        ),
        (
            "bad_tensor_count",
            Build { tensor_count: Some(u64::MAX), ..Build::new() }.bytes(),
            Err("tensor count of 18446744073709551615 is too big"),
        ),
        (
            "tensor_count_over",
            Build { tensor_count: Some(3), ..Build::tensors().data(0) }.bytes(),
            Err("entry 2 of 3 tensors, offset 143: the file ends inside tensor name length"),
        ),
        (
            "bad_key_count",
            Build { pair_count: Some(1 << 62), ..Build::new() }.bytes(),
            Err("key count of 4611686018427387904 is too big"),
        ),
        (
            "key_count_over",
            Build { pair_count: Some(2), ..Build::new() }.bytes(),
            Err("key 1 of 2, offset 69: the file ends inside key length"),
        ),
    ]
}

fn bad_pairs() -> Vec<(&'static str, Vec<u8>, Verdict)> {
    let with = |key: &str, id, value: &[u8]| Build::new().pair(key, id, value).bytes();
    let alignment = |n: u32| with("general.alignment", U32, &n.to_le_bytes());
    let mut not_utf8 = Build::new();
    not_utf8.pairs[0][8] = 0xff;
    vec![
        ("empty_key", with("", BOOL, &[1]), Err("key 1 of 2: the key is empty")),
        ("key_not_utf8", not_utf8.bytes(), Err("key 0 of 1: the key is not UTF-8")),
        ("key_too_long", with(&"k".repeat(65_536), BOOL, &[1]), Err("a key of 65536 bytes; at most 65535")),
        (
            "duplicate_key",
            Build::new().align(32).align(32).bytes(),
            Err("key \"general.alignment\": the key occurs twice"),
        ),
        ("bad_type", with("k", 13, &[0; 8]), Err("key \"k\": unknown value type 13; GGUF has 0 to 12")),
        ("bad_array_type", with("k", ARRAY, &array(99, 1, &[0; 8])), Err("key \"k\": unknown value type 99")),
        ("nested_array", with("k", ARRAY, &array(ARRAY, 1, &array(U32, 0, &[]))), Err("arrays of arrays")),
        ("bad_bool", with("k", BOOL, &[2]), Err("key \"k\": a bool is 0 or 1, not 2")),
        ("bad_bool_in_array", with("k", ARRAY, &array(BOOL, 2, &[0, 255])), Err("a bool is 0 or 1, not 255")),
        ("alignment_0", alignment(0), Err("key \"general.alignment\": an alignment of 0 is no power of two")),
        ("alignment_33", alignment(33), Err("an alignment of 33 is no power of two")),
        (
            "alignment_wrong_type",
            with("general.alignment", 10, &32u64.to_le_bytes()),
            Err("the alignment must be a u32, not u64"),
        ),
        (
            "alignment_array",
            with("general.alignment", ARRAY, &array(U32, 1, &32u32.to_le_bytes())),
            Err("the alignment must be a u32, not array of u32"),
        ),
        ("split_alone", with("split.count", 2, &[3, 0]), Err("the model is split over 3 files, but 1 were given")),
        (
            "split_later",
            Build::new().pair("split.count", 2, &[3, 0]).pair("split.no", 2, &[1, 0]).bytes(),
            Err("this is file 2 of 3 of a split model, not file 1"),
        ),
        (
            "split_count_wrong_type",
            with("split.count", STRING, &string(b"3")),
            Err("key split.count: wanted an integer"),
        ),
    ]
}

fn bad_lengths() -> Vec<(&'static str, Vec<u8>, Verdict)> {
    let value = |id, value: &[u8]| Build::new().pair("k", id, value).bytes();
    let huge = |n: u64| n.to_le_bytes();
    let mut key_size = Build::new();
    key_size.pairs[0][..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut name_size = Build::tensors();
    name_size.tensors[0][..8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    vec![
        ("bad_key_size", key_size.bytes(), Err("key length of 18446744073709551615 is over the limit of 1073741824")),
        ("bad_name_size", name_size.bytes(), Err("tensor name length of 1099511627776 is over the limit")),
        ("huge_string", value(STRING, &huge(u64::MAX)), Err("string length of 18446744073709551615 is over the limit")),
        (
            "string_past_end",
            value(STRING, &huge(1 << 30)),
            Err("key \"k\", offset 82: string length of 1073741824 is too big"),
        ),
        (
            "huge_array",
            value(ARRAY, &array(U32, u64::MAX, &[])),
            Err("array length of 18446744073709551615 is over the limit"),
        ),
        ("array_past_end", value(ARRAY, &array(U32, 1 << 30, &[0; 16])), Err("the rest of the file holds at most 4")),
        (
            "array_wraps",
            value(ARRAY, &array(12, 1 << 61, &[0; 16])),
            Err("array length of 2305843009213693952 is over"),
        ),
        ("strings_past_end", value(ARRAY, &array(STRING, 3, &[0; 16])), Err("the rest of the file holds at most 2")),
        (
            "string_in_array_past_end",
            value(ARRAY, &array(STRING, 2, &[string(b"ab"), huge(5).to_vec(), vec![b'x']].concat())),
            Err("string length of 5 is too big: the rest of the file holds at most 1"),
        ),
        ("value_cut", value(U32, &[0; 3]), Err("the file ends inside a value: needs 4 bytes, has 3")),
    ]
}

fn bad_tensor_entries() -> Vec<(&'static str, Vec<u8>, Verdict)> {
    let shape = |dims: &[u64], id| Build::new().tensor("a", dims, id, 0).data(64).bytes();
    let mut not_utf8 = Build::new();
    not_utf8.tensors.push(tensor(b"\xc3", &[1], F32, 0));
    vec![
        (
            "name_too_long",
            Build::new().tensor(&"n".repeat(64), &[1], F32, 0).data(4).bytes(),
            Err("a tensor name of 64 bytes; at most 63"),
        ),
        ("name_not_utf8", not_utf8.data(4).bytes(), Err("a tensor's name is not UTF-8")),
        (
            "duplicate_name",
            Build::new().tensor("a", &[1], F32, 0).tensor("a", &[1], F32, 32).data(36).bytes(),
            Err("tensor \"a\": the name occurs twice"),
        ),
        ("bad_dims", shape(&[1; 5], F32), Err("tensor \"a\": 5 dimensions; at most 4 are allowed")),
        (
            "huge_dims",
            Build { tensors: vec![[string(b"a"), vec![255; 20]].concat()], ..Build::new() }.bytes(),
            Err("4294967295 dimensions"),
        ),
        (
            "bad_shape",
            shape(&[u64::MAX, 1], F32),
            Err("a dimension of 18446744073709551615 (as signed: -1) is too big"),
        ),
        ("bad_shape_min", shape(&[1, 1 << 63], I8), Err("(as signed: -9223372036854775808) is too big")),
        ("too_many_elements", shape(&[1 << 32, 1 << 32], I8), Err("has more values than can be counted")),
        (
            "too_many_elements_hidden_by_zero",
            shape(&[1 << 32, 1 << 32, 0], I8),
            Err("has more values than can be counted"),
        ),
        (
            "too_many_bytes",
            shape(&[1 << 31, 1 << 30], F64),
            Err("f64 of shape [1073741824, 2147483648] has more bytes"),
        ),
        ("row_not_whole_blocks", shape(&[33], Q4_0), Err("a row of 33 values is no multiple of q4_0's block of 32")),
        (
            "row_not_whole_blocks_2d",
            shape(&[16, 2], Q4_0),
            Err("a row of 16 values is no multiple of q4_0's block of 32"),
        ),
        (
            "table_cut",
            Build::tensors().data(0).bytes()[..100].to_vec(),
            Err("entry 0 of 2 tensors, tensor \"a\", offset 98: the file ends inside the table of tensors"),
        ),
    ]
}

fn bad_tensor_types() -> Vec<(&'static str, Vec<u8>, Verdict)> {
    let of = |id| Build::new().tensor("a", &[256], id, 0).data(2048).bytes();
    vec![
        ("bad_tensor_type", of(999), Err("tensor \"a\": unknown tensor type 999")),
        ("tensor_type_max", of(u32::MAX), Err("unknown tensor type 4294967295")),
        ("tensor_type_internal_u32", of(DType::U32 as u32), Err("unknown tensor type 4294901761")),
        ("retired_4", of(4), Err("type Q4_2 (id 4) was retired")),
        ("retired_5", of(5), Err("type Q4_3 (id 5) was retired")),
        ("retired_31", of(31), Err("type Q4_0_4_4 (id 31) was retired")),
        ("retired_32", of(32), Err("type Q4_0_4_8 (id 32) was retired")),
        ("retired_33", of(33), Err("type Q4_0_8_8 (id 33) was retired")),
        ("retired_36", of(36), Err("type IQ4_NL_4_4 (id 36) was retired")),
        ("retired_37", of(37), Err("type IQ4_NL_4_8 (id 37) was retired")),
        ("retired_38", of(38), Err("type IQ4_NL_8_8 (id 38) was retired")),
        ("internal_q8_1", of(9), Err("type Q8_1 (id 9) is for sums in flight")),
        ("internal_q8_k", of(15), Err("type Q8_K (id 15) is for sums in flight")),
    ]
}

fn bad_data() -> Vec<(&'static str, Vec<u8>, Verdict)> {
    let two = |offset| Build::new().tensor("a", &[3, 2], F32, 0).tensor("b", &[1], F32, offset).data(99).bytes();
    let most = i64::MAX as u64;
    vec![
        ("bad_offset", two(64), Err("tensor \"b\": its data is said to start at 64, not at 32")),
        ("offset_overlaps", two(0), Err("said to start at 0, not at 32")),
        ("offset_unaligned", two(24), Err("said to start at 24, not at 32")),
        ("offset_max", two(u64::MAX), Err("said to start at 18446744073709551615, not at 32")),
        (
            "first_offset",
            Build::new().tensor("a", &[1], F32, 32).data(99).bytes(),
            Err("said to start at 32, not at 0"),
        ),
        (
            "inconsistent_alignment",
            Build::tensors().align(64).data(999).bytes(),
            Err("not at 64 as the sizes before it and the alignment of 64 demand"),
        ),
        (
            "not_enough_data",
            Build::tensors().data(32 + 35).bytes(),
            Err("tensor \"b\": its data ends at byte 228, but the file has only 227"),
        ),
        ("no_data", Build::tensors().data(0).bytes(), Err("tensor \"a\": its data ends at byte")),
        (
            "padding_wraps",
            Build::new().tensor("a", &[most - 1], I8, 0).data(9).bytes(),
            Err("take more bytes than can be counted"),
        ),
        (
            "data_size_overflow",
            Build::new().tensor("a", &[1 << 62], I8, 0).tensor("b", &[1 << 62], I8, 1 << 62).data(9).bytes(),
            Err("tensor \"b\": the tensors take more bytes than can be counted"),
        ),
        ("far_past_end", Build::new().tensor("a", &[1 << 40], I8, 0).data(9).bytes(), Err("but the file has only")),
    ]
}

#[test]
fn malformed_files_are_refused_and_good_ones_load() {
    let cases = cases();
    let mut wrong = Vec::new();
    for (name, bytes, verdict) in &cases {
        match (Gguf::from_bytes(bytes.clone()), verdict) {
            (Ok(gguf), Ok(())) => use_all(&gguf),
            (Err(e), Err(part)) if e.to_string().contains(part) => {}
            (Ok(_), Err(part)) => wrong.push(format!("{name} loaded, wanted: {part}")),
            (Err(e), Err(part)) => wrong.push(format!("{name}: {e}\n    wanted: {part}")),
            (Err(e), Ok(())) => wrong.push(format!("{name} is good, but: {e}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let good = cases.iter().filter(|(_, _, verdict)| verdict.is_ok()).count();
    println!("{} malformed kinds refused, {good} good twins loaded", cases.len() - good);
}

/// Reads everything there is in a file that loaded.
fn use_all(gguf: &Gguf) {
    gguf.metadata().iter().for_each(|(key, value)| assert!(!key.is_empty() && !value.to_string().is_empty()));
    for tensor in gguf.tensors() {
        assert_eq!(gguf.tensor(&tensor.name), Some(tensor));
        assert_eq!(gguf.data(tensor).unwrap().len(), tensor.bytes());
        assert_eq!(gguf.data_aligned(tensor).unwrap().len(), tensor.bytes());
    }
}

#[test]
fn every_cut_of_a_good_file_is_refused() {
    let keys = good().into_iter().find(|(name, ..)| *name == "good_keys").expect("is in the table").1;
    for whole in [Build::tensors().bytes(), keys] {
        assert!(Gguf::from_bytes(whole.clone()).is_ok());
        for end in 0..whole.len() {
            assert!(Gguf::from_bytes(whole[..end].to_vec()).is_err(), "{end} of {} bytes loaded", whole.len());
        }
    }
}

#[test]
fn every_spoiled_byte_is_refused_or_harmless() {
    for (_, bytes, _) in cases().into_iter().filter(|(_, bytes, _)| bytes.len() < 2000) {
        for i in 0..bytes.len() {
            for spoil in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut spoiled = bytes.clone();
                spoiled[i] = spoil;
                if let Ok(gguf) = Gguf::from_bytes(spoiled) {
                    use_all(&gguf);
                }
            }
        }
    }
}

/// `WGPU_LLM_BLESS=1` writes the corpus anew.
#[test]
fn fuzz_corpus_is_in_step() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/fuzz/corpus/gguf");
    let bless = std::env::var_os("WGPU_LLM_BLESS").is_some();
    let cases = cases();
    if bless {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
    }
    for (name, bytes, _) in &cases {
        let path = folder.join(format!("{name}.gguf"));
        if bless {
            fs::write(&path, bytes).unwrap();
        }
        let same = fs::read(&path).is_ok_and(|held| held == *bytes);
        assert!(same, "{} is not in step with the table; run this test with WGPU_LLM_BLESS=1", path.display());
    }
    let ours = fs::read_dir(&folder)
        .unwrap()
        .filter(|f| f.as_ref().is_ok_and(|f| f.path().extension().is_some_and(|e| e == "gguf")));
    assert_eq!(ours.count(), cases.len(), "files in {} that the table does not have", folder.display());
}
