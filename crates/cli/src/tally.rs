//! Adds up the events of blocks, provider by provider. Pure: events in, figures out.

use posync_protocol::{Account, AgreementId, Amount, ledger::Event};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The challenges and the pay of one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Challenges with every drawn read proved.
    pub(crate) passed: u64,
    /// Challenges with a missing read, and challenges without an answer.
    pub(crate) failed: u64,
    /// Its pay for storage and downloads.
    pub(crate) earned: Amount,
}

/// One settled fee and its three parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SettledFee {
    /// Epoch that the fee is booked in.
    pub(crate) epoch: u64,
    /// The agreement of a download; `None` for storage.
    pub(crate) agreement: Option<AgreementId>,
    /// The provider that was paid.
    pub(crate) provider: Account,
    /// The whole fee, paid by consumers.
    pub(crate) fee: Amount,
    /// Part of the fee that was burned.
    pub(crate) burn: Amount,
    /// Part of the fee that the committee got.
    pub(crate) committee: Amount,
    /// Part of the fee that the provider got.
    pub(crate) pay: Amount,
}

impl SettledFee {
    /// The row as JSON.
    pub(crate) fn to_json(&self) -> Value {
        json!({ "epoch": self.epoch, "agreement": self.agreement, "provider": self.provider, "fee": self.fee,
            "burn": self.burn, "committee": self.committee, "provider_pay": self.pay })
    }

    /// True if the parts add up to the fee.
    pub(crate) fn adds_up(&self) -> bool {
        self.burn.checked_add(self.committee).and_then(|sum| sum.checked_add(self.pay)) == Some(self.fee)
    }
}

/// A challenge that was not passed in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The provider that was challenged.
    pub(crate) provider: Account,
    /// Height of the block with the audit's event.
    pub(crate) height: u64,
}

/// The figures of all blocks entered so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Challenges and pay of each provider.
    pub(crate) providers: BTreeMap<Account, Figures>,
    /// Settled fees in the order of blocks.
    pub(crate) rows: Vec<SettledFee>,
    /// Challenges that were not passed in full, in the order of blocks.
    pub(crate) failures: Vec<Failure>,
}

impl Tally {
    /// Adds the events of the block at `height`.
    pub(crate) fn enter(&mut self, height: u64, events: &[Event]) {
        for event in events {
            match event {
                // The provider kept no data, so no read was drawn.
                Event::Audited { reads: 0, .. } => {}
                Event::Audited { provider, passed, reads, answered, .. } => {
                    let figures = self.providers.entry(*provider).or_default();
                    if *answered && passed == reads {
                        figures.passed += 1;
                    } else {
                        figures.failed += 1;
                        self.failures.push(Failure { provider: *provider, height });
                    }
                }
                Event::Settled { epoch, provider, agreement, fee, burn, committee, pay } => {
                    let figures = self.providers.entry(*provider).or_default();
                    figures.earned = figures.earned.checked_add(*pay).unwrap_or(Amount::MAX);
                    self.rows.push(SettledFee {
                        epoch: *epoch,
                        agreement: *agreement,
                        provider: *provider,
                        fee: *fee,
                        burn: *burn,
                        committee: *committee,
                        pay: *pay,
                    });
                }
                Event::Drawn { .. }
                | Event::Agreement { .. }
                | Event::VoucherRefused { .. }
                | Event::Restitution { .. }
                | Event::CapacityCut { .. }
                | Event::Pool { .. }
                | Event::Priced { .. }
                | Event::Subsidy { .. }
                | Event::Reputation { .. }
                | Event::Reported { .. }
                | Event::ServiceMeasured { .. }
                | Event::Slashed { .. }
                | Event::CommitteePaid { .. }
                | Event::RoundFaulty { .. }
                | Event::CapacityMeasured { .. }
                | Event::Closed { .. } => {}
            }
        }
    }

    /// True if `provider` was paid for storage (`storage`), or for downloads (otherwise).
    pub(crate) fn settled(&self, provider: &Account, storage: bool) -> bool {
        self.rows.iter().any(|row| row.provider == *provider && row.agreement.is_none() == storage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROVIDER: Account = Account([7; 32]);

    fn audited(answered: bool, passed: u8) -> Event {
        let (provider, on_time) = (PROVIDER, answered);
        Event::Audited { provider, height: 4, answered, passed, reads: 4, on_time, excused: false }
    }

    fn settled(agreement: Option<AgreementId>, grains: [u128; 4]) -> Event {
        let [fee, burn, committee, pay] = grains.map(|x| Amount::new(x).expect("small"));
        Event::Settled { epoch: 3, provider: PROVIDER, agreement, fee, burn, committee, pay }
    }

    #[test]
    fn challenges_count_as_passed_only_when_whole() {
        let cases = [(audited(true, 4), (1, 0)), (audited(true, 3), (0, 1)), (audited(false, 0), (0, 1))];
        for (event, (passed, failed)) in cases {
            let mut tally = Tally::default();
            tally.enter(9, std::slice::from_ref(&event));
            let figures = &tally.providers[&PROVIDER];
            assert_eq!((figures.passed, figures.failed), (passed, failed), "{event:?}");
            assert_eq!(tally.failures.len() as u64, failed);
        }
    }

    #[test]
    fn earnings_sum_over_storage_and_downloads() {
        let id = AgreementId { provider: PROVIDER, slot: 0, opened: 2 };
        let mut tally = Tally::default();
        tally.enter(9, &[settled(None, [100, 20, 5, 75]), settled(Some(id), [10, 2, 0, 8])]);
        assert_eq!(tally.providers[&PROVIDER].earned.grains(), 83);
        assert!(tally.settled(&PROVIDER, true) && tally.settled(&PROVIDER, false));
        assert!(!tally.settled(&Account([8; 32]), true));
        assert!(tally.rows.iter().all(SettledFee::adds_up));
    }

    #[test]
    fn a_row_that_loses_a_grain_does_not_add_up() {
        let mut tally = Tally::default();
        tally.enter(9, &[settled(None, [100, 20, 5, 74])]);
        assert!(!tally.rows[0].adds_up());
    }
}
