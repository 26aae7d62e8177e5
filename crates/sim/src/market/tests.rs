//! Earnings of providers by behaviour, over thousands of blocks of the ledger alone. The whole
//! state is checked after every block.

use super::{CONSUMER, Manner, Market, Terms};
use commonware_codec::EncodeSize as _;
use posync_protocol::{
    Account, AgreementId, Amount, Body, Bounded, Code, Units,
    ledger::Event,
    limits::{Parameters, REDEEM_VOUCHERS_MAX},
    operation::{Redeem, Redemption, Settle, Voucher},
};

mod liars;

const LOCAL: Parameters = Parameters::LOCAL;

/// Rounds within which `docs/protocol.md` promises that a dropped tenth fails a read.
const DETECTION_ROUNDS: u64 = 64;

#[test]
fn truthful_providers_pass_every_read_and_are_paid_to_the_end() {
    let terms = [Terms { end_epoch: 20, ..Terms::new(Manner::Truthful) }; 8];
    let mut market = Market::new(1, LOCAL, &terms);
    market.reach(18 * LOCAL.epoch_blocks()).expect("the rules hold");
    let audits = market.events.iter().filter_map(|(_, event)| match event {
        // A provider that was drawn before its data set was in force had nothing to prove.
        Event::Audited { passed, reads: reads @ 1.., on_time, .. } => Some((*passed, *reads, *on_time)),
        _ => None,
    });
    let audits: Vec<_> = audits.collect();
    assert!(audits.len() > 200, "{} challenges in 18 epochs", audits.len());
    assert!(audits.iter().all(|audit| *audit == (4, 4, true)));
    for member in 0..8 {
        assert!(market.pay(member) > Amount::ZERO);
    }
}

/// Earnings of a provider that lost `lost` of its 40 shards, among seven truthful others.
fn earned(seed: u64, manner: Manner, lost: usize) -> Amount {
    let mut terms = [Terms::new(Manner::Truthful); 8];
    terms[0].manner = manner;
    let mut market = Market::new(seed, LOCAL, &terms);
    market.members[0].lose(lost, seed);
    market.reach(20 * LOCAL.epoch_blocks()).expect("the rules hold");
    market.pay(0)
}

#[test]
fn answering_only_when_lucky_earns_less_than_always_whatever_is_missing() {
    for lost in [2, 4, 10, 20, 30] {
        for seed in 0..3 {
            let always = earned(seed, Manner::Truthful, lost);
            let lucky = earned(seed, Manner::OnlyWhenLucky, lost);
            assert!(lucky < always, "{lost} of 40 lost, seed {seed}: {lucky} when lucky, {always} always");
        }
    }
    assert_eq!(earned(1, Manner::Truthful, 0), earned(1, Manner::OnlyWhenLucky, 0));
    assert_eq!(earned(1, Manner::Silent, 0), Amount::ZERO);
}

#[test]
fn a_dropped_tenth_is_failed_within_the_documented_rounds() {
    const SEEDS: u64 = 1_000;
    // Ten providers, eight of which hold shards.
    let mut terms = [Terms::new(Manner::Truthful); 10];
    terms[8..].fill(Terms { shards: 0, ..Terms::new(Manner::Truthful) });
    let mut market = Market::new(1, LOCAL, &terms);
    // Newcomers are drawn more often, so they age first.
    market.reach(30 * LOCAL.epoch_blocks()).expect("the rules hold");
    market.events.clear();
    let mut rounds: Vec<u64> = (0..SEEDS).map(|seed| rounds_to_failure(market.clone(), seed)).collect();
    rounds.sort_unstable();
    let late = rounds.iter().filter(|rounds| **rounds > DETECTION_ROUNDS).count();
    println!(
        "rounds to the first failed read: p50 {}, p99 {}, max {}",
        rounds[500], rounds[990], rounds[999]
    );
    assert!(late <= 1, "{late} of {SEEDS} seeds took more than {DETECTION_ROUNDS} rounds");
}

fn rounds_to_failure(mut market: Market, seed: u64) -> u64 {
    market.reseed(seed);
    market.ledger.check_every = 16;
    // Every seed starts at another place in the round and loses another tenth.
    let start = market.height + seed % LOCAL.round_blocks;
    market.reach(start).expect("the rules hold");
    market.members[0].lose(4, seed);
    loop {
        market.events.clear();
        market.block().expect("the rules hold");
        let failed = market.events.iter().any(|(_, event)| {
            matches!(event, Event::Audited { provider, passed, reads, .. }
                if *provider == market.members[0].account && passed < reads)
        });
        if failed {
            return LOCAL.round(market.height) - LOCAL.round(start);
        }
    }
}

/// Times of each answered challenge: (provider, height of the draw, height of the answer).
fn answers(market: &Market) -> Vec<(Account, u64, u64)> {
    let audited = market.events.iter().filter_map(|(at, event)| match event {
        Event::Audited { provider, height, on_time, .. } => {
            assert!(*on_time, "drawn at {height}, answered at {at}");
            Some((*provider, *height, *at))
        }
        _ => None,
    });
    audited.collect()
}

/// The flood fills every block until the base fee, which rises by an eighth each time, exceeds its
/// offer. It ends by itself, and meanwhile it keeps no answer out.
#[test]
fn a_flood_of_mempools_delays_no_answer_and_prices_itself_out() {
    /// Bytes of waiting operations that a node keeps.
    const MEMPOOL_BYTES: usize = 16 << 20;
    let mut quiet = Market::new(7, LOCAL, &[Terms::new(Manner::Truthful); 8]);
    let mut flooded = quiet.clone();
    let flood = flood();
    let mut waiting = 0;
    let mut reached = Vec::new();
    while flooded.height < 220 {
        while waiting + flood.encode_size() <= MEMPOOL_BYTES {
            flooded.submit(CONSUMER, flood.clone());
            waiting += flood.encode_size();
        }
        flooded.block().expect("the rules hold");
        quiet.block().expect("the rules hold");
        waiting = flooded.pending.iter().map(|operation| operation.body.encode_size()).sum();
        reached.push(flooded.receipts.len() > 10);
    }
    assert!(reached[..60].iter().all(|reached| *reached), "the flood fills blocks");
    assert!(!reached[120..].contains(&true), "nobody fills blocks for ever");
    assert_eq!(answers(&flooded), answers(&quiet));
    assert!(answers(&quiet).len() > 50);
}

/// The largest operation, naming two records for each voucher: redemptions of agreements that do not exist.
fn flood() -> Body {
    let redemption = |slot| {
        let agreement = AgreementId { provider: CONSUMER, slot, opened: 1 };
        let voucher = Voucher { agreement, units: Units::egress(1), signature: [0; 64] };
        Redemption { voucher, session_key: CONSUMER, claim: None }
    };
    let vouchers = (0..REDEEM_VOUCHERS_MAX as u32).map(redemption);
    Body::Redeem(Redeem { vouchers: Bounded::new(vouchers.collect()).expect("the most") })
}

#[test]
fn what_ends_is_charged_freed_and_leaves_no_money_behind() {
    let terms = Terms { end_epoch: 6, ..Terms::new(Manner::Truthful) };
    let mut market = Market::new(8, LOCAL, &[terms; 4]);
    // After the end, the grace epoch and the redemption window.
    market.reach(9 * LOCAL.epoch_blocks()).expect("the rules hold");
    for place in 0..4 {
        let member = market.members[place].clone();
        let slots = vec![(member.slot, CONSUMER, member.terms.end_epoch)];
        let body = Settle {
            provider: member.account,
            index: member.index,
            slots: Bounded::new(slots).expect("one"),
            endings: Bounded::default(),
        };
        let operation = market.free(market.members[0].account, Body::Settle(body));
        while market.verdict(&operation) != Code::Done {
            // While the provider is drawn, its answer comes first.
            market.block().expect("the rules hold");
            assert!(market.height < 12 * LOCAL.epoch_blocks(), "{:?}", market.verdict(&operation));
        }
        market.hand_in(operation);
        market.block().expect("the rules hold");
        assert_eq!((market.provider(place).pool, market.provider(place).slots), (Amount::ZERO, 0));
    }
    let system = market.ledger.system();
    let left = [system.voucher_reserves, system.storage_pools, system.deposits];
    assert_eq!((system.agreements, system.fee_weight, left), (0, 0, [Amount::ZERO; 3]));
    for member in 0..4 {
        assert!(market.pay(member) > Amount::ZERO);
    }
}
