//! The nodes' part of the invariant: every node has a seat or one place, and a place its deposit (ND-2).

use super::{Broken, State, at_most, equal};
use crate::{
    limits::{NODE_DEPOSIT_MIN, NODES_MAX},
    record::{Node, NodeAt, Seat, SeatAt, System},
};

pub(super) fn check(state: &State, system: &System) -> Result<(), Broken> {
    let mut reached = 0_u64;
    for place in 0..NODES_MAX {
        let Some(at) = state.get::<NodeAt>(NodeAt::key(place))? else { continue };
        let node: Node = state.need(Node::key(&at.account), "Node at a place")?;
        equal("Node.place", node.place.map_or(u32::MAX, |place| place), place)?;
        at_most("the least deposit of a node", NODE_DEPOSIT_MIN.grains(), node.deposit.grains())?;
        reached += 1;
    }
    equal("orphaned NodeAt", state.count::<NodeAt>(), reached)?;
    for index in 0..system.seats {
        let at: SeatAt = state.need(SeatAt::key(index), "SeatAt")?;
        let node: Option<Node> = state.get(Node::key(&at.account))?;
        let Some(node) = node.filter(|node| node.place.is_none()) else { continue };
        state.need::<Seat>(Seat::key(&at.account), "Seat of a node without a place")?;
        equal("Node.deposit of a seat", node.deposit.grains(), 0_u128)?;
        reached += 1;
    }
    equal("orphaned Node", state.count::<Node>(), reached)
}
