//! Which agreements are wanted, and what an agreement needs next: decides, sends nothing.

/// How far an agreement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Asked of the ledger.
    Opening = 0,
    /// Takes shards.
    Open = 1,
    /// Takes none: what it holds moves elsewhere.
    Draining = 2,
    /// Closed, or ended: only vouchers are redeemed.
    Closing = 3,
    /// Gone from the ledger.
    Gone = 4,
}
