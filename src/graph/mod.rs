//! Floor 4: a model's computation as data: tensors that point into buffers, nodes that apply ops, in running order.
//!
//! A graph is built once per batch shape and printed by `--dump-graph`; [`Schedule`] cuts it into segments for the devices and
//! gives temporaries their memory.

mod dump;
mod fuse;
mod schedule;

pub use schedule::{Copy, Place, Schedule, Segment, Slot, by_size};

use crate::base::{Error, Meta, Result, Role, Shape};
use crate::ops::AnyOp;
use std::collections::HashMap;

/// Index of a [`Buffer`] in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufId(pub u32);

/// A tensor: metadata and where its first value lies. An index, not data; views are copies of this with another shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tensor {
    /// Type, shape, stride.
    pub meta: Meta,
    /// The buffer it lies in.
    pub buf: BufId,
    /// Its first value, in elements from the buffer's start.
    pub offset: usize,
}

impl Tensor {
    /// The same values under another shape; see [`Meta::reshape`].
    pub fn reshape(self, shape: impl Into<Shape>) -> Tensor {
        Tensor { meta: self.meta.reshape(shape), ..self }
    }

    /// Columns `start .. start + len` of `[tokens, n]`: the Q part of a fused QKV row.
    pub fn columns(self, start: usize, len: usize) -> Tensor {
        let (tokens, n) = (self.meta.outer(), self.meta.inner());
        assert!(self.meta.shape.dims().len() == 2 && start + len <= n, "columns {start}+{len} of {:?}", self.meta);
        let meta = Meta { shape: [tokens, len].into(), ..self.meta };
        Tensor { meta, offset: self.offset + start, ..self }
    }

    /// Outermost entries `start .. start + len`.
    pub fn rows(self, start: usize, len: usize) -> Tensor {
        let mut dims = self.meta.shape.dims().to_vec();
        assert!(start + len <= dims[0], "rows {start}+{len} of {:?}", self.meta);
        dims[0] = len;
        let meta = Meta { shape: Shape::new(&dims), ..self.meta };
        Tensor { meta, offset: self.offset + start * self.meta.stride, ..self }
    }
}

/// What a buffer holds, and so who owns it and how long it lives.
#[derive(Debug, Clone, PartialEq)]
pub enum Storage {
    /// A tensor of the model file, by its GGUF name.
    Weight(String),
    /// A table computed when the graph was built (rotary frequencies), with its bytes.
    Const(String, Vec<u8>),
    /// Filled by the host before a run (or by an in-place op of the run before); shared by all graphs of a session.
    Input(Input),
    /// Keys or values of a layer; shared by all graphs of a session.
    Cache(Cache),
    /// Lives from the node that writes it to the last that reads it.
    Temp,
}

/// What the host provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Input {
    /// Token ids `[tokens]` `u32`. The sampling op writes the one drawn from row i to place i.
    Tokens,
    /// Where the rows are: positions `[tokens]`, then tables of pages, `u32`; see [`crate::ops::places_len`].
    Places,
    /// Which tokens of the batch get logits, `[rows]` `u32`.
    Rows,
    /// The sampling op's parameters, `[rows, 8]` `u32`; see [`crate::ops::Sample`].
    Sampler,
}

/// A cache buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cache {
    /// Layer it belongs to.
    pub layer: u32,
    /// Keys or values.
    pub part: CachePart,
}

/// Keys or values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum CachePart {
    Key,
    Value,
}

/// A buffer that tensors point into.
#[derive(Debug, Clone, PartialEq)]
pub struct Buffer {
    /// What it holds.
    pub storage: Storage,
    /// Its whole content as one packed tensor.
    pub meta: Meta,
}

/// One op applied to tensors.
#[derive(Debug, Clone)]
pub struct Node {
    /// What is computed.
    pub op: AnyOp,
    /// From what.
    pub src: Vec<Tensor>,
    /// Into what.
    pub dst: Tensor,
    /// The layer it belongs to; `None` before the first and after the last.
    pub layer: Option<u32>,
    /// Names the step in dumps and traces: `attn_q`, `ffn_down`.
    pub label: &'static str,
}

/// A computation: buffers, nodes in running order, and the tensor that is wanted.
#[derive(Debug, Clone)]
pub struct Graph {
    /// All buffers.
    pub buffers: Vec<Buffer>,
    /// All nodes.
    pub nodes: Vec<Node>,
    /// The result the host reads, if any: logits `[rows, vocab]`, or the sampled token.
    pub output: Option<Tensor>,
    /// What the rows of its batch are; of a prompt if nobody says.
    pub role: Role,
    /// The rules of fusion that were applied, and how often.
    pub fused: Vec<(&'static str, usize)>,
    layer: Option<u32>,
    weights: HashMap<String, Tensor>,
}

impl Default for Graph {
    fn default() -> Self {
        Self::new()
    }
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        let (buffers, nodes, fused, weights) = Default::default();
        Graph { buffers, nodes, output: None, role: Role::Prompt, fused, layer: None, weights }
    }

    /// Nodes added from now on belong to `layer`.
    pub fn set_layer(&mut self, layer: Option<u32>) {
        self.layer = layer;
    }

    /// The model's tensor `name`.
    pub fn weight(&mut self, name: &str, meta: Meta) -> Tensor {
        if let Some(tensor) = self.weights.get(name) {
            return *tensor;
        }
        let tensor = self.buffer(Storage::Weight(name.to_owned()), meta);
        self.weights.insert(name.to_owned(), tensor);
        tensor
    }

    /// A table known now; asked for again under the same label, the first one is returned.
    pub fn constant(&mut self, label: &str, meta: Meta, bytes: impl FnOnce() -> Vec<u8>) -> Tensor {
        let known = |b: &Buffer| matches!(&b.storage, Storage::Const(l, _) if l == label);
        if let Some(i) = self.buffers.iter().position(known) {
            return self.whole(i);
        }
        let bytes = bytes();
        assert_eq!(bytes.len(), meta.span_bytes(), "constant {label}: {meta:?}");
        self.buffer(Storage::Const(label.to_owned(), bytes), meta)
    }

    /// What the host provides.
    pub fn input(&mut self, input: Input, meta: Meta) -> Tensor {
        self.shared(Storage::Input(input), meta)
    }

    /// A layer's cache.
    pub fn cache(&mut self, cache: Cache, meta: Meta) -> Tensor {
        self.shared(Storage::Cache(cache), meta)
    }

    /// Applies `op`; the result is a new temporary, or the source that the op updates in place.
    pub fn op(&mut self, label: &'static str, op: impl Into<AnyOp>, src: &[Tensor]) -> Result<Tensor> {
        let op = op.into();
        let metas: Vec<Meta> = src.iter().map(|t| t.meta).collect();
        let meta = op.infer(&metas).map_err(|e: Error| e.at(self.place(label)))?;
        let dst = match op.in_place() {
            Some(i) => src[i],
            None => self.buffer(Storage::Temp, meta),
        };
        self.nodes.push(Node { op, src: src.to_vec(), dst, layer: self.layer, label });
        Ok(dst)
    }

    /// Tokens of the batch that it is for.
    pub fn tokens(&self) -> usize {
        let tokens = self.buffers.iter().find(|b| b.storage == Storage::Input(Input::Tokens));
        tokens.map_or(1, |b| b.meta.outer())
    }

    /// The buffer a tensor lies in.
    pub fn storage(&self, tensor: &Tensor) -> &Storage {
        &self.buffers[tensor.buf.0 as usize].storage
    }

    fn place(&self, label: &str) -> String {
        self.layer.map_or(label.to_owned(), |l| format!("layer {l} {label}"))
    }

    fn shared(&mut self, storage: Storage, meta: Meta) -> Tensor {
        match self.buffers.iter().position(|b| b.storage == storage) {
            Some(i) => self.whole(i),
            None => self.buffer(storage, meta),
        }
    }

    fn whole(&self, i: usize) -> Tensor {
        Tensor { meta: self.buffers[i].meta, buf: BufId(i as u32), offset: 0 }
    }

    fn buffer(&mut self, storage: Storage, meta: Meta) -> Tensor {
        self.buffers.push(Buffer { storage, meta });
        self.whole(self.buffers.len() - 1)
    }
}
