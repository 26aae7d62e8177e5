//! Learned nodes on disk and in a connection: what is kept, what is given up, and what is never dialled.

use super::*;
use crate::light::{Light, tests::Committee};
use commonware_cryptography::{Signer as _, ed25519};
use commonware_runtime::{Runner as _, Supervisor as _, deterministic};
use std::net::SocketAddr;

const CHAIN: Hash = [7; 32];

fn node(number: u16) -> Endpoint {
    let account = Account::of(&ed25519::PrivateKey::from_seed(number.into()).public_key());
    Endpoint { account, address: SocketAddr::from(([9, 0, 2, number as u8], number + 1)).into() }
}

fn nodes(numbers: std::ops::Range<u16>) -> Vec<Endpoint> {
    numbers.map(node).collect()
}

fn strangers(numbers: std::ops::Range<u16>) -> Vec<Learned> {
    numbers.map(|number| Learned { endpoint: node(number), has_seat: false }).collect()
}

fn seats(numbers: std::ops::Range<u16>) -> Vec<Learned> {
    numbers.map(|number| Learned { endpoint: node(number), has_seat: true }).collect()
}

fn connection(context: &deterministic::Context, given: Vec<Endpoint>) -> Connection {
    let light = Light::new(CHAIN, Committee::new(1).network_key);
    let (reader, network) = (context.child("reader"), context.child("network"));
    Connection::new(reader, network, ed25519::PrivateKey::from_seed(9), given, light)
}

#[test]
fn learned_nodes_come_back_and_damaged_bytes_or_another_chain_count_for_nothing() {
    let mut all = strangers(0..3);
    all[2].has_seat = true;
    all[1].endpoint.address = "a-host.example.org:4001".parse().expect("a name");
    let mut bytes = encode(&CHAIN, 5, &all);
    assert_eq!(decode(&CHAIN, &bytes), Some((5, all.clone())));
    bytes.resize(SLOT, 0);
    assert_eq!(decode(&CHAIN, &bytes), Some((5, all)), "a slot is padded");
    assert_eq!(decode(&[8; 32], &bytes), None);
    for place in [0, 33, 40, 41, HEAD, HEAD + 32, HEAD + 40, SLOT - 1] {
        let mut damaged = bytes.clone();
        damaged[place] ^= 1;
        assert_eq!(decode(&CHAIN, &damaged), None, "byte {place}");
    }
    for length in [0, 20, 41, HEAD, HEAD + 40] {
        assert_eq!(decode(&CHAIN, &bytes[..length]), None, "{length} bytes");
    }
}

#[test]
fn at_most_64_nodes_are_kept_on_disk_each_within_its_room() {
    let name = format!("{}.{}.example:65535", "a".repeat(60), "b".repeat(44));
    assert_eq!(name.len(), ADDRESS_BYTES_MAX - 1);
    let mut many = strangers(0..200);
    many.iter_mut().for_each(|node| node.endpoint.address = name.parse().expect("a name"));
    let bytes = encode(&CHAIN, 1, &many);
    assert!(bytes.len() <= SLOT);
    assert_eq!(decode(&CHAIN, &bytes).expect("intact").1, many[..LEARNED_MAX]);
}

#[test]
fn a_torn_write_leaves_the_nodes_that_were_learned_before() {
    deterministic::Runner::default().start(|context| async move {
        let (mut store, kept) = Store::open(&context, "known", CHAIN).await.expect("opens");
        assert!(kept.is_empty());
        store.put(&strangers(0..2)).await.expect("written");
        store.put(&strangers(0..4)).await.expect("written");
        drop(store);
        let (store, kept) = Store::open(&context, "known", CHAIN).await.expect("opens");
        assert_eq!((store.number, kept), (2, strangers(0..4)));
        store.slots.write_durably(store.number, vec![0; 60]).await.expect("torn");
        drop(store);
        let (store, kept) = Store::open(&context, "known", CHAIN).await.expect("opens");
        assert_eq!((store.number, kept), (1, strangers(0..2)));
    });
}

#[test]
fn the_given_nodes_stay_and_a_full_list_gives_up_only_what_is_not_listed_any_more() {
    deterministic::Runner::default().start(|context| async move {
        let connection = connection(&context, nodes(0..2));
        assert_eq!(connection.learn(&strangers(0..12)), 10, "the given ones are known");
        assert_eq!(connection.learn(&strangers(0..12)), 0);
        let all = 0..(2 + LEARNED_MAX) as u16;
        connection.learn(&strangers(all.clone()));
        assert_eq!(connection.nodes(), nodes(all.clone()));
        let further = strangers(100..101);
        let still: Vec<Learned> = [strangers(all), further.clone()].concat();
        assert_eq!(connection.learn(&still), 0, "a listed node is not given up");
        assert_eq!(connection.learn(&further), 1);
        assert_eq!(connection.nodes().len(), 2 + LEARNED_MAX);
        assert_eq!(connection.nodes()[..2], nodes(0..2));
        assert!(connection.nodes().contains(&further[0].endpoint));
    });
}

#[test]
fn a_full_list_of_strangers_keeps_no_node_with_a_seat_out_and_a_seat_that_is_lost_makes_a_stranger() {
    deterministic::Runner::default().start(|context| async move {
        let connection = connection(&context, nodes(0..1));
        let many = strangers(1..1 + LEARNED_MAX as u16);
        connection.learn(&many);
        let listed = [many.clone(), seats(100..104)].concat();
        assert_eq!(connection.learn(&listed), 4);
        let with_seat = || connection.learned().into_iter().filter(|node| node.has_seat).count();
        assert_eq!((with_seat(), connection.learned().len()), (4, LEARNED_MAX));
        let listed = [many, seats(100..102), strangers(102..104)].concat();
        connection.learn(&listed);
        assert_eq!(with_seat(), 2);
        // A further run begins with what is on disk.
        let again = self::connection(&context, nodes(0..1));
        again.recall(&connection.learned());
        assert_eq!(again.learned(), connection.learned());
    });
}

#[test]
fn at_most_two_strangers_of_one_host_are_learned() {
    deterministic::Runner::default().start(|context| async move {
        let connection = connection(&context, nodes(0..1));
        let at = |number, address: &str| Learned {
            endpoint: Endpoint { address: address.parse().expect("an address"), ..node(number) },
            has_seat: false,
        };
        let many = [
            at(1, "9.9.9.9:1"),
            at(2, "9.9.9.9:2"),
            at(3, "9.9.9.9:3"),
            at(4, "[2a01:4f8:1:2::1]:1"),
            at(5, "[2a01:4f8:1:2::2]:1"),
            at(6, "[2a01:4f8:1:2:3::1]:1"),
            at(7, "a.example.org:1"),
            at(8, "a.example.org:2"),
            at(9, "a.example.org:3"),
        ];
        assert_eq!(connection.learn(&many), 6);
        let seat = Learned { has_seat: true, ..at(10, "9.9.9.9:10") };
        assert_eq!(connection.learn(&[seat]), 1, "a seat is proved");
    });
}

#[test]
fn an_address_of_the_list_is_dialled_only_where_the_given_nodes_are() {
    deterministic::Runner::default().start(|context| async move {
        let given = |address: &str| {
            let address = address.parse().expect("an address");
            connection(&context, vec![Endpoint { address, ..node(0) }])
        };
        let [internet, private, here] = ["9.9.9.9:1", "10.0.0.1:1", "127.0.0.1:1"].map(given);
        for (address, expected) in [
            ("9.0.2.1:4001", [true, true, true]),
            ("node.example.org:4001", [true, true, true]),
            ("10.1.2.3:4001", [false, true, true]),
            ("192.168.0.1:4001", [false, true, true]),
            ("[fd00::1]:4001", [false, true, true]),
            ("127.0.0.1:4001", [false, false, true]),
            ("[::ffff:127.0.0.1]:4001", [false, false, true]),
            ("[::1]:4001", [false, false, true]),
            ("169.254.169.254:80", [false, false, false]),
            ("[fe80::1]:4001", [false, false, false]),
            ("0.0.0.0:4001", [false, false, false]),
            ("[::]:4001", [false, false, false]),
            ("224.0.0.1:4001", [false, false, false]),
            ("9.0.2.1:0", [false, false, false]),
        ] {
            let listed = address.parse().expect(address);
            let found = [&internet, &private, &here].map(|connection| connection.may_dial(&listed));
            assert_eq!(found, expected, "{address}");
        }
    });
}
