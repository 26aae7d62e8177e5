//! Text that others chose, as it may be shown: a name that holds control characters must not move a
//! terminal's cursor, change its title or turn a line around.

use std::borrow::Cow;

/// Escapes what a terminal obeys, and leaves line breaks.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    escape(text, |c| c != '\n' && is_obeyed(c))
}

/// Escapes what a terminal obeys, line breaks too: for a name within a line.
pub(crate) fn inline(text: &str) -> Cow<'_, str> {
    escape(text, is_obeyed)
}

/// Controls, breaks of lines and paragraphs, and marks that change the direction of what follows.
fn is_obeyed(c: char) -> bool {
    let direction = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || direction || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn escape(text: &str, obeyed: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&obeyed) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if obeyed(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown_and_all_else_is_as_it_was() {
        for same in ["", "a name", "é ü 字 \u{1f600} 'quoted' \\n"] {
            assert_eq!((plain(same), inline(same)), (same.into(), same.into()));
        }
        assert_eq!(
            inline("a\u{1b}[2Jb\r\n\u{202e}c\u{7f}\u{9b}"),
            "a\\u{1b}[2Jb\\r\\n\\u{202e}c\\u{7f}\\u{9b}"
        );
        assert_eq!(plain("two\nlines\t\u{7}"), "two\nlines\\t\\u{7}");
    }
}
