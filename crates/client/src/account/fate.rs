//! The fate of an operation, from proofs alone: the state shows if its nonce is passed, and a body that a
//! certified header commits to shows by which operation.

use super::{
    Final, Flight, PATIENCES, Submitter, bounded,
    fee::{outbid, paying},
};
use crate::connection::Error;
use futures::future::{Either, select as either};
use posync_protocol::{
    Amount, Hash,
    block::BlockBody,
    limits::SIGN_ATTEMPTS,
    record::System,
    wire::node::{Receipt, Unavailable},
};
use std::{pin::pin, time::Duration};

/// Blocks without the operation after which it is sent to another node.
const OFFER_EVERY: usize = 4;
/// Attempts in which no node still has the blocks that would prove the fate, before the search ends.
const PRUNED_MAX: u32 = 4;
/// Pause after an attempt that failed for any other reason.
const PAUSE: Duration = Duration::from_millis(500);

/// The proved fate of an operation.
#[derive(Debug)]
pub(super) enum Fate {
    /// The operation is in a final block.
    Final(Final),
    /// A final block holds another operation with its nonce, so this one can never be included.
    Another,
    /// It expired with its nonce unused, or no block up to its expiry holds it: it can never be included.
    Expired,
}

impl Submitter {
    /// Waits until the fate of a flight is proved. Meanwhile sends it to one node after the other, with a
    /// higher fee once the base fee has risen above its offer.
    ///
    /// # Errors
    /// [`Error::Undecided`] when no newer block is proved within the submitter's patience, or when nodes
    /// refuse an operation without a nonce.
    pub(super) async fn settle(&self, flight: &mut Flight) -> Result<Fate, Error> {
        let Some(patience) = self.0.patience else { return self.watch(flight).await };
        let whole = bounded(&self.0.connection, patience * PATIENCES, self.watch(flight)).await;
        whole.unwrap_or_else(|| {
            flight.why = "blocks come, but none of them holds it".into();
            Err(flight.undecided())
        })
    }

    async fn watch(&self, flight: &mut Flight) -> Result<Fate, Error> {
        let connection = &self.0.connection;
        let (mut turn, mut unprovable) = (0, 0);
        let mut late = self.0.patience.map(|patience| connection.sleep(patience));
        loop {
            let before = flight.since;
            let looked = match &mut late {
                None => Some(self.step(flight, turn).await),
                Some(late) => match either(pin!(self.step(flight, turn)), late).await {
                    Either::Left((looked, _)) => Some(looked),
                    Either::Right(_) => None,
                },
            };
            let Some(looked) = looked else { return Err(flight.undecided()) };
            match looked {
                Ok(Some(fate)) => return Ok(fate),
                Ok(None) if flight.nonce.is_none() && flight.refusal.is_some() => {
                    return Err(flight.undecided());
                }
                Ok(None) => {}
                // No node has the blocks any more.
                Err(Error::Unavailable(Unavailable::Pruned)) if unprovable < PRUNED_MAX => unprovable += 1,
                Err(Error::Unavailable(Unavailable::Pruned)) => return Err(flight.undecided()),
                Err(_) => connection.sleep(PAUSE).await,
            }
            if flight.since > before {
                late = self.0.patience.map(|patience| connection.sleep(patience));
            }
            turn += 1;
        }
    }

    /// Looks once, sends the operation again every few turns, and waits for the next block.
    async fn step(&self, flight: &mut Flight, turn: usize) -> Result<Option<Fate>, Error> {
        let looked = self.look(flight).await;
        match looked {
            Ok(None) => {}
            Ok(Some(fate)) => return Ok(Some(fate)),
            Err(error) => {
                flight.why = error.to_string();
                return Err(error);
            }
        }
        if turn % OFFER_EVERY == OFFER_EVERY - 1 {
            self.offer_again(flight, turn / OFFER_EVERY).await;
        }
        let newer = self.next_block(flight.since).await;
        newer.map(|_| None).inspect_err(|error| flight.why = error.to_string())
    }

    /// Reads the proved state once, and searches the blocks if the nonce is passed.
    async fn look(&self, flight: &mut Flight) -> Result<Option<Fate>, Error> {
        let Some(nonce) = flight.nonce else { return self.look_bare(flight).await };
        let seen = self.seen().await?;
        let height = seen.header.height;
        let next = seen.account.as_ref().map_or(0, |state| state.nonce);
        if next > nonce {
            return self.find(flight, nonce, height).await.map(Some);
        }
        if height > flight.expires() {
            return Ok(Some(Fate::Expired));
        }
        flight.since = flight.since.max(height);
        let context = paying(self.0.connection.light().chain(), self.0.parameters, height);
        let expires = height + self.0.parameters.expiry_blocks_max / 2;
        if flight.signed.len() < SIGN_ATTEMPTS as usize
            && let Some(raised) = outbid(&self.0.key, &context, seen.base_fee, expires, flight.waiting())
        {
            let balance = seen.account.map_or(Amount::ZERO, |state| state.balance);
            let left = balance.checked_sub(raised.max_fee).unwrap_or(Amount::ZERO);
            let raised = self.spread(raised, self.0.connection.random(), left);
            let waited = flight.waiting;
            flight.push(raised);
            // A refusal (for a low balance, say) changes nothing: the earlier one may still be included.
            if self.0.connection.submit(flight.waiting()).await.is_err() {
                flight.waiting = waited;
            }
        }
        Ok(None)
    }

    /// Searches the blocks since the last look for an operation without a nonce.
    async fn look_bare(&self, flight: &mut Flight) -> Result<Option<Fate>, Error> {
        let newest = self.0.connection.read::<System>(System::key()).await?.header.height;
        let id = flight.waiting().id();
        while flight.since < newest.min(flight.expires()) {
            let height = flight.since + 1;
            let body = self.block(height).await?;
            if let Some(place) = body.operations.iter().position(|operation| operation.id() == id) {
                return self.finished(height, place, id).await.map(Some);
            }
            flight.since = height;
        }
        Ok((flight.since >= flight.expires()).then_some(Fate::Expired))
    }

    /// Searches the blocks in which the nonce was passed, up to `height`.
    async fn find(&self, flight: &Flight, nonce: u64, height: u64) -> Result<Fate, Error> {
        for height in flight.since + 1..=height {
            let body = self.block(height).await?;
            let ours = body.operations.iter().position(|operation| {
                let is_paid = operation.body.has_nonce();
                is_paid && operation.signer == self.0.account && operation.nonce == nonce
            });
            let Some(place) = ours else { continue };
            let id = body.operations[place].id();
            if flight.signed.iter().all(|signed| signed.id() != id) {
                return Ok(Fate::Another);
            }
            return self.finished(height, place, id).await;
        }
        // The state has passed the nonce but no block did, so these blocks do not belong to that state.
        Err(crate::light::Error::Commitment("a nonce").into())
    }

    /// Fetches the body of a certified block.
    async fn block(&self, height: u64) -> Result<BlockBody, Error> {
        let header = self.0.connection.header(height).await?;
        self.0.connection.body(&header).await
    }

    /// Returns the receipt of the operation `id` at its `place` in a block.
    async fn finished(&self, height: u64, place: usize, id: Hash) -> Result<Fate, Error> {
        let outcome = self.0.connection.outcome(height).await?.value;
        let row = outcome.receipts.rows.get(place).filter(|row| row.0 == id);
        let (_, code) = *row.ok_or(crate::light::Error::Commitment("a receipt"))?;
        let index = u32::try_from(place).expect("a block has fewer operations");
        self.0.connection.note_written(height);
        Ok(Fate::Final(Final { id, receipt: Receipt { height, index, code } }))
    }

    /// Sends the waiting operation to another node than before; that node's answer decides nothing.
    async fn offer_again(&self, flight: &mut Flight, turn: usize) {
        match self.0.connection.submit_at(turn, flight.waiting()).await {
            Ok(()) => flight.refusal = None,
            Err(Error::Refused(code)) => flight.why = Error::Refused(code).to_string(),
            Err(_) => {}
        }
        if flight.nonce.is_none() {
            // If the operation has become useless since, the refusal ends the wait.
            self.offer(flight).await;
        }
    }
}
