//! The state of one member in one attempt: what it may do next, what it announces, what its screen shows.

use super::{
    CeremonyError, Draft, Options, card,
    home::Home,
    mark::Mark,
    presence::{Announcement, CeremonyStep, Presence, SLOW},
    run::closed,
};
use crate::{
    engine::{PublicKey, Taking, Variant},
    epoch::Directory,
    genesis::{Genesis, Signatures},
};
use commonware_codec::{Copying, DecodeExt as _};
use commonware_cryptography::Signer as _;
use commonware_glue::dkg::bootstrap::Completion;
use posync_protocol::Account;
use rand_core::CryptoRng;

/// Milliseconds between two announcements.
const ANNOUNCE_MS: u64 = 1_000;
/// Milliseconds between two repetitions of a line on the screen.
const SHOW_MS: u64 = 10_000;
/// Milliseconds for which a member that is done announces it to the others before it ends.
const LINGER_MS: u64 = 2_000;
/// While dealings are missing, votes pass so many milliseconds after the last final block, until one more is
/// final: each final block makes every dealer repeat what was not acknowledged.
const OPEN_EVERY_MS: u64 = 1_500;
/// Blocks that may still become final after a member has seen one and stopped the votes.
const BLOCKS_UNDER_WAY: u64 = 10;
/// Blocks that may become final after a start at that height or above, so that each dealer sends its dealings again.
const BLOCKS_AGAIN: u64 = 2;
/// Last blocks of the first half, which no start may use.
const BLOCKS_KEPT: u64 = 4;

/// One member's part in a ceremony.
pub(super) struct Attempt<'a> {
    /// Directory of the member, locked.
    pub(super) home: Home,
    /// The agreement of the members.
    pub(super) draft: &'a Draft,
    /// Settings of this member.
    pub(super) options: &'a Options,
    /// Lets votes through once every member holds a dealing of every other.
    pub(super) valve: Taking,
    screen: &'a (dyn Fn(&str) + Sync),
    account: Account,
    presence: Presence,
    step: CeremonyStep,
    genesis: Option<Genesis>,
    signatures: Signatures,
    /// True once the engine was started here; the others learn it when it runs.
    is_started: bool,
    /// Height of the newest final block, and the time at which it changed or a member was missed.
    height: (u64, u64),
    /// Height of the newest final block when this process first saw one.
    begun_at: Option<u64>,
    /// True once the operator has read that votes pass no more.
    is_stuck: bool,
    announced: Option<(CeremonyStep, u64)>,
    shown: (CeremonyStep, Vec<u8>, u64),
    complete_ms: u64,
    over_ms: Option<u64>,
}

impl<'a> Attempt<'a> {
    /// The part of the member in `home`, before it has heard anyone.
    pub(super) fn new(
        home: Home,
        draft: &'a Draft,
        options: &'a Options,
        screen: &'a (dyn Fn(&str) + Sync),
    ) -> Self {
        let account = Account::of(&home.key.public_key());
        Self {
            signatures: home.signatures(),
            home,
            draft,
            options,
            valve: closed(),
            screen,
            account,
            presence: Presence::new(draft.id, options.version.clone(), Vec::new(), 0),
            step: CeremonyStep::Present,
            genesis: None,
            is_started: false,
            height: (0, 0),
            begun_at: None,
            is_stuck: false,
            announced: None,
            shown: (CeremonyStep::Present, Vec::new(), 0),
            complete_ms: 0,
            over_ms: None,
        }
    }

    /// Returns the directory, at the end.
    pub(super) fn into_home(self) -> Home {
        self.home
    }

    /// Begins to listen for the others.
    pub(super) fn began(&mut self, now_ms: u64) {
        self.shown.2 = now_ms;
        let others = self.draft.cards.iter().filter(|card| card.account() != self.account);
        let others = others.map(|card| (card.account(), card::show(&card.ingress))).collect();
        self.presence = Presence::new(self.draft.id, self.options.version.clone(), others, now_ms);
        self.say(&format!(
            "this draft's id is\n  {}\ncompare it by voice with the other members before you trust the result",
            self.draft.spoken_id()
        ));
    }

    /// Returns true if this member may deal now: all are there, or it dealt already.
    pub(super) fn may_begin(&self, now_ms: u64) -> bool {
        !self.is_started && (self.home.met.is_some() || self.presence.all_here(CeremonyStep::Present, now_ms))
    }

    /// Records durably that this member deals. It is announced once its engine runs, which its own dealing shows.
    pub(super) async fn begin(&mut self, rng: &mut impl CryptoRng) -> Result<(), CeremonyError> {
        self.home.begin(self.presence.marks(), rng).await?;
        self.is_started = true;
        self.say(&format!(
            "all {} members are here: they deal shares to each other",
            self.presence.members()
        ));
        Ok(())
    }

    /// Takes an announcement of another member.
    pub(super) fn hear(&mut self, from: &PublicKey, bytes: &[u8], now_ms: u64) -> Result<(), CeremonyError> {
        let Ok(heard) = Announcement::decode(Copying(bytes)) else { return Ok(()) };
        let from = Account::of(from);
        let id = self.draft.id;
        let knows = |(account, mark): &(Account, Mark)| {
            *account == self.account && *mark != self.home.mark && mark.is_of(account, &id)
        };
        if heard.id == id {
            if !heard.mark.is_of(&from, &id) {
                tracing::error!(%from, "an announcement with a mark that its member did not sign is ignored");
                return Ok(());
            }
            // Only a member that has dealt nothing itself believes that it dealt before.
            if self.home.met.is_none() && heard.met.iter().any(knows) {
                return Err(CeremonyError::StoreGone);
            }
            self.take_signatures(&from, &heard);
        }
        self.presence.hear(&from, heard, now_ms, (self.options.clock_ms)());
        Ok(())
    }

    fn take_signatures(&mut self, from: &Account, heard: &Announcement) {
        let Some(genesis) = &self.genesis else { return };
        for (account, signature) in &heard.signatures {
            let is_member = || self.draft.cards.iter().any(|card| card.account() == *account);
            if self.signatures.0.contains_key(account) || !is_member() {
                continue;
            }
            if genesis.is_signed_by(account, signature) {
                self.signatures.0.insert(*account, *signature);
            } else {
                tracing::error!(%from, %account,
                    "a member announced a signature that is not for this genesis");
            }
        }
    }

    /// Takes the engine's result: keeps the share, and signs the genesis.
    pub(super) fn take_key(
        &mut self,
        completion: Option<Completion<Variant, Directory>>,
    ) -> Result<(), CeremonyError> {
        let stopped = || CeremonyError::Ended("the engine stopped".into());
        let output = completion.ok_or_else(stopped)?.info.ok_or(CeremonyError::NoKey)?.output;
        if !output.revealed().is_empty() {
            return Err(CeremonyError::Revealed(output.revealed().iter().map(Account::of).collect()));
        }
        let genesis = self.draft.genesis(output).map_err(CeremonyError::Misfit)?;
        self.home.keep_share()?;
        // Those of an attempt before this one may lie in the directory.
        self.signatures.0.retain(|account, signature| genesis.is_signed_by(account, signature));
        self.signatures.0.insert(self.account, genesis.sign(&self.home.key));
        self.genesis = Some(genesis);
        self.step = CeremonyStep::Signed;
        self.say("the key is made and this machine has its share: the members sign the genesis");
        Ok(())
    }

    /// True while the height of the newest final block decides whether votes pass.
    pub(super) fn counts_blocks(&self) -> bool {
        self.step == CeremonyStep::Begun || self.step == CeremonyStep::Dealt
    }

    /// Looks at the own progress, turns the valve, and renews the screen. `height` is that of the newest final
    /// block, once the engine shows one.
    pub(super) fn look(&mut self, now_ms: u64, height: Option<u64>) -> Result<(), CeremonyError> {
        if self.is_started && self.step < CeremonyStep::Dealt {
            match self.home.store.first_dealings() {
                0 => {}
                all if all >= self.presence.members() => self.step = CeremonyStep::Dealt,
                _ => self.step = CeremonyStep::Begun,
            }
        }
        if let (CeremonyStep::Signed, Some(genesis)) = (self.step, &self.genesis)
            && self.signatures.check(genesis).is_ok()
        {
            self.home.keep_genesis(genesis, &self.signatures)?;
            (self.step, self.complete_ms) = (CeremonyStep::Complete, now_ms);
            self.say("the genesis is signed by all and in place");
        }
        self.turn_valve(now_ms, height);
        self.show(now_ms);
        Ok(())
    }

    fn turn_valve(&mut self, now_ms: u64, height: Option<u64>) {
        if self.step >= CeremonyStep::Dealt && self.presence.all_were(CeremonyStep::Dealt) {
            return self.valve.set(true);
        }
        let is_whole = self.counts_blocks() && self.presence.all_here(CeremonyStep::Begun, now_ms);
        let Some(height) = height.filter(|_| is_whole) else {
            self.height.1 = now_ms;
            return self.valve.set(false);
        };
        if height != self.height.0 {
            self.height = (height, now_ms);
        }
        // Dealers publish what was not acknowledged in the second half of the ceremony's blocks.
        let half = self.draft.ceremony_blocks() / 2;
        let again = *self.begun_at.get_or_insert(height) + BLOCKS_AGAIN;
        let last = (half - BLOCKS_UNDER_WAY).max(again.min(half - BLOCKS_KEPT));
        if height >= last && !self.is_stuck {
            self.is_stuck = true;
            self.say(&format!(
                "dealings are still missing after {height} blocks, and no more may pass before all have them: end \
                 this command on all machines and start it again: a few more blocks then make each machine send its \
                 dealings again. If it still stands after three such starts, begin anew with another draft"
            ));
        }
        self.valve.set(height < last && now_ms >= self.height.1 + OPEN_EVERY_MS);
    }

    /// The announcement that is due now, if one is: each second, and at once after progress.
    pub(super) fn announcement(&mut self, now_ms: u64) -> Option<Announcement> {
        let is_due = |(step, at): (CeremonyStep, u64)| step != self.step || now_ms >= at + ANNOUNCE_MS;
        if !self.announced.is_none_or(is_due) {
            return None;
        }
        self.announced = Some((self.step, now_ms));
        let signatures = self.genesis.as_ref().map(|_| &self.signatures.0).into_iter().flatten();
        Some(Announcement {
            id: self.draft.id,
            version: self.options.version.clone(),
            clock_ms: (self.options.clock_ms)(),
            step: self.step,
            mark: self.home.mark,
            met: self.home.met.clone().unwrap_or_default(),
            signatures: signatures.map(|(account, signature)| (*account, *signature)).collect(),
        })
    }

    /// The genesis, once this member may end: all others have it too, or enough time has passed.
    pub(super) fn is_over(&mut self, now_ms: u64) -> Option<Genesis> {
        if self.step < CeremonyStep::Complete {
            return None;
        }
        let gives_up_ms = u64::try_from(self.options.give_up_after.as_millis()).unwrap_or(u64::MAX);
        if self.presence.all_were(CeremonyStep::Complete) {
            let since = *self.over_ms.get_or_insert(now_ms);
            return (now_ms >= since + LINGER_MS).then(|| self.genesis.clone()).flatten();
        }
        if now_ms.saturating_sub(self.complete_ms) < gives_up_ms {
            return None;
        }
        self.say(
            "not all others have confirmed that they have the signed genesis; this machine ends, because all have \
             signed it: give genesis and genesis.signatures to those that lack them",
        );
        self.genesis.clone()
    }

    /// Shows each member that keeps the ceremony from going on: at every change, and every ten seconds.
    fn show(&mut self, now_ms: u64) {
        let awaited = match self.step {
            CeremonyStep::Present => CeremonyStep::Present,
            CeremonyStep::Begun | CeremonyStep::Dealt => CeremonyStep::Dealt,
            CeremonyStep::Signed => CeremonyStep::Signed,
            CeremonyStep::Complete => CeremonyStep::Complete,
        };
        let troubles = self.presence.troubles(awaited, now_ms);
        let kinds: Vec<u8> = troubles.iter().map(|(kind, _)| *kind).filter(|kind| *kind != SLOW).collect();
        let (step, shown, shown_ms) = &self.shown;
        let is_news = !kinds.is_empty() && (kinds != *shown || self.step != *step);
        let is_late = now_ms >= shown_ms + SHOW_MS && self.step == *step && !troubles.is_empty();
        if is_news || is_late {
            let lines: Vec<String> = troubles.iter().map(|(_, line)| format!("  {line}")).collect();
            let members = self.presence.members();
            self.say(&format!("waiting for {} of {members}:\n{}", troubles.len(), lines.join("\n")));
        }
        if is_news || is_late || troubles.is_empty() || self.step != *step {
            self.shown = (self.step, kinds, now_ms);
        }
    }

    fn say(&self, line: &str) {
        (self.screen)(line);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{draft::tests::draft, home::Opened},
        *,
    };
    use crate::{engine::PrivateKey, genesis::SIGNATURES_FILE};
    use commonware_codec::Encode as _;
    use commonware_consensus::types::Epoch;
    use commonware_cryptography::bls12381::{
        dkg::feldman_desmedt::{Dealer, Info, Logs, Output, Player, Reveal, deal, observe},
        primitives::sharing::Mode,
    };
    use commonware_glue::dkg::SecretStore as _;
    use commonware_parallel::Sequential;
    use commonware_utils::{N3f1, TestRng, ordered::Set};
    use std::{fs, path::Path, time::Duration};

    const OTHERS: std::ops::Range<u64> = 1..4;

    fn key(seed: u64) -> PublicKey {
        PrivateKey::from_seed(seed).public_key()
    }

    /// Runs `work` on the part of the first of four members, which has begun to listen at 0.
    fn with(work: impl FnOnce(&mut Attempt<'_>, &Path)) {
        with_signatures("", work);
    }

    /// As [`with`], in a directory in which another attempt has left its signatures.
    fn with_signatures(text: &str, work: impl FnOnce(&mut Attempt<'_>, &Path)) {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join(SIGNATURES_FILE), text).expect("writable");
        let digits = crate::config::hex(&PrivateKey::from_seed(0).encode());
        fs::write(directory.path().join("node.key"), digits).expect("writable");
        let draft = draft(4);
        let Ok(Opened::Running(home)) = Home::open(directory.path(), &draft, &mut TestRng::new(2)) else {
            panic!("a new attempt begins");
        };
        let mut options = Options::new(([127, 0, 0, 1], 1).into(), Duration::from_secs(60));
        options.clock_ms = || 0;
        let mut attempt = Attempt::new(*home, &draft, &options, &|_: &str| ());
        attempt.began(0);
        work(&mut attempt, directory.path());
    }

    fn announced(
        attempt: &Attempt<'_>,
        from: u64,
        step: CeremonyStep,
        met: Vec<(Account, Mark)>,
    ) -> Announcement {
        Announcement {
            id: attempt.draft.id,
            version: attempt.options.version.clone(),
            clock_ms: 0,
            step,
            mark: Mark::sign(&PrivateKey::from_seed(from), &attempt.draft.id, from),
            met,
            signatures: Vec::new(),
        }
    }

    fn announce(
        attempt: &mut Attempt<'_>,
        from: u64,
        step: CeremonyStep,
        met: Vec<(Account, Mark)>,
        now_ms: u64,
    ) {
        let heard = announced(attempt, from, step, met);
        attempt.hear(&key(from), &heard.encode(), now_ms).expect("it goes on");
    }

    fn begun(attempt: &mut Attempt<'_>) {
        OTHERS.for_each(|from| announce(attempt, from, CeremonyStep::Present, Vec::new(), 0));
        assert!(attempt.may_begin(0));
        futures::executor::block_on(attempt.begin(&mut TestRng::new(1))).expect("writable");
    }

    /// Writes the dealings of the first `count` members, as the engine does.
    fn deal_from(directory: &Path, count: u64) {
        for dealer in 0..count {
            let name = format!("ceremony/store/dealing-00000000000000000000-{dealer}");
            fs::write(directory.join(name), "x").expect("writable");
        }
    }

    #[test]
    fn votes_pass_until_a_block_is_final_and_again_a_moment_later_while_dealings_are_missing() {
        with(|attempt, directory| {
            begun(attempt);
            deal_from(directory, 1);
            let (mut height, mut open, mut opened_ms) = (0, false, Vec::new());
            for now_ms in (0..600_000).step_by(100) {
                OTHERS.for_each(|from| announce(attempt, from, CeremonyStep::Dealt, Vec::new(), now_ms));
                attempt.look(now_ms, Some(height)).expect("writable");
                if attempt.valve.is_on() && !open {
                    opened_ms.push(now_ms);
                }
                open = attempt.valve.is_on();
                // A block takes ten seconds on this slow network: no opening ends before it is final.
                height += u64::from(open && now_ms >= opened_ms[opened_ms.len() - 1] + 10_000);
            }
            assert_eq!(height, 10, "ten of the 20 blocks of the first half stay");
            assert_eq!(opened_ms.len(), 10);
            assert!(opened_ms.windows(2).all(|two| two[1] >= two[0] + 10_000 + OPEN_EVERY_MS));
            assert!(attempt.is_stuck && !attempt.valve.is_on());
            deal_from(directory, 4);
            attempt.look(600_000, Some(height)).expect("writable");
            assert!(attempt.valve.is_on());
            attempt.look(6_000_000, None).expect("writable");
            assert!(attempt.valve.is_on(), "once all hold all dealings, an absence stops nothing");
        });
    }

    #[test]
    fn a_start_after_the_blocks_were_used_has_two_more_and_none_reaches_the_second_half() {
        for (at, most) in [(9, 11), (10, 12), (13, 15), (15, 16), (16, 16), (19, 19)] {
            with(|attempt, directory| {
                begun(attempt);
                deal_from(directory, 1);
                let mut height = at;
                for now_ms in (0..60_000).step_by(100) {
                    OTHERS.for_each(|from| announce(attempt, from, CeremonyStep::Dealt, Vec::new(), now_ms));
                    attempt.look(now_ms, Some(height)).expect("writable");
                    height += u64::from(attempt.valve.is_on());
                }
                assert_eq!(height, most, "from {at}");
            });
        }
    }

    #[test]
    fn no_vote_passes_while_a_member_is_away_or_the_height_is_not_known() {
        with(|attempt, directory| {
            begun(attempt);
            deal_from(directory, 1);
            for now_ms in (0..60_000).step_by(100) {
                (1..3).for_each(|from| announce(attempt, from, CeremonyStep::Begun, Vec::new(), now_ms));
                attempt.look(now_ms, Some(0)).expect("writable");
                assert!(!attempt.valve.is_on());
            }
            for now_ms in (60_000..120_000).step_by(100) {
                OTHERS.for_each(|from| announce(attempt, from, CeremonyStep::Begun, Vec::new(), now_ms));
                attempt.look(now_ms, None).expect("writable");
                assert!(!attempt.valve.is_on());
            }
        });
    }

    #[test]
    fn a_member_counts_as_dealing_only_once_its_engine_runs_however_long_it_takes_to_start() {
        with(|attempt, directory| {
            begun(attempt);
            for now_ms in (0..600_000).step_by(100) {
                OTHERS.for_each(|from| announce(attempt, from, CeremonyStep::Begun, Vec::new(), now_ms));
                attempt.look(now_ms, Some(0)).expect("writable");
                assert!(!attempt.valve.is_on() && !attempt.may_begin(now_ms), "it begins once");
            }
            assert_eq!(attempt.announcement(600_000).expect("due").step, CeremonyStep::Present);
            deal_from(directory, 1);
            attempt.look(600_100, Some(0)).expect("writable");
            assert_eq!(attempt.announcement(600_100).expect("due").step, CeremonyStep::Begun);
            OTHERS.for_each(|from| announce(attempt, from, CeremonyStep::Begun, Vec::new(), 602_000));
            attempt.look(602_000, Some(0)).expect("writable");
            assert!(attempt.valve.is_on(), "no time has run out");
        });
    }

    /// A mark of the tested member, signed by the member with seed `signer`.
    fn met(attempt: &Attempt<'_>, signer: u64) -> Vec<(Account, Mark)> {
        let mark =
            Mark::sign(&PrivateKey::from_seed(signer), &attempt.draft.id, attempt.home.mark.number ^ 1);
        vec![(attempt.account, mark)]
    }

    #[test]
    fn a_member_that_lost_its_attempt_learns_it_from_others_and_one_that_did_not_cannot_be_stopped() {
        with(|attempt, _| {
            let heard = announced(attempt, 1, CeremonyStep::Begun, met(attempt, 0));
            let refused = attempt.hear(&key(1), &heard.encode(), 0);
            assert!(matches!(refused, Err(CeremonyError::StoreGone)));
        });
        with(|attempt, _| {
            begun(attempt);
            let lie = met(attempt, 0);
            announce(attempt, 1, CeremonyStep::Begun, lie, 0);
        });
    }

    #[test]
    fn no_member_ends_the_attempt_of_another_one_by_inventing_a_mark() {
        with(|attempt, _| {
            let lie = met(attempt, 1);
            announce(attempt, 1, CeremonyStep::Begun, lie, 0);
            // Nor by a mark of its own that another member signed: it counts as not heard.
            let mut heard = announced(attempt, 2, CeremonyStep::Present, Vec::new());
            heard.mark = Mark::sign(&PrivateKey::from_seed(3), &attempt.draft.id, 2);
            attempt.hear(&key(2), &heard.encode(), 0).expect("it goes on");
            [1, 3].into_iter().for_each(|from| announce(attempt, from, CeremonyStep::Present, Vec::new(), 0));
            assert!(!attempt.may_begin(0), "member 2 was not heard");
            begun(attempt);
        });
    }

    /// The result of the four dealings, made by the real rules, in which the players with the seeds of `hostile`
    /// acknowledge nothing that they got. Every dealer must publish their parts then.
    fn dealt_while_silent(keys: &[PrivateKey], hostile: &[u64]) -> Output<Variant, PublicKey> {
        let rng = &mut TestRng::new(7);
        let all = Set::from_iter_dedup(keys.iter().map(PrivateKey::public_key));
        let mode = Mode::NonZeroCounter;
        let info =
            Info::<Variant, PublicKey>::new::<N3f1>(b"a draft", 0, None, mode, Reveal::V1, all.clone(), all);
        let info = info.expect("four dealers and players");
        let player = |key: &PrivateKey| Player::new(info.clone(), key.clone()).expect("a player");
        let mut players: Vec<Player<Variant, PrivateKey>> = keys.iter().map(player).collect();
        let mut logs = Logs::<Variant, PublicKey, N3f1>::new(info.clone());
        for key in keys {
            let begun = Dealer::start::<N3f1>(&mut *rng, info.clone(), key.clone(), None);
            let (mut dealer, public, parts) = begun.expect("a dealer");
            for (to, part) in parts {
                let seed = keys.iter().position(|key| key.public_key() == to).expect("a member");
                let got = players[seed].dealer_message::<N3f1>(key.public_key(), public.clone(), part);
                let acknowledged = got.expect("an honest dealing").expect("the first of this dealer");
                if !hostile.contains(&(seed as u64)) {
                    dealer.receive_player_ack(to, acknowledged).expect("it fits");
                }
            }
            let (from, log) = dealer.finalize::<N3f1>().check(&info).expect("signed by its dealer");
            assert!(!logs.record(from, log), "one log of each dealer");
        }
        observe::<Variant, PublicKey, N3f1>(rng, logs, &Sequential).expect("enough dealings")
    }

    #[test]
    fn a_key_of_which_a_members_silence_made_a_share_public_is_refused_with_its_account() {
        let keys: Vec<PrivateKey> = (0..4).map(PrivateKey::from_seed).collect();
        let taken = |hostile: &[u64]| {
            let mut taken = None;
            with(|attempt, directory| {
                begun(attempt);
                let output = dealt_while_silent(&keys, hostile);
                // It is a whole key, with which the network could run.
                let genesis = attempt.draft.genesis(output).expect("it fits the draft");
                let share = deal::<Variant, _, N3f1>(
                    &mut TestRng::new(1),
                    Mode::NonZeroCounter,
                    genesis.output.players().clone(),
                );
                let share = share.expect("valid").1.get_value(&keys[0].public_key()).expect("one").clone();
                futures::executor::block_on(attempt.home.store.put_share(Epoch::zero(), share));
                let completion = Completion { info: Some(genesis.epoch_info()) };
                taken = Some((attempt.take_key(Some(completion)), attempt.step));
                if !hostile.is_empty() {
                    assert!(attempt.signatures.0.is_empty(), "it signs no such genesis");
                    attempt.look(0, None).expect("writable");
                    let share = directory.join("secrets/share-00000000000000000000");
                    assert!(!directory.join("genesis").exists() && !share.exists());
                }
            });
            taken.expect("it was tried")
        };
        let (refused, step) = taken(&[3]);
        let Err(error @ CeremonyError::Revealed(_)) = refused else { panic!("{refused:?}") };
        assert!(error.to_string().contains(&Account::of(&key(3)).to_string()), "{error}");
        assert!(error.is_for_ever() && step < CeremonyStep::Signed, "a new draft is the only way on");
        let (accepted, step) = taken(&[]);
        assert!(accepted.is_ok() && step == CeremonyStep::Signed, "with all acknowledged, none is public");
    }

    #[test]
    fn signatures_of_an_attempt_that_was_given_up_keep_no_later_one_from_its_end() {
        let keys: Vec<PrivateKey> = (0..4).map(PrivateKey::from_seed).collect();
        let players = Set::from_iter_dedup(keys.iter().map(PrivateKey::public_key));
        let dealt = |seed| {
            let rng = &mut TestRng::new(seed);
            deal::<Variant, _, N3f1>(rng, Mode::NonZeroCounter, players.clone()).expect("valid")
        };
        let signature =
            |genesis: &Genesis, key: &PrivateKey| (Account::of(&key.public_key()), genesis.sign(key));
        let old = draft(4).genesis(dealt(1).0).expect("it fits");
        // A member of the attempt before that is none of this one.
        let gone = PrivateKey::from_seed(4);
        let text = Signatures(keys.iter().chain([&gone]).map(|key| signature(&old, key)).collect()).to_text();
        with_signatures(&text, |attempt, directory| {
            assert_eq!(attempt.signatures.0.len(), 5, "they lie there");
            begun(attempt);
            let (output, shares) = dealt(2);
            let genesis = attempt.draft.genesis(output).expect("it fits");
            let share = shares.get_value(&keys[0].public_key()).expect("a share").clone();
            futures::executor::block_on(attempt.home.store.put_share(Epoch::zero(), share));
            let completion = Completion { info: Some(genesis.epoch_info()) };
            attempt.take_key(Some(completion)).expect("writable");
            for from in OTHERS {
                let mut heard = announced(attempt, from, CeremonyStep::Signed, Vec::new());
                heard.signatures = vec![signature(&genesis, &PrivateKey::from_seed(from))];
                attempt.hear(&key(from), &heard.encode(), 0).expect("it goes on");
            }
            attempt.look(0, None).expect("writable");
            assert_eq!(attempt.step, CeremonyStep::Complete);
            let text = fs::read(directory.join(SIGNATURES_FILE)).expect("there");
            Signatures::from_text(&text).expect("whole").check(&genesis).expect("all signed this one");
        });
    }
}
