//! The code map of ARCHITECTURE.md: one line for each module of each crate.

use super::Source;
use std::collections::BTreeSet;

/// The heading of the code map.
const HEADING: &str = "## Code map";

/// The modules that stand in the map, as `crate/module`.
fn listed(architecture: &str) -> BTreeSet<String> {
    let section = architecture.lines().skip_while(|line| *line != HEADING).skip(1);
    let section = section.take_while(|line| !line.starts_with("## "));
    let (mut listed, mut name) = (BTreeSet::new(), "");
    for line in section {
        if let Some(of) = line.strip_prefix("### ") {
            name = of.trim_matches('`');
        } else if let Some(module) = line.strip_prefix("| `").and_then(|line| line.split('`').next()) {
            listed.insert(format!("{name}/{module}"));
        }
    }
    listed
}

/// Modules without a line in the map, and lines without a module.
pub(super) fn check(sources: &[Source], architecture: &str) -> Vec<String> {
    let listed = listed(architecture);
    let mut modules = BTreeSet::new();
    for source in sources {
        let Some((name, path)) =
            source.path.strip_prefix("crates/").and_then(|path| path.split_once("/src/"))
        else {
            continue;
        };
        let module = path.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        if !["lib", "main", "bin", "tests"].contains(&module) {
            modules.insert(format!("{name}/{module}"));
        }
    }
    let absent = modules.difference(&listed).map(|module| {
        format!("ARCHITECTURE.md: the code map lacks `{module}`: add one line that says what it is for")
    });
    let gone = listed.difference(&modules).map(|module| {
        format!("ARCHITECTURE.md: the code map names `{module}`, which does not exist: remove its line")
    });
    absent.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests::source;

    #[test]
    fn every_module_has_a_line_and_every_line_a_module() {
        let map = "## Code map\n\n### `node`\n\n| module | is for |\n| --- | --- |\n| `feed` | receipts |\n\n## Next\n";
        let sources = [source("crates/node/src/feed.rs", ""), source("crates/node/src/lib.rs", "")];
        assert_eq!(check(&sources, map), Vec::<String>::new());
        let more = [source("crates/node/src/mempool/actor.rs", "")];
        let found = check(&more, map);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("node/mempool") && found[1].contains("node/feed"), "{found:?}");
    }
}
