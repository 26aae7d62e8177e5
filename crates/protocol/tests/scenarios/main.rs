//! The rules as tables: every operation, accepted and refused, in memory, `check_all` after every
//! block, and every block run twice (as its proposer and as a verifier) with equal outcomes.

mod account;
mod agreement;
mod provider;
mod script;
mod voucher;
mod world;
