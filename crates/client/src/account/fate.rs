//! What became of an operation, by proof alone: the state says whether its nonce is passed, a body that
//! a certified header commits to says by which operation.

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

/// Blocks after which an operation that does not stand in one is given to another node.
const OFFER_EVERY: usize = 4;
/// Looks at which no node keeps the blocks that would prove it, before that is the answer.
const PRUNED_MAX: u32 = 4;
/// Pause after the nodes were out of reach.
const PAUSE: Duration = Duration::from_millis(500);

/// What is proved of an operation.
#[derive(Debug)]
pub(super) enum Fate {
    /// It stands in a block.
    Final(Final),
    /// Another operation stands in a block with its nonce: it never does.
    Another,
    /// Its time is over, and its nonce not passed or no block holds it: it never stands in a block.
    Expired,
}

impl Submitter {
    /// Waits until the fate of a flight is proved. Meanwhile gives it to one node after the other, for
    /// more once the base fee rose above what it offers.
    ///
    /// # Errors
    /// [`Error::Undecided`] when no newer block was proved for as long as the submitter is patient, or nodes
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
                // Its blocks are not to be had at any node.
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

    /// Looks, gives the operation away again now and then, and waits for the next block.
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

    /// One look at the proved state, and at the blocks if the nonce is passed.
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
            // Refused, for the balance does not cover it, say: what waited may still come to stand.
            if self.0.connection.submit(flight.waiting()).await.is_err() {
                flight.waiting = waited;
            }
        }
        Ok(None)
    }

    /// Looks through the blocks that came since the last look, for an operation without a nonce.
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

    /// Looks through the blocks in which the nonce was passed, up to `height`.
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
        // The state passed it and no block did: the blocks are not those of that state.
        Err(crate::light::Error::Commitment("a nonce").into())
    }

    /// The body of a certified block.
    async fn block(&self, height: u64) -> Result<BlockBody, Error> {
        let header = self.0.connection.header(height).await?;
        self.0.connection.body(&header).await
    }

    /// What the operation `id` did, at its `place` in a block.
    async fn finished(&self, height: u64, place: usize, id: Hash) -> Result<Fate, Error> {
        let outcome = self.0.connection.outcome(height).await?.value;
        let row = outcome.receipts.rows.get(place).filter(|row| row.0 == id);
        let (_, code) = *row.ok_or(crate::light::Error::Commitment("a receipt"))?;
        let index = u32::try_from(place).expect("a block has fewer operations");
        Ok(Fate::Final(Final { id, receipt: Receipt { height, index, code } }))
    }

    /// Gives what waits to another node than before; its answer decides nothing.
    async fn offer_again(&self, flight: &mut Flight, turn: usize) {
        match self.0.connection.submit_at(turn, flight.waiting()).await {
            Ok(()) => flight.refusal = None,
            Err(Error::Refused(code)) => flight.why = Error::Refused(code).to_string(),
            Err(_) => {}
        }
        if flight.nonce.is_none() {
            // What became useless since is waited for no longer.
            self.offer(flight).await;
        }
    }
}
