//! Follows the chain: certified headers in order, each once, from whichever node answers.
//!
//! A reader that is behind finds several answers waiting. Their headers are linked by hashes, so the last
//! certificate proves them all, and it is the only one that is checked. If anything in such a run is wrong,
//! the whole run is refused and the node is left; another node is asked for the same headers.

use super::{
    Connection, Course, Error, STILL,
    pool::{At, Failed},
    unexpected,
};
use crate::{
    light,
    rpc::{self, Call},
};
use commonware_macros::select;
use futures::FutureExt as _;
use posync_protocol::{
    Bounded,
    block::{BlockBody, Header},
    limits::HEADERS_MAX,
    wire::node::{Ask, Certified, FINALIZATION_BYTES_MAX, NodeAnswer},
};
use std::{
    collections::VecDeque,
    pin::pin,
    time::{Duration, SystemTime},
};

/// Time without an answer after which another node is asked for newer blocks.
const QUIET: Duration = Duration::from_secs(4);
/// Such times in a row after which a node is left in any case.
const QUIETS_MAX: u32 = 4;

/// An endless stream of certified headers. It reconnects by itself and never skips or repeats one.
pub struct Follow {
    connection: Connection,
    call: Option<(At, Call<rpc::Node>)>,
    /// An answer that arrived behind a run and does not belong to it.
    behind: Option<NodeAnswer>,
    ready: VecDeque<Header>,
    last: Option<Header>,
    /// The certificate of `last`.
    certificate: Bounded<u8, FINALIZATION_BYTES_MAX>,
    from: u64,
    /// When the followed node was compared last, and the time of the last header then.
    compared: Option<(SystemTime, u64)>,
    /// True if the node let the reader wait for its last answer.
    waited: bool,
}

/// Headers that follow each other, and the encoded certificate of the last: all of them are verified.
#[derive(Clone, Debug)]
pub struct Run {
    /// At least one header and at most [`HEADERS_MAX`], ascending.
    pub headers: Vec<Header>,
    /// Encoded finalization of the last header.
    pub certificate: Bounded<u8, FINALIZATION_BYTES_MAX>,
}

impl Follow {
    pub(super) fn new(connection: Connection, from: u64) -> Self {
        let (call, behind, last) = (None, None, None);
        let (ready, certificate) = Default::default();
        Self { connection, call, behind, ready, last, certificate, from, compared: None, waited: false }
    }

    /// The next header. The future may be dropped and the call repeated.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with `Pruned` when the nodes have pruned it: follow from 0 then; or
    /// [`Error::Unreachable`] after as many attempts as any request has. Another call continues where this one stopped.
    pub async fn next(&mut self) -> Result<Header, Error> {
        let mut course = Course::of_block(self.wanted());
        while self.ready.is_empty() {
            self.leave_if_behind().await;
            if let Err(failed) = self.fill().await {
                (self.call, self.behind) = (None, None);
                self.connection.after(failed, &mut course).await?;
            }
        }
        Ok(self.ready.pop_front().expect("just filled"))
    }

    /// The next headers up to a certificate, with that certificate. The future may be dropped.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn next_run(&mut self) -> Result<Run, Error> {
        let mut headers = vec![self.next().await?];
        headers.extend(self.ready.drain(..));
        Ok(Run { headers, certificate: self.certificate.clone() })
    }

    /// Leaves the followed node if a trusted one answers again and it is a stranger, or if another one is well ahead
    /// of it. A node that sends old blocks slowly is never quiet: it is compared after each [`STILL`] in which it let
    /// the reader wait, sent old blocks, and did not catch up.
    async fn leave_if_behind(&mut self) {
        let (Some((at, _)), Some(last)) = (self.call.as_ref(), self.last.as_ref()) else { return };
        let (at, height, time_ms, now) = (*at, last.height, last.time_ms, self.connection.now());
        let (since, from_ms) = *self.compared.get_or_insert((now, time_ms));
        let passed = now.duration_since(since).unwrap_or(STILL);
        let is_due = passed >= STILL;
        if is_due {
            self.compared = Some((now, time_ms));
        }
        let gained = Duration::from_millis(time_ms.saturating_sub(from_ms));
        let is_slow = self.waited && self.connection.is_old(time_ms) && gained <= passed;
        if self.connection.is_home_again(at).await {
            (self.call, self.behind) = (None, None);
        } else if is_due && is_slow && self.connection.is_left_behind(at, height).await {
            (self.call, self.behind) = (None, None);
            self.connection.leave(at);
        }
    }

    fn wanted(&self) -> u64 {
        self.last.as_ref().map_or(self.from, |last| last.height + 1)
    }

    async fn fill(&mut self) -> Result<(), Failed> {
        let wanted = self.wanted();
        if self.call.is_none() {
            self.call = Some(self.connection.open(Ask::Follow(wanted)).await?);
        }
        let (at, call) = self.call.as_mut().expect("just opened");
        let at = *at;
        let answer = match self.behind.take() {
            Some(answer) => Ok(Some(answer)),
            None => match call.recv().now_or_never() {
                Some(answer) => {
                    self.waited = false;
                    Ok(answer)
                }
                None => {
                    self.waited = true;
                    heard(&self.connection, at, call, wanted).await
                }
            },
        };
        answer.and_then(|answer| self.take(answer)).map_err(|error| Failed { at, error })
    }

    fn take(&mut self, answer: Option<NodeAnswer>) -> Result<(), Error> {
        match answer {
            Some(NodeAnswer::Certified(certified)) => {
                let certified = self.run(certified);
                self.connection.light().certified(&certified)?;
                let first = certified.headers.first().expect("a verified answer has one");
                if self.wanted() != 0 && first.height != self.wanted() {
                    return Err(light::Error::Question.into());
                }
                if self.last.as_ref().is_some_and(|last| first.parent != last.digest()) {
                    return Err(light::Error::Headers.into());
                }
                let last = certified.headers.last().expect("a verified answer has one").clone();
                self.connection.saw(last.height);
                self.last = Some(last);
                self.certificate = certified.finalization;
                self.ready.extend(certified.headers.into_inner());
                Ok(())
            }
            Some(other) => unexpected(&other),
            None => Err(Error::Unreachable("the connection ended".into())),
        }
    }

    /// Joins an answer with those that have arrived behind it, up to [`HEADERS_MAX`] headers: all their
    /// headers, and the certificate of the last. Nothing of it is verified yet.
    fn run(&mut self, first: Certified) -> Certified {
        let (mut headers, mut finalization) = (first.headers.into_inner(), first.finalization);
        while let Some((_, call)) = self.call.as_mut()
            && let Some(Some(answer)) = call.recv().now_or_never()
        {
            match answer {
                NodeAnswer::Certified(next) if headers.len() + next.headers.len() <= HEADERS_MAX => {
                    headers.extend(next.headers.into_inner());
                    finalization = next.finalization;
                }
                other => {
                    self.behind = Some(other);
                    break;
                }
            }
        }
        Certified { headers: Bounded::new(headers).expect("the bound was compared"), finalization }
    }
}

/// The next answer of a followed node. A quiet network is no error. A node that stays silent is left as
/// soon as another one has newer blocks, and otherwise after [`QUIETS_MAX`] waits.
async fn heard(
    connection: &Connection,
    at: At,
    call: &mut Call<rpc::Node>,
    wanted: u64,
) -> Result<Option<NodeAnswer>, Error> {
    let mut answer = pin!(call.recv());
    for _ in 0..QUIETS_MAX {
        let quiet = connection.sleep(QUIET);
        select! {
            answer = answer.as_mut() => return Ok(answer),
            () = quiet => {},
        }
        let seen = if wanted == 0 { connection.floor() } else { wanted - 1 };
        if connection.is_left_behind(at, seen).await {
            return Err(Error::Behind { height: seen, floor: connection.floor() });
        }
    }
    Err(Error::Unreachable("no new block in time".into()))
}

/// An endless stream of certified headers with their bodies.
pub struct FollowBodies {
    follow: Follow,
    header: Option<Header>,
}

impl FollowBodies {
    pub(super) const fn new(follow: Follow) -> Self {
        Self { follow, header: None }
    }

    /// The next header and its body, checked against the header's root. The future may be dropped.
    ///
    /// # Errors
    /// As [`Follow::next`].
    pub async fn next(&mut self) -> Result<(Header, BlockBody), Error> {
        let header = match &self.header {
            Some(header) => header.clone(),
            None => self.header.insert(self.follow.next().await?).clone(),
        };
        let body = self.follow.connection.body(&header).await?;
        self.header = None;
        Ok((header, body))
    }
}
