//! Leaving: the time when the bond returns, the records that are removed, and those that stay.

use crate::{
    audits::{answer, holding, until_drawn},
    books::row,
    script::Stage,
    sets::settled,
    world::{World, account},
};
use posync_protocol::{
    Amount, Body, Code, PerClass, Record,
    agreement::unused,
    ledger::{BlockContext, Event, Size, touches_operation},
    limits::SETTLEMENT_RING,
    record::{Agreement, Provider, Reputation, Settlement, Usage},
};

fn reputation(world: &World) -> Option<Reputation> {
    world.get(Reputation::key(&account("p")))
}

/// A stage in which `change` was applied to the reputation of provider `p`.
fn stand(change: impl FnOnce(&mut Reputation)) -> Stage {
    let mut stage = Stage::new();
    stage.play("p register bond=2000s");
    let mut now = reputation(&stage.world).expect("it registered");
    change(&mut now);
    stage.world.state.insert(Reputation::key(&account("p")), now.to_slot());
    stage
}

fn rows(world: &World) -> usize {
    world.state.values().filter(|slot| slot[0] == Settlement::KIND).count()
}

#[test]
fn the_bond_and_the_index_stay_until_the_unbonding_ends() {
    let mut stage = Stage::new();
    stage.play("p register\n p leave");
    for epoch in [7, 8, 20] {
        stage.play(&format!("epoch {epoch}\n p leave => ExitEarly"));
        let provider: Provider = stage.world.get(Provider::key(&account("p"))).expect("it is there");
        assert_eq!((provider.leaves_at, provider.bond), (8, Amount::sync(1_000)));
        assert_eq!(stage.world.system().bonds, Amount::sync(1_000));
    }
    stage.play("a open p => ProviderLeaving\n epoch 21\n p leave");
    assert_eq!(stage.world.system().bonds, Amount::ZERO);
    assert_eq!(stage.world.system().vacant, Some(0));
}

#[test]
fn agreements_end_from_the_eighth_epoch_on_and_no_exit_skips_its_notice() {
    let mut stage = Stage::new();
    stage.play("p register\n a open p");
    let exit = |stage: &Stage| {
        let Body::UpdateProvider(body) = stage.sign("p leave").body else { panic!("an update") };
        let body = posync_protocol::operation::UpdateProvider { leave: false, exit: Some(0), ..body };
        stage.world.sign("p", Body::UpdateProvider(body))
    };
    stage.play("a close p/0 second=p");
    let skipped = exit(&stage);
    assert_eq!(stage.world.submit(&skipped), Ok(posync_protocol::Code::NoticeMissing));
    stage.play("a open p\n p leave\n epoch 6\n p closealone p/0\n epoch 8");
    let settle = stage
        .world
        .get::<posync_protocol::record::Usage>(posync_protocol::record::Usage::key(&account("p"), 0));
    assert_eq!(settle.expect("it stands").closing_epoch, Some(8));
}

#[test]
fn jail_is_not_left_by_leaving() {
    let mut stage = stand(|reputation| {
        (reputation.jailed_until, reputation.jailings, reputation.last_jailed) = (40, 2, 3);
        (reputation.warned, reputation.probation) = (3, 1);
    });
    stage.play("p leave\n epoch 21\n p leave");
    assert!(reputation(&stage.world).is_some(), "it outlives the exit");
    stage.play("p unjail => ProviderUnknown\n p register bond=2000s\n a open p end=60 => ProviderJailed");
    let now = reputation(&stage.world).expect("it registered");
    assert_eq!((now.registered, now.jailed_until, now.jailings), (21, 40, 2));
    assert_eq!((now.last_jailed, now.probation, now.warned), (3, 1, 3));
    stage.play("epoch 39\n p unjail => JailedStill\n epoch 40\n p unjail\n a open p end=60");
}

#[test]
fn a_jailing_is_remembered_for_as_long_as_it_counts() {
    for (epoch, is_kept) in [(256, true), (257, false)] {
        let mut stage = stand(|reputation| (reputation.jailings, reputation.last_jailed) = (1, 0));
        stage.play(&format!("p leave\n epoch {epoch}\n p leave"));
        assert_eq!(reputation(&stage.world).is_some(), is_kept, "epoch {epoch}");
        stage.play("p register");
        assert_eq!(reputation(&stage.world).expect("it registered").jailings, u8::from(is_kept));
    }
}

#[test]
fn a_jailed_seat_registers_jailed_for_ever() {
    // It was a provider when it was jailed, or becomes one later.
    for before in ["p register\n a evidence p\n p leave\n epoch 21\n p leave", "a evidence p"] {
        let mut stage = Stage::new();
        stage.world.seat("p");
        stage.play(before);
        stage.play("p register\n a open p end=60 => ProviderJailed\n p unjail => JailedStill");
        let now = reputation(&stage.world).expect("it registered");
        assert_eq!((now.jailed_until, now.scores), (u64::MAX, PerClass::default()));
    }
    let mut stage = Stage::new();
    stage.world.seat("p");
    stage.play("p register\n a open p");
}

#[test]
fn an_exit_takes_its_rows_along_and_no_others() {
    let mut stage = Stage::new();
    stage.play("p register\n q register\n p leave\n epoch 21");
    assert_eq!(rows(&stage.world), 2 * 20, "a row of each in each measured epoch");
    let exit = stage.sign("p leave");
    stage.world.submit(&exit).expect("it pays");
    assert_eq!(rows(&stage.world), 20, "the other's stay");
    assert!((0..20).all(|epoch| row(&stage.world, &account("q"), epoch).is_some()));
    let own = Size::of(&stage.world.context(stage.world.height), &exit);
    assert!((22 + 8..22 + 20).contains(&own.records), "{own:?}");
}

#[test]
fn an_exit_names_at_most_the_ring_of_rows() {
    let stage = Stage::new();
    let Body::UpdateProvider(body) = stage.sign("p leave").body else { panic!("an update") };
    let body = posync_protocol::operation::UpdateProvider { leave: false, exit: Some(0), ..body };
    let exit = stage.world.sign("p", Body::UpdateProvider(body));
    let named = |epoch: u64| {
        let height = epoch * stage.world.parameters.epoch_blocks();
        let context = BlockContext { height, ..stage.world.context(1) };
        touches_operation(&context, &exit).writable.len() as u64
    };
    let rest = named(1) - 2;
    assert!(rest < 20, "{rest}");
    for epoch in [2, 510, 511, 512, 100_000] {
        assert_eq!(named(epoch), rest + SETTLEMENT_RING.min(epoch + 1), "epoch {epoch}");
    }
}

#[test]
fn an_exit_waits_until_every_epoch_that_paid_it_is_closed() {
    let mut stage = Stage::new();
    stage
        .play("p register\n a open p end=21 rate=4194304\n p leave\n epoch 19\n p redeem p/0 egress=2097152");
    stage.play("a close p/0 second=p\n epoch 23\n p leave => ExitEarly");
    assert!(row(&stage.world, &account("p"), 19).is_some_and(|row| row.fee > Amount::ZERO));
    stage.play("epoch 24\n p leave");
    assert_eq!(rows(&stage.world), 0);
}

#[test]
fn who_comes_back_is_paid_nothing_of_its_earlier_life() {
    let (mut stage, member) = crate::audits::holding(&[70_000]);
    let mut paid = Vec::new();
    stage.world.draws = false;
    stage.play("p leave");
    stage.world.draws = true;
    let note = |events: Vec<Event>, paid: &mut Vec<u64>| {
        paid.extend(events.into_iter().filter_map(|event| match event {
            Event::Subsidy { epoch, .. } => Some(epoch),
            _ => None,
        }));
    };
    note(crate::books::run_to(&mut stage, &member, 17, true), &mut paid);
    stage.world.draws = false;
    while member.audit(&stage.world).challenge.is_some() {
        crate::audits::answer(&mut stage, &member);
    }
    stage.play("a close p/0 second=p\n a close p/1 second=p => AgreementUnknown");
    note(crate::books::run_to(&mut stage, &member, 22, false), &mut paid);
    assert!(paid.is_sorted() && paid.contains(&16), "all that it earned, before it goes: {paid:?}");
    let last = *paid.last().expect("it was paid");
    stage.play("epoch 24\n p leave\n p register");
    let mut later = Vec::new();
    note(crate::books::run_to(&mut stage, &member, 30, false), &mut later);
    assert_eq!(later, [0_u64; 0], "the last that it earned was of {last}");
    assert!((0..24).all(|epoch| row(&stage.world, &account("p"), epoch).is_none()));
}

/// AG-5, ST-8: a close by both is refused and changes nothing while reads are due. Once the
/// provider has answered, the close removes the agreement at once, paid up to that answer.
#[test]
fn a_close_by_both_waits_for_the_reads_that_are_due() {
    let (mut stage, member) = holding(&[60_000]);
    settled(&mut stage, &member);
    stage.play("blocks 20");
    stage.world.draws = true;
    until_drawn(&mut stage, &member);
    let read = |stage: &Stage| -> Usage { stage.world.get(Usage::key(&account("p"), 0)).expect("it stands") };
    let (before, used) = (member.provider(&stage.world), read(&stage));
    stage.play("a close p/0 second=p => ChallengeOpen\n p close p/0 second=a => ChallengeOpen");
    assert_eq!((member.provider(&stage.world), read(&stage)), (before.clone(), used));
    stage.world.draws = false;
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    let settled = member.provider(&stage.world);
    assert!(settled.acc > before.acc && settled.slot_weight > 0, "its reads were paid");
    stage.play("blocks 40");
    let (burned, own) = (stage.world.system().burned.grains(), stage.world.balance("p").grains());
    let (terms, used): (Agreement, Usage) =
        (stage.world.get(Agreement::key(&account("p"), 0)).expect("it stands"), read(&stage));
    let free = stage.world.balance("a");
    stage.play("p close p/0 second=a");
    assert!(stage.world.get::<Agreement>(Agreement::key(&account("p"), 0)).is_none(), "at once");
    let provider = member.provider(&stage.world);
    assert_eq!((provider.slot_weight, provider.paid, provider.weighed, provider.slots), (0, 0, 0, 0));
    assert_eq!(provider.acc, settled.acc, "nothing is paid after the last settlement");
    // All of the locked money that was left came back, except the price of reserving.
    let parameters = stage.world.parameters;
    let cost = unused(&terms, &used, parameters.round(stage.world.height), &parameters).grains();
    let whole = settled.pool.grains() + used.voucher_reserve.grains() + used.deposit.grains();
    let returned = stage.world.balance("a").grains() - free.grains();
    let fee = own - stage.world.balance("p").grains();
    let costs = stage.world.system().burned.grains() - burned - fee;
    assert!(cost > 0 && costs >= cost, "{costs} burned, {cost} of them for egress and gas");
    assert_eq!(returned + costs, whole);
}
