//! Opens agreements ahead of need, tops them up, renews and closes them, and watches the audits of the
//! providers that hold our shards.
//!
//! ```text
//!   ledger ──proven records──► survey ─► policy, state: wanted, next ─► Open, TopUp, CloseAlone ─► ledger
//!                                 ├────► audits: late, failed ─► repair
//!                                 └────► agreements: the newest that waits ─► settle: SetDataSet ─► ledger
//! ```

mod actor;
mod alerts;
pub mod barred;
mod opening;
pub mod policy;
mod reclaim;
mod refusals;
#[cfg(test)]
mod refused_tests;
mod settle;
mod slots;
pub mod state;
mod successor;
mod survey;
mod upkeep;

pub use actor::Drain;
pub use actor::{Agreements, start};
pub use policy::Policy;
pub use reclaim::forget;
pub use successor::successor;
