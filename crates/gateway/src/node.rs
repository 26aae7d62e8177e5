//! Asks the network's nodes; believes what leads to the network key.

use crate::{environment::Environment, link::Dialer};
use commonware_codec::Encode;
use posync_client::{
    light::Light,
    rpc::{self, Client},
};
use posync_protocol::{
    Account, Bounded, Code, Hash, Key, Operation, Slot,
    wire::node::{Answer, Ask, Info},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Mutex;

/// Time for an answer; a receipt is waited for by the node.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Why a node is no help.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke.
    #[error("no node answers: {0}")]
    Unreachable(String),
    /// What it says does not lead to the network key.
    #[error("a node's answer is not believed: {0}")]
    NotBelieved(#[from] posync_client::light::Error),
    /// It cannot answer now.
    #[error("a node cannot answer now")]
    Unavailable,
}

struct Inner {
    endpoints: Vec<(Account, SocketAddr)>,
    next: AtomicUsize,
    client: Mutex<Option<Client<rpc::Node>>>,
    dialer: Dialer<rpc::Node>,
    light: Light,
    height: AtomicU64,
    environment: Environment,
}

/// A handle: one connection at a time, the next endpoint when it breaks.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

impl Node {
    /// Asks these endpoints in turn.
    pub fn new(
        endpoints: Vec<(Account, SocketAddr)>,
        dialer: Dialer<rpc::Node>,
        light: Light,
        environment: Environment,
    ) -> Self {
        let (next, client, height) = (AtomicUsize::new(0), Mutex::new(None), AtomicU64::new(0));
        Self(Arc::new(Inner { endpoints, next, client, dialer, light, height, environment }))
    }

    async fn client(&self) -> Result<Client<rpc::Node>, Error> {
        let mut client = self.0.client.lock().await;
        if let Some(client) = client.as_ref().filter(|client| !client.is_gone()) {
            return Ok(client.clone());
        }
        let place = self.0.next.fetch_add(1, Ordering::Relaxed);
        let count = self.0.endpoints.len().max(1);
        let endpoint = self.0.endpoints.get(place % count);
        let (account, address) = endpoint.ok_or_else(|| Error::Unreachable("none is configured".into()))?;
        let open = (self.0.dialer)(*account, *address).await.map_err(Error::Unreachable)?;
        *client = Some(open.clone());
        Ok(open)
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, Error> {
        let work = async {
            let client = self.client().await?;
            client.call(ask).await.map_err(|error| Error::Unreachable(error.to_string()))
        };
        match self.0.environment.within(TIMEOUT, work).await {
            Some(Ok(Answer::Unavailable(_))) => Err(Error::Unavailable),
            Some(answer) => answer,
            None => {
                *self.0.client.lock().await = None;
                Err(Error::Unreachable("no answer in time".into()))
            }
        }
    }

    /// Proven records and the height at which they stand.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn read(&self, keys: Vec<Key>) -> Result<(u64, Vec<Option<Slot>>), Error> {
        let asked = Bounded::new(keys.clone()).ok_or(Error::Unavailable)?;
        let Answer::Read(read) = self.ask(Ask::Read(asked)).await? else { return Err(Error::Unavailable) };
        let slots = self.0.light.read(&keys, &read)?;
        let height = read.certified.headers.first().map_or(0, |header| header.height);
        self.0.height.fetch_max(height, Ordering::Relaxed);
        Ok((height, slots))
    }

    /// A height near the tip.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn height(&self) -> Result<u64, Error> {
        match self.0.height.load(Ordering::Relaxed) {
            0 => Ok(self.info().await?.height),
            height => Ok(height),
        }
    }

    /// What the node says of the network.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn info(&self) -> Result<Info, Error> {
        match self.ask(Ask::Info(Default::default())).await? {
            Answer::Info(info) => Ok(info),
            _ => Err(Error::Unavailable),
        }
    }

    /// Gives an operation to the mempool; the inner error is its refusal.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn submit(&self, operation: Operation) -> Result<Result<(), Code>, Error> {
        let bytes = Bounded::new(operation.encode().to_vec());
        let Some(bytes) = bytes else { return Ok(Err(Code::TooLarge)) };
        match self.ask(Ask::Submit(bytes)).await? {
            Answer::Accepted(_) => Ok(Ok(())),
            Answer::Refused(code) => Ok(Err(code)),
            _ => Err(Error::Unavailable),
        }
    }

    /// What became of an operation, if it is final.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn receipt(&self, operation: Hash) -> Result<Option<Code>, Error> {
        match self.ask(Ask::Receipt(operation)).await? {
            Answer::Receipt(receipt) => Ok(receipt.map(|receipt| receipt.code)),
            _ => Err(Error::Unavailable),
        }
    }
}
