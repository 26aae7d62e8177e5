//! Sends the operations of one key: picks nonces, fees and expiry, and sends each body once only.
//!
//! ```text
//!  send(body) ── nonce n ──► signed ──► nodes ──► each new block: is n passed, by the proved state?
//!                  ▲           ▲                     │ yes: the body that holds n names the operation
//!                  │           │                     │        ours: final, with its receipt
//!                  ├───────────┼── another's: ours is excluded  ◄┘
//!                  │           └── no, and the base fee rose above its offer: sign n with a higher one
//!                  └────────────── no, and it expired: ours is excluded
//! ```
//!
//! Invariants
//! 1. Operations are submitted in nonce order; several may wait at once.
//! 2. A body is signed under another nonce only when it is *proved* that the first can never be included in
//!    a block: the nonce is not passed at a height above its expiry, or a block holds another
//!    operation with that nonce. A node's word (a refusal, "no receipt") decides nothing.
//! 3. It is signed again under the same nonce when the proved base fee exceeds its offer: at most one of
//!    those is ever included, and later operations are not held up.
//! 4. A body is signed at most [`SIGN_ATTEMPTS`] times under one nonce, and under as many nonces.
//! 5. Equal operations that two processes sign under one nonce differ in their bytes, so each process
//!    learns which one is included: the highest fee and the expiry of each are drawn at random.
//! 6. Once a node has received an operation, it is never reported as refused unless that is proved:
//!    [`Error::Undecided`].
//! 7. An operation without a nonce has failed once every block up to its expiry was searched. One that
//!    nodes refuse is not waited for: it is [`Error::Undecided`], with the nodes' reason.

mod fate;
mod fee;
mod nonce_lock;

pub use fee::{paying, sign_paying};
pub use nonce_lock::beside;

use crate::connection::{Connection, Error, Proved};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_macros::select;
use commonware_utils::sync::{AsyncMutex, Mutex as Lock};
use fate::Fate;
use fee::FEE_MARGIN;
use nonce_lock::Turn;
use posync_protocol::{
    Account, Amount, Body, Code, Hash, Operation, Record as _,
    block::Header,
    ledger,
    limits::{MEMPOOL_PER_ACCOUNT, MEMPOOL_REPLACE_PERCENT, Parameters, SIGN_ATTEMPTS},
    operation::{Lane, check_structure},
    record::{AccountState, System},
    wire::node::Receipt,
};
use std::{path::PathBuf, sync::Arc, time::Duration};

/// The highest fee is raised at random by up to one part in this many: too little to replace another
/// operation in a mempool.
const OFFER_PART: u128 = 16;
const _: () = assert!(100 + 100 / OFFER_PART < MEMPOOL_REPLACE_PERCENT);
/// An operation expires earlier, at random, by up to one part in this many of its lifetime.
const EXPIRY_PART: u64 = 2;
/// Nonces of this key that may wait. It is below the mempool's bound; beyond it a sender waits for a block.
const AHEAD_MAX: u64 = MEMPOOL_PER_ACCOUNT as u64 / 4 * 3;

/// Multiple of its patience that a submitter waits while blocks arrive without the operation.
pub(crate) const PATIENCES: u32 = 4;
/// Time that nodes have to answer a submission before the wait for a block begins anyway.
const OFFER: Duration = Duration::from_secs(10);

/// An operation that is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Final {
    /// Id of the bytes that were included, which may be a later signature than the first.
    pub id: Hash,
    /// Height, index in the block, and result code.
    pub receipt: Receipt,
}

impl Final {
    /// The receipt, if the operation did what it asked.
    ///
    /// # Errors
    /// [`Error::Refused`] with the receipt's code.
    pub fn done(self) -> Result<Self, Error> {
        match self.receipt.code {
            Code::Done => Ok(self),
            code => Err(Error::Refused(code)),
        }
    }
}

struct Inner {
    connection: Connection,
    key: PrivateKey,
    account: Account,
    parameters: Parameters,
    /// Held while a nonce is picked and its operation is sent to a node.
    turn: AsyncMutex<()>,
    /// The next nonce; `None` unless earlier operations may still be waiting.
    next: Lock<Option<u64>>,
    /// Path of the file by which processes that share the key take turns.
    shared: Option<PathBuf>,
    patience: Option<Duration>,
}

/// Sends the operations of one key; clones share its nonces.
#[derive(Clone)]
pub struct Submitter(Arc<Inner>);

/// An operation that was sent and whose fate is not proved yet.
struct Flight {
    /// `None` for an operation without a nonce, which is searched for in every block.
    nonce: Option<u64>,
    /// All operations signed under the nonce: nodes may hold any of them.
    signed: Vec<Operation>,
    /// Index in `signed` of the operation that is sent again while it waits.
    waiting: usize,
    /// Proved height at which the nonce was not passed; without one, the height up to which no block holds
    /// it.
    since: u64,
    /// The last refusal by a node's mempool.
    refusal: Option<Code>,
    /// Why its fate is unknown, for the error.
    why: String,
}

impl Flight {
    fn new(nonce: Option<u64>, operation: Operation, since: u64) -> Self {
        let why = "no newer block was proved".into();
        Self { nonce, signed: vec![operation], waiting: 0, since, refusal: None, why }
    }

    fn waiting(&self) -> &Operation {
        &self.signed[self.waiting]
    }

    /// Adds another operation under the nonce; it becomes the one that waits.
    fn push(&mut self, operation: Operation) {
        self.waiting = self.signed.len();
        self.signed.push(operation);
    }

    /// Last height at which any of the signed operations may be included.
    fn expires(&self) -> u64 {
        self.signed.iter().map(|operation| operation.expires).max().unwrap_or(0)
    }

    fn undecided(&self) -> Error {
        let (id, nonce, expires) = (self.waiting().id(), self.nonce, self.expires());
        Error::Undecided { id, nonce, expires, refusal: self.refusal, why: self.why.clone() }
    }
}

/// Proved state of the account and of the fees.
struct Seen {
    header: Header,
    account: Option<AccountState>,
    base_fee: u64,
}

impl Submitter {
    /// Sends with `key` over `connection`, under the genesis parameters. It waits for as long as an
    /// operation may be included, even while no block arrives.
    pub fn new(connection: Connection, key: PrivateKey, parameters: Parameters) -> Self {
        let account = Account::of(&key.public_key());
        Self(Arc::new(Inner {
            connection,
            key,
            account,
            parameters,
            turn: AsyncMutex::new(()),
            next: Lock::new(None),
            shared: None,
            patience: None,
        }))
    }

    /// Creates a submitter for a key that several processes use. They take turns through the file at
    /// `shared` ([`beside`] the key). An operation is [`Error::Undecided`] when no newer block is proved for
    /// `patience`, or when blocks arrive without it for [`PATIENCES`] times as long.
    pub fn for_command(
        connection: Connection,
        key: PrivateKey,
        parameters: Parameters,
        shared: Option<PathBuf>,
        patience: Duration,
    ) -> Self {
        let Self(inner) = Self::new(connection, key, parameters);
        let inner = Arc::into_inner(inner).expect("nobody shares it yet");
        Self(Arc::new(Inner { shared, patience: Some(patience), ..inner }))
    }

    /// The account that signs the operations.
    pub fn account(&self) -> Account {
        self.0.account
    }

    /// Signs, submits and waits until the operation is final, whatever its receipt says.
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Expired`]: it is proved that the operation has no effect.
    /// [`Error::Undecided`]: it may have happened, or may still happen. Network errors: nothing was signed.
    pub async fn send(&self, body: Body) -> Result<Final, Error> {
        if !body.has_nonce() {
            return self.send_bare(&body).await;
        }
        let mut last = Error::Expired;
        for _ in 0..SIGN_ATTEMPTS {
            let mut flight = self.launch(&body).await?;
            match self.settle(&mut flight).await? {
                Fate::Final(done) => return Ok(done),
                // The nonce is used up, and the next one is as good.
                Fate::Another => last = Error::Refused(Code::NonceOld),
                Fate::Expired => {
                    *self.next() = None;
                    if let Some(code) = flight.refusal {
                        return Err(Error::Refused(code));
                    }
                    last = Error::Expired;
                }
            }
        }
        Err(last)
    }

    /// Executes an operation without a nonce; a repetition changes nothing. It happened if a block holds it,
    /// and failed if no block up to its expiry does. A node's word decides neither.
    async fn send_bare(&self, body: &Body) -> Result<Final, Error> {
        for _ in 0..SIGN_ATTEMPTS {
            let since = self.0.connection.read::<System>(System::key()).await?.header.height;
            let expires = since + self.0.parameters.expiry_blocks_max / 2;
            let context = paying(self.0.connection.light().chain(), self.0.parameters, since);
            let floor = ledger::floor(&self.0.parameters);
            let operation = sign_paying(&self.0.key, &context, floor, FEE_MARGIN, 0, expires, body);
            check_structure(&operation, &context).map_err(Error::Refused)?;
            let mut flight = Flight::new(None, operation, since);
            self.offer(&mut flight).await;
            match self.settle(&mut flight).await? {
                Fate::Final(done) => return Ok(done),
                // An audit is of no use after its expiry.
                Fate::Another | Fate::Expired if body.lane() == Lane::Reserved => break,
                Fate::Another | Fate::Expired => {}
            }
        }
        Err(Error::Expired)
    }

    fn next(&self) -> commonware_utils::sync::MutexGuard<'_, Option<u64>> {
        self.0.next.lock()
    }

    async fn seen(&self) -> Result<Seen, Error> {
        let keys = [AccountState::key(&self.0.account), System::key()];
        let Proved { header, value } = self.0.connection.read_many(&keys).await?;
        let damaged = |_| crate::light::Error::Malformed("the record");
        let mut slots = value.into_iter();
        let account = slots.next().flatten().map(|slot| AccountState::from_slot(&slot));
        let system = slots.next().flatten().map(|slot| System::from_slot(&slot));
        let system = system.transpose().map_err(damaged)?.unwrap_or_default();
        let base_fee = ledger::base_fee(&system, &self.0.parameters);
        Ok(Seen { header, account: account.transpose().map_err(damaged)?, base_fee })
    }

    /// Signs `body` under `nonce`, with bytes that no other process signs. Nothing was sent yet, so a refusal
    /// by the proved state is certain.
    fn sign(&self, seen: &Seen, nonce: u64, body: &Body) -> Result<Operation, Error> {
        let state = seen.account.as_ref().ok_or(Error::Refused(Code::UnknownAccount))?;
        let (height, draw) = (seen.header.height, self.0.connection.random());
        let chain = self.0.connection.light().chain();
        let context = paying(chain, self.0.parameters, height);
        let half = self.0.parameters.expiry_blocks_max / 2;
        let earlier = (half / EXPIRY_PART).max(1);
        let expires = height + half - draw % earlier;
        let operation = sign_paying(&self.0.key, &context, seen.base_fee, FEE_MARGIN, nonce, expires, body);
        check_structure(&operation, &context).map_err(Error::Refused)?;
        let left = state.balance.checked_sub(operation.max_fee).ok_or(Error::Refused(Code::Balance))?;
        Ok(self.spread(operation, draw / earlier, left))
    }

    /// Raises the highest fee a little, at random, as far as `left` allows.
    fn spread(&self, operation: Operation, draw: u64, left: Amount) -> Operation {
        let most = operation.max_fee.grains() / OFFER_PART;
        let more = (u128::from(draw) % (most + 1)).min(left.grains());
        let fee = Amount::new(operation.max_fee.grains().saturating_add(more)).unwrap_or(Amount::MAX);
        let chain = self.0.connection.light().chain();
        Operation::signed(&self.0.key, &chain, operation.nonce, fee, operation.expires, operation.body)
    }

    /// Sends an operation to the network under the next nonce. Calls are ordered within this process, and
    /// across the processes that share the key's turn.
    ///
    /// # Errors
    /// Errors of the proved state and of the network. Nothing was sent in either case.
    async fn launch(&self, body: &Body) -> Result<Flight, Error> {
        let _order = self.0.turn.lock().await;
        let connection = &self.0.connection;
        let mut turn = match &self.0.shared {
            Some(path) => Turn::take(path, &connection.light().chain(), connection).await,
            None => None,
        };
        let mut seen = self.seen().await?;
        let nonce = loop {
            let proved = seen.account.as_ref().map_or(0, |state| state.nonce);
            let given = turn.as_mut().and_then(|turn| turn.next(seen.header.height));
            let nonce = proved.max(self.next().unwrap_or(0)).max(given.unwrap_or(0));
            if nonce - proved < AHEAD_MAX {
                break nonce;
            }
            self.next_block(seen.header.height).await?;
            seen = self.seen().await?;
        };
        let operation = self.sign(&seen, nonce, body)?;
        let mut flight = Flight::new(Some(nonce), operation, seen.header.height);
        // From here on the network may hold it, whatever a node answers.
        self.offer(&mut flight).await;
        // The base fee rose above four times the value that was seen: sign again at the present fee.
        for _ in 0..2 {
            if flight.refusal != Some(Code::FeeAboveMaximum) {
                break;
            }
            let Ok(seen) = self.seen().await else { break };
            let Ok(operation) = self.sign(&seen, nonce, body) else { break };
            flight.push(operation);
            self.offer(&mut flight).await;
        }
        *self.next() = Some(nonce + 1);
        if let Some(turn) = &mut turn {
            turn.give(nonce + 1, flight.expires());
        }
        Ok(flight)
    }

    /// Sends the newest bytes of a flight to the network and records a refusal, which decides nothing.
    async fn offer(&self, flight: &mut Flight) {
        let given = self.0.connection.submit(flight.waiting());
        let refusal = match bounded(&self.0.connection, OFFER, given).await {
            Some(Err(Error::Refused(code))) => Some(code),
            _ => None,
        };
        // Nodes may disagree about the next nonce for a moment.
        let may_pass =
            |code: &Code| flight.nonce.is_some() && matches!(code, Code::NonceOld | Code::NonceGap);
        flight.refusal = refusal.filter(|code| !may_pass(code));
        if let (None, Some(code)) = (flight.nonce, flight.refusal) {
            flight.why = Error::Refused(code).to_string();
        }
    }

    /// Waits for a proved block above `height` and returns its height.
    async fn next_block(&self, height: u64) -> Result<u64, Error> {
        let next = self.0.connection.follow(height + 1).next().await;
        match next {
            Ok(header) => Ok(header.height),
            // The nodes have pruned that block.
            Err(Error::Unavailable(_)) => {
                Ok(self.0.connection.read::<System>(System::key()).await?.header.height)
            }
            Err(error) => Err(error),
        }
    }
}

/// The result of `work` if it comes within `limit`.
async fn bounded<T>(connection: &Connection, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let late = connection.sleep(limit);
    select! {
        done = work => Some(done),
        () = late => None,
    }
}
