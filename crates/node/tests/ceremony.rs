//! Members of a ceremony in threads of one process, over real sockets and disks: what they say about one whose
//! clock or program is another.

use commonware_codec::Encode as _;
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_utils::sync::{Condvar, Mutex};
use posync_node::ceremony::{Card, Choices, Draft, Options, parse_address, run};
use posync_protocol::{Account, Amount};
use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Upper bound on every wait in these tests.
const PATIENCE: Duration = Duration::from_secs(120);

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

fn tomorrow_ms() -> u64 {
    now_ms() + 86_400_000
}

/// Lines that one member showed.
#[derive(Clone, Default)]
struct Screen(Arc<(Mutex<String>, Condvar)>);

impl Screen {
    fn show(&self, line: &str) {
        let mut lines = self.0.0.lock();
        *lines += line;
        lines.push('\n');
        self.0.1.notify_all();
    }

    fn shows(&self, words: &str) {
        let mut lines = self.0.0.lock();
        self.0.1.wait_while_for(&mut lines, |lines| !lines.contains(words), PATIENCE);
        assert!(lines.contains(words), "it shows no {words}: {lines}");
    }
}

/// Four members with their directories; `settings` changes the options of the last one.
fn members(home: &Path, settings: impl Fn(&mut Options)) -> (Vec<Account>, Vec<Screen>, Vec<PathBuf>) {
    let held: Vec<TcpListener> =
        (0..4).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    let ports: Vec<SocketAddr> = held.iter().map(|held| held.local_addr().expect("it is bound")).collect();
    drop(held);
    let keys: Vec<PrivateKey> = (0..4).map(PrivateKey::from_seed).collect();
    let card = |(key, port): (&PrivateKey, &SocketAddr)| {
        let address = parse_address(&port.to_string()).expect("an address");
        let addresses = (address.clone(), IpAddr::from([127, 0, 0, 1]), address);
        Card::new(key, addresses, Account::of(&key.public_key())).expect("a card")
    };
    let choices = Choices {
        parameters: "local".into(),
        overrides: Default::default(),
        supply: Amount::sync(1_000_000),
        accounts: Vec::new(),
        cards: keys.iter().zip(&ports).map(card).collect(),
        start_ms: now_ms(),
        nonce: [1; 16],
    };
    let text = Draft::compose(choices).expect("a draft");
    let mut screens = Vec::new();
    let mut directories = Vec::new();
    for (index, (key, port)) in keys.iter().zip(&ports).enumerate() {
        let directory = home.join(index.to_string());
        fs::create_dir(&directory).expect("writable");
        let digits: String = key.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(directory.join("node.key"), digits).expect("writable");
        let mut options = Options::new(*port, PATIENCE);
        if index == 3 {
            settings(&mut options);
        }
        let screen = Screen::default();
        screens.push(screen.clone());
        directories.push(directory.clone());
        let text = text.clone();
        // It waits for the others until the test ends.
        thread::spawn(move || {
            let draft = Draft::from_bytes(text.as_bytes()).expect("a draft");
            let ended = run(&directory, &draft, &options, &|line: &str| screen.show(line));
            screen.show(&format!("ended: {:?}", ended.map(|genesis| genesis.chain())));
        });
    }
    (keys.iter().map(|key| Account::of(&key.public_key())).collect(), screens, directories)
}

#[test]
fn a_clock_that_is_off_by_a_day_is_named_by_all_and_by_its_own_machine() {
    let home = tempfile::tempdir().expect("a directory");
    let (accounts, screens, directories) = members(home.path(), |options| options.clock_ms = tomorrow_ms);
    for screen in &screens[..3] {
        screen.shows(&format!("the clock of {}", accounts[3]));
        screen.shows("s ahead of this machine's");
    }
    screens[3].shows("the clock of this machine is 86");
    assert!(directories.iter().all(|directory| !directory.join("ceremony/begun").exists()));
}

#[test]
fn a_program_of_another_version_is_named_and_nothing_is_dealt() {
    let home = tempfile::tempdir().expect("a directory");
    let (accounts, screens, directories) = members(home.path(), |options| options.version = "0.0.9".into());
    for screen in &screens[..3] {
        screen.shows(&accounts[3].to_string());
        screen.shows("runs version 0.0.9 of the program");
    }
    screens[3].shows(&accounts[0].to_string());
    screens[3].shows("this machine 0.0.9");
    assert!(directories.iter().all(|directory| !directory.join("ceremony/begun").exists()));
}
