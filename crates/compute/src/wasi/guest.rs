//! The memory of the program, as the shim sees it: addresses that may be wrong.

use super::Errno;
use crate::limits;
use std::ops::Range;

/// The memory of a running program.
pub(super) struct Guest<'a>(&'a mut [u8]);

/// A buffer of a read or a write.
pub(super) struct Buffer(Range<usize>);

impl Buffer {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<'a> Guest<'a> {
    pub(super) fn new(memory: &'a mut [u8]) -> Self {
        Self(memory)
    }

    /// The bytes of `len` at `at`, if all of them are within the memory.
    fn range(&self, at: u64, len: u64) -> Result<Range<usize>, Errno> {
        // Both are at most 32 bits long.
        let end = at + len;
        if end > self.0.len() as u64 {
            return Err(Errno::FAULT);
        }
        Ok(at as usize..end as usize)
    }

    pub(super) fn buffer(&self, at: u64, len: u64) -> Result<Buffer, Errno> {
        self.range(at, len).map(Buffer)
    }

    pub(super) fn bytes(&self, buffer: &Buffer) -> &[u8] {
        &self.0[buffer.0.clone()]
    }

    pub(super) fn bytes_mut(&mut self, buffer: &Buffer) -> &mut [u8] {
        &mut self.0[buffer.0.clone()]
    }

    /// A path or a name: text of at most [`limits::PATH_BYTES_MAX`] bytes.
    pub(super) fn text(&self, at: u64, len: u64) -> Result<&str, Errno> {
        let range = self.range(at, len)?;
        if range.len() > limits::PATH_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let text = std::str::from_utf8(&self.0[range]).map_err(|_| Errno::ILSEQ)?;
        if text.contains('\0') { Err(Errno::INVAL) } else { Ok(text) }
    }

    pub(super) fn put(&mut self, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        let range = self.range(at, bytes.len() as u64)?;
        self.0[range].copy_from_slice(bytes);
        Ok(())
    }

    pub(super) fn put_u32(&mut self, at: u64, value: u32) -> Result<(), Errno> {
        self.put(at, &value.to_le_bytes())
    }

    pub(super) fn put_u64(&mut self, at: u64, value: u64) -> Result<(), Errno> {
        self.put(at, &value.to_le_bytes())
    }

    pub(super) fn array<const N: usize>(&self, at: u64) -> Result<[u8; N], Errno> {
        let range = self.range(at, N as u64)?;
        Ok(self.0[range].try_into().expect("the range has N bytes"))
    }

    pub(super) fn u32(&self, at: u64) -> Result<u32, Errno> {
        self.array(at).map(u32::from_le_bytes)
    }

    /// The buffers that a list of addresses and lengths names.
    pub(super) fn buffers(&self, at: u64, count: u64) -> Result<Vec<Buffer>, Errno> {
        if count > limits::VECTORS_MAX.into() {
            return Err(Errno::INVAL);
        }
        let entry = |index| {
            let at = at + index * 8;
            self.buffer(self.u32(at)?.into(), self.u32(at + 4)?.into())
        };
        (0..count).map(entry).collect()
    }
}
