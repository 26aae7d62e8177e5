//! Openings on a volume that is full.

use super::*;

#[test]
fn a_full_volume_has_no_room_opened_ahead_but_for_reads_and_for_data_that_must_move() {
    let (policy, posted, p) = (Policy::of(&P), posted(), &P);
    let first = policy.first.leaves;
    let open = |quota| policy.open(&view(), quota, &posted, p).expect("it is sold");
    let ahead = open(policy.first);
    let reads = open(Quota { leaves: 0, ..policy.first });
    let all = vec![(account(1), vec![ahead.clone(), reads.clone()]), (account(2), vec![ahead])];
    let few = vec![(account(1), vec![reads])];
    let held = usage_of(1, 0, first, first);
    let old = |live| AgreementUsage {
        row: OwnAgreementRow { end_epoch: 100, ..held.row },
        live,
        ..usage_of(3, 1, first, first)
    };
    for (what, usages, epoch, expected) in [
        ("nothing is held", vec![], 0, few.clone()),
        ("nothing ends", vec![held.clone()], 0, few.clone()),
        ("what ends is empty", vec![held.clone(), old(0)], 80, few.clone()),
        ("data must move", vec![held.clone(), old(1)], 80, all.clone()),
    ] {
        assert_eq!(urgent(all.clone(), &usages, epoch, p), expected, "{what}");
    }
}
