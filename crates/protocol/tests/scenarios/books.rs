//! The books: epochs are measured, paid and sealed; absent or wrong providers are warned, suspended
//! or jailed.

use crate::{
    audits::{answer, holding, submit},
    model_provider::{ModelProvider, bytes},
    script::{Stage, check},
    world::{World, account},
};
use posync_protocol::{
    Account, Amount, Body, Class, Code, PerClass, Record,
    amount::ONE,
    books::tree,
    economics::{pool, price, score},
    ledger::{Event, ReputationReason, ReputationStep},
    limits::{Parameters, SETTLEMENT_RING},
    record::{Books, Market, Provider, Ratio, Reputation, Settlement, UNMEASURED},
};

pub(crate) const ACCEPTED: &str = "
    p register
    epoch 2
    a open p quota=8000
    epoch 9
    p leave
";

pub(crate) const REFUSED: &str = "
    b unjail               => ProviderUnknown
    p register
    p unjail               => NotJailed
    p unjail bond=2000000s => Balance
";

/// Refusals for a provider that [`stand`] jailed or suspended.
pub(crate) const JAILED: &str = "
    a open p  => ProviderJailed
    p unjail  => JailedStill
    epoch 4
    p unjail  => JailedStill
    epoch 5
    p unjail
    p unjail  => NotJailed
    a open p
";
pub(crate) const SUSPENDED: &str = "
    a open p storage_max=1 => EscrowTooSmall
    a open p               => ProviderSuspended
    p unjail               => NotJailed
";

#[test]
fn table() {
    check(ACCEPTED);
    check(REFUSED);
    stand(|reputation| reputation.jailed_until = 5).play(JAILED);
    stand(|reputation| reputation.suspended = 1).play(SUSPENDED);
}

/// A stage in which `change` was applied to the reputation of provider `p`.
fn stand(change: impl FnOnce(&mut Reputation)) -> Stage {
    let mut stage = Stage::new();
    stage.play("p register bond=2000s");
    let key = Reputation::key(&account("p"));
    let mut reputation: Reputation = stage.world.get(key).expect("it registered");
    change(&mut reputation);
    stage.world.state.insert(key, reputation.to_slot());
    stage
}

#[test]
fn whoever_is_jailed_for_ever_never_leaves() {
    let mut stage = stand(|reputation| reputation.jailed_until = u64::MAX);
    stage.play("epoch 40\n p unjail => JailedStill");
}

pub(crate) fn reputation(world: &World) -> Reputation {
    world.get(Reputation::key(&account("p"))).expect("p is registered")
}

pub(crate) fn row(world: &World, who: &Account, epoch: u64) -> Option<Settlement> {
    let row: Option<Settlement> = world.get(Settlement::key(who, epoch % SETTLEMENT_RING));
    row.filter(|row| row.epoch == epoch)
}

/// Runs blocks up to an epoch. The provider answers its challenges, or stays silent.
pub(crate) fn run_to(stage: &mut Stage, member: &ModelProvider, epoch: u64, answers: bool) -> Vec<Event> {
    let mut events = Vec::new();
    while stage.world.epoch() < epoch {
        let answered = if answers { answer(stage, member) } else { None };
        if answered.is_none() {
            stage.world.block(&[]).expect("an empty block is valid");
        }
        events.extend(stage.world.events.iter().cloned());
    }
    events
}

#[test]
fn an_epoch_is_measured_paid_and_sealed() {
    let (mut stage, member) = holding(&[70_000]);
    let events = run_to(&mut stage, &member, 7, true);
    let (world, p) = (&stage.world, account("p"));
    let parameters = &world.parameters;
    for epoch in 0..=3 {
        let books: Books = world.get(Books::key(epoch)).expect("it is sealed");
        let row = row(world, &p, epoch).expect("a row of each epoch");
        assert_eq!(books.root, tree::root_of(&[tree::leaf(&p, &row.to_slot())]));
        assert_eq!((books.epoch, books.rows, books.weight), (epoch, 1, row.weight));
        assert_eq!(
            (row.correct, row.available, row.latency),
            (
                PerClass::new(Ratio::new(ONE), Ratio::UNMEASURED, Ratio::UNMEASURED),
                Ratio::new(ONE),
                Ratio::new(0)
            )
        );
        assert_eq!(
            (row.quality.ppb(), row.least.ppb()),
            (ONE / 2, ONE / 2),
            "an unmeasured latency halves it"
        );
        assert_eq!(row.weight, row.base.grains() / 2);
        assert!(row.base.grains() > 0 && row.answers > 0 && row.reads >= row.answers * 4);
        let share = pool::share(books.pool.grains(), row.weight, books.weight);
        assert_eq!((row.subsidy, books.paid), (books.paid, books.pool), "one row takes all");
        assert_eq!(row.subsidy.grains(), share);
        let cap = row.weight * u128::from(parameters.burn) / u128::from(ONE);
        assert_eq!(books.pool.grains(), cap * u128::from(parameters.subsidy_cap) / u128::from(ONE));
        let paid = events.iter().any(|event| {
            matches!(event, Event::Subsidy { epoch: e, provider, amount } if (*e, *provider, *amount) == (epoch, p, row.subsidy))
        });
        assert!(paid, "the payment is told");
        assert!(events.contains(&Event::Closed { epoch, rows: 1, root: books.root }));
    }
    assert!(world.get::<Books>(Books::key(4)).is_none(), "the fourth is paid but not sealed");
    let expected = (0..=4).fold(score::SCORE_START, |before, _| score::update(before, Some(ONE / 2), false));
    assert_eq!(reputation(world).scores, PerClass::new(expected, UNMEASURED, UNMEASURED));
    assert_eq!(reputation(world).effective(0), 0);
    assert_eq!(reputation(world).effective(64), expected);
}

/// Runs a block in which every drawn provider answers.
fn answered_block(stage: &mut Stage, members: &[ModelProvider]) -> Vec<Event> {
    let storage_proofs = members.iter().filter_map(|member| {
        Some(stage.world.sign(&member.name, Body::StorageProof(member.storage_proof(&stage.world)?)))
    });
    let storage_proofs: Vec<_> = storage_proofs.collect();
    stage.world.block(&storage_proofs).expect("an answered block is valid").events
}

#[test]
fn two_providers_share_each_pool_by_weight_and_the_carry_is_exact() {
    let (mut stage, p) = holding(&[70_000]);
    stage.world.draws = false;
    stage.play("q register\n b open q quota=100000 end=700");
    let mut q = ModelProvider::new("q");
    let set = q.change(&stage.world, 0, &[], &[bytes(9, 150_000)]);
    assert_eq!(submit(&mut stage, "b", Body::SetDataSet(set)), Ok(Code::Done));
    stage.world.draws = true;
    let members = [p, q];
    let (mut told, mut reserve) = (0, stage.world.system().reserve);
    while stage.world.epoch() < 16 {
        for event in answered_block(&mut stage, &members) {
            if let Event::Subsidy { amount, .. } = event {
                told += amount.grains();
            }
        }
        assert!(stage.world.system().reserve <= reserve, "the reserve never grows");
        reserve = stage.world.system().reserve;
    }
    let world = &stage.world;
    let (mut carry, mut paid) = (0, 0);
    for epoch in 0..=12 {
        let books: Books = world.get(Books::key(epoch)).expect("it is sealed");
        let rows = ["p", "q"].map(|name| row(world, &account(name), epoch).expect("a row of each"));
        assert_eq!(rows.iter().map(|row| row.weight).sum::<u128>(), books.weight);
        let weights = rows.clone().map(|row| row.weight);
        let payout = pool::pay_pool(books.pool.grains(), carry, &weights);
        assert_eq!(payout.shares, rows.map(|row| row.subsidy.grains()));
        assert_eq!((payout.drawn, payout.carry), (books.drawn.grains(), books.carry.grains()));
        let leaves = ["p", "q"].map(|name| {
            let row = row(world, &account(name), epoch).expect("a row of each");
            tree::leaf(&account(name), &row.to_slot())
        });
        assert_eq!(books.root, tree::root_of(&leaves));
        (carry, paid) = (payout.carry, paid + books.paid.grains());
    }
    assert!(told > paid && paid > 0, "the epoch after is paid and not sealed");
}

#[test]
fn an_idle_provider_is_unmeasured_and_decays_after_the_grace() {
    let mut stage = Stage::new();
    stage.play("p register\n epoch 7");
    let row = row(&stage.world, &account("p"), 3).expect("a row of each epoch");
    assert_eq!((row.quality, row.least.ppb(), row.weight), (Ratio::UNMEASURED, 0, 0));
    let decayed = score::update(score::update(score::SCORE_START, None, false), None, false);
    assert_eq!(reputation(&stage.world).scores[Class::Storage], decayed, "epochs 3 and 4 of 0 to 4");
}

#[test]
fn prices_follow_paid_leaf_rounds_and_openings_lock_the_pair() {
    let (mut stage, member) = holding(&[70_000]);
    stage.world.draws = false;
    // The bond covers exactly the held leaves, so all offered room is in use.
    let held = member.data_set(&stage.world, 0).current.leaves;
    offer_only(&mut stage, held);
    stage.world.draws = true;
    run_to(&mut stage, &member, 16, true);
    stage.world.block(&[]).expect("an empty block is valid");
    let market: Market = stage.world.get(Market::key(Class::Storage)).expect("it moved");
    let rounds = Parameters::LOCAL.epoch_rounds;
    let paid = |epoch: u64| row(&stage.world, &account("p"), epoch).expect("a row of each epoch").storage;
    assert!((0..=14).map(paid).sum::<u64>() >= held * rounds * 13, "nearly every leaf-round was paid");
    let (mut bucket, mut excess) = (0, 0);
    for epoch in 0..=14 {
        let (used, rest) = price::bucket_next(bucket, paid(epoch).into());
        bucket = rest;
        let capacity = u128::from(held * rounds);
        excess = price::excess_next(excess, used, capacity, price::TARGET_FLOW, price::FRACTION_FLOW);
    }
    assert_eq!((market.excess, market.bucket, market.epoch), (excess, bucket, 14));
    assert_eq!(market.capacity, u128::from(held * rounds));
    let least = Parameters::LOCAL.prices[Class::Storage];
    let posted = price::posted(least, excess, price::FRACTION_FLOW);
    assert!(posted > least && u128::from(market.price) == posted);
    assert!(market.slow < market.price && u128::from(market.slow) > least);
    stage.world.draws = false;
    let egress: Market = stage.world.get(Market::key(Class::Egress)).expect("it was looked at");
    assert_eq!(
        u128::from(egress.price),
        Parameters::LOCAL.prices[Class::Egress],
        "nothing measured, nothing moves"
    );
    stage.play("q register capacity=1\n a open q quota=1 max_storage=10000000 => PriceAboveMaximum\n a open q quota=1");
    let key = posync_protocol::record::Agreement::key(&account("q"), 0);
    let agreement: posync_protocol::record::Agreement = stage.world.get(key).expect("opened");
    assert_eq!(
        (agreement.prices[Class::Storage].price, agreement.prices[Class::Storage].slow),
        (market.price, market.slow)
    );
}

/// Makes the bond of `p` cover only `leaves`, regardless of its declaration.
fn offer_only(stage: &mut Stage, leaves: u64) {
    let parameters = &mut stage.world.parameters;
    let bond = Amount::sync(1_000).grains() / u128::from(leaves);
    parameters.bond_per_leaf = Amount::new(bond).expect("below the bound");
}

#[test]
fn what_is_redeemed_and_claimed_stands_in_the_row() {
    let mut stage = Stage::new();
    stage.play("p register\n a open p rate=4194304\n p redeem p/0 egress=2097152 claim=3145728");
    let row = row(&stage.world, &account("p"), 0).expect("something was settled");
    assert_eq!((row.redeemed.egress, row.redeemed.gas), (2_097_152, 0));
    assert_eq!((row.fee.grains(), row.base, row.signed), (2_000_000, row.fee, row.fee));
    assert_eq!(row.disputed.grains(), 1_000_000);
}

#[test]
fn a_claim_changes_neither_pay_nor_quality_nor_score() {
    let closed = |claim: &str| {
        let mut stage = Stage::new();
        stage.play("p register\n a open p rate=4194304");
        stage.play(&format!("p redeem p/0 egress=2097152 {claim}\n epoch 4"));
        let row = row(&stage.world, &account("p"), 0).expect("something was settled");
        (row, reputation(&stage.world))
    };
    let ((silent, reputation), (claiming, its_reputation)) = (closed(""), closed("claim=3145728"));
    assert_eq!((silent.disputed.grains(), claiming.disputed.grains()), (0, 1_000_000));
    assert_eq!(Settlement { disputed: silent.disputed, ..claiming }, silent);
    assert_eq!(reputation, its_reputation);
}

pub(crate) fn steps(events: &[Event]) -> Vec<(ReputationStep, ReputationReason)> {
    let step = |event: &Event| match event {
        Event::Reputation { step, reason, .. } => Some((*step, *reason)),
        _ => None,
    };
    events.iter().filter_map(step).collect()
}

#[test]
fn who_is_away_is_warned_then_suspended_but_loses_no_stake() {
    let (mut stage, member) = holding(&[70_000]);
    let before: Provider = member.provider(&stage.world);
    let events = run_to(&mut stage, &member, 22, false);
    let away = ReputationReason::Availability;
    let expected = [ReputationStep::Warned, ReputationStep::Warned, ReputationStep::Suspended];
    assert_eq!(steps(&events)[..3], expected.map(|step| (step, away)));
    let now = reputation(&stage.world);
    assert!(now.suspended > now.warned && now.jailed_until == 0);
    assert!(now.scores[Class::Storage] < score::SCORE_START);
    assert_eq!(member.provider(&stage.world).bond, before.bond);
    stage.world.draws = false;
    stage.play("a open p slot=1 end=700 => ProviderSuspended");
    stage.world.draws = true;
    let back = run_to(&mut stage, &member, 30, true);
    assert!(steps(&back).contains(&(ReputationStep::Resumed, away)));
    assert_eq!(reputation(&stage.world).suspended, 0);
}

#[test]
fn who_answers_wrongly_is_warned_then_jailed_and_may_come_back() {
    let (mut stage, mut member) = holding(&[70_000]);
    member.lose_tenths(5);
    let events = run_to(&mut stage, &member, 6, true);
    let wrong = ReputationReason::Correctness;
    let expected = [ReputationStep::Warned, ReputationStep::Warned, ReputationStep::Jailed];
    assert_eq!(steps(&events)[..3], expected.map(|step| (step, wrong)));
    let now = reputation(&stage.world);
    assert_eq!((now.jailings, now.suspended), (1, 0));
    assert_eq!(now.jailed_until, now.last_jailed + 8);
    let jailed = events.iter().find_map(|event| match event {
        Event::Reputation { step: ReputationStep::Jailed, epoch, evidence, until, .. } => {
            Some((*epoch, *evidence, *until))
        }
        _ => None,
    });
    let (epoch, evidence, until) = jailed.expect("it was told");
    let row = row(&stage.world, &account("p"), epoch).expect("its row");
    assert_eq!(evidence, tree::leaf(&account("p"), &row.to_slot()), "the row shows why");
    assert_eq!((until, row.quality.ppb()), (now.jailed_until, 0));
    member.lost.clear();
    run_to(&mut stage, &member, until, true);
    assert_eq!(reputation(&stage.world).jailed_until, until, "time alone opens no door");
    stage.world.draws = false;
    stage.play(
        "p update bond=10s\n a open p slot=1 end=700 => ProviderJailed\n p unjail\n a open p slot=1 end=700",
    );
    let now = reputation(&stage.world);
    assert_eq!((now.jailed_until, now.probation), (0, 3));
    assert!(now.score() <= score::SCORE_START);
}

#[test]
fn a_provider_that_comes_back_under_its_account_begins_anew() {
    let mut stage = Stage::new();
    stage.play("p register\n p leave\n epoch 21\n p leave\n p register\n epoch 25");
    let reputation = reputation(&stage.world);
    assert_eq!(reputation.registered, 21);
    assert!(row(&stage.world, &account("p"), 20).is_none(), "not of its first life");
    assert!(row(&stage.world, &account("p"), 21).is_some());
}
