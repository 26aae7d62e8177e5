//! Builds one program that holds all mutants: each place asks at run time which one is on.

use crate::sites::Site;

/// A site with its number, counted from 1.
pub type Numbered<'a> = (u32, &'a Site);

/// The text of a file with its mutants built in: `(if on(7) { mutated } else { original })`. A
/// mutant's own text contains no other mutant, because only one is on at a time.
pub fn render(text: &str, mutants: &[Numbered<'_>]) -> String {
    let mut sorted = mutants.to_vec();
    // The outer of two nested places comes first; equal places keep the order of their numbers.
    sorted.sort_by_key(|(number, site)| (site.range.start, std::cmp::Reverse(site.range.end), *number));
    part(text, 0, text.len(), &sorted)
}

fn part(text: &str, start: usize, end: usize, mutants: &[Numbered<'_>]) -> String {
    let (mut out, mut at, mut rest) = (String::new(), start, mutants);
    while let Some((_, outer)) = rest.first() {
        let range = &outer.range;
        out.push_str(&text[at..range.start]);
        let inside = rest.iter().take_while(|(_, site)| site.range.start < range.end).count();
        let same = rest[..inside].iter().take_while(|(_, site)| site.range == *range).count();
        let original = part(text, range.start, range.end, &rest[same..inside]);
        out.push_str(&choose(&rest[..same], original));
        (at, rest) = (range.end, &rest[inside..]);
    }
    out.push_str(&text[at..end]);
    out
}

fn choose(mutants: &[Numbered<'_>], original: String) -> String {
    mutants.iter().rev().fold(original, |original, (number, site)| match site.is_storage_proof {
        true => format!("if !crate::mutant::on({number}) {{ {original} }}"),
        false => {
            format!("(if crate::mutant::on({number}) {{ {} }} else {{ {original} }})", site.mutated)
        }
    })
}

/// Source of the module that reads the switch.
pub const SWITCH: &str = "//! Which mutant is on: none without a number in the environment.
extern crate std;

/// Whether the mutant of this number is on.
pub(crate) fn on(number: u32) -> bool {
    static ON: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    let read = || std::env::var(\"MUTANT\").map_or(0, |text| text.parse().expect(\"a number\"));
    *ON.get_or_init(read) == number
}
";

/// Numbers of the mutants that can cause a compiler error on a line of a rendered file.
pub fn blamed(rendered: &str, line: usize) -> Vec<u32> {
    let lines: Vec<&str> = rendered.lines().collect();
    let at = line.clamp(1, lines.len().max(1));
    for first in (0..at).rev().take(12) {
        let numbers: Vec<u32> = lines[first..at.min(lines.len())]
            .iter()
            .flat_map(|line| line.split("mutant::on(").skip(1))
            .filter_map(|rest| rest.split(')').next()?.parse().ok())
            .collect();
        if !numbers.is_empty() {
            return numbers;
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sites::find;

    #[test]
    fn nested_places_each_get_their_switch_and_the_original_stays() {
        let text = "fn f() -> bool { a.min(1) < b }";
        let sites = find(text).expect("Rust");
        let numbered: Vec<Numbered<'_>> = (1..).zip(&sites).collect();
        let out = render(text, &numbered);
        assert!((1..=sites.len()).all(|number| out.contains(&format!("on({number})"))), "{out}");
        assert!(syn::parse_file(&out).is_ok(), "{out}");
        assert_eq!(render(text, &[]), text);
        assert_eq!(blamed(&out, 1).len(), sites.len());
    }
}
