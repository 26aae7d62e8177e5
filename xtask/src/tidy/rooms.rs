//! Which crates a crate never links: neither directly nor through another one. Dependencies of tests alone
//! are free.

use std::collections::{BTreeMap, BTreeSet};

/// For each crate of the project, packages that it never links.
const NEVER: &[(&str, &[&str])] = &[
    ("posync-client", &["posync-node"]),
    ("posync-node", &["posync-provider", "posync-consumer", "posync-gateway", "posync-compute"]),
    ("posync-compute", &["posync-node", "posync-provider", "posync-gateway"]),
    ("posync-provider", &["posync-node", "posync-consumer", "posync-gateway"]),
    // An authority runs the auditor in it: it links nothing that only a gateway needs.
    ("posync-consumer", &["posync-node", "posync-provider", "posync-gateway", "reed-solomon-simd"]),
    ("posync-gateway", &["posync-node", "posync-provider"]),
    (
        "posync-alert",
        &["posync-client", "posync-node", "posync-provider", "posync-consumer", "posync-gateway"],
    ),
    (
        "posync-coding",
        &[
            "posync-alert",
            "posync-client",
            "posync-node",
            "posync-provider",
            "posync-consumer",
            "posync-gateway",
        ],
    ),
    (
        "posync-economy",
        &["posync-client", "posync-node", "posync-provider", "posync-consumer", "posync-gateway"],
    ),
];

/// The dependencies that a manifest links, without those of tests and builds.
fn linked(manifest: &str) -> BTreeSet<String> {
    let section = manifest.lines().skip_while(|line| line.trim() != "[dependencies]").skip(1);
    let section = section.take_while(|line| !line.starts_with('['));
    let name = |line: &str| line.split(['.', '=', ' ']).next().unwrap_or_default().to_owned();
    section.filter(|line| line.starts_with(char::is_alphabetic)).map(name).collect()
}

/// By package, the packages that the lock file names as its dependencies.
fn locked(lock: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::<String, BTreeSet<String>>::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |line: &str| line.strip_prefix("name = \"")?.strip_suffix('"').map(str::to_owned);
        let Some(name) = package.lines().find_map(field) else { continue };
        let names = package.lines().skip_while(|line| !line.starts_with("dependencies")).skip(1);
        let names = names.filter_map(|line| line.trim().strip_prefix('"')?.split(['"', ' ']).next());
        all.entry(name).or_default().extend(names.map(str::to_owned));
    }
    all
}

/// The problems of the project's crates: `manifests` by package, and the text of `Cargo.lock`.
pub(super) fn check(manifests: &BTreeMap<String, String>, lock: &str) -> Vec<String> {
    let mut links = locked(lock);
    // The lock file also names the dependencies of tests.
    links.extend(manifests.iter().map(|(package, manifest)| (package.clone(), linked(manifest))));
    let mut problems = Vec::new();
    for (package, never) in NEVER {
        if !manifests.contains_key(*package) {
            problems.push(format!("xtask/src/tidy/rooms.rs: there is no package {package}"));
            continue;
        }
        let mut from = BTreeMap::<&str, &str>::new();
        let mut rest = vec![*package];
        while let Some(one) = rest.pop() {
            for next in links.get(one).into_iter().flatten() {
                if next != package && !from.contains_key(next.as_str()) {
                    from.insert(next, one);
                    rest.push(next);
                }
            }
        }
        for found in never.iter().filter(|never| from.contains_key(**never)) {
            problems.push(format!("{package} must not link {found}, which comes through {}", from[found]));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"posync-consumer\"\nversion = \"0.1.0\"\n\
        dependencies = [\n \"futures\",\n \"proptest 1.2.0\",\n]\n\n[[package]]\nname = \"futures\"\n\
        version = \"1\"\ndependencies = [\n \"reed-solomon-simd\",\n]\n";

    fn manifests(consumer: &str) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> =
            NEVER.iter().map(|(package, _)| ((*package).into(), "[dependencies]\n".into())).collect();
        all.insert("posync-consumer".into(), consumer.into());
        all
    }

    #[test]
    fn a_link_through_another_crate_is_found_and_one_of_tests_is_not() {
        let none = "[dependencies]\nthiserror.workspace = true\n\n[dev-dependencies]\nposync-gateway.workspace = true\n";
        assert_eq!(check(&manifests(none), LOCK), Vec::<String>::new());
        let direct = "[dependencies]\nposync-gateway = { path = \"../gateway\" }\n";
        assert_eq!(check(&manifests(direct), LOCK).len(), 1, "direct");
        let through = check(&manifests("[dependencies]\nfutures.workspace = true\n"), LOCK);
        assert_eq!(through.len(), 1, "{through:?}");
        assert!(through[0].contains("reed-solomon-simd") && through[0].contains("futures"), "{through:?}");
    }

    #[test]
    fn a_crate_that_is_gone_must_leave_the_list() {
        let mut manifests = manifests("[dependencies]\n");
        manifests.remove("posync-alert");
        assert_eq!(check(&manifests, LOCK).len(), 1);
    }
}
