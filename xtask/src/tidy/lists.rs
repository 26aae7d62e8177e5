//! The lists of ARCHITECTURE.md that name the files to change for a new operation, event, record or command.
//!
//! The list for operations is compared with the tree: it says for some operations which files each needed, and
//! outside tests exactly those may name the type of its fields.

use super::Source;
use std::collections::BTreeSet;

/// The headings of the lists.
const HEADINGS: [&str; 4] =
    ["### To add an operation", "### To add an event", "### To add a record", "### To add a command"];

/// Most files that a new operation may need: those of the numbered part of the first list.
const OPERATION_FILES_MAX: usize = 9;

/// Fewest operations that the first list takes as examples.
const EXAMPLES_MIN: usize = 2;

/// Lists that are absent or name no file, files in them that do not exist, and a list for operations that is
/// too long or does not match the tree.
pub(super) fn check(architecture: &str, sources: &[Source], exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for heading in HEADINGS {
        let paths: Vec<(usize, &str)> = paths(architecture, heading);
        if paths.is_empty() {
            found.push(format!("ARCHITECTURE.md: no files under \"{heading}\": list them, in order"));
        }
        found.extend(paths.into_iter().filter(|(_, path)| !exists(path)).map(|(number, path)| {
            format!("ARCHITECTURE.md:{number}: `{path}` does not exist: name the file that took its place")
        }));
    }
    found.extend(operations(architecture, sources));
    found
}

/// The problems of the list for operations: its length, and its examples in the tree.
fn operations(architecture: &str, sources: &[Source]) -> Vec<String> {
    let (mut needed, mut perhaps) = (Vec::new(), BTreeSet::new());
    for (_, line) in lines(architecture, HEADINGS[0]) {
        if line.starts_with(|c: char| c.is_ascii_digit()) {
            needed.extend(needs(line));
        } else {
            perhaps.extend(quoted(line));
        }
    }
    let examples: BTreeSet<&str> = needed.iter().filter_map(|(_, example)| *example).collect();
    let mut found = Vec::new();
    if examples.len() < EXAMPLES_MIN {
        found.push(format!(
            "ARCHITECTURE.md: the list of files for an operation needs {EXAMPLES_MIN} examples: write \
             \"`path` for `Operation`\""
        ));
    }
    for example in examples {
        let own = needed.iter().filter(|(_, of)| of.is_none_or(|of| of == example)).map(|(path, _)| *path);
        let own: BTreeSet<&str> = own.collect();
        if own.len() > OPERATION_FILES_MAX {
            found.push(format!(
                "ARCHITECTURE.md: the operation {example} needs {} files; the limit is {OPERATION_FILES_MAX}: \
                 derive more from its declaration",
                own.len()
            ));
        }
        let named: BTreeSet<&str> = sources
            .iter()
            .filter(|source| names(source, example))
            .map(|source| source.path.as_str())
            .collect();
        found.extend(named.iter().filter(|path| !own.contains(*path) && !perhaps.contains(*path)).map(
            |path| {
                format!(
                    "{path}: names the operation {example}, and the list in ARCHITECTURE.md does not name it"
                )
            },
        ));
        let rules = own.iter().filter(|path| path.contains("/src/") && path.ends_with(".rs"));
        found.extend(rules.filter(|path| !named.contains(*path)).map(|path| {
            format!("ARCHITECTURE.md: the operation {example} does not need `{path}`, which never names it")
        }));
    }
    found
}

/// The paths of a line of the first list, each with the operation that it is an example for: the quoted name
/// after "for". A path without one is needed for every operation.
fn needs(line: &str) -> Vec<(&str, Option<&str>)> {
    let mut all: Vec<(&str, Option<&str>)> = Vec::new();
    let parts: Vec<&str> = line.split('`').collect();
    for pair in parts.chunks_exact(2) {
        let (before, word) = (pair[0], pair[1]);
        match all.last_mut() {
            Some((_, example)) if before == " for " && example.is_none() => *example = Some(word),
            _ if is_path(word) => all.push((word, None)),
            _ => {}
        }
    }
    all
}

/// True if the code of a source, without its tests, names a type.
fn names(source: &Source, name: &str) -> bool {
    let path = source.path.as_str();
    if !path.contains("/src/") || path.contains("/tests/") || path.ends_with("tests.rs") {
        return false;
    }
    let code = source.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let code = code.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
    code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_')).any(|word| word == name)
}

/// The lines under a heading, with their numbers.
fn lines<'a>(text: &'a str, heading: &str) -> impl Iterator<Item = (usize, &'a str)> {
    let section = (1..).zip(text.lines()).skip_while(move |(_, line)| *line != heading).skip(1);
    section.take_while(|(_, line)| !line.starts_with('#'))
}

/// The paths in the list under a heading, with the numbers of their lines: quoted words with a slash or a
/// dot, and without a space.
fn paths<'a>(text: &'a str, heading: &str) -> Vec<(usize, &'a str)> {
    lines(text, heading).flat_map(|(number, line)| quoted(line).map(move |path| (number, path))).collect()
}

fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2).filter(|word| is_path(word))
}

fn is_path(word: &str) -> bool {
    word.contains(['/', '.']) && !word.contains([' ', '(', '<'])
}

#[cfg(test)]
mod tests {
    use super::{super::tests::source, *};

    const OPERATION: &str = "crates/a/src/operation.rs";

    /// The four lists, with a path each; the first has two examples.
    fn architecture(path: &str) -> String {
        let lists = HEADINGS.map(|heading| format!("{heading}\n\n1. `{path}`: a `Variant`.\n\n"));
        lists.concat().replacen(
            "\n\n1.",
            "\n\n1. `crates/a/src/a.rs` for `Apply`, and `crates/a/src/b.rs` for `Bring`.\n1.",
            1,
        )
    }

    /// A tree that the lists of [`OPERATION`] describe, and one more file.
    fn tree(path: &str, text: &str) -> Vec<Source> {
        vec![
            source(OPERATION, "Apply {}\nBring {}\n"),
            source("crates/a/src/a.rs", "fn a(body: &Apply) {}\n"),
            source("crates/a/src/b.rs", "fn b(body: &Bring) {}\n"),
            source(path, text),
        ]
    }

    #[test]
    fn a_path_that_does_not_exist_is_found() {
        let (sources, exists) = (tree("c.rs", ""), |path: &str| path != "crates/gone.rs");
        assert_eq!(check(&architecture(OPERATION), &sources, exists), [""; 0]);
        let text =
            architecture(OPERATION).replacen("1. `crates/a/src/operation.rs`", "1. `crates/gone.rs`", 4);
        let found = check(&text, &sources, exists);
        assert!(found[0].starts_with("ARCHITECTURE.md:4: `crates/gone.rs` does not exist"), "{found:?}");
    }

    #[test]
    fn a_list_for_operations_that_has_grown_is_found() {
        let with = |item: &str| {
            let items: String = (1..OPERATION_FILES_MAX).map(|n| item.replace('#', &n.to_string())).collect();
            check(
                &architecture(OPERATION).replacen("\n1.", &format!("\n{items}1."), 1),
                &tree("c.rs", ""),
                |_| true,
            )
        };
        assert_eq!(with("- Perhaps `crates/#.toml`.\n"), [""; 0]);
        let found = with("2. `crates/#.toml`.\n");
        assert_eq!(found.len(), 2);
        assert!(found[0].contains("the operation Apply needs 10 files"), "{found:?}");
    }

    #[test]
    fn a_file_that_names_an_example_and_is_not_listed_is_found() {
        let of = |path: &str, text: &str| check(&architecture(OPERATION), &tree(path, text), |_| true);
        let found = of("crates/b/src/c.rs", "use a::{Apply, Other};\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("crates/b/src/c.rs: names the operation Apply"), "{found:?}");
        for (path, text) in [
            (
                "crates/b/src/c.rs",
                "// Apply\nuse a::Applying;\n#[cfg(test)]\nmod tests {\n    use a::Apply;\n}\n",
            ),
            ("crates/b/src/c/tests.rs", "use a::Apply;\n"),
            ("crates/b/tests/c.rs", "use a::Apply;\n"),
        ] {
            assert_eq!(of(path, text), [""; 0], "{path}");
        }
    }

    #[test]
    fn a_file_that_is_listed_and_names_no_example_is_found() {
        let mut sources = tree("c.rs", "");
        sources.remove(1);
        let found = check(&architecture(OPERATION), &sources, |_| true);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("Apply does not need `crates/a/src/a.rs`"), "{found:?}");
    }

    #[test]
    fn a_list_without_examples_is_found() {
        let text = architecture(OPERATION).replace(" for `", " as `");
        let found = check(&text, &tree("c.rs", ""), |_| true);
        assert!(found[0].contains("needs 2 examples"), "{found:?}");
    }

    #[test]
    fn an_absent_list_is_found() {
        let text = architecture(OPERATION).replace(HEADINGS[1], "### Something else");
        let found = check(&text, &tree("c.rs", ""), |_| true);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains(HEADINGS[1]), "{found:?}");
    }
}
