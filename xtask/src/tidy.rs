//! Checks of the sources' text: `cargo xtask tidy`, and a step of `cargo xtask test`.
//!
//! Every check reads the tree as lines of text and reports where a problem is and how to mend it. The limits
//! are in this file; each submodule holds one kind of check, with tests that show it failing.

mod cited;
mod language;
mod layers;
mod lists;
mod map;
mod names;
mod pure;
mod rooms;
mod rules;
mod sizes;
mod surface;

use crate::tools::root;
use language::Ratchet;
use std::{collections::BTreeMap, fs, io, path::Path, process::ExitCode};

/// Directories that hold the project's Rust files.
const TREES: [&str; 4] = ["crates", "xtask", "fuzz", "mutants"];

/// Most lines of code in a file: blank lines and lines of comment are not counted.
const FILE_LINES_MAX: usize = 600;

/// Most lines in a function, from its signature to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Files and functions that were longer before this check covered the whole tree. An entry names the file,
/// or the file and the function, and its present length. Lengths here may only fall; add no entry.
const LONGER: &[(&str, usize)] =
    &[("crates/node/src/engine/wiring.rs: start", 78), ("crates/protocol/tests/scenarios/service.rs", 715)];

/// How often each tic of language may occur in comments. A ceiling may only fall, and must reach a tenth of
/// the count at commit 5033e5d. When a check says that a count fell, write the new ceiling here.
const RATCHETS: [Ratchet; 4] = [
    Ratchet {
        tic: "what",
        ceiling: 1,
        first_count: 563,
        remedy: "open the doc comment with a noun or a verb instead of What, Whether or Who",
    },
    Ratchet {
        tic: "who",
        ceiling: 1,
        first_count: 35,
        remedy: "name the person or member instead of a preposition and \"who\"",
    },
    Ratchet {
        tic: "tell",
        ceiling: 1,
        first_count: 118,
        remedy: "write the exact verb: report, log, send, return, distinguish",
    },
    Ratchet {
        tic: "short",
        ceiling: 0,
        first_count: 810,
        remedy: "say more than the name does (a unit, a range, a condition) in four words or more",
    },
];

/// A Rust file of the tree: its path from the root of the project, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The file's lines with their numbers.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }
}

/// Runs every check; prints each problem, or a line of counts if there is none.
pub(crate) fn run() -> ExitCode {
    match problems(&root()) {
        Ok((summary, problems)) if problems.is_empty() => {
            eprintln!("{summary}");
            ExitCode::SUCCESS
        }
        Ok((_, problems)) => {
            eprintln!("{}\n\ntidy: {} problems", problems.join("\n"), problems.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("tidy cannot read the tree: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A line of counts, and the problems of the tree under `root`.
fn problems(root: &Path) -> io::Result<(String, Vec<String>)> {
    let mut sources = Vec::new();
    for tree in TREES {
        collect(root, tree, &mut sources)?;
    }
    let rules = fs::read_to_string(root.join("docs/protocol.md"))?;
    let architecture = fs::read_to_string(root.join("ARCHITECTURE.md"))?;
    let exists = |path: &str| root.join(path).exists();
    let mut found = sizes::check(&sources, LONGER);
    found.extend(pure::check(&sources));
    found.extend(layers::check(&sources));
    found.extend(cited::check(&sources, &cited::defined(&rules), exists));
    found.extend(rules::check(&rules));
    for document in documents(root)? {
        let text = fs::read_to_string(root.join(&document))?;
        found.extend(cited::files(&document, &text, &sources));
        found.extend(cited::tests(&document, &text, &sources));
    }
    found.extend(lists::check(&architecture, &sources, exists));
    found.extend(map::check(&sources, &architecture));
    found.extend(names::check(&sources));
    found.extend(surface::check(&sources));
    found.extend(rooms::check(&manifests(root)?, &fs::read_to_string(root.join("Cargo.lock"))?));
    let (counts, over) = language::check(&sources, &RATCHETS);
    found.extend(over);
    Ok((format!("tidy: {} files; {counts}", sources.len()), found))
}

/// The documents whose citations of files are checked.
fn documents(root: &Path) -> io::Result<Vec<String>> {
    let mut all = vec!["ARCHITECTURE.md".to_string()];
    for entry in fs::read_dir(root.join("docs"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        all.extend(name.ends_with(".md").then(|| format!("docs/{name}")));
    }
    all.sort_unstable();
    Ok(all)
}

/// The manifests of the project's crates, by package.
fn manifests(root: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(root.join("crates"))? {
        let entry = entry?;
        let name = format!("posync-{}", entry.file_name().to_string_lossy());
        all.insert(name, fs::read_to_string(entry.path().join("Cargo.toml"))?);
    }
    Ok(all)
}

/// Appends every Rust file below `directory`, in the order of names, without build output.
fn collect(root: &Path, directory: &str, sources: &mut Vec<Source>) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(root.join(directory))?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{directory}/{name}");
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(root, &path, sources)?;
            }
        } else if name.ends_with(".rs") {
            sources.push(Source { text: fs::read_to_string(entry.path())?, path });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source for the tests of the checks.
    pub(super) fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn build_output_is_skipped() {
        let directory = std::env::temp_dir().join(format!("posync-tidy-{}", std::process::id()));
        for file in ["crates/a/src/lib.rs", "crates/a/target/out.rs", "crates/a/notes.txt"] {
            let path = directory.join(file);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(path, "//! A file.\n").expect("a file");
        }
        let mut sources = Vec::new();
        collect(&directory, "crates", &mut sources).expect("a readable tree");
        fs::remove_dir_all(&directory).expect("the test's own directory");
        let paths: Vec<&str> = sources.iter().map(|source| source.path.as_str()).collect();
        assert_eq!(paths, ["crates/a/src/lib.rs"]);
    }
}
