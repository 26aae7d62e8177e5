//! Plans of a whole network, drawn from a seed: an ordinary day with faults in it, and at its end a
//! check that the network kept every promise.
//!
//! Each plan has two episodes. The first one's kind cycles with the seed, so that any eight
//! consecutive seeds cover every kind. Its variant cycles too, so that forty seeds cover every variant.

use crate::{
    machine::{Damage, Refused},
    plan::{Lie, Loiterers, Plan, Process, Sample, Step},
};
use commonware_runtime::deterministic::{FaultConfig, PartialWriteMode, ResizeConfig, WriteConfig};
use commonware_utils::{Probability, TestRng};
use posync_protocol::ledger::{AgreementChange, Event};
use rand_core::Rng as _;
use std::time::Duration;

/// Blocks that every drawn plan reaches.
pub const BLOCKS_MIN: u64 = 150;
/// Number of authorities, and of providers ([`PROVIDERS`]), in a drawn network.
const AUTHORITIES: u8 = 4;
const PROVIDERS: u8 = 10;
/// Least and most seconds of a pause that is longer than every timeout: the longest one is the gateway's
/// for the signatures of a put, 180 s.
const LONG_PAUSE_S: (u64, u64) = (190, 260);
/// Grace period of the gateways in plans whose providers are away for longer than it.
const SHORT_GRACE: Duration = Duration::from_secs(10);
/// Height by which a new network has an agreement with every provider.
const READY_BY: u64 = 240;
/// Names of files, in the order in which they are stored.
const NAMES: [&str; 8] = ["one", "two", "three", "four", "five", "six", "seven", "eight"];

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A node serves old state while providers start.
    Lagging,
    /// All processes lose power and restart in any order.
    AnyOrder,
    /// Processes pause, some of them for longer than every timeout, and resume.
    Paused,
    /// More than half of every segment's holders are away for a while.
    Majority,
    /// A node service lies to all its clients.
    Lying,
    /// A sector or a bit is damaged, a volume is full, or a power cut tears writes.
    Disk,
    /// One write or sync of a provider or a gateway fails.
    Failing,
    /// Users read and write a few bytes at a time.
    Slow,
}

impl Kind {
    /// Every kind, in the order in which seeds cycle through them.
    pub const ALL: [Self; 8] = [
        Self::Lagging,
        Self::AnyOrder,
        Self::Paused,
        Self::Majority,
        Self::Lying,
        Self::Disk,
        Self::Failing,
        Self::Slow,
    ];

    /// Name of the kind on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lagging => "lagging",
            Self::AnyOrder => "any-order",
            Self::Paused => "paused",
            Self::Majority => "majority",
            Self::Lying => "lying",
            Self::Disk => "disk",
            Self::Failing => "failing",
            Self::Slow => "slow",
        }
    }
}

impl Plan {
    /// The plan of a seed, with every kind of fault.
    pub fn drawn(seed: u64) -> Self {
        Self::drawn_of(seed, &Kind::ALL)
    }

    /// The plan of a seed, with faults of these kinds alone.
    ///
    /// # Panics
    /// If `kinds` is empty.
    pub fn drawn_of(seed: u64, kinds: &[Kind]) -> Self {
        let first = kinds[(seed % kinds.len() as u64) as usize];
        let variant = Some(seed / kinds.len() as u64);
        let mut draw = Draw { rng: TestRng::new(seed), steps: Vec::new(), files: 0, variant, grace: None };
        let second = kinds[draw.below(kinds.len() as u64) as usize];
        let behind = draw.prelude(first);
        draw.steps.push(Step::Until(ready, READY_BY));
        let file = draw.file();
        draw.steps.extend([Step::Put(file), Step::Get(file), Step::Send]);
        draw.episode(first, behind);
        draw.variant = None;
        draw.episode(second, None);
        let last = draw.file();
        draw.steps.extend([Step::Try(last), Step::Reach(BLOCKS_MIN), Step::Promises]);
        Self { grace: draw.grace, ..Self::whole(seed, draw.steps) }
    }
}

fn ready(events: &[(u64, Event)]) -> bool {
    let opened = |event: &Event| matches!(event, Event::Agreement { change: AgreementChange::Opened, .. });
    events.iter().filter(|(_, event)| opened(event)).count() >= usize::from(PROVIDERS)
}

struct Draw {
    rng: TestRng,
    steps: Vec<Step>,
    files: usize,
    /// Decides the variant of the first episode; that of the second one is random.
    variant: Option<u64>,
    /// Grace period that an episode needs.
    grace: Option<Duration>,
}

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound
    }

    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// Number of the episode's variant, which cycles or is random.
    fn variant(&mut self) -> u64 {
        self.variant.take().unwrap_or_else(|| self.rng.next_u64() >> 1)
    }

    /// Authority 0, which clients ask first, with a chance of a half; else any authority.
    fn authority(&mut self) -> u8 {
        if self.below(2) == 0 { 0 } else { self.below(AUTHORITIES.into()) as u8 }
    }

    fn provider(&mut self) -> u8 {
        self.below(PROVIDERS.into()) as u8
    }

    fn file(&mut self) -> Sample {
        let name = NAMES[self.files];
        self.files += 1;
        Sample { name, length: self.between(20_000, 200_000) as usize }
    }

    fn shuffled<T>(&mut self, mut items: Vec<T>) -> Vec<T> {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
        items
    }

    fn wait(&mut self, most_ms: u64) {
        let time = Duration::from_millis(self.below(most_ms + 1));
        self.steps.push(Step::Wait(time));
    }

    /// Steps before the first agreement. An authority falls behind there; the episode continues with it.
    fn prelude(&mut self, first: Kind) -> Option<u8> {
        let fault = match first {
            Kind::Lagging => Step::Lag,
            Kind::AnyOrder => |index| Step::Crash(Process::Authority(index)),
            _ => return None,
        };
        let (behind, height) = (self.authority(), self.between(3, 8));
        self.steps.extend([Step::Reach(height), fault(behind)]);
        Some(behind)
    }

    fn episode(&mut self, kind: Kind, behind: Option<u8>) {
        match kind {
            Kind::Lagging => self.lagging(behind),
            Kind::AnyOrder => self.any_order(behind),
            Kind::Paused => self.paused(),
            Kind::Majority => self.majority(),
            Kind::Lying => self.lying(),
            Kind::Disk => self.disk(),
            Kind::Failing => self.failing(),
            Kind::Slow => self.slow(),
        }
    }

    fn lagging(&mut self, behind: Option<u8>) {
        let behind = behind.unwrap_or_else(|| {
            let behind = self.authority();
            self.steps.push(Step::Lag(behind));
            behind
        });
        let (blocks, file) = (self.between(4, 20), self.file());
        self.steps.extend([Step::Try(file), Step::Pass(blocks)]);
        let several = self.between(4, u64::from(PROVIDERS)) as usize;
        let all = self.shuffled((0..PROVIDERS).collect());
        for provider in &all[..several] {
            self.steps.push(Step::Crash(Process::Provider(*provider)));
        }
        for provider in &all[..several] {
            self.wait(300);
            self.steps.push(Step::Restart(Process::Provider(*provider)));
        }
        let blocks = self.between(8, 24);
        self.steps.extend([Step::Pass(blocks), Step::CatchUp(behind)]);
    }

    fn any_order(&mut self, behind: Option<u8>) {
        let behind = behind.unwrap_or_else(|| {
            let behind = self.authority();
            self.steps.push(Step::Crash(Process::Authority(behind)));
            behind
        });
        let (blocks, file) = (self.between(4, 12), self.file());
        self.steps.extend([Step::Try(file), Step::Pass(blocks), Step::Blackout]);
        let others = (0..AUTHORITIES).filter(|index| *index != behind).map(Process::Authority);
        let providers = (0..PROVIDERS).map(Process::Provider);
        let order = if self.below(2) == 0 {
            // The authority that is behind starts first, then the providers that will ask it, then
            // the rest.
            let first = self.shuffled(providers.collect());
            let last = self.shuffled(others.chain([Process::Gateway(0)]).collect());
            [vec![Process::Authority(behind)], first, last].concat()
        } else {
            let all = others.chain(providers).chain([Process::Gateway(0), Process::Authority(behind)]);
            self.shuffled(all.collect())
        };
        for process in order {
            self.steps.push(Step::Restart(process));
            self.wait(800);
        }
        self.steps.push(Step::Pass(8));
    }

    fn paused(&mut self) {
        let variant = self.variant();
        let whom = match variant % 4 {
            0 => vec![Process::Gateway(0)],
            1 => vec![Process::Authority(self.authority())],
            _ => {
                let all = self.shuffled((0..PROVIDERS).map(Process::Provider).collect());
                all[..self.between(1, 2) as usize].to_vec()
            }
        };
        if variant.is_multiple_of(2) {
            return self.paused_long(&whom);
        }
        let (blocks, file) = (self.between(60, 300), self.file());
        self.steps.extend(whom.iter().map(|process| Step::Pause(*process)));
        if !whom.contains(&Process::Gateway(0)) {
            self.steps.push(Step::Try(file));
        }
        self.steps.push(Step::Pass(blocks));
        self.steps.extend(whom.iter().map(|process| Step::Resume(*process)));
        self.steps.push(Step::Pass(8));
    }

    /// No block becomes final meanwhile: two of four authorities are cut off. So the time costs few blocks.
    fn paused_long(&mut self, whom: &[Process]) {
        let cut = self.shuffled((0..AUTHORITIES).map(Process::Authority).collect())[..2].to_vec();
        let (file, seconds) = (self.file(), self.between(LONG_PAUSE_S.0, LONG_PAUSE_S.1));
        self.steps.extend(whom.iter().map(|process| Step::Pause(*process)));
        self.steps.extend(cut.iter().map(|process| Step::Isolate(*process)));
        if !whom.contains(&Process::Gateway(0)) {
            self.steps.push(Step::Try(file));
        }
        self.steps.push(Step::Wait(Duration::from_secs(seconds)));
        self.steps.extend(whom.iter().map(|process| Step::Resume(*process)));
        self.steps.extend(cut.iter().map(|process| Step::Rejoin(*process)));
        self.steps.push(Step::Pass(8));
    }

    /// In every second variant they are away for longer than the gateway's grace period.
    fn majority(&mut self) {
        if self.variant().is_multiple_of(2) {
            self.grace = Some(SHORT_GRACE);
        }
        let all = self.shuffled((0..PROVIDERS).map(Process::Provider).collect());
        let whom = &all[..self.between(7, 9) as usize];
        let cut = self.below(3) == 0;
        self.steps.extend(whom.iter().map(|process| match cut {
            true => Step::Isolate(*process),
            false => Step::Pause(*process),
        }));
        let blocks = self.between(120, 200);
        self.steps.push(Step::Pass(blocks));
        self.steps.extend(whom.iter().map(|process| match cut {
            true => Step::Rejoin(*process),
            false => Step::Resume(*process),
        }));
        self.steps.push(Step::Pass(16));
    }

    fn lying(&mut self) {
        let (variant, liar) = (self.variant(), self.authority());
        let lie = [Lie::Withhold, Lie::StandStill, Lie::Deny][(variant % 3) as usize];
        let says = |lie| match variant.is_multiple_of(2) {
            true => Step::LieEach(lie),
            false => Step::Lie(liar, lie),
        };
        let (file, provider) = (self.file(), Process::Provider(self.provider()));
        self.steps.extend([
            says(lie),
            Step::Send,
            Step::Try(file),
            Step::Crash(provider),
            Step::Restart(provider),
            Step::Send,
            Step::Pass(8),
            says(Lie::Nothing),
        ]);
    }

    fn disk(&mut self) {
        let provider = self.provider();
        let file = self.file();
        match self.variant() % 5 {
            0 => {
                let provider = Process::Provider(provider);
                self.steps.extend([Step::Fill(provider), Step::Try(file), Step::Pass(16)]);
                self.steps.push(Step::Empty(provider));
            }
            4 => self.full_during_repair(),
            1 => {
                let retained = Probability::new(self.below(101), 100).expect("at most a hundred");
                let mode = [PartialWriteMode::Prefix, PartialWriteMode::Subset][self.below(2) as usize];
                let never = Probability::new(0, 100).expect("none of a hundred");
                let write = WriteConfig { failure_rate: never, retention_rate: retained, mode };
                let resize = ResizeConfig { failure_rate: never, partial_rate: never };
                let torn = FaultConfig::default().write(write).resize(resize);
                let blocks = self.between(1, 8);
                self.steps.extend([Step::Storage(torn), Step::Try(file), Step::Pass(blocks), Step::PowerCut]);
                self.steps.extend([Step::Storage(FaultConfig::default()), Step::Pass(8)]);
            }
            other => {
                let damage = if other == 2 { Damage::Unreadable } else { Damage::FlippedBit };
                self.steps.extend([Step::Damage(provider, damage), Step::Try(file), Step::Get(self.first())]);
                self.steps.push(Step::Pass(24));
            }
        }
    }

    /// Two providers are silent beyond the grace period, and the gateway has no room while it rebuilds their shards.
    fn full_during_repair(&mut self) {
        self.grace = Some(SHORT_GRACE);
        let all = self.shuffled((0..PROVIDERS).map(Process::Provider).collect());
        let (whom, file, gateway) = (&all[..2], self.file(), Process::Gateway(0));
        self.steps.extend(whom.iter().map(|process| Step::Pause(*process)));
        let (before, full) = (self.between(50, 130), self.between(20, 80));
        self.steps.extend([Step::Pass(before), Step::Fill(gateway), Step::Try(file), Step::Pass(full)]);
        self.steps.extend([Step::Empty(gateway), Step::Pass(24)]);
        self.steps.extend(whom.iter().map(|process| Step::Resume(*process)));
        self.steps.push(Step::Pass(16));
    }

    /// After a sync that failed, the power fails: nothing that was acknowledged may depend on that sync.
    fn failing(&mut self) {
        let variant = self.variant();
        let process = match variant % 2 {
            0 => Process::Gateway(0),
            _ => Process::Provider(self.provider()),
        };
        let operation = if (variant / 2).is_multiple_of(2) { Refused::Sync } else { Refused::Write };
        let (file, other, after) = (self.file(), self.file(), self.below(12) as u32);
        self.steps.extend([Step::Refuse { process, operation, after }, Step::Try(file)]);
        self.steps.extend([Step::Pass(4), Step::Try(other)]);
        if operation == Refused::Sync {
            let blocks = self.between(0, 4);
            self.steps.extend([Step::Pass(blocks), Step::PowerCut]);
        }
        let first = self.first();
        self.steps.extend([Step::Pass(24), Step::Get(first)]);
    }

    /// The file that every plan stores, with the length from its `Put`.
    fn first(&self) -> Sample {
        let put = self.steps.iter().find_map(|step| match step {
            Step::Put(sample) => Some(*sample),
            _ => None,
        });
        put.expect("every plan puts a file before its first episode")
    }

    fn slow(&mut self) {
        let (file, other) = (self.first(), self.file());
        let loiterers =
            Loiterers { readers: self.between(1, 3) as u8, writers: self.between(3, 5) as u8, file };
        self.steps.extend([Step::Loiter(loiterers), Step::Put(other), Step::Get(file), Step::Pass(8)]);
        self.steps.push(Step::Leave);
    }
}
