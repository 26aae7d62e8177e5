//! The lists of ARCHITECTURE.md that name the files to change for a new operation, event, record or command.

/// The headings of the lists.
const HEADINGS: [&str; 4] =
    ["### To add an operation", "### To add an event", "### To add a record", "### To add a command"];

/// Lists that are absent or name no file, and files in them that do not exist.
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
    found
}

/// The paths in the numbered list under a heading, with the numbers of their lines: quoted words with a
/// slash or a dot, and without a space.
fn paths<'a>(text: &'a str, heading: &str) -> Vec<(usize, &'a str)> {
    let section = (1..).zip(text.lines()).skip_while(|(_, line)| *line != heading).skip(1);
    let lines = section.take_while(|(_, line)| !line.starts_with('#'));
    lines.flat_map(|(number, line)| quoted(line).map(move |path| (number, path))).collect()
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
    fn an_absent_list_is_found() {
        let text = architecture("crates/a.rs").replace(HEADINGS[1], "### Something else");
        let found = check(&text, |_| true);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains(HEADINGS[1]), "{found:?}");
    }
}
