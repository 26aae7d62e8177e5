//! The rules of Proof of Sync: the computations on which all nodes must agree.
//!
//! This crate does no IO, never waits, and uses no clock, floats, hash maps or randomness. A node
//! gathers the records that a block names, calls one function, and writes the changes that it returns:
//!
//! ```text
//!   operations --touches--> keys --(node: one batched read)--> records
//!        \__________________________execute________________________/--> changes, receipts, events
//! ```
//!
//! Imports point down:
//!
//! ```text
//!   block, ledger, operation, invariants       dispatch: which rule runs on which operation
//!     account, agreement, .., storage_proof    nouns: what an operation does to their records
//!       working, bodies, header, event, tree   what the nouns work on
//!         record, amount, limits, ..           values
//! ```
//!
//! Invariants
//! 1. Equal inputs give equal bytes on every machine and build profile.
//! 2. The work of an operation does not grow with the number of members.
//! 3. Money is conserved to the grain ([`invariants::check_all`]).
//!
//! The numbered rules are in `docs/protocol.md`.
#![no_std]
#![cfg_attr(not(test), deny(clippy::as_conversions))]
extern crate alloc;

mod broken;
#[macro_use]
mod json_macros;
#[macro_use]
mod codec;
pub mod account;
pub mod agreement;
pub mod amount;
pub mod audit;
pub mod authority;
pub mod block;
mod bodies;
pub mod books;
pub mod capacity;
mod class;
pub mod data_set;
pub mod economics;
pub mod event;
pub mod faults;
pub mod fees;
pub mod fenwick;
mod header;
pub mod identity;
mod invalid;
pub mod invariants;
#[cfg(feature = "serde")]
pub mod json;
pub mod ledger;
pub mod limits;
pub mod node;
mod number;
pub mod operation;
pub mod provider;
pub mod receipt;
pub mod record;
pub mod reputation;
pub mod rules;
pub mod service;
pub mod settlement;
pub mod shard;
pub mod storage_proof;
pub mod tree;
pub mod wire;
mod working;

pub use amount::Amount;
pub use broken::{Broken, Halt};
pub use class::{Class, Metered, PerClass, Units};
pub use codec::Bounded;
pub use identity::{Account, AgreementId, Hash, Signature};
pub use operation::{Body, Operation};
pub use receipt::Code;
pub use record::{Key, Record, Slot};
