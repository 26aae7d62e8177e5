//! Records of nodes that serve the network's state. See [`crate::node`].

use super::{Address, Key, Record, key};
use crate::{Account, Amount, Bounded, limits::REGION_BYTES_MAX};

records! {
    /// A node that serves the network's state, as it announced itself. Its service proves the key of this
    /// account.
    38 Node "node" (account: &Account) [&account.0] {
        /// Place in the list of nodes; `None` for a node that has a seat, which is found by the seat.
        place: Option<u32>,
        /// Address of its node service, `host:port`.
        address: Address,
        /// True if it keeps every block.
        archive: bool,
        /// Name of its region, UTF-8; may be empty.
        region: Bounded<u8, REGION_BYTES_MAX>,
        /// Money locked for the place; zero for a seat.
        deposit: Amount,
        /// Height of the block of its last announcement.
        announced: u64,
    }

    /// The account of the node at a place of the list.
    39 NodeAt "node at a place" (place: u32) [&place.to_be_bytes()] {
        /// Node that stands there.
        account: Account,
    }
}
