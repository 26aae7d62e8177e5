//! Figures of a network on machines of its own: ceremonies of several sizes, and each role when nobody uses it.

use super::{
    manual::{self, with},
    story::{self, PATIENCE, Story, Told, host, newest},
    world::{Side, World},
};
use crate::idle::{resident, stat, ticks_per_second};
use std::{
    collections::BTreeMap,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Machines of the ceremonies.
const SIZES: [usize; 3] = [4, 7, 10];
/// Ceremonies of each size.
const CEREMONIES: usize = 3;
/// Seconds for a ceremony: ten machines on a few shared cores may need minutes.
const CEREMONY_SECONDS: u64 = 600;
/// Time before the measured one, in which the work after a put ends.
const SETTLE: Duration = Duration::from_secs(20);
/// Time for which idle roles are measured.
const IDLE: Duration = Duration::from_secs(120);

/// Runs ceremonies of each size on machines of their own, and prints how long each took.
pub(super) fn ceremonies(program: &Path) -> Result<(), String> {
    for size in SIZES {
        let mut rows = Vec::new();
        for _ in 0..CEREMONIES {
            let [signed, ended] = ceremony(program, size)?.map(|time| time.as_secs_f64());
            rows.push(format!("{signed:.1} s ({ended:.1} s)"));
        }
        println!(
            "  ceremony of {size}: the genesis is signed on all (all have ended) after {}",
            rows.join(", ")
        );
    }
    Ok(())
}

/// The times from the start of all machines until all have the signed genesis, and until all have ended.
fn ceremony(program: &Path, size: usize) -> Result<[Duration; 2], String> {
    let mut world = World::new()?;
    world.install(program)?;
    let names: Vec<String> = (0..size).map(|number| format!("a{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        world.add(name, Side::of(number))?;
        world.run(name, &with(manual::INIT_AUTHORITY, &[("node.example.org", &host(name))]))?;
        world.mail(name, "D/card.json", "a0", &format!("cards/{name}.json"))?;
    }
    world.run("a0", &with(manual::DRAFT, &[("production", "local")]))?;
    for name in &names[1..] {
        world.mail("a0", "draft.json", name, "draft.json")?;
    }
    let shown: Vec<&str> = names.iter().map(String::as_str).collect();
    let since = Instant::now();
    for name in &names {
        world.start(name, manual::CEREMONY)?;
    }
    world.until("all have the genesis", CEREMONY_SECONDS, &shown, |world| {
        let has = |name: &String| world.home(name).join("D/genesis.signatures").exists();
        Ok(names.iter().all(has).then_some(()))
    })?;
    let signed = since.elapsed();
    for name in &names {
        let status = world.until("the ceremony ends", PATIENCE, &shown, |world| world.ended(name))?;
        if !status.success() {
            return Err(format!("{name}: {status}: {}", world.screen(name)));
        }
    }
    Ok([signed, since.elapsed()])
}

/// Processor time, in ticks, and resident bytes of each machine's process.
fn sample(world: &World) -> Result<BTreeMap<String, (u64, u64)>, String> {
    let mut samples = BTreeMap::new();
    for name in world.running() {
        let process = world.process(&name)?;
        let (_, ticks) = stat(process).ok_or_else(|| format!("the process of {name} has ended"))?;
        samples.insert(name, (ticks, resident(process)));
    }
    Ok(samples)
}

/// Stores a file, and then measures every role while nobody asks for anything.
pub(super) fn idle(story: &mut Story) -> Told {
    story::store(story, "c0", "g0", &host("g0"), 1)?;
    thread::sleep(SETTLE);
    let (before, first, since) = (sample(&story.world)?, newest(&story.status()?)?, Instant::now());
    thread::sleep(IDLE);
    let (after, took) = (sample(&story.world)?, since.elapsed().as_secs_f64());
    let blocks = newest(&story.status()?)?.saturating_sub(first);
    let mut roles: BTreeMap<&str, Vec<(f64, u64)>> = BTreeMap::new();
    for (name, (ticks, resident)) in &after {
        let (earlier, _) = before.get(name).ok_or_else(|| format!("{name} was not there before"))?;
        let seconds = ticks.saturating_sub(*earlier) as f64 / ticks_per_second();
        roles.entry(role(name)).or_default().push((seconds, *resident));
    }
    let rows = roles.iter().map(|(role, rows)| row(role, rows, took, blocks));
    Ok(format!("{took:.0} s, {blocks} blocks{}", rows.collect::<String>()))
}

/// The role of a machine, by the first letter of its name.
fn role(name: &str) -> &'static str {
    match name.as_bytes().first() {
        Some(b'a') => "authority",
        Some(b'n') => "node without a seat",
        Some(b'p') => "provider",
        Some(b'g') => "gateway",
        _ => "other",
    }
}

/// Mean and highest processor time of the processes of a role, and their resident memory.
fn row(role: &str, rows: &[(f64, u64)], seconds: f64, blocks: u64) -> String {
    let count = rows.len();
    let (sum, most) =
        rows.iter().fold((0.0, 0.0_f64), |(sum, most), (spent, _)| (sum + spent, most.max(*spent)));
    let mean = sum / count.max(1) as f64;
    let resident = rows.iter().map(|(_, resident)| resident >> 20);
    let (least, largest) = (resident.clone().min().unwrap_or(0), resident.max().unwrap_or(0));
    format!(
        "\n    {count} x {role}: {:.2} % of a core each, at most {:.2} %; {:.1} ms a block; {least} to {largest} MiB resident",
        100.0 * mean / seconds,
        100.0 * most / seconds,
        1_000.0 * mean / blocks.max(1) as f64,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_holds_mean_and_highest_figures_of_a_role() {
        let text = row(role("p3"), &[(1.0, 10 << 20), (3.0, 12 << 20)], 100.0, 400);
        assert!(
            text.contains("2 x provider: 2.00 % of a core each, at most 3.00 %; 5.0 ms a block"),
            "{text}"
        );
        assert!(text.ends_with("10 to 12 MiB resident"), "{text}");
        assert_eq!(
            ["a0", "n1", "g0", "c0"].map(role),
            ["authority", "node without a seat", "gateway", "other"]
        );
    }
}
