//! The decisions: pure, apart from the durable record. No call here waits.

use crate::{
    engine::{AUTHORITIES_MAX, PublicKey},
    epoch::secrets::{Place, Secrets, Wait},
};
use commonware_utils::{Faults as _, N3f1, ordered::Set};
use posync_protocol::{Account, Hash, block::Header};
use std::{collections::BTreeMap, fmt};

/// The node's right to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not enough of the others have answered.
    Silent,
    /// The node follows, and signs from this term on.
    Waits(u64),
    /// The node signs votes and proposals.
    Signs,
    /// Another process signs with this key, or this is an old copy: the node ends.
    Refused(Refusal),
}

impl Standing {
    /// Logs the standing for the operator.
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
    /// Term and view of the last proposal that this directory records.
    pub own: Option<Place>,
    /// Term and view of the newest proposal of this key that the others hold.
    pub seen: Place,
    /// Height of that proposal.
    pub height: u64,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [term, view] = self.seen;
        match self.own {
            Some([own_term, u64::MAX]) => {
                write!(f, "the record here says that nothing is signed up to the end of term {own_term}")?;
            }
            Some([own_term, own_view]) => {
                write!(f, "the last proposal recorded here is of term {own_term}, view {own_view}")?;
            }
            None => write!(f, "no proposal is recorded here")?,
        }
        write!(
            f,
            ", but the network holds one signed by this key at height {}, term {term}, view {view}: another \
             process signs with this key, or this directory is an old copy. Find the other process and stop it \
             for good. Then start this one once with --i-stopped-the-other: it follows for one whole term \
             without a vote, and signs again after that. Never restore secrets/ from a backup",
            self.height
        )
    }
}

const fn place(header: &Header) -> Place {
    [header.term, header.view]
}

/// The newest proposals seen, the answers of the others, and the standing.
pub(super) struct State {
    chain: Hash,
    me: Account,
    secrets: Secrets,
    other_stopped: bool,
    /// True if the secrets hold neither a share nor a record: this node has lost what it signed.
    is_fresh: bool,
    standing: Standing,
    members: Option<(u64, Set<PublicKey>)>,
    /// The newest proposal of each authority.
    newest: BTreeMap<Account, Option<Header>>,
    /// Milliseconds by which this node's clock is ahead of that of each authority that has answered.
    ahead: BTreeMap<PublicKey, i64>,
    authorities: Vec<PublicKey>,
}

impl State {
    pub(super) fn new(
        chain: Hash,
        authorities: Vec<PublicKey>,
        key: PublicKey,
        secrets: Secrets,
        other_stopped: bool,
    ) -> Self {
        let is_fresh = secrets.proposed().is_none() && secrets.wait().is_none() && !secrets.has_share();
        let newest = authorities.iter().map(|key| (Account::of(key), None)).collect();
        Self {
            chain,
            me: Account::of(&key),
            secrets,
            other_stopped,
            is_fresh,
            standing: Standing::Silent,
            members: None,
            newest,
            ahead: BTreeMap::new(),
            authorities,
        }
    }

    /// The newest proposal of an authority, if one was seen since the start.
    pub(super) fn newest(&self, authority: &Account) -> Option<&Header> {
        self.newest.get(authority)?.as_ref()
    }

    /// True for an authority whose proposals are kept.
    pub(super) fn may_search(&self, authority: &Account) -> bool {
        self.newest.contains_key(authority)
    }

    /// True until the node may sign or must end.
    pub(super) fn is_silent(&self) -> bool {
        self.standing == Standing::Silent
    }

    fn turn(&mut self, standing: Standing) -> Option<Standing> {
        self.standing = standing.clone();
        Some(standing)
    }

    pub(super) fn saw(&mut self, header: &Header) -> Option<Standing> {
        let newest = self.newest.get_mut(&header.leader)?;
        if header.chain != self.chain || newest.as_ref().is_some_and(|known| place(known) >= place(header)) {
            return None;
        }
        *newest = Some(header.clone());
        if header.leader != self.me {
            return None;
        }
        let known = match &self.standing {
            Standing::Silent | Standing::Refused(_) => return None,
            Standing::Signs => self.secrets.proposed(),
            Standing::Waits(_) => self.known(),
        };
        if Some(place(header)) <= known { None } else { self.refuse(header.clone()) }
    }

    /// The newest proposal of this node's key that is accounted for: recorded here, or known when a wait began.
    fn known(&self) -> Option<Place> {
        let waited = self.secrets.wait().and_then(|wait| wait.newest);
        self.secrets.proposed().max(waited)
    }

    fn refuse(&mut self, header: Header) -> Option<Standing> {
        let refusal = Refusal { own: self.secrets.proposed(), seen: place(&header), height: header.height };
        self.turn(Standing::Refused(refusal))
    }

    pub(super) fn term(&mut self, term: u64, members: &Set<PublicKey>) -> Option<Standing> {
        if self.members.as_ref().is_some_and(|(known, _)| *known > term) {
            return None;
        }
        self.members = Some((term, members.clone()));
        let accounts: Vec<Account> = self.authorities.iter().chain(members).map(Account::of).collect();
        self.newest.retain(|account, _| accounts.contains(account));
        for account in accounts {
            self.newest.entry(account).or_default();
        }
        match self.standing {
            Standing::Waits(from) if term >= from => {
                self.secrets.end_wait(from);
                self.turn(Standing::Signs)
            }
            Standing::Silent => self.judge(),
            _ => None,
        }
    }

    pub(super) fn answered(
        &mut self,
        peer: &PublicKey,
        header: Option<&Header>,
        theirs_ms: u64,
        now_ms: u64,
    ) -> Option<Standing> {
        let is_member = self.members.as_ref().is_some_and(|(_, members)| members.position(peer).is_some());
        if !is_member && !self.authorities.contains(peer) {
            return None;
        }
        let ahead = i128::from(now_ms) - i128::from(theirs_ms);
        self.ahead.insert(peer.clone(), i64::try_from(ahead).unwrap_or(i64::MAX));
        if self.ahead.len() > 2 * AUTHORITIES_MAX.get() as usize {
            self.ahead.pop_first();
        }
        let own = header.filter(|header| header.leader == self.me && header.check().verify());
        let news = own.and_then(|header| self.saw(header));
        if news.is_some() { news } else { self.judge() }
    }

    /// Authorities of the term that have answered, and how many must; with this node they are a quorum then.
    pub(super) fn answers(&self) -> Option<(usize, usize)> {
        let (_, members) = self.members.as_ref()?;
        let answers = self.ahead.keys().filter(|peer| members.position(peer).is_some()).count();
        Some((answers, N3f1::quorum(members.len()) as usize - 1))
    }

    fn enough(&self) -> bool {
        self.answers().is_some_and(|(answers, needed)| answers >= needed)
    }

    fn judge(&mut self) -> Option<Standing> {
        if !self.is_silent() || !self.enough() {
            return None;
        }
        let now = self.members.as_ref().map_or(0, |(term, _)| *term);
        let seen = self.newest(&self.me).cloned();
        let above = seen.clone().filter(|header| Some(place(header)) > self.known());
        let is_known = above.is_none();
        if let Some(header) = above.filter(|_| !self.other_stopped && !self.is_fresh) {
            return self.refuse(header);
        }
        if let Some(wait) = self.secrets.wait().filter(|_| is_known) {
            if now >= wait.from {
                self.secrets.end_wait(wait.from);
                return self.turn(Standing::Signs);
            }
            return self.turn(Standing::Waits(wait.from));
        }
        if self.other_stopped || self.is_fresh {
            let from = seen.as_ref().map_or(now, |header| header.term.max(now)) + 2;
            self.secrets.begin_wait(Wait { from, newest: seen.as_ref().map(place).max(self.known()) });
            return self.turn(Standing::Waits(from));
        }
        self.turn(Standing::Signs)
    }

    /// Seconds by which this node's clock is ahead of the median of the others.
    pub(super) fn ahead(&self) -> Option<i64> {
        let mut ahead: Vec<i64> = self.ahead.values().copied().collect();
        ahead.sort_unstable();
        // One liar of two could make the median, so it takes three.
        if ahead.len() < 3 { None } else { Some(ahead[ahead.len() / 2] / 1_000) }
    }
}
