//! Asks the others for this node's newest proposal and vote, and answers the same question.

use super::{
    OwnKey,
    state::Answered,
    votes::{self, TooNew, VOTE_BYTES_MAX},
};
use crate::{
    engine::{Finalization, PublicKey},
    epoch::Schemes,
    handle::Handle,
};
use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_macros::select;
use commonware_p2p::{Receiver, Recipients, Sender};
use commonware_parallel::Sequential;
use commonware_runtime::Clock;
use posync_protocol::{Account, Bounded, block::Header, encoded, tagged, wire::node::FINALIZATION_BYTES_MAX};
use rand_core::CryptoRng;
use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Time between two questions while the node is silent: shorter than the shortest leader timeout.
const ASK_SOON: Duration = Duration::from_millis(250);
/// Time between two questions while the node waits for a term: another process shows itself by its next vote.
const ASK_WAITING: Duration = Duration::from_secs(1);
/// Time between two questions after that, for the others' clocks.
const ASK_LATER: Duration = Duration::from_secs(60);
/// Questions in a row after which a silent node logs that it is silent: a minute.
const ASKS_LOGGED: u64 = 240;
/// Blocks below the applied one that are searched for a proposal of an authority.
const SEARCHED: u64 = 256;
/// Blocks below the applied one that are searched for a certificate; almost every block has one.
const CERTIFIED_WITHIN: u64 = 16;

tagged! {
    /// A message of one authority to the others.
    Message {
        /// The question for the sender's newest proposal and vote.
        1 => Ask(Ask),
        /// The answer to that question.
        2 => Answer(KeyAnswer),
    }
}

encoded! {
    /// The question for the sender's newest proposal and vote.
    #[derive(Copy)]
    Ask {
        /// Height that the other must have searched.
        height: u64,
    }
}

encoded! {
    /// A header with its certificate.
    Proved {
        /// The header of a final block.
        header: Header,
        /// An encoded `Finalization` of that header.
        finalization: Bounded<u8, FINALIZATION_BYTES_MAX>,
    }
}

encoded! {
    /// An authority's newest proposal and vote that another one holds.
    KeyAnswer {
        /// Milliseconds since 1970 on the clock of the answering node.
        time_ms: u64,
        /// Height up to which the answering node has applied and searched the chain.
        height: u64,
        /// A final block above the height asked for; none if the answering node has none.
        above: Bounded<Proved, 1>,
        /// The header of the proposal; none if no recent block is theirs.
        newest: Bounded<Header, 1>,
        /// The encoded vote; empty if none came since the answering node's start.
        vote: Bounded<u8, VOTE_BYTES_MAX>,
    }
}

/// A moment in milliseconds since 1970, as messages carry it.
pub(super) fn millis(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// The parts of a node that asks and answers.
pub(crate) struct Parts {
    /// The node's right to sign.
    pub(crate) own_key: OwnKey,
    /// Key of this authority.
    pub(crate) key: PublicKey,
    /// The schemes under which votes of this key verify.
    pub(crate) schemes: Schemes,
    /// The blocks of this node.
    pub(crate) handle: Handle,
}

/// Asks and answers until the node stops.
pub(crate) async fn run<E, S, R>(mut context: E, parts: Parts, (mut sender, mut receiver): (S, R))
where
    E: Clock + CryptoRng,
    S: Sender<PublicKey = PublicKey>,
    R: Receiver<PublicKey = PublicKey>,
{
    let own_key = parts.own_key.clone();
    let mut searched = BTreeMap::new();
    let (mut due, mut asks) = (context.current(), 0_u64);
    loop {
        select! {
            () = context.sleep_until(due) => {
                let (is_silent, is_waiting, height) = {
                    let state = own_key.state();
                    (state.is_silent(), state.is_waiting(), state.needed())
                };
                sender.send(Recipients::All, Message::Ask(Ask { height }).encode(), false);
                asks = if is_silent { asks + 1 } else { 0 };
                if is_silent && asks.is_multiple_of(ASKS_LOGGED) {
                    log_silence(&own_key);
                }
                let pause = if is_silent { ASK_SOON } else if is_waiting { ASK_WAITING } else { ASK_LATER };
                due = context.current() + pause;
            },
            message = receiver.recv() => {
                let Ok((peer, bytes)) = message else { return };
                match Message::decode(Copying(bytes.as_ref())) {
                    Ok(Message::Ask(ask)) => {
                        let time_ms = millis(context.current());
                        let answer = parts.answer(ask, time_ms, &Account::of(&peer), &mut searched).await;
                        sender.send(Recipients::One(peer), Message::Answer(answer).encode(), false);
                    }
                    Ok(Message::Answer(answer)) => {
                        // One that cannot be judged yet comes again.
                        if let Ok(answered) = parts.read(&mut context, answer) {
                            own_key.answered(&peer, &answered, context.current());
                        }
                    }
                    // Damage or another version: as if it had not come.
                    Err(_) => {}
                }
            },
        }
    }
}

fn log_silence(own_key: &OwnKey) {
    let state = own_key.state();
    let (answers, needed) = state.answers().unwrap_or_default();
    let height = state.needed();
    if let Some(agreed) = state.missing() {
        tracing::warn!(
            agreed,
            height,
            "the block on which the operators agreed has not been seen: this node follows without a vote until a \
             machine that has it runs; see that the number is right, and that this machine reaches the others"
        );
        return;
    }
    tracing::warn!(
        answers,
        needed,
        height,
        "too few of the other authorities have said whether another process signs with this node's key: it follows \
         without a vote until they do; see that they run, that they have this height, that this machine reaches \
         them, and that no other process runs with this key: each hears one connection of a key"
    );
}

impl Parts {
    /// The answer to another authority.
    async fn answer(
        &self,
        ask: Ask,
        time_ms: u64,
        authority: &Account,
        searched: &mut BTreeMap<Account, u64>,
    ) -> KeyAnswer {
        let height = self.handle.applied();
        self.search(authority, height, searched).await;
        let above = if height > ask.height { self.proved(ask.height, height).await } else { None };
        let state = self.own_key.state();
        let newest = state.newest(authority).cloned();
        let vote = state.vote_of(authority).unwrap_or_default().to_vec();
        drop(state);
        KeyAnswer {
            time_ms,
            height,
            above: Bounded::new(above.into_iter().collect()).expect("at most one"),
            newest: Bounded::new(newest.into_iter().collect()).expect("at most one"),
            vote: Bounded::new(vote).expect("longer ones are not kept"),
        }
    }

    /// Searches the blocks that were not searched before for the newest proposal of an authority.
    async fn search(&self, authority: &Account, applied: u64, searched: &mut BTreeMap<Account, u64>) {
        if !self.own_key.state().may_search(authority) {
            return;
        }
        let before = searched.get(authority).copied().unwrap_or_default();
        for height in (applied.saturating_sub(SEARCHED).max(before) + 1..=applied).rev() {
            match self.handle.header(height).await {
                Some(header) if header.leader == *authority => {
                    self.own_key.saw(&header);
                    break;
                }
                Some(_) => {}
                None => break,
            }
        }
        // Only now: a search that was cut short is done again.
        searched.insert(*authority, applied);
        searched.retain(|authority, _| self.own_key.state().may_search(authority));
    }

    /// The highest final block above `above` that has a certificate of its own.
    async fn proved(&self, above: u64, applied: u64) -> Option<Proved> {
        for height in (applied.saturating_sub(CERTIFIED_WITHIN).max(above) + 1..=applied).rev() {
            if let Some(finalization) = self.handle.finalization(height).await {
                let header = self.handle.header(height).await?;
                return Some(Proved { header, finalization: Bounded::new(finalization.encode().to_vec())? });
            }
        }
        None
    }

    /// Checks another authority's answer. A final block that this node lacks is passed on to its block store.
    ///
    /// # Errors
    /// [`TooNew`].
    fn read(&self, rng: &mut impl CryptoRng, answer: KeyAnswer) -> Result<Answered, TooNew> {
        let proved = answer.above.first().filter(|above| above.header.height > self.own_key.state().needed());
        let proved = proved.and_then(|above| {
            let finalization = Finalization::decode(Copying(&above.finalization)).ok()?;
            let is_of_header = finalization.proposal.payload.as_ref() == above.header.digest();
            if !is_of_header || !finalization.verify(rng, &self.handle.verifier(), &Sequential) {
                return None;
            }
            if above.header.height > self.handle.applied() {
                self.handle.learn(finalization);
            }
            Some(above.header.height)
        });
        let newest = self.schemes.newest().unwrap_or_default();
        let vote = votes::verified(rng, (&self.schemes, newest), &self.key, &answer.vote)?;
        let newest = answer.newest.first().cloned();
        Ok(Answered { height: answer.height, proved, newest, vote, time_ms: answer.time_ms })
    }
}
