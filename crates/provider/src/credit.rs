//! The credit window (VO-5): limits how far the bytes sent may exceed the bytes paid. Losses of earlier
//! downloads narrow it (VO-8).

use posync_protocol::agreement::credit_window;

/// Bytes sent and paid under an agreement: egress since its opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tab {
    /// Bytes sent, never below `paid`.
    pub sent: u64,
    /// Bytes paid by voucher.
    pub paid: u64,
    /// The part of `sent - paid` that finished downloads left unpaid.
    pub lost: u64,
}

/// Decision about the next bytes of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credit {
    /// They may leave now.
    Send,
    /// They may leave after a voucher for at least this many bytes in total.
    Pay(u64),
    /// They may never leave: no voucher for them could be redeemed.
    Never,
}

/// Decides about `bytes` more for a consumer of this `trust`; bytes beyond `ceiling` are not redeemable.
pub(crate) fn judge(tab: Tab, bytes: u64, trust: u64, ceiling: u64) -> Credit {
    let total = tab.sent.saturating_add(bytes);
    let running = total.saturating_sub(tab.paid).saturating_sub(tab.lost);
    if total > ceiling {
        Credit::Never
    } else if running <= credit_window(tab.paid, tab.lost, trust) {
        Credit::Send
    } else {
        Credit::Pay(tab.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use posync_protocol::amount::ONE;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const SLICE: u64 = 64 * KIB;

    #[test]
    fn bytes_leave_within_the_window_and_below_the_ceiling() {
        for (sent, bytes, paid, ceiling, expected) in [
            (0, SLICE, 0, MIB, Credit::Send),
            (SLICE, 1, 0, MIB, Credit::Pay(SLICE)),
            (SLICE, SLICE, SLICE, MIB, Credit::Send),
            (2 * SLICE, SLICE, SLICE, MIB, Credit::Pay(2 * SLICE)),
            (32 * MIB, 2 * MIB, 32 * MIB, u64::MAX, Credit::Send),
            (32 * MIB, 2 * MIB + 1, 32 * MIB, u64::MAX, Credit::Pay(32 * MIB)),
            (0, SLICE, 0, SLICE - 1, Credit::Never),
            (MIB, 1, MIB, MIB, Credit::Never),
            (u64::MAX, 1, u64::MAX, u64::MAX, Credit::Send),
        ] {
            let tab = Tab { sent, paid, lost: 0 };
            assert_eq!(judge(tab, bytes, ONE, ceiling), expected, "{sent} {bytes} {paid}");
        }
    }

    #[test]
    fn what_is_lost_takes_room_and_what_runs_is_counted_beside_it() {
        for (sent, paid, lost, trust, bytes, expected) in [
            // 16 MiB paid: 1 MiB of credit, half of it lost.
            (16 * MIB + 512 * KIB, 16 * MIB, 512 * KIB, ONE, 512 * KIB, Credit::Send),
            (
                16 * MIB + 512 * KIB,
                16 * MIB,
                512 * KIB,
                ONE,
                512 * KIB + 1,
                Credit::Pay(16 * MIB + 512 * KIB),
            ),
            (16 * MIB, 16 * MIB, 0, ONE / 2, 512 * KIB, Credit::Send),
            (16 * MIB, 16 * MIB, 0, ONE / 2, 512 * KIB + 1, Credit::Pay(16 * MIB)),
            // Without a payment, three lost slices leave one, four leave none.
            (3 * SLICE, 0, 3 * SLICE, ONE, SLICE, Credit::Send),
            (4 * SLICE, 0, 3 * SLICE, ONE, 1, Credit::Pay(4 * SLICE)),
            (4 * SLICE, 0, 4 * SLICE, ONE, 1, Credit::Pay(4 * SLICE)),
        ] {
            let tab = Tab { sent, paid, lost };
            assert_eq!(judge(tab, bytes, trust, u64::MAX), expected, "{tab:?} {bytes}");
        }
    }
}
