//! Words that the rules of the ledger may not use: all that could differ between two machines.

use super::Source;

/// The directory of the rules.
const RULES: &str = "crates/protocol/src/";

/// Words that the rules may not use, with the reason.
const FORBIDDEN: &[(&str, &str)] = &[
    ("async ", "the rules do not wait"),
    (".await", "the rules do not wait"),
    ("f32", "floats differ between machines"),
    ("f64", "floats differ between machines"),
    ("HashMap", "its order differs between runs"),
    ("HashSet", "its order differs between runs"),
    ("std::", "the rules build without std"),
    ("extern crate std", "the rules build without std"),
    ("SystemTime", "the rules read no clock"),
    ("Instant", "the rules read no clock"),
    ("println!", "the rules do no IO"),
    ("thread", "the rules are synchronous"),
    ("unsafe", "the rules contain no unsafe code"),
    ("rand::", "the rules draw from seeds of the ledger only"),
    ("todo!", "finish it"),
    ("unimplemented!", "finish it"),
];

/// Forbidden words in the code of the rules, without their comments and unit tests.
pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let rules = sources.iter().filter(|source| source.path.starts_with(RULES));
    rules.flat_map(impure).collect()
}

fn impure(source: &Source) -> impl Iterator<Item = String> {
    source.lines().take_while(|(_, line)| *line != "#[cfg(test)]").filter_map(|(number, line)| {
        let code = line.split_once("//").map_or(line, |(code, _)| code);
        let (word, why) = FORBIDDEN.iter().find(|(word, _)| code.contains(word))?;
        let (path, word) = (&source.path, word.trim());
        Some(format!("{path}:{number}: the rules use `{word}`, but {why}: move it out of `protocol`"))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::tests::source, *};

    #[test]
    fn a_float_in_the_rules_is_found() {
        let text = "fn a() {\n    let x: f64 = 1.0;\n}";
        let found = check(&[source("crates/protocol/src/a.rs", text)]);
        assert!(found[0].starts_with("crates/protocol/src/a.rs:2: the rules use `f64`"), "{found:?}");
        assert!(check(&[source("crates/economy/src/a.rs", text)]).is_empty());
    }

    #[test]
    fn comments_and_tests_may_use_any_word() {
        let text = "// f64 in a comment\n#[cfg(test)]\nmod tests { use std::fmt; }";
        assert!(check(&[source("crates/protocol/src/a.rs", text)]).is_empty());
    }

    #[test]
    fn each_forbidden_word_is_found() {
        for (word, _) in FORBIDDEN {
            let text = format!("    {word}x\n");
            assert_eq!(check(&[source("crates/protocol/src/a.rs", &text)]).len(), 1, "{word}");
        }
    }
}
