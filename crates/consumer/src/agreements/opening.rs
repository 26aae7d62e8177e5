//! Opens agreements: finds a free slot, submits the opening, and takes up the agreement.

use super::{
    actor::Agreements,
    slots::pages,
    state::Stage,
    upkeep::{Busy, Job},
};
use crate::{
    agreement::{OwnAgreement, session_key, storage_key},
    catalogue::{
        LoadedAgreement,
        row::{OwnAgreementRow, RateCap},
    },
    ledger::Error,
    shared::Notice,
};
use commonware_cryptography::Signer as _;
use futures::future::join_all;
use posync_protocol::{
    Account, AgreementId, Amount, Class, Code, PerClass, Units,
    agreement::storage_reserve,
    limits::Parameters,
    operation::{Body, Open},
    record::Agreement,
};
use std::{collections::BTreeSet, sync::Arc};

/// Most free slots among which one is chosen.
const SLOTS_TRIED: usize = 16;

/// The highest prices and reserve that an opening may cost.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Highest price of each class.
    prices: PerClass<u64>,
    /// Most money for the storage reserve.
    reserve: Amount,
}

impl Limits {
    const fn of(open: &Open) -> Self {
        Self { prices: open.price_max, reserve: open.storage_reserve_max }
    }

    /// Limits of an opening of which its leaves and its last epoch are known: the reserve at the highest prices, for a
    /// provider that last settled in the epoch before this height's. A higher reserve is not needed, and a node would
    /// count it against the balance.
    fn again(terms: (u64, u64), prices: PerClass<u64>, height: u64, parameters: &Parameters) -> Self {
        let (leaves, end_epoch) = terms;
        let since = parameters.epoch_start(parameters.epoch(height).saturating_sub(1));
        let rounds = parameters.epoch_start(end_epoch).saturating_sub(since);
        let reserve = storage_reserve(prices[Class::Storage], leaves, rounds, parameters);
        Self { prices, reserve: reserve.unwrap_or(Amount::MAX) }
    }
}

/// An opening that was submitted, and whose outcome is unknown.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    number: u32,
    row: OwnAgreementRow,
    /// The height from which it can no longer be executed.
    floor: u64,
}

impl Asked {
    /// The provider of the agreement.
    pub(super) const fn provider(&self) -> Account {
        self.row.id.provider
    }
}

/// Returns true if a final receipt shows that the opening never happened. A taken slot does not show it:
/// after a restart the opening is submitted a second time, and the first may have taken the slot.
fn never_opened(code: Code) -> bool {
    !matches!(code, Code::Done | Code::SlotTaken)
}

impl Agreements {
    /// Opens agreements with a provider, all at once, each at its own slot. Returns true if one of them
    /// is open.
    pub(super) async fn open(&self, provider: Account, opens: Vec<Open>, held: u32) -> Result<bool, Error> {
        let slots = self.free_slots(provider, held).await?;
        let mut rows = Vec::new();
        for (open, slot) in opens.into_iter().zip(slots) {
            let row = OwnAgreementRow {
                id: AgreementId { provider, slot, opened: 0 },
                stage: Stage::Opening as u8,
                end_epoch: open.end_epoch,
                quota_leaves: open.quota[Class::Storage],
                quota_egress: open.quota[Class::Egress],
                voucher_reserve: open.voucher_reserve,
                egress_price: open.price_max[Class::Egress],
                rate_egress: RateCap(self.policy.rate_egress),
            };
            let number = self.shared.common.catalogue.add_agreement(row.clone()).await;
            let Some(number) = number.map_err(|_| Error::Stopping)? else {
                let full =
                    "this gateway has as many agreements as it may; another is opened when one is over";
                return Err(Error::Full(full));
            };
            rows.push((number, row, Limits::of(&open)));
        }
        let asked = join_all(rows.into_iter().map(|(number, row, most)| self.ask(number, row, most))).await;
        Ok(asked.into_iter().collect::<Result<Vec<bool>, _>>()?.contains(&true))
    }

    /// Free slots of a provider, from a random one on: other consumers may be opening agreements with it
    /// at the same moment.
    async fn free_slots(&self, provider: Account, held: u32) -> Result<Vec<u32>, Error> {
        let random = self.shared.common.environment.random();
        for slots in pages(held, &random) {
            let keys = slots.clone().map(|slot| Agreement::key(&provider, slot)).collect();
            let (_, found) = self.ledger.read(keys).await?;
            let free = slots.zip(found).filter(|(_, found)| found.is_none()).map(|(slot, _)| slot);
            let mut few: Vec<u32> = free.take(SLOTS_TRIED).collect();
            if !few.is_empty() {
                let place = usize::from(random[0]) % few.len();
                few.rotate_left(place);
                return Ok(few);
            }
        }
        tracing::warn!(%provider, held,
            "no free slot was found at a provider; other slots are tried next time");
        Ok(Vec::new())
    }

    /// Submits the opening that the row describes and takes up the agreement; `false` if it did not open.
    async fn ask(&self, number: u32, row: OwnAgreementRow, most: Limits) -> Result<bool, Error> {
        let (master, policy) = (&self.shared.common.master, &self.policy);
        let account = |key: commonware_cryptography::ed25519::PrivateKey| Account::of(&key.public_key());
        let session_key = account(session_key(master, number));
        let open = Open {
            provider: row.id.provider,
            slot: row.id.slot,
            session_key,
            storage_key: account(storage_key(master, number)),
            price_max: most.prices,
            quota: PerClass::new(row.quota_leaves, row.quota_egress, 0),
            rate: Units::egress(policy.rate_egress),
            end_epoch: row.end_epoch,
            voucher_reserve: row.voucher_reserve,
            storage_reserve_max: most.reserve,
        };
        let code = self.ledger.ask(Body::Open(open)).await;
        let opened = self.opened(number, &row).await;
        if let Ok(Some(found)) = &opened {
            return self.take_up(number, row, found).await.map(|()| true);
        }
        let provider = row.id.provider;
        if let Ok((code, is_final)) = &code {
            tracing::warn!(%provider, ?code, "an agreement could not be opened: {}", code.explain());
            if opened.is_ok() && *is_final && never_opened(*code) {
                return self.give_up(number, row).await.map(|()| false);
            }
        }
        self.doubt(number, row).await;
        match code {
            Ok(_) | Err(Error::Expired) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The agreement that an opening led to, if a node shows it.
    async fn opened(&self, number: u32, row: &OwnAgreementRow) -> Result<Option<Agreement>, Error> {
        let key = Agreement::key(&row.id.provider, row.id.slot);
        let found = self.ledger.record::<Agreement>(key).await?;
        Ok(found.filter(|found| self.is_ours(number, found)))
    }

    fn is_ours(&self, number: u32, found: &Agreement) -> bool {
        let key = session_key(&self.shared.common.master, number).public_key();
        found.consumer == self.account && found.session_key == Account::of(&key)
    }

    /// The newest height that a node proves now or proved before.
    async fn newest(&self) -> u64 {
        self.ledger.height().await.unwrap_or_default().max(self.height())
    }

    /// Remembers an opening that is not on the ledger and may still come: its number and reserve are kept
    /// until it cannot.
    async fn doubt(&self, number: u32, row: OwnAgreementRow) {
        let floor = self.newest().await.saturating_add(self.parameters.expiry_blocks_max).saturating_add(1);
        self.unsure.lock().push(Asked { number, row, floor });
    }

    /// Looks up the openings in doubt. One is given up when two nodes prove that it is absent, at heights
    /// at which it can no longer be executed.
    pub(super) async fn look_up(&self) -> Result<(), Error> {
        let all = self.unsure.lock().clone();
        for Asked { number, row, floor } in all {
            let found = self.opened(number, &row).await?;
            let key = Agreement::key(&row.id.provider, row.id.slot);
            let ours = |found: &Agreement| self.is_ours(number, found);
            if found.is_none() && !self.ledger.is_absent(key, floor, ours).await? {
                continue;
            }
            self.unsure.lock().retain(|asked| asked.number != number);
            match found {
                Some(found) => self.take_up(number, row, &found).await?,
                None => self.give_up(number, row).await?,
            }
        }
        Ok(())
    }

    async fn give_up(&self, number: u32, row: OwnAgreementRow) -> Result<(), Error> {
        let gone = OwnAgreementRow { stage: Stage::Gone as u8, ..row };
        self.shared.common.catalogue.put_agreement(number, gone).await.map_err(|_| Error::Stopping)
    }

    async fn take_up(&self, number: u32, row: OwnAgreementRow, found: &Agreement) -> Result<(), Error> {
        let row = OwnAgreementRow {
            id: found.id(row.id.provider, row.id.slot),
            stage: Stage::Open as u8,
            egress_price: found.prices[Class::Egress].price,
            rate_egress: RateCap(found.rate.egress),
            ..row
        };
        self.shared.common.catalogue.put_agreement(number, row.clone()).await.map_err(|_| Error::Stopping)?;
        self.upkeep.forget(number);
        let loaded = LoadedAgreement::fresh(number, row);
        self.add(loaded);
        Ok(())
    }

    /// Starts to use an agreement that is open.
    pub(crate) fn add(&self, loaded: LoadedAgreement) {
        let peer = self.peer(loaded.row.id.provider);
        let held: BTreeSet<_> = loaded.entries.values().map(|e| (e.added.file, e.added.segment)).collect();
        match OwnAgreement::start(loaded, peer, self.shared.common.clone()) {
            Ok(agreement) => self.shared.add_agreement(agreement),
            Err(damaged) => {
                let segments = held.len();
                tracing::error!(%damaged, segments,
                    "an agreement cannot be used; its shards are rebuilt under others");
                let shared = self.shared.clone();
                self.shared.common.environment.spawn(async move {
                    for (file, segment) in held {
                        shared.notice_surely(Notice::Incomplete { file, segment }).await;
                    }
                });
            }
        }
    }

    /// Returns true while agreements are being opened or an opening is in doubt.
    pub(crate) fn is_opening(&self) -> bool {
        let waits = !self.opening.lock().is_empty();
        let doubts = !self.unsure.lock().is_empty();
        waits || doubts || !self.upkeep.opening().is_empty()
    }

    /// Resumes openings that were under way when the process stopped. Submitting one again is harmless: a
    /// slot that it took shows our session key.
    pub(super) fn resume(self: &Arc<Self>) {
        let mut waiting = self.opening.lock();
        // No other opening with these providers starts meanwhile.
        let of = |loaded: &LoadedAgreement| self.upkeep.take(Job::Open(loaded.row.id.provider), 0);
        let busy: Vec<Busy> = waiting.iter().filter_map(of).collect();
        let opening = std::mem::take(&mut *waiting);
        drop(waiting);
        let agreements = self.clone();
        self.shared.common.environment.spawn(async move {
            let height = agreements.newest().await;
            let asked = opening.into_iter().map(|loaded| {
                let terms = (loaded.row.quota_leaves, loaded.row.end_epoch);
                let most = Limits::again(terms, agreements.policy.price_max, height, &agreements.parameters);
                agreements.ask(loaded.number, loaded.row, most)
            });
            for error in join_all(asked).await.into_iter().filter_map(Result::err) {
                tracing::warn!(%error,
                    "the state of an interrupted opening could not be read; it is read again");
            }
            drop(busy);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opening_that_is_sent_again_reserves_what_its_terms_may_cost_and_not_all_money() {
        let (parameters, leaves) = (&Parameters::PRODUCTION, 1 << 13);
        let prices = PerClass::new(40, 40, 0);
        let height = parameters.epoch_blocks() * 10;
        let most = Limits::again((leaves, 30), prices, height, parameters);
        let of = |price, epochs: u64| {
            storage_reserve(price, leaves, epochs * parameters.epoch_rounds, parameters).expect("small")
        };
        assert!(most.reserve >= of(40, 21), "at the highest price, with the epoch before");
        assert!(most.reserve <= of(40, 22));
        assert_eq!(
            Limits::again((leaves, 3), prices, height, parameters).reserve,
            of(40, 0),
            "a term that is over"
        );
    }

    #[test]
    fn a_slot_that_is_taken_may_be_taken_by_us() {
        assert!(!never_opened(Code::SlotTaken) && !never_opened(Code::Done));
        let others = Code::ALL.iter().filter(|code| !matches!(code, Code::SlotTaken | Code::Done));
        assert!(others.copied().all(never_opened));
    }
}
