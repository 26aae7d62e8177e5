//! A node of the network: an authority orders blocks, runs the rules, keeps the state and serves clients; a node
//! without a seat does the same but for ordering blocks ([`follower`]).
//!
//! ```text
//!  p2p ──► engine (Simplex, marshal, reshare) ──► application ──► posync_protocol::ledger
//!   │          ▲                                       │
//!   │          └── epoch (schemes, weights, secrets)   ▼
//!   ├── channel 8 ──► mempool                    state (QMDB) + outcomes ──► handle ──► services
//!   └── channel 9 ──► equivocation watcher (who signs twice) ──► evidence ──► mempool
//! ```
//!
//! The engine is generic over the runtime and is instantiated twice, in [`run`]: for sockets and disks, and
//! for the deterministic runtime. It is instantiated nowhere else, because its code is generated where
//! its types become concrete.

pub mod announce;
mod application;
pub mod ceremony;
pub mod config;
mod dial_back;
pub mod engine;
pub mod epoch;
mod equivocation;
mod feed;
pub mod follower;
pub mod genesis;
mod guard;
pub mod handle;
mod ingress;
mod mempool;
mod outcomes;
pub mod own_key;
mod repair;
mod rules;
pub mod run;
pub mod serve;
mod silence;
mod steady;

pub use follower::follow;
pub use steady::{MachineClock, Steady, turned};
