//! The Merkle-sum tree of a data set.
