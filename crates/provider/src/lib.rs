//! posync-provider.
pub mod books;
pub mod config;
pub mod credit;
#[cfg(test)]
mod cut;
#[cfg(test)]
mod fixtures;
mod journal;
pub mod keeper;
pub mod ledger;
pub mod prover;
pub mod redeem;
pub mod scrub;
pub mod segments;
pub mod serve;
pub mod terms;
pub mod till;
pub mod view;
#[cfg(test)]
#[path = "../../protocol/tests/scenarios/world.rs"]
#[allow(dead_code)]
mod world;
