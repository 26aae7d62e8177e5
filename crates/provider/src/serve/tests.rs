//! The service over real encrypted channels on the deterministic runtime; the ledger is a task
//! that answers with the fixture's records.

use super::*;
use crate::{
    data_sets::DataSets,
    fixtures::{CHAIN, id, key, provider, session, sign_of, terms},
    packs::{Store, StoreConfig},
    terms::Terms,
    view::View,
    vouchers::Vouchers,
};
use commonware_cryptography::Signer as _;
use commonware_runtime::{Clock as _, Runner as _, Spawner as _, Supervisor as _, deterministic};
use posync_client::{
    channel::Listen,
    rpc::{self, Client, Server},
};
use posync_protocol::{
    Account, AgreementId, Bounded, Class, Hash, Units,
    block::with_chain,
    limits::{Parameters, SLICE_BYTES},
    operation::{DATA_SET_NAMESPACE, DataSetClaim, SignatureCheck, Voucher},
    record::{DataSet, Version},
    shard,
    wire::{
        node::Nothing,
        provider::{Ask, Get, Put, Sign, Slice},
    },
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

type Context = deterministic::Context;
type TestHandler = Arc<Handler<Context, <Context as commonware_runtime::Storage>::Blob>>;

const S: usize = SLICE_BYTES as usize;

/// A provider whose ledger holds `terms` only.
async fn handler(context: &Context, terms: Terms) -> TestHandler {
    handler_of(context, vec![terms]).await
}

/// A provider whose ledger holds all of `terms`.
async fn handler_of(context: &Context, terms: Vec<Terms>) -> TestHandler {
    handler_on(context, terms, StoreConfig::for_capacity("store", 64 << 20, 4 << 20)).await
}

/// A provider with a store of the given configuration.
async fn handler_on(context: &Context, terms: Vec<Terms>, config: StoreConfig) -> TestHandler {
    let account = Account::of(&provider().public_key());
    let (view, mut questions) = View::new(account, CHAIN, Parameters::LOCAL);
    view.advance(8);
    context.child("ledger").spawn(move |_| async move {
        while let Some(question) = questions.recv().await {
            let found = terms.iter().find(|terms| terms.id.slot == question.slot);
            let _ = question.done.send(found.map(|terms| Terms { height: 8, ..terms.clone() }));
        }
    });
    let (store, _) = Store::open(context.child("store"), config).await.expect("opens");
    let held = store.clone();
    let held = Arc::new(move |agreement: &AgreementId, shard: &Hash| {
        held.length(shard).filter(|_| held.holds(agreement, shard))
    });
    let data_sets = DataSets::open(context.child("data_sets"), "books", provider(), CHAIN, held);
    let (data_sets, _) = data_sets.await.expect("opens");
    let (vouchers, _) = Vouchers::open(context.child("vouchers"), "till").await.expect("opens");
    let clock = Arc::new(context.child("clock"));
    let parts = Parts { clock, store, data_sets, vouchers, view, capacity_leaves: 64 << 10, key: provider() };
    Handler::start(context, parts)
}

async fn listen(context: &Context, handler: &TestHandler) -> SocketAddr {
    let handler = handler.clone();
    let server = Server::<rpc::Provider, _>::new(move |call, ask| {
        let handler = handler.clone();
        async move { handler.handle(call, ask).await }
    });
    let listen = Listen::new(provider(), rpc_namespace(), "127.0.0.1:4000".parse().expect("an address"));
    let network = context.child("network");
    server.listen(context.child("listen"), &network, listen).await.expect("binds").address
}

const fn rpc_namespace() -> &'static [u8] {
    <rpc::Provider as rpc::Service>::NAMESPACE
}

async fn dial(context: &Context, seed: u64, address: SocketAddr) -> Client<rpc::Provider> {
    let network = context.child("network");
    let dialing = context.child("dial").with_attribute("seed", seed);
    Client::dial(dialing, &network, &key(seed), id().provider, address).await.expect("reachable")
}

fn shard(tag: u64, length: usize) -> (Hash, Vec<u8>) {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&tag.to_be_bytes()).finalize_xof().fill(&mut bytes);
    (*blake3::hash(&bytes).as_bytes(), bytes)
}

fn put(agreement: AgreementId, shard: Hash, data: &[u8]) -> Ask {
    Ask::Put(Put { agreement, shard, data: Bounded::new(data.to_vec()).expect("fits") })
}

fn get(shard: Hash) -> Ask {
    Ask::Get(Get { agreement: id(), shard, offset: 0, length: 0 })
}

fn voucher(egress: u64) -> Voucher {
    Voucher::signed(&session(), &CHAIN, id(), Units::egress(egress))
}

fn verified(shard: &Hash, slice: &Slice) -> bool {
    shard::verify_slice(shard, slice.shard_bytes, slice.offset, &slice.data, &slice.path)
}

fn run<F, Fut>(work: F)
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = ()>,
{
    deterministic::Runner::timed(Duration::from_secs(120)).start(work);
}

#[test]
fn a_shard_is_put_signed_read_and_paid() {
    run(|context| async move {
        let handler = handler(&context, terms()).await;
        let client = dial(&context, 2, listen(&context, &handler).await).await;
        let (name, data) = shard(1, 5 * S + 77);
        assert_eq!(
            client.call(put(id(), name, &data)).await.expect("answered"),
            ProviderAnswer::Stored(name)
        );
        let sign = sign_of(1, &[], &[], &[(name, data.len() as u64)]);
        let Ok(ProviderAnswer::Signed(signature)) = client.call(Ask::Sign(sign.clone())).await else {
            panic!("not signed")
        };
        let message = with_chain(&CHAIN, &sign.claim);
        let check = SignatureCheck { namespace: DATA_SET_NAMESPACE, message, key: id().provider, signature };
        assert!(check.verify());

        let mut call = client.open(get(name)).await.expect("open");
        let mut read = vec![];
        while let Some(ProviderAnswer::Slice(slice)) = call.recv().await {
            assert!(verified(&name, &slice));
            assert_eq!(slice.offset, read.len() as u64);
            read.extend_from_slice(&slice.data);
            call.send(&Ask::Pay(voucher(read.len() as u64))).await.expect("open");
            if slice.last {
                break;
            }
        }
        assert_eq!(read, data);
        drop(call);
        // A voucher in a call of its own: no answer means acceptance.
        let alone = client.call(Ask::Pay(voucher(data.len() as u64 + 1))).await;
        assert!(matches!(alone, Err(rpc::Error::NoAnswer)), "{alone:?}");
        assert_eq!(handler.parts().vouchers.with(|state| state.paid(&id())), data.len() as u64 + 1);
        let Ok(ProviderAnswer::Status(status)) = client.call(Ask::Status(Nothing {})).await else {
            panic!("no status")
        };
        assert_eq!(status.free_leaves, (64 << 10) - 321);
        assert_eq!((status.load, status.bad.len()), (1, 0));
    });
}

/// No reconciler runs here, so the versions in force are noted by the requests alone.
#[test]
fn a_version_is_signed_as_soon_as_the_ledger_has_taken_some_of_those_that_wait() {
    run(|context| async move {
        let handler = handler(&context, terms()).await;
        let client = dial(&context, 2, listen(&context, &handler).await).await;
        let mut held = vec![];
        for version in 1..=100_u64 {
            let (name, data) = shard(version, 1_000);
            client.call(put(id(), name, &data)).await.expect("answered");
            let sign = sign_of(version, &held, &[], &[(name, 1_000)]);
            held.push((name, 1_000));
            let signed = client.call(Ask::Sign(sign.clone())).await.expect("answered");
            assert!(matches!(signed, ProviderAnswer::Signed(_)), "{version}: {signed:?}");
            if version % 24 == 0 {
                let DataSetClaim { root, leaves, bytes, .. } = sign.claim;
                let current = Version { version, root, leaves, bytes, grown_at: 0 };
                let (view, height) = (&handler.parts().view, version);
                view.learn(Terms { height, data: DataSet { current, next: None }, ..terms() });
                view.advance(height);
            }
        }
        let (kept, loose) =
            (handler.parts().data_sets.with(|state| state.kept().len()), handler.loose_agreements());
        assert_eq!((kept, loose.len()), (100, 0), "every shard is held and none is given up");
    });
}

#[test]
fn who_does_not_pay_gets_one_window_at_a_time_and_four_slices_in_all() {
    run(|context| async move {
        let handler = handler(&context, terms()).await;
        let client = dial(&context, 2, listen(&context, &handler).await).await;
        let (name, data) = shard(1, 4 * S);
        client.call(put(id(), name, &data)).await.expect("answered");
        let mut call = client.open(get(name)).await.expect("open");
        assert!(matches!(call.recv().await, Some(ProviderAnswer::Slice(slice)) if slice.data.len() == S));
        let start = context.current();
        let Some(ProviderAnswer::Refused(refused)) = call.recv().await else { panic!("more without pay") };
        assert_eq!(refused.reason, Refusal::Credit);
        let waited = context.current().duration_since(start).expect("forward");
        assert!(waited >= Duration::from_millis(PAY_WAIT_MS), "{waited:?}");
        // Whatever the reason for the missing payment, it may continue, a slice at a time: two streams at
        // once share one window.
        for lost in 1..4 {
            let mut again = client.open(get(name)).await.expect("open");
            assert!(matches!(again.recv().await, Some(ProviderAnswer::Slice(_))), "{lost} were not paid");
            let mut beside = client.open(get(name)).await.expect("open");
            let none = beside.recv().await;
            assert!(
                matches!(none, Some(ProviderAnswer::Refused(no)) if no.reason == Refusal::Credit),
                "{lost}"
            );
            assert!(
                matches!(again.recv().await, Some(ProviderAnswer::Refused(no)) if no.reason == Refusal::Credit)
            );
        }
        let mut fifth = client.open(get(name)).await.expect("open");
        assert!(
            matches!(fifth.recv().await, Some(ProviderAnswer::Refused(no)) if no.reason == Refusal::Credit)
        );
        // A payment opens the window again, in another call than the stream.
        let mut sixth = client.open(get(name)).await.expect("open");
        let paid = client.call(Ask::Pay(voucher(S as u64))).await;
        assert!(matches!(paid, Err(rpc::Error::NoAnswer)), "{paid:?}");
        assert!(matches!(sixth.recv().await, Some(ProviderAnswer::Slice(slice)) if slice.offset == 0));
    });
}

#[test]
fn who_hangs_up_owes_what_was_sent_and_nothing_else() {
    run(|context| async move {
        let handler = handler(&context, terms()).await;
        let client = dial(&context, 2, listen(&context, &handler).await).await;
        let (name, data) = shard(1, 4 * S);
        client.call(put(id(), name, &data)).await.expect("answered");
        let vouchers = &handler.parts().vouchers;
        let overdue = || vouchers.with(|state| state.overdue(&id(), handler.uptime().now()));
        let mut call = client.open(get(name)).await.expect("open");
        assert!(matches!(call.recv().await, Some(ProviderAnswer::Slice(_))));
        // The stream waits for a voucher when the caller is gone.
        drop(call);
        context.sleep(crate::vouchers::OVERDUE - Duration::from_secs(1)).await;
        assert_eq!(overdue(), 0);
        context.sleep(Duration::from_secs(2)).await;
        assert_eq!(overdue(), S as u64);
        assert!(client.call(Ask::Pay(voucher(S as u64))).await.is_err(), "silence is consent");
        assert_eq!(overdue(), 0, "better late than never");
    });
}

#[test]
fn what_cannot_be_redeemed_is_not_sent() {
    run(|context| async move {
        let mut poor = terms();
        poor.agreement.quota[Class::Egress] = 100;
        let handler = handler(&context, poor).await;
        let client = dial(&context, 2, listen(&context, &handler).await).await;
        let (name, data) = shard(1, 101);
        client.call(put(id(), name, &data)).await.expect("answered");
        let refused = client.call(get(name)).await.expect("answered");
        assert!(matches!(refused, ProviderAnswer::Refused(no) if no.reason == Refusal::Credit));
    });
}

/// H1: a consumer's signature beyond its reserve is not paid, so no more bytes leave for it.
#[test]
fn nothing_is_sent_that_the_reserve_cannot_pay_beside_the_gas_that_was_signed() {
    run(|context| async move {
        let mut poor = terms();
        // The reserve covers two and a half slices.
        poor.usage.voucher_reserve = posync_protocol::Amount::new(156_250).expect("small");
        poor.agreement.prices[Class::Compute].price = 1 << 20;
        let handler = handler(&context, poor).await;
        let client = dial(&context, 2, listen(&context, &handler).await).await;
        let (name, data) = shard(1, 8 * S);
        client.call(put(id(), name, &data)).await.expect("answered");
        let mut call = client.open(get(name)).await.expect("open");
        assert!(matches!(call.recv().await, Some(ProviderAnswer::Slice(_))));
        // It pays for the slice, and signs away the rest of the reserve as gas.
        let all = Voucher::signed(&session(), &CHAIN, id(), Units { egress: S as u64, gas: 93_751 });
        call.send(&Ask::Pay(all)).await.expect("open");
        let Some(ProviderAnswer::Refused(refused)) = call.recv().await else {
            panic!("it cannot pay for more")
        };
        assert_eq!(refused.reason, Refusal::Credit);
        assert!(String::from_utf8_lossy(&refused.text).contains("top up"), "{refused:?}");
        assert_eq!(handler.parts().vouchers.with(|state| state.sent(&id())), S as u64);
    });
}

#[test]
fn refusals_say_why() {
    run(|context| async move {
        let mut small = terms();
        small.agreement.quota[Class::Storage] = 4;
        let handler = handler(&context, small).await;
        let address = listen(&context, &handler).await;
        let (owner, stranger) = (dial(&context, 2, address).await, dial(&context, 77, address).await);
        let (name, data) = shard(1, 3_000);
        let (big, big_data) = shard(2, 2_000);
        let other = AgreementId { slot: 9, ..id() };
        let older = AgreementId { opened: 3, ..id() };
        let foreign = AgreementId { provider: Account([3; 32]), ..id() };
        let offset = |offset| Ask::Get(Get { agreement: id(), shard: name, offset, length: 0 });
        let mut forged = voucher(10);
        forged.signature[3] ^= 1;
        let stranger_signs = {
            let sign = sign_of(1, &[], &[], &[(name, 3_000)]);
            Sign {
                signature: posync_protocol::operation::sign(
                    &key(9),
                    DATA_SET_NAMESPACE,
                    &with_chain(&CHAIN, &sign.claim),
                ),
                ..sign
            }
        };
        assert_eq!(owner.call(put(id(), name, &data)).await.expect("answered"), ProviderAnswer::Stored(name));
        for (text, client, ask, expected) in [
            ("stranger puts", &stranger, put(id(), name, &data), Refusal::Agreement),
            ("stranger reads", &stranger, get(name), Refusal::Agreement),
            ("no such slot", &owner, put(other, name, &data), Refusal::Agreement),
            ("an earlier agreement", &owner, put(older, name, &data), Refusal::Agreement),
            ("another provider's", &owner, put(foreign, name, &data), Refusal::Agreement),
            ("wrong name", &owner, put(id(), big, &data), Refusal::Content),
            ("over the quota", &owner, put(id(), big, &big_data), Refusal::Space),
            ("unknown shard", &owner, get(big), Refusal::Unknown),
            ("odd offset", &owner, offset(1), Refusal::Shape),
            ("beyond the end", &owner, offset(SLICE_BYTES), Refusal::Shape),
            ("forged voucher", &owner, Ask::Pay(forged), Refusal::Voucher),
            ("voucher over the quota", &owner, Ask::Pay(voucher(u64::MAX)), Refusal::Voucher),
            ("signed by another", &owner, Ask::Sign(stranger_signs), Refusal::Claim),
            ("not stored", &owner, Ask::Sign(sign_of(1, &[], &[], &[(big, 2_000)])), Refusal::Claim),
        ] {
            let Ok(ProviderAnswer::Refused(refused)) = client.call(ask).await else {
                panic!("{text}: not refused")
            };
            assert_eq!(refused.reason, expected, "{text}");
            assert!(std::str::from_utf8(&refused.text).is_ok_and(|words| words.len() > 10), "{text}");
        }
    });
}

#[test]
fn loose_shards_expire_and_signed_ones_stay() {
    run(|context| async move {
        let handler = handler(&context, terms()).await;
        let client = dial(&context, 2, listen(&context, &handler).await).await;
        let (kept, kept_data) = shard(1, 2_000);
        let (loose, loose_data) = shard(2, 2_000);
        client.call(put(id(), kept, &kept_data)).await.expect("answered");
        client.call(put(id(), loose, &loose_data)).await.expect("answered");
        client.call(Ask::Sign(sign_of(1, &[], &[], &[(kept, 2_000)]))).await.expect("answered");
        let age = Duration::from_secs(60);
        assert!(handler.expired(age).is_empty());
        context.sleep(age + Duration::from_secs(2)).await;
        let expired = handler.expired(age);
        assert_eq!(expired.into_iter().collect::<Vec<_>>(), [(id(), vec![loose])]);
        assert!(handler.expired(age).is_empty());
    });
}

/// A consumer that requests 240 shards and pays for none holds three quarters of the provider's
/// memory until it is cut off; another's download waits for neither it nor its queue.
#[test]
fn a_greedy_consumer_cannot_starve_a_small_one() {
    run(|context| async move {
        let mut small = terms();
        small.id.slot = 1;
        small.agreement.consumer = Account::of(&key(7).public_key());
        let small_id = small.id;
        let handler = handler_of(&context, vec![terms(), small]).await;
        let address = listen(&context, &handler).await;
        let (greedy, modest) = (dial(&context, 2, address).await, dial(&context, 7, address).await);
        let (big, big_data) = shard(1, 4 << 20);
        let (name, data) = shard(2, S);
        greedy.call(put(id(), big, &big_data)).await.expect("answered");
        modest.call(put(small_id, name, &data)).await.expect("answered");
        let mut connections = vec![];
        let mut calls = vec![];
        for _ in 0..4 {
            connections.push(dial(&context, 2, address).await);
            for _ in 0..60 {
                calls.push(connections.last().expect("pushed").open(get(big)).await.expect("open"));
            }
        }
        while handler.waiting() < 200 {
            context.sleep(Duration::from_millis(1)).await;
        }
        let start = context.current();
        let ask = Get { agreement: small_id, shard: name, offset: 0, length: 0 };
        let mut call = modest.open(Ask::Get(ask)).await.expect("open");
        assert!(matches!(call.recv().await, Some(ProviderAnswer::Slice(slice)) if slice.last));
        let (again, again_data) = shard(3, S);
        assert_eq!(
            modest.call(put(small_id, again, &again_data)).await.expect("answered"),
            ProviderAnswer::Stored(again)
        );
        let waited = context.current().duration_since(start).expect("forward");
        assert!(waited < Duration::from_millis(PAY_WAIT_MS / 10), "{waited:?}");
        assert!(handler.waiting() >= 200, "the greedy one still waits: {}", handler.waiting());
        drop((calls, connections, greedy));
        while handler.waiting() > 0 {
            context.sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn a_full_provider_signs_that_it_refused_what_it_declared() {
    run(|context| async move {
        let full = StoreConfig::for_capacity("store", 1 << 20, 1 << 20);
        let handler = handler_on(&context, vec![terms()], full).await;
        let client = dial(&context, 2, listen(&context, &handler).await).await;
        for tag in 0..64 {
            let (name, data) = shard(tag, 1 << 20);
            let Ok(ProviderAnswer::Refused(refused)) = client.call(put(id(), name, &data)).await else {
                continue;
            };
            assert_eq!(refused.reason, Refusal::Space);
            let signed = refused.signed.expect("its quota is not used up");
            assert!(signed.check(&CHAIN).verify());
            let consumer = Account::of(&key(2).public_key());
            assert_eq!((signed.provider, signed.consumer), (id().provider, consumer));
            assert_eq!((signed.agreement, signed.leaves, signed.height), (Some(id()), 1024, 8));
            return;
        }
        panic!("the store never filled");
    });
}

#[test]
fn what_may_not_grow_takes_no_new_shards_and_goes_on_serving() {
    run(|context| async move {
        let handler = handler(&context, terms()).await;
        let client = dial(&context, 2, listen(&context, &handler).await).await;
        let (name, data) = shard(1, 3_000);
        assert_eq!(
            client.call(put(id(), name, &data)).await.expect("answered"),
            ProviderAnswer::Stored(name)
        );
        for code in [posync_protocol::Code::GrowthSuspended, posync_protocol::Code::GrowthJailed] {
            handler.parts().view.set_growth(Err(code));
            let (more, bytes) = shard(2, 3_000);
            let Ok(ProviderAnswer::Refused(refused)) = client.call(put(id(), more, &bytes)).await else {
                panic!("it was taken")
            };
            let text = String::from_utf8(refused.text.to_vec()).expect("UTF-8");
            assert_eq!((refused.reason, refused.signed), (Refusal::Space, None), "{text}");
            assert!(text.contains("takes no new data"), "{text}");
        }
        let sign = sign_of(1, &[], &[], &[(name, 3_000)]);
        let signed = client.call(Ask::Sign(sign)).await.expect("answered");
        assert!(matches!(signed, ProviderAnswer::Signed(_)), "what was stored before is signed for");
        handler.parts().view.set_growth(Ok(()));
        let (more, bytes) = shard(2, 3_000);
        assert_eq!(
            client.call(put(id(), more, &bytes)).await.expect("answered"),
            ProviderAnswer::Stored(more)
        );
    });
}

/// F6: a peer that names agreements that do not exist fills only its own places, and no more than half of
/// the bytes that the listener holds.
#[test]
fn who_names_agreements_that_do_not_exist_holds_up_nobody_else() {
    run(|context| async move {
        let (view, _unanswered) = View::new(Account::of(&provider().public_key()), CHAIN, Parameters::LOCAL);
        let handler = handler(&context, terms()).await;
        let parts = handler.parts();
        let parts = Parts {
            clock: parts.clock.clone(),
            store: parts.store.clone(),
            data_sets: parts.data_sets.clone(),
            vouchers: parts.vouchers.clone(),
            view: view.clone(),
            capacity_leaves: 64 << 10,
            key: provider(),
        };
        view.advance(8);
        view.learn(Terms { height: 8, ..terms() });
        let handler: TestHandler = Arc::new(Handler::new(parts));
        let address = listen(&context, &handler).await;
        let (cheap, honest) = (dial(&context, 77, address).await, dial(&context, 2, address).await);
        let (name, data) = shard(1, 4 << 20);
        let mut calls = vec![];
        for slot in 1..16 {
            calls.push(cheap.open(put(AgreementId { slot, ..id() }, name, &data)).await.expect("open"));
        }
        // Four wait; those that find no place are refused at once.
        let start = context.current();
        let soon = calls.into_iter().map(|mut call| {
            let late = context.sleep(Duration::from_secs(3));
            async move {
                commonware_macros::select! {
                    answer = call.recv() => answer,
                    () = late => None,
                }
            }
        });
        let stored = async {
            let answer = honest.call(put(id(), name, &data)).await.expect("answered");
            (answer, context.current().duration_since(start).expect("forward"))
        };
        let (soon, (answer, waited)) = futures::join!(futures::future::join_all(soon), stored);
        let busy = |answer: &&Option<ProviderAnswer>| matches!(answer, Some(ProviderAnswer::Refused(no)) if no.reason == Refusal::Busy);
        assert_eq!(soon.iter().filter(busy).count(), 11);
        assert_eq!(answer, ProviderAnswer::Stored(name));
        assert!(waited < Duration::from_secs(1), "{waited:?}");
    });
}
