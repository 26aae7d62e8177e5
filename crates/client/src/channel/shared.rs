//! A network that several parts of one process share.

use commonware_runtime::{Error, Network, SinkOf, StreamOf};
use std::{net::SocketAddr, sync::Arc};

/// A handle to one network: clones listen and dial on the same one.
pub struct SharedNetwork<N>(Arc<N>);

impl<N> SharedNetwork<N> {
    /// A handle that owns `network` with its clones.
    pub fn new(network: N) -> Self {
        Self(Arc::new(network))
    }
}

impl<N> Clone for SharedNetwork<N> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<N: Network> Network for SharedNetwork<N> {
    type Listener = N::Listener;

    async fn bind(&self, address: SocketAddr) -> Result<Self::Listener, Error> {
        self.0.bind(address).await
    }

    async fn dial(&self, address: SocketAddr) -> Result<(SinkOf<Self>, StreamOf<Self>), Error> {
        self.0.dial(address).await
    }
}
