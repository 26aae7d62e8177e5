//! Tests of a whole gateway with real providers, on the deterministic runtime.

mod claims;
mod network;
mod room;
mod silence;
mod slow;
mod users;
mod world;
