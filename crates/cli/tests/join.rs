//! A stranger joins a running network with one command, checks its machine, and leaves.

mod common;

use common::{Net, POSYNC, bytes, eventually, port, posync, signal, text};
use commonware_codec::{Copying, DecodeExt as _};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{Clock as _, Runner as _, Supervisor as _, tokio};
use futures::channel::oneshot;
use posync_client::{
    channel::Listen,
    connection::Endpoint,
    rpc::{self, Client, Incoming, Server, Service as _},
};
use posync_protocol::{
    Account, Bounded,
    block::sha256,
    record::{Provider, System},
    wire::node::{Ask, NodeAnswer, Unavailable},
};
use serde_json::Value;
use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// The JSON values that a command printed, one a line.
fn lines(printed: &[u8]) -> Vec<Value> {
    let printed = String::from_utf8_lossy(printed).into_owned();
    printed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// `posync join` in a directory of its own.
struct Joiner {
    directory: PathBuf,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl Joiner {
    fn new(home: &Path, line: &str, role: &str, settings: &[String]) -> Self {
        let directory = home.join("stranger");
        let mut arguments: Vec<String> =
            ["--json", "--net", line, "join", role, "--dir"].map(str::to_owned).to_vec();
        arguments.push(directory.display().to_string());
        settings.iter().for_each(|setting| arguments.extend(["--set".to_owned(), setting.clone()]));
        Self { directory, arguments, process: None }
    }

    fn start(&mut self) {
        let printed = File::create(self.directory.with_extension("out")).expect("writable");
        let log = File::create(self.directory.with_extension("err")).expect("writable");
        let mut command = Command::new(POSYNC);
        command.args(&self.arguments).env_remove("POSYNC_NET").stdin(Stdio::null());
        self.process = Some(command.stdout(printed).stderr(log).spawn().expect("it starts"));
    }

    /// The first line of this step so far.
    fn step(&self, step: &str) -> Option<Value> {
        let printed = fs::read(self.directory.with_extension("out")).unwrap_or_default();
        lines(&printed).into_iter().find(|line| line["step"] == step)
    }

    /// Waits for a step; panics with all that was said if it does not come.
    fn awaits(&mut self, step: &str, seconds: u64) -> Value {
        let start = Instant::now();
        loop {
            if let Some(line) = self.step(step) {
                return line;
            }
            let ended = self.process.as_mut().expect("it runs").try_wait().expect("its own child");
            let is_late = start.elapsed() > Duration::from_secs(seconds);
            assert!(ended.is_none() && !is_late, "no step {step}, {ended:?}: {}", self.told());
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn told(&self) -> String {
        let read = |kind| fs::read_to_string(self.directory.with_extension(kind)).unwrap_or_default();
        format!("{}{}", read("out"), read("err"))
    }

    fn end(&mut self, by: &str) -> Option<i32> {
        let mut child = self.process.take().expect("it runs");
        signal(by, child.id());
        child.wait().expect("it was started here").code()
    }
}

impl Drop for Joiner {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn settings(listen: u16, advertise: u16, capacity: &str) -> Vec<String> {
    vec![
        "operator=ann".to_owned(),
        "region=north".to_owned(),
        "private=true".to_owned(),
        format!("listen=127.0.0.1:{listen}"),
        format!("advertise=localhost:{advertise}"),
        format!("capacity={capacity}"),
    ]
}

fn line_of(net: &Net) -> String {
    let shown = posync(&["net", "show", "--net", net.directory.to_str().expect("text")]);
    text(&lines(&shown.stdout)[0]["line"]).to_owned()
}

/// The check of this name in what `doctor` printed.
fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("a list");
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no check {name}: {report}"))
}

#[test]
fn a_stranger_joins_with_one_command_is_killed_while_it_waits_and_leaves() {
    let net = Net::start_with(&["--providers", "8"]);
    let home = tempfile::tempdir().expect("a directory");
    let line = line_of(&net);
    let at = port();
    let mut joiner = Joiner::new(home.path(), &line, "provider", &settings(at, at, "2 GiB"));

    // The money never comes.
    let arguments: Vec<&str> = joiner.arguments.iter().skip(1).map(String::as_str).collect();
    let late = posync(&[&arguments[..], &["--patience", "1"]].concat());
    let said = String::from_utf8_lossy(&late.stderr).into_owned();
    assert!(late.status.code() == Some(7) && said.contains("the money to join"), "{said}");
    let account = text(&lines(&late.stdout)[0]["account"]).to_owned();
    assert!(said.contains(&account), "{said}");

    // Killed in the middle of the wait, it goes on as the same member.
    joiner.start();
    joiner.awaits("money", 60);
    joiner.end("KILL");
    joiner.start();
    assert_eq!(text(&joiner.awaits("account", 60)["account"]), account);
    let sum = text(&joiner.awaits("sum", 60)["sum"]["sync"]).to_owned();
    net.ask(&["send", &account, &sum]);
    let paid = Instant::now();
    let registered = joiner.awaits("registered", 60);
    let took = paid.elapsed();
    eprintln!("registered {:.1} s after the money came", took.as_secs_f64());
    assert_eq!(text(&registered["address"]), format!("localhost:{at}"));
    let rows = net.ask(&["providers"]);
    let row = rows.as_array().expect("a list").iter().find(|row| row["account"] == account.as_str());
    assert_eq!(row.expect("on offer")["capacity_bytes"], 2_u64 << 30);

    is_healthy(&joiner.directory);
    leaves(&net, &joiner.directory, &account);
    assert_eq!(joiner.end("TERM"), Some(0), "{}", joiner.told());
    joiner.start();
    joiner.awaits("again", 60);
    assert_eq!(joiner.end("TERM"), Some(0), "{}", joiner.told());
}

/// The checks pass while the role runs, and change nothing.
fn is_healthy(directory: &Path) {
    let directory = directory.to_str().expect("text");
    let healthy = posync(&["doctor", "--dir", directory]);
    let report = &lines(&healthy.stdout)[0];
    assert!(healthy.status.success() && report["ok"] == true, "{report}");
    for name in ["descriptors", "address", "key", "port", "nodes", "clock", "outside"] {
        assert_eq!(check(report, name)["state"], "ok", "{name}: {report}");
    }
    assert!(text(&check(report, "port")["what"]).contains("the role listens"), "{report}");
}

/// The first run announces, the second one only shows.
fn leaves(net: &Net, directory: &Path, account: &str) {
    let leave = || {
        let left = posync(&["leave", "--dir", directory.to_str().expect("text")]);
        assert!(left.status.success(), "{}", String::from_utf8_lossy(&left.stderr));
        lines(&left.stdout).swap_remove(0)
    };
    let first = leave();
    let (epoch, leaves_at) = (first["epoch"].as_u64(), first["leaves_at"].as_u64());
    assert!(leaves_at > epoch && first["bond_returns_epoch"].as_u64() > leaves_at, "{first}");
    assert_eq!(first["may_switch_off"], false);
    assert_eq!(
        first["slots"].as_u64(),
        first["agreements"].as_array().map(|all| all.len() as u64),
        "{first}"
    );
    let again = leave();
    assert_eq!(again["leaves_at"].as_u64(), leaves_at, "{again}");
    assert_eq!(again["account"], account);
    let blocks = String::from_utf8(net.run(&["blocks"]).stdout).expect("text");
    assert_eq!(blocks.matches("\"leave\":true").count(), 1, "nothing is sent twice");
}

#[test]
fn who_left_is_registered_by_no_start_but_the_one_that_says_so() {
    let net = Net::start_with(&["--providers", "8"]);
    let home = tempfile::tempdir().expect("a directory");
    let (line, at) = (line_of(&net), port());
    let mut joiner = Joiner::new(home.path(), &line, "provider", &settings(at, at, "1 GiB"));
    joiner.start();
    let sum = joiner.awaits("sum", 60);
    let account = text(&sum["account"]).to_owned();
    joiner.awaits("money", 60);
    joiner.end("KILL");
    let directory = joiner.directory.to_str().expect("text");
    let leave = || lines(&posync(&["leave", "--dir", directory]).stdout).swap_remove(0);
    let first = leave();
    assert_eq!((&first["registered"], &first["may_switch_off"]), (&false.into(), &false.into()), "{first}");
    assert!(first["sure_after_block"].as_u64().is_some(), "what was signed before may still come: {first}");
    net.ask(&["send", &account, text(&sum["sum"]["sync"])]);
    let is_on_offer = || {
        let rows = net.ask(&["providers"]);
        rows.as_array().expect("a list").iter().any(|row| row["account"] == account.as_str())
    };
    // It waits until no registration can come any more, and ends.
    let ended = posync(&["start", "--dir", directory]);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(0), "nobody shall start it again: {said}");
    assert!(said.contains("may be switched off") && said.contains("--register-again"), "{said}");
    assert!(!is_on_offer(), "{said}");
    assert_eq!(leave()["may_switch_off"], true);
    let log = File::create(home.path().join("again")).expect("writable");
    let mut again = Command::new(POSYNC);
    again.args(["start", "--dir", directory, "--register-again"]).stdin(Stdio::null()).stderr(log);
    joiner.process = Some(again.spawn().expect("it starts"));
    eventually(60, "it is called back", is_on_offer);
    assert_eq!(joiner.end("TERM"), Some(0));
}

/// A node that answers at once with the states of one old block, and an honest one that is far away. Both are there
/// until the value is dropped.
struct Pair {
    old: Endpoint,
    far: Endpoint,
    _end: oneshot::Sender<()>,
}

impl Pair {
    /// Both ask the node `honest`; the old one keeps what that proves now about `account`.
    fn beside(honest: Endpoint, account: Account) -> Self {
        let ((tell, told), (end, ended)) = (mpsc::channel(), oneshot::channel());
        std::thread::spawn(move || {
            tokio::Runner::new(tokio::Config::new()).start(|context| async move {
                let (asking, own) = (context.child("asking"), secret(70));
                let client = Client::dial(asking, &context, &own, honest.account, honest.address).await;
                let client: Client<rpc::Node> = client.expect("it is reached");
                let mut kept = Vec::new();
                for key in [System::key(), Provider::key(&account)] {
                    let ask = Ask::Read(Bounded::new(vec![key]).expect("one"));
                    let answer = client.call(ask.clone()).await.expect("it answers");
                    assert!(matches!(answer, NodeAnswer::Read(_)), "{answer:?}");
                    kept.push((ask, answer));
                }
                let old = serve(&context, 71, client.clone(), kept).await;
                let far = serve(&context, 72, client, Vec::new()).await;
                tell.send((old, far)).expect("the test waits");
                let _ = ended.await;
            });
        });
        let (old, far) = told.recv().expect("both listen");
        Self { old, far, _end: end }
    }
}

fn secret(seed: u8) -> PrivateKey {
    PrivateKey::decode(Copying(&[seed; 32])).expect("a key")
}

/// Serves what `kept` holds at once and nothing else but the description of the network; without it, serves all, late.
async fn serve(
    context: &tokio::Context,
    seed: u8,
    behind: Client<rpc::Node>,
    kept: Vec<(Ask, NodeAnswer)>,
) -> Endpoint {
    let clock = std::sync::Arc::new(context.child("late"));
    let server = Server::<rpc::Node, _>::new(move |call: Incoming<rpc::Node>, ask: Ask| {
        let (behind, clock, kept) = (behind.clone(), clock.clone(), kept.clone());
        async move {
            if let Some((_, answer)) = kept.iter().find(|(kept, _)| *kept == ask) {
                return drop(call.finish(answer).await);
            }
            if !kept.is_empty() && !matches!(ask, Ask::Info(_)) {
                return drop(call.finish(&NodeAnswer::Unavailable(Unavailable::Busy)).await);
            }
            if kept.is_empty() {
                clock.sleep(Duration::from_millis(700)).await;
            }
            let mut answers = behind.open(ask).await.expect("the honest node lives");
            while let Some(answer) = answers.recv().await {
                drop(call.send(&answer).await);
            }
        }
    });
    let own = secret(seed);
    let account = Account::of(&own.public_key());
    let listen = Listen::new(own, rpc::Node::NAMESPACE, (Ipv4Addr::LOCALHOST, 0).into());
    let listening = server.listen(context.child("node"), context, listen).await.expect("a free port");
    Endpoint { account, address: listening.address.into() }
}

/// The network file of a network as `net show` prints it, with these nodes and no gateway.
fn network_file(shown: &Value, nodes: &[&Endpoint]) -> String {
    let block = shown["checkpoint"]["height"].as_u64().expect("a height");
    let mut all = vec![1];
    all.extend(bytes::<32>(&shown["chain"]));
    all.extend(bytes::<96>(&shown["network_key"]));
    all.extend(bytes::<32>(&shown["parameters"]));
    all.extend(block.to_be_bytes());
    all.extend(bytes::<32>(&shown["checkpoint"]["block"]));
    all.push(u8::try_from(nodes.len()).expect("few"));
    let mut tables = String::new();
    for node in nodes {
        let at: SocketAddr = node.address.to_string().parse().expect("an address");
        all.extend(node.account.0);
        all.extend([0, 4]);
        all.extend(Ipv4Addr::LOCALHOST.octets());
        all.extend(at.port().to_be_bytes());
        tables += &format!("[[node]]\naccount = \"{}\"\naddress = \"{at}\"\n", node.account);
    }
    all.push(0);
    let checksum = hex::encode(&sha256(&[b"posync/net/1".as_slice(), &all].concat())[..4]);
    let of = |name: &str| text(&shown[name]).to_owned();
    format!(
        "version = 1\nchain = \"{}\"\nnetwork_key = \"{}\"\nparameters = \"{}\"\nchecksum = \"{checksum}\"\n\
         [checkpoint]\nheight = {block}\nblock = \"{}\"\n{tables}",
        of("chain"),
        of("network_key"),
        of("parameters"),
        text(&shown["checkpoint"]["block"])
    )
}

/// A provider has one node near that keeps a state from before its registration, and an honest one far away.
#[test]
fn old_states_of_one_near_node_switch_no_provider_off() {
    let net = Net::start_with(&["--providers", "8"]);
    let home = tempfile::tempdir().expect("a directory");
    let shown = posync(&["net", "show", "--net", net.directory.to_str().expect("text")]);
    let shown = lines(&shown.stdout).swap_remove(0);
    let at = port();
    let mut joiner = Joiner::new(home.path(), text(&shown["line"]), "provider", &settings(at, at, "1 GiB"));
    joiner.start();
    let sum = joiner.awaits("sum", 60);
    let account: Account = text(&sum["account"]).parse().expect("an account");
    // The old state is above the last block of what was signed before a mark at block 1.
    net.wait_for(&["status"], 240, "a registration expires", |status| {
        status["height"].as_u64() > Some(1 + posync_protocol::limits::Parameters::LOCAL.expiry_blocks_max)
    });
    let honest = &shown["nodes"][0];
    let honest = Endpoint {
        account: text(&honest["account"]).parse().expect("an account"),
        address: text(&honest["address"]).parse().expect("an address"),
    };
    let pair = Pair::beside(honest, account);
    net.ask(&["send", text(&sum["account"]), text(&sum["sum"]["sync"])]);
    joiner.awaits("registered", 60);
    let registered = net.height();
    assert_eq!(joiner.end("TERM"), Some(0), "{}", joiner.told());

    let directory = joiner.directory.clone();
    // Nothing else is known, as at a provider that never reached another node.
    fs::write(directory.join("nodes.known"), "").expect("writable");
    let knows = |nodes: &[&Endpoint]| {
        fs::write(directory.join("network.toml"), network_file(&shown, nodes)).expect("writable");
    };
    let leave = || {
        let left = posync(&["leave", "--dir", directory.to_str().expect("text")]);
        assert!(left.status.success(), "{}", String::from_utf8_lossy(&left.stderr));
        lines(&left.stdout).swap_remove(0)
    };
    let (mark, low) = (directory.join("left"), "left at height 1\n");
    knows(&[&pair.old, &pair.far]);
    let first = leave();
    assert_eq!((&first["registered"], &first["may_switch_off"]), (&true.into(), &false.into()), "{first}");
    assert!(first["leaves_at"].as_u64() > first["epoch"].as_u64(), "the notice was sent: {first}");
    let noted = fs::read_to_string(&mark).expect("there");
    // One honest node is too few for a height; if the other's state is a moment old, both prove one.
    let height = noted.lines().next().and_then(|line| line.strip_prefix("left at height "));
    let height: Option<u64> = height.map(|height| height.parse().expect("a number"));
    assert!(noted.starts_with("left") && height.is_none_or(|height| height >= registered), "{noted}");

    // With a mark of long ago too, and if the honest one cannot be reached.
    fs::write(&mark, low).expect("writable");
    assert_eq!(leave()["registered"], true);
    let gone = Endpoint { address: format!("127.0.0.1:{}", port()).parse().expect("an address"), ..pair.far };
    knows(&[&pair.old, &gone]);
    let alone = leave();
    assert_eq!((&alone["may_switch_off"], &alone["proved_by_nodes"]), (&false.into(), &0.into()), "{alone}");
    assert!(text(&alone["unproved_by"]).contains(&gone.address.to_string()), "it is named: {alone}");

    // One node that is the only one given counts, and the answer says so.
    knows(&[&pair.old]);
    let only = leave();
    assert_eq!((&only["may_switch_off"], &only["proved_by_nodes"]), (&true.into(), &1.into()), "{only}");
}

#[test]
fn a_machine_that_cannot_be_reached_joins_nothing_and_learns_which_side_is_closed() {
    let net = Net::start_with(&["--providers", "8"]);
    let line = line_of(&net);
    let joins = |settings: &[String]| {
        let home = tempfile::tempdir().expect("a directory");
        let joiner = Joiner::new(home.path(), &line, "provider", settings);
        // A new disk is mounted where the shards will be: that is no sign of a lost key.
        fs::create_dir_all(joiner.directory.join("storage/lost+found")).expect("made");
        let arguments: Vec<&str> = joiner.arguments.iter().skip(1).map(String::as_str).collect();
        let refused = posync(&arguments);
        assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stdout));
        assert!(!lines(&refused.stdout).iter().any(|line| line["step"] == "sum"), "it asks for no money");
        let directory = joiner.directory.to_str().expect("text");
        let doctor = posync(&["doctor", "--dir", directory]);
        assert_eq!(doctor.status.code(), Some(1), "doctor says the same");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        (said, lines(&doctor.stdout).swap_remove(0))
    };
    let (here, nowhere) = (port(), port());
    let (said, report) = joins(&settings(here, nowhere, "1 GiB"));
    assert!(said.contains(&format!("no node reaches port {nowhere}")) && said.contains("firewall"), "{said}");
    assert_eq!(
        (&check(&report, "port")["state"], &check(&report, "outside")["state"]),
        (&"ok".into(), &"fail".into())
    );

    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = taken.local_addr().expect("bound").port();
    let (said, report) = joins(&settings(at, at, "1 GiB"));
    assert!(said.contains(&format!("port {at} is taken")), "{said}");
    assert!(said.contains("set another port in `listen` and in `advertise`"), "{said}");
    assert!(text(&check(&report, "outside")["why"]).contains("closed side is here"), "{report}");

    // The announced address is another machine's: a provider with another key answers there, or nobody.
    let other = net.description()["nodes"]
        .as_array()
        .expect("a list")
        .iter()
        .find_map(|node| (node["role"] == "provider").then(|| text(&node["address"]).to_owned()));
    let other: SocketAddr = other.expect("a provider").parse().expect("an address");
    let answers = TcpListener::bind(("127.0.0.2", 0)).expect("another address of this machine");
    let relayed = answers.local_addr().expect("bound");
    thread::spawn(move || pass_on(&answers, other));
    let nobody = SocketAddr::from(([127, 0, 0, 2], port()));
    for (announced, who) in
        [(relayed, "another program or another key answers there"), (nobody, "nobody answers there")]
    {
        let here = port();
        let mut elsewhere = settings(here, here, "1 GiB");
        elsewhere[4] = format!("advertise={announced}");
        let (said, report) = joins(&elsewhere);
        let outside = check(&report, "outside");
        assert_eq!(outside["state"], "fail", "{report}");
        assert!(said.contains("the announced address leads elsewhere") && said.contains(who), "{said}");
        assert!(text(&outside["what"]).contains(&announced.to_string()), "{report}");
        assert!(text(&outside["why"]).contains("nodes see this machine at 127.0.0.1"), "{report}");
        assert!(text(&outside["next"]).contains("set `advertise`"), "{report}");
    }
    let here = port();
    let mut misspelt = settings(here, here, "1 GiB");
    misspelt[4] = format!("advertise=storage.invalid:{here}");
    let (said, report) = joins(&misspelt);
    assert!(said.contains("storage.invalid") && said.contains("has no address here"), "{said}");
    assert_eq!(check(&report, "address")["state"], "fail", "{report}");

    let at = port();
    let (said, report) = joins(&settings(at, at, "4000000 GiB"));
    assert!(said.contains("disk: ") && said.contains("capacity"), "{said}");
    assert_eq!(check(&report, "outside")["state"], "ok", "{report}");
}

/// Passes the bytes of each connection on to `to`.
fn pass_on(listener: &TcpListener, to: SocketAddr) {
    while let Ok((near, _)) = listener.accept() {
        let far = TcpStream::connect(to).expect("it listens");
        for (mut from, mut to) in
            [(near.try_clone().expect("a socket"), far.try_clone().expect("a socket")), (far, near)]
        {
            thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }
}

/// An authority's port for the others is tested from outside as its service is, and so is a gateway that has users; both
/// while the role runs and while it does not. A machine that lets nobody in there is named.
#[test]
fn the_doctor_tests_the_way_to_an_authoritys_peers_and_to_a_gateway_with_users_from_outside() {
    let net = Net::start_with(&["--providers", "8"]);
    let doctor = |directory: &Path| {
        let report = posync(&["doctor", "--dir", directory.to_str().expect("text")]);
        (report.status.code(), lines(&report.stdout).swap_remove(0))
    };
    let authority = net.directory.join("authority-3");
    for runs in [true, false] {
        if !runs {
            common::end(net.pid("authority-3"));
        }
        // One dial-back that takes long on a busy machine is a warning.
        let report = {
            let mut last = serde_json::Value::Null;
            eventually(120, "both ports are reached from outside", || {
                let (code, report) = doctor(&authority);
                let are_ok = ["consensus", "outside"].map(|name| check(&report, name)["state"] == "ok");
                last = report;
                code == Some(0) && are_ok == [true, true]
            });
            last
        };
        assert!(
            text(&check(&report, "consensus")["what"]).contains("that dialled back reach port"),
            "{report}"
        );
        let listens = report["checks"].as_array().expect("a list").iter();
        let listens = listens.filter(|check| check["name"] == "port" && check["state"] == "ok");
        assert_eq!(listens.count(), 2, "{report}");
    }
    // The genesis names another port than the one on which it listens: the others never reach it.
    let before = fs::read_to_string(authority.join("config.toml")).expect("there");
    let closed = port();
    common::set(&authority, "advertise", &format!("\"127.0.0.1:{closed}\""));
    let (code, report) = doctor(&authority);
    let consensus = check(&report, "consensus");
    assert_eq!((code, &consensus["state"]), (Some(1), &"fail".into()), "{report}");
    assert!(text(&consensus["what"]).contains(&format!("no node reaches port {closed}")), "{report}");
    assert!(text(&consensus["next"]).contains("`advertise` names the port"), "{report}");
    fs::write(authority.join("config.toml"), before).expect("writable");
    // Another program has the port.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = taken.local_addr().expect("bound");
    common::set(&authority, "listen", &format!("\"{at}\""));
    let (code, report) = doctor(&authority);
    assert_eq!((code, &check(&report, "consensus")["state"]), (Some(1), &"fail".into()), "{report}");
    assert!(text(&check(&report, "consensus")["why"]).contains("closed side is here"), "{report}");

    gateways_with_users(&net, doctor);
}

/// A gateway for its owner alone is not dialled back; one with users is, and a router before it is a warning.
fn gateways_with_users(net: &Net, doctor: impl Fn(&Path) -> (Option<i32>, serde_json::Value)) {
    let gateway = net.directory.join("gateway");
    let (_, report) = doctor(&gateway);
    assert!(!report.to_string().contains("\"outside\""), "its owner is at home: {report}");
    let user = text(&net.ask(&["account"])["account"]).to_owned();
    // A local network gives it a loopback address of its own, at which nobody is dialled back: as behind a router. Users on
    // its own side reach it there, so that is a warning.
    common::end(net.pid("gateway"));
    common::set(&gateway, "users", &format!("[\"{user}\"]"));
    eventually(120, "a gateway that only its own network reaches is well", || {
        let (code, report) = doctor(&gateway);
        let outside = check(&report, "outside");
        let next = text(&outside["next"]);
        code == Some(0)
            && outside["state"] == "warn"
            && next.contains("To let others in: ")
            && next.contains("NAT")
    });
    common::set(&gateway, "listen", &format!("\"127.0.0.1:{}\"", port()));
    eventually(120, "a gateway with users is reached from outside", || {
        let (code, report) = doctor(&gateway);
        code == Some(0) && check(&report, "outside")["state"] == "ok"
    });
}

#[test]
fn a_gateway_joins_with_the_sum_that_it_names_and_stores_a_file() {
    let net = Net::start_with(&["--providers", "8"]);
    let home = tempfile::tempdir().expect("a directory");
    let (line, at) = (line_of(&net), port());
    let owner = text(&net.ask(&["account"])["account"]).to_owned();
    let settings = [format!("owner={owner}"), "private=true".into(), format!("listen=127.0.0.1:{at}")];
    let mut joiner = Joiner::new(home.path(), &line, "gateway", &settings);
    joiner.start();
    let sum = joiner.awaits("sum", 60);
    net.ask(&["send", text(&sum["account"]), text(&sum["sum"]["sync"])]);
    joiner.awaits("start", 60);
    let source = common::file(home.path(), "source", 100_000, 5);
    let gateway = format!("{}@127.0.0.1:{at}", text(&sum["account"]));
    let user = net.directory.join("user.key");
    let user = user.to_str().expect("text");
    let by = ["--net", &line, "--key", user, "--gateway", &gateway];
    let put = [&by[..], &["put", source.to_str().expect("text"), "first"]].concat();
    eventually(120, "the sum is enough for its agreements", || posync(&put).status.success());
    assert_eq!(joiner.end("TERM"), Some(0), "{}", joiner.told());
}

#[test]
fn a_broken_directory_is_named_by_the_doctor_and_never_repaired_by_it() {
    let home = tempfile::tempdir().expect("a directory");
    let at = home.path().join("provider");
    let directory = at.to_str().expect("text");
    let (code, said) = refused(&["doctor", "--dir", directory]);
    assert!(code == 4 && said.contains("posync join"), "{said}");
    assert!(posync(&["init", "provider", "--dir", directory]).status.success());
    let report = posync(&["doctor", "--dir", directory]);
    let shown = &lines(&report.stdout)[0];
    assert_eq!(
        (report.status.code(), &check(shown, "network")["state"]),
        (Some(1), &"fail".into()),
        "{shown}"
    );
    fs::remove_file(at.join("node.key")).expect("there");
    let report = posync(&["doctor", "--dir", directory]);
    assert_eq!(check(&lines(&report.stdout)[0], "key")["state"], "fail");
    assert!(!at.join("node.key").exists(), "a check makes nothing");
    fs::write(at.join("config.toml"), "role = \"provider\"\ncapacty = 1\n").expect("writable");
    let report = posync(&["doctor", "--dir", directory]);
    let shown = &lines(&report.stdout)[0];
    assert!(text(&check(shown, "directory")["next"]).contains("`capacity`"), "{shown}");
    eventually(1, "the directory is as it was", || fs::read_dir(&at).expect("there").count() == 1);
}

#[test]
fn the_doctor_finds_an_authority_before_its_ceremony_well_if_both_of_its_ports_are_free() {
    let home = tempfile::tempdir().expect("a directory");
    let at = home.path().join("authority");
    let directory = at.to_str().expect("text");
    let held: Vec<TcpListener> =
        (0..2).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    let [peers, service] = [0, 1].map(|index: usize| held[index].local_addr().expect("bound"));
    let settings =
        [format!("listen={peers}"), format!("service_listen={service}"), "private=true".to_owned()];
    let mut arguments = vec!["init", "authority", "--dir", directory];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    assert!(posync(&arguments).status.success());
    let (code, said) = refused(&["doctor", "--dir", directory]);
    for at in [peers, service] {
        assert!(code == 1 && said.contains(&format!("authority cannot listen on {at}")), "{said}");
    }
    for setting in ["`listen`", "`service_listen`"] {
        assert!(said.contains(&format!("set another port in {setting}")), "{said}");
    }
    drop(held);
    let report = posync(&["doctor", "--dir", directory]);
    let shown = &lines(&report.stdout)[0];
    assert_eq!(report.status.code(), Some(0), "{shown}");
    let network = check(shown, "network");
    assert!(network["state"] == "warn" && text(&network["next"]).contains("posync ceremony"), "{shown}");
}

/// Runs a command that must fail; returns its exit code and its messages.
fn refused(arguments: &[&str]) -> (i32, String) {
    let output = posync(arguments);
    assert!(!output.status.success(), "{arguments:?} was expected to fail");
    (output.status.code().expect("not killed"), String::from_utf8_lossy(&output.stderr).into_owned())
}
