//! Quotas of users, and their allowances of reads: bytes count from the beginning of a put until their space is freed, through restarts,
//! and a quota refuses new puts only.

use super::{
    served::{Served, User},
    world::{Context, World, account, bytes, name_of, refusal, send},
};
use crate::{
    access::{self, Access},
    limits::TRANSFERS_PER_ACCOUNT,
};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{Runner as _, deterministic};
use futures::future::join;
use posync_consumer::agreements::Policy;
use posync_protocol::{
    limits::Parameters,
    wire::{
        gateway::{Ask, GatewayAnswer, UserRow},
        node::Nothing,
    },
};
use std::time::Duration;

/// A size in blocks: a file counts as whole ones.
const fn of(blocks: usize) -> usize {
    blocks * 4096
}

/// The same, as use is shown.
const fn shown(blocks: usize) -> u64 {
    of(blocks) as u64
}

fn runner() -> deterministic::Runner {
    let limit = Some(Duration::from_secs(900));
    deterministic::Runner::new(deterministic::Config::default().with_seed(1).with_timeout(limit))
}

fn key(seed: u64) -> PrivateKey {
    PrivateKey::from_seed(77_000 + seed)
}

/// Serves an owner without a quota, and one user with `quota`.
async fn serve(context: &Context, world: &World, quota: u64) -> Served {
    let user = access::User { quota: Some(quota), ..account(&key(1)).into() };
    world.serve_users(context, account(&key(0)), &[user]).await
}

async fn rows(user: &User) -> Vec<UserRow> {
    match user.ask(Ask::Status(Nothing {})).await {
        GatewayAnswer::Status(status) => status.users.into_inner(),
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
        let served = serve(&context, &world, shown(300)).await;
        let (owner, user) = (served.dial(&key(0)).await, served.dial(&key(1)).await);
        assert!(matches!(user.put("first", &bytes(of(200), 1)).await, GatewayAnswer::Stored(_)));
        assert_eq!(used(&user).await, (1, shown(200), 0));
        // It is refused before a byte of it is sent.
        let mut call = user.begin("second", of(100) + 1).await;
        let said = refusal(&call.recv().await.expect("an answer"));
        for part in [
            "409601 bytes does not fit: it counts as 413696",
            "819200 of the 1228800",
            "remove files",
            "ask the gateway's owner",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(
            matches!(user.put("second", &bytes(of(100), 2)).await, GatewayAnswer::Stored(_)),
            "just full"
        );
        assert!(refusal(&user.put("third", b"x").await).contains("1228800 of the 1228800"));
        assert!(matches!(owner.put("large", &bytes(of(900), 3)).await, GatewayAnswer::Stored(_)), "no quota");
        let rows = rows(&owner).await;
        let row_of = |seed| {
            let row = rows.iter().find(|row| row.account == account(&key(seed))).expect("served");
            (row.quota, row.files, row.bytes, row.pending)
        };
        assert_eq!(
            (rows.len(), row_of(0), row_of(1)),
            (2, (None, 1, shown(900), 0), (Some(shown(300)), 2, shown(300), 0))
        );
        // What is removed counts until its space is freed.
        assert!(matches!(user.ask(Ask::Remove(name_of("first"))).await, GatewayAnswer::Removed(_)));
        assert_eq!(used(&user).await, (1, shown(300), shown(200)));
        assert!(refusal(&user.put("third", b"x").await).contains("819200 of them"));
        until_used(&world, &user, (1, shown(100), 0)).await;
        // A file takes its old one's place when that is gone, not before.
        assert!(matches!(user.put("second", &bytes(of(150), 4)).await, GatewayAnswer::Stored(_)));
        until_used(&world, &user, (1, shown(150), 0)).await;
    });
}

#[test]
fn a_user_that_announces_much_and_sends_little_opens_little() {
    const GIB: usize = 1 << 30;
    /// Leaves of the eight shards of a whole segment.
    const SEGMENT: u64 = 8 << 10;
    runner().start(|context| async move {
        let world = World::start_with(&context, 8 << 10, 1 << 30).await;
        world.open_by(Policy::of(&Parameters::LOCAL));
        let user = access::User::from(account(&key(1)));
        let served = world.serve_users(&context, account(&key(0)), &[user]).await;
        let user = served.dial(&key(1)).await;
        let opened = || world.shared.agreements().iter().map(|own| own.terms().quota_leaves).sum::<u64>();
        let before = opened();
        let mut calls = vec![];
        for number in 0..16 {
            calls.push(user.begin(&format!("large {number}"), 100 * GIB).await);
        }
        let all = 16 * 100 * GIB as u64;
        world.until("all are announced", async |_| used(&user).await.2 == all).await;
        world.shared.common.environment.sleep(Duration::from_secs(30)).await;
        assert_eq!(world.shared.demand(1), SEGMENT, "of 1600 GiB, one segment of the user's");
        assert_eq!(opened(), before, "for which there is room");
        for piece in bytes(10 << 20, 5).chunks(64 << 10) {
            send(&calls[7], piece).await;
        }
        // Two whole segments are placed, of the 20 MiB that 10 MiB are worth; another put may be the one for which a
        // segment was expected.
        let worth = [3 * SEGMENT, SEGMENT + 3 * SEGMENT];
        world.until("they arrive", async |w| worth.contains(&w.shared.demand(1))).await;
        world.shared.common.environment.sleep(Duration::from_secs(30)).await;
        assert!(opened() <= before + 10 * (16 << 10), "{} and {before}", opened());
        drop(calls);
        world.until("nothing is expected", async |w| w.shared.demand(1) == 0).await;
    });
}

#[test]
fn of_two_puts_at_once_at_the_edge_of_a_quota_one_is_stored_and_one_refused() {
    runner().start(|context| async move {
        let world = World::start(&context).await;
        let served = serve(&context, &world, shown(300)).await;
        let (one, other) = (served.dial(&key(1)).await, served.dial(&key(1)).await);
        let (small, large) = (bytes(of(200), 1), bytes(of(200), 2));
        let (first, second) = join(one.put("one", &small), other.put("other", &large)).await;
        let stored =
            [&first, &second].into_iter().filter(|answer| matches!(answer, GatewayAnswer::Stored(_)));
        assert_eq!(stored.count(), 1, "{first:?} {second:?}");
        let refused = if matches!(first, GatewayAnswer::Stored(_)) { &second } else { &first };
        assert!(refusal(refused).contains("819200 of the 1228800"));
        until_used(&world, &one, (1, shown(200), 0)).await;
    });
}

#[test]
fn a_put_that_fails_gives_its_reservation_back() {
    runner().start(|context| async move {
        let world = World::start(&context).await;
        let served = serve(&context, &world, shown(2_200)).await;
        let user = served.dial(&key(1)).await;
        for sent in [0, of(25), of(1_225)] {
            let mut call = user.begin("file", of(2_200)).await;
            for piece in bytes(sent, 1).chunks(64 << 10) {
                send(&call, piece).await;
            }
            world
                .until("it is reserved", async |_| used(&user).await == (0, shown(2_200), shown(2_200)))
                .await;
            assert!(refusal(&user.put("other", b"x").await).contains("9011200 of them"));
            call.send(&Ask::Cancel(Nothing {})).await.expect("it is connected");
            assert!(refusal(&call.recv().await.expect("an answer")).contains("was cancelled"));
            until_used(&world, &user, (0, 0, 0)).await;
        }
    });
}

#[test]
fn use_is_the_same_after_a_restart_and_a_lower_quota_harms_nothing_that_is_stored() {
    let plain = bytes(of(200), 1);
    let ((), checkpoint) = runner().start_and_recover(|context| {
        let plain = plain.clone();
        async move {
            let world = World::start(&context).await;
            let served = serve(&context, &world, shown(1_000)).await;
            let user = served.dial(&key(1)).await;
            assert!(matches!(user.put("file", &plain).await, GatewayAnswer::Stored(_)));
            assert!(matches!(user.put("gone", &bytes(of(300), 2)).await, GatewayAnswer::Stored(_)));
            // Cut while one file is being freed and a put is under way.
            let cut = user.begin("cut", of(400)).await;
            send(&cut, &bytes(64 << 10, 3)).await;
            assert!(matches!(user.ask(Ask::Remove(name_of("gone"))).await, GatewayAnswer::Removed(_)));
            assert_eq!(used(&user).await, (1, shown(900), shown(700)));
        }
    });
    deterministic::Runner::from(checkpoint).start(|context| async move {
        let world = World::start(&context).await;
        let served = serve(&context, &world, shown(50)).await;
        let user = served.dial(&key(1)).await;
        assert_eq!(used(&user).await, (1, shown(500), shown(300)), "all but the put that was cut");
        until_used(&world, &user, (1, shown(200), 0)).await;
        assert!(refusal(&user.put("new", b"x").await).contains("819200 of the 204800"));
        assert!(user.get("file").await.expect("it reads") == plain);
        assert!(matches!(user.ask(Ask::Remove(name_of("file"))).await, GatewayAnswer::Removed(_)));
        until_used(&world, &user, (0, 0, 0)).await;
        assert!(matches!(user.put("new", &bytes(of(50), 4)).await, GatewayAnswer::Stored(_)));
    });
}

#[test]
fn a_file_of_more_than_four_tebibytes_is_refused_before_a_byte_of_it_is_sent() {
    runner().start(|context| async move {
        let world = World::start(&context).await;
        let served = serve(&context, &world, 1 << 60).await;
        for user in [served.dial(&key(0)).await, served.dial(&key(1)).await] {
            for length in [(4 << 40) + 1, (u32::MAX as usize) << 22, usize::MAX] {
                let mut call = user.begin("huge", length).await;
                let said = refusal(&call.recv().await.expect("an answer"));
                assert!(said.contains(&length.to_string()) && said.contains("4 TiB"), "{said}");
            }
        }
        assert!(world.shared.catalogue.jobs(0, 9).await.expect("runs").is_empty(), "nothing is left of them");
    });
}

#[test]
fn an_empty_file_and_a_file_of_a_byte_count_as_what_they_cost() {
    runner().start(|context| async move {
        let world = World::start(&context).await;
        let served = serve(&context, &world, 3 * 4096).await;
        let user = served.dial(&key(1)).await;
        for (name, bytes) in [("empty", &b""[..]), ("a byte", b"x"), ("a block", &[7; 4096])] {
            assert!(matches!(user.put(name, bytes).await, GatewayAnswer::Stored(_)), "{name}");
        }
        assert_eq!(used(&user).await, (3, 3 * 4096, 0));
        for bytes in [&b""[..], b"x"] {
            assert!(refusal(&user.put("one more", bytes).await).contains("12288 of the 12288"));
        }
    });
}

#[test]
fn a_user_that_takes_all_its_names_leaves_the_others_theirs() {
    runner().start(|context| async move {
        let world = World::start(&context).await;
        let user = access::User::from(account(&key(1)));
        let files = 2 * (TRANSFERS_PER_ACCOUNT + 3);
        let access = Access::sharing(files, account(&key(0)), &[user]).expect("few");
        let served = world.serve_access(&context, access).await;
        let (owner, user) = (served.dial(&key(0)).await, served.dial(&key(1)).await);
        for name in ["one", "two"] {
            assert!(matches!(user.put(name, b"").await, GatewayAnswer::Stored(_)), "{name}");
        }
        // A put under way has its name, and one that replaces a file needs none.
        let mut call = user.begin("three", 9).await;
        world.until("it has begun", async |_| used(&user).await.2 > 0).await;
        let mut refused = user.begin("four", 0).await;
        let said = refusal(&refused.recv().await.expect("an answer"));
        assert!(said.contains("3 files") && said.contains("posync rm"), "{said}");
        assert!(matches!(user.put("two", b"other bytes").await, GatewayAnswer::Stored(_)), "it replaces one");
        send(&call, b"its bytes").await;
        assert!(
            matches!(call.recv().await.expect("an answer"), GatewayAnswer::Stored(_)),
            "its name was reserved"
        );
        for name in ["one", "two", "three"] {
            assert!(matches!(owner.put(name, b"").await, GatewayAnswer::Stored(_)), "{name} of the owner");
        }
        // What is removed makes room again.
        assert!(matches!(user.ask(Ask::Remove(name_of("one"))).await, GatewayAnswer::Removed(_)));
        assert!(matches!(user.put("four", b"").await, GatewayAnswer::Stored(_)));
    });
}

/// A listed account that reads again and again costs the owner its allowance a day, and no more.
#[test]
fn a_user_that_reads_again_and_again_is_refused_beyond_its_allowance_and_reads_on_when_the_day_has_passed() {
    runner().start(|context| async move {
        let world = World::start(&context).await;
        let user = access::User { reads: Some(shown(299)), ..account(&key(1)).into() };
        let served = world.serve_users(&context, account(&key(0)), &[user]).await;
        let (owner, user) = (served.dial(&key(0)).await, served.dial(&key(1)).await);
        let plain = bytes(of(300), 1);
        for one in [&owner, &user] {
            assert!(matches!(one.put("file", &plain).await, GatewayAnswer::Stored(_)));
        }
        assert!(user.get("file").await.expect("nothing was read yet") == plain);
        let sold = || async {
            let mut sum = 0;
            for agreement in world.shared.agreements() {
                sum += agreement.egress().await;
            }
            sum
        };
        let before = sold().await;
        for _ in 0..20 {
            let said = user.get("file").await.expect_err("more than its allowance");
            for part in
                ["1224704 bytes in a day", "and 122", "try again in ", "ask the gateway's owner to raise"]
            {
                assert!(said.contains(part), "{part}: {said}");
            }
        }
        assert_eq!(sold().await, before, "no provider was asked");
        for _ in 0..10 {
            assert!(owner.get("file").await.expect("the owner has no bound") == plain);
        }
        // What is listed, removed and stored is not read.
        assert!(matches!(user.put("more", &plain).await, GatewayAnswer::Stored(_)));
        world.shared.common.environment.sleep(Duration::from_secs(400)).await;
        // The connection was idle for longer than it may be.
        let user = served.dial(&key(1)).await;
        assert!(user.get("file").await.expect("a two-hundredth of a day has passed") == plain);
        assert!(user.get("more").await.expect_err("that part is used").contains("in a day"));
    });
}
