//! Learned nodes on disk and in a connection: what is kept, what is given up, and what is never dialled.

use super::*;
use crate::light::{Light, tests::Committee};
use commonware_cryptography::{Signer as _, ed25519};
use commonware_runtime::{Runner as _, Supervisor as _, deterministic};
use std::net::SocketAddr;

const CHAIN: Hash = [7; 32];

fn node(number: u16) -> Endpoint {
    let account = Account::of(&ed25519::PrivateKey::from_seed(number.into()).public_key());
    Endpoint { account, address: SocketAddr::from(([192, 0, 2, 1], number + 1)).into() }
}

fn nodes(numbers: std::ops::Range<u16>) -> Vec<Endpoint> {
    numbers.map(node).collect()
}

fn connection(context: &deterministic::Context, given: Vec<Endpoint>) -> Connection {
    let light = Light::new(CHAIN, Committee::new(1).network_key);
    let (reader, network) = (context.child("reader"), context.child("network"));
    Connection::new(reader, network, ed25519::PrivateKey::from_seed(9), given, light)
}

#[test]
fn learned_nodes_come_back_and_damaged_bytes_or_another_chain_count_for_nothing() {
    let mut all = nodes(0..3);
    all[1].address = "a-host.example.org:4001".parse().expect("a name");
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
    let mut many = nodes(0..200);
    many.iter_mut().for_each(|node| node.address = name.parse().expect("a name"));
    let bytes = encode(&CHAIN, 1, &many);
    assert!(bytes.len() <= SLOT);
    assert_eq!(decode(&CHAIN, &bytes).expect("intact").1, many[..LEARNED_MAX]);
}

#[test]
fn a_torn_write_leaves_the_nodes_that_were_learned_before() {
    deterministic::Runner::default().start(|context| async move {
        let (mut store, kept) = Store::open(&context, "known", CHAIN).await.expect("opens");
        assert!(kept.is_empty());
        store.put(&nodes(0..2)).await.expect("written");
        store.put(&nodes(0..4)).await.expect("written");
        drop(store);
        let (store, kept) = Store::open(&context, "known", CHAIN).await.expect("opens");
        assert_eq!((store.number, kept), (2, nodes(0..4)));
        store.slots.write_durably(store.number, vec![0; 60]).await.expect("torn");
        drop(store);
        let (store, kept) = Store::open(&context, "known", CHAIN).await.expect("opens");
        assert_eq!((store.number, kept), (1, nodes(0..2)));
    });
}

#[test]
fn the_given_nodes_stay_and_a_full_list_gives_up_only_what_is_not_listed_any_more() {
    deterministic::Runner::default().start(|context| async move {
        let connection = connection(&context, nodes(0..2));
        assert_eq!(connection.learn(&nodes(0..12)), 10, "the given ones are known");
        assert_eq!(connection.learn(&nodes(0..12)), 0);
        let all = nodes(0..(2 + LEARNED_MAX) as u16);
        connection.learn(&all);
        assert_eq!(connection.nodes(), all);
        let further = nodes(100..101);
        let still: Vec<Endpoint> = [&all[..], &further[..]].concat();
        assert_eq!(connection.learn(&still), 0, "a listed node is not given up");
        assert_eq!(connection.learn(&further), 1);
        assert_eq!(connection.nodes().len(), 2 + LEARNED_MAX);
        assert_eq!(connection.nodes()[..2], nodes(0..2));
        assert!(connection.nodes().contains(&further[0]));
    });
}

#[test]
fn a_strangers_address_on_this_machine_is_dialled_only_where_the_callers_nodes_are() {
    for (address, elsewhere, here) in [
        ("192.0.2.1:4001", true, true),
        ("node.example.org:4001", true, true),
        ("127.0.0.1:4001", false, true),
        ("[::1]:4001", false, true),
        ("0.0.0.0:4001", false, false),
        ("[::]:4001", false, false),
        ("224.0.0.1:4001", false, false),
        ("192.0.2.1:0", false, false),
    ] {
        let address: Address = address.parse().expect(address);
        assert_eq!(is_diallable(&address, false), elsewhere, "{address}");
        assert_eq!(is_diallable(&address, true), here, "{address}, on one machine");
    }
}
