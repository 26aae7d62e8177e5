//! The lists of ARCHITECTURE.md that name the files to change for a new operation, event, record or command.

/// The headings of the lists.
const HEADINGS: [&str; 4] =
    ["### To add an operation", "### To add an event", "### To add a record", "### To add a command"];

/// Most files that every new operation may need: the paths in the numbered part of the first list.
const OPERATION_FILES_MAX: usize = 9;

/// Lists that are absent or name no file, files in them that do not exist, and a list for operations that has
/// grown.
pub(super) fn check(architecture: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
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
    let always =
        lines(architecture, HEADINGS[0]).filter(|(_, line)| line.starts_with(|c: char| c.is_ascii_digit()));
    let count = always.flat_map(|(_, line)| quoted(line)).count();
    if count > OPERATION_FILES_MAX {
        found.push(format!(
            "ARCHITECTURE.md: every new operation needs {count} files; the limit is {OPERATION_FILES_MAX}: \
             derive more from its declaration"
        ));
    }
    found
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
    let words = line.split('`').skip(1).step_by(2);
    words.filter(|word| word.contains(['/', '.']) && !word.contains([' ', '(', '<']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn architecture(path: &str) -> String {
        HEADINGS.map(|heading| format!("{heading}\n\n1. `{path}`: a `Variant`.\n\n")).concat()
    }

    #[test]
    fn a_path_that_does_not_exist_is_found() {
        let exists = |path: &str| path == "crates/a.rs";
        assert!(check(&architecture("crates/a.rs"), exists).is_empty());
        let found = check(&architecture("crates/b.rs"), exists);
        assert_eq!(found.len(), HEADINGS.len());
        assert!(found[0].starts_with("ARCHITECTURE.md:3: `crates/b.rs` does not exist"), "{found:?}");
    }

    #[test]
    fn a_list_for_operations_that_has_grown_is_found() {
        let with = |item: &str| {
            let items = item.repeat(OPERATION_FILES_MAX);
            architecture("crates/a.rs").replacen("\n\n1.", &format!("\n\n{items}1."), 1)
        };
        assert!(check(&with("- Perhaps `crates/b.rs`.\n"), |_| true).is_empty());
        let found = check(&with("2. `crates/b.rs`.\n"), |_| true);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("needs 10 files"), "{found:?}");
    }

    #[test]
    fn an_absent_list_is_found() {
        let text = architecture("crates/a.rs").replace(HEADINGS[1], "### Something else");
        let found = check(&text, |_| true);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains(HEADINGS[1]), "{found:?}");
    }
}
