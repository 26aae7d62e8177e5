//! Opens, renews, tops up and closes agreements.
pub mod state;
