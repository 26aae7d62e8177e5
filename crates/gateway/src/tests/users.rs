//! Access to a gateway: for its owner and the accounts that it lists, each to its own files.

use super::{
    served::User,
    world::{Context, World, account, bytes, name_of, refusal},
};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{Runner as _, deterministic};
use posync_protocol::{
    Bounded,
    wire::{
        gateway::{Ask, FileOf, GatewayAnswer, Refusal},
        node::Nothing,
    },
};
use std::time::Duration;

fn run<Fut: Future<Output = ()>>(work: impl FnOnce(Context) -> Fut) {
    let config = deterministic::Config::default().with_seed(1).with_timeout(Some(Duration::from_secs(900)));
    deterministic::Runner::new(config).start(work);
}

fn key(seed: u64) -> PrivateKey {
    PrivateKey::from_seed(77_000 + seed)
}

/// The kind of a refusal, on which programs act.
fn kind(answer: &GatewayAnswer) -> Refusal {
    match answer {
        GatewayAnswer::Refused(refused) => refused.kind,
        other => panic!("no refusal: {other:?}"),
    }
}

async fn names(user: &User) -> Vec<String> {
    match user.ask(Ask::List(Bounded::default())).await {
        GatewayAnswer::Files(files) => {
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
        assert!(matches!(owner.put("mine", &plain).await, GatewayAnswer::Stored(_)));
        let stranger = served.dial(&key(9)).await;
        let provider = world.providers[0].account;
        for ask in [
            Ask::List(Bounded::default()),
            Ask::Remove(name_of("mine")),
            Ask::Status(Nothing {}),
            Ask::Agreements(Nothing {}),
            Ask::Why(provider),
            Ask::ListOf(FileOf { account: account(&key(0)), name: Bounded::default() }),
            Ask::RemoveOf(FileOf { account: account(&key(0)), name: name_of("mine") }),
            Ask::Data(Bounded::default()),
            Ask::Cancel(Nothing {}),
        ] {
            let answer = stranger.ask(ask).await;
            assert_eq!(kind(&answer), Refusal::NotServed);
            let said = refusal(&answer);
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
        assert!(matches!(owner.put("same name", &of_owner).await, GatewayAnswer::Stored(_)));
        assert!(matches!(owner.put("owner's", &of_owner).await, GatewayAnswer::Stored(_)));
        assert!(matches!(user.put("same name", &of_user).await, GatewayAnswer::Stored(_)));
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
            assert_eq!(
                (kind(&removed), kind(&somebody.open("owner's").await.1)),
                (Refusal::NoFile, Refusal::NoFile)
            );
        }
        assert!(matches!(user.ask(Ask::Remove(name_of("same name"))).await, GatewayAnswer::Removed(_)));
        assert!(refusal(&user.ask(Ask::Remove(name_of("same name"))).await).contains("there is no file"));
        assert_eq!(owner.get("same name").await, Ok(of_owner));
        let GatewayAnswer::Status(status) = owner.ask(Ask::Status(Nothing {})).await else {
            panic!("no status")
        };
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
            assert!(matches!(stored, GatewayAnswer::Stored(_)));
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

/// The files of an account that was taken off the list are paid for until somebody can remove them.
#[test]
fn the_owner_lists_the_files_of_others_and_removes_those_of_an_account_that_is_not_listed_any_more() {
    let config = deterministic::Config::default().with_seed(1).with_timeout(Some(Duration::from_secs(900)));
    let of = |name: &str| FileOf { account: account(&key(1)), name: name_of(name) };
    let all = || Ask::ListOf(FileOf { account: account(&key(1)), name: Bounded::default() });
    let ((), checkpoint) = deterministic::Runner::new(config).start_and_recover(|context| async move {
        let world = World::start(&context).await;
        let served = world.serve(&context, account(&key(0)), &[1, 2].map(|seed| account(&key(seed)))).await;
        let [owner, user, other] =
            [served.dial(&key(0)).await, served.dial(&key(1)).await, served.dial(&key(2)).await];
        for (one, plain) in [(&owner, 3000), (&user, 200), (&other, 100)] {
            assert!(matches!(one.put("name", &bytes(plain, 1)).await, GatewayAnswer::Stored(_)));
        }
        for ask in [all(), Ask::RemoveOf(of("name"))] {
            let refused = other.ask(ask).await;
            assert_eq!(kind(&refused), Refusal::NotServed);
            assert!(refusal(&refused).contains("does not own this gateway"), "{refused:?}");
        }
        let GatewayAnswer::Files(files) = owner.ask(all()).await else { panic!("no files") };
        assert_eq!(files.iter().map(|file| file.bytes).collect::<Vec<_>>(), [200]);
        let refused = owner.ask(Ask::RemoveOf(of("name"))).await;
        assert!(refusal(&refused).contains("is served here, and its files are its own"), "{refused:?}");
        let own = FileOf { account: account(&key(0)), ..of("name") };
        assert_eq!(kind(&owner.ask(Ask::RemoveOf(own)).await), Refusal::Request);
        assert_eq!(user.get("name").await, Ok(bytes(200, 1)));
    });
    deterministic::Runner::from(checkpoint).start(|context| async move {
        let world = World::start(&context).await;
        let served = world.serve(&context, account(&key(0)), &[account(&key(2))]).await;
        let [owner, other] = [served.dial(&key(0)).await, served.dial(&key(2)).await];
        assert_eq!(kind(&other.ask(Ask::RemoveOf(of("name"))).await), Refusal::NotServed);
        let removed = owner.ask(Ask::RemoveOf(of("name"))).await;
        assert!(matches!(&removed, GatewayAnswer::Removed(file) if file.bytes == 200), "{removed:?}");
        assert_eq!(kind(&owner.ask(Ask::RemoveOf(of("name"))).await), Refusal::NoFile);
        assert!(matches!(owner.ask(all()).await, GatewayAnswer::Files(files) if files.is_empty()));
        assert_eq!(owner.get("name").await, Ok(bytes(3000, 1)), "the owner's of the same name stays");
        assert_eq!(other.get("name").await, Ok(bytes(100, 1)));
        let freed = async |w: &World| w.shared.catalogue.usages().await.expect("runs").len() == 2;
        world.until("its space is freed", freed).await;
    });
}
