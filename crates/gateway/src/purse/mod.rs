//! Opens agreements ahead of need, tops up, renews and closes them, and watches the audits of the
//! providers that hold our shards.
//!
//! ```text
//!   ledger ──proven records──► survey ─► state: wanted, next ─► Open, TopUp, CloseAlone ─► ledger
//!                                 ├────► audits: late, failed ─► repair
//!                                 └────► deeds: what waits ─► settle: SetDataSet, in order ─► ledger
//! ```

mod actor;
mod reclaim;
mod renew;
mod settle;
pub mod state;
mod survey;

pub use actor::{Purse, start};
pub use state::Policy;
