//! Providers that come and go: three join under load, get data and prove it; one leaves, and its machine is switched off.

use super::{
    manual::{self, field, number, row, with},
    story::{self, PATIENCE, Story, Told, fetch, host, put},
    world::World,
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Longest time from the money of a provider until it is registered, on offer and reachable.
const JOIN_MAX: Duration = Duration::from_secs(60);
/// Longest time from the first data set of a provider to its first proof.
const PROOF_MAX: Duration = Duration::from_secs(60);
/// Money for the agreements of a gateway under load, in SYNC.
const GATEWAY_MONEY: &str = "100";
/// Seconds until a provider that joined has data and has proved it.
const DATA_SECONDS: u64 = 120;
/// The provider that leaves.
const LEAVER: &str = "p3";
/// Seconds for the rest of the notice and the unbonding: 21 epochs of 10 s, and more on a busy machine.
const LEAVE_SECONDS: u64 = 300;

/// The first data and the first proofs of providers that joined, as the ledger shows them.
struct Proofs {
    /// Names and accounts of the providers.
    joined: Vec<(String, String)>,
    /// For each provider with data, the look that first showed it.
    data_at: BTreeMap<String, Instant>,
    /// The time from that look to the one that first showed a proof.
    proved: BTreeMap<String, Duration>,
}

impl Proofs {
    fn new() -> Self {
        let (joined, data_at, proved) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { joined, data_at, proved }
    }

    /// Reads every provider's row; returns true once one has data and all with data have proved a read of it. A gateway
    /// with room at eight other operators may place nothing with the others.
    ///
    /// # Errors
    /// A provider with data has proved nothing within [`PROOF_MAX`].
    fn look(&mut self, world: &World) -> Result<bool, String> {
        let began = Instant::now();
        let list = world.run("c0", manual::PROVIDERS)?;
        for (name, account) in &self.joined {
            let row = row(&list, account).ok_or_else(|| format!("{name} is not on offer"))?;
            if self.proved.contains_key(name) || number(row, "stored_bytes")? == 0 {
                continue;
            }
            let took = self.data_at.entry(name.clone()).or_insert(began).elapsed();
            if took > PROOF_MAX {
                return Err(format!(
                    "{name} has data, and after {took:.1?} no drawn read of it is proved: {row}"
                ));
            }
            if number(row, "recent_reads_passed")? > 0 {
                self.proved.insert(name.clone(), took);
            }
        }
        Ok(!self.proved.is_empty() && self.proved.len() == self.data_at.len())
    }
}

/// A provider that joins by `posync join`; returns the times from the money to the registration, and until a
/// client sees its offer and the network's nodes reach it.
fn join(story: &mut Story, number: usize) -> Result<[Duration; 2], String> {
    let (name, paid) = story::join_provider(story, number)?;
    let (registered, account) = (paid.elapsed(), story.account(&name)?);
    let doctor = format!("{} --json", with(manual::DOCTOR, &[("/srv/posync", "D")]));
    story.world.until(&format!("{name} is on offer and reachable"), PATIENCE, &[&name], |world| {
        if row(&world.run("c0", manual::PROVIDERS)?, &account).is_none() {
            return Ok(None);
        }
        let (_, report, _) = world.ask(&name, &doctor)?;
        let outside = report.split_once("\"name\":\"outside\"").map_or("", |(_, rest)| rest);
        let is_well = field(&report, "ok") == Ok("true") && field(outside, "state") == Ok("ok");
        Ok(is_well.then_some(()))
    })?;
    let reachable = paid.elapsed();
    if reachable > JOIN_MAX {
        return Err(format!("{name} was registered after {registered:.1?}, reachable after {reachable:.1?}"));
    }
    Ok([registered, reachable])
}

/// Providers join while a user stores one file after the other, get data, and prove it.
pub(super) fn joins(story: &mut Story) -> Told {
    // The sum that `join` named is for the first agreements.
    story.send("a1", &story.account("g0")?, GATEWAY_MONEY)?;
    let put = put(story, "g0", &host("g0"))?.replace("put report.pdf", "put small.bin load-$i");
    story.world.write("c1", "small.bin", &story::noise(20)[..1 << 18])?;
    let load = format!("i=0\nwhile {put}; do i=$((i+1)); done\necho refused\n");
    story.world.write("c1", "load.sh", load.as_bytes())?;
    story.world.start("c1", "sh load.sh")?;
    let (mut times, mut proofs) = (Vec::new(), Proofs::new());
    for number in 9..12 {
        let [registered, reachable] = join(story, number)?.map(|time| time.as_secs_f64());
        times.push(format!("{registered:.1} s ({reachable:.1} s)"));
        let name = format!("p{number}");
        proofs.joined.push((name.clone(), story.account(&name)?));
        proofs.look(&story.world)?;
    }
    story.world.until("a provider that joined proves its data", DATA_SECONDS, &["g0"], |world| {
        Ok(proofs.look(world)?.then_some(()))
    })?;
    let (told, is_refused) = (story.world.screen("c1"), story.world.ended("c1")?.is_some());
    if is_refused {
        return Err(format!("a put was refused: {told}"));
    }
    story.world.end("c1", "TERM")?;
    let proved: Vec<String> =
        proofs.proved.values().map(|took| format!("{:.1}", took.as_secs_f64())).collect();
    Ok(format!(
        "registered (on offer and reachable) {} after the money; first data of {} of them, and its proof at most {} s \
         later; {} lines of puts",
        times.join(", "),
        proved.len(),
        proved.join(" s, "),
        told.lines().count()
    ))
}

fn leave_command() -> String {
    with(manual::LEAVE, &[("/srv/posync", "D")])
}

/// Bytes that the leaving provider stores, as the ledger shows them.
fn stored(world: &World, account: &str) -> Result<u64, String> {
    let list = world.run("c0", manual::PROVIDERS)?;
    number(row(&list, account).ok_or_else(|| format!("{LEAVER} is not on offer"))?, "stored_bytes")
}

/// A provider with data announces its exit; the gateways take all of it away.
pub(super) fn leaves(story: &mut Story) -> Told {
    let account = story.account(LEAVER)?;
    let held = stored(&story.world, &account)?;
    let first = story.json(LEAVER, &leave_command())?;
    let (epoch, leaves_at) = (number(&first, "epoch")?, number(&first, "leaves_at")?);
    if held == 0 || leaves_at <= epoch || field(&first, "may_switch_off")? != "false" {
        return Err(format!("{LEAVER} holds {held} bytes, and announced no exit: {first}"));
    }
    let since = Instant::now();
    story.world.until(&format!("{LEAVER} is empty"), PATIENCE, &[LEAVER, "g0"], |world| {
        Ok((stored(world, &account)? == 0).then_some(()))
    })?;
    Ok(format!(
        "announced in epoch {epoch} with {held} bytes, empty {:.1} s later; the bond is due in epoch {}",
        since.elapsed().as_secs_f64(),
        field(&first, "bond_returns_epoch")?
    ))
}

/// Follows the exit to its end: the bond is back, the process ends in order, and without the machine all files are there.
pub(super) fn has_left(story: &mut Story) -> Told {
    let balance = |story: &Story| -> Result<f64, String> {
        let shown = story.json(LEAVER, manual::ACCOUNT)?;
        field(&shown, "sync")?.parse().map_err(|_| format!("no balance: {shown}"))
    };
    let (before, since) = (balance(story)?, Instant::now());
    let wait = format!("timeout {LEAVE_SECONDS} {} --wait", leave_command());
    let said = story.world.run(LEAVER, &wait)?;
    for word in ["registered    no", "The machine may be switched off"] {
        if !said.contains(word) {
            return Err(format!("`posync leave` ended without '{word}': {said}"));
        }
    }
    let took = since.elapsed().as_secs_f64();
    // By itself it ends only after its own grace period, in which it deletes nothing: six hours.
    let status = story.world.end(LEAVER, "TERM")?;
    if !status.success() {
        return Err(format!("{LEAVER} ended with {status}: {}", story.world.screen(LEAVER)));
    }
    let after = balance(story)?;
    if after < story::BOND {
        return Err(format!("the bond of {LEAVER} is not back: {before} SYNC before, {after} SYNC after"));
    }
    story.world.unplug(LEAVER)?;
    let read = fetch(story, "c0", "g0", &host("g0"), 30)?.as_secs_f64();
    Ok(format!(
        "{before:.0} SYNC became {after:.0} SYNC {took:.1} s after this step began, the process ended with 0, a file \
         is read in {read:.1} s without the machine"
    ))
}
