//! Findings of a second audit of the rules. Each test fails as long as its fault exists, or as long
//! as the rest of it differs from docs/threats.md. docs/faults.md records the outcome of each.

use crate::{
    audits::{answer, holding, submit, until_drawn},
    books::{run_to, steps},
    crowd::populate,
    model_provider::{ModelProvider, bytes},
    punished::one_draw_an_epoch,
    script::Stage,
    world::account,
};
use posync_protocol::{
    Account, Amount, Body, Bounded, Class, Code, Metered, Operation, PerClass, Record, Units,
    agreement::{self, raise},
    block::sha256,
    books::Pair,
    ledger::{Mode, ReputationReason, ReputationStep, execute, select, touches_operation},
    limits::Parameters,
    operation::{EndedRead, ReadAnswer, StorageProof, Voucher},
    record::{Agreement, Audit, Finding, Market, Provider, Reports, Usage},
    shard,
};
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};

/// A storage proof without content: it names the open challenge and as many records as it can.
fn garbage(stage: &Stage, provider: Account, index: u32, slots: u32) -> Option<Operation> {
    let challenge = stage.world.get::<Audit>(Audit::key(&provider))?.challenge?;
    let apply = (0..slots).map(|place| (2 * place, provider, 5 + 7 * u64::from(place))).collect();
    let ended = |place: u32| ReadAnswer::Ended(EndedRead { place: (1 << 30) - 2 - place * 99_999_998 });
    let storage_proof = StorageProof {
        height: challenge.height,
        index,
        answers: Bounded::new((0..4).map(ended).collect()).expect("four"),
        apply: Bounded::new(apply).expect("64"),
        ..StorageProof::default()
    };
    Some(Operation {
        signer: provider,
        nonce: 0,
        max_fee: Amount::ZERO,
        expires: stage.world.height + 1,
        body: Body::StorageProof(storage_proof),
        signature: [0; 64],
    })
}

/// BL-5, LE-3: operations that may not stand in a block keep no answer out of it. Some drawn
/// providers stay silent; each has a free storage proof waiting that no block can hold.
#[test]
fn storage_proofs_that_cannot_stand_keep_no_answer_out() {
    const SILENT: u32 = 20;
    let mut stage = Stage::new();
    populate(&mut stage.world, SILENT);
    stage.play("p register\n a open p quota=1000 end=700");
    let mut member = ModelProvider::new("p");
    let set = member.change(&stage.world, 0, &[], &[bytes(1, 60_000)]);
    assert_eq!(submit(&mut stage, "a", Body::SetDataSet(set)), Ok(Code::Done));
    stage.world.draws = true;
    let mut waiting = Vec::new();
    for _ in 0..400 {
        if answer(&mut stage, &member).is_none() {
            stage.world.block(&[]).expect("an empty block is valid");
        }
        let drawn = (0..SILENT).map(|index| (Account(sha256(&index.to_be_bytes())), index));
        let slots = |index: u32| [64; 10].into_iter().chain([8, 4, 1]).nth(index as usize).unwrap_or(0);
        waiting =
            drawn.filter_map(|(account, index)| garbage(&stage, account, index, slots(index))).collect();
        if waiting.len() == SILENT as usize && member.audit(&stage.world).challenge.is_some() {
            break;
        }
    }
    assert_eq!(waiting.len(), SILENT as usize, "each of them was drawn");
    let storage_proof = member.storage_proof(&stage.world).expect("it is drawn");
    waiting.push(stage.world.sign("p", Body::StorageProof(storage_proof)));
    let context = stage.world.context(stage.world.height + 1);
    let keys = |operation: &Operation| {
        let touched = touches_operation(&context, operation);
        touched.writable.into_iter().chain(touched.readable).collect::<BTreeSet<_>>().len()
    };
    let named: Vec<usize> = waiting.iter().map(keys).collect();
    let draws = stage.world.resolve(&context);
    let (system, closing_set) = (stage.world.system(), stage.world.closing_set(&context));
    let answer = waiting.last().expect("it waits").id();
    // The block runs as a proposer's: a refused operation gives its room to the next waiting one,
    // four times at most.
    let mut is_in = false;
    for _ in 0..4 {
        let chosen = select(&context, &system, &closing_set, &draws, &waiting);
        let chosen: Vec<Operation> = chosen.into_iter().map(|place| waiting[place].clone()).collect();
        let records = stage.world.read(&context, &draws, &chosen).expect("what is selected fits");
        let outcome = execute(&context, &draws, &chosen, &records, Mode::Propose).expect("a valid block");
        let kept: BTreeSet<_> = outcome.kept.iter().map(|place| chosen[*place].id()).collect();
        is_in = kept.contains(&answer);
        waiting.retain(|o| kept.contains(&o.id()) || !chosen.iter().any(|tried| tried.id() == o.id()));
    }
    assert!(is_in, "all together name {named:?} records");
}

/// Grains that `p` owns: its balance, its bond, and its agreement with itself in slot 1.
fn wealth(stage: &Stage) -> i128 {
    let own: Option<Usage> = stage.world.get(Usage::key(&account("p"), 1));
    let own = own.map_or(0, |own| own.storage_reserve.grains() + own.deposit.grains());
    let bond = stage.world.get::<Provider>(Provider::key(&account("p"))).map_or(0, |p| p.bond.grains());
    (stage.world.balance("p").grains() + bond + own) as i128
}

/// `p` lost all data of `a`, and holds forty times as many leaves under an agreement with itself.
/// With `closes`, it closes that agreement with both signatures as soon as possible after each
/// draw. It answers when it can. Returns its gain in sixty epochs, and the number of rounds that it
/// was paid for.
fn diluted(closes: bool) -> (i128, u128) {
    let mut stage = Stage::new();
    stage.world.check_every = 97;
    let dear = Market { price: 1_000_000_000_000, slow: 1_000_000_000_000, ..Market::default() };
    stage.world.state.insert(Market::key(Class::Storage), dear.to_slot());
    stage.play("p register bond=100000s\n a open p quota=98 end=700 storage_max=100000s");
    let mut member = ModelProvider::new("p");
    let (lost, own) = (bytes(1, 98 << 10), bytes(2, 3_990 << 10));
    let set = member.change(&stage.world, 0, &[], std::slice::from_ref(&lost));
    assert_eq!(submit(&mut stage, "a", Body::SetDataSet(set)), Ok(Code::Done));
    member.lost.extend((0..98).map(|place| (shard::name(&lost), place)));
    let before = wealth(&stage);
    stage.play("p open p slot=1 quota=3990 quota_egress=0 quota_gas=0 reserve=0 storage_max=100000s end=80");
    let set = member.change(&stage.world, 1, &[], &[own]);
    assert_eq!(submit(&mut stage, "p", Body::SetDataSet(set)), Ok(Code::Done));
    stage.world.draws = true;
    let settled = member.provider(&stage.world);
    assert_eq!(settled.leaves, 98 + 3_990);
    until_drawn(&mut stage, &member);
    if closes {
        stage.play("p close p/1 second=p => ChallengeOpen");
    }
    while stage.world.epoch() < 60 {
        if closes && member.agreement(&stage.world, 1).is_some() {
            stage.attempt("p close p/1 second=p");
        }
        let provider = member.provider(&stage.world);
        match member.storage_proof(&stage.world) {
            Some(storage_proof)
                if storage_proof.answers.iter().all(|read| matches!(read, ReadAnswer::Proved(_))) =>
            {
                assert_eq!(submit(&mut stage, "p", Body::StorageProof(storage_proof)), Ok(Code::Done));
            }
            None if provider.weighed != provider.paid => {
                let own = member.settle(&stage.world, &[]);
                let _ = submit(&mut stage, "p", Body::Settle(own));
            }
            _ => drop(stage.world.block(&[]).expect("an empty block is valid")),
        }
    }
    let paid = member.provider(&stage.world).acc;
    stage.world.draws = false;
    stage.play("blocks 128");
    let expiry = member.settle(&stage.world, &[]);
    let _ = submit(&mut stage, "p", Body::Settle(expiry));
    // Everything that it owes itself is charged; the rest returns.
    if member.agreement(&stage.world, 1).is_some() {
        stage.play("p close p/1 second=p");
    }
    assert!(member.agreement(&stage.world, 1).is_none());
    let gained = wealth(&stage) - before;
    (gained, (paid - settled.acc) / 1_000_000_000)
}

/// RD-1, ST-8: reads are weighted by pay, so hiding lost data behind one's own data costs a quarter
/// of the weight. A close by both must not pay that back.
#[test]
fn a_close_by_both_hides_no_lost_data() {
    let (paying, rounds) = diluted(false);
    assert!(paying < 0 && rounds > 0, "who pays for the weight loses: {paying} in {rounds} rounds");
    let (gained, rounds) = diluted(true);
    assert!(
        gained <= 0,
        "{gained} grains in {rounds} rounds for data that it did not have ({paying} if it pays)"
    );
}

/// Adds a report of the only seat about `p`, for the epoch that the next blocks close.
fn report(stage: &mut Stage, correct: u16) {
    let (world, p) = (&mut stage.world, account("p"));
    let Some(epoch) = world.epoch().checked_sub(1) else { return };
    if world.height % world.parameters.epoch_blocks() == 6 {
        let finding = Finding { auditor: 0, asked: 4, answered: 4, correct, latency: 0, throughput: 3 };
        let reports = Reports { epoch, findings: Bounded::new(vec![finding]).expect("one") };
        world.state.insert(Reports::of(&p, epoch, 0), reports.to_slot());
    }
}

/// JL-3: a provider lost half of its data and declares that in each answer; its egress is good. It
/// stays silent for an epoch after every second one, and is jailed all the same.
#[test]
fn a_silent_epoch_washes_off_no_wrong_answer() {
    let wrong = |pauses: bool| {
        let (mut stage, mut member) = holding(&[70_000]);
        stage.world.seat("b");
        member.lose_tenths(5);
        let mut events = Vec::new();
        while stage.world.epoch() < 40 {
            report(&mut stage, 4);
            let parameters = &stage.world.parameters;
            // An epoch is measured in the first block after the first round of the next one.
            let measured = (stage.world.height + 1 - parameters.round_blocks.min(stage.world.height + 1))
                / parameters.epoch_blocks();
            let rests = pauses && measured % 3 == 2;
            if rests || answer(&mut stage, &member).is_none() {
                stage.world.block(&[]).expect("an empty block is valid");
            }
            events.extend(stage.world.events.iter().cloned());
        }
        let answered = member.audit(&stage.world).answered;
        (steps(&events).contains(&(ReputationStep::Jailed, ReputationReason::Correctness)), answered)
    };
    assert!(wrong(false).0, "who never pauses is jailed");
    let (jailed, answered) = wrong(true);
    assert!(jailed, "it answered {answered} challenges in 40 epochs");
}

/// JL-3: three epochs in a row with wrong answers lead to jail. One bad challenge makes one bad
/// epoch, even if the provider is rarely drawn: it repaired the data at once, and every later
/// answer is right.
#[test]
fn one_bad_challenge_jails_nobody_who_is_drawn_rarely() {
    let (mut stage, mut member) = holding(&[70_000]);
    one_draw_an_epoch(&mut stage);
    until_drawn(&mut stage, &member);
    member.lose_tenths(7);
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    member.lost.clear();
    let first = member.audit(&stage.world).history;
    let events = run_to(&mut stage, &member, 14, true);
    let audit = member.audit(&stage.world);
    let rest = audit.drawn - 4;
    assert_eq!(
        audit.history,
        first << rest | ((1 << rest) - 1),
        "all {rest} reads after the first four passed"
    );
    let jailed = (ReputationStep::Jailed, ReputationReason::Correctness);
    assert!(
        !steps(&events).contains(&jailed),
        "{first:04b} and then {rest} right ones: {:?}",
        steps(&events)
    );
}

/// JL-1, JL-3: a provider sends wrong bytes to every auditor. With more than four times as many
/// providers as seats, it is not audited in every epoch. Good storage does not compensate for bad
/// egress.
#[test]
fn wrong_egress_jails_though_it_is_not_audited_in_every_epoch() {
    for every in [1, 2] {
        let (mut stage, member) = holding(&[70_000]);
        stage.world.seat("b");
        let mut events = Vec::new();
        while stage.world.epoch() < 40 {
            if stage.world.epoch() % every == 0 {
                report(&mut stage, 0);
            }
            if answer(&mut stage, &member).is_none() {
                stage.world.block(&[]).expect("an empty block is valid");
            }
            events.extend(stage.world.events.iter().cloned());
        }
        let jailed = (ReputationStep::Jailed, ReputationReason::Correctness);
        assert!(steps(&events).contains(&jailed), "audited every {every} epochs: {:?}", steps(&events));
    }
}

/// PV-3, RD-7: a bond returns after the unbonding. A tenth is burned of any money that returns
/// earlier, as restitution to an agreement with oneself that both sides close.
#[test]
fn restitution_to_oneself_is_no_way_around_the_unbonding() {
    let mut stage = Stage::new();
    stage.world.check_every = 97;
    let dear = Market { price: 1_000_000_000_000, slow: 1_000_000_000_000, ..Market::default() };
    stage.world.state.insert(Market::key(Class::Storage), dear.to_slot());
    stage.play("p register bond=2000s\n b open p quota=1000 quota_egress=0 quota_gas=0 reserve=0 storage_max=100000s end=40");
    let mut member = ModelProvider::new("p");
    let set = member.change(&stage.world, 0, &[], &[bytes(1, 1_000 << 10)]);
    assert_eq!(submit(&mut stage, "p", Body::SetDataSet(set)), Ok(Code::Done));
    member.lose_every(1);
    let together = |stage: &Stage| stage.world.balance("b").grains() + stage.world.balance("p").grains();
    let bond = |member: &ModelProvider, stage: &Stage| member.provider(&stage.world).bond.grains();
    let used: Usage = stage.world.get(Usage::key(&account("p"), 0)).expect("it stands");
    let before =
        (bond(&member, &stage), together(&stage) + used.storage_reserve.grains() + used.deposit.grains());
    stage.world.draws = true;
    while stage.world.epoch() < 35 {
        if answer(&mut stage, &member).is_none() {
            stage.world.block(&[]).expect("an empty block is valid");
        }
    }
    stage.world.draws = false;
    answer(&mut stage, &member);
    stage.play("b close p/0 second=p");
    let (bond, free) = (bond(&member, &stage), together(&stage));
    let (gone, back) = (before.0 - bond, free - before.1);
    assert!(gone > 0 && back * 10 <= gone * 9, "{back} of the bond came back, {gone} are gone from it");
}

/// RD-11, ST-8: a light provider refuses short terms and holds a live leaf. Its consumer takes long
/// terms, closes alone as soon as its set is in force, and frees the slot when the close takes
/// effect, before the next draw in turn. It pays the amount in docs/threats.md, and no agreement
/// costs its provider more.
#[test]
fn who_closes_alone_pays_what_is_published() {
    let mut stage = Stage::new();
    stage.world.check_every = 97;
    populate(&mut stage.world, 60);
    stage.play("p register\n q register\n b open q quota=900000 end=700\n p open p quota=1 end=700");
    let (mut p, mut q) = (ModelProvider::new("p"), ModelProvider::new("q"));
    let set = q.change(&stage.world, 0, &[], &[bytes(77, 4_000_000)]);
    assert_eq!(submit(&mut stage, "b", Body::SetDataSet(set)), Ok(Code::Done));
    let set = p.change(&stage.world, 0, &[], &[bytes(5, 1_000)]);
    assert_eq!(submit(&mut stage, "p", Body::SetDataSet(set)), Ok(Code::Done));
    // The provider is no longer a newcomer.
    let old = Audit { closed: 64, ..p.audit(&stage.world) };
    stage.world.state.insert(Audit::key(&account("p")), old.to_slot());
    stage.world.draws = true;
    let (mut in_force, mut stored, mut charged) = (0_u64, 0_u64, 0_u128);
    let (mut prepaid, mut agreements) = (0, 0);
    while stage.world.epoch() < 60 {
        let used: Option<Usage> = stage.world.get(Usage::key(&account("p"), 1));
        let data = p.data_set(&stage.world, 1);
        match &used {
            None => {
                agreements += 1;
                stage.play("a open p slot=1 quota=30 end=700 quota_egress=0 quota_gas=0 reserve=0");
                let set = p.change(&stage.world, 1, &[], &[bytes(9, 30 << 10)]);
                assert_eq!(submit(&mut stage, "a", Body::SetDataSet(set)), Ok(Code::Done));
                prepaid = stage
                    .world
                    .get::<Usage>(Usage::key(&account("p"), 1))
                    .expect("open")
                    .storage_reserve
                    .grains();
            }
            Some(used) if used.closing_epoch.is_none() && data.current.leaves > 0 => {
                stage.play("a closealone p/1");
            }
            Some(used) if used.closing_epoch.is_some_and(|at| at <= stage.world.epoch()) => {
                let before = stage.world.balance("a").grains();
                let removal = p.settle(&stage.world, &[1]);
                if submit(&mut stage, "a", Body::Settle(removal)) == Ok(Code::Done) {
                    let returned = stage.world.balance("a").grains() - before;
                    charged += prepaid + used.deposit.grains() - returned;
                }
            }
            _ => {}
        }
        let storage_proofs: Vec<Operation> = [&p, &q]
            .into_iter()
            .filter_map(|member| {
                Some(stage.world.sign(&member.name, Body::StorageProof(member.storage_proof(&stage.world)?)))
            })
            .collect();
        let round = |stage: &Stage| stage.world.parameters.round(stage.world.height);
        let before = round(&stage);
        stage.world.block(&storage_proofs).expect("right answers may stand in a block");
        let data = p.data_set(&stage.world, 1);
        in_force += (round(&stage) - before) * u64::from(data.current.leaves > 0);
        stored += (round(&stage) - before) * u64::from(data.current.leaves > 0 || data.next.is_some());
    }
    let price = |rounds: u64| u128::from(rounds) * 30 * 10_000_000 / (1 << 20);
    let share = charged * 100 / price(stored);
    assert_eq!(share, 9, "charged {charged}; stored for {stored} rounds, in force {in_force}");
    // At most one turn cycle (every second draw is in turn, newcomers stand twice), and the two
    // epochs of a close.
    let parameters = &stage.world.parameters;
    let cycle = 2 * 62 * 2 * parameters.draw_every_blocks / parameters.round_blocks;
    let most = agreements * (cycle + 2 * parameters.epoch_rounds);
    assert!(agreements > 2 && stored <= most, "{stored} of {most} rounds in {agreements} agreements");
}

/// AG-5, DR-5: with the draws of production, a provider that earns nearly all fees is drawn in each
/// block in which it has no open challenge, and draws come before upkeep. It always answers in
/// time. The close of its consumer takes effect all the same, and the provider is not paid until
/// the end of the term.
#[test]
fn a_close_takes_effect_although_its_provider_answers_always() {
    let (mut stage, member) = holding(&[60_000]);
    stage.world.draws = false;
    stage.world.check_every = 97;
    (stage.world.parameters.draws, stage.world.parameters.draw_every_blocks) = (8, 1);
    stage.play("a closealone p/0\n epoch 2");
    stage.world.draws = true;
    let (acc, mut refused) = (member.provider(&stage.world).acc, 0);
    while stage.world.epoch() < 22 && member.agreement(&stage.world, 0).is_some() {
        let removal = stage.world.sign("a", Body::Settle(member.settle(&stage.world, &[0])));
        // Upkeep comes after the answer in the same block.
        let answer = member.storage_proof(&stage.world);
        let answer = answer.map(|storage_proof| stage.world.sign("p", Body::StorageProof(storage_proof)));
        let block: Vec<_> = answer.into_iter().chain([removal]).collect();
        let kept = stage.world.block(&block).expect("what may not stand is left out").kept.len();
        refused += u32::from(kept < block.len());
    }
    let rounds = (member.provider(&stage.world).acc - acc) / 1_000_000_000;
    assert!(
        member.agreement(&stage.world, 0).is_none(),
        "twenty epochs after the close took effect: {refused} times refused, {rounds} rounds paid"
    );
}

/// An agreement for egress alone, and beside it the queue of sums that it should behave like.
struct Purse {
    agreement: Agreement,
    usage: Usage,
    /// The posted pair of prices; `force` is the pair in force.
    posted: Pair,
    force: Pair,
    /// Sums that wait in the queue: grains, price, base.
    queue: VecDeque<(f64, f64, f64)>,
    /// Units and base that the queue gave; `got` is the base that the rules gave.
    units: f64,
    base: f64,
    got: u128,
}

impl Purse {
    fn new() -> Self {
        let agreement = Agreement {
            opened: 1,
            consumer: account("a"),
            session_key: account("s"),
            storage_key: account("s"),
            end_epoch: 700,
            prices: PerClass::new(
                Pair { price: 1, slow: 1 },
                Pair { price: 1_000_000, slow: 1_000_000 },
                Pair { price: 1_000, slow: 1_000 },
            ),
            quota: PerClass::new(0, u64::MAX, 0),
            rate: Units::egress(u64::MAX),
        };
        let posted = Pair { price: 1_000_000, slow: 1_000_000 };
        let usage = Usage { deposit: Parameters::LOCAL.deposit, ..Usage::default() };
        let (units, base, got) = (0.0, 0.0, 0);
        Self { agreement, usage, posted, force: posted, queue: VecDeque::new(), units, base, got }
    }

    fn post(&mut self, percent: u64) {
        let price = u128::from(self.posted.price) * u128::from(percent) / 100;
        self.posted.price = price.clamp(1_000_000, 1 << 40) as u64;
        self.posted.slow = u64::midpoint(self.posted.slow, self.posted.price);
    }

    fn top_up(&mut self, grains: u64) {
        let lock = raise(
            &self.agreement,
            &self.usage,
            Metered { egress: self.posted, gas: Pair { price: 1_000, slow: 1_000 } },
        );
        if self.posted.price > self.force.price {
            let slow = self.posted.slow.max(self.force.slow).min(self.posted.price);
            self.force = Pair { price: self.posted.price, slow };
        }
        self.usage.lock = lock.or(self.usage.lock);
        let all = self.usage.voucher_reserve.checked_add(Amount::new(grains.into()).expect("little"));
        self.usage.voucher_reserve = all.expect("little");
        self.queue.push_back((grains as f64, self.force.price as f64, self.force.slow as f64));
    }

    /// Redeems about `percent` percent of the reserve.
    fn redeem(&mut self, percent: u64) {
        let left = self.usage.voucher_reserve.grains() as f64 * percent as f64 / 100.0;
        let units = (left / self.force.price as f64 * 1_048_576.0) as u64 + 1;
        self.redeem_to(self.usage.redeemed.egress.saturating_add(units));
    }

    fn redeem_to(&mut self, egress: u64) {
        let id = self.agreement.id(account("p"), 0);
        let voucher = Voucher { agreement: id, units: Units::egress(egress), signature: [0; 64] };
        let (terms, parameters) = (&self.agreement, &Parameters::LOCAL);
        let Ok(delta) = agreement::check(terms, &self.usage, &voucher, &account("s"), 2, parameters) else {
            return;
        };
        self.usage.redeemed.egress += delta.units.egress;
        self.usage.voucher_reserve = self.usage.voucher_reserve.saturating_sub(delta.fee);
        self.got += delta.base.grains();
        let mut fee = delta.fee.grains() as f64;
        while fee > 0.0
            && let Some((sum, price, base)) = self.queue.pop_front()
        {
            let taken = fee.min(sum);
            self.units += taken / price * 1_048_576.0;
            self.base += taken / price * base;
            fee -= taken;
            if taken < sum {
                self.queue.push_front((sum - taken, price, base));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// AG-8 against a queue of sums, each with the price of its day: the units that a class buys,
    /// and their base.
    #[test]
    fn sums_buy_as_a_queue_of_them_would(
        days in proptest::collection::vec((0u64..4, 1u64..50_000_000, 1u64..400, 0u64..100), 1..40),
    ) {
        let mut purse = Purse::new();
        for (kind, grains, rise, part) in days {
            match kind {
                0 => purse.post(rise),
                1 | 2 => purse.top_up(grains),
                _ => purse.redeem(part),
            }
        }
        purse.redeem_to(u64::MAX);
        let off = (purse.usage.redeemed.egress as f64 - purse.units).abs() / purse.units.max(1e6);
        prop_assert!(off < 1e-3, "{} units of {}", purse.usage.redeemed.egress, purse.units);
        let (got, due) = (purse.got as f64, purse.base);
        prop_assert!(got >= due * 0.999 - 100.0, "a base of {got} of {due}");
    }
}
