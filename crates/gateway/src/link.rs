//! The way to one provider: one connection, made when it is needed, made again when it broke.
//!
//! Invariants
//! 1. At most [`PUTS_IN_FLIGHT`] shards are on their way to a provider.
//! 2. After a failed dial nobody dials for [`DIAL_PAUSE`]: callers fail at once and go elsewhere.
//! 3. Every request ends within its timeout; dropping a request's future cancels it, but that the answer
//!    to an offer (a shard, a data set) is listened for: its absence must be noticed ([`crate::silence`]).

use crate::{environment::Environment, silence::Silence};
use commonware_utils::channel::oneshot;
use futures::future::BoxFuture;
use posync_client::rpc::{Call, Client, Provider};
use posync_protocol::{
    Account, AgreementId, Bounded, Hash, Signature,
    operation::{RefusedPlacement, Voucher},
    wire::provider::{Answer, Ask, Get, Put, Refusal, Refused, Sign, Slice, Status},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore};

/// Shards on their way to one provider: 16 MiB of 1 MiB shards.
pub const PUTS_IN_FLIGHT: usize = 16;
/// Time for a shard to arrive and become durable.
pub const PUT_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for a signature.
pub const SIGN_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for a short answer.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which others are asked first after it kept somebody waiting.
pub const DOUBT: Duration = Duration::from_secs(5);
/// Time without dialing after a failure.
pub const DIAL_PAUSE: Duration = Duration::from_secs(1);

/// Why a provider did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke.
    #[error("provider {0} cannot be reached: {1}")]
    Unreachable(Account, String),
    /// No answer in time.
    #[error("provider {0} did not answer in time")]
    Slow(Account),
    /// It said no.
    #[error("provider {0} refuses ({1:?}): {2}")]
    Refused(Account, Refusal, String),
    /// It answered something else, or bytes that do not verify.
    #[error("provider {0} gave a wrong answer: {1}")]
    Wrong(Account, &'static str),
}

impl Error {
    /// Whether the provider itself shows that it does not hold the shard.
    pub const fn shows_loss(&self) -> bool {
        matches!(self, Self::Refused(_, Refusal::Unknown | Refusal::Damaged, _) | Self::Wrong(..))
    }

    /// Whether the provider says that it cannot serve the shard, which it may no longer have to.
    pub const fn says_loss(&self) -> bool {
        matches!(self, Self::Refused(_, Refusal::Unknown | Refusal::Damaged, _))
    }

    /// Whether the very same request may succeed later.
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable(..) | Self::Slow(_) | Self::Refused(_, Refusal::Busy, _))
    }
}

/// Makes connections of one service: the one thing that knows runtime and network.
pub type Dialer<S> =
    Arc<dyn Fn(Account, SocketAddr) -> BoxFuture<'static, Result<Client<S>, String>> + Send + Sync>;

/// The ledger's time, by which silence is judged.
#[derive(Clone, Debug)]
pub struct Heights {
    /// Last certified height seen.
    pub height: Arc<AtomicU64>,
    /// Blocks of an epoch.
    pub epoch_blocks: u64,
}

enum State {
    Idle,
    Open(Client<Provider>),
    Pausing(String),
}

/// The way to one provider.
pub struct Link {
    account: Account,
    address: Mutex<Option<SocketAddr>>,
    state: AsyncMutex<State>,
    puts: Arc<Semaphore>,
    dialer: Dialer<Provider>,
    environment: Environment,
    resumed: Arc<AtomicBool>,
    doubts: AtomicU32,
    refusal: Mutex<Option<RefusedPlacement>>,
    heights: Heights,
    silence: Mutex<Silence>,
}

impl Link {
    /// A way that is not connected yet.
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
            doubts: AtomicU32::new(0),
            refusal: Mutex::new(None),
            heights,
            silence: Mutex::default(),
        }
    }

    /// Who is at the other end.
    pub const fn account(&self) -> Account {
        self.account
    }

    /// Last certified height seen.
    pub fn height(&self) -> u64 {
        self.heights.height.load(Ordering::Relaxed)
    }

    /// Where it is dialed from now on.
    pub fn set_address(&self, address: SocketAddr) {
        *self.address.lock().expect("no holder of this lock panics") = Some(address);
    }

    fn unreachable(&self, why: impl ToString) -> Error {
        Error::Unreachable(self.account, why.to_string())
    }

    /// The open connection, or a new one. One caller dials, the others wait for it.
    async fn client(&self) -> Result<Client<Provider>, Error> {
        let mut state = self.state.lock().await;
        let over = self.resumed.swap(false, Ordering::AcqRel);
        match &*state {
            State::Open(client) if !client.is_gone() => return Ok(client.clone()),
            State::Pausing(why) if !over => return Err(self.unreachable(why)),
            _ => {}
        }
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
        let address = *self.address.lock().expect("no holder of this lock panics");
        let address = address.ok_or("the ledger names no address that resolves")?;
        (self.dialer)(self.account, address).await
    }

    async fn call(&self, ask: Ask, patience: Duration) -> Result<Answer, Error> {
        let work = async {
            let client = self.client().await?;
            client.call(ask).await.map_err(|error| self.unreachable(error))
        };
        match self.environment.within(patience, work).await {
            Some(Ok(Answer::Refused(refused))) => Err(self.refused(refused)),
            Some(answer) => answer,
            None => Err(Error::Slow(self.account)),
        }
    }

    /// Asks for what a placement consists of. The answer is listened for within its time even if the
    /// caller goes: a put does not wait for the last shards, and who never answers is found out so.
    async fn offer(
        self: &Arc<Self>,
        ask: Ask,
        patience: Duration,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<Answer, Error> {
        let offered = self.height();
        let open = async { self.client().await?.open(ask).await.map_err(|error| self.unreachable(error)) };
        let opened = self.environment.within(patience, open).await;
        let mut call = opened.ok_or(Error::Slow(self.account))??;
        let (sender, receiver) = oneshot::channel();
        let link = self.clone();
        self.environment.spawn(async move {
            let answer = link.environment.within(patience, call.recv()).await;
            drop((call, place));
            // The caller may be gone.
            let _ = sender.send(link.heard(offered, answer));
        });
        receiver.await.unwrap_or_else(|_| Err(self.unreachable("this gateway is stopping")))
    }

    /// Judges what came of an offer. A stored shard is half an answer: the placement is taken when it
    /// is signed, or refused.
    fn heard(self: &Arc<Self>, offered: u64, answer: Option<Option<Answer>>) -> Result<Answer, Error> {
        let (height, mut silence) = (self.height(), self.silence());
        match answer {
            Some(Some(Answer::Stored(name))) => Ok(Answer::Stored(name)),
            Some(Some(answer)) => {
                silence.answered(height);
                match answer {
                    Answer::Refused(refused) => Err(self.refused(refused)),
                    answer => Ok(answer),
                }
            }
            missing => {
                silence.missed(offered, height, self.heights.epoch_blocks);
                self.doubt();
                Err(match missing {
                    None => Error::Slow(self.account),
                    Some(_) => self.unreachable("the connection ended before it answered"),
                })
            }
        }
    }

    fn silence(&self) -> MutexGuard<'_, Silence> {
        self.silence.lock().expect("no holder of this lock panics")
    }

    /// Offers in a row that it left unanswered, and blocks for which it is left out of placement.
    pub fn unanswered(&self) -> (u32, u64) {
        let silence = self.silence();
        (silence.unanswered(), silence.left_out(self.height()))
    }

    fn refused(&self, refused: Refused) -> Error {
        let text = String::from_utf8_lossy(&refused.text).into_owned();
        if refused.signed.is_some() {
            *self.refusal.lock().expect("no holder of this lock panics") = refused.signed;
        }
        Error::Refused(self.account, refused.reason, text)
    }

    /// The last signed refusal, once: for the ledger.
    pub fn take_refusal(&self) -> Option<RefusedPlacement> {
        self.refusal.lock().expect("no holder of this lock panics").take()
    }

    const fn wrong(&self, what: &'static str) -> Error {
        Error::Wrong(self.account, what)
    }

    /// Connects if need be: then [`Self::put`] is worth its bytes.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn ready(&self) -> Result<(), Error> {
        match self.environment.within(ASK_TIMEOUT, self.client()).await {
            Some(client) => client.map(drop),
            None => Err(Error::Slow(self.account)),
        }
    }

    /// Whether it failed lately, or leaves offers unanswered: others are asked.
    pub fn is_doubtful(&self) -> bool {
        self.doubts.load(Ordering::Relaxed) > 0 || self.unanswered().1 > 0
    }

    /// It kept somebody waiting: others are asked first for [`DOUBT`].
    pub fn doubt(self: &Arc<Self>) {
        self.doubts.fetch_add(1, Ordering::Relaxed);
        let (link, pause) = (self.clone(), self.environment.sleep(DOUBT));
        self.environment.spawn(async move {
            pause.await;
            link.doubts.fetch_sub(1, Ordering::Relaxed);
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
        bytes: Vec<u8>,
    ) -> Result<(), Error> {
        let place = self.puts.clone().acquire_owned().await.expect("the semaphore is never closed");
        let data = Bounded::new(bytes).ok_or_else(|| self.wrong("a shard above 4 MiB"))?;
        match self.offer(Ask::Put(Put { agreement, shard, data }), PUT_TIMEOUT, Some(place)).await? {
            Answer::Stored(name) if name == shard => Ok(()),
            _ => Err(self.wrong("it stored something else")),
        }
    }

    /// Asks for the provider's signature over a new version of a data set.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn sign(self: &Arc<Self>, sign: Sign) -> Result<Signature, Error> {
        match self.offer(Ask::Sign(sign), SIGN_TIMEOUT, None).await? {
            Answer::Signed(signature) => Ok(signature),
            _ => Err(self.wrong("no signature")),
        }
    }

    /// How the provider says that it is doing.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn status(&self) -> Result<Status, Error> {
        match self.call(Ask::Status(Default::default()), ASK_TIMEOUT).await? {
            Answer::Status(status) => Ok(status),
            _ => Err(self.wrong("no status")),
        }
    }

    /// Gives a voucher; returns when the provider has it on disk.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn pay(&self, voucher: Voucher) -> Result<(), Error> {
        let work = async {
            let call = self.client().await?.open(Ask::Pay(voucher)).await;
            let mut call = call.map_err(|error| self.unreachable(error))?;
            match call.recv().await {
                None => Ok(()),
                Some(Answer::Refused(refused)) => Err(self.refused(refused)),
                Some(_) => Err(self.wrong("an answer to a voucher")),
            }
        };
        match self.environment.within(ASK_TIMEOUT, work).await {
            Some(paid) => paid,
            None => Err(Error::Slow(self.account)),
        }
    }

    /// Opens the stream of a shard's slices.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn get(&self, get: Get) -> Result<Slices<'_>, Error> {
        let client = self.client().await?;
        let call = client.open(Ask::Get(get)).await.map_err(|error| self.unreachable(error))?;
        Ok(Slices { link: self, call })
    }
}

/// A stream of slices, not verified yet.
pub struct Slices<'a> {
    link: &'a Link,
    call: Call<Provider>,
}

impl Slices<'_> {
    /// The next slice.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn next(&mut self) -> Result<Slice, Error> {
        match self.call.recv().await {
            Some(Answer::Slice(slice)) => Ok(slice),
            Some(Answer::Refused(refused)) => Err(self.link.refused(refused)),
            Some(_) => Err(self.link.wrong("no slice")),
            None => Err(self.link.unreachable("the stream ended early")),
        }
    }

    /// Sends a voucher beside the stream.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn pay(&self, voucher: Voucher) -> Result<(), Error> {
        self.call.send(&Ask::Pay(voucher)).await.map_err(|error| self.link.unreachable(error))
    }
}
