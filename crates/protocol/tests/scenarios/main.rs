//! The rules as tables: every operation, accepted and refused, in memory, `check_all` after every
//! block, and every block run twice (as its proposer and as a verifier) with equal outcomes.

mod account;
mod agreement;
mod audits;
mod canary;
mod keeper;
mod properties;
mod provider;
mod records;
mod samples;
mod scale;
mod script;
mod signatures;
mod storage;
mod voucher;
mod world;

use posync_protocol::Code;

/// Every table and every test file: a code that none of them names is not tested.
const TESTS: &[&str] = &[
    include_str!("account.rs"),
    include_str!("agreement.rs"),
    include_str!("audits.rs"),
    include_str!("provider.rs"),
    include_str!("storage.rs"),
    include_str!("voucher.rs"),
];

/// Codes that a node gives before the rules run.
const OF_NODES: &[Code] = &[Code::Malformed, Code::TooLarge, Code::WrongChain, Code::TooManyKeys];

#[test]
fn every_code_is_tested() {
    let in_table = |code: &Code| {
        let rows = TESTS.iter().flat_map(|test| test.lines()).filter_map(|line| line.split_once("=>"));
        rows.into_iter().any(|(_, word)| word.trim().trim_start_matches('!') == format!("{code:?}"))
    };
    let in_test = |code: &Code| TESTS.iter().any(|test| test.contains(&format!("Code::{code:?}")));
    let missing: Vec<&Code> =
        Code::ALL.iter().filter(|c| !OF_NODES.contains(c) && !in_table(c) && !in_test(c)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
