//! The provider role: keeps shards as promised, proves it when drawn, and collects its pay.
//!
//! ```text
//!   consumer --channel--> serve --> packs (shards)      one sync for all puts that wait
//!                           |-----> data sets    (data sets)   in force, next, and every signed one above
//!                           +-----> voucher store     (vouchers)    durable before the next slice leaves
//!   ledger <--proven reads-- reconciler --> prover (storage proofs), redeem, claims, upkeep, registration
//!   blocks <--bodies-------- reconciler     only while the ledger counts agreements that are unknown here
//!                            probe  --> other providers: counted egress, once an epoch
//! ```
//!
//! Storage and network are the runtime's traits: the same code runs on disks and sockets, and on
//! the deterministic runtime with power cuts. Decisions are pure functions (`state.rs`, `index`,
//! `credit`, `redeem`, `prover::Case`); the waiting is done by actors beside them.
//!
//! Invariants
//! 1. An effect is acknowledged, signed or counted as paid only after the sync that makes it durable.
//! 2. Everything else follows from the ledger's proven records, so a restart resumes at any point.
//! 3. A failed disk ends the process ([`run`]); a damaged shard is reported, never served.

pub mod alerts;
mod condition;
pub mod config;
mod credit;
pub mod data_sets;
#[cfg(test)]
mod fixtures;
mod journal;
mod ledger;
pub mod left;
mod node;
pub mod packs;
#[cfg(test)]
mod power_cut;
mod probe;
mod prover;
pub mod reconciler;
mod redeem;
#[cfg(test)]
#[path = "../../protocol/tests/scenarios/registration.rs"]
mod registration;
mod run;
mod scrub;
pub mod serve;
mod spending;
pub mod terms;
mod uptime;
pub mod view;
pub mod vouchers;
#[cfg(test)]
#[path = "../../protocol/tests/scenarios/world.rs"]
#[allow(dead_code)]
mod world;

pub use config::{Config, ConfigError, lock};
pub use run::{Error, run};
