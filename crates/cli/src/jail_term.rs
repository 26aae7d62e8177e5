//! The term of a provider in jail, as the commands show it: until when, and what a release needs (JL-5).

use crate::{
    failure::{Exit, Failure, Outcome},
    ledger::Ledger,
};
use posync_protocol::{
    Account, Amount, Class,
    provider::bond_needed,
    record::{Offer, Provider, Reputation},
};

/// A registered provider's term in jail, from proven records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JailTerm {
    /// Epoch of the newest proved state.
    epoch: u64,
    /// First epoch in which a release is accepted; 0 if it is not in jail, [`u64::MAX`] for ever.
    jailed_until: u64,
    /// Minutes from now to that epoch, rounded up.
    minutes: u64,
    /// The bond that its declared capacity lacks.
    pub(crate) bond_missing: Amount,
}

impl JailTerm {
    /// Reads a provider's term; `None` if the ledger has no such registration.
    pub(crate) async fn read(ledger: &Ledger, account: &Account) -> Outcome<Option<Self>> {
        let Some(provider) = ledger.read::<Provider>(Provider::key(account)).await? else { return Ok(None) };
        let offer: Option<Offer> = ledger.read(Offer::key(account)).await?;
        let (height, reputation) = ledger.read_at::<Reputation>(Reputation::key(account)).await?;
        let (Some(offer), Some(reputation)) = (offer, reputation) else { return Ok(None) };
        let parameters = ledger.parameters();
        let jailed_until = reputation.jailed_until;
        let start = jailed_until.saturating_mul(parameters.epoch_blocks());
        let minutes = start.saturating_sub(height).saturating_mul(parameters.block_ms).div_ceil(60_000);
        let bond_missing =
            bond_needed(offer.capacity[Class::Storage], parameters).saturating_sub(provider.bond);
        Ok(Some(Self { epoch: parameters.epoch(height), jailed_until, minutes, bond_missing }))
    }

    /// The state in one sentence; `None` if the provider is not in jail.
    pub(crate) fn in_jail(&self) -> Option<String> {
        match self.jailed_until {
            0 => None,
            u64::MAX => Some("it is in jail for ever".into()),
            until if until <= self.epoch => {
                Some(format!("it is in jail, and its term ended in epoch {until}"))
            }
            until => Some(format!(
                "it is in jail until epoch {until}; now is epoch {}, so about {} min are left",
                self.epoch, self.minutes
            )),
        }
    }

    /// True if the ledger accepts a release now.
    pub(crate) const fn may_leave(&self) -> bool {
        self.jailed_until != 0 && self.jailed_until <= self.epoch
    }

    /// Checks that the ledger accepts a release now, so that none is paid for in vain. `again` is the advice for the
    /// time from which on it does.
    ///
    /// # Errors
    /// [`Failure`] with the reason, and the epoch from which on it is accepted.
    pub(crate) fn check_release(&self, again: &str) -> Outcome {
        let Some(what) = self.in_jail() else {
            let next = "nothing is to be done; `posync why` shows what else keeps new agreements away";
            return Err(Failure::new(Exit::Refused, "the provider is not in jail", "nothing was sent", next));
        };
        if self.may_leave() {
            return Ok(());
        }
        let next = if self.jailed_until == u64::MAX {
            "this account never takes new agreements again: leave with `posync leave`, and register another one"
                .into()
        } else {
            format!("{again} then; until then mend the cause: the next jailing is twice as long")
        };
        Err(Failure::new(Exit::Refused, what, "nothing was sent", next))
    }
}
