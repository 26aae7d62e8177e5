//! What a run of the world is: declared before it starts, equal plans give equal runs.

use crate::network::Link;
use commonware_runtime::deterministic::FaultConfig;
use posync_protocol::limits::Parameters;
use std::time::Duration;

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides every random choice: keys, order of tasks, jitter, loss.
    pub seed: u64,
    /// How many authorities.
    pub authorities: u8,
    /// Genesis parameters.
    pub parameters: Parameters,
    /// Between authorities.
    pub gossip: Gossip,
    /// Between all others, and between them and the authorities.
    pub data: Link,
    /// What the storage does wrong, from the start.
    pub storage: FaultConfig,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// The links between authorities: messages, not streams, so what is lost is lost.
#[derive(Clone, Copy, Debug)]
pub struct Gossip {
    /// Mean time on the way.
    pub latency: Duration,
    /// Its standard deviation.
    pub jitter: Duration,
    /// Lost messages, of a hundred.
    pub loss_percent: u8,
}

impl Gossip {
    /// A local network without loss.
    pub const LOCAL: Self =
        Self { latency: Duration::from_millis(5), jitter: Duration::from_millis(1), loss_percent: 0 };
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// Wait until the block at this height is final and judged.
    Reach(u64),
    /// An authority's process ends without warning; its disk stays.
    Crash(u8),
    /// It starts again on its disk.
    Restart(u8),
    /// It starts again with its keys alone.
    Wipe(u8),
    /// The links between authorities change.
    Gossip(Gossip),
    /// An authority hears and is heard by nobody.
    Isolate(u8),
    /// It is back.
    Rejoin(u8),
    /// Every process loses power at once: what was not synced may be lost.
    PowerCut,
    /// The storage of everybody changes its manners.
    Storage(FaultConfig),
    /// The planted fault of the canary: one grain appears in an account.
    Mint,
}

impl Plan {
    /// Four authorities on a good network that do `steps`.
    pub fn new(seed: u64, steps: Vec<Step>) -> Self {
        Self {
            seed,
            authorities: 4,
            parameters: Parameters::LOCAL,
            gossip: Gossip::LOCAL,
            data: Link::LOCAL,
            storage: FaultConfig::default(),
            steps,
        }
    }
}
