//! Any bytes as a GGUF file: an error, or a model whose every value and byte can be read, written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wgpu_llm::low_level::gguf::{Gguf, Metadata, TensorInfo, Writer};

/// Padding between tensors makes files bigger than what is in them: not written again above this alignment.
const MOST_ALIGNMENT: usize = 4096;

fuzz_target!(|data: &[u8]| {
    let Ok(gguf) = Gguf::from_bytes(data.to_vec()) else { return };
    gguf.metadata().iter().for_each(|(key, value)| {
        assert!(!value.to_string().is_empty());
        read_as_everything(gguf.metadata(), key);
    });
    for tensor in gguf.tensors() {
        assert_eq!(gguf.tensor(&tensor.name), Some(tensor));
        assert_eq!(bytes_of(&gguf, tensor).len(), tensor.bytes());
        // Experts that are single tensors in the file are not in one piece.
        if gguf.has_data(tensor) {
            assert_eq!(gguf.data(tensor).expect("checked when read").len(), tensor.bytes());
            assert_eq!(gguf.data_aligned(tensor).expect("checked when read").as_ptr() as usize % 8, 0);
        }
    }
    if gguf.alignment() <= MOST_ALIGNMENT {
        let bytes = write(&gguf);
        let again = Gguf::from_bytes(bytes.clone()).expect("what the writer writes");
        assert!(write(&again) == bytes, "written twice, different");
    }
});

/// No value makes a getter panic, whatever is asked for.
fn read_as_everything(metadata: &Metadata, key: &str) {
    let _ = metadata.str(key);
    let _ = metadata.u32(key);
    let _ = metadata.u64(key);
    let _ = metadata.i32(key);
    let _ = metadata.f32(key);
    let _ = metadata.bool(key);
    let _ = metadata.strings(key);
    let _ = metadata.u32s(key);
    let _ = metadata.i32s(key);
    let _ = metadata.f32s(key);
    let _ = metadata.bools(key);
    let _ = metadata.u32_per_layer(key, 2);
}

fn bytes_of(gguf: &Gguf, tensor: &TensorInfo) -> Vec<u8> {
    let mut bytes = vec![0; tensor.bytes()];
    gguf.read_into(tensor, 0, &mut bytes).expect("checked when read");
    bytes
}

fn write(gguf: &Gguf) -> Vec<u8> {
    let mut writer: Writer = gguf.writer().expect("the metadata were read");
    for tensor in gguf.tensors() {
        writer.tensor(&tensor.name, tensor.dtype, tensor.shape).expect("the tensor was read");
    }
    writer.to_bytes(|i, out| out.put(&bytes_of(gguf, &gguf.tensors()[i]))).expect("memory takes any file")
}
