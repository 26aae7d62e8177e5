//! Submits evidence as an operation of this authority's account, once.
//!
//! It reads the ledger first, waits for its turn ([`super::rotation`]), and tries again only after its last
//! operation has expired. Evidence carries no nonce (RD-8), so no other operation of the account delays it.

use super::{
    EquivocationWatcher,
    rotation::{Turn, TurnFacts, turn},
    state::{Contradiction, Fault},
};
use crate::{
    engine::{Digest, PrivateKey},
    handle::Handle,
    mempool::Mempool,
};
use commonware_codec::Encode as _;
use commonware_cryptography::Signer as _;
use posync_client::account::{paying, sign_paying};
use posync_protocol::{
    Account, Amount, Body, Record, Slot, ledger,
    record::{AccountState, Offences, Seat, System},
};
use std::collections::BTreeMap;

/// Blocks for which an attempt is valid.
const ATTEMPT_BLOCKS: u64 = 16;

/// Submits the evidence that its equivocation watcher finds.
struct Reporter {
    equivocation: EquivocationWatcher,
    mempool: Mempool,
    handle: Handle,
    key: PrivateKey,
    account: Account,
    /// Height until which the last attempt for a fault may still be included.
    tried: BTreeMap<Fault, u64>,
    /// True if a log line has said that the account's balance is too low.
    is_poor: bool,
}

/// Follows the applied blocks until the node stops.
pub(crate) async fn run(mempool: Mempool, handle: Handle, key: PrivateKey) {
    let (equivocation, mut heights) = (handle.equivocation().clone(), handle.heights());
    let account = Account::of(&key.public_key());
    let mut reporter =
        Reporter { equivocation, mempool, handle, key, account, tried: BTreeMap::new(), is_poor: false };
    while heights.changed().await.is_ok() {
        let height = *heights.borrow_and_update();
        let open = reporter.equivocation.open();
        reporter.tried.retain(|fault, _| open.iter().any(|(still, _)| still == fault));
        for (fault, found) in open {
            reporter.step(height, &fault, &found).await;
        }
    }
}

impl Reporter {
    async fn step(&mut self, height: u64, fault: &Fault, found: &Contradiction) {
        let (facts, state) = self.look(height, fault).await;
        match turn(fault.0, found.height, height, &facts) {
            Turn::Over if fault.1 == self.account => {
                let next = "take this node down and find out where else its key is in use";
                tracing::error!(
                    epoch = fault.0,
                    next,
                    "this authority's own key signed two contradicting headers or commitments"
                );
                self.equivocation.close(fault);
            }
            Turn::Over => self.equivocation.close(fault),
            Turn::Wait => {}
            Turn::Now if self.tried.get(fault).is_some_and(|until| *until >= height) => {}
            Turn::Now => self.bring(height, fault, found, &state).await,
        }
    }

    async fn look(&self, height: u64, (epoch, offender): &Fault) -> (TurnFacts, AccountState) {
        let keys = [
            System::key(),
            Seat::key(&self.account),
            Seat::key(offender),
            Offences::at(*epoch),
            AccountState::key(&self.account),
        ];
        let slots = self.handle.read_unproven(keys.to_vec()).await;
        let system = read::<System>(slots.first()).unwrap_or_default();
        let offender: Option<Seat> = read(slots.get(2));
        let offences = Offences::of(*epoch, read(slots.get(3)));
        let is_settled = |seat: &Seat| offences.has(seat.index) || seat.bond == Amount::ZERO;
        let facts = TurnFacts {
            now: self.handle.genesis().parameters.epoch(height),
            seats: system.seats,
            mine: read::<Seat>(slots.get(1)).map(|seat| seat.index),
            is_settled: offender.as_ref().is_some_and(is_settled),
            offender: offender.map(|seat| seat.index),
        };
        (facts, read(slots.get(4)).unwrap_or_default())
    }

    async fn bring(&mut self, height: u64, fault: &Fault, found: &Contradiction, state: &AccountState) {
        let expires = height + ATTEMPT_BLOCKS;
        let context = paying(self.handle.chain(), self.handle.genesis().parameters, height);
        let body = Body::Evidence(found.evidence.clone());
        let floor = ledger::floor(&context.parameters);
        let operation = sign_paying(&self.key, &context, floor, 1, 0, expires, &body);
        let (seat, epoch, fee) = (fault.1, fault.0, operation.max_fee);
        if state.balance < fee {
            if !std::mem::replace(&mut self.is_poor, true) {
                let next = "send money to this authority's account; until then others must bring it";
                tracing::error!(%seat, epoch, account = %self.account, balance = %state.balance, %fee, next,
                    "evidence cannot be submitted: this authority's account cannot pay the fee");
            }
            return;
        }
        self.is_poor = false;
        match self.mempool.submit(operation.encode().to_vec()).await {
            Ok(id) => {
                self.tried.insert(*fault, expires);
                tracing::warn!(%seat, epoch, operation = %Digest::from(id),
                    "submitted evidence of a double signature");
            }
            Err(refused) => {
                tracing::warn!(%seat, epoch, ?refused,
                    "evidence was rejected; it is sent again with the next block")
            }
        }
    }
}

/// Decodes a record of the applied state.
fn read<R: Record>(slot: Option<&Option<Slot>>) -> Option<R> {
    R::from_slot(slot?.as_ref()?).ok()
}
