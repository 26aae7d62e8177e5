//! How far a provider sends ahead of what was paid (protocol 4).
//!
//! A reader may owe at most the window: a sixteenth of what it has paid on this agreement, within
//! 64 KiB and 4 MiB. So whoever takes a window and leaves has paid sixteen times as much before,
//! or got one slice.

use posync_protocol::limits::{CREDIT_MAX, CREDIT_MIN};

/// Bytes that may be owed after `paid` bytes were paid by voucher.
pub const fn window(paid: u64) -> u64 {
    let share = paid / 16;
    if share < CREDIT_MIN {
        CREDIT_MIN
    } else if share > CREDIT_MAX {
        CREDIT_MAX
    } else {
        share
    }
}

/// Whether the next bytes may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credit {
    /// Now.
    Send,
    /// After a voucher for at least this many bytes in all.
    Pay(u64),
    /// Never: they could not be redeemed.
    Never,
}

/// Judges `bytes` more after `sent`, of which `paid` are paid; beyond `ceiling` nothing can be.
pub const fn judge(sent: u64, bytes: u64, paid: u64, ceiling: u64) -> Credit {
    let total = sent.saturating_add(bytes);
    if total > ceiling {
        Credit::Never
    } else if total <= paid.saturating_add(window(paid)) {
        Credit::Send
    } else {
        Credit::Pay(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    #[test]
    fn the_window_is_a_sixteenth_within_bounds() {
        for (paid, expected) in [
            (0, 64 * KIB),
            (64 * KIB, 64 * KIB),
            (MIB, 64 * KIB),
            (MIB + 16, 64 * KIB + 1),
            (2 * MIB, 128 * KIB),
            (64 * MIB - 16, 4 * MIB - 1),
            (64 * MIB, 4 * MIB),
            (65 * MIB, 4 * MIB),
            (u64::MAX, 4 * MIB),
        ] {
            assert_eq!(window(paid), expected, "{paid}");
        }
    }

    #[test]
    fn bytes_leave_within_the_window_and_below_the_ceiling() {
        let slice = 64 * KIB;
        for (sent, bytes, paid, ceiling, expected) in [
            (0, slice, 0, MIB, Credit::Send),
            (slice, 1, 0, MIB, Credit::Pay(slice)),
            (slice, slice, slice, MIB, Credit::Send),
            (2 * slice, slice, slice, MIB, Credit::Pay(2 * slice)),
            (32 * MIB, 2 * MIB, 32 * MIB, u64::MAX, Credit::Send),
            (32 * MIB, 2 * MIB + 1, 32 * MIB, u64::MAX, Credit::Pay(32 * MIB)),
            (0, slice, 0, slice - 1, Credit::Never),
            (MIB, 1, MIB, MIB, Credit::Never),
            (u64::MAX, 1, u64::MAX, u64::MAX, Credit::Send),
        ] {
            assert_eq!(judge(sent, bytes, paid, ceiling), expected, "{sent} {bytes} {paid}");
        }
    }
}
