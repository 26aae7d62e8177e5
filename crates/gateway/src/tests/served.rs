//! A gateway's users, who are connected to its listener.

use super::world::{Context, account, gateway_key, name_of, refusal, send};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::Supervisor as _;
use posync_client::rpc;
use posync_protocol::wire::gateway;
use std::net::SocketAddr;

/// A gateway's listener for users.
pub(crate) struct Served {
    pub(crate) context: Context,
    pub(crate) address: SocketAddr,
}

impl Served {
    /// Connects to the gateway as the user with `key`.
    pub(crate) async fn dial(&self, key: &PrivateKey) -> User {
        let (context, network) = (self.context.child("user"), self.context.child("network"));
        let dialed = rpc::Client::dial(context, &network, key, account(&gateway_key()), self.address).await;
        User(dialed.expect("the gateway listens"))
    }
}

/// A user that is connected to the gateway.
pub(crate) struct User(pub(crate) rpc::Client<rpc::Gateway>);

impl User {
    pub(crate) async fn ask(&self, ask: gateway::Ask) -> gateway::GatewayAnswer {
        self.0.call(ask).await.expect("an answer")
    }

    /// Begins a put whose bytes are sent later.
    pub(crate) async fn begin(&self, name: &str, length: usize) -> rpc::Call<rpc::Gateway> {
        let put = gateway::Put { name: name_of(name), length: length as u64 };
        self.0.open(gateway::Ask::Put(put)).await.expect("it is connected")
    }

    pub(crate) async fn put(&self, name: &str, bytes: &[u8]) -> gateway::GatewayAnswer {
        let mut call = self.begin(name, bytes.len()).await;
        for piece in bytes.chunks(64 << 10) {
            send(&call, piece).await;
        }
        call.recv().await.expect("an answer")
    }

    /// Begins a get. Returns the call and its first answer.
    pub(crate) async fn open(&self, name: &str) -> (rpc::Call<rpc::Gateway>, gateway::GatewayAnswer) {
        let get = gateway::Get { name: name_of(name), offset: 0, length: None };
        let mut call = self.0.open(gateway::Ask::Get(get)).await.expect("it is connected");
        let answer = call.recv().await.expect("an answer");
        (call, answer)
    }

    /// A file's bytes, or the text of the refusal.
    pub(crate) async fn get(&self, name: &str) -> Result<Vec<u8>, String> {
        let (mut call, found) = self.open(name).await;
        if matches!(found, gateway::GatewayAnswer::Refused(_)) {
            return Err(refusal(&found));
        }
        let mut bytes = Vec::new();
        loop {
            match call.recv().await.expect("an answer") {
                gateway::GatewayAnswer::Data(data) => bytes.extend_from_slice(&data),
                gateway::GatewayAnswer::End(_) => return Ok(bytes),
                refused @ gateway::GatewayAnswer::Refused(_) => return Err(refusal(&refused)),
                other => panic!("{other:?}"),
            }
        }
    }
}
