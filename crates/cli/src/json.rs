//! Protocol values as JSON, for `--json` and for scripts that recompute the books.
//!
//! Accounts are bech32m, hashes and signatures hex. Money, prices, gas and the ledger's weights are always
//! strings of decimal digits, money in grains: JSON readers round numbers above 2^53 (`docs/formats.md`).
//! Heights, epochs, counts, bytes and parts per billion are numbers.

use crate::records::ratio;
use posync_protocol::{
    Account, AgreementId, Amount, Body, Class, Metered, Operation, Units,
    block::{BlockBody, Header},
    ledger::{AgreementChange, Event, ReputationReason, ReputationStep},
    limits::Parameters,
    operation::{
        Answer, AuditCommit, DataSetClaim, Evidence, ProbeCount, Reasked, Redemption, RefusedPlacement,
        Report,
    },
    record::Address,
    wire::gateway::File,
};
use serde_json::{Value, json};

/// An integer that may exceed 2^53, as a string of digits.
pub(crate) fn number(value: impl Into<u128>) -> Value {
    Value::String(value.into().to_string())
}

/// An amount of money, in grains.
pub(crate) fn grains(amount: Amount) -> Value {
    number(amount.grains())
}

/// An agreement's identifier: provider, slot and height of its opening.
pub(crate) fn agreement(id: &AgreementId) -> Value {
    json!({ "provider": id.provider.to_string(), "slot": id.slot, "opened": id.opened })
}

/// The constants of the rules.
pub(crate) fn parameters(p: &Parameters) -> Value {
    json!({
        "block_ms": p.block_ms,
        "round_blocks": p.round_blocks,
        "term_rounds": p.term_rounds,
        "epoch_rounds": p.epoch_rounds,
        "draw_every_blocks": p.draw_every_blocks,
        "deadline_blocks": p.deadline_blocks,
        "pending_rounds_max": p.pending_rounds_max,
        "redemption_epochs": p.redemption_epochs,
        "burn": p.burn,
        "committee": p.committee,
        "base_fee": grains(p.base_fee),
        "deposit": grains(p.deposit),
        "price_storage": number(p.prices[Class::Storage]),
        "price_egress": number(p.prices[Class::Egress]),
        "price_gas": number(p.prices[Class::Compute]),
        "closing_slice": p.closing_slice,
        "emission_divisor": p.emission_divisor,
        "usage_share": p.usage_share,
        "subsidy_cap": p.subsidy_cap,
        "unjail_burn": grains(p.unjail_burn),
        "seat_bond": grains(p.seat_bond),
        "fault_draws_min": p.fault_draws_min,
    })
}

/// A header: its place in the chain and its roots.
pub(crate) fn header(header: &Header, parameters: &Parameters) -> Value {
    json!({
        "height": header.height,
        "digest": hex::encode(header.digest()),
        "parent": hex::encode(header.parent),
        "term": header.term,
        "view": header.view,
        "round": parameters.round(header.height),
        "epoch": parameters.epoch(header.height),
        "time_ms": header.time_ms,
        "leader": header.leader.to_string(),
        "beacon": header.beacon.map(hex::encode),
        "body_root": hex::encode(header.body_root),
        "receipts_root": hex::encode(header.receipts_root),
        "state_root": hex::encode(header.state_root),
    })
}

/// The draws and operations of a block's body.
pub(crate) fn body(body: &BlockBody) -> Value {
    let draws: Vec<Value> = body
        .draws
        .iter()
        .map(|draw| {
            draw.map_or(
                Value::Null,
                |draw| json!({ "index": draw.index, "account": draw.account.to_string() }),
            )
        })
        .collect();
    let operations: Vec<Value> = body.operations.iter().map(operation).collect();
    json!({ "draws": draws, "operations": operations })
}

/// An operation: envelope, kind, and the fields of its kind.
pub(crate) fn operation(operation: &Operation) -> Value {
    json!({
        "id": hex::encode(operation.id()),
        "signer": operation.signer.to_string(),
        "nonce": operation.nonce,
        "max_fee": grains(operation.max_fee),
        "expires": operation.expires,
        "kind": operation.body.name(),
        "fields": body_fields(&operation.body),
    })
}

fn body_fields(body: &Body) -> Value {
    match body {
        Body::Transfer(x) => json!({ "to": x.to.to_string(), "amount": grains(x.amount) }),
        Body::RegisterProvider(x) => {
            json!({ "operator": text(&x.operator), "bond": grains(x.bond), "capacity": x.capacity[Class::Storage],
                "capacity_egress": x.capacity[Class::Egress], "capacity_gas": number(x.capacity[Class::Compute]),
                "reserve_storage": number(x.reserve[Class::Storage]), "reserve_egress": number(x.reserve[Class::Egress]),
                "reserve_gas": number(x.reserve[Class::Compute]), "term_max": x.term_max, "address": address(&x.addresses),
                "region": text(&x.region) })
        }
        Body::UpdateProvider(x) => {
            json!({ "bond_add": grains(x.bond_add), "capacity": x.capacity[Class::Storage],
                "capacity_egress": x.capacity[Class::Egress], "capacity_gas": number(x.capacity[Class::Compute]),
                "reserve_storage": number(x.reserve[Class::Storage]), "reserve_egress": number(x.reserve[Class::Egress]),
                "reserve_gas": number(x.reserve[Class::Compute]), "term_max": x.term_max, "address": address(&x.addresses),
                "leave": x.leave, "exit": x.exit })
        }
        Body::Open(x) => {
            json!({ "provider": x.provider.to_string(), "slot": x.slot,
                "quota_leaves": x.quota[Class::Storage], "quota_egress": x.quota[Class::Egress], "quota_gas": number(x.quota[Class::Compute]),
                "rate_egress": x.rate.egress, "rate_gas": number(x.rate.gas), "end_epoch": x.end_epoch,
                "voucher_reserve": grains(x.voucher_reserve),
                "storage_reserve_max": grains(x.storage_reserve_max) })
        }
        Body::TopUp(x) => {
            let Metered { egress, gas } = x.price_max;
            json!({ "agreement": agreement(&x.agreement), "amount": grains(x.amount),
                "max_egress_price": number(egress), "max_gas_price": number(gas) })
        }
        Body::Close(x) => ending(&x.agreement, &x.consumer, x.end_epoch),
        Body::CloseAlone(x) => json!({ "agreement": agreement(&x.agreement) }),
        Body::RotateKey(x) => json!({ "agreement": agreement(&x.agreement) }),
        Body::SetDataSet(x) => json!({ "claim": claim(&x.claim), "end_epoch": x.end_epoch }),
        Body::StorageProof(x) => {
            json!({ "height": x.height, "index": x.index,
                "answers": x.answers.iter().map(answer).collect::<Vec<_>>(),
                "reasked": x.reasked.iter().map(reasked).collect::<Vec<_>>(),
                "vouchers": x.vouchers.iter().map(redemption).collect::<Vec<_>>(),
                "apply": x.apply.iter().map(|slot| slot.0).collect::<Vec<_>>(),
                "endings": x.endings.to_vec() })
        }
        Body::Redeem(x) => {
            json!({ "vouchers": x.vouchers.iter().map(redemption).collect::<Vec<_>>() })
        }
        Body::Refusal(x) => refusal(x),
        Body::Settle(x) => {
            json!({ "provider": x.provider.to_string(), "index": x.index,
                "slots": x.slots.iter().map(|slot| slot.0).collect::<Vec<_>>(), "endings": x.endings.to_vec() })
        }
        Body::Unjail(x) => json!({ "bond_add": grains(x.bond_add) }),
        Body::AuditCommit(x) => json!({ "epoch": x.epoch, "digest": hex::encode(x.digest) }),
        Body::AuditReveal(x) => {
            json!({ "epoch": x.epoch, "batch": x.batch,
                "reports": x.reports.iter().map(report).collect::<Vec<_>>() })
        }
        Body::Evidence(x) => evidence(x),
        Body::Measure(x) => {
            json!({ "epoch": x.epoch, "counts": x.counts.iter().map(counted).collect::<Vec<_>>() })
        }
    }
}

fn evidence(x: &Evidence) -> Value {
    let header = |header: &Header| {
        json!({ "term": header.term, "view": header.view, "height": header.height,
            "digest": hex::encode(header.digest()) })
    };
    let commit = |x: &AuditCommit| json!({ "epoch": x.epoch, "digest": hex::encode(x.digest) });
    let (name, pair): (_, Vec<Value>) = match x {
        Evidence::Proposals(pair) => ("headers", pair.headers.iter().map(header).collect()),
        Evidence::Commitments(pair) => ("commits", pair.commits.iter().map(commit).collect()),
    };
    json!({ "seat": x.offender().to_string(), name: pair })
}

fn counted((index, x): &(u32, ProbeCount)) -> Value {
    json!({ "draw": x.draw, "index": index, "receiver": x.receiver.to_string(), "bytes": x.bytes })
}

fn refusal(x: &RefusedPlacement) -> Value {
    json!({ "provider": x.provider.to_string(), "consumer": x.consumer.to_string(),
        "agreement": x.agreement.as_ref().map(agreement), "leaves": x.leaves, "height": x.height })
}

fn report(x: &Report) -> Value {
    json!({ "stratum": x.stratum, "auditor": x.auditor, "index": x.index, "agreement": agreement(&x.agreement()),
        "session_key": x.session_key.to_string(), "asked": x.asked, "answered": x.answered,
        "correct": x.correct, "latency_band": x.latency, "throughput_band": x.throughput })
}

fn ending(id: &AgreementId, consumer: &Account, end_epoch: u64) -> Value {
    json!({ "agreement": agreement(id), "consumer": consumer.to_string(), "end_epoch": end_epoch })
}

fn claim(x: &DataSetClaim) -> Value {
    json!({ "agreement": agreement(&x.agreement), "version": x.version, "root": hex::encode(x.root),
        "leaves": x.leaves, "bytes": x.bytes })
}

fn answer(x: &Answer) -> Value {
    let slot = x.slot();
    match x {
        Answer::Proved(x) => json!({ "read": "proved", "slot": slot, "shard": hex::encode(x.shard) }),
        Answer::Missing(x) => json!({ "read": "missing", "slot": slot, "shard": hex::encode(x.shard) }),
        Answer::Ended(_) => json!({ "read": "ended", "slot": slot }),
    }
}

fn reasked(x: &Reasked) -> Value {
    match x {
        Reasked::Proved(x) => json!({ "read": "proved", "slot": x.slot }),
        Reasked::Missing(x) => json!({ "read": "missing", "slot": x.slot }),
    }
}

fn redemption(x: &Redemption) -> Value {
    let claim = x.claim.map(|Units { egress, gas }| json!({ "egress": egress, "gas": number(gas) }));
    let units = x.voucher.units;
    json!({ "agreement": agreement(&x.voucher.agreement), "egress": units.egress, "gas": number(units.gas),
        "claim": claim })
}

/// An event: its name and its fields.
#[expect(clippy::too_many_lines, reason = "one arm for each event")]
pub(crate) fn event(event: &Event) -> Value {
    match event {
        Event::Settled { epoch, provider, agreement: id, fee, burn, committee, pay } => json!({
            "event": "Settled", "epoch": epoch, "provider": provider.to_string(),
            "agreement": id.as_ref().map(agreement), "fee": grains(*fee), "burn": grains(*burn),
            "committee": grains(*committee), "provider_pay": grains(*pay) }),
        Event::Drawn { provider, height } => {
            json!({ "event": "Drawn", "provider": provider.to_string(), "height": height })
        }
        Event::Audited { provider, height, answered, passed, reads, on_time, excused } => json!({
            "event": "Audited", "provider": provider.to_string(), "height": height, "answered": answered,
            "passed": passed, "reads": reads, "on_time": on_time, "excused": excused }),
        Event::Agreement { agreement: id, consumer, change } => json!({
            "event": "Agreement", "agreement": agreement(id), "consumer": consumer.to_string(),
            "change": match change {
                AgreementChange::Opened => "opened",
                AgreementChange::Closing => "closing",
                AgreementChange::Deleted => "deleted",
            } }),
        Event::VoucherRefused { agreement: id, code } => {
            json!({ "event": "VoucherRefused", "agreement": agreement(id), "code": *code as u8, "why": code.explain() })
        }
        Event::Restitution { provider, agreement: id, amount } => json!({
            "event": "Restitution", "provider": provider.to_string(), "agreement": agreement(id),
            "amount": grains(*amount) }),
        Event::CapacityCut { provider, consumer, before, after } => json!({
            "event": "CapacityCut", "provider": provider.to_string(), "consumer": consumer.to_string(),
            "before": before, "after": after }),
        Event::Pool { epoch, weight, emission, pool, drawn } => json!({
            "event": "Pool", "epoch": epoch, "weight": number(*weight), "emission": grains(*emission),
            "pool": grains(*pool), "drawn": grains(*drawn) }),
        Event::Priced { epoch, class, price, slow } => json!({
            "event": "Priced", "epoch": epoch, "class": class.index(), "price": number(*price), "slow": number(*slow) }),
        Event::Subsidy { epoch, provider, amount } => json!({
            "event": "Subsidy", "epoch": epoch, "provider": provider.to_string(), "amount": grains(*amount) }),
        Event::Reputation { provider, epoch, step, reason, evidence, until } => json!({
            "event": "Reputation", "provider": provider.to_string(), "epoch": epoch,
            "step": step_name(*step), "reason": reason_name(*reason), "evidence": hex::encode(evidence),
            "until": until }),
        Event::Reported { epoch, provider, auditor, asked, answered, correct, latency, throughput, code } => {
            json!({ "event": "Reported", "epoch": epoch, "provider": provider.to_string(),
                "auditor": auditor.to_string(), "asked": asked, "answered": answered, "correct": correct,
                "latency_band": latency, "throughput_band": throughput, "code": *code as u8,
                "why": code.explain() })
        }
        Event::ServiceMeasured {
            epoch,
            provider,
            assigned,
            reported,
            on_time,
            answered,
            correct,
            latency,
            throughput,
            stands,
        } => json!({
            "event": "ServiceMeasured", "epoch": epoch, "provider": provider.to_string(),
            "auditors": assigned, "auditors_reported": reported, "on_time": ratio(*on_time),
            "answered": ratio(*answered), "correct": ratio(*correct), "latency": ratio(*latency),
            "throughput_band": ratio(*throughput), "answered_stands": ratio(stands[0]),
            "latency_stands": stands[1] }),
        Event::CommitteePaid { epoch, seat, credits, amount } => json!({
            "event": "CommitteePaid", "epoch": epoch, "seat": seat.to_string(), "credits": credits,
            "amount": grains(*amount) }),
        Event::Slashed { seat, epoch, parts, amount, burned, reporter, evidence, until } => json!({
            "event": "Slashed", "seat": seat.to_string(), "epoch": epoch, "parts": parts,
            "amount": grains(*amount), "burned": grains(*burned),
            "reporter": reporter.as_ref().map(Account::to_string), "evidence": hex::encode(evidence),
            "until": until }),
        Event::Closed { epoch, rows, root } => json!({
            "event": "Closed", "epoch": epoch, "rows": rows, "root": hex::encode(root) }),
        Event::RoundFaulty { round, drawn, on_time } => json!({
            "event": "RoundFaulty", "round": round, "drawn_by_fee": drawn, "on_time": on_time }),
        Event::CapacityMeasured { epoch, provider, rate, median } => json!({
            "event": "CapacityMeasured", "epoch": epoch, "provider": provider.to_string(),
            "bytes_per_epoch": rate, "median": median }),
    }
}

const fn step_name(step: ReputationStep) -> &'static str {
    match step {
        ReputationStep::Warned => "warned",
        ReputationStep::Suspended => "suspended",
        ReputationStep::Resumed => "resumed",
        ReputationStep::Jailed => "jailed",
        ReputationStep::Unjailed => "unjailed",
    }
}

const fn reason_name(reason: ReputationReason) -> &'static str {
    match reason {
        ReputationReason::Correctness => "correct reads below nine tenths",
        ReputationReason::Availability => "answers on time below one half",
        ReputationReason::Request => "it asked",
        ReputationReason::Equivocation => "it has a seat and signed two proposals of one view",
    }
}

/// Zero-padded or bounded bytes as text, without the padding.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The address that clients try first; empty if there is none.
pub(crate) fn address(addresses: &[Address]) -> String {
    addresses.first().map(|address| text(address)).unwrap_or_default()
}

/// A file in the gateway's catalogue. A name that is not UTF-8 is shown with replacement characters.
pub(crate) fn file(file: &File) -> Value {
    json!({ "name": String::from_utf8_lossy(&file.name), "bytes": file.bytes, "blake3": hex::encode(file.blake3),
        "segments": file.segments, "shards_durable": file.shards_durable, "shards": file.shards })
}
