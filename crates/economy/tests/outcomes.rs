//! Checks every outcome that the command asserts, by topic.

use posync_economy::{
    Plan, attacks, honest, plots, price_rows,
    row::{Row, Runs, Topic},
    seats,
};
use std::{sync::OnceLock, thread};

const SEED: u64 = 1;

/// The attacks under the default seed, which run once for all tests.
fn attacked() -> &'static [Row] {
    static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
    ROWS.get_or_init(|| attacks::all(SEED))
}

fn all_hold(rows: &[Row]) {
    let failed: Vec<&Row> = rows.iter().filter(|row| !row.holds()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn honest_worlds_pay_what_was_verified() {
    let (rows, sizes) = honest::rows(Plan { year: true, ..Plan::default() });
    all_hold(&rows);
    assert_eq!(sizes.last().map(|size| size.nodes), Some(10_000));
}

#[test]
fn prices_settle_and_the_test_can_see_instability() {
    all_hold(&price_rows());
}

#[test]
fn noise_moves_no_seat() {
    all_hold(&seats::rows(SEED));
}

/// Attacks whose best plan was found on the ledger itself.
const ON_THE_LEDGER: [u64; 11] = [4, 6, 7, 14, 15, 21, 23, 25, 28, 29, 30];
/// Attacks on rules that do not exist yet.
const NOT_YET: [u64; 3] = [18, 26, 27];
/// Pairs of an attack and the rule that stops it: the same plans, with that rule removed, must pay.
const RULES: [(&str, &str); 17] = [
    ("A1 wash usage", "aggregate cap"),
    ("A3 dropped storage, silent", "answering optional"),
    ("A4 one disk, two names", "not encrypted one by one"),
    ("A6 lazy auditor", "use counts unpaid"),
    ("A7 price pump", "base at the posted price"),
    ("A7 price pump by reserving", "the price sees what is sold"),
    ("A14 slot inheritance", "reputation outlives the exit"),
    ("A15 self-slash", "a quarter of the bond to the reporter"),
    ("A21 data dilution", "paying oneself is free"),
    ("A21 data dilution, at other prices", "draw by bytes"),
    ("A23 late registration", "the seed is known a block early"),
    ("A24 window theft, beyond 1/17 of traffic", "window doubling"),
    ("A25 close or rotate before redemption", "no window to redeem"),
    ("A28 replay of old data sets", "signatures name no version"),
    ("A30 free option, paid as it is used", "a top-up at the opening's price"),
    ("A30 option, a top-up after the rise", "a top-up raises no price"),
    ("A29 holds beyond what is set aside", "a hold rounded up"),
];

fn named<'a>(rows: &'a [Row], name: &str) -> Vec<&'a Row> {
    let found: Vec<&Row> = rows.iter().filter(|row| row.name == name).collect();
    assert!(!found.is_empty(), "no row {name}");
    found
}

#[test]
fn attacks_lose_exceptions_and_mutants_win() {
    let rows = attacked();
    all_hold(rows);
    for (attack, rule) in RULES {
        let attacked = named(rows, attack);
        let without = named(rows, &format!("mutant: {rule}"));
        let best = attacked.iter().map(|row| row.figure).max();
        assert!(attacked.iter().all(|row| row.topic == Topic::Attack), "{attack}");
        assert!(without.iter().all(|row| Some(row.figure) > best), "{rule} is not what stops {attack}");
    }
}

#[test]
fn every_attack_says_what_it_runs() {
    let rows = attacked();
    let of = |number: u64| -> Vec<&Row> {
        let name = format!("A{number} ");
        let attack = |row: &&Row| row.name.starts_with(&name) && row.topic == Topic::Attack;
        rows.iter().filter(attack).collect()
    };
    for number in 1..=30 {
        let found = of(number);
        assert!(!found.is_empty(), "A{number} has a scenario");
        let on_the_ledger = found.iter().any(|row| row.runs == Runs::Ledger);
        assert_eq!(on_the_ledger, ON_THE_LEDGER.contains(&number), "A{number}");
        if NOT_YET.contains(&number) {
            let says = |row: &&Row| row.runs == Runs::Formula && row.region.contains("does not exist yet");
            assert!(found.iter().all(says), "A{number}");
        }
    }
}

#[test]
fn attacks_lose_under_other_seeds() {
    thread::scope(|scope| {
        for seed in 2..5 {
            scope.spawn(move || all_hold(&attacks::all(seed)));
        }
    });
}

/// The document shows every outcome with its region, its bound and the code that it runs.
#[test]
fn the_document_shows_every_outcome() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/simulation.md");
    let text = std::fs::read_to_string(path).expect("the document");
    let mut rows = price_rows();
    rows.extend(seats::rows(SEED));
    rows.extend_from_slice(attacked());
    let missing: Vec<String> = rows
        .iter()
        .filter(|row| {
            let start = format!("| {} | {} | ", row.name, row.region);
            let bound = posync_economy::row::bound_text(row.bound);
            let end = format!(" | {bound} | {} |", row.runs.text());
            !text.lines().any(|line| line.starts_with(&start) && line.ends_with(&end))
        })
        .map(|row| format!("| {} | {} | .. | {} |", row.name, row.region, row.runs.text()))
        .collect();
    assert!(missing.is_empty(), "docs/simulation.md lacks\n{}", missing.join("\n"));
}

#[test]
fn a_run_repeats_to_the_byte() {
    let plan = Plan { epochs: 20, nodes: 30, ..Plan::default() };
    let write = |directory: &std::path::Path| {
        let (mut rows, sizes) = honest::rows(plan);
        rows.extend(seats::rows(plan.seed));
        let names = plots::write(directory, &rows, &sizes).expect("a writable directory");
        names.iter().map(|name| std::fs::read(directory.join(name)).expect("written")).collect::<Vec<_>>()
    };
    let (first, second) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (first, second) = (write(first.path()), write(second.path()));
    assert!(first == second && first.iter().all(|file| !file.is_empty()));
}
