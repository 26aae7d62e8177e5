//! Gives back the space of removed, replaced and broken files.

use crate::{
    catalogue::{Stopped, row::JobRow},
    coding::FileId,
    core::Core,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Pause between passes.
const PASS_PAUSE: Duration = Duration::from_millis(500);
/// Jobs in one pass.
const JOBS_PER_PASS: usize = 64;

/// Works off jobs for ever: each segment's shards are taken out of their data sets, then its row
/// goes, then the job. A pass is idempotent, so a crash costs a pass.
pub async fn reap(core: Arc<Core>) {
    while pass(&core).await.is_ok() {
        core.common.environment.sleep(PASS_PAUSE).await;
    }
}

async fn pass(core: &Core) -> Result<(), Stopped> {
    for (number, job) in abandoned(core).await? {
        if clear(core, &job).await? {
            core.common.catalogue.job_done(number, job).await?;
        }
    }
    Ok(())
}

/// Jobs that no put is at work on. A put gives its job up before it stops being one, so what is no
/// put and is still a job *afterwards* is nobody's; asked the other way round, the job of a put that
/// ends in between would take the finished file with it.
async fn abandoned(core: &Core) -> Result<Vec<(u32, JobRow)>, Stopped> {
    let mut jobs = core.common.catalogue.jobs(JOBS_PER_PASS).await?;
    jobs.retain(|(_, job)| !core.is_putting(&job.file));
    if jobs.is_empty() {
        return Ok(jobs);
    }
    let still: BTreeSet<(u32, FileId)> =
        core.common.catalogue.jobs(JOBS_PER_PASS).await?.into_iter().map(|(n, job)| (n, job.file)).collect();
    jobs.retain(|(number, job)| still.contains(&(*number, job.file)));
    Ok(jobs)
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
