//! Tests of a whole gateway with real providers, on the deterministic runtime.

mod claims;
mod full;
mod kept;
mod network;
mod quotas;
mod rate;
mod room;
mod served;
mod silence;
mod slow;
mod users;
mod world;
