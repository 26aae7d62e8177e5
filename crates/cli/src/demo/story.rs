//! The tour, step by step. Each step reports what it does, waits within a bound, and returns facts.

use super::{
    damage::damage,
    payouts::{self, Payout},
    report::{Damage, Fault, File, Proof, Provider, Report, count, percentiles},
    watch::BlockWatch,
};
use crate::{
    commands::{prove, recompute},
    devnet::{create::SUPPLY, running::Running},
    failure::{Exit, Failure, Outcome},
    gateway::Gateway,
    ledger::Ledger,
    network::{Member, Role},
    ready, records, source,
    tally::SettledFee,
    wait::{Look, until},
};
use commonware_runtime::tokio::Context;
use posync_protocol::{
    Account, Amount,
    record::{DataSet, System, Usage},
    wire::gateway::{AgreementRow, Fault as Found},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

/// Limit until every shard of the file is durable and its data sets are in force.
const STORED_WITHIN: Duration = Duration::from_secs(60);
/// Grace period of the tour's gateway for silent providers. Other gateways wait for hours (two minutes on a local
/// network), because a provider that restarts is no loss; here it is killed for good, and somebody watches.
pub(crate) const GRACE: &str = "15 s";
/// Limit until both faults are found and repaired: a stopped provider is drawn within 13 s (99 %), and its
/// silence counts as a loss after [`GRACE`].
const REPAIRED_WITHIN: Duration = Duration::from_secs(300);
/// Limit until storage and downloads are settled and the epoch is over.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// Name of the file on the network.
const NAME: &str = "demo";
/// Advice when a wait ran out.
const LOOK_AT_LOGS: &str = "read the logs in the members' directories; the network's state is kept";

/// The file that the tour stores.
pub(crate) struct Source {
    /// Name of the file for people.
    pub(crate) label: String,
    /// Length of the file in bytes.
    pub(crate) bytes: u64,
    /// Opens the file from its start.
    pub(crate) open: Box<dyn Fn() -> Outcome<source::Source>>,
}

/// A provider that the tour broke, and the round in which it did.
struct Victim {
    kind: Damage,
    name: String,
    account: Account,
    round: u64,
}

/// The state that the steps share.
pub(crate) struct Tour<'a> {
    running: &'a mut Running,
    ledger: Ledger,
    gateway: Gateway,
    watch: BlockWatch,
    start: Instant,
}

/// Runs the whole tour on a network that was just started.
pub(crate) async fn run(context: &Context, running: &mut Running, source: &Source) -> Outcome<Report> {
    let start = Instant::now();
    let height = ready::wait(context, running).await?;
    let ledger = Ledger::connect(context, &running.net, &running.user_key()?).await?;
    let gateway = Gateway::dial(context, &running.net, &running.user_key()?).await?;
    let watch = BlockWatch::start(context, &running.net, &running.user_key()?).await?;
    let mut tour = Tour { running, ledger, gateway, watch, start };
    let count = tour.running.network.nodes.len();
    tour.say(&format!("{count} processes run, block {height} is final, every provider is registered"));
    let blake3_in = tour.store(source).await?;
    let [stopped, corrupted] = tour.break_two().await?;
    let faults = tour.repaired([&stopped, &corrupted]).await?;
    let blake3_out = tour.read_back().await?;
    tour.say("read the file again: it is whole");
    let row = tour.settled([&stopped, &corrupted]).await?;
    let proof = tour.prove(&row).await?;
    let books = tour.books(context, &row, [&stopped, &corrupted]).await?;
    let file = File { bytes: source.bytes, blake3_in, blake3_out };
    tour.report(file, faults, proof, books).await
}

impl Tour<'_> {
    fn say(&self, line: &str) {
        eprintln!("[{:>5.1} s] {line}", self.start.elapsed().as_secs_f64());
    }

    /// Stores the file, waits until all of it is in force, and reads it back; returns its BLAKE3.
    async fn store(&mut self, source: &Source) -> Outcome<String> {
        let blake3 = hash_of((source.open)()?)?;
        let mut reader = (source.open)()?;
        let start = Instant::now();
        let file = self.gateway.put(NAME, &mut reader, |_| ()).await?;
        self.say(&format!(
            "stored {} ({} bytes) in {} ms: {} of 8 shards, {} of {} durable, each with another operator",
            source.label,
            file.bytes,
            start.elapsed().as_millis(),
            count(file.segments.into(), "segment"),
            file.shards_durable,
            file.shards
        ));
        let (gateway, ledger) = (&self.gateway, &self.ledger);
        until("every shard durable and every data set in force", STORED_WITHIN, LOOK_AT_LOGS, async || {
            let durable = gateway.list().await?.iter().all(|file| file.shards_durable == file.shards);
            let rows: Vec<AgreementRow> =
                gateway.agreements().await?.into_iter().filter(|row| row.shards > 0).collect();
            let in_force = data_sets(ledger, &rows).await?;
            let empty = in_force.iter().filter(|set| set.current.leaves == 0).count();
            let done = durable && !rows.is_empty() && empty == 0;
            let seen = format!("{} agreements hold shards, {empty} wait for the ledger", rows.len());
            Ok(if done { Look::Done(()) } else { Look::Waiting(seen) })
        })
        .await?;
        if self.read_back().await? != blake3 {
            return Err(Failure::new(
                Exit::Failed,
                "the file came back with other bytes",
                "BLAKE3 differs before any fault",
                LOOK_AT_LOGS,
            ));
        }
        self.say(&format!("read it back: the same BLAKE3 {blake3}"));
        Ok(blake3)
    }

    async fn read_back(&self) -> Outcome<String> {
        let mut hasher = blake3::Hasher::new();
        self.gateway.get(NAME, &mut hasher, |_| (), |_| ()).await?;
        Ok(hasher.finalize().to_string())
    }

    /// Kills one holder and damages the data of another.
    async fn break_two(&mut self) -> Outcome<[Victim; 2]> {
        let rows = self.gateway.agreements().await?;
        let holders: BTreeSet<Account> =
            rows.iter().filter(|row| row.shards > 0).map(|row| row.agreement.provider).collect();
        let members: Vec<Member> = self.running.network.members(Role::Provider).cloned().collect();
        let holding =
            |member: &&Member| self.running.network.account(member).is_ok_and(|a| holders.contains(&a));
        let mut victims = members.iter().filter(holding);
        let (Some(first), Some(second)) = (victims.next(), victims.next()) else {
            let why = format!("{} providers hold shards", holders.len());
            return Err(Failure::new(Exit::Failed, "there are no two holders to break", why, LOOK_AT_LOGS));
        };
        let round = self.ledger.parameters().round(self.ledger.height().await?);
        let victim = |kind, member: &Member| -> Outcome<Victim> {
            let account = self.running.network.account(member)?;
            Ok(Victim { kind, name: member.name.clone(), account, round })
        };
        let victims = [victim(Damage::Stopped, first)?, victim(Damage::Corrupted, second)?];
        if !self.running.kill(&first.name) {
            let why = "it had ended already";
            return Err(Failure::new(Exit::Failed, format!("cannot stop {}", first.name), why, LOOK_AT_LOGS));
        }
        self.say(&format!("killed {}; it stays stopped", first.name));
        let done = damage(&second.dir.join("storage"))?;
        if done.bytes == 0 {
            let what = format!("found nothing to damage in {}", second.name);
            return Err(Failure::new(Exit::Failed, what, "it holds shards of ours", LOOK_AT_LOGS));
        }
        self.say(&format!(
            "flipped {} in {} of {}",
            count(done.bytes as u64, "byte"),
            count(done.shards as u64, "shard"),
            second.name
        ));
        Ok(victims)
    }

    /// Waits until both are found, the damaged one failed a draw, and their shards are rebuilt elsewhere.
    async fn repaired(&mut self, victims: [&Victim; 2]) -> Outcome<Vec<Fault>> {
        let awaited = "both faults found, the damaged provider failed a draw, every lost shard rebuilt";
        let mut reported = BTreeSet::new();
        let Self { running, ledger, gateway, watch, start } = self;
        until(awaited, REPAIRED_WITHIN, LOOK_AT_LOGS, async || {
            running.check()?;
            watch.look(ledger).await?;
            let status = gateway.status().await?;
            let (mut faults, mut seen) = (Vec::new(), Vec::new());
            for victim in victims {
                let drawn = failed_draw(watch, ledger, victim);
                let found = status.faults.iter().find(|fault| fault.provider == victim.account);
                seen.push(progress(victim, drawn, found));
                let needs_draw = victim.kind == Damage::Corrupted && drawn.is_none();
                if let Some(found) = found
                    && reported.insert(victim.name.clone())
                {
                    let seconds = start.elapsed().as_secs_f64();
                    eprintln!("[{seconds:>5.1} s] {}: found by {}", victim.name, found_by(found.found_by));
                }
                faults.extend(
                    found
                        .filter(|f| f.shards_lost > 0 && f.shards_repaired >= f.shards_lost && !needs_draw)
                        .map(|found| fault(victim, drawn, found)),
                );
            }
            Ok(if faults.len() == victims.len() {
                Look::Done(faults)
            } else {
                Look::Waiting(seen.join("; "))
            })
        })
        .await
        .inspect(|faults| {
            for fault in faults {
                let seconds = start.elapsed().as_secs_f64();
                let Fault { kind, shards_repaired, detected_after_rounds, .. } = fault;
                eprintln!(
                    "[{seconds:>5.1} s] the {kind} provider was found after {}; {} rebuilt elsewhere under the same names",
                    count(*detected_after_rounds, "round"),
                    count((*shards_repaired).into(), "shard"),
                );
            }
        })
    }

    /// Waits until every healthy holder was paid for storage, a download was paid, and their epoch
    /// is over; returns the row of a healthy provider's storage.
    async fn settled(&mut self, victims: [&Victim; 2]) -> Outcome<SettledFee> {
        let broken: Vec<Account> = victims.iter().map(|victim| victim.account).collect();
        let rows = self.gateway.agreements().await?;
        let healthy: BTreeSet<Account> = rows
            .iter()
            .filter(|row| row.shards > 0 && !broken.contains(&row.agreement.provider))
            .map(|row| row.agreement.provider)
            .collect();
        let Self { running, ledger, watch, .. } = self;
        let row = until("storage and downloads settled", SETTLED_WITHIN, LOOK_AT_LOGS, async || {
            running.check()?;
            watch.look(ledger).await?;
            let paid = healthy.iter().filter(|provider| watch.tally.settled(provider, true)).count();
            let downloads = watch.tally.rows.iter().filter(|row| row.agreement.is_some()).count();
            let epoch = ledger.parameters().epoch(watch.height);
            let row =
                watch.tally.rows.iter().rev().find(|row| {
                    row.agreement.is_none() && healthy.contains(&row.provider) && row.epoch < epoch
                });
            let seen = format!("{paid} of {} holders paid, {downloads} downloads settled", healthy.len());
            Ok(match row {
                Some(row) if paid == healthy.len() && downloads > 0 => Look::Done(row.clone()),
                _ => Look::Waiting(seen),
            })
        })
        .await?;
        let total: u128 = self.watch.tally.rows.iter().map(|row| row.pay.grains()).sum();
        let total = Amount::new(total).unwrap_or(Amount::MAX);
        self.say(&format!("settled {} fees; providers earned {total} SYNC", self.watch.tally.rows.len()));
        Ok(row)
    }

    /// Exports the proof of a settlement and lets another process check it.
    async fn prove(&self, row: &SettledFee) -> Outcome<Proof> {
        let path = self.running.directory.join("proof.sync");
        let subject = records::settlement(&row.provider, row.epoch);
        let bytes = prove::export(&self.ledger, &subject, &path).await?;
        let verified = verify_elsewhere(&path, &self.running.network.network_key)?;
        self.say(&format!(
            "proof of what {} was paid in epoch {}: {bytes} bytes; another process, with the network key alone, says {}",
            self.name_of(&row.provider),
            row.epoch,
            if verified { "it holds" } else { "NO" }
        ));
        Ok(Proof { file: path.display().to_string(), bytes, verified })
    }

    /// Waits for the sealed books of the epochs in which a fault was drawn and of the first one
    /// without the stopped provider; reads the pay of every epoch up to then, and rebuilds the books from
    /// blocks alone; also returns if they are the ledger's.
    async fn books(
        &self,
        context: &Context,
        row: &SettledFee,
        [stopped, corrupted]: [&Victim; 2],
    ) -> Outcome<(Vec<Payout>, bool)> {
        let epoch_of = |round: u64| round / self.ledger.parameters().epoch_rounds;
        let drawn = failed_draw(&self.watch, &self.ledger, corrupted).unwrap_or_default();
        let last = row.epoch.max(epoch_of(drawn)).max(epoch_of(stopped.round) + 1);
        self.say(&format!("waiting until the books of epoch {last} are sealed"));
        payouts::sealed(&self.ledger, last, LOOK_AT_LOGS).await?;
        let members = self.running.network.members(Role::Provider);
        let nodes =
            members.map(|member| self.running.network.account(member)).collect::<Outcome<Vec<_>>>()?;
        let mut paid = Vec::new();
        for epoch in 0..=last {
            paid.extend(payouts::of(&self.ledger, &nodes, epoch).await?);
        }
        let genesis = self.running.net.genesis(context, None).await?;
        let compared = recompute::compare(&self.ledger, genesis, 0..=last).await?;
        let equal = compared.iter().all(recompute::Compared::equal);
        self.say(&format!(
            "rebuilt the books of epochs 0 to {last} from blocks alone: {} the ledger's, byte for byte",
            if equal { "the same as" } else { "NOT the same as" }
        ));
        Ok((paid, equal))
    }

    fn name_of(&self, account: &Account) -> String {
        let text = account.to_string();
        let member = self.running.network.nodes.iter().find(|member| member.account == text);
        member.map_or(text, |member| member.name.clone())
    }

    async fn report(
        mut self,
        file: File,
        faults: Vec<Fault>,
        proof: Proof,
        (payouts, recomputed): (Vec<Payout>, bool),
    ) -> Outcome<Report> {
        self.watch.look(&self.ledger).await?;
        let rows = self.gateway.agreements().await?;
        let (mut stored, mut read) = (BTreeMap::<Account, u64>::new(), BTreeMap::<Account, u64>::new());
        for (row, set) in rows.iter().zip(data_sets(&self.ledger, &rows).await?) {
            *stored.entry(row.agreement.provider).or_default() += set.current.bytes;
        }
        for (row, usage) in rows.iter().zip(uses(&self.ledger, &rows).await?) {
            *read.entry(row.agreement.provider).or_default() += usage.redeemed.egress;
        }
        let mut providers = Vec::new();
        for member in self.running.network.members(Role::Provider) {
            let account = self.running.network.account(member)?;
            let figures = self.watch.tally.providers.get(&account).cloned().unwrap_or_default();
            providers.push(Provider {
                id: member.account.clone(),
                operator: member.operator.clone().unwrap_or_default(),
                stored_bytes: stored.get(&account).copied().unwrap_or_default(),
                egress_bytes: read.get(&account).copied().unwrap_or_default(),
                passed: figures.passed,
                failed: figures.failed,
                earned: figures.earned,
            });
        }
        let system: System = self.ledger.read(System::key()).await?.unwrap_or_default();
        Ok(Report {
            network_key: self.running.network.network_key.clone(),
            blocks: self.watch.height,
            finality_ms: percentiles(self.watch.finality_ms()),
            file,
            providers,
            faults,
            settlements: self.watch.tally.rows,
            supply: (SUPPLY, system.accounted()),
            proof,
            payouts,
            recomputed,
        })
    }
}

async fn data_sets(ledger: &Ledger, rows: &[AgreementRow]) -> Outcome<Vec<DataSet>> {
    let keys = rows.iter().map(|row| DataSet::key(&row.agreement.provider, row.agreement.slot)).collect();
    Ok(ledger.read_all(keys).await?.into_iter().map(Option::unwrap_or_default).collect())
}

async fn uses(ledger: &Ledger, rows: &[AgreementRow]) -> Outcome<Vec<Usage>> {
    let keys = rows.iter().map(|row| Usage::key(&row.agreement.provider, row.agreement.slot)).collect();
    Ok(ledger.read_all(keys).await?.into_iter().map(Option::unwrap_or_default).collect())
}

/// Round of the first draw that the victim failed after it was broken.
fn failed_draw(watch: &BlockWatch, ledger: &Ledger, victim: &Victim) -> Option<u64> {
    let rounds = watch.tally.failures.iter().filter(|failure| failure.provider == victim.account);
    rounds.map(|failure| ledger.parameters().round(failure.height)).find(|round| *round >= victim.round)
}

fn fault(victim: &Victim, drawn: Option<u64>, found: &Found) -> Fault {
    let first = drawn.map_or(found.round, |drawn| drawn.min(found.round));
    Fault {
        kind: victim.kind,
        provider: victim.account.to_string(),
        detected_after_rounds: first.saturating_sub(victim.round),
        found_by: found_by(found.found_by),
        shards_lost: found.shards_lost,
        shards_repaired: found.shards_repaired,
    }
}

const fn found_by(number: u8) -> &'static str {
    match number {
        0 => "a late answer to a draw",
        1 => "a failed draw",
        2 => "a failed read",
        _ => "its own scrub",
    }
}

fn progress(victim: &Victim, drawn: Option<u64>, found: Option<&Found>) -> String {
    let found = found.map_or("not found yet".to_owned(), |found| {
        format!("{} of {} shards rebuilt", found.shards_repaired, found.shards_lost)
    });
    let drawn =
        drawn.map_or("no failed draw yet".to_owned(), |round| format!("failed a draw in round {round}"));
    format!("{} ({}): {found}, {drawn}", victim.name, victim.kind)
}

fn hash_of(mut source: source::Source) -> Outcome<String> {
    let mut hasher = blake3::Hasher::new();
    while let Some(bytes) = source.next(1 << 20)? {
        hasher.update(&bytes);
    }
    Ok(hasher.finalize().to_string())
}

/// Checks the proof in another process that gets only the file and the key: no environment, no network
/// directory, another working directory.
fn verify_elsewhere(proof: &PathBuf, network_key: &str) -> Outcome<bool> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::file(std::path::Path::new("posync"), "find the program", error))?;
    let output = Command::new(&program)
        .args(["--json", "verify"])
        .arg(proof)
        .args(["--network-key", network_key])
        .env_clear()
        .current_dir("/")
        .output()
        .map_err(|error| Failure::file(&program, "start", error))?;
    Ok(output.status.success())
}

/// Fails with the requirements that the report does not meet.
pub(crate) fn judged(report: &Report) -> Outcome {
    let broken = report.broken();
    if broken.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, "the tour did not hold", broken.join("; "), LOOK_AT_LOGS))
}
