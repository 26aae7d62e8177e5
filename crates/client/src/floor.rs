//! The newest proved height, kept through restarts: a restarted role rejects states from long before it
//! stopped.
//!
//! If the floor cannot be read or written, only this protection is lost.

use crate::{connection::Connection, two_slots::TwoSlots};
use commonware_runtime::{Clock, Error, Spawner, Storage};
use posync_protocol::Hash;
use std::time::Duration;

/// Time between two writes while the height rises.
const EVERY: Duration = Duration::from_secs(30);
/// Blocks by which the height rises before it is written again.
const STEP: u64 = 16;
/// Bytes of a slot: chain, height, checksum.
const SLOT: usize = 48;
const NAME: &[u8] = b"floor";

/// Sets the connection's floor to the height kept in `partition`, and keeps that up to date for as long as
/// `context` lives.
pub async fn keep<E>(context: E, connection: &Connection, partition: &str)
where
    E: Spawner + Clock + Storage,
{
    let (slots, kept, first) = match open(&context, partition, connection.light().chain()).await {
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
        let (mut written, mut turn) = (kept, first);
        loop {
            context.sleep(EVERY).await;
            let height = connection.floor();
            if height < written + STEP {
                continue;
            }
            let slot = encode(&connection.light().chain(), height);
            match slots.write_durably(turn, slot).await {
                Ok(()) => (written, turn) = (height, turn + 1),
                Err(error) => {
                    tracing::warn!(%error,
                        "the newest proved height could not be written; the next attempt is in 30 s");
                }
            }
        }
    });
}

/// Opens the slots; also returns the kept height, and the turn of the first write: it does not hit the slot with that
/// height.
async fn open<E: Storage>(
    context: &E,
    partition: &str,
    chain: Hash,
) -> Result<(TwoSlots<E::Blob>, u64, u64), Error> {
    let (slots, contents) = TwoSlots::open(context, partition, NAME, SLOT).await?;
    let heights = (0_u64..).zip(&contents).filter_map(|(turn, slot)| Some((decode(&chain, slot)?, turn)));
    let newest = heights.max();
    Ok((slots, newest.map_or(0, |(height, _)| height), newest.map_or(0, |(_, turn)| turn + 1)))
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
            let (slots, kept, first) = open(&context, "floor", chain).await.expect("opens");
            assert_eq!((kept, first), (0, 0));
            slots.write_durably(0, encode(&chain, 100)).await.expect("writes");
            slots.write_durably(1, encode(&chain, 130)).await.expect("writes");
            drop(slots);
            let (slots, kept, _) = open(&context, "floor", chain).await.expect("opens");
            assert_eq!(kept, 130);
            let torn = encode(&chain, 160)[..40].to_vec();
            slots.write_durably(1, torn).await.expect("writes");
            drop(slots);
            assert_eq!(open(&context, "floor", chain).await.expect("opens").1, 100);
            assert_eq!(open(&context, "floor", [8; 32]).await.expect("opens").1, 0);
            drop(context.child("alive"));
        });
    }

    #[test]
    fn a_torn_write_after_any_restart_costs_only_the_height_that_it_wrote() {
        deterministic::Runner::default().start(|context| async move {
            let chain = [7; 32];
            // Each process writes some heights and is killed.
            for (found, heights) in [(0, vec![100, 130]), (130, vec![160]), (160, vec![190, 220, 250])] {
                let (slots, kept, first) = open(&context, "floor", chain).await.expect("opens");
                assert_eq!(kept, found);
                for (turn, height) in (first..).zip(heights) {
                    slots.write_durably(turn, encode(&chain, height)).await.expect("writes");
                }
                drop(slots);
                let (slots, kept, first) = open(&context, "floor", chain).await.expect("opens");
                let torn = encode(&chain, kept + 30)[..40].to_vec();
                slots.write_durably(first, torn).await.expect("writes");
                drop(slots);
                assert_eq!(open(&context, "floor", chain).await.expect("opens").1, kept, "a torn write");
            }
        });
    }
}
