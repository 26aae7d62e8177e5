//! The public items of each crate: a library shows what other crates use, and the compiler finds the rest when
//! it is dead.

use super::Source;

/// For each crate but `protocol`, most public items in a thousand lines of code. A ceiling may only fall. The aim is 15;
/// `alert`, `client`, `coding` and `consumer` stand above it for the reasons in
/// `docs/decisions/libraries-show-what-others-call.md`.
const CEILINGS: &[(&str, usize)] = &[
    ("alert", 45),
    ("cli", 0),
    ("client", 39),
    ("coding", 105),
    ("compute", 19),
    ("consumer", 32),
    ("economy", 10),
    ("gateway", 3),
    ("node", 15),
    ("provider", 12),
    ("sim", 11),
];

/// The words that make an item of Rust, after `pub`.
const ITEMS: [&str; 11] =
    ["fn", "const", "async", "static", "struct", "enum", "trait", "type", "mod", "union", "unsafe"];

/// Public items and lines of code of a source, without the tests at its end.
fn count(text: &str) -> (usize, usize) {
    let (mut public, mut code, mut tests) = (0, 0, false);
    for line in text.lines().map(str::trim) {
        if tests && line.starts_with("mod ") && line.ends_with('{') {
            break;
        }
        tests = line == "#[cfg(test)]";
        if line.is_empty() || line.starts_with("//") {
            continue;
        }
        code += 1;
        let word = line.strip_prefix("pub ").and_then(|rest| rest.split(' ').next());
        public += usize::from(word.is_some_and(|word| ITEMS.contains(&word)));
    }
    (public, code)
}

/// Crates with more public items than their ceilings, and crates without a ceiling.
pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let mut crates = std::collections::BTreeMap::<&str, (usize, usize)>::new();
    for source in sources {
        let Some((name, path)) =
            source.path.strip_prefix("crates/").and_then(|path| path.split_once("/src/"))
        else {
            continue;
        };
        if path.ends_with("tests.rs") || path.contains("tests/") || name == "protocol" {
            continue;
        }
        let (public, code) = count(&source.text);
        let all = crates.entry(name).or_default();
        (all.0, all.1) = (all.0 + public, all.1 + code);
    }
    let mut found = Vec::new();
    for (name, (public, code)) in crates {
        let ceiling = CEILINGS.iter().find(|(of, _)| *of == name).map(|(_, ceiling)| *ceiling);
        match ceiling {
            None => found.push(format!("xtask/src/tidy/surface.rs: crates/{name} has no ceiling: add 15")),
            Some(ceiling) if public * 1000 > ceiling * code => found.push(format!(
                "crates/{name}: {public} public items in {code} lines, above {ceiling} in a thousand: make what \
                 no other crate uses pub(crate)"
            )),
            Some(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests::source;

    #[test]
    fn only_items_of_the_code_before_its_tests_count() {
        let text = "//! A file.\n\npub fn a() {}\npub(crate) fn b() {}\npub struct C {\n    pub field: u8,\n}\n\n\
                    #[cfg(test)]\nmod tests {\n    pub fn d() {}\n}\n";
        assert_eq!(count(text), (2, 6));
        assert_eq!(count("#[cfg(test)]\nmod tests;\npub use a::B;\npub async fn e() {}\n"), (1, 4));
    }

    #[test]
    fn a_crate_above_its_ceiling_is_found() {
        let wide = "pub fn a() {}\n".repeat(10);
        let found = check(&[source("crates/gateway/src/lib.rs", &wide), source("crates/new/src/lib.rs", "")]);
        assert_eq!(found.len(), 2, "{found:?}");
        let tests =
            [source("crates/gateway/src/tests/a.rs", &wide), source("crates/protocol/src/lib.rs", &wide)];
        assert!(check(&tests).is_empty());
    }
}
