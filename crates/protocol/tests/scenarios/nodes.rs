//! Nodes in the ledger: who is listed, at which price, and that every deposit returns.

use crate::{
    canary::{broken, change, insert, remove},
    script::{Stage, check},
    world::{World, account},
};
use posync_protocol::{
    Amount, Record as _,
    limits::NODE_DEPOSIT_MIN,
    node::deposit_needed,
    record::{AccountState, Node, NodeAt},
};

pub(crate) const ACCEPTED: &str = "
    a node deposit=100s
    a node address=b.example.org:9 archive=1 region=south
    a node deposit=5s
    b node place=1 deposit=200s region=
    p node place=0 deposit=132s displaces=a
    a node place=0 deposit=165s displaces=p
    a withdraw
    p node place=0 deposit=100s
    q node place=255 deposit=100s
";

pub(crate) const REFUSED: &str = "
    a withdraw                                => NodeUnknown
    a node deposit=99s                        => NodeDeposit
    a node deposit=3000000s                   => Balance
    a node address= deposit=100s              => !BadShape
    a node place=256 deposit=100s             => !BadShape
    a withdraw deposit=1s                     => !BadShape
    a node deposit=100s displaces=b           => NodePlace
    a node deposit=100s
    a node place=1                            => NodePlace
    a withdraw place=1                        => NodePlace
    a node deposit=1s displaces=b             => BadShape
    b node deposit=200s                       => NodePlace
    b node deposit=200s displaces=q           => NodePlace
    b node deposit=124s displaces=a           => NodeDeposit
    b node deposit=125s displaces=a
    a node                                    => NodePlace
";

fn node(world: &World, who: &str) -> Option<Node> {
    world.get(Node::key(&account(who)))
}

fn balance(world: &World, who: &str) -> Amount {
    world.get::<AccountState>(AccountState::key(&account(who))).expect("it is funded").balance
}

#[test]
fn tables() {
    check(ACCEPTED);
    check(REFUSED);
}

#[test]
fn a_node_is_found_by_its_place_and_by_its_account_and_says_where_it_is() {
    let world = check("a node place=7 deposit=101s address=node.example.org:4100 archive=1 region=south");
    let at: NodeAt = world.get(NodeAt::key(7)).expect("a node stands there");
    let found = node(&world, "a").expect("it is listed");
    assert_eq!((at.account, found.place), (account("a"), Some(7)));
    assert_eq!((&found.address[..], &found.region[..]), (&b"node.example.org:4100"[..], &b"south"[..]));
    assert!(found.archive);
    assert_eq!((found.deposit, world.system().deposits), (Amount::sync(101), Amount::sync(101)));
}

#[test]
fn a_displaced_node_and_one_that_withdraws_get_their_whole_deposit_back() {
    let mut stage = Stage::new();
    stage.play("a node deposit=100s");
    let before = balance(&stage.world, "a");
    stage.play("b node deposit=125s displaces=a");
    assert_eq!(balance(&stage.world, "a"), before.checked_add(Amount::sync(100)).expect("small"));
    assert_eq!(node(&stage.world, "a"), None);
    let before = balance(&stage.world, "b");
    stage.play("b withdraw");
    let back = balance(&stage.world, "b").checked_sub(before).expect("more than before");
    assert!(back > Amount::sync(124) && back < Amount::sync(125), "the deposit less the fee: {back}");
    assert_eq!(stage.world.system().deposits, Amount::ZERO);
    assert_eq!(stage.world.get::<NodeAt>(NodeAt::key(0)), None);
}

#[test]
fn a_seat_is_listed_without_a_deposit_and_takes_nobodys_place() {
    let mut stage = Stage::new();
    stage.play("b node deposit=100s");
    stage.world.seat("a");
    stage.play("a node\n a node address=10.0.0.9:1 archive=1\n a node deposit=1s => BadShape");
    stage.play("a node displaces=b => BadShape");
    let seat = node(&stage.world, "a").expect("it is listed");
    assert_eq!((seat.place, seat.deposit), (None, Amount::ZERO));
    assert_eq!(&seat.address[..], b"10.0.0.9:1");
    assert_eq!(node(&stage.world, "b").and_then(|node| node.place), Some(0));
    stage.play("a withdraw");
    assert_eq!(node(&stage.world, "a"), None);
}

#[test]
fn a_listed_node_that_gets_a_seat_gets_its_deposit_back_and_frees_its_place() {
    let mut stage = Stage::new();
    stage.play("a node place=3 deposit=100s");
    stage.world.seat("a");
    stage.play("a node place=3");
    assert_eq!(node(&stage.world, "a").map(|node| (node.place, node.deposit)), Some((None, Amount::ZERO)));
    assert_eq!(stage.world.get::<NodeAt>(NodeAt::key(3)), None);
    assert_eq!(stage.world.system().deposits, Amount::ZERO);
}

#[test]
fn a_taken_place_costs_a_quarter_more_rounded_up() {
    assert_eq!(deposit_needed(None), NODE_DEPOSIT_MIN);
    assert_eq!(deposit_needed(Some(Amount::sync(100))), Amount::sync(125));
    let odd = Amount::new(5).expect("small");
    assert_eq!(deposit_needed(Some(odd)).grains(), 7);
    assert_eq!(deposit_needed(Some(Amount::MAX)), Amount::MAX);
}

#[test]
fn every_planted_fault_in_the_list_of_nodes_is_found() {
    type Fault = (&'static str, fn(&mut World));
    let faults: &[Fault] = &[
        ("System.deposits", |w| {
            change(w, Node::key(&account("b")), |node: &mut Node| node.deposit = Amount::sync(300));
        }),
        ("Node.place", |w| change(w, Node::key(&account("b")), |node: &mut Node| node.place = Some(2))),
        ("Node at a place", |w| {
            insert(w, NodeAt::key(9), NodeAt { account: account("q") }.to_slot());
        }),
        ("orphaned Node", |w| remove(w, NodeAt::key(1))),
        ("orphaned Node", |w| {
            let stray = Node { deposit: Amount::ZERO, ..node(w, "a").expect("it is listed") };
            insert(w, Node::key(&account("q")), stray.to_slot());
        }),
        ("orphaned NodeAt", |w| insert(w, NodeAt::key(256), NodeAt { account: account("b") }.to_slot())),
        ("System.deposits", |w| {
            change(w, Node::key(&account("a")), |node: &mut Node| node.deposit = Amount::sync(1));
        }),
    ];
    let mut stage = Stage::new();
    stage.world.seat("a");
    stage.play("a node\n b node place=1 deposit=200s");
    assert_eq!(broken(&stage.world), "sound");
    for (expected, fault) in faults {
        let mut world = stage.world.clone();
        fault(&mut world);
        let found = broken(&world);
        assert!(found.contains(expected), "planted '{expected}', found '{found}'");
    }
}
