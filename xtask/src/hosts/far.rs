//! A network whose halves are far apart: `cargo xtask hosts --far`.
//!
//! Two authorities, half of the providers and the gateway are on one side of the [relay](super::relay), the
//! others on the other one. The ceremony, every block and every file cross it.

use super::{
    relay::{Cut, Way},
    story::{Story, Told, blocks_from, fetch, follows, newest, store},
};
use std::time::{Duration, Instant};

/// The way between the halves: a round trip of 100 ms, and one frame of a hundred lost in each direction.
pub(super) const WAY: Way = Way { delay: Duration::from_millis(50), loss: 10 };
/// Seed of the losses.
pub(super) const SEED: u64 = 7;
/// Providers: a segment has eight holders.
pub(super) const PROVIDERS: usize = 8;
/// Blocks over which their time is measured.
const MEASURED_BLOCKS: u64 = 80;
/// Files that are stored and read, each of 4 MiB and a piece.
const FILES: u64 = 3;
/// The authority that is cut off in one direction.
const CUT_OFF: &str = "a3";
/// Blocks that the others make meanwhile.
const BLOCKS_MEANWHILE: u64 = 40;
/// Seconds until the authority that is cut off notices it.
const NOTICED_SECONDS: u64 = 120;

/// Blocks go on; their mean time is measured.
pub(super) fn blocks(story: &mut Story) -> Told {
    let (took, loss) = (time_of(story, MEASURED_BLOCKS)?, lost(story)?);
    Ok(format!("{took:.3} s a block over {MEASURED_BLOCKS} blocks; {loss}"))
}

/// The mean time of a block, in seconds.
fn time_of(story: &mut Story, blocks: u64) -> Result<f64, String> {
    let from = newest(&story.status()?)?;
    let from = blocks_from(story, from, 1)?;
    let since = Instant::now();
    let to = blocks_from(story, from, blocks)?;
    Ok(since.elapsed().as_secs_f64() / (to - from) as f64)
}

/// The frames that crossed and were lost so far.
///
/// # Errors
/// A text if nothing was lost: then the relay was not on the way.
fn lost(story: &Story) -> Result<String, String> {
    let counts = story.world.relay.as_ref().ok_or("there is no relay")?.counts()?;
    if counts.crossed == 0 || counts.lost == 0 {
        return Err(format!("the relay was not on the way: {counts:?}"));
    }
    let part = counts.lost as f64 / (counts.crossed + counts.lost) as f64;
    Ok(format!("{} frames crossed, {:.2} % were lost", counts.crossed, part * 100.0))
}

/// An owner stores files and reads them back.
pub(super) fn files(story: &mut Story) -> Told {
    let (mut puts, mut gets) = (Vec::new(), Vec::new());
    for seed in 0..FILES {
        puts.push(format!("{:.1}", store(story, "g1", "g1", "127.0.0.1", seed)?.as_secs_f64()));
        gets.push(format!("{:.1}", fetch(story, "g1", "g1", "127.0.0.1", seed)?.as_secs_f64()));
    }
    Ok(format!("put {} s, get {} s", puts.join(", "), gets.join(", ")))
}

/// Nothing that one authority sends arrives any more: the others go on, it raises an alert.
pub(super) fn silenced(story: &mut Story) -> Told {
    one_way(story, Cut::Outward)
}

/// Nothing that others send arrives at one authority any more: the others go on, it raises an alert.
pub(super) fn deafened(story: &mut Story) -> Told {
    one_way(story, Cut::Inward)
}

/// Cuts an authority off in one direction. The others make blocks and serve files; it raises the alert `behind`,
/// and follows and clears the alert after the cut has ended.
fn one_way(story: &mut Story, cut: Cut) -> Told {
    let from = story.world.screen(CUT_OFF).len();
    let raised = |state: &'static str| {
        move |world: &mut super::world::World| {
            let screen = world.screen(CUT_OFF);
            let mut new = screen.get(from..).unwrap_or_default().lines();
            let is_there = new.any(|line| line.contains("posync::alert") && line.contains(state));
            Ok(is_there.then_some(()))
        }
    };
    relay(story)?.cut(CUT_OFF, Some(cut))?;
    let height = newest(&story.status()?)?;
    let since = Instant::now();
    let to = blocks_from(story, height, BLOCKS_MEANWHILE)?;
    let pace = since.elapsed().as_secs_f64() / (to - height) as f64;
    story.world.until("it raises an alert", NOTICED_SECONDS, &[CUT_OFF], raised("no block"))?;
    let noticed = since.elapsed().as_secs_f64();
    store(story, "g1", "g1", "127.0.0.1", 20)?;
    fetch(story, "g1", "g1", "127.0.0.1", 20)?;
    if relay(story)?.counts()?.cut == 0 {
        return Err("the relay cut nothing".into());
    }
    relay(story)?.cut(CUT_OFF, None)?;
    let healed = follows(story, CUT_OFF)?;
    story.world.until("its alert ends", NOTICED_SECONDS, &[CUT_OFF], raised("over: no block"))?;
    Ok(format!(
        "{pace:.2} s a block meanwhile, alert after {noticed:.0} s, in step {healed:.1} s after the cut"
    ))
}

fn relay(story: &Story) -> Result<&super::relay::Relay, String> {
    story.world.relay.as_ref().ok_or_else(|| "there is no relay".into())
}
