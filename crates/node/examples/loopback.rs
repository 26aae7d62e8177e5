//! Runs four authorities in one process over real sockets and disks, on loopback, for a while, and prints
//! the height they reached. Run it twice on the same directory to see that the height continues.
//!
//! `cargo run -p posync-node --example loopback -- <directory> [seconds] [transfers per block]`; the
//! environment variable `BLOCK_MS` sets the pace of a new network.

mod load;

use commonware_cryptography::Signer as _;
use futures::FutureExt as _;
use load::{Load, payer};
use posync_node::{
    config::{Config, Settings},
    genesis::{self, Genesis},
    handle::Handle,
    run::{RunError, run_tokio},
};
use posync_protocol::{Account, Amount, limits::Parameters};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, mpsc},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

fn main() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).init();
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().expect("name a directory"));
    let seconds = arguments.next().map_or(20, |text| text.parse().expect("seconds are a number"));
    let transfers = arguments.next().map_or(0, |text| text.parse().expect("transfers are a number"));
    if !directory.join("0").exists() {
        create(&directory);
    }
    let genesis = std::fs::read(directory.join("0/genesis")).expect("it was just written");
    let chain = Genesis::from_bytes(&genesis).expect("it was just written").chain();
    let load = Arc::new(Load::new(transfers, chain));
    let (sender, receiver) = mpsc::channel();
    for index in 0..4 {
        let (directory, sender) = (directory.join(index.to_string()), sender.clone());
        let load = load.clone();
        let thread = std::thread::Builder::new().stack_size(8 << 20);
        let node = move || {
            let services = Box::new(move |_, handle: Handle, _| follow(index, handle, sender).boxed());
            let config = Config::open(&directory, settings(index)).expect("the directory is whole");
            let result = run_tokio(config, load, services);
            eprintln!("authority {index}: {result:?}");
        };
        thread.spawn(node).expect("threads are at hand");
    }
    measure(&receiver, Duration::from_secs(seconds));
}

fn settings(index: usize) -> Settings {
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port + index as u16));
    Settings::local(address(9_600), address(9_700), false)
}

fn create(directory: &std::path::Path) {
    let mut parameters = Parameters::LOCAL;
    parameters.block_ms =
        std::env::var("BLOCK_MS").map_or(parameters.block_ms, |ms| ms.parse().expect("a number"));
    let addresses: Vec<SocketAddr> = (0..4).map(|index| settings(index).listen).collect();
    let supply = Amount::sync(1_000_000_000);
    let payer = Account::of(&payer().public_key());
    let rng = commonware_utils::TestRng::new(1);
    let (genesis, secrets) =
        genesis::deal(&addresses, parameters, supply, vec![(payer, Amount::sync(100_000_000))], rng)
            .expect("valid");
    let signatures = genesis::sign_all(&genesis, &secrets);
    for (index, secret) in secrets.iter().enumerate() {
        let at = directory.join(index.to_string());
        Config::deal(&at, &genesis, &signatures, secret).expect("the directory is writable");
    }
}

/// Index of the authority, height, time of the proposal (ms since 1970), number of operations.
type Applied = (usize, u64, u64, usize);

async fn follow(index: usize, handle: Handle, sender: mpsc::Sender<Applied>) -> Result<(), RunError> {
    let mut follow = handle.subscribe_finalized(handle.applied() + 1);
    while let Ok(block) = follow.next().await {
        let operations = block.body.operations.len();
        if sender.send((index, block.header.height, block.header.time_ms, operations)).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Prints the block rate, and the delay from a block's proposal to its application.
fn measure(receiver: &mpsc::Receiver<Applied>, run: Duration) {
    let mut all = 0;
    let (start, mut first, mut last, mut delays) = (Instant::now(), None, (Instant::now(), 0), Vec::new());
    while let Ok((index, height, time_ms, operations)) =
        receiver.recv_timeout(run.saturating_sub(start.elapsed()))
    {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_millis() as u64;
        delays.push(now.saturating_sub(time_ms));
        if index == 0 {
            first.get_or_insert((Instant::now(), height));
            last = (Instant::now(), height);
            all += operations;
        }
    }
    delays.sort_unstable();
    let Some((began, from)) = first else { return println!("no block in {run:?}") };
    let rate = (last.1 - from) as f64 / (last.0 - began).as_secs_f64();
    let at = |part: usize| delays[(delays.len() - 1) * part / 100];
    println!(
        "heights {from}..={} at {rate:.2} blocks/s, {all} operations; applied after p50 {} ms, p99 {} ms",
        last.1,
        at(50),
        at(99)
    );
}
