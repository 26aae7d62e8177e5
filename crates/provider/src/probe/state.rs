//! Decides what to send in a window and which bytes count: pure.

use posync_protocol::{
    Account, Hash,
    limits::{PROBE_BYTES, PROBE_PEERS, PROBE_WINDOW_MS, Parameters},
    operation::ProbeCount,
    record,
    wire::provider::Probe,
};
use std::{ops::Range, time::Duration};

/// Blocks before the window from which peers are dialled and probes are accepted.
const EARLY_BLOCKS: u64 = 3;
/// Blocks by which two members' views may differ: bytes up to this early or late count, too.
const SKEW_BLOCKS: u64 = 1;

/// The window of an epoch, as proved from the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// The ledger's draw for the epoch.
    pub probe: record::Probe,
    /// Index of this provider at the ledger.
    pub index: u32,
    /// Heights at which bytes are sent.
    pub heights: Range<u64>,
}

impl Window {
    /// The window that a record fixes, for the provider at `index`.
    pub(crate) fn new(probe: record::Probe, index: u32, parameters: &Parameters) -> Self {
        let heights = probe.window(parameters);
        Self { probe, index, heights }
    }

    /// True if a probe of `sender` is for this provider and comes in time.
    pub(crate) fn takes(&self, sender: &Account, ask: &Probe, height: u64) -> bool {
        let drawn = self.probe.peer(sender, ask.index, ask.draw);
        ask.epoch == self.probe.epoch
            && drawn == Some(self.index)
            && height.saturating_add(EARLY_BLOCKS) >= self.heights.start
            && height < self.heights.end
    }

    /// True if bytes that arrive at `height` count.
    pub(crate) fn counts(&self, height: u64) -> bool {
        height.saturating_add(SKEW_BLOCKS) >= self.heights.start
            && height < self.heights.end.saturating_add(SKEW_BLOCKS)
    }

    /// The height from which peers are dialled.
    pub(crate) const fn begins(&self) -> u64 {
        self.heights.start.saturating_sub(EARLY_BLOCKS)
    }

    /// The height at which an open probe is given up.
    pub(crate) const fn ends(&self) -> u64 {
        self.heights.end.saturating_add(SKEW_BLOCKS)
    }

    /// True if a signed count answers what `receiver` was asked, and is no more than the bytes sent.
    pub(crate) fn is_good(
        &self,
        count: &ProbeCount,
        ask: &Probe,
        parties: (Account, Account),
        sent: u64,
        chain: &Hash,
    ) -> bool {
        let named = (count.epoch, count.sender, count.receiver, count.draw);
        named == (ask.epoch, parties.0, parties.1, ask.draw)
            && count.bytes <= sent
            && count.check(chain).verify()
    }
}

/// Sizes and pace of the messages to one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Bytes of each message but the last.
    pub piece: u64,
    /// Bytes to send to this peer in total.
    pub bytes: u64,
    /// Interval between two messages.
    pub pause: Duration,
}

impl Plan {
    /// An eighth of the bytes offered for a window, spread over three quarters of it: the last quarter is for
    /// bytes in flight. `offered` is in bytes an epoch.
    pub(crate) fn new(offered: u64, parameters: &Parameters) -> Self {
        let window = u128::from(offered) * u128::from(parameters.probe_blocks());
        let bytes = window / u128::from(parameters.epoch_blocks()) / PROBE_PEERS as u128;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        // Small offers are sent in several messages, too: one late message does not spoil the whole.
        let piece = (bytes / PROBE_PEERS as u64).clamp(1, PROBE_BYTES as u64);
        let messages = bytes.div_ceil(piece).max(1);
        let pause =
            Duration::from_millis(PROBE_WINDOW_MS * 3 / 4) / u32::try_from(messages).unwrap_or(u32::MAX);
        Self { piece, bytes, pause }
    }

    /// Sizes of the messages, in order; a single empty one if nothing is offered.
    pub(crate) fn messages(&self) -> impl Iterator<Item = usize> + use<> {
        let Self { piece, bytes, .. } = *self;
        let whole = (0..bytes / piece).map(move |_| piece);
        let rest = Some(bytes % piece).filter(|rest| *rest > 0 || bytes == 0);
        whole.chain(rest).map(|size| usize::try_from(size).unwrap_or(PROBE_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Parameters = Parameters::LOCAL;

    #[test]
    fn a_plan_sends_an_eighth_of_the_windows_share_within_it() {
        for (offered, bytes) in [
            (0, 0),
            (39, 0),
            (40, 1),
            (10 << 20, 256 << 10),
            ((10 << 20) + 39, 256 << 10),
            (10 << 30, 256 << 20),
        ] {
            let plan = Plan::new(offered, &P);
            assert_eq!(plan.bytes, bytes, "{offered}");
            let sizes: Vec<usize> = plan.messages().collect();
            assert_eq!(sizes.iter().sum::<usize>() as u64, bytes);
            assert!(!sizes.is_empty() && sizes.iter().all(|size| *size <= PROBE_BYTES));
            let whole = plan.pause * u32::try_from(sizes.len()).expect("few");
            assert!(whole <= Duration::from_millis(PROBE_WINDOW_MS * 3 / 4), "{whole:?}");
        }
        assert_eq!(Plan::new(u64::MAX, &P).bytes, u64::MAX / 40);
    }

    #[test]
    fn what_is_planned_is_measured_whole() {
        let offered = 10 << 20;
        let plan = Plan::new(offered, &P);
        assert_eq!(posync_protocol::capacity::rate([plan.bytes; 8], &P), offered);
    }

    #[test]
    fn a_probe_is_taken_from_who_was_drawn_and_in_time() {
        let probe = record::Probe { epoch: 3, seed: [7; 32], providers: 9 };
        let sender = Account([4; 32]);
        let index = probe.peer(&sender, 2, 5).expect("nine providers");
        let window = Window::new(probe, index, &P);
        let (start, end) = (window.heights.start, window.heights.end);
        let ask = Probe { epoch: 3, index: 2, draw: 5 };
        for (height, taken) in
            [(start - 4, false), (start - 3, true), (start, true), (end - 1, true), (end, false)]
        {
            assert_eq!(window.takes(&sender, &ask, height), taken, "{height}");
        }
        for (height, counts) in [(start - 2, false), (start - 1, true), (end, true), (end + 1, false)] {
            assert_eq!(window.counts(height), counts, "{height}");
        }
        assert!(!window.takes(&sender, &Probe { epoch: 2, ..ask }, start));
        let elsewhere = Window { index: (index + 1) % 9, ..window };
        assert!(!elsewhere.takes(&sender, &ask, start));
    }
}
