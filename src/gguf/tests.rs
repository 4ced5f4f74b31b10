//! Tests of the reader and the writer.

use super::*;
use crate::base::DType;

#[test]
fn real_model_opens_mapped_and_read() {
    let Some(folder) = std::env::var_os("WGPU_LLM_TEST_DATA") else {
        assert!(std::env::var_os("WGPU_LLM_DATA").is_none_or(|v| v != "require"), "WGPU_LLM_TEST_DATA is not set");
        eprintln!("skipped: WGPU_LLM_TEST_DATA does not name the folder with the test data");
        return;
    };
    let path = Path::new(&folder).join("SmolLM2-135M-Instruct.Q4_1.gguf");
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
