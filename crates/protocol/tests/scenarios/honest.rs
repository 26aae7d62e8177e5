//! Honest providers with ordinary troubles: none of them loses a grain of its bond.

use crate::{
    audits::{answer, holding, until_drawn},
    books::{reputation, run_to},
    model_provider::ModelProvider,
    punished::one_draw_an_epoch,
    script::Stage,
};
use posync_protocol::{ledger::Event, record::Reputation};

/// A trouble of a provider that holds a shard and is drawn.
type Trouble = fn(&mut Stage, &mut ModelProvider) -> Vec<Event>;

/// Number of rounds in two hours of production.
const OUTAGE_ROUNDS: u64 = 120;

fn epochs(stage: &mut Stage, member: &ModelProvider, count: u64, answers: bool) -> Vec<Event> {
    let until = stage.world.epoch() + count;
    run_to(stage, member, until, answers)
}

/// A loose cable: reads are missing, are asked again, and succeed once it is fixed.
fn loose_disk(stage: &mut Stage, member: &mut ModelProvider) -> Vec<Event> {
    member.lose_tenths(3);
    let mut events = Vec::new();
    for _ in 0..3 {
        until_drawn(stage, member);
        answer(stage, member).expect("it is drawn").expect("it says what is missing");
        events.extend(stage.world.events.iter().cloned());
    }
    assert!(!member.audit(&stage.world).missing.is_empty(), "some reads were missing");
    member.lost.clear();
    events.extend(epochs(stage, member, 3, true));
    events
}

fn outage(stage: &mut Stage, member: &mut ModelProvider) -> Vec<Event> {
    let epoch = stage.world.parameters.epoch_rounds;
    let mut events = epochs(stage, member, OUTAGE_ROUNDS.div_ceil(epoch), false);
    events.extend(epochs(stage, member, 3, true));
    events
}

fn moved(stage: &mut Stage, member: &mut ModelProvider) -> Vec<Event> {
    let mut events = epochs(stage, member, 1, false);
    stage.world.draws = false;
    stage.play("p update capacity=200000 address=127.0.0.9:9");
    stage.world.draws = true;
    events.extend(epochs(stage, member, 3, true));
    events
}

/// Every answer arrives three rounds late.
fn slow_disk(stage: &mut Stage, member: &mut ModelProvider) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..12 {
        until_drawn(stage, member);
        let drawn = member.audit(&stage.world).challenge.expect("it is drawn").height;
        while stage.world.height < drawn + 3 * stage.world.parameters.round_blocks {
            stage.world.block(&[]).expect("an empty block is valid");
            events.extend(stage.world.events.iter().cloned());
        }
        answer(stage, member).expect("it is open still").expect("it is right");
        events.extend(stage.world.events.iter().cloned());
    }
    events
}

/// The provider declared more capacity than it has, and refuses data.
fn full_disk(stage: &mut Stage, member: &mut ModelProvider) -> Vec<Event> {
    stage.world.draws = false;
    stage.play("p update capacity=200000\n b refusal p leaves=1000");
    let mut events = stage.world.events.clone();
    assert!(events.iter().any(|event| matches!(event, Event::CapacityCut { .. })));
    stage.world.draws = true;
    events.extend(epochs(stage, member, 3, true));
    events
}

#[test]
fn honest_troubles_take_no_stake_and_jail_nobody() {
    let troubles: [(&str, Trouble); 5] = [
        ("loose disk", loose_disk),
        ("outage of two hours", outage),
        ("change of address", moved),
        ("slow disk", slow_disk),
        ("full disk", full_disk),
    ];
    for (name, trouble, rarely) in
        troubles.into_iter().flat_map(|(name, of)| [(name, of, false), (name, of, true)])
    {
        let (mut stage, mut member) = holding(&[70_000, 3_000]);
        // At one draw an epoch, it takes sixteen epochs until 64 reads vouch for it.
        let before = if rarely { 16 } else { 2 };
        if rarely {
            one_draw_an_epoch(&mut stage);
        }
        let mut events = epochs(&mut stage, &member, before, true);
        let bond = member.provider(&stage.world).bond;
        events.extend(trouble(&mut stage, &mut member));
        events.extend(epochs(&mut stage, &member, 5, true));
        assert_eq!(member.provider(&stage.world).bond, bond, "{name}");
        let taken =
            events.iter().any(|event| matches!(event, Event::Slashed { .. } | Event::Restitution { .. }));
        assert!(!taken, "{name}");
        let Reputation { last_jailed, suspended, .. } = reputation(&stage.world);
        assert_eq!((last_jailed, suspended), (0, 0), "{name}, rarely drawn: {rarely}");
    }
}
