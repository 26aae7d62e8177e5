//! Moves files: segments out to providers, segments back from any four of eight shards.

mod get;
mod put;

pub use get::{Reader, gather, segment};
pub use put::put;

use crate::{catalogue::Stopped, coding};

/// Why a file could not be stored or read: what happened, why, what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The catalogue ended.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// No such file.
    #[error("there is no file '{0}'; `posync ls` lists the names")]
    NoFile(String),
    /// A name that cannot be stored.
    #[error("a name holds 1 to 1024 bytes; give another name")]
    Name,
    /// Too long for the numbering of segments.
    #[error("a file of {0} bytes is too long; split it")]
    Length(u64),
    /// A range outside the file.
    #[error("byte {0} lies outside a file of {1} bytes; ask for a range within it")]
    Range(u64, u64),
    /// The bytes stopped before the announced length, or went on after it.
    #[error("{0} of {1} announced bytes arrived; send the file again")]
    Incomplete(u64, u64),
    /// The caller gave up.
    #[error("the put was cancelled; its space comes back by itself")]
    Cancelled,
    /// Too few providers.
    #[error(
        "{0} operators can take a shard now and a file needs {1}; wait for agreements to open, or see `posync providers`"
    )]
    Operators(usize, usize),
    /// Too few signatures.
    #[error("only {0} of 8 shards of a segment were signed for, 6 are needed; try again: {1}")]
    Unsigned(usize, String),
    /// Too few shards answered.
    #[error("segment {0} cannot be read: {1}; try again when its providers are back")]
    Unreadable(u32, coding::Error),
    /// The catalogue is full.
    #[error("the catalogue is full: {0}; remove files")]
    Full(&'static str),
}
