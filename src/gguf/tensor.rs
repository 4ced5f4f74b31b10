//! What a file says about a tensor: name, type, shape and where its bytes lie.

use super::cursor::Cursor;
use crate::base::{DType, Error, MAX_DIMS, Result, Shape};

/// Names must be shorter than this many bytes. Source: ggml's GGML_MAX_NAME.
pub const MAX_NAME: usize = 64;

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its sizes, row-major: the file's order reversed.
    pub shape: Shape,
    /// Which file of a split model it lies in, from 0.
    pub(super) part: usize,
    /// Where it starts: first in the data section, later in the file.
    pub(super) start: u64,
    /// Where its equal pieces lie (file, start), if they are tensors of their own in the file; empty if it is in one piece, as most are.
    pub(super) pieces: Vec<(usize, u64)>,
}

impl TensorInfo {
    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        size(self.dtype, self.shape.dims()).expect("checked when the tensor was read or planned")
    }

    /// Reads an entry of the tensor table: name, number of dimensions (`u32`), sizes (`u64` each, innermost first), type
    /// id (`u32`), offset in the data section (`u64`).
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<TensorInfo> {
        let name = cursor.string("tensor name")?;
        check_name(name)?;
        let name = std::str::from_utf8(name).map_err(|_| Error::format("a tensor's name is not UTF-8"))?.to_owned();
        let (dtype, shape, start) = Self::read_rest(cursor).map_err(|e| e.at(format!("tensor {name:?}")))?;
        Ok(TensorInfo { name, dtype, shape, part: 0, start, pieces: Vec::new() })
    }

    fn read_rest(cursor: &mut Cursor<'_>) -> Result<(DType, Shape, u64)> {
        const WHAT: &str = "the table of tensors";
        let rank = cursor.u32(WHAT)? as usize;
        if rank > MAX_DIMS {
            return Err(Error::format(format!("{rank} dimensions; at most {MAX_DIMS} are allowed")));
        }
        let mut dims = [1; MAX_DIMS];
        for dim in dims[..rank].iter_mut().rev() {
            let size = cursor.u64(WHAT)?;
            *dim = usize::try_from(size).ok().filter(|&n| n <= isize::MAX as usize).ok_or_else(|| {
                Error::format(format!("a dimension of {size} (as signed: {}) is too big", size as i64))
            })?;
        }
        let dtype = dtype(cursor.u32(WHAT)?)?;
        size(dtype, &dims[..rank])?;
        let start = cursor.u64(WHAT)?;
        Ok((dtype, Shape::new(&dims[..rank]), start))
    }
}

/// An error unless `name` may name a tensor.
pub(super) fn check_name(name: &[u8]) -> Result<()> {
    if name.len() >= MAX_NAME {
        let shown = String::from_utf8_lossy(&name[..MAX_NAME]);
        return Err(Error::format(format!(
            "a tensor name of {} bytes; at most {} are allowed",
            name.len(),
            MAX_NAME - 1
        ))
        .at(format!("tensor {shown:?}…")));
    }
    Ok(())
}

/// Bytes of a packed tensor; an error if a row is no whole number of blocks or a count overflows.
pub(super) fn size(dtype: DType, dims: &[usize]) -> Result<usize> {
    let row = dims.last().copied().unwrap_or(1);
    if !row.is_multiple_of(dtype.block()) {
        return Err(Error::format(format!(
            "a row of {row} values is no multiple of {dtype}'s block of {}",
            dtype.block()
        )));
    }
    // Zeros are left out, so that no product of some of the sizes can overflow later on either.
    let elements = dims
        .iter()
        .filter(|&&n| n > 0)
        .try_fold(1usize, |product, &n| product.checked_mul(n))
        .filter(|&n| n <= isize::MAX as usize)
        .ok_or_else(|| Error::format(format!("shape {dims:?} has more values than can be counted")))?;
    let bytes = (elements / dtype.block())
        .checked_mul(dtype.block_bytes())
        .filter(|&n| n <= isize::MAX as usize)
        .ok_or_else(|| Error::format(format!("{dtype} of shape {dims:?} has more bytes than can be counted")))?;
    Ok(if dims.contains(&0) { 0 } else { bytes })
}

/// The element type of a tensor in a file. Types that were once in use, or never leave a program, are named.
fn dtype(id: u32) -> Result<DType> {
    let retired = |name| {
        Err(Error::unsupported(format!("type {name} (id {id}) was retired from GGUF"))
            .help("get a newer file of the model, or convert it again"))
    };
    match id {
        4 => retired("Q4_2"),
        5 => retired("Q4_3"),
        31 => retired("Q4_0_4_4"),
        32 => retired("Q4_0_4_8"),
        33 => retired("Q4_0_8_8"),
        36 => retired("IQ4_NL_4_4"),
        37 => retired("IQ4_NL_4_8"),
        38 => retired("IQ4_NL_8_8"),
        9 => Err(Error::unsupported("type Q8_1 (id 9) is for sums in flight, never for files")),
        15 => Err(Error::unsupported("type Q8_K (id 15) is for sums in flight, never for files")),
        id => DType::from_id(id).filter(|&t| t != DType::U32).ok_or_else(|| {
            Error::unsupported(format!("unknown tensor type {id}"))
                .help("the file is damaged or newer than this program")
        }),
    }
}
