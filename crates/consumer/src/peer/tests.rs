//! Providers that are late, silent or take nothing, and offers on the wire.

use super::*;
use crate::peer_health::OFFERS;
use commonware_codec::Encode as _;
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{Clock as _, Runner as _, Supervisor as _, deterministic};
use posync_client::{
    channel::Listen,
    rpc::{Incoming, Server, Service as _},
};
use posync_protocol::{limits::CALLS_MAX, wire::provider::Put};
use std::{net::SocketAddr, sync::atomic::AtomicU64};

#[test]
fn who_is_late_again_is_asked_last_for_longer_and_an_answer_forgives() {
    let mut doubt = Doubt::default();
    let mut seconds = Vec::new();
    for _ in 0..7 {
        let (number, time) = doubt.begin(true).expect("none is open");
        assert!(doubt.begin(true).is_none(), "found together, it counts once");
        seconds.push(time.as_secs());
        doubt.end(number);
    }
    assert_eq!(seconds, [5, 10, 20, 40, 80, 80, 80]);
    let (old, _) = doubt.begin(true).expect("none is open");
    doubt.answered();
    assert!(doubt.open.is_none());
    let (new, time) = doubt.begin(true).expect("none is open");
    assert_eq!(time, DOUBT);
    doubt.end(old);
    assert_eq!(doubt.open, Some(new), "the end of an old one is not that of a new one");
    doubt.end(new);
    assert_eq!(doubt.begin(false).expect("none is open").1, DOUBT, "a slow read counts no further");
}

/// A link to a provider that accepts calls and answers none, until `answers` is set.
async fn silent(context: &deterministic::Context, answers: Arc<AtomicBool>) -> (Arc<Peer>, Heights) {
    linked(context, 9_000, move |call: Incoming<Provider>, _| {
        let answers = answers.clone();
        async move {
            if !answers.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            drop(call.finish(&ProviderAnswer::Stored([0; 32])).await);
        }
    })
    .await
}

/// A link to a provider that answers each request at once.
async fn answering(
    context: &deterministic::Context,
    port: u16,
    answer: impl Fn(Ask) -> ProviderAnswer + Clone + Send + Sync + 'static,
) -> (Arc<Peer>, Heights) {
    linked(context, port, move |call: Incoming<Provider>, ask| {
        let answer = answer.clone();
        async move { drop(call.finish(&answer(ask)).await) }
    })
    .await
}

/// A link to a provider at `port` that treats each request with `handler`.
async fn linked<F, Fut>(context: &deterministic::Context, port: u16, handler: F) -> (Arc<Peer>, Heights)
where
    F: Fn(Incoming<Provider>, Ask) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (key, address) = (PrivateKey::from_seed(1), SocketAddr::from(([127, 0, 0, 1], port)));
    let server = Server::<Provider, _>::new(handler);
    let listen = Listen::new(key.clone(), Provider::NAMESPACE, address);
    server.listen(context.child("server"), context, listen).await.expect("listens");
    let dialing = Arc::new(context.child("dialing"));
    let dialer: Dialer<Provider> = Arc::new(move |account, address| {
        let context = dialing.clone();
        Box::pin(async move {
            let key = PrivateKey::from_seed(2);
            let dialed = Client::dial(context.child("client"), &*context, &key, account, address).await;
            dialed.map_err(|error| error.to_string())
        })
    });
    let block = Duration::from_millis(250);
    let heights =
        Heights { height: Arc::default(), epoch_blocks: 40, round_blocks: 8, block, patience_blocks: 160 };
    let account = Account::of(&key.public_key());
    let peer = Peer::new(account, dialer, Environment::new(context), heights.clone());
    peer.set_address(address);
    (Arc::new(peer), heights)
}

/// Opens calls until no other can be sent.
async fn fill(peer: &Peer) -> Vec<Call<Provider>> {
    let client = peer.client().await.expect("connects");
    let mut calls = Vec::new();
    for _ in 0..CALLS_MAX {
        calls.push(client.open(Ask::Status(Default::default())).await.expect("opens"));
    }
    calls
}

fn offer(peer: &Arc<Peer>) -> impl Future<Output = Result<(), Error>> + Send + use<> {
    let (peer, parcel) = (peer.clone(), Parcel::new(vec![5; 70_000]).expect("small"));
    let agreement = AgreementId { provider: peer.account, slot: 0, opened: 1 };
    async move { peer.put(agreement, [3; 32], &parcel).await }
}

#[test]
fn a_caller_that_gives_up_while_it_dials_leaves_a_link_that_dials_again() {
    deterministic::Runner::timed(Duration::from_secs(600)).start(|context| async move {
        let dials = Arc::new(AtomicU64::new(0));
        let counted = dials.clone();
        let dialer: Dialer<Provider> = Arc::new(move |_, _| {
            let dial = counted.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                if dial == 1 {
                    std::future::pending::<()>().await;
                }
                Err(format!("dial {dial} failed"))
            })
        });
        let heights = Heights {
            height: Arc::default(),
            epoch_blocks: 40,
            round_blocks: 8,
            block: Duration::from_millis(250),
            patience_blocks: 160,
        };
        let peer = Peer::new(
            Account::of(&PrivateKey::from_seed(1).public_key()),
            dialer,
            Environment::new(&context),
            heights,
        );
        peer.set_address(SocketAddr::from(([127, 0, 0, 1], 9)));
        for dial in 0..4 {
            let given_up = peer.environment.within(Duration::from_secs(1), peer.client()).await;
            match (dial, given_up) {
                (1, None) => {}
                (_, Some(Err(error))) => {
                    assert!(error.to_string().contains(&format!("dial {dial}")), "{error}")
                }
                (_, other) => panic!("dial {dial}: {}", other.is_some()),
            }
            context.sleep(DIAL_PAUSE + Duration::from_secs(1)).await;
        }
        assert_eq!(dials.load(Ordering::Relaxed), 4);
    });
}

#[test]
fn a_provider_that_takes_nothing_is_left_out_of_placement_as_one_that_answers_nothing() {
    deterministic::Runner::timed(Duration::from_secs(600)).start(|context| async move {
        let (peer, heights) = silent(&context, Arc::default()).await;
        for round in 1..=OFFERS {
            let _full = fill(&peer).await;
            heights.height.store(u64::from(10 * round), Ordering::Relaxed);
            let offered = offer(&peer).await;
            assert!(matches!(offered, Err(Error::Slow(_))), "{offered:?}");
            assert_eq!(peer.unanswered().0, round);
            assert!(peer.is_doubtful());
        }
        assert!(peer.unanswered().1 > 0, "it is left out");
    });
}

#[test]
fn a_caller_that_does_not_wait_until_an_offer_is_sent_leaves_no_provider_unjudged() {
    for alive in [false, true] {
        deterministic::Runner::timed(Duration::from_secs(600)).start(|context| async move {
            let answers = Arc::new(AtomicBool::new(false));
            let (peer, heights) = silent(&context, answers.clone()).await;
            let full = fill(&peer).await;
            heights.height.store(10, Ordering::Relaxed);
            for _ in 0..5 {
                let hedged = peer.environment.within(Duration::from_secs(1), offer(&peer)).await;
                assert!(hedged.is_none());
            }
            answers.store(alive, Ordering::Relaxed);
            if alive {
                drop(full);
            }
            context.sleep(2 * PUT_TIMEOUT).await;
            assert_eq!(peer.unanswered().0, u32::from(!alive), "one stall counts once");
        });
    }
}

#[test]
fn an_offer_is_a_put_on_the_wire() {
    let agreement = AgreementId { provider: Account([7; 32]), slot: 9, opened: 11 };
    for length in [0, 1, 255, 70_000] {
        let bytes = vec![5; length];
        let parcel = Parcel::new(bytes.clone()).expect("small");
        let put = Put { agreement, shard: [3; 32], data: Bounded::new(bytes).expect("small") };
        let offer = Offer { agreement, shard: [3; 32], parcel };
        let mut encoded = Vec::new();
        offer.write(&mut encoded);
        assert_eq!(encoded.len(), offer.encode_size());
        assert_eq!(encoded, Ask::Put(put).encode().to_vec());
    }
    assert!(Parcel::new(vec![0; SHARD_BYTES_MAX as usize + 1]).is_none());
}

/// A signed refusal is evidence of a placement that was refused. A provider that sends one with every answer would
/// have its consumers pay fees for nothing.
#[test]
fn a_signed_refusal_counts_only_as_the_answer_to_an_offer_of_that_agreement() {
    deterministic::Runner::timed(Duration::from_secs(600)).start(|context| async move {
        for (named, counts) in [(9, true), (8, false)] {
            let provider = Account::of(&PrivateKey::from_seed(1).public_key());
            let agreement = Some(AgreementId { provider, slot: named, opened: 1 });
            let refused = RefusedPlacement {
                provider,
                consumer: Account([2; 32]),
                agreement,
                leaves: 1,
                height: 5,
                signature: [0; 64],
            };
            let (peer, _) = answering(&context, 9_100 + named as u16, move |_| {
                let text = Bounded::new(b"full".to_vec()).expect("short");
                ProviderAnswer::Refused(Refused { reason: Refusal::Space, text, signed: Some(refused) })
            })
            .await;
            let status = peer.status().await;
            assert!(matches!(status, Err(Error::Refused(..))), "{status:?}");
            assert_eq!(peer.take_refusal(u64::MAX), None, "nothing was offered");
            let agreement = AgreementId { provider, slot: 9, opened: 1 };
            let put = peer.put(agreement, [3; 32], &Parcel::new(vec![5; 700]).expect("small")).await;
            assert!(matches!(put, Err(Error::Refused(..))), "{put:?}");
            assert_eq!(peer.take_refusal(4), None, "the ledger is not there yet");
            assert_eq!(peer.take_refusal(5).is_some(), counts, "the refusal names slot {named}");
        }
    });
}

#[test]
fn a_provider_at_1_100_or_300_ms_is_overdue_only_after_its_way() {
    for (port, ms) in [(9_201, 1), (9_202, 100), (9_203, 300)] {
        deterministic::Runner::timed(Duration::from_secs(600)).start(|context| async move {
            let (trip, hedge) = (Duration::from_millis(ms), Duration::from_secs(1));
            let clock = Arc::new(context.child("clock"));
            let answering = clock.clone();
            let (peer, _) = linked(&context, port, move |call: Incoming<Provider>, _| {
                let clock = answering.clone();
                async move {
                    clock.sleep(trip).await;
                    drop(call.finish(&ProviderAnswer::Stored([0; 32])).await);
                }
            })
            .await;
            let mut peer = Arc::into_inner(peer).expect("nothing else holds it");
            let (near, dialing) = (peer.dialer.clone(), clock.clone());
            peer.dialer = Arc::new(move |account, address| {
                let (near, clock) = (near.clone(), dialing.clone());
                Box::pin(async move {
                    clock.sleep(trip * DIAL_TRIPS).await;
                    near(account, address).await
                })
            });
            let peer = Arc::new(peer);
            assert_eq!(peer.way(), Duration::ZERO, "it was not measured yet");
            let begun = clock.current();
            // The distance is measured while the wait is under way.
            futures::join!(peer.overdue(hedge), async { drop(peer.status().await) });
            let waited = clock.current().duration_since(begun).expect("time goes on");
            assert!(waited >= hedge + trip * WAY_TRIPS, "{waited:?} at {ms} ms");
            for _ in 0..40 {
                drop(peer.status().await);
            }
            let (way, least) = (peer.way(), trip * WAY_TRIPS);
            assert!(way >= least && way <= least * 11 / 10 + Duration::from_millis(50), "{way:?}");
        });
    }
}

/// A clock that is set back by a minute while a provider is waited for must not stop the wait from ending.
#[test]
fn a_clock_that_steps_back_prolongs_no_wait_for_a_provider() {
    deterministic::Runner::timed(Duration::from_secs(600)).start(|context| async move {
        let (peer, _) = silent(&context, Arc::default()).await;
        let mut peer = Arc::into_inner(peer).expect("nothing else holds it");
        let (back, clock) = (Arc::new(AtomicU64::new(0)), Arc::new(context.child("wall")));
        let (stepped, wall) = (back.clone(), clock.clone());
        peer.environment = peer
            .environment
            .with_now(move || wall.current() - Duration::from_secs(stepped.load(Ordering::Relaxed)));
        let begun = clock.current();
        futures::join!(peer.overdue(Duration::from_secs(1)), async {
            clock.sleep(Duration::from_millis(500)).await;
            back.store(60, Ordering::Relaxed);
        });
        let waited = clock.current().duration_since(begun).expect("time goes on");
        assert!(waited < Duration::from_secs(3), "{waited:?} instead of one second");
    });
}
