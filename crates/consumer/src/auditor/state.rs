//! Which account reads when, what is due at a height, and the report that samples make. Pure decisions;
//! sends nothing.

use crate::sample::{Sample, SampleResult, state::SAMPLES};
use commonware_codec::{DecodeExt as _, Encode as _};
use commonware_cryptography::ed25519::PrivateKey;
use posync_protocol::{
    Account,
    limits::{AUDIT_READ_BYTES, LATENCY_BANDS, Parameters},
    operation::Report,
    record::{Reports, Usage},
    service::{latency_band, throughput_band},
};

/// Epochs for which one account reads. Its first reveal exposes it, so fewer would hide more; but
/// agreements are kept for that long, and each account needs its own.
pub(crate) const GROUP_EPOCHS: u64 = 16;
/// Epochs by which an account opens its agreements and begins to read before its first report.
pub(crate) const LEAD_EPOCHS: u64 = 2;
/// Term of an account's agreements, in epochs. The account reads for less than three quarters of it, so
/// none is renewed needlessly.
pub const READ_EPOCHS: u64 = 2 * GROUP_EPOCHS;
/// Most egress bytes that an account reads from one provider: a sample of small shards may take two
/// slices' worth.
pub const READ_BYTES: u64 = SAMPLES * 2 * AUDIT_READ_BYTES * (GROUP_EPOCHS + LEAD_EPOCHS + 1);

const ACCOUNT: &str = "posync gateway 2026-11 auditor account";
const PHASE: &str = "posync gateway 2026-11 auditor phase";

/// The offset, in epochs, at which a seat changes accounts. It differs by seat, so that seats do not
/// change together.
pub(crate) fn phase(seat: &PrivateKey) -> u64 {
    u64::from(blake3::derive_key(PHASE, &seat.encode())[0]) % GROUP_EPOCHS
}

/// The group to which an epoch belongs.
pub(crate) const fn group_of(epoch: u64, phase: u64) -> u64 {
    (epoch + phase) / GROUP_EPOCHS
}

/// The key of a group's account, derived from the seat's key.
pub(crate) fn account_key(seat: &PrivateKey, group: u64) -> PrivateKey {
    let mut hasher = blake3::Hasher::new_derive_key(ACCOUNT);
    hasher.update(&seat.encode()).update(&group.to_be_bytes());
    PrivateKey::decode(hasher.finalize().as_bytes().to_vec()).expect("any 32 bytes are an Ed25519 seed")
}

/// The auditor's tasks, each done once an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Open and retire reading accounts.
    Groups,
    /// Reveal the reports of the previous epoch.
    Reveal,
    /// Ask for agreements with the drawn providers.
    Draw,
    /// Commit to the reports of this epoch.
    Commit,
}

/// The tasks of an epoch that are done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    epoch: Option<u64>,
    steps: usize,
}

impl Done {
    /// The next task due at a height. The reveal comes first, as only the first round accepts it.
    pub(crate) fn next(&mut self, height: u64, p: &Parameters) -> Option<Due> {
        let epoch = p.epoch(height);
        if self.epoch != Some(epoch) {
            *self = Self { epoch: Some(epoch), steps: 0 };
        }
        let round = p.round(height) - p.epoch_start(epoch);
        let (due, from) = [
            (Due::Reveal, 0),
            (Due::Groups, 0),
            (Due::Draw, 1),
            (Due::Commit, p.epoch_rounds.saturating_sub(1)),
        ]
        .get(self.steps)
        .copied()?;
        (round >= from).then(|| {
            self.steps += 1;
            due
        })
    }
}

/// Most times that an epoch's reports are revealed.
pub(crate) const REVEALS_MAX: u32 = 3;
/// Blocks after which a reveal that is not on the ledger is unlikely to get there.
const REVEAL_BLOCKS: u64 = 3;

/// The last reveal of an epoch's reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Revealed {
    /// The epoch that they are about.
    pub epoch: u64,
    /// The height at which they were last sent.
    pub height: u64,
    /// Times that they were sent.
    pub times: u32,
}

impl Revealed {
    /// Returns true if the ledger should be checked at this height: the last reveal has had time to get
    /// there, and another one still arrives within the round that accepts reports.
    pub(crate) const fn is_due(&self, height: u64, p: &Parameters) -> bool {
        let place = height % p.epoch_blocks();
        p.epoch(height) == self.epoch + 1
            && self.times < REVEALS_MAX
            && height >= self.height + REVEAL_BLOCKS
            && place + REVEAL_BLOCKS <= p.round_blocks
    }
}

/// The state of a revealed report on the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    /// The ledger has its finding.
    pub counts: bool,
    /// The provider redeemed what its correct reads need (SQ-5).
    pub(crate) is_backed: bool,
}

impl Fate {
    /// From the findings of a provider, and the use of the agreement under which it was read.
    pub(crate) fn of(report: &Report, epoch: u64, found: Option<&Reports>, usage: Option<&Usage>) -> Self {
        let found = found.filter(|found| found.epoch == epoch);
        let counts =
            found.is_some_and(|found| found.findings.iter().any(|one| one.auditor == report.auditor));
        let is_backed = usage.is_some_and(|usage| report.backed_by(usage).is_some());
        Self { counts, is_backed }
    }
}

/// Returns true if revealing a batch again would make another of its reports count.
pub(crate) fn reveals_again(fates: &[Fate]) -> bool {
    fates.iter().any(|fate| !fate.counts && fate.is_backed)
}

/// A provider that a seat is to report on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drawn {
    /// Account of the drawn provider.
    pub provider: Account,
    /// The stratum in which it was drawn.
    pub(crate) stratum: u16,
    /// Its index among all providers.
    pub index: u32,
    /// The seat's number among the provider's auditors.
    pub auditor: u8,
}

fn lower_median(mut all: Vec<u64>) -> Option<u64> {
    all.sort_unstable();
    all.get(all.len().checked_sub(1)? / 2).copied()
}

/// The unsigned report made from the samples of one provider and epoch, and the number of the agreement
/// under which they were taken; `None` without a sample.
pub(crate) fn report<'a>(drawn: &Drawn, samples: impl Iterator<Item = &'a Sample>) -> Option<(Report, u32)> {
    let all: Vec<&Sample> = samples.collect();
    // A report covers one agreement; samples under an older one are dropped, as another key paid for
    // them.
    let last = all.last()?;
    let all: Vec<&Sample> = all.iter().filter(|sample| sample.number == last.number).copied().collect();
    let count = |keep: fn(&SampleResult) -> bool| {
        let kept = all.iter().filter(|sample| keep(&sample.found)).count();
        u16::try_from(kept).unwrap_or(u16::MAX)
    };
    let answered = count(|found| *found != SampleResult::PeerHealth);
    let timed = |of: fn(u64, u64, u64) -> u64| {
        let of = |sample: &&Sample| match sample.found {
            SampleResult::Bytes { bytes, first, whole } => {
                let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                Some(of(bytes, millis(first), millis(whole)))
            }
            SampleResult::PeerHealth | SampleResult::Wrong => None,
        };
        lower_median(all.iter().filter_map(of).collect())
    };
    let latency = timed(|_, first, _| first).map(latency_band);
    let throughput = timed(|bytes, _, whole| bytes.saturating_mul(1000) / whole.max(1)).map(throughput_band);
    // Wrong answers do not count as fast.
    let slowest = if answered > 0 { LATENCY_BANDS as u8 - 1 } else { 0 };
    let report = Report {
        stratum: drawn.stratum,
        provider: drawn.provider,
        index: drawn.index,
        auditor: drawn.auditor,
        slot: last.agreement.slot,
        opened: last.agreement.opened,
        session_key: Account::default(),
        asked: count(|_| true),
        answered,
        correct: count(|found| matches!(found, SampleResult::Bytes { .. })),
        latency: latency.unwrap_or(slowest),
        throughput: throughput.unwrap_or(0),
        signature: [0; 64],
    };
    Some((report, last.number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_cryptography::Signer as _;
    use posync_protocol::{AgreementId, Bounded, Units, record::Finding};
    use std::{collections::BTreeSet, time::Duration};

    const P: Parameters = Parameters::LOCAL;

    fn drawn() -> Drawn {
        Drawn { provider: Account([7; 32]), stratum: 3, index: 9, auditor: 2 }
    }

    fn sample(number: u32, found: SampleResult) -> Sample {
        let agreement = AgreementId { provider: drawn().provider, slot: number + 1, opened: 50 };
        Sample { epoch: 4, provider: drawn().provider, agreement, number, found }
    }

    fn bytes(first: u64, whole: u64) -> SampleResult {
        let millis = Duration::from_millis;
        SampleResult::Bytes { bytes: 64 << 10, first: millis(first), whole: millis(whole) }
    }

    #[test]
    fn what_samples_say() {
        use SampleResult::{PeerHealth, Wrong};
        let worst = LATENCY_BANDS as u8 - 1;
        for (found, asked, answered, correct, latency, throughput) in [
            (vec![bytes(3, 4)], 1, 1, 1, 0, 4),
            (vec![bytes(3, 4), bytes(250, 260)], 2, 2, 2, 0, 1),
            (vec![bytes(450, 460)], 1, 1, 1, 3, 1),
            (vec![bytes(1_990, 2_000)], 1, 1, 1, worst, 0),
            (vec![PeerHealth, PeerHealth], 2, 0, 0, 0, 0),
            (vec![bytes(3, 4), PeerHealth], 2, 1, 1, 0, 4),
            (vec![bytes(3, 4), Wrong], 2, 2, 1, 0, 4),
            (vec![Wrong], 1, 1, 0, worst, 0),
        ] {
            let samples: Vec<Sample> = found.iter().map(|found| sample(5, *found)).collect();
            let (report, number) = report(&drawn(), samples.iter()).expect("there are samples");
            assert_eq!(number, 5);
            let counts = (report.asked, report.answered, report.correct, report.latency, report.throughput);
            assert_eq!(counts, (asked, answered, correct, latency, throughput), "{found:?}");
            let place = (report.stratum, report.index, report.auditor, report.slot, report.opened);
            assert_eq!(place, (3, 9, 2, 6, 50));
        }
        assert_eq!(report(&drawn(), [].iter()), None, "nothing was asked, nothing is said");
    }

    #[test]
    fn samples_under_an_older_agreement_are_left_out() {
        let samples = [
            sample(1, SampleResult::PeerHealth),
            sample(1, SampleResult::PeerHealth),
            sample(2, bytes(3, 4)),
        ];
        let (report, number) = report(&drawn(), samples.iter()).expect("there are samples");
        assert_eq!((number, report.asked, report.answered, report.slot), (2, 1, 1, 3));
    }

    #[test]
    fn every_step_of_an_epoch_once_in_its_time() {
        for skip in [1, 3, 7] {
            let mut done = Done::default();
            let mut steps = Vec::new();
            for height in (0..3 * P.epoch_blocks()).filter(|height| height % skip == 0) {
                steps.extend(done.next(height, &P).map(|due| (height / P.epoch_blocks(), due)));
                let place = height % P.epoch_blocks();
                match steps.last() {
                    Some((_, Due::Commit)) if place > 0 => assert!(place >= 4 * P.round_blocks, "{height}"),
                    _ => {}
                }
            }
            let expected: Vec<_> = (0..3)
                .flat_map(|epoch| [Due::Reveal, Due::Groups, Due::Draw, Due::Commit].map(|due| (epoch, due)))
                .collect();
            assert_eq!(steps, expected, "every {skip} heights");
        }
    }

    #[test]
    fn what_lacked_backing_is_revealed_again_while_there_is_time() {
        let start = 5 * P.epoch_blocks();
        let revealed = |height, times| Revealed { epoch: 4, height: start + height, times };
        for (height, last, times, due) in [
            (0, 0, 1, false),
            (2, 0, 1, false),
            (3, 0, 1, true),
            (5, 0, 1, true),
            (5, 3, 2, false),
            (5, 2, 2, true),
            (5, 2, REVEALS_MAX, false),
            // A reveal would arrive after the round.
            (6, 0, 1, false),
            (P.epoch_blocks() + 3, 0, 1, false),
        ] {
            let at = revealed(last, times);
            assert_eq!(at.is_due(start + height, &P), due, "{height} after {last}, {times} times");
        }
    }

    #[test]
    fn a_report_that_does_not_count_and_is_backed_by_now_is_worth_a_reveal() {
        let (report, _) = report(&drawn(), [sample(5, bytes(3, 4))].iter()).expect("a sample");
        let finding =
            |auditor| Finding { auditor, asked: 1, answered: 1, correct: 1, latency: 0, throughput: 0 };
        let found =
            |epoch, auditor| Reports { epoch, findings: Bounded::new(vec![finding(auditor)]).expect("one") };
        let used = |egress, audited| Usage { redeemed: Units::egress(egress), audited, ..Usage::default() };
        let read = AUDIT_READ_BYTES;
        for (on_ledger, usage, counts, again) in [
            (Some(found(4, 2)), Some(used(read, read)), true, false),
            (Some(found(4, 1)), Some(used(read, 0)), false, true),
            (Some(found(3, 2)), Some(used(read, 0)), false, true),
            (None, Some(used(read, 0)), false, true),
            (None, Some(used(read, 1)), false, false),
            (None, Some(used(0, 0)), false, false),
            (None, None, false, false),
        ] {
            let fate = Fate::of(&report, 4, on_ledger.as_ref(), usage.as_ref());
            assert_eq!((fate.counts, reveals_again(&[fate])), (counts, again), "{on_ledger:?} {usage:?}");
        }
        assert!(!reveals_again(&[]));
    }

    #[test]
    fn accounts_change_and_are_never_used_again() {
        let seat = PrivateKey::from_seed(1);
        let accounts: BTreeSet<_> =
            (0..200).map(|group| Account::of(&account_key(&seat, group).public_key())).collect();
        assert_eq!(accounts.len(), 200);
        let other = PrivateKey::from_seed(2);
        assert!(!accounts.contains(&Account::of(&account_key(&other, 0).public_key())));
        let phases: BTreeSet<u64> = (0..100).map(|seed| phase(&PrivateKey::from_seed(seed))).collect();
        assert!(phases.len() > 8 && phases.iter().all(|phase| *phase < GROUP_EPOCHS), "{phases:?}");
        for phase in 0..GROUP_EPOCHS {
            let groups: Vec<u64> = (0..64).map(|epoch| group_of(epoch, phase)).collect();
            assert!(groups.is_sorted() && groups[0] == 0);
            let first = groups.iter().filter(|group| **group == 1).count() as u64;
            assert_eq!(first, GROUP_EPOCHS, "a whole group lasts for all of its epochs");
        }
    }
}
