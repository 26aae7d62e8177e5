//! x
use posync_economy::{attacks, price_rows, row::*, seats};
fn main() {
    let mut rows = price_rows();
    rows.extend(seats::rows(1));
    rows.extend(attacks::all(1));
    for topic in [Topic::Honest, Topic::Price, Topic::Score, Topic::Attack, Topic::Published, Topic::Mutant] {
        println!("## {topic:?}");
        for r in rows.iter().filter(|r| r.topic == topic) {
            let n = r.figure.abs().to_string();
            let mut f = String::new();
            for (i, c) in n.chars().enumerate() {
                if i > 0 && (n.len() - i) % 3 == 0 {
                    f.push(',');
                }
                f.push(c);
            }
            println!(
                "| {} | {} | {}{} {} | {} | {} |",
                r.name,
                r.region,
                if r.figure < 0 { "-" } else { "" },
                f,
                r.unit,
                bound_text(r.bound),
                r.runs.text()
            );
        }
    }
}
