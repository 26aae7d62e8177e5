//! Fenwick (binary indexed) trees over places 0, 1, 2, ...: which nodes a change writes and which
//! nodes a prefix reads. Nodes are numbered from 1; a tree over 2^20 places has 20 levels.

/// Nodes to which a change at `place` is added, lowest first: at most 21 for `places` = 2^20.
pub fn path(place: u32, places: u32) -> impl Iterator<Item = u32> {
    core::iter::successors(Some(place + 1), move |node| Some(node + (node & node.wrapping_neg())))
        .take_while(move |node| *node <= places)
}
