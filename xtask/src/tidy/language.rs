//! Tics of language in comments, counted over the tree: the counts may only fall.

use super::Source;

/// Most that a count may lie below its ceiling before the ceiling must be lowered.
const SLACK: usize = 10;

/// Most places that a message lists.
const SHOWN: usize = 20;

/// A tic: its name, the count that it may reach, its count when counting began, and the advice of its message.
pub(super) struct Ratchet {
    pub(super) tic: &'static str,
    pub(super) ceiling: usize,
    pub(super) first_count: usize,
    pub(super) remedy: &'static str,
}

/// An occurrence of a tic: its name and where it is.
#[derive(Debug, PartialEq, Eq)]
struct Hit {
    tic: &'static str,
    place: String,
}

/// A line of counts, and the ratchets that do not hold.
pub(super) fn check(sources: &[Source], ratchets: &[Ratchet]) -> (String, Vec<String>) {
    let hits: Vec<Hit> = sources.iter().flat_map(hits).collect();
    let (mut counts, mut found) = (Vec::new(), Vec::new());
    for ratchet in ratchets {
        let places: Vec<&str> =
            hits.iter().filter(|hit| hit.tic == ratchet.tic).map(|hit| hit.place.as_str()).collect();
        counts.push(format!("{} {} (goal {})", ratchet.tic, places.len(), ratchet.first_count / 10));
        found.extend(compare(ratchet, &places));
    }
    (counts.join(", "), found)
}

/// The problem of a count above its ceiling, or so far below it that the ceiling must follow.
fn compare(ratchet: &Ratchet, places: &[&str]) -> Option<String> {
    let Ratchet { tic, ceiling, remedy, .. } = ratchet;
    let count = places.len();
    if count > *ceiling {
        let list = places[..count.min(SHOWN)].join("\n  ");
        let message =
            format!("xtask/src/tidy.rs: `{tic}` occurs {count} times, ceiling {ceiling}: {remedy}.");
        return Some(format!("{message} The first {}:\n  {list}", count.min(SHOWN)));
    }
    (count + SLACK < *ceiling)
        .then(|| format!("xtask/src/tidy.rs: `{tic}` fell to {count}: write `ceiling: {count}` for it"))
}

/// The tics of a file, in the order of its lines.
fn hits(source: &Source) -> Vec<Hit> {
    let mut found = Vec::new();
    let mut block: Vec<(usize, &str)> = Vec::new();
    let mut hit = |tic, number: usize, text: &str| {
        found.push(Hit { tic, place: format!("{}:{number}: {}", source.path, text.trim()) });
    };
    for (number, line) in source.lines().chain([(0, "")]) {
        match doc(line) {
            Some(text) => block.push((number, text)),
            None => {
                of_block(&block).for_each(|tic| hit(tic, block[0].0, block[0].1));
                block.clear();
            }
        }
        let Some(text) = comment(line) else { continue };
        if has_fused_who(text) {
            hit("who", number, text);
        }
        if words(text).any(|word| ["tell", "tells", "told", "telling"].contains(&word.as_str())) {
            hit("tell", number, text);
        }
    }
    found
}

/// The tics of a doc comment, given as its lines.
fn of_block(block: &[(usize, &str)]) -> impl Iterator<Item = &'static str> {
    let first = block.first().map_or("", |(_, text)| text);
    let what = ["What", "Whether", "Who", "Whose", "Whom"].contains(&first_word(first));
    let short = block.len() == 1 && first.split_whitespace().count() <= 3 && !first.starts_with(['#', '[']);
    [what.then_some("what"), short.then_some("short")].into_iter().flatten()
}

/// The text of a line of a doc comment: after three slashes and no fourth.
fn doc(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("///")?;
    (!text.starts_with('/')).then(|| text.strip_prefix(' ').unwrap_or(text))
}

/// The text of a line after its first two slashes or more.
fn comment(line: &str) -> Option<&str> {
    let text = line.split_once("//")?.1.trim_start_matches('/');
    Some(text.strip_prefix('!').unwrap_or(text))
}

const fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn first_word(text: &str) -> &str {
    text.split(|c| !is_word(c)).next().unwrap_or_default()
}

/// The words of a text in small letters.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c| !is_word(c)).filter(|word| !word.is_empty()).map(str::to_ascii_lowercase)
}

/// True if a preposition stands directly before the word "who".
fn has_fused_who(text: &str) -> bool {
    const BEFORE: [&str; 14] = [
        "for", "of", "by", "with", "from", "to", "as", "than", "at", "on", "between", "against", "after",
        "and",
    ];
    let text = text.to_ascii_lowercase();
    text.match_indices(" who").any(|(at, found)| {
        let ends = !text[at + found.len()..].starts_with(is_word);
        let before = text[..at].rsplit(|c| !is_word(c)).next().unwrap_or_default();
        ends && BEFORE.contains(&before)
    })
}

#[cfg(test)]
mod tests {
    use super::{super::tests::source, *};

    /// The tics of lines of a doc comment.
    fn of(lines: &[&str]) -> Vec<&'static str> {
        let text: String = lines.iter().map(|line| format!("    {} {line}\n", "/".repeat(3))).collect();
        hits(&source("a.rs", &text)).into_iter().map(|hit| hit.tic).collect()
    }

    #[test]
    fn each_tic_is_found() {
        assert_eq!(of(&["What this returns if it fails."]), ["what"]);
        assert_eq!(of(&["Whose key it is, in hex."]), ["what"]);
        assert_eq!(of(&["The shards of who stores them."]), ["who"]);
        assert_eq!(of(&["A line that tells a story."]), ["tell"]);
        assert_eq!(of(&["The account."]), ["short"]);
    }

    #[test]
    fn other_comments_pass() {
        assert!(of(&["Whatever is left of the block."]).is_empty());
        assert!(of(&["A member who stores it."]).is_empty());
        assert!(of(&["The teller of the bank."]).is_empty());
        assert!(of(&["# Panics", "", "On a full disk."]).is_empty());
        assert!(of(&["The account,", "which pays."]).is_empty());
    }

    #[test]
    fn a_hit_names_its_line() {
        let hits = hits(&source("a.rs", &format!("fn a() {{}}\n\n{} The account.\n", "/".repeat(3))));
        assert_eq!(hits, [Hit { tic: "short", place: "a.rs:3: The account.".into() }]);
    }

    #[test]
    fn a_count_above_its_ceiling_is_a_problem() {
        let ratchet = Ratchet { tic: "who", ceiling: 1, first_count: 30, remedy: "name them" };
        let places = [&["a.rs:1: x"; 1][..], &["a.rs:2: x"; 30]];
        assert_eq!(compare(&ratchet, places[0]), None);
        let message = compare(&ratchet, places[1]).expect("a problem");
        assert!(message.contains("`who` occurs 30 times, ceiling 1: name them"), "{message}");
        assert_eq!(message.lines().count(), 1 + SHOWN);
    }

    #[test]
    fn a_ceiling_must_follow_its_count() {
        let ratchet = Ratchet { tic: "who", ceiling: 30, first_count: 30, remedy: "name them" };
        assert_eq!(compare(&ratchet, &["a.rs:1: x"; 20]), None);
        let message = compare(&ratchet, &["a.rs:1: x"; 19]).expect("a problem");
        assert!(message.contains("write `ceiling: 19`"), "{message}");
    }
}
