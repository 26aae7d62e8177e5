//! An authority of the network: orders blocks, runs the rules, keeps the state, serves clients.
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

pub mod application;
pub mod config;
mod dial_back;
pub mod engine;
pub mod epoch;
pub mod equivocation;
pub mod feed;
pub mod genesis;
mod guard;
pub mod handle;
pub mod ingress;
pub mod mempool;
mod outcomes;
mod repair;
pub mod run;
pub mod serve;
pub mod steady;
