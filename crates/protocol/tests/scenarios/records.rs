//! Encodings: every record fits its slot, decodes only from canonical bytes, and no byte changes by
//! accident.

use crate::samples::{block_body, bodies, envelope, header, receipts, records, redeem, storage_proof};
use commonware_codec::{Copying, DecodeExt, Encode, Read};
use posync_protocol::{
    Body, Code, Operation, Record, Slot,
    block::{BlockBody, Header, Receipts, sha256},
    limits::{OPERATION_BYTES_MAX, Parameters},
    record::{
        AccountState, Agreement, Audit, Books, Closing, Commitment, DataSet, Ending, Endings, Endpoint,
        FaultBits, FaultRing, FeeTree, Market, Measured, Newcomer, Node, NodeAt, Offences, Offer, Peak,
        Probe, Provider, ProviderAt, Reports, Reputation, RoundInfo, Seat, SeatAt, ServiceRound, Settlement,
        SlotTree, System, Usage,
    },
};
use proptest::prelude::*;
use std::{collections::BTreeSet, fmt::Write};

/// A record kind with the function that decodes and re-encodes its slots.
type Kind = (u8, fn(&Slot) -> Option<Slot>);

fn kind<R: Record>() -> Kind {
    (R::KIND, |slot| R::from_slot(slot).ok().map(|record| record.to_slot()))
}

/// Every kind of record.
fn kinds() -> Vec<Kind> {
    vec![
        kind::<System>(),
        kind::<AccountState>(),
        kind::<Provider>(),
        kind::<Audit>(),
        kind::<ProviderAt>(),
        kind::<Endpoint>(),
        kind::<Offer>(),
        kind::<Agreement>(),
        kind::<Usage>(),
        kind::<DataSet>(),
        kind::<SlotTree>(),
        kind::<FeeTree>(),
        kind::<Ending>(),
        kind::<RoundInfo>(),
        kind::<Settlement>(),
        kind::<Newcomer>(),
        kind::<Endings>(),
        kind::<Market>(),
        kind::<Reputation>(),
        kind::<Closing>(),
        kind::<Books>(),
        kind::<Peak>(),
        kind::<Seat>(),
        kind::<SeatAt>(),
        kind::<Offences>(),
        kind::<FaultRing>(),
        kind::<FaultBits>(),
        kind::<Measured>(),
        kind::<Probe>(),
        kind::<ServiceRound>(),
        kind::<Commitment>(),
        kind::<Reports>(),
        kind::<Node>(),
        kind::<NodeAt>(),
    ]
}

/// Decodes a slot as its kind and encodes it again.
fn again(slot: &Slot) -> Option<Slot> {
    kinds().into_iter().find(|(kind, _)| *kind == slot[0])?.1(slot)
}

#[test]
fn the_largest_record_of_every_kind_fits_and_comes_back() {
    let records = records();
    let mut kinds: Vec<u8> = records.iter().map(|(_, slot)| slot[0]).collect();
    kinds.sort_unstable();
    let mut known: Vec<u8> = self::kinds().into_iter().map(|(kind, _)| kind).collect();
    known.sort_unstable();
    assert_eq!(kinds, known, "one sample of each kind");
    assert!(known.windows(2).all(|pair| pair[0] < pair[1]), "no number stands for two");
    for (name, slot) in records {
        assert_eq!(again(&slot), Some(slot), "{name}");
    }
}

#[test]
fn another_version_and_bytes_after_the_fields_do_not_decode() {
    for (name, slot) in records() {
        let mut other = slot;
        other[1] += 1;
        assert_eq!(again(&other), None, "{name}: another version");
        let used = slot.iter().rposition(|byte| *byte != 0).expect("a kind and a version") + 1;
        if used < 256 {
            let mut longer = slot;
            longer[255] = 1;
            assert_eq!(again(&longer), None, "{name}: bytes after the fields");
        }
    }
}

#[test]
fn the_fullest_bodies_fit_an_operation() {
    for body in [Body::StorageProof(storage_proof()), Body::Redeem(redeem())] {
        let bytes = envelope(body).encode().len();
        assert!(bytes <= OPERATION_BYTES_MAX, "{bytes}");
    }
}

fn canonical<T: Encode + Read<Cfg = ()>>(bytes: &[u8]) -> bool {
    T::decode(Copying(bytes)).is_ok_and(|value| value.encode() == bytes)
}

#[test]
fn everything_encoded_comes_back() {
    for (name, body) in bodies() {
        assert!(canonical::<Operation>(&envelope(body).encode()), "{name}");
    }
    assert!(canonical::<Header>(&header().encode()));
    assert!(canonical::<BlockBody>(&block_body().encode()));
    assert!(canonical::<Receipts>(&receipts().encode()));
}

#[test]
fn every_operation_has_a_sample_under_its_name() {
    let sampled: BTreeSet<String> = bodies()
        .iter()
        .map(|(name, body)| {
            assert_eq!(name.split('/').nth(1), Some(body.name()), "{name}");
            body.name().to_string()
        })
        .collect();
    let declared: BTreeSet<String> = Body::NAMES.iter().map(|name| name.to_string()).collect();
    assert_eq!(sampled, declared);
}

#[test]
fn codes_have_numbers_that_come_back_and_are_in_order() {
    assert!(Code::ALL.is_sorted());
    for code in Code::ALL {
        assert_eq!(Code::from_number(*code as u8), Some(*code));
        assert!(!code.explain().is_empty());
    }
    assert_eq!(Code::from_number(255), None);
}

/// Name, bytes and hash of every encoded value.
fn snapshot() -> String {
    let mut rows: Vec<(String, Vec<u8>)> =
        records().into_iter().map(|(name, slot)| (name.to_string(), slot.to_vec())).collect();
    let operations =
        bodies().into_iter().map(|(name, body)| (name.to_string(), envelope(body).encode().to_vec()));
    rows.extend(operations);
    rows.push(("block/Header".into(), header().encode().to_vec()));
    rows.push(("block/BlockBody".into(), block_body().encode().to_vec()));
    rows.push(("block/Receipts".into(), receipts().encode().to_vec()));
    rows.push(("genesis/Parameters/local".into(), Parameters::LOCAL.encode().to_vec()));
    rows.push(("genesis/Parameters/production".into(), Parameters::PRODUCTION.encode().to_vec()));
    let mut text = String::from(
        "# The bytes of everything that is encoded: SHA-256 of one full value of each type.\n\
         # A change here is a change of the network's formats. Once decided:\n\
         # CONFORMANCE=write cargo test --package posync-protocol no_byte_changed\n",
    );
    for (name, bytes) in rows {
        let hash: String = sha256(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "\"{name}\" = {{ bytes = {}, sha256 = \"{hash}\" }}", bytes.len()).expect("a string");
    }
    text
}

/// `CONFORMANCE=write` replaces the file: a deliberate change of the format, not a repair.
#[test]
fn no_byte_changed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/conformance.toml");
    let now = snapshot();
    if std::env::var("CONFORMANCE").as_deref() == Ok("write") {
        std::fs::write(path, &now).expect("the crate's directory is writable");
    }
    let written = std::fs::read_to_string(path).expect("conformance.toml is part of the crate");
    assert!(written == now, "the formats changed; if that is meant, conformance.toml becomes:\n{now}");
}

proptest! {
    #[test]
    fn what_decodes_is_canonical(
        pick in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let all = records();
        let mut slot = all[pick.index(all.len())].1;
        for (place, byte) in &changes {
            slot[place.index(256)] = *byte;
        }
        if let Some(back) = again(&slot) {
            prop_assert_eq!(back, slot);
        }
        let all = bodies();
        let mut bytes = envelope(all[pick.index(all.len())].1.clone()).encode().to_vec();
        for (place, byte) in &changes {
            let place = place.index(bytes.len());
            bytes[place] = *byte;
        }
        if let Ok(operation) = Operation::decode(Copying(&bytes)) {
            prop_assert_eq!(operation.encode().to_vec(), bytes);
        }
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Operation::decode(Copying(&bytes));
        let _ = BlockBody::decode(Copying(&bytes));
        let _ = Header::decode(Copying(&bytes));
        let _ = Receipts::decode(Copying(&bytes));
    }
}

#[test]
fn each_seat_has_a_place_of_its_own_among_the_offences_of_an_epoch() {
    for seat in 0..256 {
        let mut offences = Offences::default();
        assert!(offences.add(seat) && !offences.add(seat), "{seat} is new once");
        let known: Vec<u32> = (0..256).filter(|other| offences.has(*other)).collect();
        assert_eq!(known, [seat]);
    }
    let mut full = Offences::default();
    assert!(!full.add(256) && !full.has(256), "there is no such seat");
}
