//! Style checks: the rules stay pure, files and functions stay short.

use std::{fs, path::Path};

/// Names that the rules may not use, with the reason.
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
    ("unsafe", "memory safety is not negotiable"),
    ("rand::", "the rules draw nothing of their own"),
    ("todo!", "finish it"),
    ("unimplemented!", "finish it"),
];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

fn sources(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).expect("the crate's sources") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("UTF-8");
            found.push((path.display().to_string(), text));
        }
    }
}

fn all() -> Vec<(String, String)> {
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 10, "the sources were found");
    found
}

/// The lines of a file that are code of the rules, without comments and unit tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let rules = text.lines().take_while(|line| *line != "#[cfg(test)]");
    rules.map(|line| line.split_once("//").map_or(line, |(code, _)| code))
}

fn impure(text: &str) -> Option<(&'static str, &'static str)> {
    code(text).find_map(|line| FORBIDDEN.iter().find(|(word, _)| line.contains(word)).copied())
}

/// The longest function of a file: its first line and its number of lines.
fn longest(text: &str) -> (String, usize) {
    let lines: Vec<&str> = text.lines().collect();
    let mut longest = (String::new(), 0);
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let word = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        let word = word.trim_start_matches("pub(super) ").trim_start_matches("const ");
        if !word.starts_with("fn ") {
            continue;
        }
        let close = format!("{}}}", " ".repeat(indent));
        let length = lines[start..].iter().position(|line| **line == close).unwrap_or(0) + 1;
        if length > longest.1 {
            longest = (line.trim().to_string(), length);
        }
    }
    longest
}

#[test]
fn the_rules_are_pure() {
    for (path, text) in all() {
        if let Some((word, why)) = impure(&text) {
            panic!("{path} uses `{word}`: {why}");
        }
    }
}

#[test]
fn files_and_functions_are_short_and_headed() {
    for (path, text) in all() {
        assert!(text.starts_with("//! "), "{path} has no header that teaches");
        assert!(text.lines().count() <= FILE_LINES_MAX, "{path} exceeds {FILE_LINES_MAX} lines");
        let (function, length) = longest(&text);
        assert!(length <= FUNCTION_LINES_MAX, "{path}: {length} lines: {function}");
    }
}

#[test]
fn the_checks_can_fail() {
    assert!(impure("fn a() {\n    let x: f64 = 1.0;\n}").is_some());
    assert!(impure("// f64 in a comment\n#[cfg(test)]\nmod tests { use std::fmt; }").is_none());
    let long = format!("    pub fn long() {{\n{}    }}\n", "        x();\n".repeat(99));
    assert_eq!(longest(&long).1, 101);
}
