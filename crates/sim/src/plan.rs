//! The plan of a simulated run: its members, links, disks and steps. Equal plans give equal runs.

pub use crate::{
    machine::disk::{Damage, Refused},
    network::state::Link,
};
use commonware_runtime::deterministic::FaultConfig;
use posync_protocol::{ledger::Event, limits::Parameters};
use std::time::Duration;

/// A whole run of the world.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed of every random choice: keys, order of tasks, jitter, loss.
    pub seed: u64,
    /// Number of authorities in the network.
    pub authorities: u8,
    /// Number of providers, each with its own operator.
    pub providers: u8,
    /// Number of gateways in the network.
    pub gateways: u8,
    /// Parameters of the genesis.
    pub parameters: Parameters,
    /// Links between the authorities.
    pub gossip: Gossip,
    /// Links between all other processes, and between them and the authorities.
    pub data: Link,
    /// Grace period that the operators of gateways chose, after which a silent holder's shards are rebuilt.
    pub grace: Option<Duration>,
    /// Faults of the storage from the start.
    pub storage: FaultConfig,
    /// Steps of the run, in order.
    pub steps: Vec<Step>,
}

/// The links between authorities. They carry messages, not streams, so a lost message stays lost.
#[derive(Clone, Copy, Debug)]
pub struct Gossip {
    /// Mean latency of a message.
    pub latency: Duration,
    /// Standard deviation of the latency.
    pub jitter: Duration,
    /// Share of messages that are lost, in percent.
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
    /// A provider with its store.
    Provider(u8),
    /// A gateway with its catalogue.
    Gateway(u8),
}

/// A file that a user stores; its name determines its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Name of the file.
    pub name: &'static str,
    /// Number of bytes of the file.
    pub length: usize,
}

impl Sample {
    /// The contents of the file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length];
        blake3::Hasher::new().update(self.name.as_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }
}

/// Small files that a user stores one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmallFiles {
    /// Number of files, each put once the one before it is acknowledged.
    pub files: u32,
    /// Number of bytes of each file.
    pub length: usize,
    /// Time within which each put but the first is acknowledged.
    pub within: Duration,
}

/// A condition that a plan waits for, evaluated on all events so far.
pub(crate) type Condition = fn(&[(u64, Event)]) -> bool;

/// One step of a plan.
#[derive(Clone, Debug)]
pub enum Step {
    /// Wait until the block at this height is final and judged.
    Reach(u64),
    /// Wait until the condition holds, at most until this height.
    Until(Condition, u64),
    /// A process ends without warning; its disk stays.
    Crash(Process),
    /// A process starts again on its disk.
    Restart(Process),
    /// An authority starts again with its keys alone.
    Wipe(u8),
    /// A user stores a file through the first gateway.
    Put(Sample),
    /// A user stores small files one after another, and none but the first may be slow.
    PutEach(SmallFiles),
    /// A user reads a file and compares its contents.
    Get(Sample),
    /// A user moves one SYNC to another, through the node service.
    Send,
    /// A user moves one SYNC to an authority's account.
    Fund(u8),
    /// The leader of the first view signs two blocks: it shows one to every second authority and
    /// the other to the rest, and votes for each. It must be authority 0, and must be down.
    Equivocate(u8),
    /// The key of an authority that is down signs another version of the last final block that it
    /// led, and shows it to one other authority.
    SignAgain {
        /// Authority whose key signs.
        liar: u8,
        /// Authority that gets the second version.
        to: u8,
    },
    /// The links between authorities change.
    Gossip(Gossip),
    /// A process can neither send nor receive.
    Isolate(Process),
    /// An isolated process is connected again.
    Rejoin(Process),
    /// Every process loses power at once: bytes that were not synced may be lost.
    PowerCut,
    /// The storage of every process gets these faults.
    Storage(FaultConfig),
    /// The planted fault of the canary: adds one grain to the sum of balances.
    Mint,
    /// Wait for this many more blocks.
    Pass(u64),
    /// Wait for this long in virtual time.
    Wait(Duration),
    /// A user tries to store a file while the network has faults. It may be refused, but an
    /// acknowledged file counts.
    Try(Sample),
    /// The canary of lost files: a user removes a file, and the judge is not notified.
    Remove(Sample),
    /// The canary of payments: a payment that the judge is not notified of.
    SendUntold,
    /// Every process loses power at once, and none restarts by itself.
    Blackout,
    /// Every task of a provider or gateway stops, as after SIGSTOP. An authority, whose engine
    /// cannot be stopped, is isolated instead.
    Pause(Process),
    /// A paused process resumes.
    Resume(Process),
    /// An authority receives no more blocks, and serves its old state.
    Lag(u8),
    /// A lagging authority receives blocks again.
    CatchUp(u8),
    /// The service of an authority lies to all its clients.
    Lie(u8, Lie),
    /// Each client has one node that lies to it; other clients have other ones.
    LieEach(Lie),
    /// The next sector that a provider reads from its store is damaged permanently.
    Damage(u8, Damage),
    /// A write or a sync of a provider or a gateway fails once, after some that succeed. If the process ends
    /// because of it, it starts again, as under a supervisor.
    Refuse {
        /// Process whose disk fails.
        process: Process,
        /// The write or the sync that fails.
        operation: Refused,
        /// Number of such operations that succeed before.
        after: u32,
    },
    /// The volume of a provider or a gateway becomes full.
    Fill(Process),
    /// The volume of a provider or a gateway has room again.
    Empty(Process),
    /// Users connect that read and write a few bytes at a time.
    Loiter(Loiterers),
    /// The slow users disconnect.
    Leave,
    /// All faults end and every process runs. Then, within [`JUDGED_WITHIN`] blocks, every
    /// acknowledged file must be read in full, and every payment must have been made exactly once.
    Promises,
}

/// Blocks within which every acknowledged byte must be readable after all faults ended.
pub(crate) const JUDGED_WITHIN: u64 = 240;

/// How the service of an authority lies. It cannot forge a proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lie {
    /// It answers every question honestly.
    #[default]
    Nothing,
    /// It accepts every question and answers none.
    Withhold,
    /// It reports no new block, and repeats its first answer to a known question.
    StandStill,
    /// It forwards operations, but answers that they came too late and that it never saw them.
    Deny,
}

/// A group of slow users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loiterers {
    /// Number of users that read.
    pub readers: u8,
    /// Number of users that write.
    pub writers: u8,
    /// File that each reader reads; it was put before.
    pub file: Sample,
}

impl Plan {
    /// Four authorities, ten providers and a gateway on a good network.
    pub fn whole(seed: u64, steps: Vec<Step>) -> Self {
        Self { providers: 10, gateways: 1, ..Self::new(seed, steps) }
    }

    /// Four authorities of which one is away for so many blocks and comes back with its keys alone. Three terms after the
    /// one in which it is back, another one is down for good: nothing becomes final then without its vote.
    pub fn behind(seed: u64, blocks: u64) -> Self {
        let term = Parameters::LOCAL.term_blocks();
        let (away, back) = (term / 2, term / 2 + blocks);
        let signs = (back / term + 4) * term + 2;
        let lost = 3;
        let steps = vec![
            Step::Reach(away),
            Step::Crash(Process::Authority(lost)),
            Step::Reach(back),
            Step::Wipe(lost),
            Step::Reach(signs),
            Step::Crash(Process::Authority(0)),
            Step::Reach(signs + term / 2),
        ];
        Self::new(seed, steps)
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
            grace: None,
            storage: FaultConfig::default(),
            steps,
        }
    }
}
