//! Moves files: segments out to providers, segments back from any four of eight shards.

mod get;
mod put;
mod segment;

pub use get::{Reader, gather};
pub use put::put;

use crate::{catalogue::Stopped, coding};
use posync_protocol::Account;
use std::time::Duration;

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
    /// The caller said so.
    #[error("the put was cancelled by who sent it; its space comes back by itself")]
    Cancelled,
    /// The caller ended the call, or its connection ended.
    #[error("the caller went away before the end; send or read the file again")]
    Gone,
    /// The caller brought too little for too long.
    #[error(
        "less than {1} bytes of the file arrived in {0:?} of waiting, so nothing is stored; send it again from a source that is faster"
    )]
    SlowSource(Duration, usize),
    /// The caller took too little for too long.
    #[error("less than {1} bytes of the file were taken in {0:?} of waiting; read the file again")]
    SlowReader(Duration, usize),
    /// A message that has no place in a put.
    #[error(
        "something else came amid the bytes of a file; send it again with the gateway's version of posync"
    )]
    NoPiece,
    /// Bytes without a put.
    #[error("no put is open in this call; begin with one")]
    NoPut,
    /// Who is not served.
    #[error(
        "account {0} is not served here: a gateway serves its owner and the accounts that its owner lists; ask the gateway's owner to add your account to \"users\" in the role.json of the gateway"
    )]
    Stranger(Account),
    /// A file that changed while it was read.
    #[error("the file was removed or replaced while it was read; read it again")]
    Changed,
    /// Too few providers.
    #[error(
        "{0} operators can take a shard now and a file needs {1} ({2}); try again in a minute, or see `posync providers`"
    )]
    Operators(usize, usize, String),
    /// Too few signatures.
    #[error(
        "only {0} of 8 shards of a segment were signed for and 6 are needed: {1}; try again, or see `posync why PROVIDER`"
    )]
    Unsigned(usize, String),
    /// Too few shards answered.
    #[error("segment {0} cannot be read: {1}; try again when its providers are back")]
    Unreadable(u32, coding::Error),
    /// The catalogue is full.
    #[error("the catalogue is full: {0}; remove files")]
    Full(&'static str),
}
