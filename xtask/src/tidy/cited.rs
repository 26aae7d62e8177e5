//! Documents and rules that the code cites: a reader of the project must have them.

use super::Source;
use std::collections::BTreeSet;

/// Documents that never were part of the project; a comment cites one as this word and a number.
const ABSENT: [&str; 4] = ["economics", "protocol", "starting-point", "issue"];

/// Citations of documents that are not in the tree, and of rules that `docs/protocol.md` does not define.
pub(super) fn check(
    sources: &[Source],
    rules: &BTreeSet<String>,
    exists: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for (number, line) in source.lines() {
            let place = format!("{}:{number}", source.path);
            found.extend(unknown_rules(line, rules).map(|rule| {
                format!("{place}: cites the rule {rule}, which docs/protocol.md does not define: correct it")
            }));
            let Some(comment) = comment(line) else { continue };
            found.extend(documents(comment).filter(|document| !exists(document)).map(|document| {
                format!("{place}: cites {document}, which is not in the tree: name a file from the root")
            }));
            found.extend(absent(comment).map(|document| {
                format!("{place}: cites \"{document}\", which no reader has: give the reason itself")
            }));
        }
    }
    found
}

/// The document whose names of files must each stand for one file.
const EXACT: &str = "docs/faults.md";

/// Rust files that a document names in code spans and that are not in the tree. A name may leave out the first
/// directories, and hold one list, as `repair/{actor,state}.rs` does. In [`EXACT`] a name that several files have
/// stands for the one beside a file that the same line names before it, and else is a problem.
pub(super) fn files(document: &str, text: &str, sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let spans = spans(line).filter(|span| span.ends_with(".rs") && !span.contains(' '));
        let mut beside = BTreeSet::new();
        for name in spans.flat_map(listed) {
            let meant: Vec<&str> =
                sources.iter().map(|s| s.path.as_str()).filter(|p| ends(p, &name)).collect();
            let near = meant.iter().filter(|path| beside.contains(directory(path))).count();
            match meant.len() {
                0 => found.push(format!("{document}:{number}: names {name}, which is not in the tree")),
                1 => {}
                _ if document != EXACT || near > 0 => {}
                _ => found.push(format!(
                    "{document}:{number}: names {name}, which is one of {}: name its directory, too",
                    meant.join(", ")
                )),
            }
            beside.extend(meant.iter().filter(|_| meant.len() == 1).map(|path| directory(path)));
        }
    }
    found
}

/// Tests that a document names in code spans, as `crate module::test`, and that no file of such a module declares.
/// Two dots stand for a part that is left out.
pub(super) fn tests(document: &str, text: &str, sources: &[Source]) -> Vec<String> {
    let declared: Vec<(&Source, &str)> = sources.iter().flat_map(declared).collect();
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        for span in spans(line) {
            let parts: Vec<&str> = span.split(' ').next_back().unwrap_or_default().split("::").collect();
            let (Some(name), modules) = (parts.last(), &parts[..parts.len() - 1]) else { continue };
            let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.';
            if modules.is_empty() || name.matches('_').count() < 3 || !name.chars().all(is_name) {
                continue;
            }
            let is_meant = |(source, test): &(&Source, &str)| {
                let named = match (name.strip_suffix(".."), name.strip_prefix("..")) {
                    (Some(front), _) => test.starts_with(front),
                    (_, Some(end)) => test.ends_with(end),
                    _ => test == name,
                };
                named && modules.iter().all(|module| is_in(source, module))
            };
            if !declared.iter().any(is_meant) {
                found.push(format!("{document}:{number}: names the test {span}, which is not in the tree"));
            }
        }
    }
    found
}

/// The functions that a source declares, each with the source.
fn declared(source: &Source) -> impl Iterator<Item = (&Source, &str)> {
    let names =
        source.text.lines().filter_map(|line| line.trim_start().split_once("fn ")).map(|(_, rest)| rest);
    let names =
        names.map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(rest));
    names.map(move |name| (source, name))
}

/// True if a part of a test's name, or a whole path, is that of a source or of a module in it.
fn is_in(source: &Source, module: &str) -> bool {
    let Source { path, text } = source;
    let module = module.trim_start_matches('.');
    if module.ends_with(".rs") {
        return ends(path, module);
    }
    let mut parts = path.strip_suffix(".rs").unwrap_or(path).split('/');
    module.is_empty() || parts.any(|part| part == module) || text.contains(&format!("mod {module} {{"))
}

/// True if a path is a name, or ends with it after a whole directory.
fn ends(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|front| front.is_empty() || front.ends_with('/'))
}

fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// The code spans of a line.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The names that a name with a list in braces stands for.
fn listed(name: &str) -> Vec<String> {
    let parts = name.split_once('{').and_then(|(front, rest)| Some((front, rest.split_once('}')?)));
    let Some((front, (list, end))) = parts else { return vec![name.into()] };
    list.split(',').map(|part| format!("{front}{part}{end}")).collect()
}

/// The rules that a text defines: a list item that opens with the number in bold.
pub(super) fn defined(rules: &str) -> BTreeSet<String> {
    let items = rules.lines().filter_map(|line| line.trim_start().strip_prefix("- **"));
    items.filter_map(|item| item.split_once("** ")).map(|(number, _)| number.to_string()).collect()
}

/// The text of a line after `//`, if that is no part of an address.
fn comment(line: &str) -> Option<&str> {
    let slashes = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    slashes.map(|(at, _)| &line[at + 2..])
}

/// Rule numbers in a line (two capital letters, a dash, digits) that are not defined.
fn unknown_rules(line: &str, rules: &BTreeSet<String>) -> impl Iterator<Item = String> {
    let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| is_rule(word) && !rules.contains(*word)).map(str::to_string)
}

fn is_rule(word: &str) -> bool {
    word.split_once('-').is_some_and(|(letters, digits)| {
        letters.len() == 2
            && letters.bytes().all(|byte| byte.is_ascii_uppercase())
            && !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Names of Markdown files in a comment.
fn documents(comment: &str) -> impl Iterator<Item = &str> {
    let words = comment.split(|c: char| !c.is_ascii_alphanumeric() && !"-_./".contains(c));
    let names = words.map(|word| word.trim_end_matches('.'));
    names.filter(|name| name.ends_with(".md") && name.len() > 3 && !name.starts_with("//"))
}

/// Citations of an absent document: its name, then a number.
fn absent(comment: &str) -> impl Iterator<Item = String> {
    let words: Vec<&str> = comment.split(' ').map(|word| word.trim_start_matches(['(', '"', '`'])).collect();
    let pairs: Vec<String> = words
        .windows(2)
        .filter(|pair| ABSENT.contains(&pair[0]) && pair[1].starts_with(|c: char| c.is_ascii_digit()))
        .map(|pair| pair.join(" ").trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_string())
        .collect();
    pairs.into_iter()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::source, *};

    /// Problems of a comment, where one document and the rule of number 1 of prefix `LE` exist.
    fn of(comment: &str) -> Vec<String> {
        let rules = defined(&format!("- **LE-{}** A rule.\n", 1));
        check(&[source("a.rs", &format!("let a = 1; /{} {comment}\n", '/'))], &rules, |path| {
            path == "docs/formats.md"
        })
    }

    #[test]
    fn a_document_that_is_not_in_the_tree_is_found() {
        assert!(of("See `docs/formats.md`.").is_empty());
        assert!(of("See https://example.invalid/absent.md.").is_empty());
        let found = of("See docs/absent.md.");
        assert_eq!(
            found,
            ["a.rs:1: cites docs/absent.md, which is not in the tree: name a file from the root"]
        );
        assert_eq!(of("The reason is in (starting-point.md).").len(), 1);
    }

    #[test]
    fn a_file_that_a_document_names_and_that_is_gone_is_found() {
        let sources = [source("crates/a/src/actor.rs", ""), source("crates/a/src/state.rs", "")];
        let of = |text: &str| files("docs/a.md", text, &sources);
        assert!(of("`a/src/{actor,state}.rs`, `state.rs` (`judge`) and gone.rs").is_empty());
        assert_eq!(
            of("\n`src/{actor,gone}.rs`"),
            ["docs/a.md:2: names src/gone.rs, which is not in the tree"]
        );
        assert_eq!(of("`tor.rs`").len(), 1, "a name is whole");
    }

    #[test]
    fn a_name_of_several_files_is_found_unless_the_line_names_its_directory() {
        let sources = ["crates/a/src/state.rs", "crates/b/src/state.rs", "crates/b/src/actor.rs"];
        let sources = sources.map(|path| source(path, ""));
        let of = |text: &str| files(EXACT, text, &sources);
        assert!(of("`b/src/actor.rs`, `state.rs`, `a/src/{state}.rs`").is_empty());
        assert!(of("`state.rs`, `b/src/actor.rs`")[0].contains("is one of crates/a/src/state.rs, crates/b"));
    }

    #[test]
    fn a_test_that_a_document_names_and_that_is_not_there_is_found() {
        let text = "mod tests {\n#[test]\nfn no_file_is_lost_by_it() {}\n    pub(crate) async fn a_file_stays_as_it_is() {}\n";
        let sources = [source("crates/a/src/packs/full.rs", text)];
        let of = |name: &str| tests("docs/a.md", &format!("| `{name}` |"), &sources);
        for name in [
            "a packs::full::tests::no_file_is_lost_by_it",
            "packs/full.rs::a_file_stays_as_it_is",
            "..::no_file_is_..",
            "full::.._as_it_is",
            "full::State",
        ] {
            assert_eq!(of(name), [""; 0], "{name}");
        }
        for name in [
            "full::no_file_is_lost_by_that",
            "segments::full::no_file_is_lost_by_it",
            "a/full.rs::no_file_is_..",
        ] {
            assert_eq!(of(name), [format!("docs/a.md:1: names the test {name}, which is not in the tree")]);
        }
    }

    #[test]
    fn a_document_that_no_reader_has_is_found() {
        for name in ABSENT {
            let found = of(&format!("It falls (computed in {name} 2.1)."));
            assert!(found[0].contains(&format!("cites \"{name} 2.1\", which no reader has")), "{found:?}");
        }
        assert!(of("The protocol has 3 parts.").is_empty());
    }

    #[test]
    fn a_rule_that_is_not_defined_is_found() {
        assert!(of(&format!("A rule (LE-{}).", 1)).is_empty());
        for prefix in ["LE", "QQ"] {
            let found = of(&format!("A rule ({prefix}-{}).", 99));
            assert!(found[0].contains("docs/protocol.md does not define"), "{found:?}");
        }
        assert!(of("UTF-8 and SHA-256 are no rules.").is_empty());
    }
}
