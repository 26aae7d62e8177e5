//! The section of docs/operating.md that four people follow, as steps with the commands that they print.
//!
//! A command is a line of a code block, with the lines that continue it and without its comment. Every command
//! must be taken at least once: the run fails if the page prints one that nobody ran.

use std::{cell::RefCell, collections::BTreeSet};

/// Heading of the section.
const SECTION: &str = "## A network of four people\n";
/// Begin of the next section.
const NEXT: &str = "\n## ";
/// A comment of a command begins with this.
const COMMENT: &str = "  # ";

/// The steps of the section, and which of their commands were taken.
pub(super) struct Page {
    /// The commands of each step; step 1 comes first.
    steps: Vec<Vec<String>>,
    taken: RefCell<BTreeSet<(usize, usize)>>,
}

impl Page {
    /// Reads the section out of the whole document.
    ///
    /// # Errors
    /// A text if the section, or the numbers of its steps in order, are not there.
    pub(super) fn read(document: &str) -> Result<Self, String> {
        let (_, section) =
            document.split_once(SECTION).ok_or("docs/operating.md has no section for four people")?;
        let section = section.split(NEXT).next().unwrap_or(section).replace("\\\n", " ");
        let (mut steps, mut in_block) = (Vec::<Vec<String>>::new(), false);
        for line in section.lines() {
            if line.starts_with("```") {
                in_block = !in_block;
            } else if let (true, Some(step)) = (in_block, steps.last_mut()) {
                step.push(command(line));
            } else if let Some(number) = number(line) {
                steps.push(Vec::new());
                if number != steps.len() {
                    return Err(format!(
                        "step {number} of docs/operating.md comes as number {}",
                        steps.len()
                    ));
                }
            }
        }
        Ok(Self { steps, taken: RefCell::default() })
    }

    /// Reads a section of another document, with each code block as a step.
    ///
    /// # Errors
    /// A text if the section is not there.
    pub(super) fn blocks(document: &str, heading: &str) -> Result<Self, String> {
        let section =
            document.split_once(heading).ok_or_else(|| format!("there is no section '{heading}'"))?.1;
        let section = section.split(NEXT).next().unwrap_or(section);
        let blocks = section.split("```").skip(1).step_by(2);
        let commands = |block: &str| block.lines().map(command).filter(|line| !line.is_empty()).collect();
        Ok(Self { steps: blocks.map(commands).collect(), taken: RefCell::default() })
    }

    /// Number of the steps that the section has.
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// All commands of a step, in order.
    pub(super) fn all(&self, step: usize) -> Result<Vec<String>, String> {
        let commands = step.checked_sub(1).and_then(|at| self.steps.get(at));
        let commands = commands.ok_or_else(|| format!("docs/operating.md has no step {step}"))?;
        self.taken.borrow_mut().extend((0..commands.len()).map(|at| (step, at)));
        Ok(commands.clone())
    }

    /// The only command of a step that contains these words.
    ///
    /// # Errors
    /// A text if none or several do.
    pub(super) fn take(&self, step: usize, words: &str) -> Result<String, String> {
        let commands = step.checked_sub(1).and_then(|at| self.steps.get(at)).map_or(&[][..], Vec::as_slice);
        let mut found = commands.iter().enumerate().filter(|(_, command)| command.contains(words));
        let (Some((at, command)), None) = (found.next(), found.next()) else {
            return Err(format!(
                "step {step} of docs/operating.md does not print exactly one command with '{words}'"
            ));
        };
        self.taken.borrow_mut().insert((step, at));
        Ok(command.clone())
    }

    /// The commands that were never taken, each with its step.
    pub(super) fn left(&self) -> Vec<String> {
        let taken = self.taken.borrow();
        let all = self.steps.iter().enumerate().flat_map(|(at, step)| {
            step.iter().enumerate().map(move |(place, command)| ((at + 1, place), command))
        });
        all.filter(|(key, _)| !taken.contains(key))
            .map(|((step, _), command)| format!("{step}: {command}"))
            .collect()
    }
}

/// Number of the step that begins in this line, such as `**3. Names, on all four.** Give ...`.
fn number(line: &str) -> Option<usize> {
    line.strip_prefix("**")?.split_once(". ")?.0.parse().ok()
}

/// A line of a block without its comment, with single spaces between its words.
fn command(line: &str) -> String {
    let text = line.split_once(COMMENT).map_or(line, |(text, _)| text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Operating\n## A network of four people\nFour.\n**1. Build, on all.** Then:\n\n```\n\
        one a  # first\ntwo \\\n    --set x=1\n```\n\n**2. Start.** `inline` is prose.\n```\nthree\n```\n## Next\n```\nfour\n```\n";

    #[test]
    fn commands_are_read_by_step_and_those_that_nobody_ran_are_named() {
        let page = Page::read(TEXT).expect("the text has the section");
        assert_eq!(page.len(), 2);
        assert_eq!(page.take(1, "--set"), Ok("two --set x=1".into()));
        assert_eq!(page.left(), ["1: one a", "2: three"]);
        assert!(page.take(2, "four").is_err() && page.take(3, "one").is_err() && page.take(1, "").is_err());
        assert_eq!(page.all(2), Ok(vec!["three".into()]));
        assert_eq!(page.left(), ["1: one a"]);
    }

    #[test]
    fn blocks_of_another_section_are_steps() {
        let page = Page::blocks(TEXT, SECTION).expect("the section is there");
        assert_eq!((page.len(), page.take(2, "three")), (2, Ok("three".into())));
        assert!(Page::blocks(TEXT, "## None").is_err());
    }

    #[test]
    fn a_page_without_the_section_or_with_a_missing_step_is_refused() {
        assert!(Page::read("# Operating\n").is_err());
        assert!(Page::read(&TEXT.replace("**2.", "**3.")).is_err());
    }

    #[test]
    fn the_document_has_ten_steps_with_commands() {
        let text =
            std::fs::read_to_string(crate::tools::root().join("docs/operating.md")).unwrap_or_default();
        let page = Page::read(&text).expect("the section is there");
        assert_eq!(page.len(), 10);
        for step in (1..=10).filter(|step| *step != 2) {
            assert!(
                page.all(step).is_ok_and(|commands| !commands.is_empty()),
                "step {step} prints no command"
            );
        }
    }
}
