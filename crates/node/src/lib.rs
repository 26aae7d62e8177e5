//! posync-node.
