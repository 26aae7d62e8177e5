//! `posync why`: why a provider gets shards or not, and its state on the ledger.
//!
//! The answer has two sources, kept apart: placement is the gateway's report, computed by the rule that
//! places; the rest is proven ledger state.

use super::watch::alerts;
use crate::{
    failure::{Exit, Failure, Outcome},
    gateway::Gateway,
    ledger::Ledger,
    net::{Access, Net},
    output::Output,
    provider::Shown,
    session,
};
use posync_alert::Alert;
use posync_protocol::{
    Class,
    limits::{HISTORY, LEAF_BYTES, Parameters},
    provider::{bond_needed, sellable},
    record::Reputation,
    wire::gateway::{Placement, Seen, Why as Placements},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Command-line arguments of `posync why`.
#[derive(Debug, clap::Args)]
pub(crate) struct Why {
    /// The provider: sync1..., a member's name as `posync status` lists it, or its operator
    provider: String,
}

impl Why {
    /// Prints the gateway's placement decision and the ledger's proven state.
    pub(crate) fn run(self, access: &Access, output: Output) -> Outcome {
        let net = Net::open(access)?;
        let account = net.resolve(&self.provider)?;
        session::run(async |context| {
            let ledger = Ledger::open(&context, &net).await?;
            let shown = Shown::read(&ledger, &account).await?.ok_or_else(|| unknown(&self.provider))?;
            let reputation: Option<Reputation> = ledger.read(Reputation::key(&account)).await?;
            let placements = Gateway::connect(&context, &net).await?.why(account).await?;
            let (height, parameters) = (ledger.height().await?, *ledger.parameters());
            let Shown { provider, offer, audit, .. } = &shown;
            let alerts = alerts(&parameters, height, (provider, offer), audit, reputation.as_ref());
            let epoch = parameters.epoch(height);
            let facts = Facts { shown, alerts, epoch, parameters };
            let value = json!({ "account": account, "ledger": facts.to_json(),
                "placement": placement_json(&placements) });
            output.answer(&value, || format!("{}\n\n{}", placement_text(&placements), facts.to_text()))
        })
    }
}

fn unknown(provider: &str) -> Failure {
    Failure::new(
        Exit::NotFound,
        format!("'{provider}' is no provider"),
        "the ledger has no such registration; it never registered, or it left",
        "choose one that `posync providers` lists",
    )
}

/// A placement's reason as a word for scripts and as a sentence for people.
const fn reason(code: u8) -> (&'static str, &'static str) {
    match code {
        0 => ("chosen", "it would get a shard"),
        1 => ("newcomer", "it would get a shard as a newcomer: one in twenty goes to one first"),
        2 => (
            "gave_way",
            "it would get a shard although its region or network is taken: there are too few others",
        ),
        3 => ("not_eligible", "it is late, failed a read, or keeps others waiting"),
        4 => ("no_room", "the shard does not fit what the agreement with it has left"),
        5 => ("operator_taken", "its operator holds another shard of the segment"),
        6 => ("network_taken", "its /24 (or /48) holds another shard of the segment"),
        7 => ("region_full", "its region holds two other shards of the segment"),
        8 => (
            "farther",
            "others stood before it: nearer to the segment, or with less load / (capacity x score)",
        ),
        9 => ("no_agreement", "the gateway has no open agreement with it"),
        10 if !cfg!(planted = "no-words") => {
            ("silent", "it left offers unanswered, and is left out for a while")
        }
        _ => ("unknown", "this version does not know the reason; use the same version for both"),
    }
}

fn placement_json(why: &Placements) -> Value {
    let segment = |placement: &Placement| {
        json!({ "segment": hex::encode(&placement.segment[..]), "shard_bytes": placement.leaves * LEAF_BYTES,
            "reason": reason(placement.reason).0, "why": reason(placement.reason).1,
            "candidates": placement.candidates, "chosen": placement.chosen })
    };
    let seen = why.seen.map(|seen| {
        json!({ "trusted": seen.trusted, "vetted": seen.vetted, "score": seen.score,
            "held_bytes": seen.room.map(|(load, _)| load * LEAF_BYTES),
            "agreed_bytes": seen.room.map(|(_, capacity)| capacity * LEAF_BYTES),
            "unanswered_offers": seen.unanswered, "left_out_blocks": seen.left_out })
    });
    json!({ "seen": seen, "recent": why.recent,
        "segments": why.placements.iter().map(segment).collect::<Vec<_>>() })
}

fn seen_text(seen: Option<Seen>) -> String {
    let Some(seen) = seen else { return "the gateway has not seen it on the ledger yet".into() };
    let room = seen.room.map_or("no open agreement".into(), |(load, capacity)| {
        format!("{} of {} agreed bytes held", load * LEAF_BYTES, capacity * LEAF_BYTES)
    });
    let trust = if seen.trusted { "trusted" } else { "not trusted with new shards" };
    let kind = if seen.vetted { "vetted" } else { "a newcomer" };
    let silence = match (seen.unanswered, seen.left_out) {
        (0, _) => String::new(),
        (offers, 0) => format!(", {offers} offers in a row unanswered"),
        (offers, blocks) => format!(", {offers} offers in a row unanswered: left out for {blocks} blocks"),
    };
    format!("{trust}, {kind}, score {} of 1000000000, {room}{silence}", seen.score)
}

fn placement_text(why: &Placements) -> String {
    let mut counts: BTreeMap<u8, usize> = BTreeMap::new();
    for placement in why.placements.iter() {
        *counts.entry(placement.reason).or_default() += 1;
    }
    let what = if why.recent {
        "recent segments, if placed now"
    } else {
        "sample segments (none was placed since the gateway started)"
    };
    let mut lines = vec![
        format!("gateway   {}", seen_text(why.seen)),
        format!("placement {} {what}:", why.placements.len()),
    ];
    lines.extend(counts.iter().map(|(code, count)| format!("  {count:>3} x  {}", reason(*code).1)));
    lines.join("\n")
}

/// The proven ledger state of a provider.
struct Facts {
    shown: Shown,
    /// The alerts that follow from these records.
    alerts: Vec<Alert>,
    epoch: u64,
    parameters: Parameters,
}

impl Facts {
    /// Reads in the history, how many of them passed, its challenges, and how many were answered on time.
    fn reads(&self) -> (u64, u32, u64, u32) {
        let (passed, drawn) = self.shown.reads();
        let challenges = u64::from(self.shown.audit.settlements.min(HISTORY));
        (drawn, passed, challenges, self.shown.audit.on_time.count_ones())
    }

    fn is_covered(&self) -> bool {
        let offer = &self.shown.offer;
        sellable(offer, &self.shown.provider, &self.parameters) == offer.capacity[Class::Storage]
    }

    fn to_json(&self) -> Value {
        let Shown { provider, offer, audit, .. } = &self.shown;
        let (_, _, challenges, on_time) = self.reads();
        self.shown.to_json(json!({ "epoch": self.epoch, "reads_drawn": audit.drawn,
            "recent_challenges": challenges, "recent_challenges_on_time": on_time,
            "missing_reads": audit.missing.len(),
            "sellable_bytes": sellable(offer, provider, &self.parameters) * LEAF_BYTES,
            "bond_needed": bond_needed(offer.capacity[Class::Storage], &self.parameters),
            "bond_covers_capacity": self.is_covered(),
            "leaves_at_epoch": (provider.leaves_at != 0).then_some(provider.leaves_at),
            "alerts": self.alerts.iter().map(alert_json).collect::<Vec<_>>() }))
    }

    fn to_text(&self) -> String {
        let (drawn, passed, challenges, on_time) = self.reads();
        let open = self.shown.audit.challenge.map_or("none open".into(), |open| {
            format!("one open since height {}; nothing is paid until it is answered", open.height)
        });
        let needed = bond_needed(self.shown.offer.capacity[Class::Storage], &self.parameters);
        let bond = if self.is_covered() {
            "covers"
        } else {
            "does not cover; nothing more is sold until it is added to,"
        };
        let leaving = match self.shown.provider.leaves_at {
            0 => "no".into(),
            epoch if epoch <= self.epoch => format!("yes, free to go since epoch {epoch}; no new agreements"),
            epoch => format!("yes, from epoch {epoch} on (now {}); no new agreements", self.epoch),
        };
        let [capacity, sold] = [self.shown.capacity_bytes(), self.shown.sold_bytes()];
        format!(
            "ledger    {} ({})\nreads     {passed} of the last {drawn} passed, {} drawn in all, {} missing and asked again\n\
             challenge {on_time} of the last {challenges} on time, {open}\nsold      {sold} of {capacity} bytes\n\
             egress    {}\nbond      {} SYNC, {bond} the capacity (needs {needed})\nleaving   {leaving}\nalerts    {}",
            self.shown.operator(),
            self.shown.account,
            self.shown.audit.drawn,
            self.shown.audit.missing.len(),
            self.shown.egress.to_text(),
            self.shown.provider.bond,
            alerts_text(&self.alerts),
        )
    }
}

fn alert_json(alert: &Alert) -> Value {
    let Alert { kind, what, next, due } = alert;
    json!({ "alert": kind, "what": what, "next": next, "due": due })
}

fn alerts_text(alerts: &[Alert]) -> String {
    if alerts.is_empty() {
        return "none".into();
    }
    let lines = alerts.iter().map(|alert| format!("{}; {}", alert.what, alert.next));
    lines.collect::<Vec<_>>().join("\n          ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use posync_protocol::Bounded;

    #[test]
    fn every_reason_has_words_of_its_own() {
        let all: std::collections::BTreeSet<_> = (0..=11).map(reason).collect();
        assert_eq!(all.len(), 12);
    }

    #[test]
    fn alerts_have_a_line_each() {
        assert_eq!(alerts_text(&[]), "none");
        let alert = |kind, what: &str| Alert { kind, what: what.into(), next: "act".into(), due: Some(3) };
        let two = [alert(posync_alert::Kind::JailNext, "a"), alert(posync_alert::Kind::LowSpace, "b")];
        assert_eq!(alerts_text(&two).lines().map(str::trim).collect::<Vec<_>>(), ["a; act", "b; act"]);
        assert_eq!(alert_json(&two[0])["alert"], "jail_next");
    }

    #[test]
    fn reasons_are_counted() {
        let of =
            |reason| Placement { segment: Bounded::default(), leaves: 1, reason, candidates: 9, chosen: 8 };
        let placements = Bounded::new(vec![of(0), of(8), of(0)]).expect("few");
        let room = Some((1, 2));
        let seen = Seen { trusted: true, vetted: false, score: 1, room, unanswered: 3, left_out: 40 };
        let text = placement_text(&Placements { seen: Some(seen), recent: true, placements });
        assert!(text.contains("2 x  it would get a shard") && text.contains("1 x  others"), "{text}");
        assert!(text.contains("a newcomer") && text.contains("1024 of 2048"), "{text}");
        assert!(text.contains("3 offers in a row unanswered: left out for 40 blocks"), "{text}");
    }
}
