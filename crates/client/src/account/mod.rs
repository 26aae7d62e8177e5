//! Sends the operations of one key: nonces, fees, expiry, and once only.
//!
//! ```text
//!  send(body) ── nonce n ──► signed ──► nodes ──► each new block: is n passed, by the proved state?
//!                  ▲           ▲                     │ yes: the body that holds n says by which operation
//!                  │           │                     │        ours: final, with its receipt
//!                  ├───────────┼── another's: ours never stands ◄┘
//!                  │           └── no, and the base fee rose above its offer: sign n with a higher one
//!                  └────────────── no, and it expired: ours never stands
//! ```
//!
//! Invariants
//! 1. Operations are submitted in the order of their nonces, several may wait at once.
//! 2. A body is signed under another nonce only when it is *proved* that the first can never stand in a
//!    block: the nonce is not passed at a height above its expiry, or a block holds another
//!    operation with that nonce. A node's word (a refusal, "no receipt") decides nothing.
//! 3. It is signed again under the same nonce when the proved base fee is above what it offers: of those
//!    at most one ever stands in a block, and later operations are not held up.
//! 4. A body is signed at most [`SIGN_ATTEMPTS`] times under one nonce, and under as many nonces.
//! 5. Equal operations that two processes sign under one nonce differ in their bytes, so each finds out
//!    which of them stands: what they may be charged at most, and their expiry, are drawn at random.
//! 6. Once it was given to a node, an operation is never said to be refused, unless that is proved:
//!    [`Error::Undecided`].
//! 7. An operation without a nonce did not happen when every block up to its expiry was looked through.
//!    One that nodes refuse is not waited for: it is [`Error::Undecided`], with what they say.

mod fate;
mod fee;
mod turn;

pub use fee::{outbid, paying, sign_paying};
pub use turn::beside;

use crate::connection::{Connection, Error, Proved};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_macros::select;
use fate::Fate;
use fee::FEE_MARGIN;
use posync_protocol::{
    Account, Amount, Body, Code, Hash, Operation, Record as _,
    block::Header,
    ledger,
    limits::{MEMPOOL_PER_ACCOUNT, MEMPOOL_REPLACE_PERCENT, Parameters, SIGN_ATTEMPTS},
    operation::{Lane, check_structure},
    record::{AccountState, System},
    wire::node::Receipt,
};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex as Lock},
    time::Duration,
};
use tokio::sync::Mutex;
use turn::Turn;

/// What an operation may be charged is raised by up to this part of it, at random: too little to take the
/// place of another one in a mempool.
const OFFER_PART: u128 = 16;
const _: () = assert!(100 + 100 / OFFER_PART < MEMPOOL_REPLACE_PERCENT);
/// An operation expires by up to this part of its time earlier, at random.
const EXPIRY_PART: u64 = 2;
/// Nonces of this key that may wait, below the mempool's bound: beyond that a sender waits for a block.
const AHEAD_MAX: u64 = MEMPOOL_PER_ACCOUNT as u64 / 4 * 3;

/// How many times its patience a submitter waits while blocks come without the operation.
pub const PATIENCES: u32 = 4;
/// How long nodes may take to take an operation before the wait for a block begins all the same.
const OFFER: Duration = Duration::from_secs(10);

/// An operation that is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Final {
    /// Its id.
    pub id: Hash,
    /// Where it stands, with its code.
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
    /// Held while a nonce is picked and its operation given to a node.
    turn: Mutex<()>,
    /// The next nonce, if operations before it may be on their way.
    next: Lock<Option<u64>>,
    /// Where processes that share the key take turns.
    shared: Option<PathBuf>,
    patience: Option<Duration>,
}

/// Sends the operations of one key; clones share its nonces.
#[derive(Clone)]
pub struct Submitter(Arc<Inner>);

/// An operation on its way.
struct Flight {
    /// `None` for an operation without one: it is looked for in every block.
    nonce: Option<u64>,
    /// All operations signed under the nonce: nodes may hold any of them.
    signed: Vec<Operation>,
    /// The one of `signed` that is given to nodes again while it waits.
    waiting: usize,
    /// A proved height at which the nonce was not passed; without one, up to which no block holds it.
    since: u64,
    /// The last refusal by a node's mempool.
    refusal: Option<Code>,
    /// Why its fate is not known.
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

    /// Adds another operation under the nonce, which waits from now on.
    fn push(&mut self, operation: Operation) {
        self.waiting = self.signed.len();
        self.signed.push(operation);
    }

    /// The last block that may hold any of the signed operations.
    fn expires(&self) -> u64 {
        self.signed.iter().map(|operation| operation.expires).max().unwrap_or(0)
    }

    fn undecided(&self) -> Error {
        let (id, nonce, expires) = (self.waiting().id(), self.nonce, self.expires());
        Error::Undecided { id, nonce, expires, refusal: self.refusal, why: self.why.clone() }
    }
}

/// Proved state: of the account and of the fees.
struct Seen {
    header: Header,
    account: Option<AccountState>,
    base_fee: u64,
}

impl Submitter {
    /// Sends with `key` over `connection`, by the genesis parameters. It waits for as long as an
    /// operation may stand in a block, also while no block comes.
    pub fn new(connection: Connection, key: PrivateKey, parameters: Parameters) -> Self {
        let account = Account::of(&key.public_key());
        Self(Arc::new(Inner {
            connection,
            key,
            account,
            parameters,
            turn: Mutex::new(()),
            next: Lock::new(None),
            shared: None,
            patience: None,
        }))
    }

    /// For a key that several processes use: they take turns by the file at `shared` ([`beside`] the key).
    /// An operation is [`Error::Undecided`] when no newer block is proved for `patience`, or blocks come
    /// for [`PATIENCES`] times as long without it.
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

    /// Whose operations these are.
    pub fn account(&self) -> Account {
        self.0.account
    }

    /// Signs, submits and waits until the operation is final, whatever its receipt says.
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Expired`]: it is proved that it does not happen.
    /// [`Error::Undecided`]: it may have happened, or may still. The network's: nothing was signed.
    pub async fn send(&self, body: Body) -> Result<Final, Error> {
        if !body.has_nonce() {
            return self.send_bare(&body).await;
        }
        let mut last = Error::Expired;
        for _ in 0..SIGN_ATTEMPTS {
            let mut flight = self.launch(&body).await?;
            match self.settle(&mut flight).await? {
                Fate::Final(done) => return Ok(done),
                // Its nonce is passed: the next one is as it was.
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

    /// Has an operation without a nonce executed: a repetition changes nothing. It happened if a block holds
    /// it, and not if no block up to its expiry does; a node's word decides neither.
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
                // An audit's time is over with it.
                Fate::Another | Fate::Expired if body.lane() == Lane::Reserved => break,
                Fate::Another | Fate::Expired => {}
            }
        }
        Err(Error::Expired)
    }

    fn next(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.0.next.lock().expect("no holder of this lock panics")
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

    /// Signs `body` under `nonce`, with bytes that no other process signs. Nothing was sent yet, so what the
    /// proved state refuses is refused for certain.
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

    /// The same operation for a little more, drawn at random, as far as `left` allows.
    fn spread(&self, operation: Operation, draw: u64, left: Amount) -> Operation {
        let most = operation.max_fee.grains() / OFFER_PART;
        let more = (u128::from(draw) % (most + 1)).min(left.grains());
        let fee = Amount::new(operation.max_fee.grains().saturating_add(more)).unwrap_or(Amount::MAX);
        let chain = self.0.connection.light().chain();
        Operation::signed(&self.0.key, &chain, operation.nonce, fee, operation.expires, operation.body)
    }

    /// Gives an operation to the network under the next nonce. In order: of this process, and of those
    /// that share the key's turn.
    ///
    /// # Errors
    /// Those of the proved state, and the network's. Nothing was sent then.
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
        // The base fee rose beyond four times what was seen: sign by the fee of now.
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

    /// Gives the newest bytes of a flight to the network, and notes a refusal: it decides nothing.
    async fn offer(&self, flight: &mut Flight) {
        let given = self.0.connection.submit(flight.waiting());
        let refusal = match bounded(&self.0.connection, OFFER, given).await {
            Some(Err(Error::Refused(code))) => Some(code),
            _ => None,
        };
        // Nonces differ from node to node for a moment.
        let may_pass =
            |code: &Code| flight.nonce.is_some() && matches!(code, Code::NonceOld | Code::NonceGap);
        flight.refusal = refusal.filter(|code| !may_pass(code));
        if let (None, Some(code)) = (flight.nonce, flight.refusal) {
            flight.why = Error::Refused(code).to_string();
        }
    }

    /// The height of a proved block above `height`.
    async fn next_block(&self, height: u64) -> Result<u64, Error> {
        let next = self.0.connection.follow(height + 1).next().await;
        match next {
            Ok(header) => Ok(header.height),
            // The nodes no longer keep that block.
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
