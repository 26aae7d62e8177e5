//! The life of a network after its beginning: strangers, lost disks, new addresses, a partition, a moved gateway.

use super::{
    manual::{self, field, number, row, with},
    story::{
        self, AUTHORITIES, PATIENCE, Story, Told, blocks_from, digits, fetch, follows, host, newest, put,
        store,
    },
    world::Side,
};
use std::{
    fs,
    time::{Duration, Instant},
};

/// Blocks of a term of a local network.
const TERM_BLOCKS: u64 = 40;
/// Longest time until an authority without a disk follows again.
const FOLLOW_MAX: f64 = 60.0;
/// Terms after which such an authority signs at the latest.
const TERMS_MAX: u64 = 3;
/// Longest time from the end of a partition to the next block.
const HEAL_MAX: Duration = Duration::from_secs(20);
/// Longest time until an authority at a new address signs: its old connections are silent for 15 s first.
const MOVE_MAX: f64 = 45.0;
/// Epochs after which the books of one are sealed.
const SEALED_AFTER: u64 = 3;
/// Money for the deposit of a node without a seat, and fees, in SYNC.
const NODE_MONEY: &str = "101";

/// A node without a seat follows the authorities.
pub(super) fn node(story: &mut Story) -> Told {
    let took = begin_node(story, "n0", Side::Right)?;
    Ok(format!("ready after {:.1} s", took.as_secs_f64()))
}

/// A machine becomes a node without a seat, with the money for its place in the ledger's list; returns the time
/// from its start until it is ready.
fn begin_node(story: &mut Story, name: &str, side: Side) -> Result<Duration, String> {
    story.world.add(name, side)?;
    story.world.mail("a0", "D/network.toml", name, "network.toml")?;
    story.world.run(name, &with(manual::INIT_NODE, &[("node.example.org", &host(name))]))?;
    let account = field(&story.json(name, manual::ACCOUNT)?, "account")?.to_owned();
    story.send("a0", &account, NODE_MONEY)?;
    story.accounts.insert(name.to_owned(), account);
    story.start(name)
}

/// Waits until the ledger lists these nodes; a machine that has only the network file sees it.
fn listed(story: &mut Story, names: &[&str]) -> Result<(), String> {
    let accounts: Vec<String> = names.iter().map(|name| story.account(name)).collect::<Result<_, _>>()?;
    story.world.until(&format!("the ledger lists {}", names.join(" and ")), PATIENCE, names, |world| {
        let shown = world.run("c0", "posync net show --net network.toml --ask --json")?;
        let known = shown.split_once("\"known\":").map_or("", |(_, known)| known);
        Ok(accounts.iter().all(|account| known.contains(account)).then_some(()))
    })
}

/// A gateway and a user are born with two nodes, and reach no authority. Two new nodes come, the two old ones stop:
/// files are stored and read as before, also after the gateway starts again.
pub(super) fn replaced(story: &mut Story) -> Told {
    let (born, new) = (["n0", "n1"], ["n2", "n3"]);
    begin_node(story, "n1", Side::Left)?;
    listed(story, &born)?;
    let mut export = with(manual::NET_EXPORT, &[("FILE", "born.toml"), ("sync1...", &story.account("n0")?)]);
    export.push_str(&format!(" --only {}", story.account("n1")?));
    story.world.run("a0", &export)?;

    story.world.add("g3", Side::Right)?;
    for authority in AUTHORITIES {
        story.world.bar("g3", authority)?;
    }
    story.world.mail("a0", "born.toml", "g3", "network.toml")?;
    let owner = field(&story.json("g3", manual::KEY)?, "account")?.to_owned();
    let command = with(manual::JOIN_GATEWAY, &[("/srv/gateway", "D"), ("sync1...", &owner)]);
    story::join(story, "g3", &command, " ready: ")?;
    store(story, "g3", "g3", "127.0.0.1", 40)?;

    let since = Instant::now();
    for name in new {
        begin_node(story, name, Side::Left)?;
    }
    listed(story, &new)?;
    let listed = since.elapsed().as_secs_f64();
    // A role reads the list at its start and every five minutes; a command reads it for the directory of `--net`.
    let from = story.world.screen("g3").len();
    start_again(story, "g3")?;
    story.world.mail("a0", "born.toml", "g3", &format!("{}/network.toml", story::USER_NET))?;
    let status = with(manual::STATUS, &[("--net D", &format!("--net {}", story::USER_NET))]);
    story.world.until("the gateway and its user learn the new nodes", PATIENCE, &["g3"], |world| {
        let kept = world.home("g3").join(story::USER_NET).join("nodes.known");
        let is_known = world.ask("g3", &status)?.0 == 0 && kept.exists();
        Ok((is_known && world.screen("g3")[from..].contains("learned nodes")).then_some(()))
    })?;
    for name in born {
        story.world.end(name, "TERM")?;
        story.world.unplug(name)?;
    }
    let mut times = Vec::new();
    for seed in [41, 42] {
        let since = Instant::now();
        store(story, "g3", "g3", "127.0.0.1", seed)?;
        fetch(story, "g3", "g3", "127.0.0.1", seed)?;
        times.push(format!("{:.1}", since.elapsed().as_secs_f64()));
        if seed == 41 {
            start_again(story, "g3")?;
        }
    }
    Ok(format!(
        "two new nodes are listed after {listed:.1} s; with the old ones gone, a put and a get take {} s",
        times.join(" s, after a restart ")
    ))
}

/// Ends a role in order and starts it again.
fn start_again(story: &mut Story, name: &str) -> Result<(), String> {
    let status = story.world.end(name, "TERM")?;
    if !status.success() {
        return Err(format!("{name} ended with {status} on SIGTERM"));
    }
    story.start(name).map(drop)
}

/// Two owners store files of one name at one gateway, and each gets its own back.
pub(super) fn two_owners(story: &mut Story) -> Told {
    let at = host("g0");
    for (user, seed) in [("c0", 10), ("c1", 11)] {
        store(story, user, "g0", &at, seed)?;
    }
    store(story, "g1", "g1", "127.0.0.1", 12)?;
    for (user, seed) in [("c0", 10), ("c1", 11)] {
        fetch(story, user, "g0", &at, seed)?;
        let list = story.json(user, &put(story, "g0", &at)?.replace("put report.pdf", "ls"))?;
        if list.matches("\"name\":").count() != 1 {
            return Err(format!("{user} sees other files than its own: {list}"));
        }
    }
    fetch(story, "g1", "g1", "127.0.0.1", 12)?;
    Ok("three files of one name, each seen by its owner alone".into())
}

/// The owner of the other gateway is no user of this one.
pub(super) fn stranger(story: &mut Story) -> Told {
    for command in ["put report.pdf", "get report.pdf stolen.pdf", "ls"] {
        let whole = put(story, "g0", &host("g0"))?.replace("put report.pdf", command);
        let (code, told, why) = story.world.ask("g1", &whole)?;
        if code == 0 || !why.contains("owner") {
            return Err(format!("`{command}` of a stranger ended with {code}: {told} {why}"));
        }
    }
    if story.world.home("g1").join("stolen.pdf").exists() {
        return Err("a stranger got a file".into());
    }
    Ok("put, get and ls are refused with the reason".into())
}

/// The newest term of which an authority has a share.
fn newest_share(story: &Story, name: &str) -> Option<u64> {
    let entries = fs::read_dir(story.world.home(name).join("D/secrets")).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with("share-")).filter_map(|name| digits(&name)).max()
}

/// An authority loses its disk, follows, and signs while another one is down.
pub(super) fn lost_disk(story: &mut Story) -> Told {
    story.world.end("a3", "KILL")?;
    story.world.run("a3", "rm -r D/storage D/secrets")?;
    let (since, lost) = (Instant::now(), newest(&story.status()?)?);
    story.start("a3")?;
    follows(story, "a3")?;
    let following = since.elapsed().as_secs_f64();
    if following > FOLLOW_MAX {
        return Err(format!("a3 followed after {following:.1} s"));
    }
    let mut height = newest(&story.status()?)?;
    let signs = loop {
        if let Some(term) = newest_share(story, "a3").filter(|term| height > term * TERM_BLOCKS) {
            break term;
        }
        if height > lost + (TERMS_MAX + 1) * TERM_BLOCKS {
            return Err(format!("a3 lost its disk at block {lost} and has no share at block {height}"));
        }
        height = blocks_from(story, height, 4)?;
    };
    let signed = since.elapsed().as_secs_f64();
    story.world.end("a2", "TERM")?;
    let before = newest(&story.status()?)?;
    blocks_from(story, before, 8)?;
    story.start("a2")?;
    follows(story, "a2")?;
    let terms = signs - lost / TERM_BLOCKS;
    Ok(format!(
        "follows after {following:.1} s, has a share after {signed:.1} s, {terms} terms; signs with a2 down"
    ))
}

/// A provider and an authority get new addresses, and a provider a new name.
pub(super) fn addresses(story: &mut Story) -> Told {
    let provider = story.world.readdress("p0")?;
    let report = story.json("p0", "posync doctor --dir D")?;
    if field(&report, "ok")? != "true" {
        return Err(format!("p0 is not well at {provider}: {report}"));
    }
    story.world.name("moved.example.org", "p1")?;
    story.world.end("p1", "TERM")?;
    story
        .world
        .run("p1", "sed -i 's/^advertise = .*$/advertise = \"moved.example.org:4100\"/' D/config.toml")?;
    let since = Instant::now();
    story.start("p1")?;
    let account = story.account("p1")?;
    story.world.until("the ledger has the new address of p1", PATIENCE, &["p1"], |world| {
        let list = world.run("c0", manual::PROVIDERS)?;
        let address = field(row(&list, &account).unwrap_or_default(), "address")?;
        Ok((address == "moved.example.org:4100").then_some(()))
    })?;
    let announced = since.elapsed().as_secs_f64();
    fetch(story, "c0", "g0", &host("g0"), 10)?;
    story.world.readdress("a1")?;
    // Without a2 the network needs a1 at its new address: two of four make no block.
    story.world.end("a2", "TERM")?;
    let (since, before) = (Instant::now(), newest(&story.status()?)?);
    blocks_from(story, before, 8)?;
    let signs = since.elapsed().as_secs_f64();
    if signs > MOVE_MAX {
        return Err(format!("a1 signed {signs:.1} s after its move"));
    }
    story.start("a2")?;
    follows(story, "a2")?;
    Ok(format!("a new name is on the ledger after {announced:.1} s; a1 signs {signs:.1} s after its move"))
}

/// Two of four authorities are cut off from the other two: no block; the link is back: blocks.
pub(super) fn partition(story: &mut Story) -> Told {
    story.world.uplink("down")?;
    let state = story.world.until("status says no quorum", PATIENCE, &AUTHORITIES, |world| {
        let (code, text, _) = world.ask("c0", "posync status --net network.toml --json")?;
        Ok((code == 0 && field(&text, "state") == Ok("no quorum")).then_some(text))
    })?;
    let (before, parted) = (newest(&state)?, Instant::now());
    let later = newest(&story.status()?)?;
    if later != before {
        return Err(format!("two of four made blocks from {before} to {later}"));
    }
    story.world.uplink("up")?;
    let (stood, since) = (parted.elapsed().as_secs_f64(), Instant::now());
    blocks_from(story, before, 1)?;
    let healed = since.elapsed();
    if healed > HEAL_MAX {
        return Err(format!("the first block came {healed:.1?} after the link was back"));
    }
    blocks_from(story, before, TERM_BLOCKS)?;
    fetch(story, "c0", "g0", &host("g0"), 10)?;
    Ok(format!(
        "no block for {stood:.0} s and more, the next one {:.1} s after the link was back",
        healed.as_secs_f64()
    ))
}

/// A gateway's machine is lost; its owner brings it back on another one, from its key and its backup.
pub(super) fn gateway_moves(story: &mut Story) -> Told {
    story.world.run("g0", &with(manual::BACKUP, &[("FILE", "catalogue.backup")]))?;
    story.world.add("g2", Side::Right)?;
    story.world.run("g2", "mkdir -m 700 D")?;
    for kept in ["D/node.key", "D/config.toml", "D/network.toml"] {
        story.world.mail("g0", kept, "g2", kept)?;
    }
    story.world.mail("g0", "catalogue.backup", "g2", "catalogue.backup")?;
    story.world.end("g0", "KILL")?;
    story.world.unplug("g0")?;
    story.world.name(&host("g0"), "g2")?;
    let since = Instant::now();
    story.world.run("g2", &with(manual::RESTORE, &[("FILE", "catalogue.backup")]))?;
    story.start("g2")?;
    for (user, seed) in [("c0", 10), ("c1", 11)] {
        fetch(story, user, "g0", &host("g0"), seed)?;
    }
    let read = since.elapsed().as_secs_f64();
    store(story, "c0", "g0", &host("g0"), 30)?;
    fetch(story, "c0", "g0", &host("g0"), 30)?;
    Ok(format!("both owners read their files {read:.1} s after the restore began, and store again"))
}

/// A machine without a role checks what the ledger paid, from blocks and proofs alone.
pub(super) fn outsider(story: &mut Story) -> Told {
    let status = story.status()?;
    let (epoch, key) =
        (number(&status, "epoch")?.saturating_sub(SEALED_AFTER), field(&status, "network_key")?);
    let account = story.account("p2")?;
    // The books of an epoch are sealed some rounds after its end.
    let explain = format!("posync explain reward {account} {epoch} --net network.toml --json");
    let explained = story.world.until(&format!("epoch {epoch} is sealed"), PATIENCE, &[], |world| {
        let (code, text, _) = world.ask("c0", &explain)?;
        Ok((code == 0).then_some(text))
    })?;
    // The genesis comes from a node; the network file has its hash.
    let rebuilt = story.json("c0", &format!("posync recompute {epoch} --net network.toml"))?;
    if field(&rebuilt, "books_equal")? != "true" {
        return Err(format!("the books of epoch {epoch} differ: {rebuilt}"));
    }
    let prove = format!("posync prove payout {account} {epoch} --out pay.sync --net network.toml");
    story.world.run("c0", &prove)?;
    let verified = story.json("c0", &format!("posync verify pay.sync --network-key {key}"))?;
    story.world.run(
        "c0",
        "cp pay.sync bad.sync && printf x | dd of=bad.sync bs=1 seek=200 conv=notrunc 2>/dev/null",
    )?;
    if story.world.ask("c0", &format!("posync verify bad.sync --network-key {key}"))?.0 == 0 {
        return Err("a changed proof is accepted".into());
    }
    Ok(format!(
        "epoch {epoch}: {} and {} bytes of answers, the books are equal",
        explained.len(),
        verified.len()
    ))
}
