//! Nodes known from the ledger: the list from which a client learns whom it can ask (ND-1 to ND-5).
//!
//! ```text
//!   AnnounceNode{address} ─► a seat:        listed beside its seat, without a deposit
//!                         ─► anyone else:   listed at one of NODES_MAX places, for a deposit
//!                                           a taken place needs a quarter more than its node's deposit,
//!                                           which returns to that node
//!   AnnounceNode{none}    ─► off the list, the deposit returns
//! ```
//!
//! Invariants
//! 1. At most one node stands at a place, and every deposit is part of `System::deposits`.
//! 2. A node leaves the list by its own word, or for a higher deposit. Its silence changes nothing.
//! 3. The list vouches for no node: a client believes only what verifies under the network's key.

use crate::{
    Account, Amount, Broken, Code, Halt,
    account::{credit, debit},
    bodies::{AnnounceNode, ranges},
    limits::{NODE_DEPOSIT_MIN, NODE_RAISE_DIVISOR, NODES_MAX},
    record::{AccountState, Node, NodeAt, Seat},
    working::{Touched, Working},
};

/// The least deposit for a place: that of a free one, or a quarter more than the deposit of the node that
/// stands there (ND-3).
pub fn deposit_needed(standing: Option<Amount>) -> Amount {
    let Some(standing) = standing else { return NODE_DEPOSIT_MIN };
    let grains = standing.grains();
    Amount::new(grains.saturating_add(grains.div_ceil(NODE_RAISE_DIVISOR))).unwrap_or(Amount::MAX)
}

/// True if the fields of an announcement are in range. A withdrawal carries nothing but the place.
pub(crate) fn announcement_fits(body: &AnnounceNode) -> bool {
    let is_bare = !body.archive && body.region.is_empty() && body.deposit_add == Amount::ZERO;
    let entry = match &body.address {
        Some(address) => {
            ranges::is_text(address) && (body.region.is_empty() || ranges::is_text(&body.region))
        }
        None => is_bare && body.displaces.is_none(),
    };
    entry && body.place < NODES_MAX
}

/// Names the records of an announcement; a displaced node's record is deleted and its account paid.
pub(crate) fn touches(signer: &Account, body: &AnnounceNode, touched: &mut Touched) {
    touched.readable.push(Seat::key(signer));
    touched.writable.extend([Node::key(signer), NodeAt::key(body.place)]);
    if let Some(displaced) = &body.displaces {
        touched.writable.extend([Node::key(displaced), AccountState::key(displaced)]);
    }
}

/// Lists the signer's node, changes its entry, or withdraws it (ND-1 to ND-4).
///
/// # Errors
/// `BadShape` for a seat with a deposit, or for a listed node that displaces another; `Balance`, `NodePlace`,
/// `NodeDeposit`, `NodeUnknown`.
pub(crate) fn announce(working: &mut Working<'_>, signer: &Account, body: &AnnounceNode) -> Result<(), Halt> {
    let before: Option<Node> = working.get(Node::key(signer))?;
    let held = before.as_ref().and_then(|node| node.place);
    let has_seat = working.get::<Seat>(Seat::key(signer))?.is_some();
    let is_new = held.is_none() && !has_seat;
    if body.displaces.is_some() && !is_new || has_seat && body.deposit_add > Amount::ZERO {
        return Err(Code::BadShape.into());
    }
    debit(working, signer, body.deposit_add)?;
    working.system.deposits.gain(body.deposit_add, "System.deposits")?;
    if held.is_some_and(|place| place != body.place) {
        return Err(Code::NodePlace.into());
    }
    let Some(address) = &body.address else {
        let node = before.ok_or(Code::NodeUnknown)?;
        return Ok(take_off(working, signer, &node)?);
    };
    let mut deposit = body.deposit_add;
    if let Some(node) = &before {
        deposit.gain(node.deposit, "Node.deposit")?;
        if has_seat {
            take_off(working, signer, node)?;
            deposit = Amount::ZERO;
        }
    }
    if is_new {
        make_room(working, body, deposit)?;
        working.put(NodeAt::key(body.place), &NodeAt { account: *signer })?;
    }
    let node = Node {
        place: (!has_seat).then_some(body.place),
        address: address.clone(),
        archive: body.archive,
        region: body.region.clone(),
        deposit,
        announced: working.context.height,
    };
    Ok(working.put(Node::key(signer), &node)?)
}

/// Frees the place for `deposit`: takes off the node that stands there, if the author named it (ND-3).
///
/// # Errors
/// `NodePlace` if another node stands there than the author says; `NodeDeposit`.
fn make_room(working: &mut Working<'_>, body: &AnnounceNode, deposit: Amount) -> Result<(), Halt> {
    let standing = working.get::<NodeAt>(NodeAt::key(body.place))?.map(|at| at.account);
    if standing != body.displaces {
        return Err(Code::NodePlace.into());
    }
    let Some(displaced) = standing else {
        return if deposit < NODE_DEPOSIT_MIN { Err(Code::NodeDeposit.into()) } else { Ok(()) };
    };
    let node: Node = working.kept(Node::key(&displaced))?;
    if deposit < deposit_needed(Some(node.deposit)) {
        return Err(Code::NodeDeposit.into());
    }
    Ok(take_off(working, &displaced, &node)?)
}

/// Takes a node off the list and returns its deposit.
fn take_off(working: &mut Working<'_>, account: &Account, node: &Node) -> Result<(), Broken> {
    if let Some(place) = node.place {
        working.delete(NodeAt::key(place))?;
    }
    working.system.deposits.lose(node.deposit, "System.deposits")?;
    credit(working, account, node.deposit)?;
    working.delete(Node::key(account))
}
