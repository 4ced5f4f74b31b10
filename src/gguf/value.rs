//! Metadata values and how they lie in the file: a type id (`u32`), then the value, little-endian.
//!
//! Strings are a length (`u64`) and bytes. Arrays are the id of their type, a count (`u64`) and the values; arrays of
//! arrays are refused. Source: the GGUF specification, ggml's docs/gguf.md.

use super::cursor::Cursor;
use crate::base::{Error, Result};
use std::fmt;
use std::io::{self, Write};

pub(super) const BOOL: u32 = 7;
pub(super) const STRING: u32 = 8;
pub(super) const ARRAY: u32 = 9;

/// Many byte strings in one allocation: vocabularies have hundreds of thousands. They need not be UTF-8: tokens may be
/// pieces of characters.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Strings {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Strings {
    /// No strings yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// String `i`.
    pub fn get(&self, i: usize) -> Option<&[u8]> {
        let end = *self.ends.get(i)?;
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        Some(&self.bytes[start..end])
    }

    /// Appends a string.
    pub fn push(&mut self, string: &[u8]) {
        self.bytes.extend_from_slice(string);
        self.ends.push(self.bytes.len());
    }

    /// All strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        (0..self.len()).map(|i| self.get(i).expect("i < len"))
    }
}

impl std::ops::Index<usize> for Strings {
    type Output = [u8];
    fn index(&self, i: usize) -> &[u8] {
        self.get(i).unwrap_or_else(|| panic!("string {i} of {}", self.len()))
    }
}

impl<S: AsRef<[u8]>> FromIterator<S> for Strings {
    fn from_iter<I: IntoIterator<Item = S>>(items: I) -> Self {
        let mut strings = Strings::new();
        items.into_iter().for_each(|s| strings.push(s.as_ref()));
        strings
    }
}

impl fmt::Debug for Strings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(String::from_utf8_lossy)).finish()
    }
}

macro_rules! values {
    (integers { $($int:ident($it:ty) = $iid:literal;)* } floats { $($float:ident($ft:ty) = $fid:literal;)* }) => {
        /// One metadata value.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs)]
        pub enum Value {
            $($int($it),)*
            $($float($ft),)*
            Bool(bool),
            /// Bytes that ought to be UTF-8 and sometimes are not.
            String(Vec<u8>),
            Array(Array),
        }

        /// A metadata array: values of one type.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs)]
        pub enum Array {
            $($int(Vec<$it>),)*
            $($float(Vec<$ft>),)*
            Bool(Vec<bool>),
            String(Strings),
        }

        impl Value {
            /// GGUF's id of the type.
            pub fn type_id(&self) -> u32 {
                match self {
                    $(Value::$int(_) => $iid,)*
                    $(Value::$float(_) => $fid,)*
                    Value::Bool(_) => BOOL,
                    Value::String(_) => STRING,
                    Value::Array(_) => ARRAY,
                }
            }

            /// The value, if it is of an integer type.
            pub fn integer(&self) -> Option<i128> {
                match self {
                    $(Value::$int(v) => Some(i128::from(*v)),)*
                    _ => None,
                }
            }

            /// Reads a value of type `id`; `key` names it in errors.
            pub(super) fn read(id: u32, cursor: &mut Cursor<'_>) -> Result<Value> {
                const WHAT: &str = "a value";
                let read = match id {
                    $($iid => Value::$int(<$it>::from_le_bytes(number(cursor.take(size_of::<$it>(), WHAT)?))),)*
                    $($fid => Value::$float(<$ft>::from_le_bytes(number(cursor.take(size_of::<$ft>(), WHAT)?))),)*
                    BOOL => Value::Bool(boolean(cursor.u8(WHAT)?)?),
                    STRING => Value::String(cursor.string("string")?.to_vec()),
                    ARRAY => Value::Array(Array::read(cursor)?),
                    _ => return Err(unknown_type(id)),
                };
                Ok(read)
            }

            /// Writes the value without its type id.
            pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
                match self {
                    $(Value::$int(v) => out.write_all(&v.to_le_bytes()),)*
                    $(Value::$float(v) => out.write_all(&v.to_le_bytes()),)*
                    Value::Bool(v) => out.write_all(&[u8::from(*v)]),
                    Value::String(v) => write_string(out, v),
                    Value::Array(v) => v.write(out),
                }
            }
        }

        impl Array {
            /// GGUF's id of the type of the items.
            pub fn type_id(&self) -> u32 {
                match self {
                    $(Array::$int(_) => $iid,)*
                    $(Array::$float(_) => $fid,)*
                    Array::Bool(_) => BOOL,
                    Array::String(_) => STRING,
                }
            }

            /// How many items there are.
            pub fn len(&self) -> usize {
                match self {
                    $(Array::$int(v) => v.len(),)*
                    $(Array::$float(v) => v.len(),)*
                    Array::Bool(v) => v.len(),
                    Array::String(v) => v.len(),
                }
            }

            /// Whether there are no items.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Item `i` as a value of its own.
            pub fn get(&self, i: usize) -> Option<Value> {
                match self {
                    $(Array::$int(v) => v.get(i).map(|&x| Value::$int(x)),)*
                    $(Array::$float(v) => v.get(i).map(|&x| Value::$float(x)),)*
                    Array::Bool(v) => v.get(i).map(|&x| Value::Bool(x)),
                    Array::String(v) => v.get(i).map(|x| Value::String(x.to_vec())),
                }
            }

            fn read(cursor: &mut Cursor<'_>) -> Result<Array> {
                let id = cursor.u32("an array's type")?;
                let read = match id {
                    $($iid => Array::$int(numbers(cursor, <$it>::from_le_bytes)?),)*
                    $($fid => Array::$float(numbers(cursor, <$ft>::from_le_bytes)?),)*
                    BOOL => {
                        let count = cursor.length(1, "array length")?;
                        let bytes = cursor.take(count, "an array")?;
                        Array::Bool(bytes.iter().map(|&b| boolean(b)).collect::<Result<_>>()?)
                    }
                    STRING => Array::String(strings(cursor)?),
                    ARRAY => return Err(Error::unsupported("arrays of arrays are not supported")),
                    _ => return Err(unknown_type(id)),
                };
                Ok(read)
            }

            fn write(&self, out: &mut dyn Write) -> io::Result<()> {
                out.write_all(&self.type_id().to_le_bytes())?;
                out.write_all(&(self.len() as u64).to_le_bytes())?;
                match self {
                    $(Array::$int(v) => v.iter().try_for_each(|x| out.write_all(&x.to_le_bytes())),)*
                    $(Array::$float(v) => v.iter().try_for_each(|x| out.write_all(&x.to_le_bytes())),)*
                    Array::Bool(v) => v.iter().try_for_each(|&x| out.write_all(&[u8::from(x)])),
                    Array::String(v) => v.iter().try_for_each(|x| write_string(out, x)),
                }
            }
        }

        /// The name of a value type.
        pub(super) fn type_name(id: u32) -> &'static str {
            match id {
                $($iid => stringify!($it),)*
                $($fid => stringify!($ft),)*
                BOOL => "bool",
                STRING => "string",
                ARRAY => "array",
                _ => "unknown",
            }
        }

        $(impl From<$it> for Value { fn from(v: $it) -> Self { Value::$int(v) } })*
        $(impl From<$ft> for Value { fn from(v: $ft) -> Self { Value::$float(v) } })*
        $(impl From<Vec<$it>> for Value { fn from(v: Vec<$it>) -> Self { Value::Array(Array::$int(v)) } })*
        $(impl From<Vec<$ft>> for Value { fn from(v: Vec<$ft>) -> Self { Value::Array(Array::$float(v)) } })*
    };
}

values! {
    integers {
        U8(u8) = 0;
        I8(i8) = 1;
        U16(u16) = 2;
        I16(i16) = 3;
        U32(u32) = 4;
        I32(i32) = 5;
        U64(u64) = 10;
        I64(i64) = 11;
    }
    floats {
        F32(f32) = 6;
        F64(f64) = 12;
    }
}

impl From<bool> for Value {
    fn from(v: bool) -> Self {
        Value::Bool(v)
    }
}

impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Value::String(v.into())
    }
}

impl From<String> for Value {
    fn from(v: String) -> Self {
        Value::String(v.into())
    }
}

impl From<Vec<bool>> for Value {
    fn from(v: Vec<bool>) -> Self {
        Value::Array(Array::Bool(v))
    }
}

impl From<Strings> for Value {
    fn from(v: Strings) -> Self {
        Value::Array(Array::String(v))
    }
}

impl Value {
    /// The type in words: `u32`, `array of string`.
    pub fn type_name(&self) -> String {
        match self {
            Value::Array(a) => format!("array of {}", type_name(a.type_id())),
            v => type_name(v.type_id()).to_owned(),
        }
    }
}

/// For people: long strings and arrays are cut.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_CHARS: usize = 60;
        const SHOWN_ITEMS: usize = 8;
        match self {
            Value::Bool(v) => write!(f, "{v}"),
            Value::F32(v) => write!(f, "{v}"),
            Value::F64(v) => write!(f, "{v}"),
            Value::String(v) => {
                let text = String::from_utf8_lossy(v);
                match text.char_indices().nth(SHOWN_CHARS) {
                    Some((cut, _)) => write!(f, "{:?}… ({} bytes)", &text[..cut], v.len()),
                    None => write!(f, "{text:?}"),
                }
            }
            Value::Array(a) => {
                f.write_str("[")?;
                for (i, item) in (0..a.len().min(SHOWN_ITEMS)).filter_map(|i| a.get(i)).enumerate() {
                    write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
                }
                if a.len() > SHOWN_ITEMS { write!(f, ", … {} in all]", a.len()) } else { f.write_str("]") }
            }
            v => write!(f, "{}", v.integer().expect("everything else is an integer")),
        }
    }
}

fn number<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("N bytes were taken")
}

fn numbers<T, const N: usize>(cursor: &mut Cursor<'_>, read: fn([u8; N]) -> T) -> Result<Vec<T>> {
    let count = cursor.length(N, "array length")?;
    let bytes = cursor.take(count * N, "an array")?;
    Ok(bytes.chunks_exact(N).map(|b| read(number(b))).collect())
}

fn strings(cursor: &mut Cursor<'_>) -> Result<Strings> {
    // A string takes at least the 8 bytes of its length, so the count bounds what is reserved.
    let count = cursor.length(8, "array length")?;
    let mut strings = Strings { bytes: Vec::new(), ends: Vec::with_capacity(count) };
    for _ in 0..count {
        strings.push(cursor.string("string")?);
    }
    Ok(strings)
}

fn boolean(byte: u8) -> Result<bool> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::format(format!("a bool is 0 or 1, not {byte}"))),
    }
}

fn unknown_type(id: u32) -> Error {
    Error::format(format!("unknown value type {id}; GGUF has 0 to 12"))
        .help("the file is damaged or newer than this program")
}

/// Writes a string: its length as `u64`, then its bytes.
pub(super) fn write_string(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(&(bytes.len() as u64).to_le_bytes())?;
    out.write_all(bytes)
}
