//! Keeps a node's entry in the ledger equal to its settings: announces, changes and withdraws it (ND-1).
//!
//! ```text
//!   Node, Seat, balance (proved) ─► the entry is as set? ─ yes ─► look again in a minute
//!                                        └ no ─► AnnounceNode ─► look again; after a failure, later each time
//! ```
//!
//! Invariants
//! 1. Only the proved state decides whether to send, so a restart or a lost answer costs no second deposit.
//! 2. A node that cannot pay serves all the same; the reason is logged once, until another one follows.

use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::Clock;
use posync_client::{
    Backoff,
    account::Submitter,
    address::Address,
    connection::{Connection, Error, decode},
};
use posync_protocol::{
    Account, Amount, Body, Bounded,
    limits::{ADDRESS_BYTES_MAX, NODES_MAX, Parameters, READ_KEYS_MAX, REGION_BYTES_MAX},
    node::deposit_needed,
    operation::AnnounceNode,
    record::{AccountState, Node, NodeAt, Seat},
};
use std::time::Duration;

/// Time between two looks at an entry that is as it should be.
const LOOK: Duration = Duration::from_secs(60);
/// First and longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(600));

/// The entry of a node, as its operator set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListEntry {
    address: Bounded<u8, ADDRESS_BYTES_MAX>,
    archive: bool,
    region: Bounded<u8, REGION_BYTES_MAX>,
    deposit: Amount,
}

impl ListEntry {
    /// An entry under `address`; a node without a seat locks at most `deposit` for its place.
    ///
    /// # Errors
    /// Names what is longer than the ledger takes, or cannot be dialled.
    pub fn new(address: &Address, archive: bool, region: &str, deposit: Amount) -> Result<Self, String> {
        if address.port() == 0 {
            return Err(format!("nobody can dial port 0 of {address}"));
        }
        let text = address.to_string().into_bytes();
        let length = text.len();
        let address = Bounded::new(text)
            .ok_or_else(|| format!("the address has {length} bytes and may have {ADDRESS_BYTES_MAX}"))?;
        let region = Bounded::new(region.as_bytes().to_vec()).ok_or_else(|| {
            format!("the region's name has {} bytes and may have {REGION_BYTES_MAX}", region.len())
        })?;
        Ok(Self { address, archive, region, deposit })
    }

    /// True if the record says what is set; a node with a seat has no place.
    fn is_in(&self, node: &Node, has_seat: bool) -> bool {
        node.address == self.address
            && node.archive == self.archive
            && node.region == self.region
            && node.place.is_none() == has_seat
    }
}

/// Reasons why an entry is not in the ledger.
#[derive(Debug, thiserror::Error)]
enum Unlisted {
    /// The account's balance is too small.
    #[error("the account {account} holds {balance} SYNC and needs {needed} and a fee: send it some")]
    Money { account: Account, balance: Amount, needed: Amount },
    /// Every place is taken, and the operator set a lower deposit than the cheapest one needs.
    #[error(
        "all {NODES_MAX} places are taken; the cheapest needs a deposit of {needed} SYNC: set a higher one"
    )]
    Room { needed: Amount },
    /// The ledger cannot be read, or refused the operation.
    #[error(transparent)]
    Ledger(#[from] Error),
}

/// Keeps the entry of `key`'s node as set for as long as it is polled; without an entry it withdraws the node.
pub async fn keep<E: Clock>(
    context: E,
    connection: Connection,
    key: PrivateKey,
    parameters: Parameters,
    entry: Option<ListEntry>,
) {
    let submitter = Submitter::new(connection.clone(), key, parameters);
    let pauses = || Backoff::new(PAUSES.0, PAUSES.1);
    let (mut after, mut logged) = (pauses(), String::new());
    loop {
        let pause = match step(&connection, &submitter, entry.as_ref()).await {
            Ok(changed) => {
                if changed {
                    tracing::info!(listed = entry.is_some(), "the ledger has this node's entry as it is set");
                }
                (after, logged) = (pauses(), String::new());
                LOOK
            }
            Err(error) => {
                let why = error.to_string();
                if why != logged {
                    tracing::warn!("this node serves, but the ledger does not list it as it is set: {why}");
                    logged = why;
                }
                after.next().unwrap_or(PAUSES.1)
            }
        };
        context.sleep(pause).await;
    }
}

/// Compares the entry with the ledger and sends what is missing. Returns true if it sent something.
async fn step(
    connection: &Connection,
    submitter: &Submitter,
    entry: Option<&ListEntry>,
) -> Result<bool, Unlisted> {
    let account = submitter.account();
    let keys = [Node::key(&account), Seat::key(&account), AccountState::key(&account)];
    let slots = connection.read_many(&keys).await?.value;
    let slot = |place: usize| slots.get(place).copied().flatten();
    let (node, seat) = (decode::<Node>(slot(0))?, decode::<Seat>(slot(1))?);
    let balance = decode::<AccountState>(slot(2))?.unwrap_or_default().balance;
    let body = match (entry, node) {
        (None, None) => return Ok(false),
        (None, Some(node)) => withdrawal(&node),
        (Some(entry), Some(node)) if entry.is_in(&node, seat.is_some()) => return Ok(false),
        (Some(entry), node) => {
            let held = node.and_then(|node| node.place);
            let (place, deposit_add, displaces) = match held {
                Some(place) => (place, Amount::ZERO, None),
                None if seat.is_some() => (0, Amount::ZERO, None),
                None => room(connection, entry.deposit).await?,
            };
            if balance < deposit_add || balance == Amount::ZERO {
                return Err(Unlisted::Money { account, balance, needed: deposit_add });
            }
            let ListEntry { address, archive, region, .. } = entry.clone();
            AnnounceNode { address: Some(address), archive, region, place, deposit_add, displaces }
        }
    };
    submitter.send(Body::AnnounceNode(body)).await?.done()?;
    Ok(true)
}

fn withdrawal(node: &Node) -> AnnounceNode {
    AnnounceNode {
        address: None,
        archive: false,
        region: Bounded::default(),
        place: node.place.unwrap_or_default(),
        deposit_add: Amount::ZERO,
        displaces: None,
    }
}

/// A place for at most `most`: any free one, else that of the node with the lowest deposit. Also returns what
/// it costs, and the node that stands there.
async fn room(connection: &Connection, most: Amount) -> Result<(u32, Amount, Option<Account>), Unlisted> {
    let free = deposit_needed(None);
    if most < free {
        return Err(Unlisted::Room { needed: free });
    }
    let places: Vec<u32> = (0..NODES_MAX).collect();
    let mut cheapest: Option<(u32, Amount, Account)> = None;
    for places in places.chunks(READ_KEYS_MAX) {
        let keys: Vec<_> = places.iter().map(|place| NodeAt::key(*place)).collect();
        let slots = connection.read_many(&keys).await?.value;
        let mut taken = Vec::new();
        for (place, slot) in places.iter().zip(slots) {
            match decode::<NodeAt>(slot)? {
                Some(at) => taken.push((*place, at.account)),
                None => return Ok((*place, free, None)),
            }
        }
        let keys: Vec<_> = taken.iter().map(|(_, account)| Node::key(account)).collect();
        let slots = connection.read_many(&keys).await?.value;
        for ((place, account), slot) in taken.into_iter().zip(slots) {
            let Some(node) = decode::<Node>(slot)? else { continue };
            if cheapest.is_none_or(|(_, deposit, _)| node.deposit < deposit) {
                cheapest = Some((place, node.deposit, account));
            }
        }
    }
    let needed = deposit_needed(cheapest.map(|(_, deposit, _)| deposit));
    match cheapest {
        Some((place, _, account)) if needed <= most => Ok((place, needed, Some(account))),
        _ => Err(Unlisted::Room { needed }),
    }
}
