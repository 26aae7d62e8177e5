//! Calls over a channel: many at once, each a stream of messages in both directions.
//!
//! ```text
//!  caller                                   server
//!  Open(id, ask)  ─────────────────────────► handler task, an `Incoming`
//!  Message(id, ask)* ──────────────────────►
//!  ◄──────────────────── Message(id, answer)*   at most CALL_WINDOW not yet taken,
//!  Grant(id, n)   ─────────────────────────►    either way; taking grants more
//!  ◄──────────────────── Last(id, answer) or Close(id): the call is over
//!  Close(id)      ─────────────────────────► the caller dropped its `Call`: the handler is dropped
//! ```
//!
//! Invariants
//! 1. Both sides hold at most [`CALLS_MAX`] calls and [`CALL_WINDOW`] messages a call and
//!    direction; a peer that sends more is cut off.
//! 2. A slow reader of one call delays that call only.
//! 3. Dropping a [`Call`] drops its handler; losing the connection drops all of them. So a handler must
//!    leave work that has to finish to a separate actor.
//! 4. The memory of messages is bounded for each key, each origin and the listener, in both directions,
//!    small ones included ([`crate::channel`]): a message is not read, and an answer not encoded, before
//!    there is memory for it. A connection that gets none for [`CALL_MEMORY_MS_MAX`] is cut: its own calls
//!    may hold the memory that it waits for.
//! 5. A connection without a call for [`IDLE_MS_MAX`] ends. While a peer does not read, it is not read from.
//!
//! [`Client::call`] makes a call with one ask and one answer.

mod client;
mod server;
mod shared;
#[cfg(test)]
mod tests;

pub use client::{Call, Client};
pub use server::{Incoming, Server};

use crate::channel;
use commonware_codec::Codec;
#[cfg(doc)]
use posync_protocol::limits::CALL_MEMORY_MS_MAX;
#[cfg(doc)]
use posync_protocol::limits::{CALL_WINDOW, CALLS_MAX};

/// The protocol of a service: its namespace and its message types.
pub trait Service: Send + Sync + 'static {
    /// Namespace of the service's channel.
    const NAMESPACE: &'static [u8];
    /// Message that a caller sends.
    type Ask: Codec<Cfg = ()> + Send + 'static;
    /// Message that the server sends.
    type Answer: Codec<Cfg = ()> + Send + 'static;

    /// True if a caller may send more messages after that ask. Where no handler reads them, they would hold
    /// memory for as long as the call is open, so a caller that sends them is cut off.
    fn takes_more(ask: &Self::Ask) -> bool;
}

/// The service of an authority, [`posync_protocol::wire::node`].
#[derive(Debug)]
pub enum Node {}

/// The service of a provider, [`posync_protocol::wire::provider`].
#[derive(Debug)]
pub enum Provider {}

/// The service of a gateway, [`posync_protocol::wire::gateway`].
#[derive(Debug)]
pub enum Gateway {}

impl Service for Node {
    const NAMESPACE: &'static [u8] = posync_protocol::wire::node::NAMESPACE;
    type Ask = posync_protocol::wire::node::Ask;
    type Answer = posync_protocol::wire::node::NodeAnswer;

    fn takes_more(_: &Self::Ask) -> bool {
        false
    }
}

impl Service for Provider {
    const NAMESPACE: &'static [u8] = posync_protocol::wire::provider::NAMESPACE;
    type Ask = posync_protocol::wire::provider::Ask;
    type Answer = posync_protocol::wire::provider::ProviderAnswer;

    fn takes_more(ask: &Self::Ask) -> bool {
        use posync_protocol::wire::provider::Ask;
        matches!(ask, Ask::Get(_) | Ask::Probe(_))
    }
}

impl Service for Gateway {
    const NAMESPACE: &'static [u8] = posync_protocol::wire::gateway::NAMESPACE;
    type Ask = posync_protocol::wire::gateway::Ask;
    type Answer = posync_protocol::wire::gateway::GatewayAnswer;

    fn takes_more(ask: &Self::Ask) -> bool {
        matches!(ask, posync_protocol::wire::gateway::Ask::Put(_))
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection could not be made or broke.
    #[error(transparent)]
    Channel(#[from] channel::Error),
    /// The connection ended during the call.
    #[error("the connection ended before the answer; connect again")]
    Gone,
    /// The server ended the call without an answer.
    #[error("the server gave no answer; it refuses such a request or is stopping")]
    NoAnswer,
    /// A message is larger than a frame.
    #[error("a message of {0} bytes exceeds a frame; split it")]
    TooLarge(usize),
}
