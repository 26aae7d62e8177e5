//! The draw of providers: found by the proposer, checked by every verifier, marked in the provider's record.

use super::{expire, is_awake, is_expired, is_on_time, reduce, touches_weight, weigh};
use crate::number::{count, saturate_u32};
use crate::{
    Account, Broken, Code, Halt, Hash, Key, Record,
    event::Event,
    faults,
    fenwick::{self, Descent},
    header::Draw,
    invalid::Invalid,
    limits::{NEWCOMER_CLOSED, NEWCOMER_READS},
    record::{Audit, Challenge, FeeTree, Newcomer, Provider, ProviderAt, System},
    working::{BlockContext, Records, Touched, Working},
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

/// Levels of the fee tree that one round of reading covers: 31 nodes a draw.
const LEVELS: u32 = 5;

/// The way in which a draw chooses its provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// In proportion to the storage fee: this unit of the weight of all providers.
    Fee(u128),
    /// The next in the turn line.
    Turn,
    /// Lost: there is no seed, no weight, or no provider.
    Lost,
}

/// The draws that a block of this height makes, in order (DR-1, DR-3).
fn kinds(context: &BlockContext, system: &System) -> Vec<Kind> {
    let every = context.parameters.draw_every_blocks.max(1);
    if !context.height.is_multiple_of(every) {
        return Vec::new();
    }
    let first = (context.height / every).wrapping_mul(u64::from(context.parameters.draws));
    let kind = |place: u32| {
        let Some(seed) = &context.seed else { return Kind::Lost };
        if first.wrapping_add(u64::from(place)) % 2 == 1 {
            return if system.providers == 0 { Kind::Lost } else { Kind::Turn };
        }
        fee_point(seed, place, system.fee_weight).map_or(Kind::Lost, Kind::Fee)
    };
    (0..context.parameters.draws).map(kind).collect()
}

fn fee_point(seed: &Hash, place: u32, fee_weight: u128) -> Option<u128> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"posync/draw/1").update(seed).update(&place.to_be_bytes());
    reduce(hasher.finalize(), fee_weight)
}

/// The source of records: the store's answers so far, or a running block.
trait Lookup {
    type Error;
    fn find<R: Record>(&mut self, key: Key) -> Result<Option<R>, Self::Error>;
}

/// A block's draws name the records of the line. If they are not those of the beacon, the next record may
/// lack a name: then the draws are refused, and nothing is broken.
impl Lookup for Working<'_> {
    type Error = Halt;
    fn find<R: Record>(&mut self, key: Key) -> Result<Option<R>, Halt> {
        if self.may_read(&key) { Ok(self.get(key)?) } else { Err(Code::BadShape.into()) }
    }
}

/// A record that was not read yet, or does not decode.
enum Gap {
    Unread(Key),
    Damaged,
}

impl Lookup for Records {
    type Error = Gap;
    fn find<R: Record>(&mut self, key: Key) -> Result<Option<R>, Gap> {
        match self.get(&key) {
            None => Err(Gap::Unread(key)),
            Some(None) => Ok(None),
            Some(Some(slot)) => R::from_slot(slot).map(Some).map_err(|_| Gap::Damaged),
        }
    }
}

/// The turn line as the draws of one block see it, one after the other.
struct Line {
    providers: u32,
    newcomers: u32,
    turn: u64,
    /// Newcomers that moved into a freed place.
    moved: BTreeMap<u32, Newcomer>,
}

impl Line {
    const fn new(system: &System) -> Self {
        let System { providers, newcomers, turn, .. } = *system;
        Self { providers, newcomers, turn, moved: BTreeMap::new() }
    }

    /// The next draw in turn, and true if it counts. A newcomer that no longer is one loses the draw and its
    /// place, which the last newcomer of the line takes.
    fn next<L: Lookup>(&mut self, from: &mut L) -> Result<(Option<Draw>, bool), L::Error> {
        let length = u64::from(self.providers) + u64::from(self.newcomers);
        let at = if self.turn < length { self.turn } else { 0 };
        let Ok(index) = u32::try_from(at) else { return Ok((None, false)) };
        self.turn = if at + 1 < length { at + 1 } else { 0 };
        if index < self.providers {
            let account = from.find::<ProviderAt>(ProviderAt::key(index))?.and_then(|at| at.account);
            return Ok((account.map(|account| Draw { index, account }), true));
        }
        let place = index - self.providers;
        let Some(Newcomer { account, born }) = self.newcomer(place, from)? else { return Ok((None, false)) };
        let provider: Option<Provider> = from.find(Provider::key(&account))?;
        let audit: Option<Audit> = from.find(Audit::key(&account))?;
        let draw = Draw { index: provider.as_ref().map_or(0, |provider| provider.index), account };
        let same_life = provider.is_some_and(|provider| provider.born == born);
        let new = |audit: Audit| audit.drawn < NEWCOMER_READS && audit.closed < NEWCOMER_CLOSED;
        let is_newcomer = same_life && audit.is_some_and(new);
        if !is_newcomer {
            self.turn = at;
            self.free(place, from)?;
        }
        Ok((Some(draw), is_newcomer))
    }

    fn newcomer<L: Lookup>(&self, place: u32, from: &mut L) -> Result<Option<Newcomer>, L::Error> {
        match self.moved.get(&place) {
            Some(newcomer) => Ok(Some(newcomer.clone())),
            None => from.find::<Newcomer>(Newcomer::key(place)),
        }
    }

    fn free<L: Lookup>(&mut self, place: u32, from: &mut L) -> Result<(), L::Error> {
        let last = self.newcomers.saturating_sub(1);
        let moved = self.newcomer(last, from)?;
        self.newcomers = last;
        self.moved.remove(&last);
        if let (Some(newcomer), true) = (moved, place < last) {
            self.moved.insert(place, newcomer);
        }
        Ok(())
    }
}

/// Names the records of the block's draws. `system` is the parent's.
pub(crate) fn touches_draws(
    context: &BlockContext,
    system: &System,
    draws: &[Option<Draw>],
    touched: &mut Touched,
) {
    let kinds = kinds(context, system);
    let turns = kinds.iter().filter(|kind| **kind == Kind::Turn).count();
    let turns = saturate_u32(count(turns));
    let line = u64::from(system.providers) + u64::from(system.newcomers);
    for ahead in 0..u64::from(turns) {
        let start = if system.turn < line { system.turn } else { 0 };
        let Ok(at) = u32::try_from((start + ahead) % line.max(1)) else { continue };
        match at.checked_sub(system.providers) {
            None => touched.readable.push(ProviderAt::key(at)),
            Some(place) => touched.writable.push(Newcomer::key(place)),
        }
    }
    // Each freed place shortens the line: it then starts again earlier, and its end moves.
    let restart = (0..turns.min(system.providers)).map(ProviderAt::key);
    touched.readable.extend(restart);
    let last = (1..=turns).filter_map(|back| system.newcomers.checked_sub(back));
    touched.writable.extend(last.map(Newcomer::key));
    let restart = (0..turns.min(system.newcomers)).map(Newcomer::key);
    touched.writable.extend(restart);
    for (draw, kind) in draws.iter().zip(&kinds) {
        let Some(draw) = draw else { continue };
        touched.writable.extend([Provider::key(&draw.account), Audit::key(&draw.account)]);
        if let Kind::Fee(_) = kind {
            touched.readable.push(ProviderAt::key(draw.index));
            touches_weight(draw.index, touched);
            let nodes =
                [fenwick::prefix_path(draw.index), fenwick::prefix_path(draw.index.saturating_add(1))];
            touched.readable.extend(nodes.into_iter().flatten().map(FeeTree::key));
        }
    }
}

/// Checks the block's draws against the beacon, then marks the drawn providers.
///
/// # Errors
/// [`Invalid::Draw`] at the first draw that differs from the one the seed decides; [`Invalid::State`].
pub(crate) fn apply_draws(working: &mut Working<'_>, draws: &[Option<Draw>]) -> Result<(), Invalid> {
    let (context, system) = (working.context, working.system.clone());
    let kinds = kinds(context, &system);
    if draws.len() != kinds.len() {
        return Err(Invalid::Draw { index: draws.len().min(kinds.len()) });
    }
    let mut line = Line::new(&system);
    let mut drawn = Vec::new();
    for (index, (draw, kind)) in draws.iter().zip(kinds).enumerate() {
        let checked = match kind {
            Kind::Lost => Ok((None, false)),
            Kind::Turn => line.next(working),
            Kind::Fee(x) => check_fee(working, draw, x).map(|()| (*draw, true)),
        };
        match checked {
            Ok((expected, counts)) if expected == *draw => {
                let by_fee = matches!(kind, Kind::Fee(_));
                drawn.extend(draw.filter(|_| counts).map(|draw| (draw.account, by_fee)));
            }
            Err(Halt::Broken(broken)) => return Err(broken.into()),
            Ok(_) | Err(Halt::Refused(_)) => return Err(Invalid::Draw { index }),
        }
    }
    keep(working, line)?;
    let mut closed = BTreeSet::new();
    for (account, by_fee) in drawn.into_iter() {
        if !closed.contains(&account) && mark(working, &account, by_fee)? {
            closed.insert(account);
        }
    }
    Ok(())
}

/// Checks that `draw` names the provider that holds unit `x` of all fees.
fn check_fee(working: &mut Working<'_>, draw: &Option<Draw>, x: u128) -> Result<(), Halt> {
    let draw = draw.as_ref().ok_or(Code::BadShape)?;
    let at: Option<ProviderAt> = working.get(ProviderAt::key(draw.index))?;
    let prefix = |index| {
        let node = |node| Ok(working.get::<FeeTree>(FeeTree::key(node))?.map_or(0, |node| node.sum));
        fenwick::prefix(index, Broken::bound("FeeTree.sum"), node)
    };
    let holds = prefix(draw.index)? <= x && x < prefix(draw.index.saturating_add(1))?;
    if holds && at.and_then(|at| at.account) == Some(draw.account) {
        Ok(())
    } else {
        Err(Code::BadShape.into())
    }
}

/// Writes the new state of the line.
fn keep(working: &mut Working<'_>, line: Line) -> Result<(), Broken> {
    for place in line.newcomers..working.system.newcomers {
        working.delete(Newcomer::key(place))?;
    }
    for (place, newcomer) in line.moved {
        working.put(Newcomer::key(place), &newcomer)?;
    }
    working.system.turn = line.turn;
    working.system.newcomers = line.newcomers;
    Ok(())
}

/// Opens a challenge, unless one is open. A provider that is asleep is not paid for the time before the
/// challenge (DR-6). Returns true if it closed a stale one: then no draw of the block opens another (DR-5).
fn mark(working: &mut Working<'_>, account: &Account, by_fee: bool) -> Result<bool, Broken> {
    let context = working.context;
    let Some(mut provider) = working.get::<Provider>(Provider::key(account))? else { return Ok(false) };
    let mut audit: Audit = working.kept(Audit::key(account))?;
    if let Some(open) = audit.challenge {
        return lose(working, account, (provider, audit), &open, by_fee);
    }
    let Some(seed) = context.seed else { return Ok(false) };
    if !is_awake(&provider) {
        provider.settled_round = context.round();
        working.put(Provider::key(account), &provider)?;
    }
    audit.challenge = Some(Challenge { height: context.height, seed, by_fee });
    working.put(Audit::key(account), &audit)?;
    if by_fee {
        faults::count_drawn(working)?;
    }
    working.events.push(Event::Drawn { provider: *account, height: context.height });
    Ok(false)
}

/// Handles a draw that finds a challenge open: it is lost. It closes a stale challenge, so that the weights
/// can move before the next draw (DR-5). A draw by fee takes a provider that let the deadline pass out of the
/// fee tree (DR-6). Returns true if it closed one.
fn lose(
    working: &mut Working<'_>,
    account: &Account,
    (mut provider, mut audit): (Provider, Audit),
    open: &Challenge,
    by_fee: bool,
) -> Result<bool, Broken> {
    let (context, parameters) = (working.context, &working.context.parameters);
    let is_stale = is_expired(open, context.height, parameters);
    if is_stale {
        let excused = faults::is_excused(working, open)?;
        let event = expire(context, account, &mut provider, &mut audit, open, excused);
        working.events.push(event);
        working.put(Audit::key(account), &audit)?;
    }
    if by_fee && !is_on_time(open, context.height, parameters) {
        weigh(working, &mut provider, false)?;
    }
    working.put(Provider::key(account), &provider)?;
    Ok(is_stale)
}

/// The proposer's search for the block's draws: read the records that [`Self::needs`] names and
/// [`Self::feed`] them, until nothing is needed. At most seven rounds of at most 31 records a draw.
#[derive(Clone, Debug)]
pub struct Resolver {
    system: System,
    kinds: Vec<Kind>,
    records: Records,
    needs: BTreeSet<Key>,
    draws: Vec<Option<Draw>>,
}

impl Resolver {
    /// Starts the search for the block of `context`, on the state that `system` is part of.
    pub fn new(context: &BlockContext, system: &System) -> Self {
        let kinds = kinds(context, system);
        let mut resolver = Self {
            system: system.clone(),
            kinds,
            records: Records::new(),
            needs: BTreeSet::new(),
            draws: Vec::new(),
        };
        resolver.search();
        resolver
    }

    /// Records to read; `None` when the search is over.
    pub fn needs(&self) -> Option<Vec<Key>> {
        (!self.needs.is_empty()).then(|| self.needs.iter().copied().collect())
    }

    /// Adds records that were read; `None` is a record that is not in state. Unread ones stay needed.
    pub fn feed(&mut self, records: &Records) {
        self.records.extend(records.iter().map(|(key, slot)| (*key, *slot)));
        self.search();
    }

    /// The block's draws, once nothing is needed. A damaged record loses the draw; the block then fails on
    /// it.
    pub fn draws(&self) -> Vec<Option<Draw>> {
        self.draws.clone()
    }

    fn search(&mut self) {
        let (mut needs, mut draws) = (BTreeSet::new(), Vec::new());
        // Each place in the line depends on the places before it.
        let mut line = Some(Line::new(&self.system));
        for kind in self.kinds.clone() {
            let found = match (kind, &mut line) {
                (Kind::Fee(x), _) => self.search_fee(x, &mut needs),
                (Kind::Turn, Some(line)) => line.next(&mut self.records).map(|(draw, _)| draw),
                (Kind::Lost, _) | (Kind::Turn, None) => Ok(None),
            };
            draws.push(match found {
                Ok(draw) => draw,
                Err(Gap::Damaged) => None,
                Err(Gap::Unread(key)) => {
                    needs.insert(key);
                    line = line.filter(|_| kind != Kind::Turn);
                    None
                }
            });
        }
        (self.needs, self.draws) = (needs, draws);
    }

    fn search_fee(&mut self, x: u128, needs: &mut BTreeSet<Key>) -> Result<Option<Draw>, Gap> {
        let mut descent = Descent::new(x, self.system.providers);
        while let Some(node) = descent.node() {
            match self.records.find::<FeeTree>(FeeTree::key(node)) {
                Ok(node) => descent = descent.step(node.map_or(0, |node| node.sum)),
                Err(gap) => {
                    needs.extend(descent.ahead(LEVELS).into_iter().map(FeeTree::key));
                    return Err(gap);
                }
            }
        }
        let index = descent.index();
        let at: Option<ProviderAt> = self.records.find(ProviderAt::key(index))?;
        Ok(at.and_then(|at| at.account).map(|account| Draw { index, account }))
    }
}
