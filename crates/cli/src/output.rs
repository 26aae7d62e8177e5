//! The output of a command: its answer on stdout, everything else on stderr.
//!
//! With `--json` the answer is one JSON value (or one per line, where a command says so) and nothing
//! else goes to stdout. A progress bar is drawn only on a terminal.

use crate::failure::{Failure, Outcome};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use std::io::{self, IsTerminal as _, Write as _};

/// The format of a command's output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// Prints one JSON value instead of text.
    pub(crate) json: bool,
}

impl Output {
    /// Prints the answer: `value` as JSON, or `text` for people.
    pub(crate) fn answer(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Outcome {
        let line = if self.json {
            serde_json::to_string(value).expect("answers are plain data with string keys")
        } else {
            visible(&text())
        };
        match writeln!(io::stdout(), "{}", line.trim_end()) {
            // The reader has closed the pipe: it has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(lost),
        }
    }

    /// True once the reader of standard output has ended; a command without an end then ends.
    pub(crate) fn is_closed(self) -> bool {
        let stdout = io::stdout();
        let mut ends = [PollFd::new(&stdout, PollFlags::empty())];
        let closed = PollFlags::ERR | PollFlags::NVAL;
        poll(&mut ends, Some(&Timespec::default())).is_ok() && ends[0].revents().intersects(closed)
    }

    /// A progress bar over `bytes`, drawn only on a terminal and not with `--json`.
    pub(crate) fn progress(self, bytes: u64) -> ProgressBar {
        let bar = ProgressBar::new(bytes);
        if self.json || !io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = "{bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is valid"));
        bar
    }
}

fn lost(error: io::Error) -> Failure {
    Failure::file(std::path::Path::new("standard output"), "write to", error)
}

/// The text with its control characters, which a terminal would obey, as escapes; line breaks stay.
pub(crate) fn visible(text: &str) -> String {
    escaped(text, |character| character.is_control() && character != '\n')
}

/// A name or another word that an outsider chose, on one line and without control characters.
pub(crate) fn word(text: &str) -> String {
    escaped(text, char::is_control)
}

fn escaped(text: &str, is_raw: impl Fn(char) -> bool) -> String {
    let mut all = String::with_capacity(text.len());
    for character in text.chars() {
        if is_raw(character) {
            all.extend(character.escape_default());
        } else {
            all.push(character);
        }
    }
    all
}

/// Lays out rows of cells under a heading, with two spaces between columns.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| word(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([heading[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut heading.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::{table, visible, word};

    #[test]
    fn a_table_lines_up() {
        let rows = [vec!["a".into(), "1".into()], vec!["long".into(), "22".into()]];
        assert_eq!(table(&["name", "n"], &rows), "name  n\na     1\nlong  22");
    }

    #[test]
    fn a_terminal_obeys_no_name() {
        assert_eq!(visible("a\u{1b}[2Jb\rc\nd\u{9b}"), "a\\u{1b}[2Jb\\rc\nd\\u{9b}");
        assert_eq!(word("a\nb\tc"), "a\\nb\\tc");
        assert_eq!(word("über ✓"), "über ✓");
        let rows = [vec!["a\nb".into(), "1".into()]];
        assert_eq!(table(&["name", "n"], &rows), "name  n\na\\nb  1");
    }
}
