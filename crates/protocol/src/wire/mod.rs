//! What travels between processes: one closed enum per service and direction.
//!
//! Every message is one frame (at most [`crate::limits::FRAME_BYTES_MAX`]) on a channel that is
//! encrypted and authenticated by both node keys. Requests carry an id of the sender's choice;
//! answers repeat it, so a connection may carry several at once.

pub mod gateway;
pub mod node;
pub mod provider;
