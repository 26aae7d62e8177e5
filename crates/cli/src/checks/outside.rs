//! The checks of the network: the role's port, the nodes, the clock against blocks, and the way in from
//! outside, which nodes test by dialling back.

use super::{Check, State, door::Door, machine::judge_clock};
use crate::{
    failure::Failure,
    keys,
    ledger::Ledger,
    net::{Net, file::Service},
    network::Role,
    role::{GENESIS_FILE, ports, settings::Settings, start::loopback, watching::ahead_ms_of},
};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_math::algebra::Random as _;
use commonware_runtime::{Supervisor as _, tokio::Context};
use futures::future::join_all;
use posync_client::{
    channel::{self, Listen, Listening},
    connection::Connection,
    rpc::{self, Client},
};
use posync_protocol::{
    Account,
    limits::SEATS_MAX,
    record::{SeatAt, System},
    wire::node::{Ask, Dial, DialBack, DialOutcome, Dialled, NodeAnswer, Nothing, Unavailable},
};
use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Nodes that are asked.
const NODES_ASKED: usize = 8;
/// Time for a node's description.
const ANSWER: Duration = Duration::from_secs(5);
/// Time for a dial-back, which the node bounds by 5 s.
const DIALLED: Duration = Duration::from_secs(10);
/// Nodes that must have dialled in vain before the way in counts as closed: one may be wrong, or lie.
const UNREACHED: usize = 2;
/// Time within which a network that runs makes a block.
const NEXT_BLOCK: Duration = Duration::from_secs(20);

/// The listener at the role's port.
enum Port {
    /// The role itself, in another process.
    Role,
    /// The listener of this check, which proves the role's key.
    Check(Listening),
    /// The listener of this check at the port for authorities, where nobody else is answered.
    Bare(TcpListener),
    /// No listener of the role; the check says why.
    None,
}

/// A door of the role with the listener that is there.
struct Way {
    door: Door,
    port: Port,
    /// The request to dial it back, if others come through it and its port is known.
    ask: Option<DialBack>,
}

/// The checks that need the network.
pub(super) async fn checks(
    context: &Context,
    settings: &Settings,
    net: &Net,
    key: &PrivateKey,
) -> Vec<Check> {
    let (mut checks, ways) = ways(context, settings, key).await;
    let asks: Vec<DialBack> = ways.iter().filter_map(|way| way.ask).collect();
    let seated = if settings.role == Role::Authority { seated(context, net).await } else { None };
    let holds_seat = |node: &Service| seated.as_ref().is_none_or(|seated| seated.contains(&node.account));
    let mut asked: Vec<&Service> = others(net, key).collect();
    asked.sort_by_key(|node| !holds_seat(node));
    let visited = asked.into_iter().take(NODES_ASKED);
    let visits =
        join_all(visited.map(|node| visit(context, net, node, asks_of(&asks, holds_seat(node))))).await;
    checks.push(nodes(&visits));
    checks.push(clock(context, net, key, &visits).await);
    let mut place = 0;
    for way in &ways {
        checks.extend(way_in(context, settings, key, way, &visits, place).await);
        place += usize::from(way.ask.is_some());
    }
    for way in ways {
        match way.port {
            Port::Check(listening) => {
                listening.task.abort();
                // The port is free again once the task is gone.
                let _ = listening.task.await;
            }
            Port::Bare(listener) => drop(listener),
            Port::Role | Port::None => {}
        }
    }
    checks
}

/// The nodes of the network file without this role itself, which reaches its own address whatever a firewall does.
fn others<'a>(net: &'a Net, key: &PrivateKey) -> impl Iterator<Item = &'a Service> + use<'a> {
    let own = keys::account(key);
    let is_alone = net.file.nodes.iter().all(|node| node.account == own);
    net.file.nodes.iter().filter(move |node| is_alone || node.account != own)
}

/// The accounts that hold a seat; `None` if no node proves them in time.
async fn seated(context: &Context, net: &Net) -> Option<BTreeSet<Account>> {
    let read = async {
        let ledger = Ledger::connect(context, net, &PrivateKey::random(commonware_utils::sys_rng())).await?;
        let system: System = ledger.read(System::key()).await?.unwrap_or_default();
        let seats = (0..system.seats.min(SEATS_MAX)).map(SeatAt::key).collect();
        let seats = ledger.read_all::<SeatAt>(seats).await?;
        Ok::<_, Failure>(seats.into_iter().flatten().map(|at| at.account).collect())
    };
    tokio::time::timeout(ANSWER, read).await.ok()?.ok()
}

/// The dial-backs that a node is asked for: the port for the other authorities concerns those alone, and a firewall may
/// admit no one else. It is the last of a role's doors.
fn asks_of(asks: &[DialBack], holds_seat: bool) -> &[DialBack] {
    let is_for_any = |ask: &DialBack| !matches!(ask.service, Dial::Consensus(_));
    let for_any = asks.iter().take_while(|ask| is_for_any(ask)).count();
    if holds_seat { asks } else { &asks[..for_any] }
}

/// The checks of the role's ports, and its doors, at which something listens from now on.
async fn ways(context: &Context, settings: &Settings, key: &PrivateKey) -> (Vec<Check>, Vec<Way>) {
    let way = |door: Door, port| {
        let ask = door.is_for_others(settings).then(|| door.ask(settings, keys::account(key))).flatten();
        Way { door, port, ask }
    };
    let (check, service) = port(context, settings, key).await;
    let mut checks = vec![check];
    let mut ways = Vec::new();
    if settings.role == Role::Authority {
        let (check, consensus) = consensus_port(settings, &service);
        checks.push(check);
        ways.push(way(Door::of_consensus(), consensus));
    }
    ways.insert(0, way(Door::of(settings.role), service));
    (checks, ways)
}

/// The check of the way in through a door; its dial-backs are at `place` in each visit.
async fn way_in(
    context: &Context,
    settings: &Settings,
    key: &PrivateKey,
    way: &Way,
    visits: &[Visit],
    place: usize,
) -> Option<Check> {
    let door = &way.door;
    let Some(ask) = way.ask else {
        let next = match door.advertise {
            Some(advertise) => format!("set a port in `{}`, or `{advertise}`", door.listen),
            None => format!("set a port in `{}`", door.listen),
        };
        let why = "the role takes any free port when it starts, or announces no valid address";
        let check = Check::warn(door.check, "nodes were not asked to dial back", why, next);
        return door.is_for_others(settings).then_some(check);
    };
    let named = match door.announced(settings) {
        Some(address) => address.resolve(context).await.unwrap_or_default(),
        None => Vec::new(),
    };
    let mut check = outside(visits, place, &way.port, (door, ask.port));
    // Behind a router a gateway serves the users of its own network all the same.
    if settings.role == Role::Gateway && check.state == State::Fail && !matches!(way.port, Port::None) {
        let next = format!(
            "nothing, if all its users are on this machine or in its network. To let others in: {}",
            check.next
        );
        check = Check { state: State::Warn, next, ..check };
    }
    let saw = |is_counted: fn(&DialOutcome) -> bool| -> Vec<IpAddr> {
        let done = dialled(visits, place).filter(|dialled| is_counted(&dialled.outcome));
        done.map(seen).collect()
    };
    if let Some(elsewhere) = door.elsewhere(context, key, &named, &saw(|_| true)).await {
        return Some(elsewhere);
    }
    let reached = saw(|outcome| matches!(outcome, DialOutcome::Reached(_)));
    Some(other_line(door.check, &reached, &named).unwrap_or(check))
}

/// True for an authority whose network does not exist yet.
pub(super) fn awaits_a_ceremony(settings: &Settings) -> bool {
    let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
    settings.role == Role::Authority
        && !is_there(&settings.directory.join(GENESIS_FILE))
        && settings.file("network").is_ok_and(|path| !is_there(&path))
}

/// The checks of such an authority: both ports are free, and only a ceremony shows the rest.
pub(super) fn before_the_ceremony(settings: &Settings) -> Vec<Check> {
    let mut checks = Vec::new();
    for name in ["listen", "service_listen"] {
        checks.push(match settings.listen(name) {
            Err(failure) => Check::failed("port", &failure),
            Ok(listen) => match TcpListener::bind(listen) {
                Ok(_) => {
                    Check::ok("port", format!("{listen} ({name}) is free for the role, which does not run"))
                }
                Err(error) => Check::failed("port", &ports::refused(settings, name, listen, &error)),
            },
        });
    }
    let why = "nodes, clock and the way in from outside can be checked once the network exists";
    let next =
        "take part in its ceremony (`posync ceremony`), which names each authority that it cannot reach";
    checks.push(Check::warn("network", "no ceremony has made the network of this authority yet", why, next));
    checks
}

/// Finds out what listens at the role's port, and listens there if nothing does.
async fn port(context: &Context, settings: &Settings, key: &PrivateKey) -> (Check, Port) {
    let door = Door::of(settings.role);
    let name = door.listen;
    let listen = match settings.listen(name) {
        Ok(listen) => listen,
        Err(failure) => return (Check::failed("port", &failure), Port::None),
    };
    if listen.port() == 0 {
        return (Check::ok("port", "any free port is taken at the start"), Port::None);
    }
    let bound = TcpListener::bind(listen).map(drop);
    match bound {
        Ok(()) => listener(context, settings, key, listen).await,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if door.is_own(context, keys::account(key), loopback(listen)).await {
                return (Check::ok("port", format!("the role listens on {listen}")), Port::Role);
            }
            let failure = ports::refused(settings, name, listen, &error);
            let [what, _, next] = failure.parts();
            let why = format!(
                "what listens there does not prove the key of this role, so another program, or a role with another key, \
                 has the port that `{name}` in {} names",
                settings.path().display()
            );
            (Check::fail("port", what, why, next), Port::None)
        }
        Err(error) => (Check::failed("port", &ports::refused(settings, name, listen, &error)), Port::None),
    }
}

async fn listener(
    context: &Context,
    settings: &Settings,
    key: &PrivateKey,
    listen: SocketAddr,
) -> (Check, Port) {
    let config = Listen::new(key.clone(), Door::of(settings.role).namespace(), listen);
    let opened = channel::listen(context.child("check"), context, config, |_, _, _, _| async {}).await;
    match opened {
        Ok(listening) => (
            Check::ok("port", format!("{listen} is free for the role, which does not run")),
            Port::Check(listening),
        ),
        Err(error) => {
            let next = "stop what uses the port, or set another one";
            (Check::fail("port", format!("nothing can listen on {listen}"), error, next), Port::None)
        }
    }
}

/// Finds out what listens at the port of an authority for the others, and listens there if nothing does. It answers
/// to authorities alone, so what has the port is the role if the role has its service's port.
fn consensus_port(settings: &Settings, service: &Port) -> (Check, Port) {
    let name = Door::of_consensus().listen;
    let listen = match settings.listen(name) {
        Ok(listen) => listen,
        Err(failure) => return (Check::failed("port", &failure), Port::None),
    };
    match TcpListener::bind(listen) {
        Ok(listener) => {
            let what = format!("{listen} is free for the other authorities");
            (Check::ok("port", what), Port::Bare(listener))
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && matches!(service, Port::Role) => {
            (Check::ok("port", format!("the role listens on {listen} for the other authorities")), Port::Role)
        }
        Err(error) => (Check::failed("port", &ports::refused(settings, name, listen, &error)), Port::None),
    }
}

/// The answers of one node.
struct Visit {
    name: String,
    /// Its height, or why it does not serve this network.
    height: Result<u64, String>,
    /// True if it serves another network.
    is_other: bool,
    /// The dial-backs that were asked for, in their order, each with the reason if there is none; empty if the node
    /// was not asked.
    dialled: Vec<Result<Dialled, String>>,
}

async fn visit(context: &Context, net: &Net, node: &Service, asks: &[DialBack]) -> Visit {
    let name = net.name(node);
    let gone =
        |why: String| Visit { name: name.clone(), height: Err(why), is_other: false, dialled: Vec::new() };
    let caller = PrivateKey::random(commonware_utils::sys_rng());
    let dial = Client::<rpc::Node>::dial(
        context.child("visit"),
        context,
        &caller,
        node.account,
        node.address.clone(),
    );
    let client = match tokio::time::timeout(ANSWER, dial).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return gone(error.to_string()),
        Err(_) => return gone(format!("no connection within {} s", ANSWER.as_secs())),
    };
    let info = match tokio::time::timeout(ANSWER, client.call(Ask::Info(Nothing {}))).await {
        Ok(Ok(NodeAnswer::Info(info))) => info,
        Ok(Ok(_)) => return gone("it answers something else".into()),
        Ok(Err(error)) => return gone(error.to_string()),
        Err(_) => return gone(format!("no answer within {} s", ANSWER.as_secs())),
    };
    if let Err(why) = net.judge(&info) {
        return Visit { is_other: true, ..gone(why) };
    }
    let mut dialled = Vec::new();
    // One after the other: a node dials a caller once at a time.
    for ask in asks {
        dialled.push(match tokio::time::timeout(DIALLED, client.call(Ask::DialBack(*ask))).await {
            Ok(Ok(NodeAnswer::Dialled(dialled))) => Ok(dialled),
            Ok(Ok(NodeAnswer::Unavailable(Unavailable::Busy))) => Err("it dials others now".into()),
            Ok(Ok(_)) => Err("it answers something else".into()),
            Ok(Err(error)) => Err(format!("it does not dial back: {error}")),
            Err(_) => Err(format!("no answer within {} s", DIALLED.as_secs())),
        });
    }
    Visit { name, height: Ok(info.height), is_other: false, dialled }
}

fn nodes(visits: &[Visit]) -> Check {
    let lost: Vec<String> = visits
        .iter()
        .filter_map(|visit| visit.height.as_ref().err().map(|why| format!("{}: {why}", visit.name)))
        .collect();
    let others = visits.iter().filter(|visit| visit.is_other).count();
    let (what, next) = if others > 0 {
        (
            format!("{others} of {} nodes belong to another network than the network file", visits.len()),
            "use the network file of the network that you mean: ask one of its operators for it",
        )
    } else {
        (
            format!("{} of {} nodes answer", visits.len() - lost.len(), visits.len()),
            "see that this machine reaches them and has the newest network file; `posync net export` of someone \
             who is connected writes one",
        )
    };
    if lost.len() == visits.len() {
        Check::fail("nodes", what, lost.join("\n"), next)
    } else if lost.is_empty() {
        Check::ok("nodes", what)
    } else {
        Check::warn("nodes", what, lost.join("\n"), next)
    }
}

/// Compares the clock with those of the nodes, and with a block that becomes final now if too few of them answer. One
/// authority alone may put the times of blocks some seconds ahead.
async fn clock(context: &Context, net: &Net, key: &PrivateKey, visits: &[Visit]) -> Check {
    if visits.iter().all(|visit| visit.height.is_err()) {
        let next = "compare with `date -u`, and run one time service (chrony, systemd-timesyncd)";
        return Check::warn("clock", "the clock was not compared", "no node answers", next);
    }
    let mut asked = net.file.others(&keys::account(key));
    asked.truncate(NODES_ASKED);
    let (asking, over) = (context.child("clocks"), context.child("sockets"));
    let caller = PrivateKey::random(commonware_utils::sys_rng());
    let connection = Connection::new(asking, over, caller, asked, net.light.clone());
    let heard = tokio::time::timeout(NEXT_BLOCK, connection.survey()).await.unwrap_or_default();
    let theirs = heard.into_iter().filter_map(|heard| heard.ahead_ms).collect();
    if let Some(ahead_ms) = ahead_ms_of(theirs) {
        return judge_clock(ahead_ms, "the clocks of most nodes");
    }
    let measured = tokio::time::timeout(NEXT_BLOCK, async {
        let ledger = Ledger::connect(context, net, &PrivateKey::random(commonware_utils::sys_rng())).await?;
        let mut blocks = ledger.follow();
        let mut newest = None;
        // The first one may be old; the next one has just become final.
        for _ in 0..2 {
            newest = Some(blocks.next().await.map_err(crate::ledger::failed)?);
        }
        Ok::<_, crate::failure::Failure>(newest)
    });
    let next = "look at `posync status`: the clock can be compared while blocks become final";
    match measured.await {
        Ok(Ok(Some(header))) => judge_clock(ahead_ms(header.time_ms), "a block that has just become final"),
        Ok(Ok(None)) => Check::warn("clock", "the clock was not compared", "there is no block", next),
        Ok(Err(failure)) => Check::warn("clock", "the clock was not compared", failure.in_one_line(), next),
        Err(_) => {
            let why = format!("no block became final within {} s", NEXT_BLOCK.as_secs());
            Check::warn("clock", "the clock was not compared", why, next)
        }
    }
}

/// Milliseconds by which this machine's clock is ahead of a time since 1970.
fn ahead_ms(time_ms: u64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let [now, time] = [now, u128::from(time_ms)].map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
    now.saturating_sub(time)
}

/// The dial-backs at `place` that were made.
fn dialled(visits: &[Visit], place: usize) -> impl Iterator<Item = &Dialled> {
    visits.iter().filter_map(move |visit| visit.dialled.get(place)?.as_ref().ok())
}

/// Judges the dial-backs at `place` of each visit, at a door with that port, and names the side that is closed.
fn outside(visits: &[Visit], place: usize, port: &Port, (door, number): (&Door, u16)) -> Check {
    let answers: Vec<(&str, &Result<Dialled, String>)> = visits
        .iter()
        .filter_map(|visit| visit.dialled.get(place).map(|dialled| (visit.name.as_str(), dialled)))
        .collect();
    let lines: Vec<String> = answers
        .iter()
        .map(|(name, answer)| match answer {
            Ok(dialled) => format!("{name} {}", describe(dialled, number)),
            Err(why) => format!("{name}: {why}"),
        })
        .collect();
    // A door that proves nothing may be taken by another program, which answers there.
    if matches!(port, Port::None) {
        let what = format!("this role does not listen, so port {number} cannot be reached");
        let why = "the closed side is here: see the check of the port";
        return Check::fail(door.check, what, why, "mend what the check of the port names, and check again");
    }
    let done: Vec<&Dialled> = dialled(visits, place).collect();
    let reached = done.iter().filter(|dialled| matches!(dialled.outcome, DialOutcome::Reached(_))).count();
    if reached > 0 {
        let what = format!("{reached} of {} nodes that dialled back reach port {number}", done.len());
        return if reached == done.len() {
            Check::ok(door.check, what)
        } else {
            let next = "if this stays so, look at the firewall's rules for single addresses";
            Check::warn(door.check, what, lines.join("\n"), next)
        };
    }
    if done.is_empty() {
        let next = "check again when nodes answer";
        return Check::warn(door.check, "no node dialled back", lines.join("\n"), next);
    }
    let next = format!(
        "the listener here answers, so the way to it is closed: open TCP port {number} in this machine's firewall, \
         forward it in the router (NAT), and check that `{}` names the port that others see",
        door.named_by()
    );
    let what = format!("no node reaches port {number} of this machine");
    let serving = visits.iter().filter(|visit| visit.height.is_ok() && visit.dialled.len() > place).count();
    if done.len() >= UNREACHED && 2 * done.len() > serving {
        return Check::fail(door.check, what, lines.join("\n"), next);
    }
    let what = format!("{what}, but only {} of {serving} that serve this network dialled back", done.len());
    Check::warn(
        door.check,
        what,
        lines.join("\n"),
        format!("check again when more nodes dial back; otherwise {next}"),
    )
}

/// The warning that nodes reach this machine at another address than it announces: a dial-back proves nothing about
/// that one. `None` if one of them is announced, or no node reaches it.
fn other_line(check: &'static str, reached: &[IpAddr], named: &[SocketAddr]) -> Option<Check> {
    let is_named = |ip: &IpAddr| named.iter().any(|named| named.ip() == *ip);
    if named.is_empty() || reached.is_empty() || reached.iter().any(is_named) {
        return None;
    }
    let list = |all: Vec<String>| all.join(", ");
    let what =
        format!("nodes reach this machine at {}", list(reached.iter().map(IpAddr::to_string).collect()));
    let why = format!(
        "{} is announced, and a node dials only the address from which it is asked",
        list(named.iter().map(SocketAddr::to_string).collect())
    );
    let next = "the announced address leads here from this machine; see that it does so from outside too";
    Some(Check::warn(check, what, why, next))
}

/// The address of this machine as a node sees it.
fn seen(dialled: &Dialled) -> IpAddr {
    IpAddr::from(Ipv6Addr::from(dialled.ip)).to_canonical()
}

fn describe(dialled: &Dialled, port: u16) -> String {
    let at = SocketAddr::new(seen(dialled), port);
    match dialled.outcome {
        DialOutcome::Reached(_) => format!("reaches {at}"),
        DialOutcome::Refused(_) => {
            format!("is refused at {at}: nothing listens there, or a firewall rejects it")
        }
        DialOutcome::TimedOut(_) => {
            format!("gets no answer from {at}: a firewall or a router drops the packets")
        }
        DialOutcome::Other(_) => format!("meets another program or another key at {at}"),
        DialOutcome::Hidden(_) => {
            let ip = at.ip();
            format!("does not dial {ip}: it is no address of the internet, or a proxy stands before the node")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The door of a provider, and its port.
    const PROVIDER: (&Door, u16) = (&Door::of(Role::Provider), 4100);

    fn visits(outcomes: &[DialOutcome]) -> Vec<Visit> {
        let ip = std::net::Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped().octets();
        let visit = |outcome: &DialOutcome| Visit {
            name: "a node".into(),
            height: Ok(7),
            is_other: false,
            dialled: vec![Ok(Dialled { ip, outcome: *outcome })],
        };
        outcomes.iter().map(visit).collect()
    }

    #[test]
    fn the_closed_side_is_named() {
        let [reached, refused, late, other] = [
            DialOutcome::Reached(Nothing {}),
            DialOutcome::Refused(Nothing {}),
            DialOutcome::TimedOut(Nothing {}),
            DialOutcome::Other(Nothing {}),
        ];
        let judge = |outcomes: &[DialOutcome], port| outside(&visits(outcomes), 0, &port, PROVIDER);
        assert_eq!(judge(&[reached, reached], Port::Role).state, State::Ok);
        assert_eq!(judge(&[reached, late], Port::Role).state, State::Warn);
        let closed = judge(&[late, refused], Port::Role);
        assert!(closed.state == State::Fail && closed.next.contains("firewall"), "{closed:?}");
        assert!(closed.why.contains("192.0.2.7:4100"), "the address as nodes see it: {closed:?}");
        let taken = judge(&[other], Port::None);
        assert!(taken.state == State::Fail && taken.why.contains("closed side is here"), "{taken:?}");
        assert_eq!(judge(&[], Port::Role).state, State::Warn, "nobody dialled");
    }

    #[test]
    fn one_nodes_word_or_a_few_of_many_stop_nobody_from_joining() {
        let refused = DialOutcome::Refused(Nothing {});
        let judge = |dialled: usize, busy: usize, gone: usize| {
            let mut all = visits(&vec![refused; dialled]);
            let other = |height| Visit {
                name: "another".into(),
                height,
                is_other: false,
                dialled: vec![Err("it dials others now".into())],
            };
            all.extend((0..busy).map(|_| other(Ok(7))));
            all.extend((0..gone).map(|_| other(Err("no connection".into()))));
            outside(&all, 0, &Port::Role, PROVIDER).state
        };
        assert_eq!(judge(1, 7, 0), State::Warn);
        assert_eq!(judge(1, 0, 0), State::Warn, "one node alone");
        assert_eq!(judge(1, 0, 7), State::Warn, "one node alone that answers");
        assert_eq!(judge(2, 2, 0), State::Warn, "half is not most");
        assert_eq!(judge(3, 2, 0), State::Fail);
        assert_eq!(judge(2, 0, 6), State::Fail, "those that serve nothing do not count");
    }

    #[test]
    fn the_port_for_authorities_is_tested_by_those_alone() {
        let account = Account([1; 32]);
        let asks = [Dial::Node(Nothing {}), Dial::Consensus(Nothing {})].map(|service| DialBack {
            port: 4100,
            account,
            service,
        });
        assert_eq!(asks_of(&asks, true).len(), 2);
        let others = asks_of(&asks, false);
        assert!(others.len() == 1 && matches!(others[0].service, Dial::Node(_)));
        // Of eight nodes two have a seat: both dial in vain, and none of the others was asked.
        let (reached, refused) = (DialOutcome::Reached(Nothing {}), DialOutcome::Refused(Nothing {}));
        let mut all = visits(&[refused, refused]);
        let ip = std::net::Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped().octets();
        all.iter_mut().for_each(|visit| visit.dialled.insert(0, Ok(Dialled { ip, outcome: reached })));
        all.extend(visits(&[reached; 6]));
        assert_eq!(outside(&all, 0, &Port::Role, PROVIDER).state, State::Ok);
        assert_eq!(outside(&all, 1, &Port::Role, PROVIDER).state, State::Fail);
    }

    #[test]
    fn an_announced_address_that_no_node_dialled_is_named() {
        let reached = [IpAddr::from([192, 0, 2, 7])];
        let at = |last| vec![SocketAddr::from(([192, 0, 2, last], 4100))];
        assert_eq!(other_line("outside", &reached, &at(7)), None);
        let other = other_line("outside", &reached, &at(9)).expect("another one is announced");
        assert!(other.what.contains("192.0.2.7") && other.why.contains("192.0.2.9:4100"), "{other:?}");
        assert_eq!(other_line("outside", &[], &at(9)), None, "nobody reaches it");
    }

    #[test]
    fn nodes_that_do_not_answer_are_named_with_their_reasons() {
        let mut visits = visits(&[DialOutcome::Reached(Nothing {}), DialOutcome::Reached(Nothing {})]);
        assert_eq!(nodes(&visits).state, State::Ok);
        visits[0].height = Err("refused".into());
        let some = nodes(&visits);
        assert!(some.state == State::Warn && some.why.contains("a node: refused"), "{some:?}");
        visits[1].height = Err("late".into());
        let none = nodes(&visits);
        assert!(none.state == State::Fail && none.next.contains("reaches them"), "{none:?}");
        visits[1].is_other = true;
        let other = nodes(&visits);
        assert!(
            other.what.contains("another network") && other.next.contains("the network that you mean"),
            "{other:?}"
        );
    }
}
