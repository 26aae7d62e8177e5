//! What a run of the world is: declared before it starts, equal plans give equal runs.

use crate::{machine::Damage, network::Link};
use commonware_runtime::deterministic::FaultConfig;
use posync_protocol::{ledger::Event, limits::Parameters};
use std::time::Duration;

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides every random choice: keys, order of tasks, jitter, loss.
    pub seed: u64,
    /// How many authorities.
    pub authorities: u8,
    /// How many providers, each of its own operator.
    pub providers: u8,
    /// How many gateways.
    pub gateways: u8,
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

/// One process of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Process {
    /// An authority with its node service.
    Authority(u8),
    /// A provider.
    Provider(u8),
    /// A gateway.
    Gateway(u8),
}

/// A file that a user stores: its name decides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its name.
    pub name: &'static str,
    /// Its bytes.
    pub length: usize,
}

impl Sample {
    /// Its contents.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length];
        blake3::Hasher::new().update(self.name.as_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }
}

/// What a plan waits for: decided from all events so far.
pub type Condition = fn(&[(u64, Event)]) -> bool;

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// Wait until the block at this height is final and judged.
    Reach(u64),
    /// Wait until the condition holds, at most until this height.
    Until(Condition, u64),
    /// A process ends without warning; its disk stays.
    Crash(Process),
    /// It starts again on its disk.
    Restart(Process),
    /// An authority starts again with its keys alone.
    Wipe(u8),
    /// A user stores a file through the first gateway.
    Put(Sample),
    /// A user reads it and compares.
    Get(Sample),
    /// A user moves one SYNC to another, through the node service.
    Send,
    /// A user moves one SYNC to an authority's account.
    Fund(u8),
    /// The leader of the first view, which must be down and is authority 0, shows one block to every
    /// second authority and another to the rest, and votes for each.
    Equivocate(u8),
    /// The key of an authority that is down signs another version of the last final block that it
    /// led, and shows it to one other.
    SignAgain {
        /// Who.
        liar: u8,
        /// To whom.
        to: u8,
    },
    /// The links between authorities change.
    Gossip(Gossip),
    /// A process hears and is heard by nobody.
    Isolate(Process),
    /// It is back.
    Rejoin(Process),
    /// Every process loses power at once: what was not synced may be lost.
    PowerCut,
    /// The storage of everybody changes its manners.
    Storage(FaultConfig),
    /// The planted fault of the canary: one grain appears in an account.
    Mint,
    /// Wait for this many more blocks.
    Pass(u64),
    /// Wait.
    Wait(Duration),
    /// A user tries to store a file while the network is not well: it may be refused, but what was
    /// acknowledged counts.
    Try(Sample),
    /// The canary of lost files: a user removes one, and nobody tells the judge.
    Remove(Sample),
    /// The canary of payments: one that the judge is not told of.
    SendUntold,
    /// Every process loses power at once, and none starts by itself.
    Blackout,
    /// Every task of a provider or gateway stops, as by SIGSTOP; an authority, whose engine cannot be
    /// stopped, hears and is heard by nobody instead.
    Pause(Process),
    /// It goes on.
    Resume(Process),
    /// An authority gets no more blocks, and serves the state that it has.
    Lag(u8),
    /// It gets them again.
    CatchUp(u8),
    /// An authority's service lies to everybody.
    Lie(u8, Lie),
    /// The sector of a provider's store that it reads next is damaged, for good.
    Damage(u8, Damage),
    /// A provider's volume is full.
    Fill(u8),
    /// It has room again.
    Empty(u8),
    /// Users that read and write a few bytes at a time, and stay.
    Loiter(Loiterers),
    /// They go.
    Leave,
    /// All faults end, every process runs; then, within [`JUDGED_WITHIN`] blocks, every acknowledged
    /// file must be read in full, and every payment must have been made once.
    Promises,
}

/// Blocks within which every acknowledged byte must come after all faults ended.
pub const JUDGED_WITHIN: u64 = 240;

/// How the service of an authority lies. It cannot forge a proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lie {
    /// It tells the truth.
    #[default]
    Nothing,
    /// It takes every question and answers none.
    Withhold,
    /// It tells of no new block, and answers a question that it knows as it did the first time.
    StandStill,
    /// It passes operations on, and says that they came too late and were never seen.
    Deny,
}

/// Users that are slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loiterers {
    /// How many read.
    pub readers: u8,
    /// How many write.
    pub writers: u8,
    /// What each reads; it was put before.
    pub file: Sample,
}

impl Plan {
    /// Four authorities, ten providers and a gateway on a good network.
    pub fn whole(seed: u64, steps: Vec<Step>) -> Self {
        Self { providers: 10, gateways: 1, ..Self::new(seed, steps) }
    }

    /// Four authorities alone on a good network.
    pub fn new(seed: u64, steps: Vec<Step>) -> Self {
        Self {
            seed,
            authorities: 4,
            providers: 0,
            gateways: 0,
            parameters: Parameters::LOCAL,
            gossip: Gossip::LOCAL,
            data: Link::LOCAL,
            storage: FaultConfig::default(),
            steps,
        }
    }
}
