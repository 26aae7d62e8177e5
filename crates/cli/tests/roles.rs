//! Roles that are started on their own, without `devnet`: a provider and a gateway of other owners join a
//! running network with its network file alone.

mod common;

use common::{Net, POSYNC, eventually, port, posync, signal, text};
use posync_client::address::Address;
use posync_protocol::{Account, block::sha256, limits::Parameters};
use serde_json::Value;
use std::{
    fs::{self, File},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use toml_edit::{DocumentMut, value};

/// A network key that is a point of its group, and no network's.
const OTHER_KEY: &str = "93e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8";

/// Runs a command that must succeed; returns its answer.
fn ask(arguments: &[&str]) -> Value {
    let output = posync(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Runs a command that must fail; returns its exit code and its messages.
fn refuse(arguments: &[&str]) -> (i32, String) {
    let output = posync(arguments);
    assert!(!output.status.success(), "{arguments:?} was expected to fail");
    (output.status.code().expect("not killed"), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A role in a directory of its own, and its process.
struct Member {
    directory: PathBuf,
    account: String,
    process: Option<Child>,
}

impl Member {
    fn init(home: &Path, role: &str, line: &str, settings: &[String]) -> Self {
        let directory = home.join(role);
        let mut arguments = vec!["--net", line, "init", role, "--dir", directory.to_str().expect("text")];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        let made = ask(&arguments);
        Self { directory, account: text(&made["account"]).to_owned(), process: None }
    }

    fn start(&mut self) {
        let log = File::create(self.directory.with_extension("log")).expect("writable");
        let mut command = Command::new(POSYNC);
        command.args(["start", "--dir"]).arg(&self.directory);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.process = Some(child.expect("it starts"));
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.with_extension("log")).unwrap_or_default()
    }

    fn is_ready(&self) {
        eventually(60, "it applies a block", || {
            assert!(!self.log().contains("ERROR"), "{}", self.log());
            self.log().contains("ready: ")
        });
    }

    /// Asks the role to end, and returns its exit code.
    fn end(&mut self) -> Option<i32> {
        let mut child = self.process.take().expect("it runs");
        signal("TERM", child.id());
        child.wait().expect("it was started here").code()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn row<'a>(rows: &'a Value, account: &str) -> Option<&'a Value> {
    rows.as_array().expect("a list").iter().find(|row| row["account"] == account)
}

#[test]
fn a_provider_and_a_gateway_of_other_owners_join_with_the_network_file_alone() {
    // With eight others, the ninth provider holds a shard of nearly every segment.
    let net = Net::start_with(&["--providers", "8"]);
    let home = tempfile::tempdir().expect("a directory");
    let shown = ask(&["net", "show", "--net", net.directory.to_str().expect("text")]);
    let line = text(&shown["line"]).to_owned();
    let user = net.directory.join("user.key").display().to_string();
    let owner = text(&net.ask(&["account"])["account"]).to_owned();

    let at = port();
    let settings = [
        "operator=ann".to_owned(),
        "region=north".to_owned(),
        "private=true".to_owned(),
        format!("listen=127.0.0.1:{at}"),
        format!("advertise=localhost:{at}"),
        "capacity=2 GiB".to_owned(),
    ];
    let mut provider = Member::init(home.path(), "provider", &line, &settings);
    let mode =
        |name: &str| fs::metadata(provider.directory.join(name)).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode("."), mode("node.key")), (0o700, 0o600));
    assert!(!provider.directory.join("genesis").exists(), "a network file is enough");
    let at = port();
    let settings = [format!("owner={owner}"), "private=true".to_owned(), format!("listen=127.0.0.1:{at}")];
    let mut gateway = Member::init(home.path(), "gateway", &line, &settings);
    net.ask(&["send", &provider.account, "5000"]);
    net.ask(&["send", &gateway.account, "200000"]);

    provider.start();
    gateway.start();
    provider.is_ready();
    gateway.is_ready();
    let found = net.wait_for(&["providers"], 60, "the provider is registered", |rows| {
        row(rows, &provider.account).is_some_and(|row| row["capacity_bytes"] == 2_u64 << 30)
    });
    let named = text(&row(&found, &provider.account).expect("there")["address"]).to_owned();
    assert!(named.starts_with("localhost:"), "a name stands on the ledger: {named}");

    recomputes(&net, home.path(), &line, &provider.account);
    stored_by_name(
        &net,
        (home.path(), &line, &user),
        (&provider, &format!("{}@localhost:{at}", gateway.account)),
    );
    follows(&net, home.path(), &line);
    moves(&net, &mut provider);
    assert_eq!(provider.end(), Some(0), "{}", provider.log());
    assert_eq!(gateway.end(), Some(0), "{}", gateway.log());
    assert!(gateway.log().contains("SIGTERM"), "{}", gateway.log());
}

/// A machine that has only the line rebuilds an epoch from the genesis, which a node gives, and checks a proof.
fn recomputes(net: &Net, home: &Path, line: &str, account: &str) {
    let epoch_blocks = Parameters::LOCAL.epoch_blocks();
    net.wait_for(&["status"], 120, "the books of epoch 0 are sealed", |status| {
        status["height"].as_u64() > Some(3 * epoch_blocks)
    });
    let rebuilt = ask(&["--net", line, "recompute", "0"]);
    assert_eq!((&rebuilt["books_equal"], &rebuilt["recomputed"]), (&true.into(), &true.into()), "{rebuilt}");
    // With a directory that holds the network file alone, it is kept there, and read from there afterwards.
    let own = home.join("outsider");
    fs::create_dir(&own).expect("made");
    fs::copy(net.directory.join("network.toml"), own.join("network.toml")).expect("copied");
    let at = own.display().to_string();
    assert_eq!(ask(&["--net", &at, "recompute", "0"])["books_equal"], true);
    assert_eq!(
        fs::read(own.join("genesis")).expect("kept"),
        fs::read(net.directory.join("genesis")).expect("there")
    );
    fs::write(own.join("genesis"), "another").expect("writable");
    let (code, said) = refuse(&["--net", &at, "recompute", "0"]);
    assert!(code == 8 && said.contains("is of another chain") && said.contains("remove the file"), "{said}");

    let proof = home.join("account.sync").display().to_string();
    ask(&["--net", line, "prove", "account", account, "--out", &proof]);
    let verified = ask(&["--net", line, "verify", &proof]);
    assert_eq!((&verified["verified"], &verified["account"]), (&true.into(), &account.into()), "{verified}");
    let (code, said) = refuse(&["verify", &proof]);
    assert!(code == 2 && said.contains("--network-key"), "{said}");
}

/// A node without a seat runs all blocks and serves the network by itself: a network file that names it alone is
/// enough, also for a payment.
fn follows(net: &Net, home: &Path, line: &str) {
    let at = port();
    let settings = ["private=true".to_owned(), format!("service_listen=127.0.0.1:{at}")];
    let mut node = Member::init(home, "node", line, &settings);
    // Nobody copies the genesis: a node of the network gives it, at the start if it is not there.
    let ours = fs::read(net.directory.join("genesis")).expect("there");
    let genesis = node.directory.join("genesis");
    assert_eq!(fs::read(&genesis).expect("the init fetches it"), ours);
    fs::remove_file(&genesis).expect("there");
    node.start();
    node.is_ready();
    assert_eq!(fs::read(&genesis).expect("the start fetches it"), ours);

    let text_of = |path: PathBuf| fs::read_to_string(path).expect("readable");
    let mut document: DocumentMut = text_of(net.directory.join("network.toml")).parse().expect("TOML");
    let nodes = document["node"].as_array_of_tables_mut().expect("a list");
    while nodes.len() > 1 {
        nodes.remove(1);
    }
    let only = nodes.get_mut(0).expect("one is left");
    only["account"] = value(&node.account);
    only["address"] = value(format!("127.0.0.1:{at}"));
    only["archive"] = value(false);
    document["checksum"] = value(checksum(&document));
    let file = home.join("follower.toml");
    fs::write(&file, document.to_string()).expect("writable");
    let file = file.to_str().expect("text");
    let tip = net.ask(&["status"])["height"].as_u64().expect("a height");
    eventually(60, "the node is in step", || {
        let at = posync(&["--net", file, "account", &node.account]);
        let answer: Value = serde_json::from_slice(&at.stdout).unwrap_or_default();
        answer["height"].as_u64() >= Some(tip)
    });
    let user = net.directory.join("user.key").display().to_string();
    ask(&["--net", file, "--key", &user, "send", &node.account, "7"]);
    let has = ask(&["--net", line, "account", &node.account]);
    assert_eq!(has["balance"]["sync"], "7.000000000", "it cannot pay the deposit, and locks nothing: {has}");
    assert!(node.log().contains("the ledger does not list it"), "{}", node.log());
    is_known(net, (home, file), &mut node);
}

/// The node lists itself once it has the money. A client that was born with it alone learns the authorities from
/// the ledger and goes on without it.
fn is_known(net: &Net, (home, file): (&Path, &str), node: &mut Member) {
    net.ask(&["send", &node.account, "200"]);
    let exported = home.join("exported.toml").display().to_string();
    eventually(180, "the ledger lists the node and the authorities", || {
        let written = ask(&["--net", file, "net", "export", &exported]);
        let known = &net.ask(&["net", "show", "--ask"])["known"];
        written["nodes"] == 5_u64 && row(known, &node.account).is_some()
    });
    // It has no seat, and this network file does not name it: the person that names it here vouches for it.
    let of_net = net.directory.display().to_string();
    let named = ask(&["--net", &of_net, "net", "export", &exported, "--only", &node.account]);
    assert_eq!(named["nodes"], 1_u64, "{named}");
    assert!(ask(&["--net", &exported, "status"])["height"].as_u64() > Some(0), "it serves by itself");
    let client = home.join("client");
    fs::create_dir(&client).expect("made");
    fs::copy(file, client.join("network.toml")).expect("copied");
    let client = client.display().to_string();
    let shown = ask(&["net", "show", "--net", &client, "--ask"]);
    assert_eq!(shown["known"].as_array().map(Vec::len), Some(4), "{shown}");
    let status = ask(&["--net", &client, "status"]);
    assert_eq!(status["consensus"]["nodes_known"], 5_u64, "{status}");
    assert_eq!(status["consensus"]["needed"], 3_u64, "seats count, nodes without one do not: {status}");
    let behind = status["consensus"]["clock_behind_ms"].as_i64().expect("the authorities say their time");
    assert!(behind.abs() < 10_000, "all run on one machine: {status}");
    assert_eq!(node.end(), Some(0), "{}", node.log());
    let after = ask(&["--net", &client, "account", &node.account]);
    assert!(after["height"].as_u64() >= status["height"].as_u64(), "the learned nodes answer: {after}");
    let (code, said) = refuse(&["--net", file, "account", &node.account]);
    assert!(code != 0 && said.contains("no node of the network answers"), "{said}");
}

fn joined<'a>(first: &[&'a str], then: &[&'a str]) -> Vec<&'a str> {
    [first, then].concat()
}

/// Stores files at the gateway until the provider, which is known by a name alone, holds a shard; reads them
/// back with nothing but the line and the user's key.
fn stored_by_name(net: &Net, (home, line, user): (&Path, &str, &str), (provider, gateway): (&Member, &str)) {
    let source = common::file(home, "source", 300_000, 77);
    let source = source.to_str().expect("text");
    let by = ["--net", line, "--key", user, "--gateway", gateway];
    eventually(120, "the gateway has agreements", || {
        posync(&joined(&by, &["put", source, "first"])).status.success()
    });
    let mut files = 0;
    eventually(180, "a provider with a name gets shards", || {
        files += 1;
        ask(&joined(&by, &["put", source, &format!("file {files}")]));
        let rows = net.ask(&["providers"]);
        row(&rows, &provider.account).is_some_and(|row| row["stored_bytes"].as_u64() > Some(0))
    });
    let target = home.join("read back");
    ask(&joined(&by, &["get", "file 1", target.to_str().expect("text")]));
    assert_eq!(fs::read(source).expect("readable"), fs::read(target).expect("written"));
    let (code, said) = refuse(&["--net", line, "--gateway", gateway, "ls"]);
    assert!(code == 2 && said.contains("--key"), "{said}");
}

/// Starts the provider at another address: the ledger has it soon, and nothing else changes.
fn moves(net: &Net, provider: &mut Member) {
    assert_eq!(provider.end(), Some(0), "{}", provider.log());
    let at = port();
    common::set(&provider.directory, "listen", &format!("\"127.0.0.1:{at}\""));
    common::set(&provider.directory, "advertise", &format!("\"localhost:{at}\""));
    provider.start();
    provider.is_ready();
    let rows = net.wait_for(&["providers"], 60, "the new address is on the ledger", |rows| {
        row(rows, &provider.account).is_some_and(|row| row["address"] == format!("localhost:{at}"))
    });
    assert_eq!(row(&rows, &provider.account).expect("there")["capacity_bytes"], 2_u64 << 30);
}

#[test]
fn a_role_that_cannot_run_says_what_to_set_before_anything_happens() {
    let home = tempfile::tempdir().expect("a directory");
    let at = |name: &str| home.path().join(name).display().to_string();
    fs::write(at("file"), "").expect("writable");
    let (code, said) = refuse(&["init", "provider", "--dir", &at("file/below")]);
    assert!(code == 8 && said.contains("below"), "{said}");
    let (code, said) = refuse(&["init", "provider", "--dir", &at("new"), "--set", "capcity=1"]);
    assert!(code == 2 && said.contains("`capacity`"), "{said}");
    let (code, said) = refuse(&["init", "provider", "--dir", &at("new"), "--net", "posync1qqqqqq"]);
    assert!(code == 2 && said.contains("network file"), "{said}");
    assert!(!home.path().join("new").exists(), "nothing was made");

    for role in ["authority", "provider", "gateway", "node"] {
        let directory = at(role);
        ask(&["init", role, "--dir", &directory]);
        let (code, said) = refuse(&["init", role, "--dir", &directory]);
        assert!(code == 5 && said.contains("holds a role already"), "{said}");
        let key = fs::read(Path::new(&directory).join("node.key")).expect("there");
        // A kill between the key and the settings: the same command completes the directory.
        fs::remove_file(Path::new(&directory).join("config.toml")).expect("there");
        ask(&["init", role, "--dir", &directory]);
        assert_eq!(fs::read(Path::new(&directory).join("node.key")).expect("there"), key, "{role}");
        let (code, said) = refuse(&["start", "--dir", &directory]);
        let missing = if matches!(role, "authority" | "node") { "advertise" } else { "network.toml" };
        assert!([2, 8].contains(&code) && said.contains(missing), "{role}: {said}");
        assert_eq!(fs::read(Path::new(&directory).join("node.key")).expect("there"), key);
        let path = Path::new(&directory).join("config.toml");
        let text = fs::read_to_string(&path).expect("there");
        let (wrong, right) =
            if role == "node" { ("service_listne", "service_listen") } else { ("listne", "listen") };
        fs::write(&path, format!("{text}{wrong} = \"x\"\n")).expect("writable");
        let (code, said) = refuse(&["start", "--dir", &directory]);
        assert!(code == 2 && said.contains(&format!("did you mean `{right}`")), "{role}: {said}");
    }
    // A new disk is mounted where the shards will be.
    let disk = home.path().join("mounted/storage");
    fs::create_dir_all(disk.join("lost+found")).expect("writable");
    ask(&["init", "provider", "--dir", &at("mounted")]);
    ask(&["init", "gateway", "--dir", &at("other")]);
    for word in [&["--i-stopped-the-other"] as &[_], &["--we-agreed-on", "7"]] {
        let (code, said) = refuse(&joined(&["start", "--dir", &at("other")], word));
        assert!(code == 2 && said.contains("a gateway") && said.contains("leave the flag out"), "{said}");
    }
    let (code, said) = refuse(&["start", "--dir", &at("nowhere")]);
    assert!(code == 8 && said.contains("posync init"), "{said}");
}

#[test]
fn a_start_at_a_taken_port_names_the_setting_the_address_and_what_to_do() {
    let mut net = Net::start_with(&["--providers", "8"]);
    net.down();
    let home = tempfile::tempdir().expect("a directory");
    let line = net.directory.join("network.toml");
    let line = line.to_str().expect("text");
    let node = home.path().join("node");
    let at = node.to_str().expect("text");
    ask(&[
        "init",
        "node",
        "--dir",
        at,
        "--net",
        line,
        "--set",
        "private=true",
        "--set",
        "service_listen=127.0.0.1:1",
    ]);
    // No node answers now: the start would fetch it.
    assert!(!node.join("genesis").exists());
    fs::copy(net.directory.join("authority-0/genesis"), node.join("genesis")).expect("public");
    let of_net = |name: &str| net.directory.join(name);
    for (directory, key, announced) in [
        (of_net("authority-0"), "listen", " and in `advertise`"),
        (of_net("authority-0"), "service_listen", " and in `service_advertise`"),
        (of_net("provider-0"), "listen", " and in `advertise`"),
        (of_net("gateway"), "listen", ""),
        (node, "service_listen", " and in `service_advertise`"),
    ] {
        let path = directory.join("config.toml");
        let before = fs::read_to_string(&path).expect("there");
        let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let taken = held.local_addr().expect("bound");
        let mut document: DocumentMut = before.parse().expect("TOML");
        document[key] = value(taken.to_string());
        fs::write(&path, document.to_string()).expect("writable");
        let (code, said) = refuse(&["start", "--dir", directory.to_str().expect("text")]);
        let next = format!("set another port in `{key}`{announced}");
        let is_named = said.contains(&format!("port {} is taken", taken.port()))
            && said.contains(&format!("cannot listen on {taken}"))
            && said.contains(&next);
        assert!(code == 8 && is_named, "{} {key}: {said}", directory.display());
        fs::write(&path, before).expect("writable");
    }
}

#[test]
fn an_authority_keeps_the_key_of_its_card_and_gets_a_card_with_the_addresses_that_it_announces() {
    let home = tempfile::tempdir().expect("a directory");
    let directory = home.path().join("authority").display().to_string();
    let places = [
        "--advertise",
        "node.example.org:9000",
        "--egress",
        "192.0.2.1",
        "--service",
        "node.example.org:9001",
    ];
    let carded = ask(&joined(&["card", "--dir", &directory], &places));
    let settings = [
        "advertise=authority.example.org:9000",
        "egress=192.0.2.7",
        "service_advertise=authority.example.org:9001",
    ];
    let mut arguments = vec!["init", "authority", "--dir", &directory];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    let made = ask(&arguments);
    assert_eq!(made["account"], carded["account"]);
    let card = fs::read_to_string(text(&made["card"])).expect("it is written");
    let card: Value = serde_json::from_str(&card).expect("JSON");
    let shown = ["account", "ingress", "egress", "service"].map(|field| text(&card[field]));
    let account = text(&made["account"]);
    assert_eq!(shown, [account, "authority.example.org:9000", "192.0.2.7", "authority.example.org:9001"]);
    let (code, said) = refuse(&arguments);
    assert!(code == 5 && said.contains("config.toml"), "{said}");
    let without = home.path().join("later").display().to_string();
    assert!(ask(&["init", "authority", "--dir", &without])["card"].is_null(), "it announces no address yet");
}

#[test]
fn an_init_whose_name_has_no_address_is_refused_and_succeeds_when_it_is_repeated_with_one() {
    let home = tempfile::tempdir().expect("a directory");
    let directory = home.path().join("authority");
    let at = directory.display().to_string();
    let settings = ["advertise=authority.invalid:4000", "service_advertise=authority.invalid:4001"];
    let mut arguments = vec!["init", "authority", "--dir", &at];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    let (code, said) = refuse(&arguments);
    assert!(code == 2 && said.contains("--set egress=IP"), "{said}");
    assert!(!directory.join("config.toml").exists(), "the directory holds no role yet");
    let key = fs::read(directory.join("node.key")).expect("the key is there");
    let made = ask(&joined(&arguments, &["--set", "egress=192.0.2.7"]));
    assert!(Path::new(text(&made["card"])).exists() && directory.join("config.toml").exists(), "{made}");
    assert_eq!(fs::read(directory.join("node.key")).expect("readable"), key, "the account is the same");
}

/// Bytes over which a network file's checksum is, by the format's description.
fn checksum(document: &DocumentMut) -> String {
    let digits = |key: &str| hex::decode(document[key].as_str().expect("text")).expect("hex");
    let point = &document["checkpoint"];
    let mut bytes = [vec![1], digits("chain"), digits("network_key"), digits("parameters")].concat();
    bytes.extend(point["height"].as_integer().expect("a number").to_be_bytes());
    bytes.extend(hex::decode(point["block"].as_str().expect("text")).expect("hex"));
    for kind in ["node", "gateway"] {
        let all = document[kind].as_array_of_tables().expect("a list");
        bytes.push(all.len() as u8);
        for table in all {
            let account: Account = table["account"].as_str().expect("text").parse().expect("an account");
            bytes.extend(account.0);
            bytes.push(u8::from(table.get("archive").and_then(|item| item.as_bool()).unwrap_or_default()));
            let address = table["address"].as_str().expect("text").parse().expect("an address");
            let Address::Ip(std::net::SocketAddr::V4(at)) = address else { panic!("all are IPv4") };
            bytes.push(4);
            bytes.extend(at.ip().octets());
            bytes.extend(at.port().to_be_bytes());
        }
    }
    hex::encode(&sha256(&[b"posync/net/1".as_slice(), &bytes].concat())[..4])
}

/// A network file names another network than its nodes serve: the genesis that they give is refused, with both chains
/// if it is another one, and nothing of it is kept. The proof of one network proves nothing about another.
fn another_genesis_is_refused(home: &Path, file: &str, (key, was): (&str, &str)) {
    let own = home.join(format!("node-of-another-{key}"));
    let at = own.display().to_string();
    let (code, said) = refuse(&["--net", file, "init", "node", "--dir", &at]);
    let why = match key {
        "chain" => "gives a genesis that is of another chain",
        "network_key" => "gives a genesis that has another network key",
        _ => "gives a genesis that has other parameters",
    };
    assert!(code == 6 && said.contains(why) && said.contains("127.0.0.1:"), "{key}: {said}");
    assert!(!own.join("genesis").exists() && !own.join("node.key").exists(), "nothing was made");
    if key != "chain" {
        return;
    }
    let document: DocumentMut = was.parse().expect("TOML");
    let ours = document["chain"].as_str().expect("text");
    assert!(said.contains(&ours[..16]) && said.contains(&"ab".repeat(8)), "both are named: {said}");
    let right = home.join("right.toml").display().to_string();
    fs::write(&right, was).expect("writable");
    let proof = home.join("system.sync").display().to_string();
    ask(&["--net", &right, "prove", "system", "--out", &proof]);
    assert_eq!(ask(&["--net", &right, "verify", &proof])["chain"], ours);
    let (code, said) = refuse(&["--net", file, "verify", &proof]);
    assert!(code == 6 && said.contains(ours) && said.contains(&"ab".repeat(32)), "{said}");
}

#[test]
fn a_network_is_reached_by_file_line_or_directory_and_another_one_is_named() {
    let mut net = Net::start();
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("network.toml");
    let of_net = net.directory.join("network.toml");
    fs::copy(&of_net, &file).expect("copied");
    let file = file.to_str().expect("text");
    let line = text(&ask(&["net", "show", "--net", file])["line"]).to_owned();
    for access in [file, &line, net.directory.to_str().expect("text")] {
        let status = ask(&["--net", access, "status"]);
        assert!(status["height"].as_u64() > Some(0), "{status}");
        assert_eq!(ask(&["--net", access, "providers"]).as_array().map(Vec::len), Some(10));
    }
    let asked = ask(&["--net", &line, "net", "show", "--ask"]);
    assert!(text(&asked["nodes"][0]["answer"]).contains("proves block"), "{asked}");
    let newer = home.path().join("newer.toml").display().to_string();
    let height = ask(&["--net", &line, "net", "export", &newer])["height"].as_u64().expect("a height");
    assert!(height > 0 && ask(&["--net", &newer, "status"])["height"].as_u64() >= Some(height));
    let named = ask(&["--net", &newer, "net", "show"])["nodes"].as_array().cloned().expect("a list");
    let account = text(&named[1]["account"]);
    assert_eq!(ask(&["--net", &line, "net", "export", &newer, "--only", account])["nodes"], 1_u64);
    assert_eq!(ask(&["--net", &newer, "net", "show", "--ask"])["nodes"][0]["account"], account);
    let own = text(&ask(&["key", "new", &home.path().join("no-node.key").display().to_string()])["account"])
        .to_owned();
    let (code, said) = refuse(&["--net", file, "net", "export", &newer, "--only", &own]);
    assert!(code == 2 && said.contains(&own) && said.contains("not written"), "{said}");
    let (code, said) = refuse(&["--net", file, "send", "sync1x", "1"]);
    assert_eq!(code, 2, "{said}");

    let was = fs::read_to_string(&of_net).expect("readable");
    let changed = |key: &str, to: &str| {
        let mut document: DocumentMut = was.parse().expect("TOML");
        assert_eq!(document["checksum"].as_str(), Some(checksum(&document).as_str()), "as it is described");
        document[key] = value(to);
        document["checksum"] = value(checksum(&document));
        fs::write(file, document.to_string()).expect("writable");
        refuse(&["--net", file, "status"])
    };
    for (key, to, why) in [
        ("chain", "ab".repeat(32), "serves another chain"),
        ("network_key", OTHER_KEY.to_owned(), "another network key"),
        ("parameters", "ab".repeat(32), "other parameters"),
    ] {
        let (code, said) = changed(key, &to);
        assert!(code == 6 && said.contains(why) && said.contains("127.0.0.1:"), "{key}: {said}");
        another_genesis_is_refused(home.path(), file, (key, &was));
    }
    fs::write(file, was.replacen("127.0.0.1:", "127.0.0.2:", 1)).expect("writable");
    let (code, said) = refuse(&["--net", file, "status"]);
    assert!(code == 2 && said.contains("checksum does not fit"), "{said}");

    net.down();
    let (code, said) = refuse(&["--net", &line, "status"]);
    assert!(
        code == 3 && said.matches("cannot reach 127.0.0.1:").count() == 4,
        "each with its reason: {said}"
    );
}
