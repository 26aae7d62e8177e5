//! A typed client of posync's services that accepts only proved answers.

pub mod account;
pub mod address;
mod backoff;
pub mod blob_header;
pub mod channel;
pub mod connection;
pub mod descriptors;
pub mod directory_lock;
pub mod floor;
pub mod format_mark;
mod forward;
pub mod known;
pub mod light;
#[cfg(test)]
mod relay;
pub mod rpc;
pub mod trips;
mod two_slots;
pub mod volume;
pub mod watch;
pub mod watermark;

pub use backoff::Backoff;
