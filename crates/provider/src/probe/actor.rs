//! Learns the window of each epoch, sends the bytes to be counted, and submits the counts to the ledger.

use super::{Plan, Window};
use crate::{
    condition::Condition,
    ledger::{Ledger, LedgerError, decode},
    view::View,
};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_macros::select;
use commonware_runtime::{Clock, Network, Resolver, Spawner};
use commonware_utils::sync::Mutex;
use futures::future::join_all;
use posync_client::{
    address::Address,
    channel::SharedNetwork,
    rpc::{self, Client},
};
use posync_protocol::{
    Account, Body, Bounded, Class,
    limits::{PROBE_BYTES, PROBE_PEERS, PROBE_QUORUM},
    operation::{Measure, ProbeCount},
    record::{Endpoint, Measured, Offer, Probe, Provider, ProviderAt, Reputation},
    wire::provider::{Ask, Filler, Probe as Begin, ProviderAnswer},
};
use rand_core::CryptoRng;

/// A drawn peer: a provider that counts the bytes it receives.
struct Peer {
    draw: u8,
    index: u32,
    account: Account,
    address: Address,
}

/// Measures this provider's egress once an epoch.
pub(crate) struct Prober<E, N, L> {
    context: E,
    network: SharedNetwork<N>,
    key: PrivateKey,
    view: View,
    ledger: L,
    /// Maximum bytes that it sends in an epoch.
    most: u64,
    condition: Mutex<Condition>,
}

impl<E: Spawner + Clock + CryptoRng + Resolver, N: Network, L: Ledger> Prober<E, N, L> {
    /// Creates a prober for the provider of `view` and `key` that sends at most `rate` bytes a second.
    pub(crate) fn new(
        context: E,
        network: SharedNetwork<N>,
        view: View,
        ledger: L,
        key: PrivateKey,
        rate: u64,
    ) -> Self {
        let most = view.parameters.bytes_per_epoch(rate);
        let condition = Mutex::new(Condition::new("egress cannot be measured in an epoch"));
        Self { context, network, key, view, ledger, most, condition }
    }

    /// Runs for as long as the provider does.
    pub(crate) async fn run(self) {
        let mut heights = self.view.heights();
        let mut done = None;
        loop {
            let height = self.view.height();
            let epoch = self.view.parameters.epoch(height);
            if done != Some(epoch)
                && let Some(window) = self.window(epoch).await
                && height >= window.begins()
            {
                done = Some(epoch);
                if height < window.heights.end {
                    self.measure(&window).await;
                }
                continue;
            }
            if heights.changed().await.is_err() {
                return;
            }
        }
    }

    /// The epoch's window, proved once and noted for the counting side; `None` while there is none.
    async fn window(&self, epoch: u64) -> Option<Window> {
        if let Some(window) = self.view.window().filter(|window| window.probe.epoch == epoch) {
            return Some(window);
        }
        let parameters = &self.view.parameters;
        let offset = self.view.height() % parameters.epoch_blocks();
        // The ledger fixes the window in the first round or not at all.
        if offset > parameters.round_blocks.saturating_mul(2) {
            return None;
        }
        let keys = vec![Probe::of(epoch), Provider::key(&self.view.account)];
        let read = self.ledger.read(keys).await;
        let found = read.and_then(|(_, slots)| {
            let slot = |place: usize| slots.get(place).and_then(Option::as_ref);
            Ok((decode::<Probe>(slot(0))?, decode::<Provider>(slot(1))?))
        });
        let (probe, provider) = match found {
            Ok((Some(probe), Some(provider))) if probe.epoch == epoch => (probe, provider),
            Ok(_) => return None,
            Err(error) => {
                tracing::debug!(%error, "the epoch's window is not known yet");
                return None;
            }
        };
        let window = Window::new(probe, provider.index, parameters);
        self.view.set_window(window.clone());
        Some(window)
    }

    async fn measure(&self, window: &Window) {
        let epoch = window.probe.epoch;
        match self.try_measure(window).await {
            Ok(Some(counts)) => {
                self.condition.lock().ended();
                tracing::debug!(epoch, counts, "egress measured");
            }
            Ok(None) => {}
            Err(error) => drop(self.condition.lock().holds(&error)),
        }
    }

    /// Sends, waits for the end of the window and submits the counts; returns their number, or `None` if
    /// there is nothing to submit.
    async fn try_measure(&self, window: &Window) -> Result<Option<usize>, LedgerError> {
        let Some((peers, plan)) = self.peers(window).await? else { return Ok(None) };
        if peers.is_empty() {
            return Ok(None);
        }
        let counts = join_all(peers.iter().map(|peer| self.send_to(window, peer, &plan))).await;
        let counts: Vec<(u32, ProbeCount)> = counts.into_iter().flatten().collect();
        let number = counts.len();
        if number < PROBE_QUORUM {
            return Err(LedgerError::Unreachable(format!("{number} peers counted, {PROBE_QUORUM} have to")));
        }
        self.reach(window.heights.end).await;
        let counts = Bounded::new(counts).expect("eight draws");
        self.ledger.pay(Body::Measure(Measure { epoch: window.probe.epoch, counts })).await?;
        Ok(Some(number))
    }

    /// The peers that can count, and what to send them. `None` if this epoch cannot measure this
    /// provider: it is new, or was measured before a restart.
    async fn peers(&self, window: &Window) -> Result<Option<(Vec<Peer>, Plan)>, LedgerError> {
        let (own, epoch) = (self.view.account, window.probe.epoch);
        let drawn = |draw| Some((draw, window.probe.peer(&own, window.index, draw)?));
        let drawn: Vec<(u8, u32)> = (0..PROBE_PEERS as u8).filter_map(drawn).collect();
        let mut keys = vec![Offer::key(&own), Reputation::key(&own), Measured::key(&own)];
        keys.extend(drawn.iter().map(|(_, index)| ProviderAt::key(*index)));
        let (_, slots) = self.ledger.read(keys).await?;
        let at = |place: usize| slots.get(place).and_then(Option::as_ref);
        let Some(offer) = decode::<Offer>(at(0))? else { return Ok(None) };
        let is_new = decode::<Reputation>(at(1))?.is_none_or(|reputation| reputation.registered >= epoch);
        let measured = decode::<Measured>(at(2))?.and_then(|measured| measured.newest());
        if is_new || measured.is_some_and(|newest| newest >= epoch) {
            return Ok(None);
        }
        let mut named = vec![];
        for (place, (draw, index)) in drawn.into_iter().enumerate() {
            let account = decode::<ProviderAt>(at(place + 3))?.and_then(|at| at.account);
            named.extend(account.map(|account| (draw, index, account)));
        }
        let keys = named.iter().flat_map(|(_, _, peer)| [Endpoint::key(peer), Reputation::key(peer)]);
        let (_, slots) = self.ledger.read(keys.collect()).await?;
        let mut peers = vec![];
        for ((draw, index, account), pair) in named.into_iter().zip(slots.chunks(2)) {
            let [endpoint, reputation] = pair else { return Err(LedgerError::Record) };
            let endpoint: Option<Endpoint> = decode(endpoint.as_ref())?;
            let reputation: Option<Reputation> = decode(reputation.as_ref())?;
            let addresses = endpoint.iter().flat_map(|endpoint| endpoint.addresses.iter());
            let address = addresses.filter_map(|text| std::str::from_utf8(text).ok()?.parse().ok()).next();
            let old = reputation.is_some_and(|reputation| reputation.registered < epoch);
            peers.extend(address.filter(|_| old).map(|address| Peer { draw, index, account, address }));
        }
        let plan = Plan::new(offer.capacity[Class::Egress].min(self.most), &self.view.parameters);
        Ok(Some((peers, plan)))
    }

    /// Waits for a certified height.
    async fn reach(&self, height: u64) {
        // The view outlives this task, so this cannot fail.
        let _ = self.view.heights().wait_for(|newest| *newest >= height).await;
    }

    /// One peer's count of the bytes it received, with its index; `None` without a valid count.
    async fn send_to(&self, window: &Window, peer: &Peer, plan: &Plan) -> Option<(u32, ProbeCount)> {
        let sent = async {
            let context = self.context.child("peer").with_attribute("draw", peer.draw);
            let dialing = Client::dial(context, &self.network, &self.key, peer.account, peer.address.clone());
            let client = dialing.await?;
            self.reach(window.heights.start).await;
            self.send(window, peer, plan, &client).await
        };
        let count = select! {
            count = sent => count,
            () = self.reach(window.ends()) => Ok(None),
        };
        match count {
            Ok(count) => count.map(|count| (peer.index, count)),
            Err(error) => {
                tracing::debug!(peer = %peer.account, %error, "a drawn peer was out of reach");
                None
            }
        }
    }

    async fn send(
        &self,
        window: &Window,
        peer: &Peer,
        plan: &Plan,
        client: &Client<rpc::Provider>,
    ) -> Result<Option<ProbeCount>, rpc::Error> {
        let ask = Begin { epoch: window.probe.epoch, index: window.index, draw: peer.draw };
        let mut call = client.open(Ask::Probe(ask)).await?;
        let filler = filler(window, peer.draw);
        let (mut next, mut messages) = (self.context.current(), plan.messages().peekable());
        while let Some(size) = messages.next() {
            self.context.sleep_until(next).await;
            next += plan.pause;
            let data = Bounded::new(filler[..size].to_vec()).expect("a piece is within the bound");
            let last = messages.peek().is_none();
            call.send(&Ask::Filler(Filler { data, last })).await?;
        }
        let parties = (self.view.account, peer.account);
        Ok(match call.recv().await {
            Some(ProviderAnswer::Counted(count))
                if window.is_good(&count, &ask, parties, plan.bytes, &self.view.chain) =>
            {
                Some(count)
            }
            other => {
                tracing::debug!(peer = %peer.account, ?other, "a drawn peer gave no good count");
                None
            }
        })
    }
}

/// Incompressible bytes for the messages.
fn filler(window: &Window, draw: u8) -> Vec<u8> {
    let mut bytes = vec![0; PROBE_BYTES];
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"posync/filler/1").update(&window.probe.seed).update(&[draw]);
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}
