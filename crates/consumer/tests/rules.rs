//! The operations of a consumer, executed by the ledger's own rules.

#[allow(dead_code, reason = "scenarios of the protocol use the rest")]
#[path = "../../protocol/tests/scenarios/world.rs"]
mod chain;
#[path = "../../protocol/tests/scenarios/registration.rs"]
mod registration;

use chain::{World, account};
use posync_consumer::{
    agreements::{
        policy::{Policy, Posted},
        state::View,
    },
    auditor::state::{READ_BYTES, READ_EPOCHS},
};
use posync_protocol::{
    AgreementId, Body, Bounded, Class, Code, PerClass,
    books::pair,
    limits::Parameters,
    operation::{CloseAlone, Open, RegisterProvider, Settle},
    record::{Agreement, Audit, Market, Offer, Provider, Reputation},
};
use registration::registration;

const P: Parameters = Parameters::LOCAL;

/// A ledger with a provider `p` and a consumer `g`.
fn world() -> World {
    let mut world = World::new(&["g", "p"]);
    let capacity = PerClass::new(1 << 23, 1 << 30, 0);
    let register = RegisterProvider { capacity, term_max: 40, ..registration("p", "127.0.0.1:1") };
    assert_eq!(send(&mut world, "p", Body::RegisterProvider(register)), Code::Done);
    world
}

fn send(world: &mut World, who: &str, body: Body) -> Code {
    let operation = world.sign(who, body);
    world.submit(&operation).expect("it may stand in a block")
}

fn view(world: &World) -> View {
    let p = account("p");
    View {
        offer: world.get::<Offer>(Offer::key(&p)).expect("registered"),
        provider: world.get::<Provider>(Provider::key(&p)).expect("registered"),
        audit: world.get::<Audit>(Audit::key(&p)).unwrap_or_default(),
        reputation: world.get::<Reputation>(Reputation::key(&p)).expect("registered"),
        measured: None,
        barred: false,
    }
}

fn posted(world: &World) -> Posted {
    let prices = PerClass::from_fn(|class| pair(world.get::<Market>(Market::key(class)), class, &P));
    Posted { prices, balance: world.balance("g"), height: world.height }
}

/// The grains that an unused agreement burns from its opening to its removal, the epochs between, and its
/// opening.
fn burned_idle(policy: &Policy) -> (u64, u64, Open) {
    let mut world = world();
    let open = policy.open(&view(&world), policy.first, &posted(&world), &P).expect("accepted");
    let open = Open { provider: account("p"), session_key: account("k"), storage_key: account("k"), ..open };
    let before = world.balance("g");
    let opening = world.sign("g", Body::Open(open.clone()));
    let mut fees = opening.max_fee;
    assert_eq!(world.submit(&opening), Ok(Code::Done), "what the policy asks is accepted");
    let found: Agreement = world.get(Agreement::key(&account("p"), 0)).expect("open");
    assert!(found.end_epoch <= 40 + P.epoch(found.opened), "no longer than the offer's longest term");
    world.skip_to_epoch(16);
    let agreement = AgreementId { provider: account("p"), slot: 0, opened: found.opened };
    let close = world.sign("g", Body::CloseAlone(CloseAlone { agreement }));
    fees = fees.checked_add(close.max_fee).expect("small");
    assert_eq!(world.submit(&close), Ok(Code::Done));
    world.skip_to_epoch(16 + P.redemption_epochs + 1);
    let slots = Bounded::new(vec![(0, account("g"), found.end_epoch)]).expect("one");
    let index = view(&world).provider.index;
    let settle = Settle { provider: account("p"), index, slots, endings: Bounded::default() };
    assert_eq!(send(&mut world, "g", Body::Settle(settle)), Code::Done);
    assert!(world.get::<Agreement>(Agreement::key(&account("p"), 0)).is_none(), "it is removed");
    let spent = before.grains() - world.balance("g").grains() - fees.grains();
    (u64::try_from(spent).expect("small"), P.epoch(world.height) - P.epoch(found.opened), open)
}

#[test]
fn an_idle_gateway_and_an_idle_auditor_burn_next_to_nothing() {
    let gateway = Policy::of(&P);
    let (burned, epochs, open) = burned_idle(&gateway);
    assert_eq!((open.quota[Class::Storage], open.quota[Class::Egress]), (1 << 13, 32 << 20));
    // At most 39,063 grains an epoch for 8 MiB of leaves, and 83,886 for 32 MiB of egress in 40 epochs.
    let most = (epochs + 1) * (39_063 + 83_886);
    assert!(burned > most / 2 && burned <= most, "{burned} in {epochs} epochs, at most {most}");

    let auditor = Policy::to_read(&P, READ_EPOCHS, READ_BYTES);
    let (burned, epochs, open) = burned_idle(&auditor);
    assert_eq!(open.quota[Class::Storage], 0, "who reads holds no leaves");
    let most = (epochs + 1) * 14_850;
    assert!(burned > most / 2 && burned <= most, "{burned} in {epochs} epochs, at most {most}");
}
