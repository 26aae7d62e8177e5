//! The newest proved height, kept through restarts: a restarted role rejects states from long before it
//! stopped.
//!
//! Two slots are written in turn: a crash during a write leaves the other one. If the floor cannot be read
//! or written, only this protection is lost.

use crate::connection::Connection;
use commonware_runtime::{Blob as _, Clock, Error, ReadOptions, Spawner, Storage, WriteOptions};
use posync_protocol::Hash;
use std::time::Duration;

/// Time between two writes while the height rises.
const EVERY: Duration = Duration::from_secs(30);
/// Blocks by which the height rises before it is written again.
const STEP: u64 = 16;
/// Bytes of a slot: chain, height, checksum.
const SLOT: usize = 48;
/// Offsets of the slots.
const PLACES: [u64; 2] = [0, SLOT as u64];
const NAME: &[u8] = b"floor";

/// Sets the connection's floor to the height kept in `partition`, and keeps that up to date for as long as
/// `context` lives.
pub async fn keep<E>(context: E, connection: &Connection, partition: &str)
where
    E: Spawner + Clock + Storage,
{
    let (blob, kept) = match open(&context, partition, connection.light().chain()).await {
        Ok(opened) => opened,
        Err(error) => {
            tracing::warn!(%error, partition,
                "the file of the newest proved height cannot be used: the height is lost if this process restarts");
            return;
        }
    };
    connection.raise_floor(kept);
    let connection = connection.clone();
    context.spawn(move |context| async move {
        let (mut written, mut turn) = (kept, 0);
        loop {
            context.sleep(EVERY).await;
            let height = connection.floor();
            if height < written + STEP {
                continue;
            }
            let slot = encode(&connection.light().chain(), height);
            let place = PLACES[turn % PLACES.len()];
            let put = async {
                blob.write_at(place, slot, WriteOptions::default()).await?;
                blob.sync().await
            };
            match put.await {
                Ok(()) => (written, turn) = (height, turn + 1),
                Err(error) => {
                    tracing::warn!(%error,
                        "the newest proved height could not be written; the next attempt is in 30 s");
                }
            }
        }
    });
}

async fn open<E: Storage>(context: &E, partition: &str, chain: Hash) -> Result<(E::Blob, u64), Error> {
    let (blob, size) = context.open(partition, NAME).await?;
    let whole = 2 * SLOT as u64;
    if size < whole {
        blob.resize(whole).await?;
        return Ok((blob, 0));
    }
    let bytes = blob.read_at(0, 2 * SLOT, ReadOptions::default()).await?.coalesce();
    let bytes: &[u8] = bytes.as_ref();
    let kept = bytes.chunks(SLOT).filter_map(|slot| decode(&chain, slot)).max();
    Ok((blob, kept.unwrap_or(0)))
}

fn encode(chain: &Hash, height: u64) -> Vec<u8> {
    let head = [&chain[..], &height.to_be_bytes()].concat();
    let check = blake3::hash(&head);
    [&head[..], &check.as_bytes()[..8]].concat()
}

/// The height in a slot, if the slot is intact and belongs to this chain.
fn decode(chain: &Hash, slot: &[u8]) -> Option<u64> {
    let height = u64::from_be_bytes(slot.get(32..40)?.try_into().ok()?);
    (slot == encode(chain, height)).then_some(height)
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_runtime::{Runner as _, Supervisor as _, deterministic};

    #[test]
    fn a_torn_slot_leaves_the_other_and_another_chain_counts_for_nothing() {
        deterministic::Runner::default().start(|context| async move {
            let chain = [7; 32];
            let (blob, kept) = open(&context, "floor", chain).await.expect("opens");
            assert_eq!(kept, 0);
            let options = WriteOptions::default;
            blob.write_at(PLACES[0], encode(&chain, 100), options()).await.expect("writes");
            blob.write_at(PLACES[1], encode(&chain, 130), options()).await.expect("writes");
            blob.sync().await.expect("syncs");
            drop(blob);
            let (blob, kept) = open(&context, "floor", chain).await.expect("opens");
            assert_eq!(kept, 130);
            let torn = encode(&chain, 160)[..40].to_vec();
            blob.write_at(PLACES[1], torn, options()).await.expect("writes");
            blob.sync().await.expect("syncs");
            drop(blob);
            assert_eq!(open(&context, "floor", chain).await.expect("opens").1, 100);
            assert_eq!(open(&context, "floor", [8; 32]).await.expect("opens").1, 0);
            drop(context.child("alive"));
        });
    }
}
