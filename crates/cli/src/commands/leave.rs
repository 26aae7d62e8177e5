//! `posync leave`: a provider announces its exit, sees what it still holds, and gets its bond back.
//!
//! ```text
//!   first run   ─► UpdateProvider{leave}: no new agreements; gateways move their shards away
//!   later runs  ─► what is held and until when; near the end of the notice, CloseAlone for agreements without
//!                  data, and with --end for all (AG-6)
//!   at the end  ─► no agreement left and the unbonding over: UpdateProvider{exit}, the bond returns (PV-3)
//! ```
//!
//! It deletes nothing, neither on the disk nor at the provider. Before it signs anything it marks the directory:
//! no later start registers the provider again.

use super::bond::unchanged;
use crate::{
    failure::{Exit, Failure, Outcome},
    keys,
    ledger::Ledger,
    net,
    output::Output,
    role::{KEY_FILE, settings::Settings},
    session,
};
use commonware_cryptography::ed25519::PrivateKey;
use futures::{StreamExt as _, stream};
use posync_protocol::{
    Account, AgreementId, Body,
    limits::{LEAF_BYTES, Parameters, READ_KEYS_MAX, SLOTS_MAX},
    operation::{CloseAlone, UpdateProvider},
    record::{Agreement, DataSet, Endpoint, Offer, Provider, Reputation, Usage},
};
use posync_provider::left::Left;
use serde_json::{Value, json};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    path::PathBuf,
    time::Duration,
};

/// Questions about slots that are asked at once.
const PARTS_AT_ONCE: usize = 8;
/// Agreements that one look ends; the next look goes on.
const CLOSES_AT_ONCE: usize = 16;
/// Time between two looks of `--wait`.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Command-line arguments of `posync leave`.
#[derive(Debug, clap::Args)]
pub(crate) struct Leave {
    /// Directory of the provider
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// End agreements that still hold data too, once the notice permits it: their consumers lose these shards
    #[arg(long)]
    end: bool,
    /// Go on until the bond is back and the machine may be switched off
    #[arg(long)]
    wait: bool,
}

/// The provider on the ledger.
enum State {
    /// Registered, with the records that say so.
    Registered(Box<Seen>),
    /// It has no record there, which is proved.
    Absent(Absent),
}

/// The proof that a provider is not registered.
#[derive(Default)]
struct Absent {
    /// Trusted nodes that prove it, each by itself; 0 if too few answered.
    nodes: usize,
    /// Least height at which one of them proves it.
    height: u64,
    /// Height up to which a registration from before the mark may still be in a block; `None` without a height in the
    /// mark.
    sure: Option<u64>,
    /// The nodes that did not prove it, with their reasons, if too few did.
    failed: Option<String>,
}

impl State {
    /// True if the machine may be switched off.
    fn is_over(&self) -> bool {
        match self {
            Self::Registered(_) => false,
            Self::Absent(Absent { nodes, height, sure, .. }) => {
                *nodes > 0 && sure.is_some_and(|sure| *height > sure)
            }
        }
    }
}

/// The records of a registered provider.
struct Seen {
    epoch: u64,
    provider: Provider,
    offer: Offer,
    addresses: Endpoint,
    registered: u64,
    held: Vec<Held>,
}

/// An agreement that the provider still keeps.
struct Held {
    slot: u32,
    agreement: Agreement,
    bytes: u64,
    /// True without a data set, in force or announced.
    is_empty: bool,
    /// Epoch from which nothing redeems any more, if one party has ended it.
    closing: Option<u64>,
}

impl Leave {
    /// Announces the exit if that was not done, and prints what is left to do.
    pub(crate) fn run(self, output: Output) -> Outcome {
        let next = "stop it with SIGTERM; only a provider has a bond and other people's data";
        let settings = Settings::of_provider(&self.dir, "only providers leave by an operation", next)?;
        let (key, net) = (settings.key()?, net::of_role(&settings)?);
        session::run(async |context| {
            let ledger = Ledger::connect(&context, &net, &key).await?;
            let (account, path) = (keys::account(&key), self.dir.join(KEY_FILE));
            let (left, tried, closed) = (Left::of(&self.dir), Cell::default(), RefCell::default());
            let by = Leaving { ledger, account, key, path, left, end: self.end, tried, closed };
            let mut shown = None;
            loop {
                let state = by.step().await?;
                let (value, text) = by.describe(&state);
                if shown.as_ref() != Some(&value) {
                    output.answer(&value, || text)?;
                    shown = Some(value);
                }
                if !self.wait || state.is_over() {
                    return Ok(());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    }
}

struct Leaving {
    ledger: Ledger,
    account: Account,
    key: PrivateKey,
    path: PathBuf,
    /// The mark in the provider's directory.
    left: Left,
    /// True to end agreements with data too.
    end: bool,
    /// Epoch in which the exit was last sent: one attempt an epoch, as each costs a fee.
    tried: Cell<Option<u64>>,
    /// Agreements that were sent to their end, each with the epoch: once an epoch, for the same reason.
    closed: RefCell<BTreeMap<AgreementId, u64>>,
}

impl Leaving {
    /// Sends what is due now: the notice, or the exit. Returns what is still on the ledger.
    async fn step(&self) -> Outcome<State> {
        let seen = match self.look().await? {
            State::Registered(seen) => *seen,
            absent => return Ok(absent),
        };
        let is_due = may_exit(&seen, self.ledger.parameters()) && self.tried.get() != Some(seen.epoch);
        let exit = is_due.then_some(seen.registered);
        let leave = seen.provider.leaves_at == 0;
        if !leave && exit.is_none() {
            let sent = self.close(&seen).await?;
            return if sent { self.look().await } else { Ok(State::Registered(Box::new(seen))) };
        }
        let Seen { provider, offer, addresses, epoch: seen_epoch, .. } = seen;
        let update = UpdateProvider { leave, exit, ..unchanged(&provider, &offer, addresses) };
        self.tried.set(Some(seen_epoch));
        match self.ledger.run(&self.key, &self.path, Body::UpdateProvider(update)).await {
            // An epoch that paid the provider is still being closed: the next one may do.
            Err(failure) if exit.is_some() && failure.exit == Exit::Refused => {}
            sent => drop(sent?),
        }
        self.look().await
    }

    /// Ends what the notice permits to end (AG-6); true if there was something.
    async fn close(&self, seen: &Seen) -> Outcome<bool> {
        let parameters = self.ledger.parameters();
        let id = |held: &Held| held.agreement.id(self.account, held.slot);
        let is_sent = |held: &Held| self.closed.borrow().get(&id(held)) == Some(&seen.epoch);
        let due =
            |held: &&Held| may_close(held, seen, parameters) && (self.end || held.is_empty) && !is_sent(held);
        let due: Vec<&Held> = seen.held.iter().filter(due).take(CLOSES_AT_ONCE).collect();
        for held in &due {
            let agreement = id(held);
            self.closed.borrow_mut().insert(agreement, seen.epoch);
            let body = Body::CloseAlone(CloseAlone { agreement });
            match self.ledger.run(&self.key, &self.path, body).await {
                // Its consumer was faster.
                Err(failure) if failure.exit == Exit::Refused => {}
                sent => drop(sent?),
            }
        }
        Ok(!due.is_empty())
    }

    /// Reads the provider's records, and marks its directory as soon as the ledger answers. One node may keep old
    /// states: an absence counts once two trusted ones prove it.
    async fn look(&self) -> Outcome<State> {
        let account = &self.account;
        let key = Provider::key(account);
        let confirmed = self.ledger.confirmed::<Provider>(key).await;
        let since = self.mark(confirmed.is_ok().then(|| self.ledger.floor()))?;
        let sure = since.map(|since| since.saturating_add(self.ledger.parameters().expiry_blocks_max));
        let (provider, absent) = match confirmed {
            Ok(by) => (by.record, Absent { nodes: by.nodes, height: by.least, sure, failed: None }),
            Err(failure) => {
                let failed = Some(failure.parts()[1].to_owned());
                (self.ledger.read(key).await?, Absent { sure, failed, ..Absent::default() })
            }
        };
        let Some(provider) = provider else { return Ok(State::Absent(absent)) };
        let (height, offer) = self.ledger.read_at::<Offer>(Offer::key(account)).await?;
        let addresses: Option<Endpoint> = self.ledger.read(Endpoint::key(account)).await?;
        let standing: Option<Reputation> = self.ledger.read(Reputation::key(account)).await?;
        let (Some(offer), Some(addresses), Some(standing)) = (offer, addresses, standing) else {
            // It left between two reads, and the next look proves that.
            return Ok(State::Absent(Absent { sure, ..Absent::default() }));
        };
        let epoch = self.ledger.parameters().epoch(height);
        let held = self.held(provider.slots).await?;
        let registered = standing.registered;
        Ok(State::Registered(Box::new(Seen { epoch, provider, offer, addresses, registered, held })))
    }

    /// Marks the directory, and returns the height in the mark. `newest` is the newest block of those that several nodes
    /// prove; without it the mark gets its height from a later look, as a height that is too low would end the
    /// wait for a late registration too early.
    fn mark(&self, newest: Option<u64>) -> Outcome<Option<u64>> {
        let marked = match newest {
            Some(newest) => self.left.note(newest).map(Some),
            None => self.left.begin().map(|()| self.left.since()),
        };
        marked.map_err(|error| {
            let next =
                "make room in the provider's directory, or mend its permissions, and repeat the command";
            let what = "the exit cannot be noted in the provider's directory; nothing was sent";
            Failure::new(Exit::Local, what, error, next)
        })
    }

    /// The provider's agreements: slots are searched in order until as many are found as it has. Consumers choose
    /// slots, and one may choose a high one.
    async fn held(&self, count: u32) -> Outcome<Vec<Held>> {
        let starts = (0..SLOTS_MAX).step_by(READ_KEYS_MAX);
        let mut parts = stream::iter(starts).map(|first| self.agreements_at(first)).buffered(PARTS_AT_ONCE);
        let mut held = Vec::new();
        while held.len() < count as usize
            && let Some(found) = parts.next().await
        {
            held.extend(self.described(found?).await?);
        }
        Ok(held)
    }

    /// The agreements in [`READ_KEYS_MAX`] slots from `first` on.
    async fn agreements_at(&self, first: u32) -> Outcome<Vec<(u32, Agreement)>> {
        let slots = (first..SLOTS_MAX).take(READ_KEYS_MAX);
        let keys = slots.clone().map(|slot| Agreement::key(&self.account, slot)).collect();
        let agreements = self.ledger.read_all::<Agreement>(keys).await?;
        let found = slots.zip(agreements).filter_map(|(slot, agreement)| Some((slot, agreement?)));
        Ok(found.collect())
    }

    /// Adds to agreements their data sets and their ends.
    async fn described(&self, found: Vec<(u32, Agreement)>) -> Outcome<Vec<Held>> {
        let keys = found.iter().map(|(slot, _)| DataSet::key(&self.account, *slot)).collect();
        let data = self.ledger.read_all::<DataSet>(keys).await?;
        let keys = found.iter().map(|(slot, _)| Usage::key(&self.account, *slot)).collect();
        let usages = self.ledger.read_all::<Usage>(keys).await?;
        let held = found.into_iter().zip(data).zip(usages).map(|(((slot, agreement), data), usage)| {
            let leaves = data.as_ref().map_or(0, |data| data.current.leaves);
            let is_empty = data.is_none_or(|data| data.current.leaves == 0 && data.next.is_none());
            let (bytes, closing) =
                (leaves.saturating_mul(LEAF_BYTES), usage.and_then(|usage| usage.closing_epoch));
            Held { slot, agreement, bytes, is_empty, closing }
        });
        Ok(held.collect())
    }

    fn describe(&self, state: &State) -> (Value, String) {
        match state {
            State::Registered(seen) => self.describe_registered(seen),
            State::Absent(absent) => self.describe_absent(absent, state.is_over()),
        }
    }

    fn describe_absent(&self, absent: &Absent, is_over: bool) -> (Value, String) {
        let account = self.account.to_string();
        let mut value = json!({ "account": account, "registered": false, "may_switch_off": is_over,
            "proved_by_nodes": absent.nodes });
        if is_over {
            let by = match absent.nodes {
                1 => "One node proves it: this machine's network file names no other, so its word alone counts."
                    .to_owned(),
                nodes => format!("{nodes} nodes prove it, each by itself."),
            };
            let text = format!(
                "account       {account}\nregistered    no: nothing is under contract and no bond is locked\n\
                 The machine may be switched off; no start registers the provider again but one with \
                 --register-again.\n{by}\nKeep node.key: the account's money is there."
            );
            return (value, text);
        }
        if let Some(sure) = absent.sure {
            value["sure_after_block"] = sure.into();
        }
        if let Some(failed) = &absent.failed {
            value["unproved_by"] = failed.as_str().into();
        }
        let why = if absent.nodes == 0 {
            let failed = absent.failed.as_ref().map(|failed| format!(" ({failed})")).unwrap_or_default();
            format!(
                "one node says so, and too few trusted nodes prove it{failed}: see with `posync status` which nodes \
                 answer"
            )
        } else {
            let sure = absent.sure.unwrap_or_default();
            format!("what was signed before this exit may still be in a block up to {sure}")
        };
        let text = format!(
            "account       {account}\nregistered    not now; {why}\n\
             Leave the machine on, and run `posync leave` again later: it says when that is certain."
        );
        (value, text)
    }

    fn describe_registered(&self, seen: &Seen) -> (Value, String) {
        let account = self.account.to_string();
        let parameters = self.ledger.parameters();
        let (end, bond) = (bond_epoch(&seen.provider, parameters), seen.provider.bond);
        let agreements: Vec<Value> = seen.held.iter().map(|held| held.to_json()).collect();
        let left = seen.held.iter().map(|held| held.until()).max();
        let value = json!({ "account": account, "registered": true, "epoch": seen.epoch,
            "leaves_at": seen.provider.leaves_at, "slots": seen.provider.slots, "agreements": agreements,
            "held_until_epoch": left, "bond": bond, "bond_returns_epoch": end, "may_switch_off": false });
        let rows: Vec<String> = seen.held.iter().map(Held::to_text).collect();
        let holds = if rows.is_empty() { "nothing".into() } else { rows.join("\n              ") };
        let minutes = end.saturating_sub(seen.epoch).saturating_mul(parameters.epoch_blocks());
        let minutes = minutes.saturating_mul(parameters.block_ms).div_ceil(60_000);
        let text = format!(
            "account       {account}\nleaves        announced; now is epoch {}, no new agreements are opened\n\
             holds         {holds}\n\
             bond          {bond} SYNC, back from epoch {end} on (in about {minutes} min), once nothing is held\n\
             Keep the provider running until `posync leave` says that the machine may be switched off: what it \
             holds is read and\nproved until then. Consumers move their data away; an agreement ends at the latest in its epoch.",
            seen.epoch
        );
        (value, text)
    }
}

impl Held {
    fn to_json(&self) -> Value {
        json!({ "slot": self.slot, "consumer": self.agreement.consumer.to_string(),
            "end_epoch": self.until(), "bytes": self.bytes, "closing": self.closing.is_some() })
    }

    fn to_text(&self) -> String {
        let consumer = &self.agreement.consumer;
        format!("{} bytes for {consumer}, slot {}, until epoch {}", self.bytes, self.slot, self.until())
    }

    /// Epoch in which it is over.
    fn until(&self) -> u64 {
        self.closing.unwrap_or(u64::MAX).min(self.agreement.end_epoch)
    }
}

/// Epoch from which the bond returns: the notice and the rest of the unbonding (PV-3).
const fn bond_epoch(provider: &Provider, parameters: &Parameters) -> u64 {
    let rest = parameters.unbonding_epochs.saturating_sub(parameters.exit_epochs);
    provider.leaves_at.saturating_add(rest)
}

/// True if the ledger lets the provider end an agreement now.
const fn may_close(held: &Held, seen: &Seen, parameters: &Parameters) -> bool {
    let (leaves_at, epoch) = (seen.provider.leaves_at, seen.epoch);
    let is_open = held.closing.is_none() && epoch < held.agreement.end_epoch;
    leaves_at != 0 && is_open && epoch.saturating_add(parameters.redemption_epochs) >= leaves_at
}

/// True if the ledger takes the exit, but for pay of the last epochs, after which it is tried again.
fn may_exit(seen: &Seen, parameters: &Parameters) -> bool {
    let Seen { provider, epoch, .. } = seen;
    let is_due = provider.leaves_at != 0 && *epoch >= bond_epoch(provider, parameters);
    is_due && provider.slots == 0 && provider.slot_weight == 0
}
