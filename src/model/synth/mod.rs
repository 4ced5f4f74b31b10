//! Models with the shape and the formats of real ones and random weights: to measure speed where no model can be fetched.
//!
//! Blocks are not encoded one by one, which takes hours in some formats: a pool of blocks is encoded from normally distributed
//! values, and tensors are put together from it at random. So every format works that can encode, and scales and codes are
//! those of real weights. What is made depends on the name alone, not on the machine.

mod shape;
mod vocab;

pub use shape::ModelShape;

use super::preset::Preset;
use crate::base::{DType, Error, Result};
use crate::gguf::{Gguf, ReadAt, Sink, Source, Writer};
use crate::ops::{Random, Threads, for_chunks};
use crate::quant;
use shape::Values;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::f32::consts::TAU;
use std::path::Path;
use std::str::FromStr;

/// Standard deviation of weights: what most models are initialised with. The residual stream stays finite at any depth.
const DEVIATION: f32 = 0.02;
/// Blocks of a pool: few enough for a core's own cache, many enough that no two rows are alike.
const BLOCKS: usize = 1024;
/// Values of one block of a pool: the longest block that there is.
const VALUES: usize = 256;
/// Blocks that are filled from one seed, on one thread.
const PIECE: usize = 4096;
/// Pieces made before they are written.
const BATCH: usize = 64;

/// What `SHAPE:FORMAT` names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Synthetic {
    shape: ModelShape,
    preset: Preset,
}

impl FromStr for Synthetic {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (shape, preset) = text.split_once(':').unwrap_or((text, ""));
        let shape = ModelShape::parse(shape)?;
        Ok(Synthetic { shape, preset: Preset::parse(if preset.is_empty() { shape.usual_preset() } else { preset })? })
    }
}

impl std::fmt::Display for Synthetic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.shape.name, self.preset.name)
    }
}

impl Synthetic {
    /// Makes the model in memory. `progress` hears how many bytes of tensors are done and may stop the work by an error.
    pub fn model_file(&self, pool: &dyn Threads, progress: Progress<'_>) -> Result<Gguf> {
        let writer = self.writer()?;
        let mut bytes = Vec::new();
        let room = (self.bytes()? + FRONT_BYTES + 64 * self.shape.vocab as u64) as usize;
        bytes.try_reserve_exact(room).map_err(|_| {
            let what = format!("{} MiB of memory cannot be had", room >> 20);
            Error::new(crate::base::ErrorKind::OutOfSystemMemory, what).help("choose a smaller shape or format")
        })?;
        let mut maker = Maker::new(self, pool, progress);
        writer.write(&mut bytes, |i, out| maker.put(&writer, i, out))?;
        Gguf::from_sources(vec![Source::from_bytes(bytes).named(self.to_string())])
    }

    /// The model with zeros for weights, which take no memory: so that a model may be planned with that would not fit here.
    pub fn outline(&self) -> Result<Gguf> {
        let (writer, in_tensor) = (self.writer()?, Cell::new(false));
        let mut outline = Outline { front: Vec::new(), length: 0, in_tensor: &in_tensor };
        let zeros = vec![0; ZEROS];
        writer.write(&mut outline, |i, out| {
            in_tensor.set(true);
            let mut left = writer.tensors()[i].bytes();
            while left > 0 {
                out.put(&zeros[..left.min(ZEROS)])?;
                left -= left.min(ZEROS);
            }
            Ok(())
        })?;
        let Outline { front, length, .. } = outline;
        let file = Source::streamed_from(Box::new(Front { bytes: front, length }));
        Gguf::from_sources(vec![file.named(self.to_string())])
    }

    /// Writes the model as a file, which appears when it is complete.
    pub fn write(&self, path: &Path, pool: &dyn Threads, progress: Progress<'_>) -> Result<()> {
        let writer = self.writer()?;
        let mut maker = Maker::new(self, pool, progress);
        writer.write_file(path, |i, out| maker.put(&writer, i, out))
    }

    /// The same with fewer layers and tokens: ops have the shapes that they have in the whole.
    pub fn cut(mut self, layers: usize, vocab: usize) -> Self {
        self.shape.cut(layers, vocab);
        self
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> Result<u64> {
        Ok(self.writer()?.tensors().iter().map(|t| t.bytes() as u64).sum())
    }

    /// Metadata, vocabulary and the plan of tensors.
    pub fn writer(&self) -> Result<Writer> {
        let mut metadata = self.shape.metadata();
        metadata.set("general.file_type", self.preset.id);
        vocab::add(&mut metadata, self.shape.vocab);
        let mut writer = Writer::new(metadata)?;
        let facts = self.shape.facts();
        for t in self.shape.tensors() {
            let dtype = self.preset.dtype(&t.name, &t.shape, &facts);
            writer.tensor(t.name, dtype, t.shape)?;
        }
        Ok(writer)
    }
}

/// Room for metadata and the table of tensors, the vocabulary aside.
const FRONT_BYTES: u64 = 1 << 20;

/// Zeros that are written at a time.
const ZEROS: usize = 16 << 20;

/// Keeps what comes before the first tensor, and counts the rest.
struct Outline<'a> {
    front: Vec<u8>,
    length: u64,
    in_tensor: &'a Cell<bool>,
}

impl std::io::Write for Outline<'_> {
    fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
        // From the first tensor on there is nothing but zeros.
        if !self.in_tensor.get() {
            self.front.extend_from_slice(from);
        }
        self.length += from.len() as u64;
        Ok(from.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A file of which only the front is more than zeros.
struct Front {
    bytes: Vec<u8>,
    length: u64,
}

impl ReadAt for Front {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        into.fill(0);
        let rest = usize::try_from(offset).ok().and_then(|at| self.bytes.get(at..)).unwrap_or_default();
        let here = rest.len().min(into.len());
        into[..here].copy_from_slice(&rest[..here]);
        Ok(())
    }
}

/// Hears how many bytes are done; an error of it stops the work.
pub type Progress<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

/// Makes tensors, and keeps the pools between them.
struct Maker<'a> {
    values: Vec<Values>,
    pools: BTreeMap<(DType, bool), Blocks>,
    buffer: Vec<u8>,
    pool: &'a dyn Threads,
    progress: Progress<'a>,
    done: u64,
}

impl<'a> Maker<'a> {
    fn new(model: &Synthetic, pool: &'a dyn Threads, progress: Progress<'a>) -> Self {
        let values = model.shape.tensors().iter().map(|t| t.values).collect();
        Maker { values, pools: BTreeMap::new(), buffer: Vec::new(), pool, progress, done: 0 }
    }

    /// Writes tensor `i`.
    fn put(&mut self, writer: &Writer, i: usize, out: &mut Sink<'_>) -> Result<()> {
        let (tensor, values) = (&writer.tensors()[i], self.values[i]);
        let key = (tensor.dtype, values == Values::Ones);
        let blocks = self.pools.entry(key).or_insert_with(|| Blocks::new(tensor.dtype, values, self.pool));
        let piece = PIECE * blocks.size;
        let (mut left, mut seed) = (tensor.bytes(), (i as u64) << 32);
        while left > 0 {
            let now = left.min(BATCH * piece);
            self.buffer.resize(now, 0);
            for_chunks(self.pool, &mut self.buffer, piece, |n, part| blocks.fill(part, seed + n as u64));
            out.put(&self.buffer)?;
            left -= now;
            seed += BATCH as u64;
            self.done += now as u64;
            (self.progress)(self.done)?;
        }
        Ok(())
    }
}

/// Encoded blocks of [`VALUES`] weights each.
struct Blocks {
    /// Bytes of one.
    size: usize,
    bytes: Vec<u8>,
}

impl Blocks {
    fn new(dtype: DType, values: Values, pool: &dyn Threads) -> Self {
        let size = dtype.row_bytes(VALUES).expect("all blocks divide the longest");
        let mut bytes = vec![0; BLOCKS * size];
        for_chunks(pool, &mut bytes, size, |i, block| {
            let mut random = Random(!(i as u64));
            let weights: Vec<f32> = (0..VALUES)
                .map(|_| match values {
                    Values::Normal => DEVIATION * normal(&mut random),
                    Values::Ones => 1.0 + 0.1 * random.signed(),
                })
                .collect();
            quant::encode(dtype, &weights, VALUES, block);
        });
        Blocks { size, bytes }
    }

    /// Fills `out`, whole blocks of the type, with random blocks of the pool; the last may be cut short.
    fn fill(&self, out: &mut [u8], seed: u64) {
        let mut random = Random(seed);
        for out in out.chunks_mut(self.size) {
            let start = random.bits() as usize % BLOCKS * self.size;
            out.copy_from_slice(&self.bytes[start..start + out.len()]);
        }
    }
}

/// A normally distributed number. Source: Box and Muller (1958).
fn normal(random: &mut Random) -> f32 {
    // In (0, 1], so that the logarithm is finite.
    let u = (random.bits() as f32 + 1.0) / (1u64 << 32) as f32;
    (-2.0 * u.ln()).sqrt() * (TAU * random.signed()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::ThreadPool;
    use crate::model::Model;
    use crate::ops::Serial;

    #[test]
    fn every_format_makes_a_model_with_weights_like_real_ones() {
        for preset in Preset::names() {
            let synthetic: Synthetic = format!("llama-tiny:{preset}").parse().unwrap();
            let gguf = synthetic.model_file(&Serial, &mut |_| Ok(())).unwrap();
            assert_eq!(gguf.tensors().iter().map(|t| t.bytes() as u64).sum::<u64>(), synthetic.bytes().unwrap());
            let tensor = gguf.tensor("blk.1.ffn_up.weight").unwrap();
            let mut row = vec![0f32; tensor.shape.elements()];
            quant::decode(tensor.dtype, gguf.data(tensor).unwrap(), &mut row);
            let power = row.iter().map(|v| v * v).sum::<f32>() / row.len() as f32;
            assert!((power.sqrt() / DEVIATION - 1.0).abs() < 0.1, "{preset}: {}", power.sqrt());
            let mean = row.iter().sum::<f32>() / row.len() as f32;
            assert!(mean.abs() < DEVIATION / 20.0, "{preset}: mean {mean}");
            Model::new(gguf).unwrap().tokenizer().unwrap();
        }
    }

    #[test]
    fn what_is_made_depends_on_the_name_alone() {
        let file = |name: &str, threads| {
            let synthetic: Synthetic = name.parse().unwrap();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("model.gguf");
            synthetic.write(&path, &ThreadPool::new(threads), &mut |_| Ok(())).unwrap();
            std::fs::read(path).unwrap()
        };
        let one = file("moe-tiny:q4_k_m", 1);
        assert_eq!(one, file("moe-tiny:q4_k_m", 3));
        assert_ne!(one, file("moe-tiny:q4_k_s", 1));
    }

    #[test]
    fn names_are_read_and_printed() {
        for (text, name) in [("llama-1b:Q4_0", "llama-1b:q4_0"), ("gpt-oss-20b", "gpt-oss-20b:mxfp4")] {
            assert_eq!(text.parse::<Synthetic>().unwrap().to_string(), name);
        }
        assert!("llama-1b:q".parse::<Synthetic>().is_err() && "x:q4_0".parse::<Synthetic>().is_err());
    }

    #[test]
    fn work_can_be_stopped() {
        let synthetic: Synthetic = "llama-tiny:f32".parse().unwrap();
        let mut stop = |_| Err(Error::usage("stopped"));
        assert!(synthetic.model_file(&Serial, &mut stop).unwrap_err().to_string().contains("stopped"));
    }
}
