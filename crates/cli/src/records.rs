//! Records of the ledger as JSON, and the subjects that a proof can be about.

use crate::json::{address, grains, number, text};
use posync_client::light::Subject;
use posync_protocol::{
    Account, Class, Record as _, Slot,
    limits::SETTLEMENT_RING,
    record::{
        AccountState, Agreement, Audit, Books, Closing, DataSet, Endpoint, Market, Measured, Offer, Probe,
        Provider, Ratio, Reputation, Seat, Settlement, System, UNMEASURED, Usage, Version,
    },
};
use serde_json::{Value, json};

/// The subject of a provider's settlement row for an epoch.
pub(crate) fn settlement(provider: &Account, epoch: u64) -> Subject {
    let place = (epoch % SETTLEMENT_RING).to_be_bytes();
    Subject::new::<Settlement>(&[&provider.0, &place]).expect("40 bytes fit")
}

/// Name of a record's kind, and its fields; `None` for a kind that is only an index.
pub(crate) fn describe(slot: &Slot) -> Option<(&'static str, Value)> {
    Some(match slot[0] {
        System::KIND => ("system", system(&System::from_slot(slot).ok()?)),
        AccountState::KIND => {
            let x = AccountState::from_slot(slot).ok()?;
            ("account", json!({ "nonce": x.nonce, "balance": grains(x.balance) }))
        }
        Provider::KIND => ("provider", provider(&Provider::from_slot(slot).ok()?)),
        Offer::KIND => ("offer", offer(&Offer::from_slot(slot).ok()?)),
        Audit::KIND => ("audit", audit(&Audit::from_slot(slot).ok()?)),
        Endpoint::KIND => {
            let x = Endpoint::from_slot(slot).ok()?;
            let all: Vec<String> = x.addresses.iter().map(|address| text(address)).collect();
            ("endpoint", json!({ "address": address(&x.addresses), "addresses": all }))
        }
        Agreement::KIND => ("agreement", agreement(&Agreement::from_slot(slot).ok()?)),
        Usage::KIND => ("usage", usage(&Usage::from_slot(slot).ok()?)),
        DataSet::KIND => {
            let x = DataSet::from_slot(slot).ok()?;
            ("data set", json!({ "current": version(&x.current), "next": x.next.as_ref().map(version) }))
        }
        Settlement::KIND => ("settlement", row(&Settlement::from_slot(slot).ok()?)),
        Market::KIND => {
            let x = Market::from_slot(slot).ok()?;
            (
                "market",
                json!({ "price": number(x.price), "slow": number(x.slow), "excess": number(x.excess), "bucket": number(x.bucket),
                    "capacity": number(x.capacity), "used": number(x.used), "epoch": x.epoch }),
            )
        }
        Reputation::KIND => ("reputation", reputation(&Reputation::from_slot(slot).ok()?)),
        Closing::KIND => {
            let x = Closing::from_slot(slot).ok()?;
            (
                "closing",
                json!({ "epoch": x.epoch, "providers": x.providers, "rows": x.rows, "burn": grains(x.burn),
                    "weight": number(x.weight), "capacity": x.capacity.values().map(number), "used": x.used.values().map(number),
                    "emission": grains(x.emission), "pool": grains(x.pool), "drawn": grains(x.drawn),
                    "paid": grains(x.paid), "committee": grains(x.committee) }),
            )
        }
        Books::KIND => ("books", books(&Books::from_slot(slot).ok()?)),
        Seat::KIND => ("seat", seat(&Seat::from_slot(slot).ok()?)),
        Measured::KIND => ("measured", measured(&Measured::from_slot(slot).ok()?)),
        Probe::KIND => {
            let x = Probe::from_slot(slot).ok()?;
            ("probe", json!({ "epoch": x.epoch, "seed": hex::encode(x.seed), "providers": x.providers }))
        }
        _ => return None,
    })
}

/// A ratio in parts per billion; `None` if it was not measured.
pub(crate) fn ratio(parts: u64) -> Option<u64> {
    Some(parts).filter(|parts| *parts != UNMEASURED)
}

/// A provider's settlement row for an epoch.
pub(crate) fn row(x: &Settlement) -> Value {
    json!({ "epoch": x.epoch, "fee": grains(x.fee), "burn": grains(x.burn), "committee": grains(x.committee),
        "provider_pay": grains(x.pay), "base": grains(x.base), "egress": x.redeemed.egress, "gas": number(x.redeemed.gas),
        "storage": x.storage,
        "signed": grains(x.signed), "disputed": grains(x.disputed), "reads": x.reads,
        "answers": x.answers, "wrong": x.wrong, "late": x.late,
        "correct": x.correct.values().map(Ratio::measured), "available": x.available.measured(), "latency": x.latency.ppb(),
        "quality": x.quality.measured(), "least_quality": x.least.ppb(), "weight": number(x.weight),
        "subsidy": grains(x.subsidy), "scores": x.scores.values().map(Ratio::measured), "auditors": x.assigned,
        "auditors_reported": x.reported })
}

/// A provider's reputation: scores, warnings, suspension and jail.
pub(crate) fn reputation(x: &Reputation) -> Value {
    json!({ "registered": x.registered, "scores": x.scores.values().map(ratio), "score": x.score(),
        "qualities": x.qualities.map(ratio), "idle": x.idle, "low_correct": x.low_correct,
        "low_egress": x.low_egress, "low_available": x.low_available,
        "suspended": x.suspended, "warned": x.warned, "jailed_until": x.jailed_until, "jailings": x.jailings, "probation": x.probation, "released": x.released,
        "answered": ratio(x.answered), "latency": x.latency, "on_time": ratio(x.on_time) })
}

/// Egress measured of a provider, newest first, in bytes an epoch.
pub(crate) fn measured(x: &Measured) -> Value {
    let taken = usize::from(x.taken).min(x.rates.len());
    json!({ "epochs": x.epochs[..taken], "bytes_per_epoch": x.rates[..taken], "median": x.median() })
}

/// The books of a closed epoch.
pub(crate) fn books(x: &Books) -> Value {
    json!({ "epoch": x.epoch, "rows": x.rows, "root": hex::encode(x.root), "burn": grains(x.burn),
        "weight": number(x.weight), "emission": grains(x.emission), "pool": grains(x.pool),
        "drawn": grains(x.drawn), "paid": grains(x.paid), "carry": grains(x.carry), "prices": x.prices.values().map(number),
        "slow": x.slow.values().map(number), "committee": grains(x.committee), "credits": x.credits })
}

/// An authority's seat; `credits` holds those of unpaid epochs, at index epoch mod 4.
pub(crate) fn seat(x: &Seat) -> Value {
    json!({ "index": x.index, "bond": grains(x.bond), "credits": x.credits, "paid": grains(x.paid),
        "slashed": grains(x.slashed), "jailed": x.jailed })
}

/// The ledger's totals of money and members.
pub(crate) fn system(x: &System) -> Value {
    json!({ "height": x.height, "providers": x.providers, "agreements": x.agreements,
        "balances": grains(x.balances), "voucher_reserves": grains(x.voucher_reserves),
        "storage_pools": grains(x.storage_pools), "bonds": grains(x.bonds), "deposits": grains(x.deposits),
        "burned": grains(x.burned), "committee": grains(x.committee), "reserve": grains(x.reserve), "carry": grains(x.carry),
        "seats": x.seats, "seat_bonds": grains(x.seat_bonds), "phi": number(x.phi) })
}

fn provider(x: &Provider) -> Value {
    json!({ "index": x.index, "born": x.born, "leaves_at": x.leaves_at, "bond": grains(x.bond),
        "sold": x.sold[Class::Storage], "sold_egress": x.sold[Class::Egress], "sold_gas": number(x.sold[Class::Compute]), "slots": x.slots,
        "leaves": x.leaves, "phi": number(x.phi), "paid": number(x.paid), "weighed": number(x.weighed),
        "pool": grains(x.pool), "settled_round": x.settled_round })
}

fn offer(x: &Offer) -> Value {
    json!({ "operator": text(&x.operator), "capacity": x.capacity[Class::Storage], "capacity_egress": x.capacity[Class::Egress],
        "capacity_gas": number(x.capacity[Class::Compute]), "reserve_storage": number(x.reserve[Class::Storage]),
        "reserve_egress": number(x.reserve[Class::Egress]), "reserve_gas": number(x.reserve[Class::Compute]), "term_max": x.term_max,
        "region": text(&x.region) })
}

fn audit(x: &Audit) -> Value {
    json!({ "challenge": x.challenge.map(|open| open.height), "history": format!("{:064b}", x.history),
        "on_time": format!("{:064b}", x.on_time), "drawn": x.drawn, "settlements": x.settlements,
        "missing": x.missing.len() })
}

fn agreement(x: &Agreement) -> Value {
    json!({ "opened": x.opened, "consumer": x.consumer.to_string(), "end_epoch": x.end_epoch,
        "storage_price": number(x.prices[Class::Storage].price), "egress_price": number(x.prices[Class::Egress].price), "gas_price": number(x.prices[Class::Compute].price),
        "quota_leaves": x.quota[Class::Storage], "quota_egress": x.quota[Class::Egress], "quota_gas": number(x.quota[Class::Compute]) })
}

fn usage(x: &Usage) -> Value {
    json!({ "storage_reserve": grains(x.storage_reserve), "voucher_reserve": grains(x.voucher_reserve),
        "deposit": grains(x.deposit), "egress": x.redeemed.egress, "gas": number(x.redeemed.gas), "signed": grains(x.signed),
        "audited": x.audited })
}

fn version(x: &Version) -> Value {
    json!({ "version": x.version, "root": hex::encode(x.root), "leaves": x.leaves, "bytes": x.bytes })
}
