//! Measures a node without a seat: four authorities on loopback in one process, the node in another, which
//! first takes a state from them, or runs all their blocks, and then follows them.
//!
//! `cargo run --release -p posync-node --example follow -- <directory> [blocks] [transfers per block]`; the
//! environment variable `BLOCK_MS` sets the pace of the network. A network in the directory is started again. With `REPLAY=1` the node runs all blocks. With
//! `LOST=1` an authority loses its disk after that, and its return is measured.
//!
//! Limits: the node takes a state and is in step within 60 s; the authority follows within 60 s and leads at most three
//! terms later. The program ends with 1 if one of them is missed, and says which.

mod load;

use commonware_cryptography::{Signer as _, ed25519};
use commonware_p2p::Address;
use commonware_runtime::{Clock as _, Spawner as _, Supervisor as _, tokio};
use load::{Load, payer};
use posync_client::connection::Endpoint;
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
/// Longest time until a node with no state of its own follows.
const FOLLOW_MAX: Duration = Duration::from_secs(60);
/// Longest time of a replay, which ends a run that makes no progress; it measures nothing.
const REPLAY_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Terms after which an authority that lost its disk leads at the latest.
const TERMS_MAX: u64 = 3;
/// Time between two looks at a height that must come.
const LOOK_EVERY: Duration = Duration::from_millis(100);

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
    let mut authorities = authorities(&directory, transfers);
    let mut heights = authorities[0].handle.heights();
    let began = Instant::now();
    while *heights.borrow_and_update() < blocks {
        std::thread::sleep(Duration::from_secs(1));
    }
    println!("{blocks} blocks in {:.0} s", began.elapsed().as_secs_f64());
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program);
    // Read first: a borrowed height stops the authority.
    let height = heights.borrow().to_string();
    let child = child.arg(&directory).arg(height).arg("0").arg("follower").status();
    let code = child.ok().and_then(|status| status.code()).unwrap_or(1);
    if code == 0 && std::env::var_os("LOST").is_some() {
        let lost = authorities.pop().expect("four");
        if let Err(missed) = lost_disk(&directory.join("3"), lost, &authorities[0].handle) {
            println!("missed: {missed}");
            exit(1);
        }
    }
    exit(code);
}

/// Stops an authority, takes its disk away, starts it, and measures until it follows and until it leads.
///
/// # Errors
/// The limit that was missed.
fn lost_disk(directory: &Path, authority: Authority, other: &Handle) -> Result<(), String> {
    let (service, load) = (authority.service, authority.load.clone());
    authority.stop.send(()).expect("it runs");
    authority.thread.join().expect("it does not panic");
    std::fs::remove_dir_all(directory.join("storage")).expect("it was there");
    let (began, height) = (Instant::now(), other.applied());
    let again = start(directory, service, load);
    loop {
        let (applied, took) = (again.handle.applied(), began.elapsed());
        if took > FOLLOW_MAX {
            return Err(format!("lost disk: at {applied} of {height} after {took:.1?}"));
        }
        if applied >= height {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    println!("lost disk: follows at {height} after {:.1} s", began.elapsed().as_secs_f64());
    let mut blocks = other.subscribe_finalized(other.applied());
    loop {
        let block = futures::executor::block_on(blocks.next()).expect("kept");
        let terms = block.header.term - height / Parameters::LOCAL.term_blocks();
        if terms > TERMS_MAX {
            return Err(format!("lost disk: it has not led a block within {TERMS_MAX} terms"));
        }
        if block.header.leader == again.account {
            println!("it leads again {terms} terms later, after {:.1} s", began.elapsed().as_secs_f64());
            return Ok(());
        }
    }
}

/// An authority that runs in this process.
struct Authority {
    account: Account,
    service: SocketAddr,
    load: Arc<Load>,
    handle: Handle,
    stop: futures::channel::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

/// Starts the authority of a directory, whose p2p address is 100 ports below `service`.
fn start(at: &Path, service: SocketAddr, load: Arc<Load>) -> Authority {
    let listen = loopback(service.port() - 100);
    let config = Config::open(at, Settings::local(listen, service, true)).expect("it is whole");
    let account = Account::of(&config.key.public_key());
    let (_, serve) = over_sockets(Serving { key: config.key.clone(), address: service, private: true });
    let ((sender, receiver), (stop, stopped)) = (mpsc::channel(), futures::channel::oneshot::channel());
    let services: TokioServices = Box::new(move |context, handle, channel| {
        let _ = sender.send(handle.clone());
        let stopped = Box::pin(async move {
            let _: Result<(), _> = stopped.await;
            Ok(())
        });
        let served = serve(context, handle, channel);
        Box::pin(async move { futures::future::select(served, stopped).await.factor_first().0 })
    });
    let operations = load.clone();
    let run = move || {
        let ended: Result<(), RunError> = run_tokio(config, operations, services);
        if let Err(error) = ended {
            eprintln!("an authority: {error}");
        }
    };
    let thread = std::thread::Builder::new().stack_size(8 << 20).spawn(run).expect("threads are at hand");
    let handle = receiver.recv_timeout(FOLLOW_MAX).expect("it starts in time");
    Authority { account, service, load, handle, stop, thread }
}

/// Deals a network of four authorities.
fn deal(directory: &Path, parameters: Parameters) {
    let addresses: Vec<_> = (0..4).map(|index| loopback(9_610 + index)).collect();
    let supply = Amount::sync(1_000_000_000);
    let accounts = vec![(Account::of(&payer().public_key()), Amount::sync(100_000_000))];
    let rng = commonware_utils::TestRng::new(1);
    let (dealt, secrets) = genesis::deal(&addresses, parameters, supply, accounts, rng).expect("valid");
    let signatures = genesis::sign_all(&dealt, &secrets);
    for (index, secret) in secrets.iter().enumerate() {
        Config::deal(&directory.join(index.to_string()), &dealt, &signatures, secret).expect("writable");
    }
}

/// Starts four authorities, each in a thread of its own.
fn authorities(directory: &Path, transfers: u64) -> Vec<Authority> {
    let mut parameters = Parameters::LOCAL;
    parameters.block_ms =
        std::env::var("BLOCK_MS").map_or(parameters.block_ms, |ms| ms.parse().expect("a number"));
    if !directory.join("0").exists() {
        deal(directory, parameters);
    }
    let load = Arc::new(Load::new(transfers, genesis(directory).chain()));
    let mut starting = Vec::new();
    for index in 0..4 {
        let (at, load) = (directory.join(index.to_string()), load.clone());
        starting.push(std::thread::spawn(move || start(&at, loopback(9_710 + index), load)));
    }
    starting.into_iter().map(|thread| thread.join().expect("it starts")).collect()
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
    let takes_state = std::env::var_os("REPLAY").is_none();
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
        replayed_max: if takes_state { 0 } else { u64::MAX },
        private: true,
    };
    let began = Instant::now();
    let measure: follower::Beside<_> = Box::new(move |context: tokio::Context, handle: Handle| {
        let clock = context.child("clock");
        let measure = async move {
            let mut heights = handle.heights();
            let limit = if takes_state { FOLLOW_MAX } else { REPLAY_MAX };
            let mut first = handle.heights();
            let waits = async move { first.wait_for(|height| *height >= blocks).await.map(|height| *height) };
            let reached = clock.timeout(limit, waits).await;
            let Ok(reached) = reached else {
                println!("missed: at {} of {blocks} after {limit:?}", handle.applied());
                exit(1);
            };
            let reached = reached.expect("it runs");
            let (time, used) = (began.elapsed().as_secs_f64(), cpu());
            if takes_state {
                println!("state: in step at {reached} after {time:.1} s, CPU {used:.2} s");
            } else {
                let (rate, each) = (reached as f64 / time, 1_000.0 * used / reached as f64);
                println!(
                    "replay: {reached} blocks in {time:.1} s, {rate:.0} blocks/s, CPU {each:.2} ms per block"
                );
            }
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
