//! Checks that the code has each function that `docs/protocol.md` names and cites each rule of the ledger.
//!
//! The other direction, that each cited number is a rule, is a check of `cargo xtask tidy`.

use std::{collections::BTreeSet, fs, path::Path};

const PREFIXES: [&str; 20] = [
    "LE", "AU", "SE", "AC", "PV", "CP", "AG", "VO", "DS", "DR", "RD", "NF", "ST", "BK", "SQ", "SC", "MK",
    "JL", "BL", "PF",
];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn sources(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).expect("a source directory") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("UTF-8");
            found.push((path.display().to_string(), text));
        }
    }
}

fn code() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for crate_ in fs::read_dir(root().join("crates")).expect("the crates") {
        sources(&crate_.expect("a readable entry").path().join("src"), &mut found);
    }
    found
}

/// The rule numbers in a text: a prefix, a dash, digits.
fn numbers(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let is_number = |word: &&str| {
        word.split_once('-').is_some_and(|(prefix, digits)| {
            PREFIXES.contains(&prefix) && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
        })
    };
    words.filter(is_number).map(str::to_string).collect()
}

fn rules() -> String {
    fs::read_to_string(root().join("docs/protocol.md")).expect("docs/protocol.md")
}

#[test]
fn every_function_in_the_rules_exists() {
    let sources = code();
    let text = rules();
    let named: Vec<(&str, &str)> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|quoted| quoted.split_once("::"))
        .filter(|(module, _)| module.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        .collect();
    assert!(named.len() > 10, "the functions were found");
    for (module, item) in named {
        let exists = sources.iter().any(|(path, source)| {
            let in_module = path.ends_with(&format!("/{module}.rs")) || path.contains(&format!("/{module}/"));
            let keywords = ["fn", "struct", "enum"];
            in_module
                && (keywords.iter().any(|keyword| source.contains(&format!("{keyword} {item}")))
                    || source.contains(&format!("pub use draw::{item}")))
        });
        assert!(exists, "docs/protocol.md names {module}::{item}");
    }
}

/// Rules that a provider keeps, and a figure that a test checks.
const NOT_OF_THE_LEDGER: [&str; 3] = ["VO-5", "VO-6", "RD-10"];

/// The code must cite each rule of the ledger where it implements it.
#[test]
fn every_rule_of_the_ledger_is_cited() {
    let cited: BTreeSet<String> = code().iter().flat_map(|(_, source)| numbers(source)).collect();
    let expected = numbers(&rules()).into_iter().filter(|number| {
        ["LE", "AU", "SE", "AC", "PV", "AG", "VO", "DS", "DR", "RD", "NF", "ST", "SQ"]
            .iter()
            .any(|prefix| number.starts_with(prefix))
    });
    let missing: Vec<String> = expected
        .filter(|number| !cited.contains(number) && !NOT_OF_THE_LEDGER.contains(&number.as_str()))
        .collect();
    assert!(missing.is_empty(), "no code cites {missing:?}");
}

/// Each test that `docs/invariants.md` names exists, and every invariant has a test.
#[test]
fn every_test_that_holds_an_invariant_exists() {
    let text = fs::read_to_string(root().join("docs/invariants.md")).expect("docs/invariants.md");
    let named: Vec<(&str, &str)> =
        text.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.split_once(".rs::")).collect();
    assert!(named.len() > 80, "the tests were found");
    for (path, test) in named {
        let source = fs::read_to_string(root().join(format!("crates/{path}.rs")));
        let exists = source.is_ok_and(|source| source.contains(&format!("fn {test}(")));
        assert!(exists, "docs/invariants.md names {path}.rs::{test}");
    }
    let rows: Vec<&str> = text.lines().filter(|line| line.contains('`')).collect();
    for number in (1..=38).map(|number| number.to_string()).chain((1..=30).map(|number| format!("A{number}")))
    {
        let start = format!("| {number} |");
        assert_eq!(rows.iter().filter(|row| row.starts_with(&start)).count(), 1, "one row of {number}");
    }
}

/// The part of a source above its tests.
fn without_tests(source: &str) -> &str {
    source.split("#[cfg(test)]").next().unwrap_or_default()
}

/// `Balance` asks a user to fund an account, so only the debit of an account may say it: a sum that cannot
/// be is a `Broken`.
#[test]
fn only_a_debit_lacks_balance() {
    let mut places = Vec::new();
    for (path, source) in code().iter().filter(|(path, _)| path.contains("/protocol/src/")) {
        let mut function = "";
        for line in without_tests(source).lines() {
            if let Some((_, rest)) = line.split_once("fn ") {
                function = rest.split(['(', '<']).next().unwrap_or_default();
            }
            if line.contains("Code::Balance") {
                places.push(format!("{}: {function}", path.rsplit("/src/").next().unwrap_or_default()));
            }
        }
    }
    assert_eq!(places, ["account.rs: debit", "account.rs: debit"]);
}

/// A fault of the state must end the block: no rule may drop what stopped another one.
#[test]
fn no_rule_drops_what_stopped_another() {
    for (path, source) in code().iter().filter(|(path, _)| path.contains("/protocol/src/")) {
        let drops = ["let _ = ", ".is_err()", ".ok()", "map_err(|_|"];
        for line in without_tests(source).lines().filter(|line| line.contains("working")) {
            assert!(!drops.iter().any(|drop| line.contains(drop)), "{path}: {line}");
        }
    }
}
