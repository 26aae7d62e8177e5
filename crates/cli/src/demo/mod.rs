//! The tour: a network stores a real file while two of its members fail.
//!
//! ```text
//!   start ─► put ─► get ─► kill one holder, damage another ─► both found ─► both repaired
//!         ─► get again ─► settled ─► proof ─► verified by another process
//!         ─► books sealed ─► who was paid what and why ─► the same from blocks alone
//! ```
//!
//! Nothing is staged: the stopped provider stays stopped, the damaged bytes stay damaged, and
//! every figure comes from finalized blocks or proven records. A step that does not hold within its
//! bound ends the tour, with the awaited condition and the state seen last.

pub(crate) mod damage;
pub(crate) mod payouts;
pub(crate) mod report;
pub(crate) mod story;
pub(crate) mod watch;
