//! Notes the durable length of a file before it is acknowledged: a later start must find as much.
//!
//! ```text
//!   write --> sync --> note the length (no sync) --> acknowledge
//! ```
//!
//! The end of a file that a crash tore and one that was damaged after its sync look alike. A length that was noted
//! after the sync separates them: what is missing below it was durable, so it is damage.
//!
//! A note costs one small write and no sync. It survives the end of the process at any moment. A power cut may take
//! the notes of the last moments with it; then an older length holds, and damage above that looks like a torn end. Only
//! a second sync before each acknowledgement would show that too.

use crate::two_slots::TwoSlots;
use commonware_cryptography::Crc32;
use commonware_runtime::{Blob, Error, Storage};

/// Bytes of a slot: turn, file, length, checksum.
const SLOT: usize = 8 + 8 + 8 + 4;
const NAME: &[u8] = b"length";

/// A file by its number, and the bytes of it that were durable.
pub type Mark = (u64, u64);

/// The notes of one journal or store.
pub struct Watermark<B> {
    slots: TwoSlots<B>,
    turn: u64,
}

impl<B: Blob> Watermark<B> {
    /// Opens the notes in `partition`; also returns the newest. `None` if they cannot be opened now: then only this
    /// protection is missing.
    pub async fn open<E: Storage<Blob = B>>(context: &E, partition: &str) -> Option<(Self, Option<Mark>)> {
        let opened = match Self::try_open(context, partition).await {
            Err(Error::BlobCorrupt(..)) => {
                // The notes themselves were hit.
                let _ = context.remove(partition, None).await;
                Self::try_open(context, partition).await
            }
            opened => opened,
        };
        match opened {
            Ok(opened) => Some(opened),
            Err(error) => {
                tracing::warn!(%error, partition, "durable lengths are not noted: damage may look like a torn end");
                None
            }
        }
    }

    async fn try_open<E: Storage<Blob = B>>(
        context: &E,
        partition: &str,
    ) -> Result<(Self, Option<Mark>), Error> {
        let (slots, contents) = TwoSlots::open(context, partition, NAME, SLOT).await?;
        let newest = contents.iter().filter_map(|slot| decode(slot)).max();
        let turn = newest.map_or(0, |(turn, _)| turn);
        Ok((Self { slots, turn }, newest.map(|(_, mark)| mark)))
    }

    /// Notes a length that is durable. A failure costs only this protection: the older note stays.
    pub async fn note(&mut self, mark: Mark) {
        let turn = self.turn.saturating_add(1);
        match self.slots.write(turn, encode(turn, mark)).await {
            Ok(()) => self.turn = turn,
            Err(error) => tracing::debug!(%error, "a durable length is not noted"),
        }
    }

    /// Notes a length that takes the place of larger ones, durably: the files were written anew.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn reset(&mut self, mark: Mark) -> Result<(), Error> {
        let turn = self.turn.saturating_add(1);
        self.slots.write_durably(turn, encode(turn, mark)).await?;
        self.turn = turn;
        Ok(())
    }
}

fn encode(turn: u64, (file, length): Mark) -> Vec<u8> {
    let mut slot = [turn, file, length].map(u64::to_be_bytes).concat();
    slot.extend_from_slice(&Crc32::checksum(&slot).to_be_bytes());
    slot
}

fn decode(slot: &[u8]) -> Option<(u64, Mark)> {
    let (head, sum) = slot.split_last_chunk::<4>()?;
    if Crc32::checksum(head).to_be_bytes() != *sum {
        return None;
    }
    let number = |at: usize| Some(u64::from_be_bytes(head.get(at..at + 8)?.try_into().ok()?));
    Some((number(0)?, (number(8)?, number(16)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_runtime::{
        Runner as _,
        tokio::{Config, Runner},
    };

    #[test]
    fn the_newest_note_is_found_and_a_torn_one_leaves_the_older() {
        // A real disk: it keeps what a killed process wrote without a sync.
        let home = tempfile::tempdir().expect("a directory");
        Runner::new(Config::default().with_storage_directory(home.path())).start(async |context| {
            let open = || async { Watermark::open(&context, "notes").await.expect("opens") };
            let (mut notes, none) = open().await;
            assert_eq!(none, None);
            notes.note((1, 10)).await;
            notes.note((1, 20)).await;
            drop(notes);
            let (mut notes, newest) = open().await;
            assert_eq!(newest, Some((1, 20)));
            notes.reset((0, 5)).await.expect("durable");
            drop(notes);
            let (notes, newest) = open().await;
            assert_eq!(newest, Some((0, 5)), "the newest, not the largest");
            notes.slots.write(notes.turn, vec![0xff; 4]).await.expect("writable");
            drop(notes);
            assert_eq!(open().await.1, Some((1, 20)));
        });
    }
}
