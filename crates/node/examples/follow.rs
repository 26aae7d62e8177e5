//! Measures a node without a seat: four authorities on loopback in one process, the node in another, which
//! first runs all their blocks and then follows them.
//!
//! `cargo run --release -p posync-node --example follow -- <directory> [blocks] [transfers per block]`; the
//! environment variable `BLOCK_MS` sets the pace of the network.

mod load;

use commonware_cryptography::{Signer as _, ed25519};
use commonware_p2p::Address;
use commonware_runtime::{Spawner as _, Supervisor as _, tokio};
use load::{Load, payer};
use posync_client::{connection::Endpoint, watch};
use posync_node::{
    config::{Config, Settings},
    follow, follower,
    genesis::{self, Genesis},
    handle::Handle,
    run::{RunError, TokioServices, run_tokio},
    serve::{Serving, over_sockets},
};
use posync_protocol::{Account, Amount, limits::Parameters};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, exit},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

/// Blocks that are measured in step.
const IN_STEP: u64 = 200;

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn genesis(directory: &Path) -> Genesis {
    let bytes = std::fs::read(directory.join("0/genesis")).expect("a network was dealt");
    Genesis::from_bytes(&bytes).expect("it is whole")
}

fn main() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let directory = PathBuf::from(arguments.first().expect("name a directory"));
    let number = |place: usize, default| {
        arguments.get(place).map_or(default, |text| text.parse().expect("it is a number"))
    };
    if arguments.get(3).is_some() {
        return follower(&directory, number(1, 0));
    }
    let (blocks, transfers) = (number(1, 1_000), number(2, 0));
    let mut heights = authorities(&directory, transfers);
    while *heights.borrow_and_update() < blocks {
        std::thread::sleep(Duration::from_secs(1));
    }
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program);
    let child = child.arg(&directory).arg(blocks.to_string()).arg("0").arg("follower").status();
    exit(child.ok().and_then(|status| status.code()).unwrap_or(1));
}

/// Deals and starts four authorities; returns the height of the first.
fn authorities(directory: &Path, transfers: u64) -> watch::Receiver<u64> {
    let mut parameters = Parameters::LOCAL;
    parameters.block_ms =
        std::env::var("BLOCK_MS").map_or(parameters.block_ms, |ms| ms.parse().expect("a number"));
    let addresses: Vec<_> = (0..4).map(|index| loopback(9_610 + index)).collect();
    let supply = Amount::sync(1_000_000_000);
    let accounts = vec![(Account::of(&payer().public_key()), Amount::sync(100_000_000))];
    let rng = commonware_utils::TestRng::new(1);
    let (dealt, secrets) = genesis::deal(&addresses, parameters, supply, accounts, rng).expect("valid");
    let load = Arc::new(Load::new(transfers, dealt.chain()));
    let (sender, receiver) = mpsc::channel();
    let signatures = genesis::signatures::sign_all(&dealt, &secrets);
    for (index, (secret, address)) in secrets.into_iter().zip(&addresses).enumerate() {
        let service = loopback(address.port() + 100);
        let at = directory.join(index.to_string());
        Config::deal(&at, &dealt, &signatures, &secret).expect("writable");
        let config = Config::open(&at, Settings::local(*address, service, true)).expect("it is whole");
        let (load, sender) = (load.clone(), sender.clone());
        let (_, serve) = over_sockets(Serving { key: secret.key, address: service });
        let services: TokioServices = Box::new(move |context, handle, channel| {
            let _ = sender.send(handle.heights());
            serve(context, handle, channel)
        });
        let run = move || {
            let ended: Result<(), RunError> = run_tokio(config, load, services);
            eprintln!("authority {index}: {ended:?}");
        };
        std::thread::Builder::new().stack_size(8 << 20).spawn(run).expect("threads are at hand");
    }
    receiver.recv().expect("an authority starts")
}

/// CPU seconds of this process so far.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |place: usize| fields[place].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}

/// Follows the authorities: up to `blocks`, and [`IN_STEP`] further blocks once it has caught up.
fn follower(directory: &Path, blocks: u64) {
    let genesis = genesis(directory);
    let endpoint = |authority: &genesis::Authority| Endpoint {
        account: Account::of(&authority.key),
        address: match &authority.address {
            Address::Symmetric(address) => loopback(address.port() + 100).into(),
            other => panic!("dealt with one address: {other:?}"),
        },
    };
    let settings = follower::Settings {
        upstream: genesis.authorities.iter().map(endpoint).collect(),
        genesis: Arc::new(genesis),
        key: ed25519::PrivateKey::from_seed(99),
        listen: loopback(0),
        page_cache_pages: 16_384,
        archive: false,
    };
    let began = Instant::now();
    let measure: follower::Beside<_> = Box::new(move |context: tokio::Context, handle: Handle| {
        let measure = async move {
            let mut heights = handle.heights();
            let reached = *heights.wait_for(|height| *height >= blocks).await.expect("it runs");
            let (time, used) = (began.elapsed().as_secs_f64(), cpu());
            println!(
                "replay: {reached} blocks in {time:.1} s, {:.0} blocks/s, CPU {:.2} ms per block",
                reached as f64 / time,
                1_000.0 * used / reached as f64
            );
            heights.wait_for(|height| *height >= reached + 20).await.expect("it runs");
            let (start, before, clock) = (handle.applied(), cpu(), Instant::now());
            heights.wait_for(|height| *height >= start + IN_STEP).await.expect("it runs");
            let rate = IN_STEP as f64 / clock.elapsed().as_secs_f64();
            let each = 1_000.0 * (cpu() - before) / IN_STEP as f64;
            println!("in step: {rate:.2} blocks/s, CPU {each:.2} ms per block");
            exit(0);
        };
        drop(context.child("measure").spawn(|_| measure));
    });
    let ended = follow(directory.join("follower"), settings, measure);
    eprintln!("the node without a seat: {ended:?}");
    exit(1);
}
