//! Files that are read piece by piece: nothing but the front is read, and tensors may lie beyond what memory could address.

use crate::base::{Error, Result};
use crate::gguf::{Gguf, ReadAt, Source};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file of `length` bytes that begins with `front`; each byte after it is made from where it lies.
struct Sparse {
    front: Vec<u8>,
    length: u64,
    read: Arc<AtomicU64>,
}

fn made(at: u64) -> u8 {
    (at % 251) as u8
}

impl ReadAt for Sparse {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        assert!(offset + into.len() as u64 <= self.length, "only what the file has is asked for");
        self.read.fetch_add(into.len() as u64, Ordering::Relaxed);
        for (at, byte) in (offset..).zip(into) {
            *byte = self.front.get(at as usize).copied().unwrap_or_else(|| made(at));
        }
        Ok(())
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// The front of a file with one key of `text` bytes and two tensors of F32, of `first` and of 8 values.
fn front(text: usize, first: u64) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend(2u64.to_le_bytes());
    out.extend(1u64.to_le_bytes());
    string(&mut out, "general.description");
    out.extend(8u32.to_le_bytes());
    string(&mut out, &"x".repeat(text));
    for (name, size, start) in [("large", first, 0), ("last", 8, 4 * first)] {
        string(&mut out, name);
        out.extend(1u32.to_le_bytes());
        out.extend(size.to_le_bytes());
        out.extend(0u32.to_le_bytes());
        out.extend(start.to_le_bytes());
    }
    out
}

fn open(front: Vec<u8>, length: u64) -> (Result<Gguf>, Arc<AtomicU64>) {
    let read = Arc::new(AtomicU64::new(0));
    let file = Sparse { front, length, read: read.clone() };
    (Gguf::from_sources(vec![Source::streamed_from(Box::new(file)).named("model.gguf")]), read)
}

#[test]
fn a_tensor_beyond_four_gibibytes_is_read_where_it_lies() {
    let front = front(1 << 20, 5 << 28);
    let data = (front.len() as u64).next_multiple_of(32);
    let length = data + (5 << 30) + 32;
    let (gguf, read) = open(front, length);
    let gguf = gguf.expect("a whole front");
    assert_eq!((gguf.file_bytes(), gguf.is_in_memory()), (length, false));
    assert!(read.load(Ordering::Relaxed) < 8 << 20, "only the front is read");
    let tensor = gguf.need_tensor("last").expect("it is there");
    let mut bytes = [0; 8];
    gguf.read_into(tensor, 4, &mut bytes).expect("it lies within the file");
    assert_eq!(bytes, std::array::from_fn(|i| made(data + (5 << 30) + 4 + i as u64)));
    let error = gguf.data(tensor).expect_err("it is not in memory").to_string();
    assert!(error.contains("piece by piece") && error.contains("model.gguf"), "{error}");
}

#[test]
fn a_damaged_front_is_an_error_and_not_read_on_and_on() {
    let whole = front(1 << 20, 64);
    let data = (whole.len() as u64).next_multiple_of(32);
    assert!(open(whole.clone(), data + 256 + 32).0.is_ok());
    let says = |front: Vec<u8>, length| {
        let (gguf, read) = open(front, length);
        (gguf.map(drop).map_err(|e: Error| e.to_string()).expect_err("damaged"), read.load(Ordering::Relaxed))
    };
    let (error, read) = says(b"PK\x03\x04 and more".to_vec(), 5 << 30);
    assert!(error.contains("not a GGUF file") && read <= 256 << 10, "{error}, {read} bytes read");
    let (error, _) = says(whole[..1000].to_vec(), 1000);
    assert!(error.contains("1000") || error.contains("too big") || error.contains("ends inside"), "{error}");
    let (error, _) = says(whole.clone(), data + 100);
    assert!(error.contains("truncated") && error.contains("large"), "{error}");
    // More keys than the file could hold, and more than any front has.
    let mut lying = whole;
    lying[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    let (error, read) = says(lying.clone(), 5 << 30);
    assert!(error.contains("key count") && read <= 256 << 10, "{error}, {read} bytes read");
    lying[16..24].copy_from_slice(&(300u64 << 20).to_le_bytes());
    let (error, read) = says(lying, 5 << 30);
    assert!(error.contains("MiB") && read < 2 << 30 | 1 << 28, "{error}, {read} bytes read");
}
