//! The ceremony: the members of a future network make its key together, and no machine ever holds it.
//!
//! ```text
//!  card ─┐
//!  card ─┼─► draft ──► presence of all ──► dealings held by all ──► key ──► genesis signed by all ──► start
//!  card ─┘   (id)      (id, version,      (n dealings on each         (a chain of
//!                       clock)             disk, then votes)           40 blocks)
//! ```
//!
//! Invariants:
//! 1. Nothing is dealt before every member has announced the same id and version, with a clock that fits.
//! 2. No block of the chain that makes the key is voted for, but for a few that repeat lost messages, before every
//!    member holds a dealing of every other on its disk. So a member that ends meanwhile delays the ceremony,
//!    and has no share that others could compute.
//! 3. A result in which any share is public is refused, and its id never serves again.
//! 4. A member signs the genesis after its share is durable; the genesis counts when all have signed it.
//!
//! Source: the one-shot engine of `commonware-glue`, module `dkg::bootstrap`. It alone would finish without
//! an absent member, whose share would then be public for ever, because the network key never changes.

mod attempt;
mod card;
mod draft;
mod home;
mod mark;
mod overrides;
mod presence;
mod run;

pub use card::{CARD_FILE, Card, parse_address, show as show_address};
pub use draft::{Choices, DRAFT_BYTES_MAX, Draft};
pub use overrides::named as named_parameters;
pub use run::{Options, run};

use crate::{config::ConfigError, genesis::GenesisError};
use posync_client::descriptors::TooFew;
use posync_protocol::Account;
use std::{io, net::SocketAddr, path::PathBuf};
use thiserror::Error;

/// Prefix of the partitions of the chain on which the key is made.
const PREFIX: &str = "ceremony";

/// Why a ceremony ended without a genesis.
#[derive(Debug, Error)]
pub enum CeremonyError {
    /// The member's directory cannot be used.
    #[error(transparent)]
    Directory(#[from] ConfigError),
    /// The process may not open enough files.
    #[error(transparent)]
    TooFew(#[from] TooFew),
    /// The directory holds a network, or the share of one.
    #[error(
        "{0} holds a network, or a share of the key of one, that this draft did not make: use an empty directory with \
         the member's node.key, and never copy secrets"
    )]
    Occupied(PathBuf),
    /// The draft has no card of this member.
    #[error("the draft has no card of this machine's account {0}: make a new draft with its card")]
    NoCard(Account),
    /// The volume has too little room.
    #[error(
        "only {free} bytes are free on the volume of the directory, and {needed} are needed: make room first"
    )]
    Full {
        /// Bytes that are free.
        free: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// The member cannot listen.
    #[error(
        "this machine cannot listen to the other authorities at {0}: {1}; end what holds the address, or name another with --listen"
    )]
    Listen(SocketAddr, io::Error),
    /// The attempt with this id ended without a key before.
    #[error(
        "the attempt with this draft's id has ended here without a key, and an id serves once: all members need a new \
         draft, which `posync ceremony draft` makes from the same cards"
    )]
    Spent,
    /// The secrets of this attempt are gone.
    #[error(
        "the secrets or the chain of this attempt are gone from this machine's directory `ceremony`, so it cannot go \
         on: start a new ceremony, with a new draft for all members"
    )]
    StoreGone,
    /// The members could not make a key.
    #[error("the members' dealings made no key: start a new ceremony, with a new draft for all members")]
    NoKey,
    /// Shares became public while the key was made.
    #[error(
        "the shares of {} became public while the key was made, so it is thrown away: start a new ceremony, with a new \
         draft, when all members are connected", list(.0)
    )]
    Revealed(Vec<Account>),
    /// The key is shared among others, or the draft contradicts it.
    #[error("the key does not fit the draft: {0}; start a new ceremony, with a new draft for all members")]
    Misfit(GenesisError),
    /// A part of the program ended.
    #[error(
        "a part of the ceremony ended: {0}; start the same command again, it goes on where it was. If it ends so again, \
         all members need a new draft"
    )]
    Ended(String),
}

impl CeremonyError {
    /// Returns true if the attempt can never go on, on any restart.
    const fn is_for_ever(&self) -> bool {
        matches!(self, Self::StoreGone | Self::NoKey | Self::Revealed(_) | Self::Misfit(_))
    }
}

fn list(accounts: &[Account]) -> String {
    accounts.iter().map(Account::to_string).collect::<Vec<_>>().join(", ")
}
