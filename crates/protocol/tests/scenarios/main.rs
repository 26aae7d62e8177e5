//! The rules as tables: every operation, accepted and refused, in memory. `check_all` runs after
//! every block, and every block runs twice (as its proposer and as a verifier) with equal outcomes.

mod account;
mod agreement;
mod any_number;
mod anything;
mod audit_second;
mod audit_third;
mod audits;
mod authority;
mod books;
mod broken;
mod canary;
mod capacity;
mod crowd;
mod detection;
mod draws;
mod events;
mod exits;
mod faults;
mod fees;
mod history;
mod honest;
mod json;
mod messages;
mod model_provider;
mod nodes;
mod numbers;
mod populated;
mod properties;
mod provider;
mod punished;
mod quiet;
mod records;
mod reserving;
mod samples;
mod scale;
mod script;
mod service;
mod sets;
mod signatures;
mod sleep;
mod storage;
mod targets;
mod topup;
mod voucher;
mod world;

use posync_protocol::Code;

/// Every table. A code without a row in one of them is not tested.
const TABLES: &[&str] = &[
    account::ACCEPTED,
    account::REFUSED,
    agreement::ACCEPTED,
    agreement::REFUSED,
    authority::ACCEPTED,
    authority::REFUSED,
    books::ACCEPTED,
    books::REFUSED,
    books::JAILED,
    books::SUSPENDED,
    nodes::ACCEPTED,
    nodes::REFUSED,
    provider::ACCEPTED,
    provider::REFUSED,
    voucher::ACCEPTED,
    voucher::REFUSED,
];

/// Codes that no script can reach: a node returns them before the rules run, or other tests cover them.
const ELSEWHERE: &[Code] =
    &[Code::Done, Code::Malformed, Code::TooLarge, Code::WrongChain, Code::ProviderFull, Code::TooManyKeys];

#[test]
fn every_code_of_the_ledger_has_a_row() {
    let named: Vec<&str> = TABLES
        .iter()
        .flat_map(|table| table.lines())
        .filter_map(|line| line.split_once("=>"))
        .map(|(_, code)| code.trim().trim_start_matches('!'))
        .collect();
    let storage_proofs = audits::WRONG_STORAGE_PROOFS.iter().map(|(_, _, code)| *code);
    let data_sets = audits::WRONG_DATA_SETS.iter().map(|(_, _, code)| *code);
    let also = [audits::ALSO, capacity::ALSO, faults::ALSO, service::ALSO, storage::ALSO, ELSEWHERE].concat();
    let asserted: Vec<Code> = storage_proofs.chain(data_sets).chain(also).collect();
    let missing: Vec<&Code> = Code::ALL
        .iter()
        .filter(|code| !asserted.contains(code) && !named.contains(&format!("{code:?}").as_str()))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
