//! Reads the records of agreements with proofs.

use super::SLOTS_READ;
use crate::{
    ledger::{Ledger, LedgerError, decode},
    terms::Terms,
    view::{Question, View},
};
use commonware_utils::channel::mpsc;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use posync_protocol::{
    Account, Key, Slot,
    record::{Agreement, DataSet, Usage},
};

/// Most proven reads that are on their way at once: a far node's round trips overlap, and a full answer of each
/// takes less than 2 MiB of the node's memory for messages.
pub(super) const READS_AT_ONCE: usize = 8;
/// Number of questions that one read answers.
const TOGETHER: usize = SLOTS_READ;

/// The keys of the three records of each slot.
pub(super) fn slot_keys(account: &Account, slots: &[u32]) -> Vec<Key> {
    let keys = slots.iter().flat_map(|slot| {
        [Agreement::key(account, *slot), Usage::key(account, *slot), DataSet::key(account, *slot)]
    });
    keys.collect()
}

/// Decodes proven records of slots; absent agreements are `None`.
///
/// # Errors
/// `Record`.
pub(super) fn terms_of(
    account: &Account,
    slots: &[u32],
    height: u64,
    records: &[Option<Slot>],
) -> Result<Vec<Option<Terms>>, LedgerError> {
    if records.len() != 3 * slots.len() {
        return Err(LedgerError::Record);
    }
    let mut all = vec![];
    for (slot, three) in slots.iter().zip(records.chunks(3)) {
        let [agreement, usage, data] = three else { return Err(LedgerError::Record) };
        let agreement: Option<Agreement> = decode(agreement.as_ref())?;
        let usage: Option<Usage> = decode(usage.as_ref())?;
        let data: DataSet = decode(data.as_ref())?.unwrap_or_default();
        all.push(agreement.zip(usage).map(|(agreement, usage)| {
            let id = agreement.id(*account, *slot);
            Terms { id, height, agreement, usage, data }
        }));
    }
    Ok(all)
}

/// Proves the records of at most [`SLOTS_READ`] slots; returns them with their height.
///
/// # Errors
/// `Unreachable`, `Record`.
pub(super) async fn read_slots<L: Ledger>(
    ledger: &L,
    account: &Account,
    slots: &[u32],
) -> Result<(u64, Vec<Option<Terms>>), LedgerError> {
    let (height, records) = ledger.read(slot_keys(account, slots)).await?;
    Ok((height, terms_of(account, slots, height, &records)?))
}

/// Proves the records of any number of slots, [`READS_AT_ONCE`] pages at a time; returns, for each page of
/// [`SLOTS_READ`] slots, what [`read_slots`] does.
///
/// # Errors
/// As [`read_slots`], from the first page that fails.
pub(super) async fn read_pages<L: Ledger>(
    ledger: &L,
    account: &Account,
    slots: &[u32],
) -> Result<Vec<(u64, Vec<Option<Terms>>)>, LedgerError> {
    let pages: Vec<Vec<u32>> = slots.chunks(SLOTS_READ).map(<[u32]>::to_vec).collect();
    let reads = pages.into_iter().map(|page| {
        let (ledger, account) = (ledger.clone(), *account);
        async move { read_slots(&ledger, &account, &page).await }
    });
    stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await
}

/// Answers the view's questions; questions that wait together share one proven read.
pub(crate) async fn answer_questions<L: Ledger>(
    ledger: L,
    view: View,
    mut questions: mpsc::Receiver<Question>,
) {
    while let Some(first) = questions.recv().await {
        let mut asked = vec![first];
        while asked.len() < TOGETHER
            && let Ok(next) = questions.try_recv()
        {
            asked.push(next);
        }
        // Skip questions whose asker gave up.
        asked.retain(|question| !question.done.is_closed());
        let slots: Vec<u32> = asked.iter().map(|question| question.slot).collect();
        if slots.is_empty() {
            continue;
        }
        match read_slots(&ledger, &view.account, &slots).await {
            Ok((height, all)) => {
                for (Question { opened, done, .. }, terms) in asked.into_iter().zip(all) {
                    if let Some(terms) = &terms {
                        view.learn(terms.clone());
                    }
                    // A state from before the opening proves nothing about it: no answer is given.
                    if terms.is_some() || height >= opened {
                        let _ = done.send(terms);
                    }
                }
            }
            // Dropping the senders signals that no proof was available.
            Err(error) => tracing::debug!(%error, "no proof of an agreement"),
        }
    }
}
