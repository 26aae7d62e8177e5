//! Gives back the space of removed, replaced and broken files.

use crate::{
    catalogue::{Catalogue, Stopped, row::JobRow},
    coding::FileId,
    core::Core,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Pause between passes.
const PASS_PAUSE: Duration = Duration::from_millis(500);
/// Jobs in one pass.
const JOBS_PER_PASS: usize = 64;

/// Works off jobs for ever: each segment's shards are taken out of their data sets, then its row
/// goes, then the job. A pass is idempotent, so a crash costs a pass.
pub async fn reap(core: Arc<Core>) {
    let mut from = 0;
    while pass(&core, &mut from).await.is_ok() {
        core.common.environment.sleep(PASS_PAUSE).await;
    }
}

async fn pass(core: &Core, from: &mut u32) -> Result<(), Stopped> {
    let is_putting = |file: &FileId| core.is_putting(file);
    for (number, job) in abandoned(&core.common.catalogue, is_putting, from).await? {
        if clear(core, &job).await? {
            core.common.catalogue.job_done(number, job).await?;
        }
    }
    Ok(())
}

/// The next jobs that no put is at work on, from the number `from` on, which goes round: those that cannot
/// be finished, as their provider is gone, starve nobody.
///
/// A put gives its job up before it stops being one, so what is no put and is still a job *afterwards* is
/// nobody's; asked the other way round, the job of a put that ends in between would take the finished
/// file with it.
async fn abandoned(
    catalogue: &Catalogue,
    is_putting: impl Fn(&FileId) -> bool,
    from: &mut u32,
) -> Result<Vec<(u32, JobRow)>, Stopped> {
    let mut idle = Vec::new();
    while idle.len() < JOBS_PER_PASS {
        let jobs = catalogue.jobs(*from, JOBS_PER_PASS - idle.len()).await?;
        let Some((last, _)) = jobs.last() else {
            *from = 0;
            break;
        };
        *from = last.saturating_add(1);
        idle.extend(jobs.into_iter().filter(|(_, job)| !is_putting(&job.file)));
    }
    let mut abandoned = Vec::new();
    for (number, job) in idle {
        if catalogue.job(number).await?.is_some_and(|still| still.file == job.file) {
            abandoned.push((number, job));
        }
    }
    Ok(abandoned)
}

/// Whether none of the job's segments has a row any more.
async fn clear(core: &Core, job: &JobRow) -> Result<bool, Stopped> {
    let (mut gone, mut drops) = (true, BTreeMap::<u32, Vec<u64>>::new());
    for segment in 0..job.segments {
        let Some(row) = core.common.catalogue.segment(job.file, segment).await? else { continue };
        if row.holdings.is_empty() {
            core.common.catalogue.forget_segment(job.file, segment).await?;
            continue;
        }
        gone = false;
        for holding in row.holdings.iter() {
            drops.entry(holding.deed).or_default().push(holding.sequence);
        }
    }
    for (deed, sequences) in drops {
        if let Some(deed) = core.deed(deed) {
            deed.drop_entries(sequences).await?;
        }
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;
    use commonware_runtime::{Runner as _, Supervisor as _, deterministic::Runner};

    #[test]
    fn every_job_has_its_turn_whatever_cannot_be_finished_before_it() {
        Runner::default().start(|context| async move {
            let started = catalogue::start(context.child("work"), "test", [9; 32]).await;
            let (catalogue, _, _disk) = started.expect("opens");
            for file in 0..200u8 {
                catalogue.begin([file; 16], 1).await.expect("runs");
            }
            // The first 70 are puts under way; none of the others can be finished.
            let (mut from, mut seen) = (0, Vec::new());
            for _ in 0..3 {
                let few = abandoned(&catalogue, |file| file[0] < 70, &mut from).await.expect("runs");
                assert!(few.len() <= JOBS_PER_PASS);
                seen.extend(few.into_iter().map(|(number, _)| number));
            }
            assert_eq!(seen, (70..200).collect::<Vec<u32>>());
            let again = abandoned(&catalogue, |_| false, &mut from).await.expect("runs");
            assert_eq!(again.first().map(|(number, _)| *number), Some(0), "round again");
        });
    }
}
