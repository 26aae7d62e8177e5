//! Reads from the ledger the records that the account decides on: providers, their audits, our
//! agreements.

use super::{policy::Posted, state::View};
use crate::{
    environment::Environment,
    ledger::{Error, Ledger, decode},
    shared::Known,
};
use futures::StreamExt as _;
use posync_protocol::{
    Account, Class, PerClass,
    books::pair,
    limits::{HISTORY, Parameters, READ_KEYS_MAX},
    record::{
        AccountState, Audit, Endpoint, Market, Measured, Offer, Provider, ProviderAt, Reputation, System,
    },
    reputation::check_takes,
};
use std::collections::BTreeMap;

/// Most providers that an account considers; with that many, more would change little.
pub(super) const PROVIDERS_SEEN_MAX: u32 = 1024;
/// Names that a survey looks up at once.
const LOOKUPS_MAX: usize = 32;
/// Records that a survey reads of one provider.
const PER_PROVIDER: usize = 6;

/// The providers that a survey found.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The lowest height of its reads.
    pub(super) height: u64,
    /// By account, the ledger's view of a provider and the parts of it that are kept.
    pub(super) providers: BTreeMap<Account, (View, Known)>,
}

/// Reads all providers, at most [`PROVIDERS_SEEN_MAX`].
///
/// # Errors
/// [`Error`].
pub(super) async fn survey(ledger: &Ledger, environment: &Environment) -> Result<Survey, Error> {
    let system = ledger.record::<System>(System::key()).await?;
    let count = system.map_or(0, |system| system.providers).min(PROVIDERS_SEEN_MAX);
    let mut accounts = Vec::new();
    for first in (0..count).step_by(READ_KEYS_MAX) {
        let end = count.min(first + READ_KEYS_MAX as u32);
        let (_, slots) = ledger.read((first..end).map(ProviderAt::key).collect()).await?;
        for slot in slots {
            accounts.extend(decode::<ProviderAt>(slot)?.and_then(|at| at.account));
        }
    }
    details(ledger, environment, &accounts).await
}

/// Reads the posted prices and the account's balance.
///
/// # Errors
/// [`Error`].
pub(super) async fn posted(
    ledger: &Ledger,
    account: &Account,
    parameters: &Parameters,
) -> Result<Posted, Error> {
    let keys = [AccountState::key(account)].into_iter().chain(Class::ALL.map(Market::key));
    let (height, slots) = ledger.read(keys.collect()).await?;
    let mut slots = slots.into_iter();
    let state: Option<AccountState> = decode(slots.next().flatten())?;
    let mut prices = PerClass::default();
    for class in Class::ALL {
        prices[class] = pair(decode::<Market>(slots.next().flatten())?, class, parameters);
    }
    Ok(Posted { prices, balance: state.unwrap_or_default().balance, height })
}

/// Reads the records of these providers; those without an offer or endpoint are left out.
///
/// # Errors
/// [`Error`].
pub(super) async fn details(
    ledger: &Ledger,
    environment: &Environment,
    accounts: &[Account],
) -> Result<Survey, Error> {
    let mut survey = Survey { height: u64::MAX, ..Survey::default() };
    for group in accounts.chunks(READ_KEYS_MAX / PER_PROVIDER) {
        let own = |a| {
            [
                Provider::key(a),
                Offer::key(a),
                Audit::key(a),
                Endpoint::key(a),
                Reputation::key(a),
                Measured::key(a),
            ]
        };
        let (height, slots) = ledger.read(group.iter().flat_map(own).collect()).await?;
        survey.height = survey.height.min(height);
        for (account, slots) in group.iter().zip(slots.chunks(PER_PROVIDER)) {
            let [provider, offer, audit, endpoint, reputation, measured] = slots else { continue };
            let (provider, offer) = (decode::<Provider>(*provider)?, decode::<Offer>(*offer)?);
            let endpoint = decode::<Endpoint>(*endpoint)?;
            let ((Some(provider), Some(offer)), Some(endpoint)) = ((provider, offer), endpoint) else {
                continue;
            };
            let audit = decode::<Audit>(*audit)?.unwrap_or_default();
            let measured = decode::<Measured>(*measured)?;
            let reputation = decode::<Reputation>(*reputation)?.unwrap_or(Reputation::newborn(0));
            let known = known((&offer, &provider), &audit, &endpoint, &reputation);
            let view = View { offer, provider, audit, reputation, measured, barred: false };
            survey.providers.insert(*account, (view, known));
        }
    }
    locate(environment, survey.providers.values_mut().map(|(_, known)| known)).await;
    if accounts.is_empty() {
        survey.height = 0;
    }
    Ok(survey)
}

/// Looks up the socket addresses of these providers, some at a time.
async fn locate(environment: &Environment, all: impl Iterator<Item = &mut Known>) {
    let looks = all.filter_map(|known| {
        let address = known.address.clone()?;
        Some(async move { known.socket = environment.resolve(address).await })
    });
    futures::stream::iter(looks).for_each_concurrent(LOOKUPS_MAX, |look| look).await;
}

fn known(
    (offer, provider): (&Offer, &Provider),
    audit: &Audit,
    endpoint: &Endpoint,
    reputation: &Reputation,
) -> Known {
    let mut addresses = endpoint.addresses.iter().filter_map(|text| std::str::from_utf8(text).ok());
    Known {
        index: provider.index,
        operator: offer.operator.to_vec(),
        region: offer.region.to_vec(),
        address: addresses.find_map(|text| text.parse().ok()),
        socket: None,
        trusted: true,
        takes: check_takes(reputation).is_ok(),
        score: reputation.score(),
        vetted: audit.drawn >= HISTORY,
    }
}
