//! Four authorities in one process over real sockets and disks, on loopback, for a while: prints what
//! they reached. Run it twice on the same directory to see that the height goes on.
//!
//! `cargo run -p posync-node --example loopback -- <directory> [seconds]`

use futures::FutureExt as _;
use posync_node::{
    config::{Config, Settings},
    genesis,
    handle::{Handle, Operations},
    run::run_tokio,
};
use posync_protocol::{Amount, Operation, ledger::BlockContext, limits::Parameters};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, mpsc},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

struct Nothing;

impl Operations for Nothing {
    fn candidates(&self, _: &BlockContext) -> Vec<Operation> {
        Vec::new()
    }

    fn finalized(&self, _: u64, _: &[Operation]) {}
}

fn main() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).init();
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().expect("name a directory"));
    let seconds = arguments.next().map_or(20, |text| text.parse().expect("seconds are a number"));
    if !directory.join("0").exists() {
        create(&directory);
    }
    let (sender, receiver) = mpsc::channel();
    for index in 0..4 {
        let (directory, sender) = (directory.join(index.to_string()), sender.clone());
        let thread = std::thread::Builder::new().stack_size(8 << 20);
        let node = move || {
            let services = Box::new(move |_, handle: Handle, _| follow(index, handle, sender).boxed());
            let result = run_tokio(&directory, Arc::new(Nothing), services);
            eprintln!("authority {index}: {result:?}");
        };
        thread.spawn(node).expect("threads are at hand");
    }
    measure(&receiver, Duration::from_secs(seconds));
}

fn create(directory: &std::path::Path) {
    let mut parameters = Parameters::LOCAL;
    parameters.block_ms =
        std::env::var("BLOCK_MS").map_or(parameters.block_ms, |ms| ms.parse().expect("a number"));
    let addresses: Vec<SocketAddr> = (0..4).map(|i| SocketAddr::from(([127, 0, 0, 1], 9_600 + i))).collect();
    let supply = Amount::sync(1_000_000_000);
    let rng = commonware_utils::TestRng::new(1);
    let (genesis, secrets) = genesis::deal(&addresses, parameters, supply, Vec::new(), rng).expect("valid");
    for (index, (secret, address)) in secrets.iter().zip(&addresses).enumerate() {
        let settings = Settings::local(*address, SocketAddr::from(([127, 0, 0, 1], 9_700 + index as u16)));
        let at = directory.join(index.to_string());
        Config::create(&at, &genesis, &settings, secret).expect("the directory is writable");
    }
}

async fn follow(index: usize, handle: Handle, sender: mpsc::Sender<(usize, u64, u64)>) {
    let mut follow = handle.subscribe_finalized(handle.applied() + 1);
    while let Ok(block) = follow.next().await {
        if sender.send((index, block.header.height, block.header.time_ms)).is_err() {
            return;
        }
    }
}

/// Prints the block rate and how long after its proposal a block was applied.
fn measure(receiver: &mpsc::Receiver<(usize, u64, u64)>, run: Duration) {
    let (start, mut first, mut last, mut delays) = (Instant::now(), None, (Instant::now(), 0), Vec::new());
    while let Ok((index, height, time_ms)) = receiver.recv_timeout(run.saturating_sub(start.elapsed())) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_millis() as u64;
        delays.push(now.saturating_sub(time_ms));
        if index == 0 {
            first.get_or_insert((Instant::now(), height));
            last = (Instant::now(), height);
        }
    }
    delays.sort_unstable();
    let Some((began, from)) = first else { return println!("no block in {run:?}") };
    let rate = (last.1 - from) as f64 / (last.0 - began).as_secs_f64();
    let at = |part: usize| delays[(delays.len() - 1) * part / 100];
    println!(
        "heights {from}..={} at {rate:.2} blocks/s; applied after p50 {} ms, p99 {} ms",
        last.1,
        at(50),
        at(99)
    );
}
