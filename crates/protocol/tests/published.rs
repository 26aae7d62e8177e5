//! Checks the mechanism against worked examples that others published, and against the project's
//! own reference.
//!
//! The files are in `tests/vectors`. A copy in `../shared` beside the repository takes precedence.
//! Each file names its source, commit and licence; only numbers were copied.

use posync_protocol::{
    Account, Amount, Class, Record,
    amount::ONE,
    economics::{
        fair, pool, price, score,
        seats::{Ballots, Refused},
        slash, split,
    },
    fees::split_fee,
    record::{Agreement, DataSet, Ending, Provider, Usage, VERSION, Version},
    settlement,
};
use serde_json::Value;
use std::{fs, path::Path};

fn load(name: &str) -> Value {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shared = own.join("../../../shared");
    let places = [
        shared.join("vectors").join(name),
        shared.join("reference").join(name),
        own.join("tests/vectors").join(name),
    ];
    let text =
        places.iter().find_map(|path| fs::read_to_string(path).ok()).expect("a copy is in the repository");
    serde_json::from_str(&text).expect("the vectors are JSON")
}

fn int(value: &Value) -> u128 {
    match value {
        Value::String(text) => text.parse().expect("a decimal"),
        number => number.as_u64().expect("a whole number").into(),
    }
}

fn small(value: &Value) -> u64 {
    int(value).try_into().expect("64 bits")
}

fn ints(value: &Value) -> Vec<u128> {
    rows(value).iter().map(int).collect()
}

fn smalls(value: &Value) -> Vec<u64> {
    rows(value).iter().map(small).collect()
}

fn rows(value: &Value) -> &[Value] {
    let rows = value.as_array().expect("a list");
    assert!(!rows.is_empty(), "an empty table proves nothing");
    rows
}

#[test]
fn fake_exponential_of_eip_4844() {
    for row in rows(&load("fake_exponential.json")["fake_exponential"]) {
        let row = ints(row);
        assert_eq!(price::fake_exponential(row[0], row[1], row[2]), row[3], "{row:?}");
    }
}

#[test]
fn fake_exponential_at_its_ends() {
    assert_eq!(price::fake_exponential(u128::MAX, u128::MAX, 1), u128::MAX);
    assert_eq!(price::fake_exponential(0, u128::MAX, 0), 0);
    assert_eq!(price::fake_exponential(u128::MAX, 0, u128::MAX), u128::MAX);
    let top = price::posted(1 << 35, 64 * price::FRACTION_FLOW, price::FRACTION_FLOW);
    assert!(top > 1 << 126, "2^35 * e^64 is about 2^127.3, was {top}");
}

#[test]
fn largest_remainder_rows_and_the_alabama_paradox() {
    let table = load("largest_remainder.json");
    for row in rows(&table["rows"]) {
        assert_eq!(split::largest_remainder(int(&row[1]), &ints(&row[0])), ints(&row[2]), "{row}");
    }
    // More seats, yet the last party loses one: the reason for which the books do not use this split.
    let weights = [1500, 1500, 900, 500, 500, 200];
    let (before, after) = (split::largest_remainder(25, &weights), split::largest_remainder(26, &weights));
    assert!(before.iter().zip(&after).any(|(before, after)| after < before));
    let (before, after) = (split::floor_carry(25, &weights).0, split::floor_carry(26, &weights).0);
    assert!(before.iter().zip(&after).all(|(before, after)| after >= before));
}

#[test]
fn proportional_floor_rows() {
    for row in rows(&load("proportional_floor.json")["proportional_floor"]) {
        let expected = (ints(&row[2]), int(&row[3]));
        assert_eq!(split::floor_carry(int(&row[0]), &ints(&row[1])), expected, "{row}");
    }
}

#[test]
fn dominant_resource_paper_and_mesos() {
    let drf = load("drf.json");
    let paper = &drf["paper"];
    let demands = [smalls(&paper["demands"]["A"]), smalls(&paper["demands"]["B"])];
    let granted = fair::dominant_resource(&smalls(&paper["total"]), &demands, &[1, 1]);
    assert_eq!(granted, [small(&paper["drf_tasks"]["A"]), small(&paper["drf_tasks"]["B"])]);
    for table in ["mesos_sorter_steps", "mesos_weighted_steps"] {
        for step in rows(&drf[table]) {
            let names: Vec<&String> = step["alloc"].as_object().expect("an object").keys().collect();
            let held: Vec<Vec<u64>> = names.iter().map(|name| smalls(&step["alloc"][*name])).collect();
            let weights: Vec<u64> = names.iter().map(|name| step["w"].get(*name).map_or(1, small)).collect();
            let order = fair::order(&smalls(&step["total"]), &held, &weights);
            let order: Vec<&str> = order.iter().map(|user| names[*user].as_str()).collect();
            let expected: Vec<&str> =
                rows(&step["order"]).iter().map(|name| name.as_str().expect("a name")).collect();
            assert_eq!(order, expected, "{step}");
        }
    }
}

#[test]
fn dominant_resource_order_of_hadoop() {
    for row in rows(&load("hadoop_drf.json")["rows"]) {
        let (total, held, weights) = (smalls(&row[1]), [smalls(&row[2]), smalls(&row[3])], smalls(&row[4]));
        assert_eq!(fair::order(&total, &held, &weights), [0, 1], "{row}");
        let (held, weights) = ([smalls(&row[3]), smalls(&row[2])], [weights[1], weights[0]]);
        assert_eq!(fair::order(&total, &held, &weights), [1, 0], "{row}, not by index");
    }
}

#[test]
fn correlated_slash_rows() {
    for row in rows(&load("correlated_slash.json")["unresponsive_n50"]) {
        assert_eq!(slash::unresponsive(50, small(&row[0])), small(&row[1]));
    }
}

/// Converts a decimal with at most nine digits after the point to parts per billion.
fn parts(value: &Value) -> u64 {
    let text = value.as_str().expect("a decimal");
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |digits: &str| digits.parse::<u64>().expect("digits");
    digits(whole) * ONE + digits(&format!("{part:0<9}"))
}

/// The rows of a median at a majority of 0.51 agree with the lower median at one half. The
/// exception is the first row: no reports have no median.
#[test]
fn weighted_medians_of_subtensor() {
    let table = rows(&load("weighted_median.json")["weighted_median"]["rows"]).to_vec();
    assert_eq!((score::lower_weighted_median(&[]), table[0][0].as_array().map(Vec::len)), (None, Some(0)));
    for row in &table[1..] {
        let pairs: Vec<(u64, u128)> = rows(&row[1])
            .iter()
            .zip(rows(&row[0]))
            .map(|(score, stake)| (parts(score), parts(stake).into()))
            .collect();
        assert_eq!(score::lower_weighted_median(&pairs), Some(parts(&row[2])), "{row}");
    }
}

/// A fixed pool paid 21,000 for 145 of fees. Here the same fees, settled with oneself, cost 24.65.
#[test]
fn wash_trading_of_hip_10_loses() {
    let table = load("hip10_wash_trading.json");
    let (spent, reward) = (int(&table["fees_spent"]), int(&table["reward"]));
    assert!(reward > 144 * spent, "the published profit");
    let fee = Amount::new(spent * u128::from(ONE)).expect("below all money");
    let split = split_fee(fee, fee, ONE / 5, ONE / 20).expect("within bounds");
    let (_, subsidy) = pool::usage_pool(u128::MAX, 4096, ONE / 2, ONE / 5 * 2, ONE / 5, fee.grains());
    assert_eq!(subsidy, 11_600_000_000, "kappa beta 145");
    assert_eq!(fee.grains() - split.pay.grains() - subsidy, 24_650_000_000);
}

/// All 23 rows of EIP-225's table. Two of them reject a block because its signer signed another one
/// lately (`errRecentlySigned`). The engine rules who signs a block and how often, and a ballot has
/// no block, so these two say nothing about votes and do not apply. In the row of a signer without
/// a seat, its vote is refused. A block without a vote does not affect a ballot.
#[test]
fn clique_ballots_of_eip_225() {
    let account = |name: &Value| Account([name.as_str().expect("a name").as_bytes()[0]; 32]);
    let (mut seen, mut of_the_engine) = (0, 0);
    for table in ["clique_eip225.json", "clique_eip225_rest.json"] {
        for row in rows(&load(table)["cases"]) {
            seen += 1;
            let seats: Vec<Account> = rows(&row["signers"]).iter().map(account).collect();
            let mut ballots = Ballots::new(seats);
            match row["failure"].as_str() {
                Some("errRecentlySigned") => of_the_engine += 1,
                Some("errUnauthorizedSigner") => {
                    let stranger = account(&row["votes"][0]["signer"]);
                    assert_eq!(ballots.vote(&stranger, &stranger, true), Err(Refused::Stranger), "{row}");
                }
                Some(failure) => panic!("no row is known to fail with {failure}"),
                None => {
                    let epoch = row["epoch"].as_u64().unwrap_or(u64::MAX);
                    for (number, block) in (1..).zip(rows(&row["votes"])) {
                        if number % epoch == 0 {
                            ballots.end_epoch();
                        }
                        if let Some(admit) = block["auth"].as_bool() {
                            let vote =
                                ballots.vote(&account(&block["signer"]), &account(&block["voted"]), admit);
                            vote.unwrap_or_else(|refused| panic!("{row}: {refused:?}"));
                        }
                    }
                    let results = row["results"].as_array().expect("a list").iter().map(account).collect();
                    assert_eq!(ballots.seats(), &results, "{row}");
                }
            }
        }
    }
    assert_eq!((seen, of_the_engine), (23, 2), "the whole table");
}

#[test]
fn reference_splits() {
    for row in rows(&load("cases.json")["split"]) {
        let (pool, weights) = (int(&row["pool"]), ints(&row["weights"]));
        assert_eq!(split::largest_remainder(pool, &weights), ints(&row["largest_remainder"]), "{row}");
        assert_eq!(split::floor_carry(pool, &weights), (ints(&row["floor"]), int(&row["carry"])), "{row}");
    }
}

#[test]
fn reference_scores() {
    let cases = load("cases.json");
    for row in rows(&cases["lower_weighted_median"]) {
        let pairs: Vec<(u64, u128)> =
            rows(&row["pairs"]).iter().map(|pair| (small(&pair[0]), int(&pair[1]))).collect();
        let expected = row["median"].as_u64();
        assert_eq!(score::lower_weighted_median(&pairs), expected, "{row}");
    }
    for row in rows(&cases["quality"]) {
        let q = score::quality(small(&row["C"]), small(&row["A"]), small(&row["L"]));
        assert_eq!(q, small(&row["q"]), "{row}");
    }
    let mut state = ONE / 4;
    for row in rows(&cases["score_trace_from_quarter"]) {
        let failed = row["gate_failed"].as_bool().expect("a flag");
        state = score::update(state, row["q"].as_u64(), failed);
        assert_eq!(state, small(&row["score"]), "{row}");
    }
    for row in rows(&cases["books"]) {
        let books = score::books(int(&row["signed"]), int(&row["disputed"]), int(&row["b0"]));
        assert_eq!(books, small(&row["B"]), "{row}");
    }
    for row in rows(&cases["slash"]) {
        let (n, k) = (small(&row["n"]), small(&row["k"]));
        assert_eq!(slash::unresponsive(n, k), small(&row["unresponsive"]), "{row}");
        assert_eq!(slash::equivocation(n, k), small(&row["equivocation"]), "{row}");
    }
}

#[test]
fn reference_prices() {
    let cases = load("cases.json");
    for name in ["price_trace_flow", "price_trace_stock"] {
        let trace = &cases[name];
        let (fraction, target) = (small(&trace["update_fraction"]), small(&trace["target"]));
        let least = int(&trace["p_min"]);
        let (mut excess, mut bucket, mut slow) = (0, 0, least);
        for row in rows(&trace["rows"]) {
            let row = ints(row);
            let mut used = row[0];
            if name == "price_trace_flow" {
                (used, bucket) = price::bucket_next(bucket, row[0]);
            }
            excess = price::excess_next(excess, used, row[2], target, fraction);
            let posted = price::posted(least, excess, fraction);
            slow = price::slow_next(slow, posted);
            assert_eq!([row[0], used, row[2], excess.into(), posted, slow], row[..], "{name}");
        }
    }
}

#[test]
fn reference_pools() {
    let mut reserve = 10_u128.pow(18);
    for row in rows(&load("cases.json")["usage_epochs"]) {
        let qualities: Vec<Vec<u64>> = rows(&row["last_q"]).iter().map(smalls).collect();
        let weights: Vec<u128> =
            ints(&row["base"]).iter().zip(&qualities).map(|(base, q)| pool::weight(*base, q)).collect();
        assert_eq!(weights, ints(&row["weights"]));
        let total = weights.iter().sum();
        let (emission, target) = pool::usage_pool(reserve, 4096, ONE / 2, ONE / 5 * 2, ONE / 5, total);
        assert_eq!((emission, target), (int(&row["emission"]), int(&row["pool"])));
        let paid = pool::pay_pool(target, int(&row["carry_in"]), &weights);
        assert_eq!(paid.shares, ints(&row["pay"]));
        assert_eq!((paid.drawn, paid.carry), (int(&row["drawn"]), int(&row["carry_out"])));
        let slices: Vec<u128> = weights.iter().map(|weight| pool::share(target, *weight, total)).collect();
        assert_eq!(slices, paid.shares, "slice by slice it is the same");
        reserve -= paid.drawn;
        assert_eq!(reserve, int(&row["reserve"]));
    }
}

#[test]
fn reference_fees() {
    let cases = load("cases.json");
    let amount = |value: &Value| Amount::new(int(value)).expect("below all money");
    for row in rows(&cases["settle"]) {
        let split =
            split_fee(amount(&row["F"]), amount(&row["P"]), ONE / 5, ONE / 20).expect("within bounds");
        let parts = [split.burn, split.committee, split.pay];
        assert_eq!(parts, [&row["burn"], &row["committee"], &row["provider"]].map(amount), "{row}");
    }
}

/// A record with all fields zero.
fn blank<R: Record>() -> R {
    let mut slot = [0; 256];
    (slot[0], slot[1]) = (R::KIND, VERSION);
    R::from_slot(&slot).expect("zeros are a value of every kind that is used here")
}

#[test]
fn reference_storage_charges() {
    for row in rows(&load("cases.json")["storage_settlement"]) {
        let provider = Provider { acc: int(&row["acc"]), ..blank() };
        let (rates, leaves) = (smalls(&row["rates"]), smalls(&row["leaves"]));
        for ((rate, leaves), charged) in rates.iter().zip(&leaves).zip(rows(&row["charged"])) {
            let mut agreement: Agreement = blank();
            agreement.prices[Class::Storage].price = *rate;
            let usage = Usage { storage_reserve: Amount::MAX, ..Usage::default() };
            let current = Version { leaves: *leaves, ..Version::default() };
            let data_set = DataSet { current, next: None };
            let owed = settlement::owed(&agreement, &usage, &data_set, &Ending::default(), &provider);
            assert_eq!(owed.grains(), int(charged), "{row}");
        }
    }
}
