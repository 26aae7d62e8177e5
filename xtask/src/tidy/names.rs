//! Type names that stand for one thing each. Every one of them once stood for several.

use super::Source;
use std::collections::BTreeMap;

/// Names that the tree may declare once.
const ONCE: [&str; 8] = ["Answer", "Books", "Entry", "Place", "Row", "Slot", "Standing", "Step"];

/// The words that declare a type of a name.
const WORDS: [&str; 4] = ["struct", "enum", "trait", "type"];

/// Declarations of a name of [`ONCE`] beside the first.
pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let mut places = BTreeMap::<&str, Vec<String>>::new();
    for source in sources {
        for (number, name) in declarations(&source.text) {
            places.entry(name).or_default().push(format!("{}:{number}", source.path));
        }
    }
    let several = places.into_iter().filter(|(_, places)| places.len() > 1);
    several
        .map(|(name, places)| {
            format!("the type name {name} stands for several things ({}): keep one", places.join(", "))
        })
        .collect()
}

/// The declarations of these names in a file, by line: of Rust, and of a macro whose call is a block, such as
/// `encoded!`. A type that an implementation gives for its trait is no declaration.
fn declarations(text: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    let mut enclosing: Vec<(usize, &str)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.trim_start();
        if !code.starts_with(|c: char| c.is_ascii_alphanumeric()) && !code.starts_with(['}', ')', ']', '#']) {
            continue;
        }
        let depth = line.len() - code.len();
        enclosing.retain(|(outer, _)| *outer < depth);
        let around = enclosing.last().map_or("", |(_, line)| *line);
        found.extend(declared(code, around).map(|name| (number, name)));
        enclosing.push((depth, code));
    }
    found
}

/// The name that a line of code declares inside the line `around` it.
fn declared(code: &str, around: &str) -> Option<&'static str> {
    let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    let name = |word: Option<&str>| ONCE.into_iter().find(|name| word == Some(*name));
    if around.ends_with("! {") {
        let mut words = words.skip_while(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
        let is_item = !code.contains("=>") && code.ends_with(['{', ';', ',']);
        return is_item.then(|| name(words.next())).flatten();
    }
    let keyword = words.find(|word| !["pub", "crate", "super"].contains(word))?;
    let is_given = keyword == "type" && around.starts_with("impl");
    (WORDS.contains(&keyword) && !is_given).then(|| name(words.next())).flatten()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::source, *};

    #[test]
    fn a_name_that_is_declared_twice_is_found() {
        let first = "//! A file.\n\npub(crate) struct Row<T> {\n    row: T,\n}\n";
        assert!(check(&[source("a.rs", first)]).is_empty());
        for second in [
            "trait Row {}",
            "fn a() {\n    type Row = (u8, u8);\n}",
            "encoded! {\n    /// A row.\n    #[derive(Copy)]\n    Row {\n        a: u8,\n    }\n}",
            "records! {\n    7 Row (epoch: u64) [a] {\n    }\n}",
        ] {
            let found = check(&[source("b.rs", second), source("a.rs", first)]);
            assert_eq!(found.len(), 1, "{second}");
            assert!(found[0].contains("Row stands for several things (b.rs:"), "{found:?}");
        }
    }

    #[test]
    fn uses_of_a_name_are_no_declarations() {
        let text = "impl Service for A {\n    type Answer = B;\n}\nenum A {\n    Answer {\n        a: u8,\n    },\n}\n\
                    tagged! {\n    A {\n        2 => Answer(B),\n    }\n}\nfn a() -> Answer {\n    Answer { a }\n}\n\
                    // struct Answer\nstruct Answers;\n";
        assert_eq!(declarations(text), []);
    }
}
