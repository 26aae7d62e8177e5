//! Asks the others for this node's newest proposal, and answers the same question.

use super::OwnKey;
use crate::{engine::PublicKey, handle::Handle};
use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_macros::select;
use commonware_p2p::{Receiver, Recipients, Sender};
use commonware_runtime::Clock;
use posync_protocol::{Account, Bounded, block::Header, encoded, tagged};
use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Time between two questions while the node is silent: shorter than the shortest leader timeout.
const ASK_SOON: Duration = Duration::from_millis(250);
/// Time between two questions after that, for the others' clocks.
const ASK_LATER: Duration = Duration::from_secs(60);
/// Questions in a row after which a silent node logs that it is silent: a minute.
const ASKS_LOGGED: u64 = 240;
/// Blocks below the applied one that are searched for a proposal of an authority.
const SEARCHED: u64 = 256;

tagged! {
    /// A message of one authority to the others.
    Message {
        /// The question for the sender's newest proposal.
        1 => Ask(Nothing),
        /// The answer to that question.
        2 => Answer(Answer),
    }
}

encoded! {
    /// A question carries no data of its own.
    Nothing {}
}

encoded! {
    /// An authority's newest proposal that another one holds.
    Answer {
        /// Milliseconds since 1970 on the clock of the answering node.
        time_ms: u64,
        /// The header of the proposal; none if no recent block is theirs.
        newest: Bounded<Header, 1>,
    }
}

/// A moment in milliseconds since 1970, as messages carry it.
pub(super) fn millis(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// Asks and answers until the node stops.
pub async fn run<E, S, R>(context: E, own_key: OwnKey, handle: Handle, (mut sender, mut receiver): (S, R))
where
    E: Clock,
    S: Sender<PublicKey = PublicKey>,
    R: Receiver<PublicKey = PublicKey>,
{
    let mut searched = BTreeSet::new();
    let (mut due, mut asks) = (context.current(), 0_u64);
    loop {
        select! {
            () = context.sleep_until(due) => {
                sender.send(Recipients::All, Message::Ask(Nothing {}).encode(), false);
                let is_silent = own_key.state().is_silent();
                asks = if is_silent { asks + 1 } else { 0 };
                if is_silent && asks.is_multiple_of(ASKS_LOGGED) {
                    log_silence(&own_key);
                }
                due = context.current() + if is_silent { ASK_SOON } else { ASK_LATER };
            },
            message = receiver.recv() => {
                let Ok((peer, bytes)) = message else { return };
                match Message::decode(Copying(bytes.as_ref())) {
                    Ok(Message::Ask(_)) => {
                        let newest = newest(&own_key, &handle, &Account::of(&peer), &mut searched).await;
                        let newest = Bounded::new(newest.into_iter().collect()).expect("at most one");
                        let answer = Answer { time_ms: millis(context.current()), newest };
                        sender.send(Recipients::One(peer), Message::Answer(answer).encode(), false);
                    }
                    Ok(Message::Answer(answer)) => {
                        own_key.answered(&peer, answer.newest.first(), answer.time_ms, context.current());
                    }
                    // Damage or another version: as if it had not come.
                    Err(_) => {}
                }
            },
        }
    }
}

fn log_silence(own_key: &OwnKey) {
    let (answers, needed) = own_key.state().answers().unwrap_or_default();
    tracing::warn!(
        answers,
        needed,
        "too few of the other authorities have said whether another process signs with this node's key: it follows \
         without a vote until they do; see that they run, and that this machine reaches them"
    );
}

/// The newest proposal of an authority: of those seen since the start, else of the recent blocks, which are
/// searched once.
async fn newest(
    own_key: &OwnKey,
    handle: &Handle,
    authority: &Account,
    searched: &mut BTreeSet<Account>,
) -> Option<Header> {
    let is_known = own_key.state().newest(authority).is_some();
    if !is_known && own_key.state().may_search(authority) && searched.insert(*authority) {
        let applied = handle.applied();
        for height in (applied.saturating_sub(SEARCHED) + 1..=applied).rev() {
            match handle.header(height).await {
                Some(header) if header.leader == *authority => {
                    own_key.saw(&header);
                    break;
                }
                Some(_) => {}
                None => break,
            }
        }
    }
    own_key.state().newest(authority).cloned()
}
