//! How far a connection may dial: the addresses of the list of nodes are anyone's words.
//!
//! Invariant: a learned node's address is dialled on this machine, or in a private network, only if a given node is
//! there too. An address of a link or of no machine is never dialled. What counts is the resolved address.

use super::Endpoint;
use crate::address::{self, Address, Scope};
use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

/// The widest scope of the given nodes; clones share it.
#[derive(Clone, Debug)]
pub struct Reach(Arc<AtomicU8>);

impl Reach {
    /// The reach of these nodes, as far as their addresses are no names.
    pub fn of(given: &[Endpoint]) -> Self {
        let reach = Self(Arc::new(AtomicU8::new(Scope::Internet as u8)));
        for node in given {
            if let Address::Ip(at) = &node.address {
                reach.widen(at.ip());
            }
        }
        reach
    }

    /// Takes in the address of a given node.
    pub fn widen(&self, ip: IpAddr) {
        self.0.fetch_max((address::scope(ip) as u8).min(Scope::Here as u8), Ordering::Relaxed);
    }

    /// True if a learned node is dialled at this address.
    pub fn allows(&self, ip: IpAddr) -> bool {
        address::scope(ip) != Scope::Nowhere && address::scope(ip) as u8 <= self.0.load(Ordering::Relaxed)
    }

    /// True unless the address can be refused before it is resolved.
    pub(super) fn may_allow(&self, address: &Address) -> bool {
        let is_refused = matches!(address, Address::Ip(at) if !self.allows(at.ip()));
        address.port() > 0 && !is_refused
    }
}
