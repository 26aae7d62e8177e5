//! Frees the space of removed and replaced files, and of puts that did not finish.

use crate::{
    catalogue::{Catalogue, FileId, Stopped, row::JobRow},
    coding::billed,
    shared::Shared,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Pause between two passes over the jobs.
const PASS_PAUSE: Duration = Duration::from_millis(500);
/// Maximum of jobs that one pass works on.
const JOBS_PER_PASS: usize = 64;

/// Works off jobs until the catalogue ends. Each segment's shards are taken out of their data sets, then
/// its row is removed, then the job. A pass is idempotent, so a crash costs one pass.
pub(crate) async fn reap(shared: Arc<Shared>) {
    let mut from = 0;
    while pass(&shared, &mut from).await.is_ok() {
        shared.common.environment.sleep(PASS_PAUSE).await;
    }
}

async fn pass(shared: &Shared, from: &mut u32) -> Result<(), Stopped> {
    let is_putting = |file: &FileId| shared.is_putting(file);
    for (number, job) in abandoned(&shared.catalogue, is_putting, from).await? {
        match clear(shared, &job).await? {
            None => shared.catalogue.job_done(number, job).await?,
            Some(left) => shared.catalogue.left(number, left).await?,
        }
    }
    Ok(())
}

/// The next jobs that no put works on, from number `from` on. `from` wraps around, so jobs that cannot be
/// finished because their provider is gone do not starve the others.
///
/// A put that succeeds removes its job before it stops being a put. So a job that no put works on, and that
/// *afterwards* still exists, is abandoned. In the other order, the job of a put that succeeds between the
/// two checks would be taken for abandoned, and the file removed.
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
        // The put may have placed more segments since the first look; it places none any more.
        let still = catalogue.job(number).await?.filter(|still| still.file == job.file);
        abandoned.extend(still.map(|still| (number, still)));
    }
    Ok(abandoned)
}

/// Marks the shards of a job's segments for removal. Returns the bytes that the segments with shards left count
/// as, or `None` if there were no such segments.
async fn clear(shared: &Shared, job: &JobRow) -> Result<Option<u64>, Stopped> {
    let (mut left, mut drops) = (None, BTreeMap::<u32, Vec<u64>>::new());
    for segment in 0..job.placed() {
        let Some(row) = shared.catalogue.segment(job.file, segment).await? else { continue };
        if row.holdings.is_empty() {
            shared.catalogue.forget_segment(job.file, segment).await?;
            continue;
        }
        left = Some(left.unwrap_or(0_u64).saturating_add(billed(row.plain.into())));
        for holding in row.holdings.iter() {
            drops.entry(holding.agreement).or_default().push(holding.sequence);
        }
    }
    for (agreement, sequences) in drops {
        if let Some(agreement) = shared.agreement(agreement) {
            agreement.drop_entries(sequences).await?;
        }
    }
    Ok(left)
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
                catalogue.begin([file; 16], Default::default()).await.expect("runs").expect("room");
            }
            // The first 70 are running puts; none of the others can be finished.
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
