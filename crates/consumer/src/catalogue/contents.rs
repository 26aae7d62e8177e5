//! The rows that an account keeps in its catalogue beside those of its agreements. They are committed
//! together: a shard that a provider signed for and the place that it has in a file are one change.

use super::{
    Answers,
    index::Rows,
    loaded::LoadedAgreement,
    row::{Added, Removed, SetRow, SignedClaim},
    store::Error,
};
use commonware_runtime::{Clock, Metrics, Spawner, Storage};
use std::{collections::BTreeMap, convert::Infallible, future::Future};

/// A change of a data set that both sides signed.
#[derive(Debug)]
pub struct Agreed {
    /// Number of the agreement that changed.
    pub agreement: u32,
    /// The new version and next sequence number of its data set.
    pub row: SetRow,
    /// The signed claim, to be submitted to the ledger.
    pub claim: SignedClaim,
    /// Shards that were added to the data set.
    pub adds: Vec<Added>,
    /// Shards that were removed from it.
    pub removes: Vec<Removed>,
}

/// The rows beside those of agreements: a gateway's files, or [`Nothing`].
pub trait Contents: Send + Sync + Sized + 'static {
    /// A request that reads or changes these rows.
    type Ask: Send + 'static;
    /// The findings of a start that its tasks work off.
    type Found: Send + 'static;

    /// Reads the rows at a start, and enters the shards that they name into the agreements that hold them.
    ///
    /// # Errors
    /// A disk failure.
    fn load<E: Storage + Clock + Metrics + Spawner>(
        rows: &mut Rows<E>,
        agreements: &mut BTreeMap<u32, LoadedAgreement>,
    ) -> impl Future<Output = Result<(Self, Self::Found), Error>> + Send;

    /// Stages the changes of a request. Its answer is sent after the next commit, or at once if it changes
    /// nothing.
    ///
    /// # Errors
    /// A disk failure.
    fn handle<E: Storage + Clock + Metrics + Spawner>(
        &mut self,
        rows: &mut Rows<E>,
        ask: Self::Ask,
        answers: &mut Answers,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Stages the shards that a signed change adds and removes. Returns the additions that no longer have a
    /// place; one returned with another file id has its place there until it is removed.
    ///
    /// # Errors
    /// A disk failure.
    fn agreed<E: Storage + Clock + Metrics + Spawner>(
        &mut self,
        rows: &mut Rows<E>,
        agreed: &Agreed,
    ) -> impl Future<Output = Result<Vec<Added>, Error>> + Send;

    /// Stages that shards of an agreement are lost or no longer wanted.
    ///
    /// # Errors
    /// A disk failure.
    fn dropped<E: Storage + Clock + Metrics + Spawner>(
        &mut self,
        rows: &mut Rows<E>,
        agreement: u32,
        entries: &[Added],
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Stages that shards went with their agreement.
    ///
    /// # Errors
    /// A disk failure.
    fn erased<E: Storage + Clock + Metrics + Spawner>(
        &mut self,
        rows: &mut Rows<E>,
        agreement: u32,
        entries: &[Added],
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

/// No rows beside those of agreements: the catalogue of an account that only reads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Nothing;

impl Contents for Nothing {
    type Ask = Infallible;
    type Found = ();

    async fn load<E: Storage + Clock + Metrics + Spawner>(
        _: &mut Rows<E>,
        _: &mut BTreeMap<u32, LoadedAgreement>,
    ) -> Result<(Self, ()), Error> {
        Ok((Self, ()))
    }

    async fn handle<E: Storage + Clock + Metrics + Spawner>(
        &mut self,
        _: &mut Rows<E>,
        ask: Infallible,
        _: &mut Answers,
    ) -> Result<(), Error> {
        match ask {}
    }

    async fn agreed<E: Storage + Clock + Metrics + Spawner>(
        &mut self,
        _: &mut Rows<E>,
        agreed: &Agreed,
    ) -> Result<Vec<Added>, Error> {
        // Nothing here names a shard, so none may stay in a data set.
        Ok(agreed.adds.clone())
    }

    async fn dropped<E: Storage + Clock + Metrics + Spawner>(
        &mut self,
        _: &mut Rows<E>,
        _: u32,
        _: &[Added],
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn erased<E: Storage + Clock + Metrics + Spawner>(
        &mut self,
        _: &mut Rows<E>,
        _: u32,
        _: &[Added],
    ) -> Result<(), Error> {
        Ok(())
    }
}
