//! The length of the rules in `docs/protocol.md`: a reader takes in one block of sentences at a time.

/// Most words in a block: the lead paragraph of a rule, or one of its points.
const BLOCK_WORDS_MAX: usize = 80;

/// A block of sentences: the rule that it belongs to, the number of its first line, and its words.
#[derive(Debug, PartialEq, Eq)]
struct Block<'a> {
    rule: &'a str,
    line: usize,
    words: usize,
}

/// Blocks of rules that are too long.
pub(super) fn check(rules: &str) -> Vec<String> {
    let long = blocks(rules).into_iter().filter(|block| block.words > BLOCK_WORDS_MAX);
    long.map(|Block { rule, line, words }| {
        format!(
            "docs/protocol.md:{line}: a block of {rule} has {words} words; the limit is {BLOCK_WORDS_MAX}: \
             shorten it, or move a part into a point of its own"
        )
    })
    .collect()
}

/// The blocks of all rules. A rule begins with its number in bold, a point of it with an indented dash;
/// indented lines continue a block. All words count, also those of the citations.
fn blocks(rules: &str) -> Vec<Block<'_>> {
    let mut all: Vec<Block<'_>> = Vec::new();
    let mut rule = None;
    for (line, text) in (1..).zip(rules.lines()) {
        let words = text.split_whitespace().filter(|word| *word != "-").count();
        if let Some((number, _)) = text.strip_prefix("- **").and_then(|rest| rest.split_once("** ")) {
            rule = number.contains('-').then_some(number);
            all.extend(rule.map(|rule| Block { rule, line, words: words - 1 }));
        } else if !text.starts_with("  ") {
            rule = None;
        } else if let Some(rule) = rule {
            match all.last_mut() {
                Some(block) if !text.trim_start().starts_with("- ") => block.words += words,
                _ => all.push(Block { rule, line, words }),
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_and_each_point_of_a_rule_are_counted_apart() {
        let text = "- **LE-1** One two\n  three. (`four`)\n  - Five\n    six.\n  - Seven.\n\n  Eight.\n- No rule.\n  Nine.\n";
        let block = |line, words| Block { rule: "LE-1", line, words };
        assert_eq!(blocks(text), [block(1, 4), block(3, 2), block(5, 1)]);
    }

    #[test]
    fn a_long_block_is_found() {
        let of = |words: usize| {
            let words = "word ".repeat(words);
            check(&format!("- **LE-1** {words}\n  - {words}\n"))
        };
        assert!(of(BLOCK_WORDS_MAX).is_empty());
        let found = of(BLOCK_WORDS_MAX + 1);
        assert_eq!(found.len(), 2);
        assert!(found[1].starts_with("docs/protocol.md:2: a block of LE-1 has 81 words"), "{found:?}");
    }
}
