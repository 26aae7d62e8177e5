//! The gateway's account on the ledger: operations in the order of their nonces, each until it has
//! a receipt.
//!
//! ```text
//!   body ─► nonce, signature ─► submitted ─► receipt ─► code to the caller
//!                                  └─ no receipt: submitted again; expired: all signed again
//! ```
//!
//! Invariants
//! 1. Bodies stand in blocks in the order in which they were given.
//! 2. At most [`IN_FLIGHT_MAX`] operations wait: below the mempool's bound for one account.
//! 3. An operation is signed anew only when its expiry height has passed without a receipt, or the
//!    node refused one before it.
//! 4. What is read came with a proof to a certificate of the network.

use crate::{
    environment::Environment,
    limits::MAILBOX,
    node::{self, Node},
};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_macros::select;
use commonware_utils::channel::{mpsc, oneshot};
use posync_protocol::{
    Account, Amount, Code, Hash, Key, Operation, Record, Slot, limits::Parameters, operation::Body,
    record::AccountState,
};
use std::{collections::VecDeque, time::Duration};

/// Operations without a receipt at once.
pub const IN_FLIGHT_MAX: usize = 32;
/// Pause after a node that could not be asked.
const PAUSE: Duration = Duration::from_millis(500);
/// Most that one operation's fee may be: 32 KiB and 96 records.
const FEE_BYTES_MAX: u128 = (32 << 10) + 96 * 512;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The node cannot be asked.
    #[error("the ledger cannot be reached: {0}; check the node endpoints")]
    Unreachable(String),
    /// It was executed, but its receipt is not to be had: read what it changed.
    #[error("the operation stands in a block, but its receipt is gone")]
    Forgotten,
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
}

struct Wish {
    body: Body,
    reply: oneshot::Sender<Result<Code, Error>>,
}

/// A handle to the account.
#[derive(Clone)]
pub struct Ledger {
    node: Node,
    wishes: mpsc::Sender<Wish>,
}

/// Who signs, and where.
pub struct Signer {
    /// The account's key.
    pub key: PrivateKey,
    /// SHA-256 of the genesis.
    pub chain: Hash,
    /// Genesis parameters.
    pub parameters: Parameters,
}

impl Ledger {
    /// Starts the account's writer.
    pub fn start(node: Node, signer: Signer, environment: &Environment) -> Self {
        let (wishes, receiver) = mpsc::channel(MAILBOX);
        let writer = Writer {
            node: node.clone(),
            signer,
            environment: environment.clone(),
            nonce: None,
            flight: VecDeque::new(),
        };
        environment.spawn(writer.run(receiver));
        Self { node, wishes }
    }

    /// Records of one certified state, and its height.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn read(&self, keys: Vec<Key>) -> Result<(u64, Vec<Option<Slot>>), Error> {
        self.node.read(keys).await.map_err(|error| Error::Unreachable(error.to_string()))
    }

    /// One record.
    ///
    /// # Errors
    /// [`Error::Unreachable`], also for a slot that does not decode.
    pub async fn record<R: Record>(&self, key: Key) -> Result<Option<R>, Error> {
        let (_, slots) = self.read(vec![key]).await?;
        decode(slots.first().copied().flatten())
    }

    /// Has an operation executed. Calls that are polled in an order are executed in that order.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn execute(&self, body: Body) -> Result<Code, Error> {
        let (reply, answer) = oneshot::channel();
        self.wishes.send(Wish { body, reply }).await.map_err(|_| Error::Stopping)?;
        answer.await.map_err(|_| Error::Stopping)?
    }
}

/// Reads a slot of a certified state.
///
/// # Errors
/// [`Error::Unreachable`] for one of another kind: the node runs other rules.
pub fn decode<R: Record>(slot: Option<Slot>) -> Result<Option<R>, Error> {
    let decoded = slot.map(|slot| R::from_slot(&slot)).transpose();
    decoded.map_err(|_| Error::Unreachable("a record does not decode; is this version the network's?".into()))
}

struct Flight {
    wish: Wish,
    operation: Operation,
}

struct Writer {
    node: Node,
    signer: Signer,
    environment: Environment,
    /// The next free nonce; `None` until it was read.
    nonce: Option<u64>,
    flight: VecDeque<Flight>,
}

impl Writer {
    async fn run(mut self, mut wishes: mpsc::Receiver<Wish>) {
        loop {
            if self.flight.is_empty() {
                match wishes.recv().await {
                    Some(wish) => self.take(wish).await,
                    None => return,
                }
            } else if self.flight.len() < IN_FLIGHT_MAX {
                let first = self.flight[0].operation.id();
                let node = self.node.clone();
                select! {
                    wish = wishes.recv() => match wish {
                        Some(wish) => self.take(wish).await,
                        None => return,
                    },
                    receipt = node.receipt(first) => self.receipt(receipt).await,
                }
            } else {
                let receipt = self.node.receipt(self.flight[0].operation.id()).await;
                self.receipt(receipt).await;
            }
        }
    }

    /// Signs and submits a wish, when the nonce and the height are known.
    async fn take(&mut self, wish: Wish) {
        let (nonce, height) = match self.place().await {
            Ok(place) => place,
            Err(error) => {
                let _ = wish.reply.send(Err(error));
                return;
            }
        };
        let operation = self.sign(wish.body.clone(), nonce, height);
        match self.node.submit(operation.clone()).await {
            Ok(Err(code)) if code != Code::NonceOld && code != Code::NonceGap => {
                // The caller may have given up.
                let _ = wish.reply.send(Ok(code));
            }
            // Where it was not taken it is submitted again, without a gap before it.
            _ => {
                self.nonce = Some(nonce + 1);
                self.flight.push_back(Flight { wish, operation });
            }
        }
    }

    async fn place(&mut self) -> Result<(u64, u64), Error> {
        let unreachable = |error: node::Error| Error::Unreachable(error.to_string());
        if let Some(nonce) = self.nonce {
            return Ok((nonce, self.node.height().await.map_err(unreachable)?));
        }
        let (nonce, height) = self.account().await.map_err(unreachable)?;
        self.nonce = Some(nonce);
        Ok((nonce, height))
    }

    /// The account's next nonce in a certified state, and its height.
    async fn account(&self) -> Result<(u64, u64), node::Error> {
        let account = Account::of(&self.signer.key.public_key());
        let (height, slots) = self.node.read(vec![AccountState::key(&account)]).await?;
        let state = slots.first().copied().flatten().and_then(|slot| AccountState::from_slot(&slot).ok());
        Ok((state.unwrap_or_default().nonce, height))
    }

    fn sign(&self, body: Body, nonce: u64, height: u64) -> Operation {
        let Signer { key, chain, parameters } = &self.signer;
        let fee = parameters.base_fee.grains().saturating_mul(FEE_BYTES_MAX);
        let expires = height.saturating_add(parameters.expiry_blocks_max / 2);
        Operation::signed(key, chain, nonce, Amount::new(fee).unwrap_or(Amount::MAX), expires, body)
    }

    /// What the node says of the first operation in flight.
    async fn receipt(&mut self, receipt: Result<Option<Code>, node::Error>) {
        match receipt {
            Ok(Some(code)) => {
                if let Some(flight) = self.flight.pop_front() {
                    // The caller may have given up.
                    let _ = flight.wish.reply.send(Ok(code));
                }
            }
            Ok(None) => self.again().await,
            Err(error) => {
                tracing::debug!(%error, "no receipt");
                self.environment.sleep(PAUSE).await;
            }
        }
    }

    /// No receipt yet: what waits is submitted again, or signed again when it has expired.
    async fn again(&mut self) {
        let Ok((nonce, height)) = self.account().await else {
            return self.environment.sleep(PAUSE).await;
        };
        let Some(first) = self.flight.front() else { return };
        if nonce > first.operation.nonce && height > first.operation.expires {
            let flight = self.flight.pop_front().expect("there is a first");
            let _ = flight.wish.reply.send(Err(Error::Forgotten));
            return;
        }
        let expired = height > first.operation.expires;
        let mut free = nonce;
        for index in 0..self.flight.len() {
            if expired {
                let body = self.flight[index].wish.body.clone();
                self.flight[index].operation = self.sign(body, free, height);
                free += 1;
            }
            let operation = self.flight[index].operation.clone();
            if let Ok(Err(code)) = self.node.submit(operation).await {
                tracing::debug!(?code, "an operation is not taken again");
            }
        }
        if expired {
            self.nonce = Some(free);
        }
    }
}
