//! Builds small GGUF files byte by byte, apart from the writer, so that every part can be spoiled.

/// A small file by its parts, each of which can be spoiled.
pub(super) struct Build {
    pub(super) magic: [u8; 4],
    pub(super) version: u32,
    pub(super) pairs: Vec<Vec<u8>>,
    pub(super) tensors: Vec<Vec<u8>>,
    /// Counts to write instead of the true ones.
    pub(super) pair_count: Option<u64>,
    pub(super) tensor_count: Option<u64>,
    pub(super) alignment: usize,
    pub(super) data: usize,
}

pub(super) const U32: u32 = 4;
pub(super) const BOOL: u32 = 7;
pub(super) const STRING: u32 = 8;
pub(super) const ARRAY: u32 = 9;
pub(super) const F32: u32 = 0;
pub(super) const Q4_0: u32 = 2;
pub(super) const I8: u32 = 24;
pub(super) const F64: u32 = 28;

impl Build {
    pub(super) fn new() -> Build {
        Build {
            magic: *b"GGUF",
            version: 3,
            pairs: vec![pair("general.architecture", STRING, &string(b"llama"))],
            tensors: Vec::new(),
            pair_count: None,
            tensor_count: None,
            alignment: 32,
            data: 0,
        }
    }

    /// Two tensors, of 24 and 36 bytes.
    pub(super) fn tensors() -> Build {
        Build { data: 32 + 36, ..Build::new().tensor("a", &[3, 2], F32, 0).tensor("b", &[64], Q4_0, 32) }
    }

    pub(super) fn pair(mut self, key: &str, id: u32, value: &[u8]) -> Self {
        self.pairs.push(pair(key, id, value));
        self
    }

    pub(super) fn tensor(mut self, name: &str, dims: &[u64], id: u32, offset: u64) -> Self {
        self.tensors.push(tensor(name.as_bytes(), dims, id, offset));
        self
    }

    pub(super) fn data(self, data: usize) -> Self {
        Build { data, ..self }
    }

    pub(super) fn align(mut self, alignment: u32) -> Self {
        self.alignment = alignment as usize;
        self.pair("general.alignment", U32, &alignment.to_le_bytes())
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        let mut bytes = self.magic.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        bytes.extend(self.pair_count.unwrap_or(self.pairs.len() as u64).to_le_bytes());
        bytes.extend(self.pairs.concat());
        bytes.extend(self.tensors.concat());
        if self.data > 0 {
            bytes.resize(bytes.len().next_multiple_of(self.alignment) + self.data, 7);
        }
        bytes
    }
}

pub(super) fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

pub(super) fn pair(key: &str, id: u32, value: &[u8]) -> Vec<u8> {
    [&string(key.as_bytes()), &id.to_le_bytes()[..], value].concat()
}

pub(super) fn array(id: u32, count: u64, items: &[u8]) -> Vec<u8> {
    [&id.to_le_bytes(), &count.to_le_bytes()[..], items].concat()
}

pub(super) fn tensor(name: &[u8], dims: &[u64], id: u32, offset: u64) -> Vec<u8> {
    let dims = [&(dims.len() as u32).to_le_bytes()[..], bytemuck::cast_slice(dims)].concat();
    [string(name), dims, id.to_le_bytes().to_vec(), offset.to_le_bytes().to_vec()].concat()
}
