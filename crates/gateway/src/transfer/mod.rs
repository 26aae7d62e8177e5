//! Moves files: sends segments to providers, and reads them back from any four of eight shards.

mod get;
mod put;
mod segment;

pub(crate) use get::{Reader, gather};
pub(crate) use put::put;

use crate::{
    allowance::Spent,
    catalogue::{NoRoom, Stopped, Usage},
    coding,
};
use posync_consumer::volume;
use posync_protocol::{Account, wire::gateway::Refusal};
use std::time::Duration;

/// Why a file could not be stored or read. Each message says what happened, why, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The catalogue has ended, so the gateway is stopping.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The caller has no file of this name.
    #[error("there is no file '{0}'; `posync ls` lists the names")]
    NoFile(String),
    /// A name that is empty or too long.
    #[error("a name holds 1 to 1024 bytes; give another name")]
    Name,
    /// A file that is longer than a file may be.
    #[error("a file of {0} bytes is too long: a file holds at most 4 TiB; split it")]
    Length(u64),
    /// A range that is not within the file: its offset, and the file's bytes.
    #[error("byte {0} lies outside a file of {1} bytes; ask for a range within it")]
    Range(u64, u64),
    /// The bytes stopped before the announced length, or went on after it.
    #[error("{0} of {1} announced bytes arrived; send the file again")]
    Incomplete(u64, u64),
    /// The caller cancelled the put.
    #[error("the put was cancelled by its sender; its space comes back by itself")]
    Cancelled,
    /// The caller ended the call, or its connection ended.
    #[error("the caller went away before the end; send or read the file again")]
    Gone,
    /// The caller sent less than the minimum of bytes within the time.
    #[error(
        "less than {1} bytes of the file arrived in {0:?} of waiting, so nothing is stored; send it again from a source that is faster"
    )]
    SlowSource(Duration, usize),
    /// The caller took less than the minimum of bytes within the time.
    #[error("less than {1} bytes of the file were taken in {0:?} of waiting; read the file again")]
    SlowReader(Duration, usize),
    /// A message that has no place in a put.
    #[error(
        "something else came amid the bytes of a file; send it again with the gateway's version of posync"
    )]
    NoPiece,
    /// Bytes or a cancellation without an open put.
    #[error("no put is open in this call; begin with one")]
    NoPut,
    /// The account is neither the owner nor a listed user.
    #[error(
        "account {0} is not served here: a gateway serves its owner and the accounts that its owner lists; ask the gateway's owner to add your account to \"users\" in the config.toml of the gateway"
    )]
    Stranger(Account),
    /// The file was removed or replaced while it was read.
    #[error("the file was removed or replaced while it was read; read it again")]
    Changed,
    /// The account would have more bytes here than its quota: bytes of the file, those that count for the
    /// account, those among them that are pending, the quota, and the bytes that the file counts as.
    #[error(
        "a file of {0} bytes does not fit: it counts as {4}, and {1} of the {3} bytes that your account may have \
         here are used, {2} of them by files under way or removed and not freed yet; remove files with `posync rm`, \
         wait until their space is freed, or ask the gateway's owner to raise \"bytes\" of your account in its config.toml"
    )]
    Quota(u64, u64, u64, u64, u64),
    /// The account has as many files as its share of the gateway's names, those under way included.
    #[error(
        "your account has {0} files here, those under way included, and may have no more: the accounts of a \
         gateway share its names; remove files with `posync rm`, or store many small files as one archive"
    )]
    Names(u64),
    /// The account has as many jobs as it may have before it begins another put.
    #[error(
        "{0} files of your account are under way, or removed and not freed yet, and an account may have no more; \
         wait until their space is freed, which `posync status` shows, then send the file again"
    )]
    Jobs(u64),
    /// The account has read as much as it may in a day.
    #[error(
        "your account may read {} bytes in a day, which the gateway's owner pays for, and {} bytes count now; try again \
         in {} minutes, or ask the gateway's owner to raise the bytes a day of your account in \"users\" of its config.toml",
        .0.most, .0.counted, .0.wait.as_secs().div_ceil(60)
    )]
    Allowance(Spent),
    /// The caller asks about the files of another account, and is not the owner.
    #[error(
        "account {0} does not own this gateway: its owner alone lists and removes files of other accounts; use \
         `posync ls` and `posync rm` without --account"
    )]
    NotOwner(Account),
    /// The owner removes a file of an account that it serves.
    #[error(
        "account {0} is served here, and its files are its own; let it remove them, or take it off \"users\" in the \
         gateway's config.toml and start the gateway again"
    )]
    Listed(Account),
    /// Too few operators have room: those that do, those needed, and what hinders the others.
    #[error(
        "{0} operators can take a shard now and a file needs {1} ({2}); try again in a minute, or see `posync providers`"
    )]
    Operators(usize, usize, String),
    /// Too few shards of a segment were signed for: their number, and what the other providers answered.
    #[error(
        "only {0} of 8 shards of a segment were signed for and 6 are needed: {1}; try again, or see `posync why PROVIDER`"
    )]
    Unsigned(usize, String),
    /// A segment could not be read: its number and the reason.
    #[error("segment {0} cannot be read: {1}; try again when its providers are back")]
    Unreadable(u32, coding::Error),
    /// The gateway's volume has room only for what it has stored.
    #[error(
        "the gateway takes no new files now: {0}; ask its owner to make room on that volume, then send the file again: what is stored can be read and removed meanwhile"
    )]
    Volume(#[from] volume::Full),
    /// The catalogue is full.
    #[error("the catalogue is full: {0}; remove files")]
    Full(&'static str),
}

impl Error {
    /// The kind of the refusal, on which programs act.
    pub(crate) const fn kind(&self) -> Refusal {
        match self {
            Self::NoFile(_) => Refusal::NoFile,
            Self::Stranger(_) | Self::NotOwner(_) => Refusal::NotServed,
            Self::Allowance(_) => Refusal::Allowance,
            Self::Listed(_)
            | Self::Name
            | Self::Length(_)
            | Self::Range(..)
            | Self::NoPiece
            | Self::NoPut => Refusal::Request,
            Self::Operators(..) | Self::Unsigned(..) | Self::Unreadable(..) => Refusal::Providers,
            Self::Full(_) | Self::Volume(_) | Self::Quota(..) | Self::Names(_) | Self::Jobs(_) => {
                Refusal::Full
            }
            Self::Incomplete(..)
            | Self::Cancelled
            | Self::Gone
            | Self::SlowSource(..)
            | Self::SlowReader(..)
            | Self::Changed => Refusal::Interrupted,
            Self::Stopped(_) => Refusal::Stopping,
        }
    }

    /// The refusal of a put of `length` bytes that does not begin.
    fn no_room(length: u64, quota: Option<u64>, why: NoRoom) -> Self {
        match why {
            NoRoom::Bytes(Usage { bytes, pending, .. }) => {
                Self::Quota(length, bytes, pending, quota.unwrap_or(u64::MAX), coding::billed(length))
            }
            NoRoom::Names(names) => Self::Names(names),
            NoRoom::Jobs(jobs) => Self::Jobs(jobs),
            NoRoom::Full => Self::Full("too many files"),
        }
    }
}

impl From<Spent> for Error {
    fn from(spent: Spent) -> Self {
        Self::Allowance(spent)
    }
}
