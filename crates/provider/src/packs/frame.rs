//! Format of a pack: a sequence of frames, each with its own checksum.
//!
//! ```text
//! | "psg1" | kind u8 | agreement 44 | shard 32 | length u32 | crc32 u32 | bytes (Keep only) |
//! ```
//!
//! The checksum covers the 85 bytes before it; the bytes are checked by their own name, the
//! shard's BLAKE3 hash. So a torn frame is detected, and a file can be read without an index.

use bytes::BufMut;
use commonware_codec::{Copying, Encode, EncodeSize, FixedSize, Read};
use commonware_cryptography::Crc32;
use posync_protocol::{AgreementId, Hash, encoded, limits::SHARD_BYTES_MAX};

/// Magic bytes at the start of every frame.
pub(super) const MAGIC: [u8; 4] = *b"psg1";
/// Bytes of a frame before its data.
pub(super) const HEADER_BYTES: usize = 4 + 1 + 32 + 4 + 8 + 32 + 4 + 4;

/// Effect of a frame on the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Stores the shard, whose bytes follow; the agreement holds it.
    Keep = 1,
    /// Adds the agreement as a holder of a shard that is already stored.
    Link = 2,
    /// Removes the agreement as a holder; the bytes go with the last holder.
    Unlink = 3,
}

impl commonware_codec::Write for Kind {
    fn write(&self, buf: &mut impl BufMut) {
        buf.put_u8(*self as u8);
    }
}

impl FixedSize for Kind {
    const SIZE: usize = 1;
}

impl Read for Kind {
    type Cfg = ();
    fn read_cfg(buf: &mut impl commonware_codec::Buf, _: &()) -> Result<Self, commonware_codec::Error> {
        Ok(match u8::read_cfg(buf, &())? {
            1 => Self::Keep,
            2 => Self::Link,
            3 => Self::Unlink,
            other => return Err(commonware_codec::Error::InvalidEnum(other)),
        })
    }
}

encoded! {
    /// Header of a frame, without magic and checksum.
    #[derive(Copy)]
    Frame {
        /// Effect of the frame on the index.
        kind: Kind,
        /// Agreement that gains or loses the shard.
        agreement: AgreementId,
        /// Name of the shard: its BLAKE3 hash.
        shard: Hash,
        /// Length of the shard in bytes.
        length: u32,
    }
}

impl Frame {
    /// The encoded header, including the checksum.
    pub(super) fn header(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.encode());
        bytes.extend_from_slice(&checksum(&bytes));
        debug_assert_eq!(bytes.len(), HEADER_BYTES);
        bytes
    }

    /// Parses a header; `None` if these bytes are not one, or if it says that more bytes follow than a shard has.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, sum) = bytes.get(..HEADER_BYTES)?.split_at(HEADER_BYTES - 4);
        if head[..4] != MAGIC || sum != checksum(head) {
            return None;
        }
        let mut rest = Copying(&head[4..]);
        let frame = Self::read_cfg(&mut rest, &()).ok()?;
        let is_short = frame.size() - HEADER_BYTES as u64 <= SHARD_BYTES_MAX;
        (is_short && frame.encode_size() == HEADER_BYTES - 8).then_some(frame)
    }

    /// Bytes of the frame on disk: the header, and the data stored with it.
    pub(super) fn size(&self) -> u64 {
        let data = if self.kind == Kind::Keep { u64::from(self.length) } else { 0 };
        HEADER_BYTES as u64 + data
    }
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    Crc32::checksum(bytes).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use posync_protocol::Account;

    #[test]
    fn a_head_reads_back_and_any_flipped_bit_is_seen() {
        let agreement = AgreementId { provider: Account([7; 32]), slot: 3, opened: 99 };
        for (kind, size) in [(Kind::Keep, HEADER_BYTES as u64 + 5), (Kind::Link, 89), (Kind::Unlink, 89)] {
            let frame = Frame { kind, agreement, shard: [9; 32], length: 5 };
            let bytes = frame.header();
            assert_eq!(Frame::parse(&bytes), Some(frame));
            assert_eq!(frame.size(), size);
            for bit in 0..bytes.len() * 8 {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Frame::parse(&bad), None, "bit {bit}");
            }
            assert_eq!(Frame::parse(&bytes[1..]), None);
        }
        let most = u32::try_from(SHARD_BYTES_MAX).expect("small");
        for (length, is_one) in [(most, true), (most + 1, false), (u32::MAX, false)] {
            let frame = Frame { kind: Kind::Keep, agreement, shard: [9; 32], length };
            assert_eq!(Frame::parse(&frame.header()).is_some(), is_one, "{length}");
        }
    }
}
