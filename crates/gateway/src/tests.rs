//! Tests of a whole gateway with real providers, on the deterministic runtime.

mod chained;
mod claims;
mod cuts;
mod full;
mod kept;
mod network;
#[allow(dead_code, reason = "tests of others use the rest")]
#[path = "../../consumer/tests/node/mod.rs"]
mod node;
#[allow(dead_code, reason = "tests of others use the rest")]
#[path = "../../provider/src/power_cut.rs"]
mod power_cut;
mod prices;
mod quotas;
mod rate;
mod refused;
mod room;
mod served;
mod silence;
mod slow;
mod standing;
mod terms;
mod users;
mod world;
