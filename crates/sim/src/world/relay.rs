//! A relay between all clients and an authority's own service. It passes the service's answers on
//! under the authority's key, or lies. It holds no other key, so it cannot forge a proof.

use super::{
    World, account,
    processes::{address, inner_address},
};
use crate::plan::{Lie, Process};
use bytes::Bytes;
use commonware_codec::Encode as _;
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::{Clock as _, Spawner as _, Supervisor as _, deterministic::Context};
use commonware_utils::sync::{AsyncMutex, Mutex};
use posync_client::{
    channel::Listen,
    rpc::{Client, Incoming, Node, Server, Service as _},
};
use posync_protocol::{
    Account, Code,
    wire::node::{Ask, NodeAnswer},
};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

/// Number of first answers that a relay remembers.
const REMEMBERED_MAX: usize = 4_096;
/// Pause between two attempts to reach the service behind the relay.
const AGAIN: Duration = Duration::from_millis(200);

/// The relay of an authority. Clones share it; it survives the crash of its authority.
#[derive(Clone, Default)]
pub(super) struct Relay(Arc<Mutex<Said>>);

#[derive(Default)]
struct Said {
    lie: Lie,
    /// With `(index, of)`, the relay lies only to the clients of that share: each client is in one of `of`.
    share: Option<(u8, u8)>,
    first: BTreeMap<Vec<u8>, Bytes>,
    running: Option<commonware_runtime::Handle<()>>,
}

impl Relay {
    /// Lies from now on, to all clients or to a share of them.
    pub(super) fn say(&self, lie: Lie, share: Option<(u8, u8)>) {
        let mut said = self.0.lock();
        (said.lie, said.share) = (lie, share);
    }

    fn lie(&self, peer: &Account) -> Lie {
        self.0.lock().lie(peer)
    }

    /// While the relay stands still, the first answer to this question; else `answer`, which is remembered.
    fn first(&self, peer: &Account, ask: &Ask, answer: NodeAnswer) -> NodeAnswer {
        if !matches!(answer, NodeAnswer::Read(_) | NodeAnswer::Info(_)) {
            return answer;
        }
        let mut said = self.0.lock();
        let key = ask.encode().to_vec();
        match said.first.get(&key) {
            Some(first) if said.lie(peer) == Lie::StandStill => {
                commonware_codec::DecodeExt::decode(first.clone()).expect("it was encoded here")
            }
            None if said.first.len() < REMEMBERED_MAX => {
                said.first.insert(key, answer.encode());
                answer
            }
            _ => answer,
        }
    }
}

impl Said {
    fn lie(&self, peer: &Account) -> Lie {
        match self.share {
            Some((index, of)) if peer.0[0] % of != index => Lie::Nothing,
            _ => self.lie,
        }
    }
}

/// A connection to the service behind the relay.
struct Behind {
    context: Context,
    network: crate::network::SimNetwork,
    key: PrivateKey,
    peer: Account,
    address: SocketAddr,
    client: AsyncMutex<Option<Client<Node>>>,
}

impl Behind {
    async fn client(&self) -> Client<Node> {
        let mut held = self.client.lock().await;
        loop {
            if let Some(client) = held.as_ref().filter(|client| !client.is_gone()) {
                return client.clone();
            }
            let context = self.context.child("behind");
            match Client::dial(context, &self.network, &self.key, self.peer, self.address).await {
                Ok(client) => *held = Some(client),
                Err(_) => self.context.sleep(AGAIN).await,
            }
        }
    }
}

async fn answer(relay: Relay, behind: Arc<Behind>, call: Incoming<Node>, ask: Ask) {
    let peer = call.peer();
    match (relay.lie(&peer), &ask) {
        (Lie::Withhold, _) | (Lie::StandStill, Ask::Follow(_)) => return std::future::pending().await,
        (Lie::Deny, Ask::Receipt(_)) => {
            let _ = call.finish(&NodeAnswer::Receipt(None)).await;
            return;
        }
        _ => {}
    }
    let client = behind.client().await;
    let Ok(mut inner) = client.open(copy(&ask)).await else { return };
    let mut last = None;
    while let Some(next) = inner.recv().await {
        // If the caller has gone, this ends with the next answer.
        if let Some(answer) = last.replace(relay.first(&peer, &ask, next))
            && call.send(&answer).await.is_err()
        {
            return;
        }
        if let Ask::Follow(_) = ask
            && let Some(answer) = last.take()
        {
            while relay.lie(&peer) == Lie::StandStill {
                behind.context.sleep(AGAIN).await;
            }
            if call.send(&answer).await.is_err() {
                return;
            }
        }
    }
    let Some(last) = last else { return };
    let last = match (relay.lie(&peer), &ask) {
        (Lie::Deny, Ask::Submit(_)) => NodeAnswer::Refused(Code::NonceOld),
        _ => last,
    };
    let _ = call.finish(&last).await;
}

fn copy(ask: &Ask) -> Ask {
    commonware_codec::DecodeExt::decode(ask.encode()).expect("it was encoded here")
}

impl World<'_> {
    /// Starts a relay for an authority, which lasts as long as this phase.
    pub(super) fn start_relay(&self, index: u8) {
        let seat = &self.lasting.seats[usize::from(index)];
        let relay = self.lasting.relays[usize::from(index)].clone();
        if let Some(old) = relay.0.lock().running.take() {
            old.abort();
        }
        let network = self.network(Process::Authority(index));
        let context = self.context.child("relay").with_attribute("index", index);
        let behind = Arc::new(Behind {
            context: context.child("relay"),
            network: network.clone(),
            key: seat.key.clone(),
            peer: account(&seat.key),
            address: inner_address(index),
            client: AsyncMutex::new(None),
        });
        let listen = Listen::new(seat.key.clone(), Node::NAMESPACE, address(Process::Authority(index)));
        let said = relay.clone();
        let running = context.spawn(move |context| async move {
            let server =
                Server::<Node, _>::new(move |call, ask| answer(said.clone(), behind.clone(), call, ask));
            loop {
                match server.clone().listen(context.child("listener"), &network, listen.clone()).await {
                    Ok(listening) => drop(listening.task.await),
                    Err(_) => context.sleep(AGAIN).await,
                }
            }
        });
        relay.0.lock().running = Some(running);
    }

    /// Stops the relay of an authority that ends.
    pub(super) fn stop_relay(&self, index: u8) {
        if let Some(running) = self.lasting.relays[usize::from(index)].0.lock().running.take() {
            running.abort();
        }
    }
}
