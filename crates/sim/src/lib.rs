//! posync-sim.
