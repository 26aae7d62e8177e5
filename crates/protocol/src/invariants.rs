//! Whole-state checks, run after every block in tests and simulation.
