//! The link to one provider: one connection, opened when needed and opened again when it broke.
//!
//! Invariants
//! 1. At most [`PUTS_IN_FLIGHT`] shards are on their way to a provider.
//! 2. For [`DIAL_PAUSE`] after a failed dial there is no other: callers fail at once and go elsewhere.
//! 3. Every request ends within its timeout, except an offer (a shard, a data set), which has it once to be
//!    sent and once to be answered, and a stream of slices, whose reader bounds it. Dropping a request's
//!    future cancels it; only the answer to an offer that was sent is still awaited, because a missing
//!    one must be noticed ([`crate::peer_health`]).
//! 4. An offer that cannot be sent in time counts as one without an answer. If its caller goes before, a
//!    small request finds out if the provider takes anything; at most one of them is under way.
//! 5. A doubt that began with a late offer ends only with an answer: to an offer that is still open, or to a
//!    small request after the doubt's time. So no put waits to find out whether a stopped provider is back.

use crate::{environment::Environment, peer_health::PeerHealth};
use bytes::BufMut;
use commonware_codec::{EncodeSize, Write};
use commonware_macros::select;
use commonware_utils::channel::oneshot;
use commonware_utils::sync::{AsyncMutex, Mutex, MutexGuard};
use futures::future::BoxFuture;
use posync_client::{
    address::Address,
    rpc::{Call, Client, Provider},
    trips::{DIAL_TRIPS, Trips},
};
use posync_protocol::{
    Account, AgreementId, Bounded, Hash, Signature,
    limits::SHARD_BYTES_MAX,
    operation::{RefusedPlacement, Voucher},
    wire::provider::{Ask, Get, ProviderAnswer, Refusal, Refused, Sign, Slice, Status},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Shards on their way to one provider: 16 MiB of 1 MiB shards.
pub(crate) const PUTS_IN_FLIGHT: usize = 16;
/// Time for a shard to arrive and become durable.
pub(crate) const PUT_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for a signature over a data set to arrive.
pub(crate) const SIGN_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for a connection, or for the answer to a short request.
pub(crate) const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which other providers are asked first after this one was late, unless it answers an offer
/// meanwhile. It doubles each time in a row that an offer is late, or that the provider does not answer at the
/// end of it, up to [`DOUBT_DOUBLED_MAX`] times.
pub(crate) const DOUBT: Duration = Duration::from_secs(5);
/// Maximum of doublings of [`DOUBT`]: 80 seconds.
pub(crate) const DOUBT_DOUBLED_MAX: u32 = 4;
/// Round trips that are granted to a far provider: one for the request and its answer, one for what of it does not
/// fit the first window.
const WAY_TRIPS: u32 = 2;
/// Pause after a failed dial before the next one.
pub(crate) const DIAL_PAUSE: Duration = Duration::from_secs(1);

/// Why a request to a provider failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection could not be opened, or broke.
    #[error("provider {0} cannot be reached: {1}")]
    Unreachable(Account, String),
    /// The provider did not answer in time.
    #[error("provider {0} did not answer in time")]
    Slow(Account),
    /// The provider refused, for this reason and with this text.
    #[error("provider {0} refuses ({1:?}): {2}")]
    Refused(Account, Refusal, String),
    /// The agreed rate lets the provider send no more before the next round: the consumer's own bound.
    #[error(
        "as much was read from provider {0} as the agreed rate allows in this round; the next one allows more"
    )]
    Paced(Account),
    /// The provider sent an unexpected answer, or bytes that do not verify.
    #[error("provider {0} gave a wrong answer: {1}")]
    Wrong(Account, &'static str),
}

impl Error {
    /// True if the provider's answer shows that it does not hold the shard.
    pub const fn shows_loss(&self) -> bool {
        matches!(self, Self::Refused(_, Refusal::Unknown | Refusal::Damaged, _) | Self::Wrong(..))
    }

    /// True if the provider says that it cannot serve the shard. It may no longer have to.
    pub(crate) const fn says_loss(&self) -> bool {
        matches!(self, Self::Refused(_, Refusal::Unknown | Refusal::Damaged, _))
    }

    /// True if the same request may succeed later.
    pub(crate) const fn may_pass(&self) -> bool {
        let passes = matches!(self, Self::Unreachable(..) | Self::Slow(_) | Self::Paced(_));
        passes || matches!(self, Self::Refused(_, Refusal::Busy, _))
    }
}

/// Opens connections of one service; no other part of the links knows runtime and network.
pub type Dialer<S> =
    Arc<dyn Fn(Account, Address) -> BoxFuture<'static, Result<Client<S>, String>> + Send + Sync>;

/// The ledger's time, by which silence is measured.
#[derive(Clone, Debug)]
pub struct Heights {
    /// Greatest certified height seen, in blocks.
    pub height: Arc<AtomicU64>,
    /// Length of an epoch, in blocks.
    pub epoch_blocks: u64,
    /// Length of a round, in blocks.
    pub round_blocks: u64,
    /// Target time between two blocks.
    pub block: Duration,
    /// Blocks for which a provider may answer and not sign a change before its shards move to others.
    pub patience_blocks: u64,
}

impl Heights {
    /// Round of the greatest certified height seen.
    pub(crate) fn round(&self) -> u64 {
        self.round_of(self.height.load(Ordering::Relaxed))
    }

    /// Round of a height.
    pub(crate) const fn round_of(&self, height: u64) -> u64 {
        match height.checked_div(self.round_blocks) {
            Some(round) => round,
            None => 0,
        }
    }
}

/// The bytes of a shard, shared by all offers of it.
#[derive(Clone)]
pub struct Parcel(Arc<Bounded<u8, { SHARD_BYTES_MAX as usize }>>);

impl Parcel {
    /// Takes the bytes of a shard; `None` if they exceed [`SHARD_BYTES_MAX`].
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        Some(Self(Arc::new(Bounded::new(bytes)?)))
    }
}

/// A value that is sent as an [`Ask`]: an ask, or a value with the same encoding.
trait Asks: Write + EncodeSize + Send + Sync + 'static {}

impl Asks for Ask {}

/// Encodes as [`Ask::Put`] without owning the bytes.
struct Offer {
    agreement: AgreementId,
    shard: Hash,
    parcel: Parcel,
}

impl Asks for Offer {}

impl Write for Offer {
    fn write(&self, buf: &mut impl BufMut) {
        buf.put_u8(0);
        self.agreement.write(buf);
        self.shard.write(buf);
        self.parcel.0.write(buf);
    }
}

impl EncodeSize for Offer {
    fn encode_size(&self) -> usize {
        1 + self.agreement.encode_size() + self.shard.encode_size() + self.parcel.0.encode_size()
    }
}

/// The doubt about a provider that was late or failed a moment ago.
#[derive(Debug, Default)]
struct Doubt {
    /// Number of the open doubt, if one is open.
    open: Option<u64>,
    number: u64,
    /// True if an offer was late since it began: then it ends only with an answer.
    unanswered: bool,
    /// Number of doubts in a row that began with a late answer to an offer.
    late: u32,
}

impl Doubt {
    /// Opens a doubt and returns its number and duration; `None` while one is open.
    fn begin(&mut self, late: bool) -> Option<(u64, Duration)> {
        self.unanswered |= late;
        if self.open.is_some() {
            return None;
        }
        self.unanswered = late;
        let doubled = if late { self.late.min(DOUBT_DOUBLED_MAX) } else { 0 };
        self.late = self.late.saturating_add(u32::from(late));
        self.number += 1;
        self.open = Some(self.number);
        Some((self.number, DOUBT * 2_u32.pow(doubled)))
    }

    fn end(&mut self, number: u64) {
        self.open.take_if(|open| *open == number);
    }

    /// Prolongs an open doubt whose provider did not answer, and returns its further duration; `None` if it
    /// is over.
    fn prolong(&mut self, number: u64) -> Option<Duration> {
        (self.open == Some(number)).then_some(())?;
        self.open = None;
        let (next, time) = self.begin(true)?;
        (self.open, self.number) = (Some(number), next);
        Some(time)
    }

    /// Ends the doubt, since the provider answered an offer.
    const fn answered(&mut self) {
        (self.open, self.unanswered, self.late) = (None, false, 0);
    }
}

enum State {
    Idle,
    Open(Client<Provider>),
    Pausing(String),
}

/// The link to one provider.
pub struct Peer {
    account: Account,
    address: Mutex<Option<Address>>,
    state: AsyncMutex<State>,
    puts: Arc<Semaphore>,
    dialer: Dialer<Provider>,
    environment: Environment,
    resumed: Arc<AtomicBool>,
    doubt: Mutex<Doubt>,
    last_refusal: Mutex<Option<String>>,
    refusal: Mutex<Option<RefusedPlacement>>,
    heights: Heights,
    peer_health: Mutex<PeerHealth>,
    probing: AtomicBool,
    offers: Mutex<Offers>,
    trips: Mutex<Trips>,
}

/// The offers without an answer yet: the time of each, by its number.
#[derive(Debug, Default)]
struct Offers {
    open: BTreeMap<u64, SystemTime>,
    next: u64,
}

/// Guard of an offer without an answer yet; dropping it closes the offer.
struct Owed {
    peer: Arc<Peer>,
    number: u64,
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.peer.offers().open.remove(&self.number);
    }
}

impl Peer {
    /// A link that is not connected yet and has no address.
    pub fn new(
        account: Account,
        dialer: Dialer<Provider>,
        environment: Environment,
        heights: Heights,
    ) -> Self {
        Self {
            account,
            address: Mutex::new(None),
            state: AsyncMutex::new(State::Idle),
            puts: Arc::new(Semaphore::new(PUTS_IN_FLIGHT)),
            dialer,
            environment,
            resumed: Arc::default(),
            doubt: Mutex::default(),
            last_refusal: Mutex::default(),
            refusal: Mutex::new(None),
            heights,
            peer_health: Mutex::default(),
            probing: AtomicBool::new(false),
            offers: Mutex::default(),
            trips: Mutex::default(),
        }
    }

    /// Account of the provider.
    pub const fn account(&self) -> Account {
        self.account
    }

    /// The ledger's time, as this account has seen it.
    pub const fn heights(&self) -> &Heights {
        &self.heights
    }

    /// Greatest certified height seen, in blocks.
    pub(crate) fn height(&self) -> u64 {
        self.heights.height.load(Ordering::Relaxed)
    }

    /// Sets the address that is dialed from now on.
    pub fn set_address(&self, address: impl Into<Address>) {
        *self.address.lock() = Some(address.into());
    }

    fn unreachable(&self, why: impl ToString) -> Error {
        Error::Unreachable(self.account, why.to_string())
    }

    /// The open connection, or a new one. One caller dials; the others wait for it.
    async fn client(&self) -> Result<Client<Provider>, Error> {
        let mut state = self.state.lock().await;
        let over = self.resumed.swap(false, Ordering::AcqRel);
        match &*state {
            State::Open(client) if !client.is_gone() => return Ok(client.clone()),
            State::Pausing(why) if !over => return Err(self.unreachable(why)),
            _ => {}
        }
        // A caller may give up while it dials. The end of the pause is used up: without this, nobody would dial again.
        *state = State::Idle;
        match self.dial().await {
            Ok(client) => {
                *state = State::Open(client.clone());
                Ok(client)
            }
            Err(why) => {
                *state = State::Pausing(why.clone());
                let (resumed, pause) = (self.resumed.clone(), self.environment.sleep(DIAL_PAUSE));
                self.environment.spawn(async move {
                    pause.await;
                    resumed.store(true, Ordering::Release);
                });
                Err(self.unreachable(why))
            }
        }
    }

    async fn dial(&self) -> Result<Client<Provider>, String> {
        let address = self.address.lock().clone();
        let address = address.ok_or("the ledger names no address that parses")?;
        let begun = self.environment.now();
        let client = (self.dialer)(self.account, address).await?;
        self.trips.lock().took(self.since(begun) / DIAL_TRIPS);
        Ok(client)
    }

    fn since(&self, begun: SystemTime) -> Duration {
        self.environment.now().duration_since(begun).unwrap_or_default()
    }

    /// Time that is granted to the provider for its distance; zero before it was measured.
    pub fn way(&self) -> Duration {
        self.trips.lock().distance(WAY_TRIPS)
    }

    /// Completes after `time` and the time of the way, which may be measured only meanwhile.
    pub async fn overdue(&self, time: Duration) {
        self.environment.sleep(time).await;
        self.environment.sleep(self.way()).await;
    }

    async fn call(&self, ask: Ask, patience: Duration) -> Result<ProviderAnswer, Error> {
        let work = async {
            let client = self.client().await?;
            let begun = self.environment.now();
            let answer = client.call(ask).await.map_err(|error| self.unreachable(error))?;
            self.trips.lock().took(self.since(begun));
            Ok(answer)
        };
        match self.environment.within(patience, work).await {
            Some(Ok(ProviderAnswer::Refused(refused))) => Err(self.refused(refused)),
            Some(answer) => answer,
            None => Err(Error::Slow(self.account)),
        }
    }

    /// Sends an offer: a shard under an agreement, or a data set to sign. The answer is awaited for `patience` even if the
    /// caller is gone: a put does not wait for its last shards, and a provider that never answers must be
    /// noticed.
    async fn offer(
        self: &Arc<Self>,
        ask: impl Asks,
        patience: Duration,
        placement: Option<(AgreementId, OwnedSemaphorePermit)>,
    ) -> Result<ProviderAnswer, Error> {
        let (offered, peer) = (self.height(), self.clone());
        let (placed, place) = placement.unzip();
        let (mut sender, receiver) = oneshot::channel();
        let owed = self.owed();
        self.environment.spawn(async move {
            let _owed = owed;
            let open =
                async { peer.client().await?.open_as(&ask).await.map_err(|error| peer.unreachable(error)) };
            let opened = select! {
                opened = peer.environment.within(patience, open) => opened,
                () = sender.closed() => {
                    drop((ask, place));
                    peer.probe(offered, patience).await;
                    return;
                },
            };
            drop(ask);
            let answer = match opened {
                None => peer.heard(offered, None),
                Some(Err(error)) => Err(error),
                Some(Ok(mut call)) => {
                    let answer = peer.environment.within(patience, call.recv()).await;
                    drop((call, place));
                    if let (Some(Some(ProviderAnswer::Refused(refused))), Some(placed)) = (&answer, placed) {
                        peer.keep_refusal(refused, placed);
                    }
                    peer.heard(offered, answer)
                }
            };
            // The caller may be gone.
            let _ = sender.send(answer);
        });
        receiver.await.unwrap_or_else(|_| Err(self.unreachable("this gateway is stopping")))
    }

    /// Notices a provider that takes nothing, with a small request. Returns true if it answers.
    async fn probe(self: &Arc<Self>, offered: u64, patience: Duration) -> bool {
        if self.probing.swap(true, Ordering::AcqRel) {
            return false;
        }
        let answer = self.call(Ask::Status(Default::default()), patience).await;
        if let Err(Error::Slow(_)) = answer {
            drop(self.heard(offered, None));
        }
        self.probing.store(false, Ordering::Release);
        matches!(answer, Ok(_) | Err(Error::Refused(..)))
    }

    fn offers(&self) -> MutexGuard<'_, Offers> {
        self.offers.lock()
    }

    fn owed(self: &Arc<Self>) -> Owed {
        let (now, mut offers) = (self.environment.now(), self.offers());
        let number = offers.next;
        offers.next += 1;
        offers.open.insert(number, now);
        Owed { peer: self.clone(), number }
    }

    /// True if the provider has left an offer unanswered for `time` and the time of its way.
    pub fn owes(&self, time: Duration) -> bool {
        let time = time + self.way();
        let (now, offers) = (self.environment.now(), self.offers());
        let first = offers.open.first_key_value();
        first.is_some_and(|(_, since)| now.duration_since(*since).is_ok_and(|waited| waited >= time))
    }

    /// True if the last offers to the provider were late or had no answer: an offer to it is a trial, and goes
    /// to another provider, too.
    pub fn is_on_trial(&self) -> bool {
        self.doubts().late > 0 || self.unanswered().0 > 0
    }

    /// Records the result of an offer. A stored shard does not end the provider's silence: only a signature
    /// or a refusal completes a placement.
    fn heard(
        self: &Arc<Self>,
        offered: u64,
        answer: Option<Option<ProviderAnswer>>,
    ) -> Result<ProviderAnswer, Error> {
        let (height, mut peer_health) = (self.height(), self.peer_health());
        if let Some(Some(_)) = answer {
            self.doubts().answered();
        }
        match answer {
            Some(Some(ProviderAnswer::Stored(name))) => Ok(ProviderAnswer::Stored(name)),
            Some(Some(answer)) => {
                peer_health.answered(height);
                match answer {
                    ProviderAnswer::Refused(refused) => Err(self.refused(refused)),
                    answer => Ok(answer),
                }
            }
            missing => {
                peer_health.missed(offered, height, self.heights.epoch_blocks);
                self.late();
                Err(match missing {
                    None => Error::Slow(self.account),
                    Some(_) => self.unreachable("the connection ended before it answered"),
                })
            }
        }
    }

    fn peer_health(&self) -> MutexGuard<'_, PeerHealth> {
        self.peer_health.lock()
    }

    /// Number of offers in a row without an answer, and blocks for which placement leaves the provider out.
    pub fn unanswered(&self) -> (u32, u64) {
        let peer_health = self.peer_health();
        (peer_health.unanswered(), peer_health.left_out(self.height()))
    }

    fn refused(&self, refused: Refused) -> Error {
        let text = String::from_utf8_lossy(&refused.text).into_owned();
        *self.last_refusal.lock() = Some(text.clone());
        Error::Refused(self.account, refused.reason, text)
    }

    /// Keeps a signed refusal of a shard that was offered under the agreement `placed`. Of two, the one that was
    /// signed at the lower height is kept: it can be submitted first.
    pub(crate) fn keep_refusal(&self, refused: &Refused, placed: AgreementId) {
        let of =
            |signed: &RefusedPlacement| signed.provider == self.account && signed.agreement == Some(placed);
        let Some(signed) = refused.signed.filter(of) else { return };
        let mut kept = self.refusal.lock();
        if kept.is_none_or(|kept| signed.height < kept.height) {
            *kept = Some(signed);
        }
    }

    /// Takes the signed refusal of a placement that is kept, if it was signed at `height` or below: the ledger refuses
    /// one from its future.
    pub(crate) fn take_refusal(&self, height: u64) -> Option<RefusedPlacement> {
        self.refusal.lock().take_if(|kept| kept.height <= height)
    }

    /// Text of the provider's last refusal.
    pub fn last_refusal(&self) -> Option<String> {
        self.last_refusal.lock().clone()
    }

    const fn wrong(&self, what: &'static str) -> Error {
        Error::Wrong(self.account, what)
    }

    /// Connects if necessary, so that [`Self::put`] is not called for a provider that cannot be reached.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn ready(&self) -> Result<(), Error> {
        match self.environment.within(ASK_TIMEOUT, self.client()).await {
            Some(client) => client.map(drop),
            None => Err(Error::Slow(self.account)),
        }
    }

    /// True if a doubt is open or offers stay unanswered, so that others are asked first.
    pub fn is_doubtful(&self) -> bool {
        self.doubts().open.is_some() || self.unanswered().1 > 0
    }

    /// Opens a doubt of [`DOUBT`], during which others are asked first.
    pub fn doubt(self: &Arc<Self>) {
        self.open_doubt(false);
    }

    /// Opens a doubt because an offer is late; it lasts longer each time in a row, and until the provider
    /// answers. Late offers that are found while one is open count once.
    pub fn late(self: &Arc<Self>) {
        self.open_doubt(true);
    }

    fn doubts(&self) -> MutexGuard<'_, Doubt> {
        self.doubt.lock()
    }

    fn open_doubt(self: &Arc<Self>, late: bool) {
        let Some((number, time)) = self.doubts().begin(late) else { return };
        let (peer, mut time) = (self.clone(), time);
        self.environment.spawn(async move {
            loop {
                peer.environment.sleep(time).await;
                let ends = !peer.doubts().unanswered;
                if ends || peer.probe(peer.height(), ASK_TIMEOUT).await {
                    return peer.doubts().end(number);
                }
                match peer.doubts().prolong(number) {
                    Some(longer) => time = longer,
                    None => return,
                }
            }
        });
    }

    /// Stores a shard durably under an agreement; nothing is signed for it yet.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn put(
        self: &Arc<Self>,
        agreement: AgreementId,
        shard: Hash,
        parcel: &Parcel,
    ) -> Result<(), Error> {
        let place = self.puts.clone().acquire_owned().await.expect("the semaphore is never closed");
        let offer = Offer { agreement, shard, parcel: parcel.clone() };
        match self.offer(offer, PUT_TIMEOUT, Some((agreement, place))).await? {
            ProviderAnswer::Stored(name) if name == shard => Ok(()),
            _ => Err(self.wrong("it stored something else")),
        }
    }

    /// Gets the provider's signature over a new version of a data set.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn sign(self: &Arc<Self>, sign: Sign) -> Result<Signature, Error> {
        match self.offer(Ask::Sign(sign), SIGN_TIMEOUT, None).await? {
            ProviderAnswer::Signed(signature) => Ok(signature),
            _ => Err(self.wrong("no signature")),
        }
    }

    /// Asks for the provider's status.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn status(&self) -> Result<Status, Error> {
        match self.call(Ask::Status(Default::default()), ASK_TIMEOUT).await? {
            ProviderAnswer::Status(status) => Ok(status),
            _ => Err(self.wrong("no status")),
        }
    }

    /// Sends a voucher; returns when the provider has it on disk.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn pay(&self, voucher: Voucher) -> Result<(), Error> {
        let work = async {
            let client = self.client().await?;
            let call = client.open(Ask::Pay(voucher)).await;
            let mut call = call.map_err(|error| self.unreachable(error))?;
            match call.recv().await {
                // The end of the call is the answer; the end of the connection is none.
                None if client.is_gone() => Err(self.unreachable("the connection ended before it answered")),
                None => Ok(()),
                Some(ProviderAnswer::Refused(refused)) => Err(self.refused(refused)),
                Some(_) => Err(self.wrong("an answer to a voucher")),
            }
        };
        match self.environment.within(ASK_TIMEOUT, work).await {
            Some(paid) => paid,
            None => Err(Error::Slow(self.account)),
        }
    }

    /// Opens a stream of a shard's slices. The caller bounds its time.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub(crate) async fn get(&self, get: Get) -> Result<Slices<'_>, Error> {
        let client = self.client().await?;
        let call = client.open(Ask::Get(get)).await.map_err(|error| self.unreachable(error))?;
        Ok(Slices { peer: self, call })
    }
}

/// A stream of slices, which are not verified yet.
pub(crate) struct Slices<'a> {
    peer: &'a Peer,
    call: Call<Provider>,
}

impl Slices<'_> {
    /// Receives the next slice, without a timeout.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn next(&mut self) -> Result<Slice, Error> {
        match self.call.recv().await {
            Some(ProviderAnswer::Slice(slice)) => Ok(slice),
            Some(ProviderAnswer::Refused(refused)) => Err(self.peer.refused(refused)),
            Some(_) => Err(self.peer.wrong("no slice")),
            None => Err(self.peer.unreachable("the stream ended early")),
        }
    }

    /// Sends a voucher in the stream's call.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub(crate) async fn pay(&self, voucher: Voucher) -> Result<(), Error> {
        self.call.send(&Ask::Pay(voucher)).await.map_err(|error| self.peer.unreachable(error))
    }
}

#[cfg(test)]
mod tests;
