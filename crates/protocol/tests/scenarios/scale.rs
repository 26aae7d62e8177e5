//! No block does work proportional to the number of members: the same block names and changes the
//! same number of records on ledgers of 10, 1,000 and 100,000 providers, also where it closes a
//! slice of the books.

use crate::{
    audits::holding,
    books::{reputation, row, run_to},
    crowd::{block_at, populate, unchecked},
    script::Stage,
    world::account,
};
use posync_protocol::{
    Account, Record,
    block::sha256,
    books::tree,
    record::{Books, Closing, Settlement},
};

/// Numbers of records that the blocks name and change.
fn work(providers: u32) -> (usize, usize) {
    let mut stage = Stage::new();
    populate(&mut stage.world, providers);
    if providers <= 1_000 {
        stage.play("p register\n a open p");
    } else {
        // Runs the same two blocks without checking a hundred thousand providers after each.
        for line in ["p register", "a open p"] {
            let operation = stage.sign(line);
            unchecked(&mut stage, &[operation]);
        }
        stage.opened.insert(("p".into(), 0), stage.world.height);
    }
    // A block with draws: its height is even, and the line is not empty.
    stage.world.draws = true;
    if stage.world.height.is_multiple_of(2) {
        stage.world.height += 1;
    }
    let lines = ["q register", "a close p/0 second=p", "b open p slot=1", "p redeem p/0 egress=5"];
    let operations: Vec<_> = lines.iter().map(|line| stage.sign(line)).collect();
    unchecked(&mut stage, &operations)
}

#[test]
fn keys_of_a_block_do_not_grow_with_the_providers() {
    let few = work(10);
    assert!(few.0 < 100, "{few:?}");
    // A path of a Fenwick tree has as many nodes as its index allows: at most 21 for any number of
    // providers, and fewer at some indices.
    for providers in [1_000, 100_000] {
        let (named, changed) = work(providers);
        assert!(named <= few.0 + 20 && changed <= few.1 + 20, "{providers}: {named} {changed}, {few:?}");
    }
}

/// Records named and changed by three blocks: the first of an epoch, one that closes a slice in
/// both passes, and the one that seals.
fn closing_work(providers: u32) -> [(usize, usize); 4] {
    let mut stage = Stage::new();
    populate(&mut stage.world, providers);
    let p = stage.world.parameters;
    let (epoch, first) = (p.epoch_blocks(), p.round_blocks);
    [epoch, epoch + first, 2 * epoch, 2 * epoch + first].map(|height| block_at(&mut stage, height))
}

#[test]
fn closing_an_epoch_costs_a_block_the_same_for_any_number_of_providers() {
    let few = closing_work(10);
    let (many, most) = (closing_work(1_000), closing_work(100_000));
    assert_eq!(many, most, "a slice is a slice");
    assert!(few.iter().zip(&most).all(|(few, most)| few.0 <= most.0 && few.1 <= most.1));
    for (named, changed) in most {
        assert!(named < 64 * 10 && changed < 64 * 6, "{named} {changed}");
    }
}

#[test]
fn the_root_covers_every_row_in_the_order_of_indices() {
    let mut stage = Stage::new();
    let count = 100;
    populate(&mut stage.world, count);
    let epoch = stage.world.parameters.epoch_blocks();
    for height in epoch..=3 * epoch {
        block_at(&mut stage, height);
    }
    let world = &stage.world;
    let leaf = |index: u32| {
        let account = Account(sha256(&index.to_be_bytes()));
        let row: Settlement = world.get(Settlement::key(&account, 0)).expect("a row of each provider");
        tree::leaf(&account, &row.to_slot())
    };
    let leaves: Vec<_> = (0..count).map(leaf).collect();
    let books: Books = world.get(Books::key(0)).expect("it is sealed");
    assert_eq!((books.rows, books.root), (u64::from(count), tree::root_of(&leaves)));
    let closing: Closing = world.get(Closing::of(0)).expect("it stands until epoch 4");
    assert_eq!((closing.providers, closing.rows), (count, u64::from(count)));
    assert_ne!(books.root, tree::root_of(&leaves[1..]));
    assert_eq!(tree::root_of(&[]), tree::root(0, &[]));
}

/// Scores depend on ratios: ten times the data and ten times the downloads do not change them.
#[test]
fn ten_times_the_volume_leaves_the_score_unchanged() {
    let run = |times: usize| {
        let (mut stage, member) = holding(&vec![7_000; 10 * times]);
        stage.play(&format!("p redeem p/0 egress={}", 1_000 * times));
        run_to(&mut stage, &member, 9, true);
        let row = row(&stage.world, &account("p"), 0).expect("it is measured");
        (reputation(&stage.world).scores, row.redeemed.egress, row.base)
    };
    let ((one, few, small), (ten, many, large)) = (run(1), run(10));
    assert!(many == 10 * few && large.grains() > 5 * small.grains(), "the volume is another");
    assert_eq!(one, ten);
}
