//! Room for what a provider holds that signs nothing, and for what is in force alone.

use super::*;

/// A provider that signs no removal would otherwise be given room again and again for what it holds, and be paid for
/// each move.
#[test]
fn who_signs_nothing_any_more_is_given_no_room_until_its_term_is_nearly_over_and_is_still_read() {
    let opens = |mine: &[AgreementUsage], epoch: u64| {
        let posted = Posted { height: epoch * P.epoch_blocks() + 1, ..posted() };
        let opens = asked(change(|v| v.barred = true), mine, 0, &posted);
        opens.iter().map(|open| open.quota[Class::Storage]).collect::<Vec<_>>()
    };
    let over = || {
        let mut it = usage_of(1, 0, 1 << 13, 1 << 12);
        it.row.stage = Stage::Draining as u8;
        it
    };
    let spent = AgreementUsage { egress: 32 * MIB, ..over() };
    let read = AgreementUsage { row: OwnAgreementRow { stage: Stage::Open as u8, ..over().row }, ..spent };
    let gone = AgreementUsage { live: 0, ..over() };
    for (what, mine, epoch, expected) in [
        ("nothing is held", vec![], 0, vec![]),
        ("it holds data", vec![over()], 0, vec![]),
        ("its egress is read up", vec![read], 0, vec![0]),
        ("its term is nearly over", vec![over()], 640, vec![1 << 13]),
        ("nothing is in force at the end", vec![gone], 640, vec![]),
    ] {
        assert_eq!(opens(&mine, epoch), expected, "{what}");
    }
    let mut views: BTreeMap<_, _> = (0..11).map(|i| (account(i), view())).collect();
    views.entry(account(3)).and_modify(|view| view.barred = true);
    let all = wanted(&views, &BTreeSet::new(), &[], (&Policy::of(&P), 0), &posted(), &P);
    assert!(
        all.len() == 10 && all.iter().all(|(provider, _)| *provider != account(3)),
        "another is in its place"
    );
}

#[test]
fn only_what_is_in_force_needs_room_to_move() {
    let policy = Policy::of(&P);
    let first = policy.first.leaves;
    let over = |live| {
        let mut it = AgreementUsage { live, ..usage_of(1, 0, 1 << 20, 3 * first) };
        it.row.stage = Stage::Draining as u8;
        it
    };
    for (live, opened) in [(3 * first, 8 * first), (5, first), (0, first)] {
        assert_eq!(leaves_of(&policy.openings(&[&over(live)], 0, 0, &P)), [opened], "{live} in force");
        let mut fresh = usage_of(1, 1, first, 0);
        fresh.row.end_epoch = 721;
        let opens = policy.openings(&[&over(live), &fresh], 0, 0, &P);
        assert_eq!(opens.is_empty(), live <= first, "{live} in force, and room for {first}");
    }
}
