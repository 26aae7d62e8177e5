//! Faults that a drawn plan inflicts on the network, and their end. Each is counted by its kind.

use super::{Failure, World, users::name};
use crate::{
    machine::{Damage, Disk, Refused},
    plan::{Lie, Loiterers, Process, Step},
};
use commonware_macros::select;
use commonware_runtime::{Clock as _, Spawner as _, Supervisor as _, deterministic::Context};
use posync_client::rpc::{Client, Gateway};
use posync_gateway::SHARDS;
use posync_protocol::{
    Bounded,
    wire::gateway::{Ask, Get, Put},
};
use std::time::Duration;

/// Time that a user waits for a put while the network has faults.
const TRIES: Duration = Duration::from_secs(30);
/// Pause between two steps of a slow user: below every timeout of silence.
const SLOW: Duration = Duration::from_secs(15);
/// Bytes that a slow user announces, and bytes that it sends at a time.
const SLOW_FILE: u64 = 1 << 20;
const SLOW_PART: usize = 1_000;

impl World<'_> {
    /// Counts a fault by its kind. Damage counts when it strikes: see [`World::struck`].
    pub(super) fn count(&mut self, step: &Step) {
        self.count_away(step);
        let kind = match step {
            Step::PowerCut => "power cut",
            Step::Blackout => "power cut, started in any order",
            Step::Crash(_) | Step::Wipe(_) => "crash",
            Step::Isolate(_) => "cut off",
            Step::Pause(_) => "pause",
            Step::Lag(_) => "lagging node",
            Step::Lie(_, Lie::Nothing) | Step::LieEach(Lie::Nothing) => return,
            Step::Lie(..) => "lying node",
            Step::LieEach(..) => "lying node for each client",
            Step::Fill(_) => "full disk",
            Step::Storage(_) => "torn writes",
            Step::Loiter(loiterers) => {
                let users = u32::from(loiterers.readers) + u32::from(loiterers.writers);
                *self.lasting.faults.entry("slow user").or_default() += users;
                return;
            }
            _ => return,
        };
        *self.lasting.faults.entry(kind).or_default() += 1;
    }

    /// Counts a fault when so many providers are away that every segment lacks more than half of its holders.
    fn count_away(&mut self, step: &Step) {
        let changed = match step {
            Step::Pause(process) | Step::Isolate(process) | Step::Crash(process) => {
                matches!(process, Process::Provider(_)) && self.away.insert(*process)
            }
            Step::Resume(process) | Step::Rejoin(process) | Step::Restart(process) => {
                self.away.remove(process);
                false
            }
            _ => false,
        };
        // The others hold fewer than half of the shards of any segment.
        let others = usize::from(self.lasting.plan.providers).saturating_sub(self.away.len());
        if changed && others + 1 == SHARDS.div_ceil(2) {
            *self.lasting.faults.entry("more than half of the holders away").or_default() += 1;
        }
    }

    /// Adds the damage that struck, and the operations that failed, to the faults.
    pub(super) fn struck(&mut self) {
        for damage in self.lasting.disks.values().flat_map(Disk::struck) {
            let kind = match damage {
                Damage::Unreadable => "unreadable sector",
                Damage::FlippedBit => "flipped bit",
            };
            *self.lasting.faults.entry(kind).or_default() += 1;
        }
        for refused in self.lasting.disks.values().flat_map(Disk::refused) {
            let kind = match refused {
                Refused::Write => "failed write",
                Refused::Sync => "failed sync",
            };
            *self.lasting.faults.entry(kind).or_default() += 1;
        }
    }

    pub(super) async fn fault(&mut self, step: &Step) -> Result<(), Failure> {
        match step {
            Step::Pass(blocks) => self.reach(self.lasting.judge.height() + blocks).await?,
            Step::Wait(time) => self.context.sleep(*time).await,
            Step::Try(sample) => {
                let done = select! {
                    result = self.put(sample) => result.is_ok(),
                    _ = self.context.sleep(TRIES) => false,
                };
                if done {
                    self.lasting.acknowledged.push(*sample);
                } else {
                    self.lasting.refused += 1;
                }
            }
            Step::Pause(process) => self.pause(*process).await,
            Step::Resume(process) => self.resume(*process).await,
            Step::Lag(index) => self.link((*index).into(), None).await,
            Step::CatchUp(index) => self.link((*index).into(), Some(self.gossip)).await,
            Step::Lie(index, lie) => self.lasting.relays[usize::from(*index)].say(*lie, None),
            Step::LieEach(lie) => {
                let of = self.lasting.plan.authorities;
                (0..of)
                    .zip(&self.lasting.relays)
                    .for_each(|(index, relay)| relay.say(*lie, Some((index, of))));
            }
            Step::Damage(index, damage) => {
                self.disk(Process::Provider(*index)).damage("-segments", *damage);
            }
            Step::Refuse { process, operation, after } => self.disk(*process).refuse(*operation, *after),
            Step::Fill(process) => self.disk(*process).fill(true),
            Step::Empty(process) => self.disk(*process).fill(false),
            Step::Loiter(loiterers) => self.loiter(loiterers).await?,
            Step::Leave => self.loiterers.drain(..).for_each(|task| task.abort()),
            Step::Promises => self.promises().await?,
            other => unreachable!("{other:?} is done elsewhere"),
        }
        Ok(())
    }

    fn disk(&mut self, process: Process) -> &Disk {
        self.lasting.disks.entry(process).or_default()
    }

    async fn pause(&mut self, process: Process) {
        match self.paused.get(&process) {
            Some(gate) => gate.close(),
            None => self.isolate(process).await,
        }
    }

    pub(super) async fn resume(&mut self, process: Process) {
        match self.paused.get(&process) {
            Some(gate) => gate.open(),
            None => self.rejoin(process).await,
        }
    }

    /// Starts slow users, each with its own connection.
    async fn loiter(&mut self, loiterers: &Loiterers) -> Result<(), Failure> {
        let failed = |reason| Failure::User { what: "a slow user".into(), reason };
        for _ in 0..loiterers.readers {
            let client = self.gateway().await.map_err(failed)?;
            let ask = Ask::Get(Get { name: name(&loiterers.file), offset: 0, length: None });
            let context = self.context.child("slow");
            self.loiterers.push(context.spawn(move |context| read_slowly(context, client, ask)));
        }
        for _ in 0..loiterers.writers {
            let client = self.gateway().await.map_err(failed)?;
            let name = Bounded::new(b"a slow file".to_vec()).expect("a short name");
            let ask = Ask::Put(Put { name, length: SLOW_FILE });
            let context = self.context.child("slow");
            self.loiterers.push(context.spawn(move |context| write_slowly(context, client, ask)));
        }
        // Lets all of them begin before the next step.
        self.context.sleep(Duration::from_secs(1)).await;
        Ok(())
    }
}

/// Reads one answer at a time, with long pauses, until there are no more.
async fn read_slowly(context: Context, client: Client<Gateway>, ask: Ask) {
    let Ok(mut call) = client.open(ask).await else { return };
    loop {
        context.sleep(SLOW).await;
        if call.recv().await.is_none() {
            return;
        }
    }
}

/// Sends a few bytes at a time, until the file is complete or the gateway ends the call.
async fn write_slowly(context: Context, client: Client<Gateway>, ask: Ask) {
    let Ok(call) = client.open(ask).await else { return };
    let part = || Ask::Data(Bounded::new(vec![7; SLOW_PART]).expect("a short part"));
    for _ in 0..SLOW_FILE / SLOW_PART as u64 {
        if call.send(&part()).await.is_err() {
            return;
        }
        context.sleep(SLOW).await;
    }
}
