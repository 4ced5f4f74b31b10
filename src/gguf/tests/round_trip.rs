//! What the writer writes, the reader reads: by hand and for random files.

use super::*;
use proptest::prelude::*;

fn value() -> impl Strategy<Value = Value> {
    // NaN differs from itself; its bits are another test's business.
    let f32s = any::<f32>().prop_filter("not NaN", |x| !x.is_nan());
    let f64s = any::<f64>().prop_filter("not NaN", |x| !x.is_nan());
    let string = prop::collection::vec(any::<u8>(), 0..40);
    let scalar = prop_oneof![
        any::<u8>().prop_map(Value::from),
        any::<i8>().prop_map(Value::from),
        any::<u16>().prop_map(Value::from),
        any::<i16>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        f32s.clone().prop_map(Value::from),
        f64s.clone().prop_map(Value::from),
        string.clone().prop_map(Value::String),
    ];
    let many = 0..20usize;
    let array = prop_oneof![
        prop::collection::vec(any::<u8>(), many.clone()).prop_map(Value::from),
        prop::collection::vec(any::<i8>(), many.clone()).prop_map(Value::from),
        prop::collection::vec(any::<u16>(), many.clone()).prop_map(Value::from),
        prop::collection::vec(any::<i16>(), many.clone()).prop_map(Value::from),
        prop::collection::vec(any::<u32>(), many.clone()).prop_map(Value::from),
        prop::collection::vec(any::<i32>(), many.clone()).prop_map(Value::from),
        prop::collection::vec(any::<u64>(), many.clone()).prop_map(Value::from),
        prop::collection::vec(any::<i64>(), many.clone()).prop_map(Value::from),
        prop::collection::vec(any::<bool>(), many.clone()).prop_map(Value::from),
        prop::collection::vec(f32s, many.clone()).prop_map(Value::from),
        prop::collection::vec(f64s, many.clone()).prop_map(Value::from),
        prop::collection::vec(string, many).prop_map(|v| Value::from(v.into_iter().collect::<Strings>())),
    ];
    prop_oneof![scalar, array]
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let pairs = prop::collection::vec(("[a-z.ß_]{1,30}", value()), 0..12);
    let alignment = prop::option::of(0u32..9);
    (pairs, alignment).prop_map(|(pairs, alignment)| {
        let mut metadata = Metadata::new();
        pairs.into_iter().for_each(|(key, value)| drop(metadata.set(key, value)));
        if let Some(power) = alignment {
            metadata.set("general.alignment", 1u32 << power);
        }
        metadata
    })
}

/// A type for files and a shape that it fits.
fn tensor() -> impl Strategy<Value = (DType, Shape)> {
    let types: Vec<DType> = DType::ALL.iter().copied().filter(|&t| t != DType::U32).collect();
    (prop::sample::select(types), prop::collection::vec(0usize..4, 0..=4)).prop_map(|(dtype, mut dims)| {
        match dims.last_mut() {
            Some(row) => *row *= dtype.block(),
            None if dtype.is_quantized() => dims.push(dtype.block()),
            None => {}
        }
        (dtype, Shape::new(&dims))
    })
}

fn writer(metadata: &Metadata, tensors: &[(DType, Shape)]) -> Writer {
    let mut writer = Writer::new(metadata.clone()).unwrap();
    for (i, (dtype, shape)) in tensors.iter().enumerate() {
        writer.tensor(format!("blk.{i}.weight"), *dtype, *shape).unwrap();
    }
    writer
}

/// Bytes that tell the tensors apart.
fn data(i: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|j| (i * 31 + j * 7 + 1) as u8).collect()
}

fn holds(gguf: &Gguf, writer: &Writer) {
    assert_eq!(gguf.tensors().len(), writer.tensors().len());
    for (i, planned) in writer.tensors().iter().enumerate() {
        let tensor = gguf.need_tensor(&planned.name).unwrap();
        assert_eq!((&tensor.name, tensor.dtype, tensor.shape), (&planned.name, planned.dtype, planned.shape));
        let expected = data(i, planned.bytes());
        assert_eq!(gguf.data(tensor).unwrap(), expected);
        assert_eq!(&*gguf.data_aligned(tensor).unwrap(), expected);
        let mut copy = vec![0; expected.len()];
        gguf.read_into(tensor, 0, &mut copy).unwrap();
        assert_eq!(copy, expected);
    }
}

proptest! {
    #[test]
    fn random_files(metadata in metadata(), tensors in prop::collection::vec(tensor(), 0..6)) {
        let writer = writer(&metadata, &tensors);
        let bytes = writer.to_bytes(|i, out| out.put(&data(i, writer.tensors()[i].bytes()))).unwrap();
        let gguf = Gguf::from_bytes(bytes.clone()).unwrap();
        prop_assert_eq!(gguf.metadata(), &metadata);
        prop_assert_eq!(bytes.len() % gguf.alignment(), 0);
        holds(&gguf, &writer);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_parts(metadata in metadata(), tensors in prop::collection::vec(tensor(), 0..6), most in 1usize..4, mapped: bool) {
        let writer = writer(&metadata, &tensors);
        let folder = tempfile::tempdir().unwrap();
        let produce = |i: usize, out: &mut Sink<'_>| out.put(&data(i, writer.tensors()[i].bytes()));
        for parts in [Parts::Tensors(most), Parts::Bytes(most * 300)] {
            let paths = writer.write_parts(folder.path().join("m"), parts, produce).unwrap();
            if parts == Parts::Tensors(most) {
                prop_assert_eq!(paths.len(), tensors.len().div_ceil(most).max(1));
            }
            let gguf = Gguf::open_with(&paths[0], if mapped { Mmap::Yes } else { Mmap::No }).unwrap();
            holds(&gguf, &writer);
            prop_assert_eq!(gguf.writer().unwrap().to_bytes(|_, _| Ok(())).unwrap(),
                            Writer::new(metadata.clone()).unwrap().to_bytes(|_, _| Ok(())).unwrap());
        }
        let left = |f: std::fs::DirEntry| f.path().extension().is_some_and(|e| e != "gguf");
        prop_assert!(!std::fs::read_dir(folder.path()).unwrap().any(|f| left(f.unwrap())), "a temporary file is left");
    }
}

#[test]
fn nan_keeps_its_bits() {
    let bits = [f32::NAN.to_bits(), 0xffc0_1234];
    let mut metadata = Metadata::new();
    metadata.set("nan", bits.map(f32::from_bits).to_vec());
    let bytes = Writer::new(metadata).unwrap().to_bytes(|_, _| Ok(())).unwrap();
    let gguf = Gguf::from_bytes(bytes).unwrap();
    let Some(Value::Array(Array::F32(read))) = gguf.metadata().get("nan") else { panic!("{gguf:?}") };
    assert_eq!(read.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), bits);
}

#[test]
fn writer_refuses_what_the_reader_would() {
    let mut metadata = Metadata::new();
    metadata.set("general.alignment", 24u32);
    assert!(Writer::new(metadata).unwrap_err().to_string().contains("24 is no power of two"));
    let mut metadata = Metadata::new();
    metadata.set("", 1u32);
    assert!(Writer::new(metadata).unwrap_err().to_string().contains("the key is empty"));

    let mut writer = Writer::new(Metadata::new()).unwrap();
    writer.tensor("a", DType::F32, [2]).unwrap();
    let mut refused = |name: &str, dtype, shape: Shape, part: &str| {
        let e = writer.tensor(name, dtype, shape).unwrap_err().to_string();
        assert!(e.contains(part), "{e}");
    };
    refused("a", DType::F32, [2].into(), "tensor \"a\": the name is taken");
    refused(&"n".repeat(64), DType::F32, [2].into(), "a tensor name of 64 bytes");
    refused("b", DType::Q4_0, [2, 33].into(), "a row of 33 values");
    refused("b", DType::U32, [2].into(), "type u32 has no place in GGUF files");
    refused("b", DType::F64, [1 << 31, 1 << 30].into(), "more bytes than can be counted");
}

#[test]
#[should_panic(expected = "bytes produced for tensor \"a\"")]
fn writer_asserts_the_promised_size() {
    let mut writer = Writer::new(Metadata::new()).unwrap();
    writer.tensor("a", DType::F32, [2]).unwrap();
    let _ = writer.to_bytes(|_, out| out.put(&[0; 7]));
}
