//! Followers of nodes that lie: what reaches the caller is the network's chain, in order, each block once.

use super::{
    pool::{Now, Sleep},
    *,
};

mod far;

use crate::{
    channel::Listen,
    light::tests::{CHAIN, Committee, header},
    rpc::{Incoming, Server, Service as _},
};
use commonware_cryptography::{Signer as _, ed25519};
use commonware_runtime::{Runner as _, Supervisor as _, deterministic};
use futures::future::pending;
use posync_protocol::wire::node::Certified;
use std::{net::SocketAddr, sync::atomic::AtomicUsize};
use tokio::sync::Notify;

/// Height of the first header that the tests follow.
const FIRST: u64 = 100;
/// Headers of the network's chain.
const LENGTH: usize = 12;
/// Answers of a lying node that are honest.
const HONEST: usize = 1;

type Answers = Vec<Certified>;
/// Turns honest answers into those of a lying node.
type Lie = fn(&Committee, &mut Answers);

fn single(header: &Header, finalization: Bounded<u8, 256>) -> Certified {
    Certified { headers: Bounded::new(vec![header.clone()]).expect("one"), finalization }
}

/// The network's chain, each header with its certificate.
fn chain(committee: &Committee) -> Answers {
    let (mut parent, mut answers) = ([1; 32], vec![]);
    for height in FIRST..FIRST + LENGTH as u64 {
        let header = header(height, parent, [8; 32]);
        parent = header.digest();
        answers.push(single(&header, committee.finalize(&header)));
    }
    answers
}

fn headers(answers: &[Certified]) -> Vec<Header> {
    answers.iter().flat_map(|answer| answer.headers.iter().cloned()).collect()
}

/// Changes the header of one answer.
fn change(answers: &mut Answers, place: usize, change: impl FnOnce(&mut Header)) {
    let mut header = answers[place].headers[0].clone();
    change(&mut header);
    answers[place].headers = Bounded::new(vec![header]).expect("one");
}

/// The progress of a node, and the signal on which it sends all but its first answer.
#[derive(Clone, Default)]
struct Pace {
    go: Arc<Notify>,
    sent: Arc<AtomicUsize>,
}

/// Starts a node that sends these answers to a follower and then says nothing more.
async fn node(context: &deterministic::Context, seed: u64, answers: Answers, pace: Pace) -> Endpoint {
    let answers = Arc::new(answers);
    let server = Server::<rpc::Node, _>::new(move |call: Incoming<rpc::Node>, ask| {
        let (answers, pace) = (answers.clone(), pace.clone());
        async move {
            let Ask::Follow(from) = ask else {
                return drop(call.finish(&NodeAnswer::Unavailable(Unavailable::Pruned)).await);
            };
            let begin = from.saturating_sub(FIRST) as usize;
            for answer in answers.iter().skip(begin) {
                if call.send(&NodeAnswer::Certified(answer.clone())).await.is_err() {
                    return;
                }
                if pace.sent.fetch_add(1, Ordering::SeqCst) == 0 {
                    pace.go.notified().await;
                }
            }
            pending().await
        }
    });
    let key = ed25519::PrivateKey::from_seed(seed);
    let account = Account::of(&key.public_key());
    let address = SocketAddr::from(([10, 0, 0, seed as u8], 100));
    let listen = Listen::new(key, rpc::Node::NAMESPACE, address);
    server.listen(context.child("node"), context, listen).await.expect("listens");
    Endpoint { account, address: address.into() }
}

/// Follows a node with these answers, before an honest one. With `behind`, the reader comes back when all
/// answers have arrived. Returns the headers that reached the reader.
async fn followed(
    context: &deterministic::Context,
    answers: Answers,
    honest: Answers,
    behind: bool,
) -> Vec<Header> {
    let (pace, free) = (Pace::default(), Pace::default());
    free.go.notify_one();
    let (all, committee) = (answers.len(), Committee::new(1));
    let nodes = vec![node(context, 1, answers, pace.clone()).await, node(context, 2, honest, free).await];
    let light = Light::new(CHAIN, committee.network_key);
    let key = ed25519::PrivateKey::from_seed(9);
    let connection = Connection::new(context.child("reader"), context.child("network"), key, nodes, light);
    let mut follow = connection.beginning_at(0).follow(FIRST);
    let mut seen = vec![follow.next().await.expect("the first answer is honest")];
    pace.go.notify_one();
    while behind && pace.sent.load(Ordering::SeqCst) < all {
        context.sleep(Duration::from_millis(1)).await;
    }
    context.sleep(Duration::from_millis(if behind { 100 } else { 0 })).await;
    // A reader tries again after an error.
    for _ in 0..10 * LENGTH {
        if let Ok(header) = follow.next().await {
            seen.push(header);
        }
        if seen.len() == LENGTH {
            break;
        }
    }
    seen
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(deterministic::Context) -> F) {
    deterministic::Runner::default().start(test);
}

#[test]
fn a_reader_that_is_behind_checks_one_certificate_for_a_run() {
    run(|context| async move {
        let honest = chain(&Committee::new(1));
        let mut answers = honest.clone();
        for answer in &mut answers[HONEST..LENGTH - 1] {
            answer.finalization = Bounded::new(vec![0; 132]).expect("fits");
        }
        // The other node has nothing to offer: all that is seen comes from the first.
        let seen = followed(&context, answers, vec![], true).await;
        assert_eq!(seen, headers(&honest));
    });
}

#[test]
fn a_run_in_which_anything_is_wrong_brings_nothing_to_the_caller() {
    let lies: [(&str, Lie); 9] = [
        ("a forged header in the middle", |_, answers| {
            change(answers, 6, |header| header.state_root = [0; 32]);
        }),
        ("a forged header, and all later ones linked to it", |_, answers| {
            change(answers, 6, |header| header.state_root = [0; 32]);
            for place in 7..LENGTH {
                let parent = answers[place - 1].headers[0].digest();
                change(answers, place, |header| header.parent = parent);
            }
        }),
        ("a forged chain, certified by others", |_, answers| {
            let others = Committee::new(2);
            for place in HONEST..LENGTH {
                let parent = answers[place - 1].headers[0].digest();
                change(answers, place, |header| (header.parent, header.state_root) = (parent, [0; 32]));
                answers[place].finalization = others.finalize(&answers[place].headers[0].clone());
            }
        }),
        ("a wrong link", |_, answers| change(answers, 6, |header| header.parent = [0; 32])),
        ("a height left out", |_, answers| drop(answers.remove(6))),
        ("headers of another chain", |committee, answers| {
            for place in HONEST..LENGTH {
                let parent = answers[place - 1].headers[0].digest();
                change(answers, place, |header| (header.parent, header.chain) = (parent, [0; 32]));
                answers[place].finalization = committee.finalize(&answers[place].headers[0].clone());
            }
        }),
        ("the certificate of the header before", |_, answers| {
            answers[LENGTH - 1].finalization = answers[LENGTH - 2].finalization.clone();
        }),
        ("headers whose certificates are withheld for ever", |_, answers| {
            answers.iter_mut().skip(HONEST).for_each(|answer| answer.finalization = Bounded::default());
        }),
        ("nothing more after the first, for ever", |_, answers| answers.truncate(HONEST)),
    ];
    for (what, lie) in lies {
        for behind in [true, false] {
            run(|context| async move {
                let committee = Committee::new(1);
                let honest = chain(&committee);
                let mut answers = honest.clone();
                lie(&committee, &mut answers);
                let seen = followed(&context, answers, honest.clone(), behind).await;
                assert_eq!(seen, headers(&honest), "{what}, reader behind: {behind}");
            });
        }
    }
}

#[test]
fn a_long_run_comes_in_parts_and_none_is_lost() {
    run(|context| async move {
        // Three answers of which only two fit a run.
        let committee = Committee::new(1);
        let mut parent = [1; 32];
        let mut answers = vec![];
        for part in 0..3 {
            let mut part_headers = vec![];
            for step in 0..30 {
                let header = header(FIRST + part * 30 + step, parent, [8; 32]);
                parent = header.digest();
                part_headers.push(header);
            }
            let finalization = committee.finalize(part_headers.last().expect("30"));
            answers.push(Certified { headers: Bounded::new(part_headers).expect("30"), finalization });
        }
        let all = headers(&answers);
        let first = single(&all[0], committee.finalize(&all[0]));
        answers[0].headers = Bounded::new(all[1..30].to_vec()).expect("29");
        answers.insert(0, first);
        let pace = Pace::default();
        let node = node(&context, 1, answers, pace.clone()).await;
        let light = Light::new(CHAIN, committee.network_key);
        let key = ed25519::PrivateKey::from_seed(9);
        let reader =
            Connection::new(context.child("reader"), context.child("network"), key, vec![node], light);
        let mut follow = reader.follow(FIRST);
        let mut seen = vec![follow.next().await.expect("the first")];
        pace.go.notify_one();
        context.sleep(Duration::from_secs(1)).await;
        while seen.len() < all.len() {
            seen.push(follow.next().await.expect("no one lies"));
        }
        assert_eq!(seen, all);
    });
}

#[test]
fn a_given_node_is_not_left_for_a_near_stranger_and_none_is_its_second_opinion() {
    let (pool, endpoints) = measured(&[Some(200), Some(300)]);
    let learned = |place: u8, has_seat| {
        let address = SocketAddr::from(([10, 0, 1, place], 100)).into();
        Learned { endpoint: Endpoint { account: Account([place; 32]), address }, has_seat }
    };
    pool.learn(&[learned(8, false), learned(9, true)]);
    pool.measured(2, Duration::from_millis(10));
    pool.measured(3, Duration::from_millis(1));
    assert_eq!(pool.learned()[0], learned(9, true), "the ones with a seat are learned first");
    pool.prefer_near(&[learned(9, true).endpoint], 0);
    assert_eq!(pool.current(), 0, "the stranger is the only other near node");
    assert!((0..4).all(|place| pool.beside(place) != Some(3)));
    assert_eq!(pool.others(), [1, 2]);
    pool.prefer_near(&endpoints, 0);
    assert_eq!(pool.current(), 2, "one with a seat is trusted");
    pool.leave(At::nowhere(2));
    pool.leave(At::nowhere(0));
    assert_eq!(
        (pool.current(), pool.beside(1)),
        (1, Some(2)),
        "the last trusted node has no stranger beside it"
    );
    pool.leave(At::nowhere(1));
    assert_eq!(pool.current(), 3, "no trusted node answers");
}

/// A pool of nodes whose round trips in milliseconds are known, as far as they are given.
fn measured(trips: &[Option<u64>]) -> (Pool, Vec<Endpoint>) {
    let endpoint = |place: usize| Endpoint {
        account: Account([place as u8; 32]),
        address: SocketAddr::from(([10, 0, 0, place as u8], 100)).into(),
    };
    let endpoints: Vec<Endpoint> = (0..trips.len()).map(endpoint).collect();
    let dial = |_, _| pending().boxed();
    let clock =
        (Box::new(|_| pending().boxed()) as Box<Sleep>, Box::new(|| SystemTime::UNIX_EPOCH) as Box<Now>);
    let pool = Pool::new(endpoints.clone(), 0, Box::new(dial), clock);
    for (place, trip) in trips.iter().enumerate() {
        if let Some(trip) = trip {
            pool.measured(place, Duration::from_millis(*trip));
        }
    }
    (pool, endpoints)
}

#[test]
fn a_far_node_is_left_for_a_near_one_and_callers_spread_over_the_near_ones() {
    let (far, near, nearer, unknown) = (Some(200), Some(25), Some(10), None);
    let trips = [far, near, far, nearer, unknown, near];
    let chosen = |draw| {
        let (pool, endpoints) = measured(&trips);
        pool.prefer_near(&endpoints[5..], draw);
        pool.current()
    };
    assert_eq!([chosen(0), chosen(1), chosen(2), chosen(3)], [1, 3, 1, 3], "the near ones but the avoided");
    let (pool, _) = measured(&[near, nearer, far]);
    pool.prefer_near(&[], 1);
    assert_eq!(pool.current(), 0, "a near node is not left for a nearer one");
    let (pool, _) = measured(&[unknown, near, nearer]);
    pool.prefer_near(&[], 1);
    assert_eq!(pool.current(), 0, "nor is one whose distance is not known");
}

#[test]
fn a_near_node_comes_first_among_equals_and_a_failed_one_last() {
    let (pool, _) = measured(&[Some(10), Some(300), Some(20), Some(15)]);
    assert_eq!(pool.beside(0), Some(2), "the next near one in the list");
    pool.leave(At::nowhere(2));
    assert_eq!(pool.beside(0), Some(3));
    pool.leave(At::nowhere(3));
    assert_eq!(pool.beside(0), Some(1), "a far node that answers is better than near ones that do not");
    pool.leave(At::nowhere(0));
    pool.prefer_near(&[], 0);
    assert_eq!(pool.current(), 1, "the nearest of those that answer counts as near");
}

/// Starts a node that answers each request for its description after the time that `delay` gives for its number.
async fn slow_node(
    context: &deterministic::Context,
    committee: &Committee,
    seed: u64,
    delay: fn(usize) -> Duration,
) -> (Endpoint, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let info = Info {
        chain: CHAIN,
        network_key: network_key_bytes(&committee.network_key),
        parameters: posync_protocol::limits::Parameters::LOCAL,
        height: FIRST,
    };
    let (count, clock) = (asked.clone(), Arc::new(context.child("clock")));
    let server = Server::<rpc::Node, _>::new(move |call: Incoming<rpc::Node>, _| {
        let (number, info, clock) = (count.fetch_add(1, Ordering::SeqCst), info.clone(), clock.clone());
        async move {
            clock.sleep(delay(number)).await;
            drop(call.finish(&NodeAnswer::Info(info)).await);
        }
    });
    let key = ed25519::PrivateKey::from_seed(seed);
    let account = Account::of(&key.public_key());
    let address = SocketAddr::from(([10, 0, 0, seed as u8], 100));
    let listen = Listen::new(key, rpc::Node::NAMESPACE, address);
    server.listen(context.child("node"), context, listen).await.expect("listens");
    (Endpoint { account, address: address.into() }, asked)
}

/// A node that is near and withholds each answer for seconds on purpose is left for one that answers at once.
#[test]
fn a_node_that_holds_each_answer_for_seconds_is_left() {
    run(|context| async move {
        let committee = Committee::new(1);
        // Each answer comes just before the patience that the ones before it bought is over.
        let withholds = |number: usize| {
            Duration::from_millis([1_900, 3_000, 5_000].get(number).copied().unwrap_or(5_800))
        };
        let (first, of_first) = slow_node(&context, &committee, 1, withholds).await;
        let (second, of_second) = slow_node(&context, &committee, 2, |_| Duration::ZERO).await;
        let light = Light::new(CHAIN, committee.network_key);
        let key = ed25519::PrivateKey::from_seed(9);
        let nodes = vec![first, second];
        let connection =
            Connection::new(context.child("reader"), context.child("network"), key, nodes, light);
        let connection = connection.beginning_at(0);
        let begun = context.current();
        for _ in 0..20 {
            connection.info().await.expect("it answers");
        }
        let took = context.current().duration_since(begun).expect("time goes on");
        let counts = (of_first.load(Ordering::SeqCst), of_second.load(Ordering::SeqCst));
        // With a hedge after one second the first request is the last one that is late.
        assert!(counts.1 > 0 && took < Duration::from_secs(20), "{took:?} for 20 requests, asked {counts:?}");
    });
}

/// If all clients began at the first node of the list, it would have all of the work.
#[test]
fn the_node_at_which_a_client_begins_is_drawn() {
    let (network_key, mut firsts) = (Committee::new(1).network_key, std::collections::BTreeSet::new());
    for seed in 0..32 {
        let runner = deterministic::Runner::new(deterministic::Config::default().with_seed(seed));
        firsts.insert(runner.start(|context| async move {
            let key = |seed| ed25519::PrivateKey::from_seed(seed);
            let of = |seed: u64| Endpoint {
                account: Account::of(&key(seed).public_key()),
                address: SocketAddr::from(([10, 0, 0, seed as u8], 100)).into(),
            };
            let (nodes, light) = ((1..=4).map(of).collect(), Light::new(CHAIN, network_key));
            let network = context.child("network");
            Connection::new(context.child("reader"), network, key(9), nodes, light).0.pool.current()
        }));
    }
    assert_eq!(firsts.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
}
