//! Every outcome that the command asserts, by topic.

use posync_economy::{Plan, attacks, honest, plots, price_rows, row::Row, seats};

const SEED: u64 = 1;

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

#[test]
fn attacks_lose_exceptions_and_mutants_win() {
    let rows = attacks::all(SEED);
    all_hold(&rows);
    for number in 1..=28 {
        let name = format!("A{number} ");
        assert!(rows.iter().any(|row| row.name.starts_with(&name)), "{name}has a scenario");
    }
    for mutant in ["aggregate cap", "answering optional", "draw by bytes", "window doubling"] {
        assert!(rows.iter().any(|row| row.name == format!("mutant: {mutant}")), "{mutant}");
    }
}

#[test]
fn attacks_lose_under_other_seeds() {
    for seed in 2..5 {
        all_hold(&attacks::all(seed));
    }
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
