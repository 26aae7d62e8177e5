//! The holder of agreements under one account: the part that a gateway and an auditor share, and the
//! auditor itself.
//!
//! ```text
//!   agreements ──opens, tops up, closes──► ledger ──► node
//!        │ agreement: data set, vouchers       ▲
//!        ▼                                     │ proven records
//!      peer ──wire::provider──► providers ◄────┼── sample: a little of each, every epoch
//!        ▲                                     │
//!   a gateway's puts and gets            auditor: commits to the samples, reveals them
//! ```
//!
//! An authority runs an auditor, so nothing of a gateway's files is here: neither their coding, nor what a
//! gateway serves them with. What a gateway keeps beside its agreements enters the same catalogue through
//! [`catalogue::Contents`].
//!
//! Invariants
//! 1. Only verified bytes are paid; a signature is on disk before it is sent.
//! 2. A gateway and an auditor ask providers by the same code.
//! 3. This crate never depends on the gateway, nor on a crate that only the gateway needs: `cargo xtask
//!    tidy` checks it.

pub mod account;
pub mod agreement;
pub mod agreements;
pub mod auditor;
pub mod catalogue;
pub mod environment;
pub mod expected;
pub mod ledger;
pub mod limits;
mod meter;
pub mod peer;
mod peer_health;
pub mod sample;
pub mod shared;
pub mod volume;

pub use account::{Consumer, Means};
pub use agreements::Policy;
pub use catalogue::Error;

use crate::peer::Dialer;
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::{Clock, Network, Resolver, Spawner};
use posync_client::{
    channel::SharedNetwork,
    rpc::{self, Client},
};
use rand_core::CryptoRng;
use std::sync::Arc;

/// A dialer that opens connections of one service under an account's key.
pub fn dialer<S, E, N>(context: &E, network: &SharedNetwork<N>, key: &PrivateKey) -> Dialer<S>
where
    S: rpc::Service,
    E: Spawner + Clock + CryptoRng + Resolver,
    N: Network,
{
    let context = Arc::new(context.child("dialer"));
    let (network, key) = (network.clone(), key.clone());
    Arc::new(move |peer, address| {
        let (context, network, key) = (context.child("connection"), network.clone(), key.clone());
        Box::pin(async move {
            let dialed = Client::dial(context, &network, &key, peer, address).await;
            dialed.map_err(|error| error.to_string())
        })
    })
}
