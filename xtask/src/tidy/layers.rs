//! The direction of imports between the rules: dispatch on top, the rules of each noun below it, and at the bottom
//! what they all work on. A file never imports from a layer above its own.

use super::Source;

/// The directory of the rules.
const RULES: &str = "crates/protocol/src/";

/// Modules that run the others. Every other module of the rules stands below them.
const DISPATCH: &[&str] = &["block", "invariants", "ledger", "operation"];

/// Modules of one noun each: what its operations do to its records.
const NOUNS: &[&str] = &[
    "account",
    "agreement",
    "audit",
    "authority",
    "books",
    "capacity",
    "data_set",
    "faults",
    "fees",
    "node",
    "provider",
    "reputation",
    "service",
    "settlement",
    "storage_proof",
];

/// Modules that may import from all layers: what is built on the rules, and the crate itself.
const FREE: &[&str] = &["lib", "json", "wire"];

/// The modules that stand above `module`, each with the name of its layer.
fn above(module: &str) -> Vec<(&'static str, &'static str)> {
    let dispatch = DISPATCH.iter().map(|name| (*name, "dispatch"));
    if DISPATCH.contains(&module) || FREE.contains(&module) {
        Vec::new()
    } else if NOUNS.contains(&module) {
        dispatch.collect()
    } else {
        dispatch.chain(NOUNS.iter().map(|name| (*name, "a noun"))).collect()
    }
}

/// Imports from a layer above, in code without its comments and unit tests.
pub(super) fn check(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .filter_map(|source| Some((source, source.path.strip_prefix(RULES)?)))
        .flat_map(upward)
        .collect()
}

fn upward((source, path): (&Source, &str)) -> Vec<String> {
    let module = path.split(['/', '.']).next().unwrap_or_default();
    let above = above(module);
    let (mut in_use, mut found) = (false, Vec::new());
    for (number, line) in source.lines().take_while(|(_, line)| *line != "#[cfg(test)]") {
        let code = line.split_once("//").map_or(line, |(code, _)| code);
        let start = code.trim_start();
        let begins = start.starts_with("use crate::") || start.starts_with("pub use crate::");
        in_use |= begins;
        for (name, layer) in &above {
            let path = code.contains(&format!("crate::{name}::"));
            let listed = in_use && names(code, name);
            if path || listed {
                found.push(format!(
                    "{}:{number}: `{module}` imports from `{name}`, which is {layer} and stands above it: move what \
                     both need below (xtask/src/tidy/layers.rs)",
                    source.path
                ));
            }
        }
        in_use &= !code.contains(';');
    }
    found
}

/// True if a line of an import names `module` as the first part of a path.
fn names(code: &str, module: &str) -> bool {
    let code = code.trim_start();
    let code = code.strip_prefix("pub ").unwrap_or(code);
    let list = code.strip_prefix("use crate::").unwrap_or(code).trim_start_matches('{');
    list.split(", ")
        .map(|part| part.trim_end_matches([',', ';', '}']))
        .any(|part| part == module || part.strip_prefix(module).is_some_and(|rest| rest.starts_with("::")))
}

#[cfg(test)]
mod tests {
    use super::{super::tests::source, *};

    #[test]
    fn an_import_from_a_layer_above_is_found_in_any_form() {
        for (path, text) in [
            ("account.rs", "use crate::ledger::Mode;"),
            ("account.rs", "use crate::{\n    Account,\n    ledger::{Mode, execute},\n};"),
            ("agreement/lock.rs", "use crate::{Account, operation, record::Lock};"),
            ("agreement/lock.rs", "fn a() {\n    crate::ledger::fee();\n}"),
            ("working.rs", "use crate::account::credit;"),
            ("bodies.rs", "pub use crate::operation::Lane;"),
        ] {
            assert_eq!(check(&[source(&format!("{RULES}{path}"), text)]).len(), 1, "{path}: {text}");
        }
    }

    #[test]
    fn what_stands_below_and_other_names_and_tests_are_free() {
        for (path, text) in [
            ("ledger.rs", "use crate::{account, operation::Lane};"),
            ("account.rs", "use crate::{books, record::AccountState, working::Working};"),
            (
                "account.rs",
                "// crate::ledger::execute\n#[cfg(test)]\nmod tests { use crate::ledger::execute; }",
            ),
            ("account.rs", "fn a(ledger: u8) {\n    b(ledger, 1);\n}"),
            ("json.rs", "use crate::ledger::Outcome;"),
        ] {
            assert_eq!(
                check(&[source(&format!("{RULES}{path}"), text)]),
                Vec::<String>::new(),
                "{path}: {text}"
            );
        }
    }
}
