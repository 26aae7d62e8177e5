//! Quotas of users: bytes count from the beginning of a put until their space is freed, through restarts,
//! and a quota refuses new puts only.

use super::{
    served::{Served, User},
    world::{Context, World, account, bytes, name_of, refusal, send},
};
use crate::access;
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{Runner as _, deterministic};
use futures::future::join;
use posync_protocol::wire::{
    gateway::{Answer, Ask, UserRow},
    node::Nothing,
};
use std::time::Duration;

const KB: usize = 1_000;

fn runner() -> deterministic::Runner {
    let limit = Some(Duration::from_secs(900));
    deterministic::Runner::new(deterministic::Config::default().with_seed(1).with_timeout(limit))
}

fn key(seed: u64) -> PrivateKey {
    PrivateKey::from_seed(77_000 + seed)
}

/// Serves an owner without a quota, and one user with `quota`.
async fn serve(context: &Context, world: &World, quota: u64) -> Served {
    let user = access::User { account: account(&key(1)), quota: Some(quota) };
    world.serve_users(context, account(&key(0)), &[user]).await
}

async fn rows(user: &User) -> Vec<UserRow> {
    match user.ask(Ask::Status(Nothing {})).await {
        Answer::Status(status) => status.users.into_inner(),
        other => panic!("{other:?}"),
    }
}

/// Files, bytes and pending bytes of the user, as it sees them itself.
async fn used(user: &User) -> (u64, u64, u64) {
    let rows = rows(user).await;
    let [row] = &rows[..] else { panic!("a user sees its own row only: {rows:?}") };
    assert_eq!((row.account, row.listed), (account(&key(1)), true));
    (row.files, row.bytes, row.pending)
}

async fn until_used(world: &World, user: &User, expected: (u64, u64, u64)) {
    world.until("what is not needed is freed", async |_| used(user).await == expected).await;
}

#[test]
fn a_put_beyond_the_quota_is_refused_at_its_start_with_what_is_used_and_what_to_do() {
    runner().start(|context| async move {
        let world = World::start(&context).await;
        let served = serve(&context, &world, 300_000).await;
        let (owner, user) = (served.dial(&key(0)).await, served.dial(&key(1)).await);
        assert!(matches!(user.put("first", &bytes(200 * KB, 1)).await, Answer::Stored(_)));
        assert_eq!(used(&user).await, (1, 200_000, 0));
        // It is refused before a byte of it is sent.
        let mut call = user.begin("second", 100 * KB + 1).await;
        let said = refusal(&call.recv().await.expect("an answer"));
        for part in ["100001 bytes", "200000 of the 300000", "remove files", "ask the gateway's owner"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(matches!(user.put("second", &bytes(100 * KB, 2)).await, Answer::Stored(_)), "just full");
        assert!(refusal(&user.put("third", b"x").await).contains("300000 of the 300000"));
        assert!(matches!(owner.put("large", &bytes(900 * KB, 3)).await, Answer::Stored(_)), "no quota");
        let rows = rows(&owner).await;
        let of = |seed| {
            let row = rows.iter().find(|row| row.account == account(&key(seed))).expect("served");
            (row.quota, row.files, row.bytes, row.pending)
        };
        assert_eq!((rows.len(), of(0), of(1)), (2, (None, 1, 900_000, 0), (Some(300_000), 2, 300_000, 0)));
        // What is removed counts until its space is freed.
        assert!(matches!(user.ask(Ask::Remove(name_of("first"))).await, Answer::Removed(_)));
        assert_eq!(used(&user).await, (1, 300_000, 200_000));
        assert!(refusal(&user.put("third", b"x").await).contains("200000 of them"));
        until_used(&world, &user, (1, 100_000, 0)).await;
        // A file takes its old one's place when that is gone, not before.
        assert!(matches!(user.put("second", &bytes(150 * KB, 4)).await, Answer::Stored(_)));
        until_used(&world, &user, (1, 150_000, 0)).await;
    });
}

#[test]
fn of_two_puts_at_once_at_the_edge_of_a_quota_one_is_stored_and_one_refused() {
    runner().start(|context| async move {
        let world = World::start(&context).await;
        let served = serve(&context, &world, 300_000).await;
        let (one, other) = (served.dial(&key(1)).await, served.dial(&key(1)).await);
        let (small, large) = (bytes(200 * KB, 1), bytes(200 * KB, 2));
        let (first, second) = join(one.put("one", &small), other.put("other", &large)).await;
        let stored = [&first, &second].into_iter().filter(|answer| matches!(answer, Answer::Stored(_)));
        assert_eq!(stored.count(), 1, "{first:?} {second:?}");
        let refused = if matches!(first, Answer::Stored(_)) { &second } else { &first };
        assert!(refusal(refused).contains("200000 of the 300000"));
        until_used(&world, &one, (1, 200_000, 0)).await;
    });
}

#[test]
fn a_put_that_fails_gives_its_reservation_back() {
    runner().start(|context| async move {
        let world = World::start(&context).await;
        let served = serve(&context, &world, 9_000_000).await;
        let user = served.dial(&key(1)).await;
        for sent in [0, 100 * KB, 5_000 * KB] {
            let mut call = user.begin("file", 9_000 * KB).await;
            for piece in bytes(sent, 1).chunks(64 << 10) {
                send(&call, piece).await;
            }
            world.until("it is reserved", async |_| used(&user).await == (0, 9_000_000, 9_000_000)).await;
            assert!(refusal(&user.put("other", b"x").await).contains("9000000 of them"));
            call.send(&Ask::Cancel(Nothing {})).await.expect("it is connected");
            assert!(refusal(&call.recv().await.expect("an answer")).contains("was cancelled"));
            until_used(&world, &user, (0, 0, 0)).await;
        }
    });
}

#[test]
fn use_is_the_same_after_a_restart_and_a_lower_quota_harms_nothing_that_is_stored() {
    let plain = bytes(200 * KB, 1);
    let ((), checkpoint) = runner().start_and_recover(|context| {
        let plain = plain.clone();
        async move {
            let world = World::start(&context).await;
            let served = serve(&context, &world, 1_000_000).await;
            let user = served.dial(&key(1)).await;
            assert!(matches!(user.put("file", &plain).await, Answer::Stored(_)));
            assert!(matches!(user.put("gone", &bytes(300 * KB, 2)).await, Answer::Stored(_)));
            // Cut while one file is being freed and a put is under way.
            let cut = user.begin("cut", 400 * KB).await;
            send(&cut, &bytes(64 << 10, 3)).await;
            assert!(matches!(user.ask(Ask::Remove(name_of("gone"))).await, Answer::Removed(_)));
            assert_eq!(used(&user).await, (1, 900_000, 700_000));
        }
    });
    deterministic::Runner::from(checkpoint).start(|context| async move {
        let world = World::start(&context).await;
        let served = serve(&context, &world, 50_000).await;
        let user = served.dial(&key(1)).await;
        assert_eq!(used(&user).await, (1, 500_000, 300_000), "all but the put that was cut");
        until_used(&world, &user, (1, 200_000, 0)).await;
        assert!(refusal(&user.put("new", b"x").await).contains("200000 of the 50000"));
        assert!(user.get("file").await.expect("it reads") == plain);
        assert!(matches!(user.ask(Ask::Remove(name_of("file"))).await, Answer::Removed(_)));
        until_used(&world, &user, (0, 0, 0)).await;
        assert!(matches!(user.put("new", &bytes(50 * KB, 4)).await, Answer::Stored(_)));
    });
}
