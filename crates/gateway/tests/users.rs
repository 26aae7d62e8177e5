//! Access to a gateway: for its owner and the accounts that it lists, each to its own files.

#[allow(dead_code, reason = "other tests use the rest")]
mod world;

use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{Runner as _, deterministic};
use posync_gateway::access::Access;
use posync_protocol::{
    Bounded,
    wire::{
        gateway::{Answer, Ask},
        node::Nothing,
    },
};
use std::time::Duration;
use world::{Context, User, World, account, bytes, name_of, refusal};

fn run<Fut: Future<Output = ()>>(work: impl FnOnce(Context) -> Fut) {
    let config = deterministic::Config::default().with_seed(1).with_timeout(Some(Duration::from_secs(900)));
    deterministic::Runner::new(config).start(work);
}

fn key(seed: u64) -> PrivateKey {
    PrivateKey::from_seed(77_000 + seed)
}

async fn names(user: &User) -> Vec<String> {
    match user.ask(Ask::List(Bounded::default())).await {
        Answer::Files(files) => {
            files.iter().map(|file| String::from_utf8_lossy(&file.name).into_owned()).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stranger_can_do_nothing_and_is_told_whom_to_ask() {
    run(|context| async move {
        let world = World::start(&context).await;
        let served = world.serve(&context, account(&key(0)), &[account(&key(1))]).await;
        let owner = served.dial(&key(0)).await;
        let plain = bytes(1000, 1);
        assert!(matches!(owner.put("mine", &plain).await, Answer::Stored(_)));
        let stranger = served.dial(&key(9)).await;
        let provider = world.providers[0].account;
        for ask in [
            Ask::List(Bounded::default()),
            Ask::Remove(name_of("mine")),
            Ask::Status(Nothing {}),
            Ask::Agreements(Nothing {}),
            Ask::Why(provider),
            Ask::Data(Bounded::default()),
            Ask::Cancel(Nothing {}),
        ] {
            let said = refusal(&stranger.ask(ask).await);
            assert!(said.contains(&account(&key(9)).to_string()), "who is not served: {said}");
            assert!(said.contains("ask the gateway's owner to add your account"), "what to do: {said}");
        }
        assert!(stranger.get("mine").await.expect_err("refused").contains("is not served"));
        assert!(refusal(&stranger.put("mine", b"theirs").await).contains("is not served"));
        assert!(refusal(&stranger.put("new", b"theirs").await).contains("is not served"));
        assert_eq!(names(&owner).await, ["mine"]);
        assert_eq!(owner.get("mine").await, Ok(plain));
    });
}

#[test]
fn every_account_sees_reads_replaces_and_removes_its_own_files_alone() {
    run(|context| async move {
        let world = World::start(&context).await;
        let served = world.serve(&context, account(&key(0)), &[account(&key(1)), account(&key(2))]).await;
        let [owner, user, other] =
            [served.dial(&key(0)).await, served.dial(&key(1)).await, served.dial(&key(2)).await];
        let [of_owner, of_user] = [bytes(3000, 1), bytes(200, 2)];
        assert!(matches!(owner.put("same name", &of_owner).await, Answer::Stored(_)));
        assert!(matches!(owner.put("owner's", &of_owner).await, Answer::Stored(_)));
        assert!(matches!(user.put("same name", &of_user).await, Answer::Stored(_)));
        assert_eq!(owner.get("same name").await, Ok(of_owner.clone()));
        assert_eq!(user.get("same name").await, Ok(of_user.clone()));
        assert_eq!(names(&owner).await, ["owner's", "same name"]);
        assert_eq!(names(&user).await, ["same name"]);
        assert!(names(&other).await.is_empty());
        // For all other accounts the file does not exist.
        for somebody in [&user, &other] {
            assert!(somebody.get("owner's").await.expect_err("refused").contains("there is no file"));
            let removed = somebody.ask(Ask::Remove(name_of("owner's"))).await;
            assert!(refusal(&removed).contains("there is no file"));
        }
        assert!(matches!(user.ask(Ask::Remove(name_of("same name"))).await, Answer::Removed(_)));
        assert!(refusal(&user.ask(Ask::Remove(name_of("same name"))).await).contains("there is no file"));
        assert_eq!(owner.get("same name").await, Ok(of_owner));
        let Answer::Status(status) = owner.ask(Ask::Status(Nothing {})).await else { panic!("no status") };
        assert_eq!(status.files, 2);
    });
}

#[test]
fn whose_a_file_is_survives_a_restart() {
    let config = deterministic::Config::default().with_seed(1).with_timeout(Some(Duration::from_secs(900)));
    let ((), checkpoint) = deterministic::Runner::new(config).start_and_recover(|context| async move {
        let world = World::start(&context).await;
        let served = world.serve(&context, account(&key(0)), &[account(&key(1))]).await;
        for (seed, text) in [(0, "the owner's"), (1, "the user's")] {
            let stored = served.dial(&key(seed)).await.put("name", text.as_bytes()).await;
            assert!(matches!(stored, Answer::Stored(_)));
        }
    });
    deterministic::Runner::from(checkpoint).start(|context| async move {
        let world = World::start(&context).await;
        let served = world.serve(&context, account(&key(0)), &[account(&key(1))]).await;
        for (seed, text) in [(0, "the owner's"), (1, "the user's")] {
            let user = served.dial(&key(seed)).await;
            assert_eq!(user.get("name").await, Ok(text.as_bytes().to_vec()));
            assert_eq!(names(&user).await, ["name"]);
        }
    });
}

#[test]
fn a_user_stores_up_to_its_quota_and_the_owner_without_a_bound() {
    run(|context| async move {
        let world = World::start(&context).await;
        let users = [account(&key(1)), account(&key(2))];
        let access = Access::new(account(&key(0)), &users).expect("few").limited(1_000);
        let served = world.serve_as(&context, access).await;
        let [owner, first, second] =
            [served.dial(&key(0)).await, served.dial(&key(1)).await, served.dial(&key(2)).await];
        let is_stored = async |user: &User, name: &str, length: usize| {
            let answer = user.put(name, &bytes(length, 1)).await;
            let stored = matches!(answer, Answer::Stored(_));
            assert!(stored || refusal(&answer).contains("lets you store 1000"), "{answer:?}");
            stored
        };
        assert!(is_stored(&owner, "large", 5_000).await);
        assert!(is_stored(&first, "a", 600).await);
        assert!(!is_stored(&first, "b", 401).await, "it would be more than the quota");
        assert!(is_stored(&second, "b", 1_000).await, "each has a quota of its own");
        assert!(is_stored(&first, "b", 400).await);
        assert!(!is_stored(&first, "c", 1).await);
        assert!(matches!(first.ask(Ask::Remove(name_of("a"))).await, Answer::Removed(_)));
        assert!(is_stored(&first, "b", 500).await, "the old file counts until the new one is stored");
        assert!(is_stored(&first, "c", 500).await, "the old one is gone");
        assert!(!is_stored(&first, "c", 501).await);
        // A put on its way counts as well.
        assert!(matches!(first.ask(Ask::Remove(name_of("b"))).await, Answer::Removed(_)));
        let both = futures::join!(is_stored(&first, "d", 300), is_stored(&first, "e", 300));
        assert!(both.0 != both.1, "one of two at once: {both:?}");
        assert_eq!(names(&first).await.len(), 2);
    });
}
