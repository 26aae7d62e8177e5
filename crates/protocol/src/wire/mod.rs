//! Messages between processes: one closed enum per service and direction.
//!
//! Every message is one frame (at most [`crate::limits::FRAME_BYTES_MAX`]) on a channel that the keys of both
//! nodes encrypt and authenticate. The sender of a request chooses its id, and the answers repeat it, so a
//! connection may carry several requests at once.

pub mod gateway;
pub mod node;
pub mod provider;
