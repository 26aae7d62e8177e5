//! Lengths of files and functions, and the header of each file.

use super::{FILE_LINES_MAX, FUNCTION_LINES_MAX, Source};

/// A function of a file: its name, the line where it begins, and its number of lines.
#[derive(Debug, PartialEq, Eq)]
struct Function<'a> {
    name: &'a str,
    line: usize,
    length: usize,
}

/// Problems of length or header. `longer` holds the recorded lengths of what exceeds a limit.
pub(super) fn check(sources: &[Source], longer: &[(&str, usize)]) -> Vec<String> {
    let mut found = Vec::new();
    let mut used = Vec::new();
    for source in sources {
        let path = &source.path;
        if !source.text.starts_with("//! ") {
            found.push(format!("{path}:1: no header: begin the file with a `//!` line that explains it"));
        }
        let length = lines_of_code(&source.text);
        if length > FILE_LINES_MAX {
            used.push(path.clone());
            found.extend(exceeds(longer, path, path, length, FILE_LINES_MAX));
        }
        for function in functions(&source.text).into_iter().filter(|f| f.length > FUNCTION_LINES_MAX) {
            let name = format!("{path}: {}", function.name);
            let place = format!("{path}:{}", function.line);
            found.extend(exceeds(longer, &name, &place, function.length, FUNCTION_LINES_MAX));
            used.push(name);
        }
    }
    let stale = longer.iter().filter(|(name, _)| !used.iter().any(|u| u == name));
    found.extend(stale.map(|(name, _)| {
        format!("xtask/src/tidy.rs: `{name}` is within its limit now: remove it from LONGER")
    }));
    found
}

/// The problem of a file or a function of more than `limit` lines: it is not recorded, or not with this length.
fn exceeds(longer: &[(&str, usize)], name: &str, place: &str, length: usize, limit: usize) -> Option<String> {
    match longer.iter().find(|(known, _)| *known == name) {
        None => Some(format!("{place}: `{name}` has {length} lines; the limit is {limit}: split it")),
        Some((_, recorded)) if length > *recorded => {
            Some(format!("{place}: `{name}` grew from {recorded} to {length} lines: split it"))
        }
        Some((_, recorded)) if length < *recorded => Some(format!(
            "xtask/src/tidy.rs: `{name}` shrank from {recorded} to {length} lines: write {length} in LONGER"
        )),
        Some(_) => None,
    }
}

/// Lines that hold code.
fn lines_of_code(text: &str) -> usize {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

/// The functions of a formatted file that have a body of more than one line.
fn functions(text: &str) -> Vec<Function<'_>> {
    let lines: Vec<&str> = text.lines().collect();
    let found = lines.iter().enumerate().filter_map(|(start, line)| {
        let length = length(&lines[start..])?;
        Some(Function { name: function_name(line)?, line: start + 1, length })
    });
    found.collect()
}

/// Lines from a signature to the closing brace of the same indent; `None` without a body of its own lines.
fn length(lines: &[&str]) -> Option<usize> {
    let first = lines.first()?;
    let indent = first.len() - first.trim_start().len();
    let close = format!("{}}}", " ".repeat(indent));
    let opens = lines.iter().position(|line| line.ends_with(['{', ';', '}']))?;
    if !lines[opens].ends_with('{') {
        return None;
    }
    lines.iter().position(|line| **line == close).map(|end| end + 1)
}

/// The name of the function whose signature begins on this line.
fn function_name(line: &str) -> Option<&str> {
    const BEFORE: [&str; 8] =
        ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern", "\"C\""];
    let mut words = line.split_whitespace().skip_while(|word| BEFORE.contains(word));
    if words.next() != Some("fn") {
        return None;
    }
    words.next()?.split(['(', '<']).next()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::source, *};

    fn long_function(lines: usize) -> String {
        format!(
            "//! A file.\n\n    pub(crate) async fn long<T>(\n        x: T,\n    ) {{\n{}    }}\n",
            "        x();\n".repeat(lines - 4)
        )
    }

    #[test]
    fn a_long_function_is_found() {
        assert!(check(&[source("a.rs", &long_function(70))], &[]).is_empty());
        let found = check(&[source("a.rs", &long_function(71))], &[]);
        assert_eq!(found, ["a.rs:3: `a.rs: long` has 71 lines; the limit is 70: split it"]);
    }

    #[test]
    fn a_declaration_without_a_body_has_no_length() {
        let text = format!("trait A {{\n    fn a();\n    fn b() {{}}\n{}}}\n", "    // b\n".repeat(99));
        assert_eq!(functions(&text), []);
    }

    #[test]
    fn a_long_file_is_found() {
        let code = |lines| format!("//! A file.\n\n{}", "const A: u8 = 1;\n// Why.\n".repeat(lines));
        assert!(check(&[source("a.rs", &code(600))], &[]).is_empty());
        let found = check(&[source("a.rs", &code(601))], &[]);
        assert_eq!(found, ["a.rs: `a.rs` has 601 lines; the limit is 600: split it"]);
    }

    #[test]
    fn a_file_without_a_header_is_found() {
        let found = check(&[source("a.rs", "use std::fmt;\n")], &[]);
        assert!(found[0].starts_with("a.rs:1: no header"), "{found:?}");
    }

    #[test]
    fn a_recorded_length_may_only_fall() {
        let sources = [source("a.rs", &long_function(80))];
        assert!(check(&sources, &[("a.rs: long", 80)]).is_empty());
        assert!(check(&sources, &[("a.rs: long", 79)])[0].contains("grew from 79 to 80"));
        assert!(check(&sources, &[("a.rs: long", 81)])[0].contains("write 80 in LONGER"));
        assert!(check(&sources, &[("a.rs: long", 80), ("b.rs", 9)])[0].contains("remove it from LONGER"));
    }
}
