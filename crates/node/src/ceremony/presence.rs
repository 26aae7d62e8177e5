//! Decides from the members' announcements whether all are there, and names those that are not. Pure.
//!
//! Every member announces itself once a second: the id of its draft, the version of its program, its clock,
//! and how far it has come. The ceremony starts when all members have announced the same id and version with a
//! clock that fits. A quorum is not enough: the share of a member that is away while keys are dealt is public
//! for ever.

use super::{draft::spoken, mark::Mark};
use crate::engine::AUTHORITIES_MAX;
use bytes::BufMut;
use commonware_codec::{
    Buf, EncodeSize, Error as CodecError, FixedSize as _, RangeCfg, Read, ReadExt as _, Write,
};
use posync_protocol::{Account, Hash, Signature};

/// Milliseconds without an announcement after which a member counts as missing.
pub(super) const FRESH_MS: u64 = 3_500;
/// Most milliseconds by which the clocks of two members may differ at the start: the first block may be at
/// most that much later than the genesis.
pub(super) const CLOCK_MS_MAX: u64 = 10_000;
/// Kind of the trouble that a member is there but has not come as far.
pub(super) const SLOW: u8 = 5;
/// Most bytes of a program's version.
const VERSION_BYTES_MAX: usize = 32;

/// The progress of a member, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CeremonyStep {
    /// It waits for the others; it has dealt nothing.
    Present = 0,
    /// It has heard all others, and deals.
    Begun = 1,
    /// It holds a dealing of every member on its disk.
    Dealt = 2,
    /// It holds its share on its disk and has signed the genesis.
    Signed = 3,
    /// It holds the genesis with all signatures on its disk.
    Complete = 4,
}

/// An announcement of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announcement {
    /// Id of its draft.
    pub(super) id: Hash,
    /// Version of its program.
    pub(super) version: String,
    /// Its clock, in milliseconds since 1970.
    pub(super) clock_ms: u64,
    /// Its progress so far.
    pub(super) step: CeremonyStep,
    /// Mark of its directory for this attempt.
    pub(super) mark: Mark,
    /// Marks of all other members when it began; empty before.
    pub(super) met: Vec<(Account, Mark)>,
    /// Signatures under the genesis that it knows, by account.
    pub(super) signatures: Vec<(Account, Signature)>,
}

impl Announcement {
    /// Upper bound on the encoded bytes.
    pub(super) const BYTES_MAX: usize = 32
        + 8
        + VERSION_BYTES_MAX
        + 8
        + 1
        + Mark::SIZE
        + 2 * 8
        + AUTHORITIES_MAX.get() as usize * (32 + Mark::SIZE + 32 + 64);
}

impl Write for Announcement {
    fn write(&self, buf: &mut impl BufMut) {
        self.id.write(buf);
        self.version.as_bytes().to_vec().write(buf);
        self.clock_ms.write(buf);
        (self.step as u8).write(buf);
        self.mark.write(buf);
        self.met.write(buf);
        self.signatures.write(buf);
    }
}

impl EncodeSize for Announcement {
    fn encode_size(&self) -> usize {
        32 + self.version.as_bytes().to_vec().encode_size()
            + u64::SIZE
            + Mark::SIZE
            + u8::SIZE
            + self.met.encode_size()
            + self.signatures.encode_size()
    }
}

impl Read for Announcement {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, CodecError> {
        let id = Hash::read(buf)?;
        let version = Vec::<u8>::read_cfg(buf, &(RangeCfg::new(0..=VERSION_BYTES_MAX), ()))?;
        let is_plain = |byte: &u8| byte.is_ascii_graphic();
        let version = String::from_utf8(version).ok().filter(|version| version.bytes().all(|b| is_plain(&b)));
        let version = version.ok_or(CodecError::Invalid("Announcement", "a version of other characters"))?;
        let clock_ms = u64::read(buf)?;
        let step = match u8::read(buf)? {
            0 => CeremonyStep::Present,
            1 => CeremonyStep::Begun,
            2 => CeremonyStep::Dealt,
            3 => CeremonyStep::Signed,
            4 => CeremonyStep::Complete,
            other => return Err(CodecError::InvalidEnum(other)),
        };
        let mark = Mark::read(buf)?;
        let bound = (RangeCfg::new(0..=AUTHORITIES_MAX.get() as usize), ((), ()));
        let met = Vec::read_cfg(buf, &bound)?;
        Ok(Self { id, version, clock_ms, step, mark, met, signatures: Vec::read_cfg(buf, &bound)? })
    }
}

/// The standing of another member at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing was heard from it for that many milliseconds.
    Missing(u64),
    /// Its draft has another id.
    OtherDraft(Hash),
    /// Its program has another version.
    OtherVersion(String),
    /// Its clock is ahead by that many seconds; behind, if negative.
    Skewed(i64),
    /// It takes part, with that progress.
    Here(CeremonyStep),
}

struct Member {
    account: Account,
    address: String,
    heard_ms: u64,
    last: Option<(Announcement, i64)>,
}

/// The other members of a ceremony, as they announced themselves.
pub(super) struct Presence {
    id: Hash,
    version: String,
    others: Vec<Member>,
}

impl Presence {
    /// Begins to listen at `now_ms` for `others`, each with the address that a reader knows it by.
    pub(super) fn new(id: Hash, version: String, others: Vec<(Account, String)>, now_ms: u64) -> Self {
        let member = |(account, address)| Member { account, address, heard_ms: now_ms, last: None };
        Self { id, version, others: others.into_iter().map(member).collect() }
    }

    /// Takes an announcement that came at `now_ms`, when the own clock showed `clock_ms`.
    pub(super) fn hear(&mut self, from: &Account, announcement: Announcement, now_ms: u64, clock_ms: u64) {
        if let Some(member) = self.others.iter_mut().find(|member| member.account == *from) {
            let ahead = i128::from(announcement.clock_ms) - i128::from(clock_ms);
            let ahead = ahead.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
            (member.heard_ms, member.last) = (now_ms, Some((announcement, ahead)));
        }
    }

    fn standing(&self, member: &Member, now_ms: u64) -> Standing {
        let silent = now_ms.saturating_sub(member.heard_ms);
        match &member.last {
            Some((last, ahead)) if silent <= FRESH_MS => {
                if last.id != self.id {
                    Standing::OtherDraft(last.id)
                } else if last.version != self.version {
                    Standing::OtherVersion(last.version.clone())
                } else if ahead.unsigned_abs() > CLOCK_MS_MAX && last.step == CeremonyStep::Present {
                    Standing::Skewed(ahead / 1_000)
                } else {
                    Standing::Here(last.step)
                }
            }
            _ => Standing::Missing(silent),
        }
    }

    fn standings(&self, now_ms: u64) -> impl Iterator<Item = (&Member, Standing)> {
        self.others.iter().map(move |member| (member, self.standing(member, now_ms)))
    }

    /// Returns true if all others take part now and have come to `step` at least.
    pub(super) fn all_here(&self, step: CeremonyStep, now_ms: u64) -> bool {
        self.standings(now_ms).all(|(_, standing)| matches!(standing, Standing::Here(at) if at >= step))
    }

    /// Returns true if all others with the same draft have once come to `step`, also if they are away now.
    pub(super) fn all_were(&self, step: CeremonyStep) -> bool {
        let came = |member: &Member| {
            member.last.as_ref().is_some_and(|(last, _)| last.id == self.id && last.step >= step)
        };
        self.others.iter().all(came)
    }

    /// Marks of all others, as last announced.
    pub(super) fn marks(&self) -> Vec<(Account, Mark)> {
        let mark = |member: &Member| member.last.as_ref().map(|(last, _)| (member.account, last.mark));
        self.others.iter().filter_map(mark).collect()
    }

    /// Number of all members.
    pub(super) fn members(&self) -> usize {
        self.others.len() + 1
    }

    /// Lines for the screen: everyone that keeps the ceremony from `step`, and why. The number before each
    /// line is the kind of trouble; [`SLOW`] alone is no news.
    pub(super) fn troubles(&self, step: CeremonyStep, now_ms: u64) -> Vec<(u8, String)> {
        let standings: Vec<(&Member, Standing)> = self.standings(now_ms).collect();
        if let Some(own) = own_clock(&standings) {
            return vec![(4, own)];
        }
        let line = |(member, standing): (&Member, Standing)| {
            let name = format!("{} at {}", member.account, member.address);
            match standing {
                // A member that began a moment ago is not missed yet.
                Standing::Missing(ms) if ms <= FRESH_MS => None,
                Standing::Missing(ms) => Some((1, format!("{name} is missing for {} s", ms / 1_000))),
                Standing::OtherDraft(id) => Some((
                    2,
                    format!(
                        "{name} has another draft: its id is\n    {}\n  this one is\n    {}\n  compare the files, and \
                         start both with the same one",
                        spoken(&id),
                        spoken(&self.id)
                    ),
                )),
                Standing::OtherVersion(version) => Some((
                    3,
                    format!(
                        "{name} runs version {version} of the program, this machine {}: all need the same one",
                        self.version
                    ),
                )),
                Standing::Skewed(seconds) => Some((
                    4,
                    format!(
                        "the clock of {name} is {} of this machine's: let a time service set the one that is wrong",
                        distance(seconds)
                    ),
                )),
                Standing::Here(at) if at < step => {
                    Some((SLOW, format!("{name} has not come as far: {}", doing(at))))
                }
                Standing::Here(_) => None,
            }
        };
        standings.into_iter().filter_map(line).collect()
    }
}

const fn doing(step: CeremonyStep) -> &'static str {
    match step {
        CeremonyStep::Present => "it waits for others",
        CeremonyStep::Begun => "it lacks dealings",
        CeremonyStep::Dealt => "it makes the key",
        CeremonyStep::Signed => "it lacks signatures",
        CeremonyStep::Complete => "it is done",
    }
}

fn distance(seconds: i64) -> String {
    let side = if seconds < 0 { "behind" } else { "ahead" };
    format!("{} s {side}", seconds.unsigned_abs())
}

/// The line about this machine's own clock, if the clocks of all others that are heard agree that it is wrong.
fn own_clock(standings: &[(&Member, Standing)]) -> Option<String> {
    let heard: Vec<i64> = standings
        .iter()
        .filter_map(|(member, standing)| {
            let ahead = member.last.as_ref()?.1;
            (!matches!(standing, Standing::Missing(_))).then_some(ahead)
        })
        .collect();
    let is_skewed = standings.iter().any(|(_, standing)| matches!(standing, Standing::Skewed(_)));
    let (least, most) = (heard.iter().min()?, heard.iter().max()?);
    let agree = most.saturating_sub(*least) <= CLOCK_MS_MAX as i64 && heard.len() > 1;
    (is_skewed && agree).then(|| {
        format!(
            "the clock of this machine is {} of the clocks of all {} others that are heard: let a time service set it",
            distance(-(least / 2 + most / 2) / 1_000),
            heard.len()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_codec::{Copying, DecodeExt as _, Encode as _};
    use commonware_cryptography::Signer as _;

    const ID: Hash = [5; 32];
    const CLOCK: u64 = 1_700_000_000_000;

    fn account(index: u8) -> Account {
        Account([index; 32])
    }

    fn presence() -> Presence {
        let others = (1..4).map(|index| (account(index), format!("10.0.0.{index}:9000"))).collect();
        Presence::new(ID, "1.0.0".into(), others, 0)
    }

    fn mark() -> Mark {
        Mark::sign(&crate::engine::PrivateKey::from_seed(1), &ID, u64::MAX)
    }

    fn announcement(step: CeremonyStep) -> Announcement {
        let (met, signatures) = Default::default();
        Announcement { id: ID, version: "1.0.0".into(), clock_ms: CLOCK, step, mark: mark(), met, signatures }
    }

    #[test]
    fn an_announcement_survives_its_bytes_and_is_bounded() {
        let full = Announcement {
            version: "v".repeat(VERSION_BYTES_MAX),
            met: vec![(account(1), mark()); AUTHORITIES_MAX.get() as usize],
            signatures: vec![(account(1), [9; 64]); AUTHORITIES_MAX.get() as usize],
            ..announcement(CeremonyStep::Complete)
        };
        let bytes = full.encode();
        assert!(bytes.len() <= Announcement::BYTES_MAX && bytes.len() == full.encode_size());
        assert_eq!(Announcement::decode(Copying(&bytes)).expect("it was just encoded"), full);
        let raw = Announcement { version: "\u{1b}[2J".into(), ..announcement(CeremonyStep::Present) };
        Announcement::decode(Copying(&raw.encode())).expect_err("no version that a terminal would obey");
    }

    #[test]
    fn the_ceremony_starts_when_all_are_there_and_not_with_a_quorum() {
        let mut presence = presence();
        for index in 1..4 {
            assert!(!presence.all_here(CeremonyStep::Present, 500), "{index} is missing");
            presence.hear(&account(index), announcement(CeremonyStep::Present), 500, CLOCK);
        }
        assert!(
            presence.all_here(CeremonyStep::Present, 500) && !presence.all_here(CeremonyStep::Begun, 500)
        );
        assert!(
            !presence.all_here(CeremonyStep::Present, 501 + FRESH_MS),
            "what was heard once does not last"
        );
        presence.hear(&account(9), announcement(CeremonyStep::Present), 500, CLOCK);
        assert_eq!(presence.members(), 4, "a stranger is nobody");
    }

    #[test]
    fn the_screen_names_everyone_who_keeps_the_ceremony_from_starting() {
        let day = 86_400_000;
        let here = announcement(CeremonyStep::Present);
        let cases: [(Option<Announcement>, u8, &str); 5] = [
            (None, 1, "is missing for 12 s"),
            (Some(Announcement { id: [6; 32], ..here.clone() }), 2, "0606 0606"),
            (Some(Announcement { version: "0.9".into(), ..here.clone() }), 3, "version 0.9"),
            (Some(Announcement { clock_ms: CLOCK + day, ..here.clone() }), 4, "86400 s ahead"),
            (Some(Announcement { clock_ms: CLOCK - day, ..here.clone() }), 4, "86400 s behind"),
        ];
        for (heard, kind, words) in cases {
            let mut presence = presence();
            for index in 1..3 {
                presence.hear(&account(index), here.clone(), 12_000, CLOCK + 40);
            }
            heard.into_iter().for_each(|heard| presence.hear(&account(3), heard, 12_000, CLOCK));
            assert!(!presence.all_here(CeremonyStep::Present, 12_000));
            let troubles = presence.troubles(CeremonyStep::Present, 12_000);
            assert_eq!(troubles.len(), 1, "{troubles:?}");
            assert_eq!(troubles[0].0, kind);
            let line = &troubles[0].1;
            assert!(line.contains(words) && line.contains("10.0.0.3:9000"), "{line}");
        }
    }

    #[test]
    fn a_machine_whose_clock_all_others_contradict_is_told_to_set_its_own() {
        let mut presence = presence();
        for index in 1..4 {
            presence.hear(&account(index), announcement(CeremonyStep::Present), 0, CLOCK + 86_400_000);
        }
        let troubles = presence.troubles(CeremonyStep::Present, 0);
        assert_eq!(troubles.len(), 1, "{troubles:?}");
        assert!(troubles[0].1.contains("this machine is 86400 s ahead"), "{}", troubles[0].1);
    }

    #[test]
    fn a_clock_that_is_set_after_the_start_stops_nothing() {
        let mut presence = presence();
        for index in 1..4 {
            presence.hear(&account(index), announcement(CeremonyStep::Begun), 0, CLOCK + 86_400_000);
        }
        assert!(presence.all_here(CeremonyStep::Begun, 0));
    }

    #[test]
    fn progress_is_remembered_and_another_draft_has_none() {
        let mut presence = presence();
        for index in 1..3 {
            presence.hear(&account(index), announcement(CeremonyStep::Dealt), 0, CLOCK);
        }
        let other = Announcement { id: [6; 32], ..announcement(CeremonyStep::Complete) };
        presence.hear(&account(3), other, 0, CLOCK);
        assert!(!presence.all_were(CeremonyStep::Dealt));
        assert_eq!(presence.marks().len(), 3);
        presence.hear(&account(3), announcement(CeremonyStep::Signed), 0, CLOCK);
        assert!(presence.all_were(CeremonyStep::Dealt) && !presence.all_were(CeremonyStep::Signed));
    }
}
