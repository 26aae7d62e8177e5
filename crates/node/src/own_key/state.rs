//! The decisions: pure, apart from the durable record. No call here waits.

use crate::{
    engine::{AUTHORITIES_MAX, PublicKey},
    epoch::{
        Weights,
        secrets::{Secrets, SignedAt, Wait},
    },
    genesis::Genesis,
    own_key::votes::VOTE_BYTES_MAX,
};
use commonware_utils::{Faults as _, N3f1, ordered::Set};
use posync_protocol::{Account, Hash, block::Header};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// The node's right to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SigningRight {
    /// Not enough of the others have answered.
    Silent,
    /// The node follows, and signs from this term on.
    Waits(u64),
    /// The node signs votes and proposals.
    Signs,
    /// Another process signs with this key, or this is an old copy: the node ends.
    Refused(Refusal),
}

impl SigningRight {
    /// Logs the right to sign for the operator.
    pub(super) fn log(&self) {
        match self {
            Self::Silent => {}
            Self::Waits(from) => tracing::warn!(
                from,
                "this node may have signed what it has no record of: it follows without a vote, and signs \
                 from that term on"
            ),
            Self::Signs => tracing::info!("no other process signs with this node's key: it takes part"),
            Self::Refused(refusal) => tracing::error!(%refusal, "this node ends, and signs nothing"),
        }
    }
}

/// Both views of a key that signs elsewhere, or of an old record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// Term and view of the last signature of that kind that this directory records.
    pub own: Option<SignedAt>,
    /// Term and view of the newest signature of this key that the others hold.
    pub seen: SignedAt,
    /// Height of that signature if it is a proposal; `None` for a vote.
    pub height: Option<u64>,
    /// Height that the operators agreed on, if it is below what the network holds.
    pub agreed: Option<u64>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [term, view] = self.seen;
        let kind = if self.height.is_some() { "proposal" } else { "vote" };
        match self.own {
            Some([own_term, u64::MAX]) => {
                write!(f, "the record here says that nothing is signed up to the end of term {own_term}")?;
            }
            Some([own_term, own_view]) => {
                write!(f, "the last {kind} recorded here is of term {own_term}, view {own_view}")?;
            }
            None => write!(f, "no {kind} is recorded here")?,
        }
        write!(f, ", but the network holds a {kind} signed by this key at ")?;
        if let Some(height) = self.height {
            write!(f, "height {height}, ")?;
        }
        write!(f, "term {term}, view {view}")?;
        if let Some(agreed) = self.agreed {
            return write!(
                f,
                ", which is above the height {agreed} named with --we-agreed-on: read the height of the last final \
                 block on every machine again, agree on the highest, and start this one with that number"
            );
        }
        write!(
            f,
            ": another process signs with this key, or this directory is an old copy. Find the other process and \
             stop it for good. Then start this one once with --i-stopped-the-other: it follows without a vote, \
             and signs again from the next term on, or from the one after if the next is near. Never restore \
             secrets/ from a backup"
        )
    }
}

/// The operator's word about the key, given at one start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// True if no other process uses the key, although the network may show one.
    pub other_stopped: bool,
    /// Height of the last final block, on which the operators of a network whose copies were restored agreed.
    pub agreed: Option<u64>,
}

/// The content of another authority's answer, as far as it was checked.
#[derive(Clone, Debug, Default)]
pub(super) struct Answered {
    /// Height up to which the other has applied the chain, and searched it for proposals of this key.
    pub(super) height: u64,
    /// Height that its certificate proves, if it sent one.
    pub(super) proved: Option<u64>,
    /// Newest proposal of this key that it holds; its signature is checked here.
    pub(super) newest: Option<Header>,
    /// Newest vote of this key that it holds, verified.
    pub(super) vote: Option<SignedAt>,
    /// Milliseconds since 1970 on its clock.
    pub(super) time_ms: u64,
}

/// Least number of blocks for which a node that has lost its record listens for another process, before it signs
/// in the next term.
const LISTENED_MIN: u64 = 16;
/// Blocks for each member of the term for which it listens at least, unless its seat leads no view. The others hear
/// one connection of a key, and the votes of another process may come over none. Its proposals reach all: of this
/// many leaders, one of equal weight is missed once in three thousand cases.
const LISTENED_PER_MEMBER: u64 = 8;
/// Leader timeouts between two rounds of answers, beside one for each of a third of the members: as many leaders
/// in a row may be away from a network that lives.
const STILL_TIMEOUTS: u64 = 3;

const fn place(header: &Header) -> SignedAt {
    [header.term, header.view]
}

/// The newest proposals and votes seen, the answers of the others, and the right to sign.
pub(super) struct State {
    chain: Hash,
    me: Account,
    key: PublicKey,
    /// The weights of the terms' members.
    weights: Weights,
    secrets: Secrets,
    word: Word,
    /// True if the secrets hold neither a share nor a record: this node has lost what it signed.
    is_fresh: bool,
    /// True if there was no share at the start: shares are set aside with the journals of votes.
    has_lost_votes: bool,
    /// True if the record of the votes is lost, or does not cover what the others hold: then the votes in
    /// each other's first answer count as this node's own.
    takes_votes_over: bool,
    right: SigningRight,
    members: Option<(u64, Set<PublicKey>)>,
    term_blocks: u64,
    /// The newest proposal of each authority.
    newest: BTreeMap<Account, Option<Header>>,
    /// The newest vote that each authority's connection brought, in its bytes.
    heard: BTreeMap<Account, (SignedAt, Vec<u8>)>,
    /// The newest vote of this node: in its journal at the start, or sent since.
    voted: Option<SignedAt>,
    /// The newest vote of this key that is accounted for without a record.
    taken_over: Option<SignedAt>,
    /// The newest vote of this key that the others hold.
    seen_vote: Option<SignedAt>,
    /// Height that another must have searched, so that its answer counts.
    needed: u64,
    /// Height that each authority has searched, from its first answer on.
    searched: BTreeMap<PublicKey, u64>,
    /// The moment of the last answer, in milliseconds since 1970 here.
    clock_ms: u64,
    /// Milliseconds of a leader timeout.
    leader_timeout_ms: u64,
    /// The moment at which enough had shown nothing above the agreed height, and the authorities that did so again
    /// long enough after it.
    again: Option<(u64, BTreeSet<PublicKey>)>,
    /// Milliseconds by which this node's clock is ahead of that of each authority that has answered.
    ahead: BTreeMap<PublicKey, i64>,
    authorities: Vec<PublicKey>,
}

impl State {
    pub(super) fn new(
        genesis: &Genesis,
        key: &PublicKey,
        secrets: Secrets,
        word: Word,
        weights: Weights,
    ) -> Self {
        let authorities: Vec<PublicKey> =
            genesis.authorities.iter().map(|authority| authority.key.clone()).collect();
        let is_fresh = secrets.proposed().is_none() && secrets.wait().is_none() && !secrets.has_share();
        let has_lost_votes = !secrets.has_share();
        let takes_votes_over =
            word.other_stopped || word.agreed.is_some() || secrets.wait().is_some() || has_lost_votes;
        let newest = authorities.iter().map(|key| (Account::of(key), None)).collect();
        Self {
            chain: genesis.chain(),
            me: Account::of(key),
            key: key.clone(),
            weights,
            secrets,
            word,
            is_fresh,
            has_lost_votes,
            takes_votes_over,
            right: SigningRight::Silent,
            members: None,
            term_blocks: genesis.parameters.term_blocks().max(1),
            newest,
            heard: BTreeMap::new(),
            voted: None,
            taken_over: None,
            seen_vote: None,
            needed: 0,
            searched: BTreeMap::new(),
            clock_ms: 0,
            leader_timeout_ms: genesis.parameters.leader_timeout_ms,
            again: None,
            ahead: BTreeMap::new(),
            authorities,
        }
    }

    /// Takes what storage holds at the start: the applied height, and the newest view in a journal of votes. Without
    /// a share the journals may be lost, and nothing is compared with them.
    ///
    /// Consensus writes the votes of others to that journal too. So the view found is kept until the node signs,
    /// and a kept one counts instead of what a later start finds.
    pub(super) fn begin(&mut self, applied: u64, found: Option<SignedAt>) {
        self.needed = self.needed.max(applied);
        if self.has_lost_votes {
            return;
        }
        let kept = self.secrets.kept_vote();
        if kept.is_none() {
            self.secrets.keep_vote(found);
        }
        self.voted = self.voted.max(kept.unwrap_or(found));
    }

    /// The newest proposal of an authority, if one was seen since the start.
    pub(super) fn newest(&self, authority: &Account) -> Option<&Header> {
        self.newest.get(authority)?.as_ref()
    }

    /// True for an authority whose proposals are kept.
    pub(super) fn may_search(&self, authority: &Account) -> bool {
        self.newest.contains_key(authority)
    }

    /// The bytes of the newest vote that an authority's connection brought.
    pub(super) fn vote_of(&self, authority: &Account) -> Option<&[u8]> {
        self.heard.get(authority).map(|(_, vote)| vote.as_slice())
    }

    /// Keeps a vote that an authority's connection brought, if it is its newest.
    pub(super) fn heard(&mut self, authority: Account, place: SignedAt, vote: &[u8]) {
        let is_newer = self.heard.get(&authority).is_none_or(|(known, _)| *known < place);
        if is_newer && vote.len() <= VOTE_BYTES_MAX && self.may_search(&authority) {
            self.heard.insert(authority, (place, vote.to_vec()));
        }
    }

    /// Notes a vote that this node is about to send.
    pub(super) fn votes(&mut self, place: SignedAt) {
        self.voted = self.voted.max(Some(place));
    }

    /// True until the node may sign or must end.
    pub(super) fn is_silent(&self) -> bool {
        self.right == SigningRight::Silent
    }

    /// True while the node waits for a term.
    pub(super) const fn is_waiting(&self) -> bool {
        matches!(self.right, SigningRight::Waits(_))
    }

    /// Height that the others must have searched.
    pub(super) const fn needed(&self) -> u64 {
        self.needed
    }

    /// The height on which the operators agreed, while the network is below it.
    pub(super) fn missing(&self) -> Option<u64> {
        self.word.agreed.filter(|agreed| self.needed < *agreed)
    }

    fn turn(&mut self, right: SigningRight) -> Option<SigningRight> {
        match (&self.right, &right) {
            (_, SigningRight::Signs) => self.secrets.release_vote(),
            (SigningRight::Signs, SigningRight::Refused(_)) => self.secrets.keep_vote(self.voted),
            (_, SigningRight::Silent | SigningRight::Waits(_) | SigningRight::Refused(_)) => {}
        }
        self.right = right.clone();
        Some(right)
    }

    pub(super) fn saw(&mut self, header: &Header) -> Option<SigningRight> {
        let newest = self.newest.get_mut(&header.leader)?;
        if header.chain != self.chain || newest.as_ref().is_some_and(|known| place(known) >= place(header)) {
            return None;
        }
        *newest = Some(header.clone());
        if header.leader != self.me {
            return None;
        }
        let known = match &self.right {
            SigningRight::Silent | SigningRight::Refused(_) => return None,
            SigningRight::Signs => self.secrets.proposed(),
            SigningRight::Waits(_) => self.known(),
        };
        if Some(place(header)) <= known { None } else { self.refuse(header, None) }
    }

    /// Takes a vote of this key that another authority holds; `is_first` in that authority's first answer.
    fn saw_vote(&mut self, vote: SignedAt, is_first: bool) -> Option<SigningRight> {
        if is_first && self.takes_votes_over {
            self.taken_over = self.taken_over.max(Some(vote));
        }
        self.seen_vote = self.seen_vote.max(Some(vote));
        match self.right {
            SigningRight::Signs | SigningRight::Waits(_) => {
                self.vote_above().and_then(|vote| self.refuse_vote(vote))
            }
            SigningRight::Silent | SigningRight::Refused(_) => None,
        }
    }

    /// The newest vote of this key that the others hold, if this node has no account of it.
    fn vote_above(&self) -> Option<SignedAt> {
        self.seen_vote.filter(|vote| Some(*vote) > self.voted.max(self.taken_over))
    }

    /// The newest proposal of this node's key that is accounted for: recorded here, or known when a wait began.
    fn known(&self) -> Option<SignedAt> {
        let waited = self.secrets.wait().and_then(|wait| wait.newest);
        self.secrets.proposed().max(waited)
    }

    fn refuse(&mut self, header: &Header, agreed: Option<u64>) -> Option<SigningRight> {
        let (own, seen, height) = (self.secrets.proposed(), place(header), Some(header.height));
        self.turn(SigningRight::Refused(Refusal { own, seen, height, agreed }))
    }

    fn refuse_vote(&mut self, seen: SignedAt) -> Option<SigningRight> {
        let own = self.voted;
        self.turn(SigningRight::Refused(Refusal { own, seen, height: None, agreed: None }))
    }

    pub(super) fn term(&mut self, term: u64, members: &Set<PublicKey>) -> Option<SigningRight> {
        if self.members.as_ref().is_some_and(|(known, _)| *known > term) {
            return None;
        }
        self.members = Some((term, members.clone()));
        let accounts: Vec<Account> = self.authorities.iter().chain(members).map(Account::of).collect();
        self.newest.retain(|account, _| accounts.contains(account));
        self.heard.retain(|account, _| accounts.contains(account));
        self.searched.retain(|peer, _| members.position(peer).is_some() || self.authorities.contains(peer));
        for account in accounts {
            self.newest.entry(account).or_default();
        }
        match self.right {
            SigningRight::Waits(from) if term >= from => {
                self.secrets.end_wait(from);
                self.turn(SigningRight::Signs)
            }
            SigningRight::Silent => self.judge(),
            SigningRight::Waits(_) | SigningRight::Signs | SigningRight::Refused(_) => None,
        }
    }

    pub(super) fn answered(
        &mut self,
        peer: &PublicKey,
        answer: &Answered,
        now_ms: u64,
    ) -> Option<SigningRight> {
        let is_member = self.members.as_ref().is_some_and(|(_, members)| members.position(peer).is_some());
        if !is_member && !self.authorities.contains(peer) {
            return None;
        }
        let ahead = i128::from(now_ms) - i128::from(answer.time_ms);
        self.ahead.insert(peer.clone(), i64::try_from(ahead).unwrap_or(i64::MAX));
        if self.ahead.len() > 2 * AUTHORITIES_MAX.get() as usize {
            self.ahead.pop_first();
        }
        let is_first = !self.searched.contains_key(peer);
        let searched = self.searched.entry(peer.clone()).or_default();
        *searched = answer.height.max(*searched);
        // All that another process signed before this start is at or below the heights of the first answers. But
        // a network that moves shows itself by the later ones.
        if is_first || self.word.agreed.is_some_and(|agreed| self.needed <= agreed) {
            self.needed = self.needed.max(answer.proved.unwrap_or_default());
        }
        self.answered_again(peer, is_member && answer.height >= self.needed, now_ms);
        let own = answer.newest.as_ref().filter(|header| header.leader == self.me && header.check().verify());
        let news = own.and_then(|header| self.saw(header));
        let news = news.or_else(|| answer.vote.and_then(|vote| self.saw_vote(vote, is_first)));
        if news.is_some() { news } else { self.judge() }
    }

    /// Authorities of the term whose answers count, and how many must; with this node they are a quorum then.
    pub(super) fn answers(&self) -> Option<(usize, usize)> {
        let (_, members) = self.members.as_ref()?;
        let counts = |(peer, searched): &(&PublicKey, &u64)| {
            **searched >= self.needed && members.position(peer).is_some()
        };
        let answers = self.searched.iter().filter(counts).count();
        Some((answers, N3f1::quorum(members.len()) as usize - 1))
    }

    fn enough(&self) -> bool {
        self.answers().is_some_and(|(answers, needed)| answers >= needed)
    }

    fn judge(&mut self) -> Option<SigningRight> {
        if !self.is_silent() || !self.enough() {
            return None;
        }
        let seen = self.newest(&self.me).cloned();
        let above = seen.clone().filter(|header| Some(place(header)) > self.known());
        let agreed = self.word.agreed;
        if agreed.is_some_and(|agreed| self.needed < agreed) {
            return None;
        }
        let is_known = above.is_none();
        let may_wait = self.word.other_stopped || self.is_fresh || agreed.is_some();
        // A proposal that built on the agreed block never became final; one above it has seen it become final.
        let is_too_high =
            |header: &Header| agreed.is_some_and(|agreed| header.height > agreed.saturating_add(1));
        if let Some(header) = above.as_ref().filter(|header| !may_wait || is_too_high(header)) {
            return self.refuse(header, agreed);
        }
        if let Some(vote) = self.vote_above() {
            return self.refuse_vote(vote);
        }
        if agreed == Some(self.needed) {
            return self.resume(above);
        }
        if let Some(agreed) = agreed {
            tracing::warn!(
                agreed,
                height = self.needed,
                "the network is above the height on which its operators agreed, so it does not stand still there: \
                 this node does not sign at once. If it does stand still, agree on its height and start again"
            );
        }
        // A restored copy may hold a wait of long ago.
        let counts = |wait: &Wait| is_known && (agreed.is_none() || wait.from > self.now());
        if let Some(wait) = self.secrets.wait().filter(counts) {
            if self.now() >= wait.from {
                self.secrets.end_wait(wait.from);
                return self.turn(SigningRight::Signs);
            }
            return self.turn(SigningRight::Waits(wait.from));
        }
        if may_wait {
            let from = self.first_safe_term(seen.as_ref());
            self.secrets.begin_wait(Wait { from, newest: seen.as_ref().map(place).max(self.known()) });
            return self.turn(SigningRight::Waits(from));
        }
        self.turn(SigningRight::Signs)
    }

    /// The running term, as far as this node or the others know.
    fn now(&self) -> u64 {
        self.members.as_ref().map_or(0, |(term, _)| *term)
    }

    /// The first term in which nothing can have been signed before now, and before which this node hears
    /// whether another process votes.
    fn first_safe_term(&self, seen: Option<&Header>) -> u64 {
        let now = self.newest_term(seen);
        let left = now.saturating_add(1).saturating_mul(self.term_blocks).saturating_sub(self.needed);
        let listened = if self.leads_none(now) { LISTENED_MIN } else { self.listened_for_proposals() };
        now + if left >= listened { 1 } else { 2 }
    }

    /// Blocks for which a process that proposes in its turn shows itself.
    fn listened_for_proposals(&self) -> u64 {
        let members = self.members.as_ref().map_or(0, |(_, members)| members.len() as u64);
        LISTENED_MIN.max(LISTENED_PER_MEMBER.saturating_mul(members))
    }

    /// True if this key leads no view of a term: no process can show itself by a proposal there, so nothing is gained
    /// by listening for one.
    fn leads_none(&self, term: u64) -> bool {
        let members = self.members.as_ref().filter(|(known, _)| *known == term);
        members.is_some_and(|(_, members)| self.weights.leads_none(term, members, &self.key))
    }

    /// The newest term in which this key can have signed: the running one, a proposal's, or that of the block after
    /// the highest one.
    fn newest_term(&self, seen: Option<&Header>) -> u64 {
        let proved = self.needed.saturating_add(1) / self.term_blocks;
        seen.map_or(0, |header| header.term).max(self.now()).max(proved)
    }

    /// Signs on the operators' word that no block above the one that was shown is final anywhere, once the network
    /// stands still there. It proposes nothing more in the running term: it may have done so before, and the
    /// others may have forgotten it.
    fn resume(&mut self, above: Option<Header>) -> Option<SigningRight> {
        if !self.stands_still() {
            return None;
        }
        self.secrets.end_wait(self.newest_term(above.as_ref()).saturating_add(1));
        self.turn(SigningRight::Signs)
    }

    /// Milliseconds between two rounds of answers, within which a network that lives makes a final block.
    fn still_ms(&self) -> u64 {
        let members = self.members.as_ref().map_or(0, |(_, members)| members.len() as u64);
        (STILL_TIMEOUTS + members / 3).saturating_mul(self.leader_timeout_ms)
    }

    /// Takes the moment of an answer, which counts again if enough answered long enough before.
    fn answered_again(&mut self, peer: &PublicKey, counts: bool, now_ms: u64) {
        self.clock_ms = now_ms;
        let still_ms = self.still_ms();
        if let Some((since, again)) = self.again.as_mut().filter(|_| counts) {
            // The clock was set back: it is measured anew.
            *since = now_ms.min(*since);
            if now_ms - *since >= still_ms {
                again.insert(peer.clone());
            }
        }
    }

    /// True once enough authorities have answered in two rounds. The first one ends when this is first asked.
    fn stands_still(&mut self) -> bool {
        let Some((_, needed)) = self.answers() else { return false };
        let still_ms = self.still_ms();
        let clock_ms = self.clock_ms;
        let (_, again) = self.again.get_or_insert_with(|| {
            tracing::info!(
                still_ms,
                "the others show the agreed height: they are asked again before this node signs"
            );
            (clock_ms, BTreeSet::new())
        });
        let members = self.members.as_ref().map(|(_, members)| members);
        let count =
            again.iter().filter(|peer| members.is_some_and(|all| all.position(peer).is_some())).count();
        count >= needed
    }

    /// Seconds by which this node's clock is ahead of the median of the others.
    pub(super) fn ahead(&self) -> Option<i64> {
        let mut ahead: Vec<i64> = self.ahead.values().copied().collect();
        ahead.sort_unstable();
        // One liar of two could make the median, so it takes three.
        if ahead.len() < 3 { None } else { Some(ahead[ahead.len() / 2] / 1_000) }
    }
}
