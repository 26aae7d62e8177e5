//! Sends the operations of one key: nonces, fees, expiry, and once only.
//!
//! ```text
//!  send(body) ── nonce n ──► signed ──submit──► waits ──receipt──► done
//!                  ▲           ▲                │ lost, restarted: the same bytes again
//!                  │           └────────────────┤ the base fee rose above its offer: sign n with a higher one
//!                  └── expired, and the proved nonce is still n: sign anew
//! ```
//!
//! Invariants
//! 1. Operations are submitted in the order of their nonces, several may wait at once.
//! 2. A body is signed under another nonce only when it is proved that the first can never stand in a
//!    block: its expiry height is final and the account's nonce has not passed it.
//! 3. It is signed again under the same nonce when the proved base fee is above what it offers: of those
//!    at most one ever stands in a block, and what follows on it is not held up.
//! 4. At most [`SIGN_ATTEMPTS`] signatures a body under one nonce, and as many nonces.
//!
//! One key must have one submitter. A second process with the same key is noticed (`NonceOld`) and
//! costs attempts, never money.

use crate::connection::{Connection, Error, Proved};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use posync_protocol::{
    Account, Amount, Body, Code, Hash, Operation,
    ledger::{self, BlockContext},
    limits::{MEMPOOL_REPLACE_PERCENT, Parameters, SIGN_ATTEMPTS},
    operation::Lane,
    record::{AccountState, System},
    wire::node::Receipt,
};
use std::sync::Arc;
use tokio::sync::Mutex;

/// How far above the fee at the base fee of today an operation may be charged: twelve full blocks
/// raise it as much.
const FEE_MARGIN: u128 = 4;

/// What the fee of an operation is judged by at a height: no block's leader, parent or seed is in it.
pub const fn paying(chain: Hash, parameters: Parameters, height: u64) -> BlockContext {
    BlockContext { chain, parameters, height, leader: Account([0; 32]), parent: [0; 32], seed: None }
}

/// Signs an operation that may be charged `margin` times its fee at `base_fee` in `context`.
pub fn sign_paying(
    key: &PrivateKey,
    context: &BlockContext,
    base_fee: u64,
    margin: u128,
    nonce: u64,
    expires: u64,
    body: &Body,
) -> Operation {
    let sign = |fee| Operation::signed(key, &context.chain, nonce, fee, expires, body.clone());
    let fee = ledger::fee(context, base_fee, &sign(Amount::ZERO)).grains().saturating_mul(margin);
    sign(Amount::new(fee).unwrap_or(Amount::MAX))
}

/// A paid operation signed anew, if what it offers is below its fee at `base_fee`: under the same nonce,
/// so that at most one of the two ever stands in a block, for so much more that nodes take it in the
/// other's place. `None` if it offers enough.
pub fn outbid(
    key: &PrivateKey,
    context: &BlockContext,
    base_fee: u64,
    expires: u64,
    operation: &Operation,
) -> Option<Operation> {
    let offered = operation.max_fee;
    if !operation.body.has_nonce() || ledger::fee(context, base_fee, operation) <= offered {
        return None;
    }
    let expires = expires.max(operation.expires);
    let raised = sign_paying(key, context, base_fee, FEE_MARGIN, operation.nonce, expires, &operation.body);
    let least = offered.grains().saturating_mul(MEMPOOL_REPLACE_PERCENT).div_ceil(100);
    (raised.max_fee.grains() >= least).then_some(raised)
}

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
    /// The next nonce, if it is known.
    next: Mutex<Option<u64>>,
}

/// Sends the operations of one key; clones share its nonces.
#[derive(Clone)]
pub struct Submitter(Arc<Inner>);

/// What became of an attempt.
enum Attempt {
    Final(Final),
    /// It can never stand in a block; sign again.
    Again(Error),
}

impl Submitter {
    /// Sends with `key` over `connection`, by the genesis parameters.
    pub fn new(connection: Connection, key: PrivateKey, parameters: Parameters) -> Self {
        let account = Account::of(&key.public_key());
        Self(Arc::new(Inner { connection, key, account, parameters, next: Mutex::new(None) }))
    }

    /// Whose operations these are.
    pub fn account(&self) -> Account {
        self.0.account
    }

    /// Signs, submits and waits until the operation is final, whatever its receipt says.
    ///
    /// # Errors
    /// [`Error::Refused`] at the door, [`Error::Expired`] after all attempts, or the network's.
    pub async fn send(&self, body: Body) -> Result<Final, Error> {
        let mut last = Error::Expired;
        for _ in 0..SIGN_ATTEMPTS {
            let operation = if body.has_nonce() {
                self.submit_paid(&body).await?
            } else {
                self.submit_bare(&body).await?
            };
            match self.settle(operation).await? {
                Attempt::Final(receipt) => return Ok(receipt),
                Attempt::Again(error) => last = error,
            }
            // The ledger refused it, or its time is over: there is no receipt to wait for.
            if body.lane() == Lane::Reserved {
                break;
            }
        }
        Err(last)
    }

    async fn expiry(&self) -> Result<(u64, u64), Error> {
        let height = self.0.connection.height().await?;
        Ok((height, height + self.0.parameters.expiry_blocks_max / 2))
    }

    /// The base fee that the next block charges, as far as is proved.
    async fn base_fee(&self) -> Result<u64, Error> {
        let system = self.0.connection.read::<System>(System::key()).await?.value;
        Ok(ledger::base_fee(&system.unwrap_or_default(), &self.0.parameters))
    }

    fn sign(&self, base_fee: u64, nonce: u64, height: u64, expires: u64, body: &Body) -> Operation {
        let context = paying(self.0.connection.light().chain(), self.0.parameters, height);
        sign_paying(&self.0.key, &context, base_fee, FEE_MARGIN, nonce, expires, body)
    }

    /// Submits what carries no nonce, and pays the least base fee or nothing.
    async fn submit_bare(&self, body: &Body) -> Result<Operation, Error> {
        let (height, expires) = self.expiry().await?;
        let operation = self.sign(ledger::floor(&self.0.parameters), 0, height, expires, body);
        self.offer(&operation).await?;
        Ok(operation)
    }

    /// Submits under the next nonce. The lock keeps the order of nonces in the order of submission.
    async fn submit_paid(&self, body: &Body) -> Result<Operation, Error> {
        let mut next = self.0.next.lock().await;
        let mut last = Error::Expired;
        for _ in 0..SIGN_ATTEMPTS {
            let (height, expires) = self.expiry().await?;
            let nonce = match *next {
                Some(nonce) => nonce,
                None => self.proved_nonce().await?.value,
            };
            let operation = self.sign(self.base_fee().await?, nonce, height, expires, body);
            match self.offer(&operation).await {
                Ok(()) => {
                    *next = Some(nonce + 1);
                    return Ok(operation);
                }
                // A node that was left for its answer may have passed it on: signing anew would do
                // it twice.
                Err(Error::Refused(Code::NonceOld)) if self.is_final(&operation).await? => {
                    *next = Some(nonce + 1);
                    return Ok(operation);
                }
                // What waits of ours under that nonce, or before it, becomes final or expires.
                Err(Error::Refused(code @ (Code::NonceOld | Code::NonceGap))) => {
                    *next = None;
                    last = Error::Refused(code);
                    self.0.connection.leave().await;
                    self.0.connection.follow(height + 1).next().await?;
                }
                // The base fee rose beyond four times what was seen: by what it is now.
                Err(error @ Error::Refused(Code::FeeAboveMaximum)) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    async fn is_final(&self, operation: &Operation) -> Result<bool, Error> {
        Ok(self.0.connection.receipt(&operation.id()).await?.is_some())
    }

    /// Submits; a node that could not be reached may have taken it, so that is no refusal.
    async fn offer(&self, operation: &Operation) -> Result<(), Error> {
        match self.0.connection.submit(operation).await {
            Ok(_) | Err(Error::Unreachable(_) | Error::Unavailable(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits for the receipt. While there is none, submits the same bytes again, or the same body under the
    /// same nonce for more once the base fee rose above what they offer.
    async fn settle(&self, operation: Operation) -> Result<Attempt, Error> {
        // All that was signed under this nonce: nodes that were lost may hold any of it.
        let mut signed = vec![operation.clone()];
        let mut waiting = operation;
        loop {
            let seen = self.proved_nonce().await?;
            let passed = waiting.body.has_nonce() && seen.value > waiting.nonce;
            let asked = if passed { &signed[..] } else { std::slice::from_ref(&waiting) };
            if let Some(found) = self.any_final(asked).await? {
                return Ok(Attempt::Final(found));
            }
            if signed.iter().all(|operation| seen.header.height > operation.expires) {
                *self.0.next.lock().await = None;
                return if passed {
                    Err(Error::Refused(Code::NonceOld))
                } else {
                    Ok(Attempt::Again(Error::Expired))
                };
            }
            if !passed
                && signed.len() < SIGN_ATTEMPTS as usize
                && let Some(raised) = self.outbid(&waiting).await?
            {
                signed.push(raised.clone());
                // Refused, for the balance does not cover it, say: what waits may still come to stand.
                if self.offer(&raised).await.is_ok() {
                    waiting = raised;
                    continue;
                }
            }
            match self.offer(&waiting).await {
                // Above what it offers, it waits until the base fee falls or it expires.
                Ok(())
                | Err(Error::Refused(
                    Code::NonceOld | Code::NonceGap | Code::Expired | Code::FeeAboveMaximum,
                )) => {}
                // It may have become final a moment ago; if not, the refusal stays.
                Err(error) => {
                    return self.any_final(&signed).await?.map(Attempt::Final).ok_or(error);
                }
            }
        }
    }

    /// The first of some operations that is final, the newest asked first.
    async fn any_final(&self, operations: &[Operation]) -> Result<Option<Final>, Error> {
        for operation in operations.iter().rev() {
            let id = operation.id();
            if let Some(receipt) = self.0.connection.receipt(&id).await? {
                return Ok(Some(Final { id, receipt }));
            }
        }
        Ok(None)
    }

    /// The same operation for more, if the proved base fee is above what it offers.
    async fn outbid(&self, operation: &Operation) -> Result<Option<Operation>, Error> {
        if !operation.body.has_nonce() {
            return Ok(None);
        }
        let (height, expires) = self.expiry().await?;
        let context = paying(self.0.connection.light().chain(), self.0.parameters, height);
        Ok(outbid(&self.0.key, &context, self.base_fee().await?, expires, operation))
    }

    async fn proved_nonce(&self) -> Result<Proved<u64>, Error> {
        let read = self.0.connection.read::<AccountState>(AccountState::key(&self.0.account)).await?;
        let nonce = read.value.unwrap_or_default().nonce;
        Ok(Proved { header: read.header, value: nonce })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use posync_protocol::operation::Transfer;

    /// A payment under nonce 7 that offers four times its fee at a base fee of 100, and its context.
    fn waiting() -> (PrivateKey, BlockContext, Operation) {
        let (key, context) = (PrivateKey::from_seed(1), paying([9; 32], Parameters::LOCAL, 50));
        let body = Body::Transfer(Transfer { to: Account([2; 32]), amount: Amount::sync(1) });
        let operation = sign_paying(&key, &context, 100, FEE_MARGIN, 7, 90, &body);
        (key, context, operation)
    }

    #[test]
    fn what_offers_too_little_is_signed_again_under_its_nonce_for_a_tenth_more_at_least() {
        let (key, context, operation) = waiting();
        for base_fee in [0, 100, 400] {
            assert_eq!(outbid(&key, &context, base_fee, 120, &operation), None, "it pays {base_fee}");
        }
        let mut last = operation.clone();
        for base_fee in [401, 1_700, 6_900, 1 << 40] {
            let raised = outbid(&key, &context, base_fee, 120, &last).expect("it offers too little");
            assert_eq!((raised.nonce, &raised.body, raised.expires), (7, &operation.body, 120));
            assert!(raised.max_fee.grains() * 100 >= last.max_fee.grains() * MEMPOOL_REPLACE_PERCENT);
            assert!(raised.max_fee >= ledger::fee(&context, base_fee, &raised));
            assert_eq!(outbid(&key, &context, base_fee, 120, &raised), None, "once for a base fee");
            last = raised;
        }
        // It never expires before the first: the nonce would be signed for anew while that may stand.
        let raised = outbid(&key, &context, 401, 60, &operation).expect("it offers too little");
        assert_eq!(raised.expires, 90);
    }

    #[test]
    fn what_cannot_offer_a_tenth_more_or_is_free_is_not_signed_again() {
        let (key, context, operation) = waiting();
        let most = Operation { max_fee: Amount::MAX, ..operation };
        assert_eq!(outbid(&key, &context, u64::MAX, 120, &most), None);
        let settle = posync_protocol::operation::Settle {
            provider: Account([3; 32]),
            index: 0,
            slots: posync_protocol::Bounded::default(),
            endings: posync_protocol::Bounded::default(),
        };
        let free = sign_paying(&key, &context, 100, 0, 0, 90, &Body::Settle(settle));
        assert_eq!(outbid(&key, &context, u64::MAX, 120, &free), None);
    }
}
