//! The offer and the addresses of the configuration, which a provider declares again by itself.

use super::*;

#[test]
fn a_changed_address_reaches_the_ledger_by_itself_once_an_epoch() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        let shown = |bench: &Bench| {
            let endpoint = bench.ledger.world.lock().get::<Endpoint>(Endpoint::key(&account("paul")));
            endpoint.expect("registered").addresses
        };
        let offer = |bench: &Bench| bench.ledger.world.lock().get::<Offer>(Offer::key(&account("paul")));
        let one = |text: &str| {
            let address: Address = Bounded::new(text.as_bytes().to_vec()).expect("short");
            Bounded::new(vec![address]).expect("one")
        };
        let (first, before) = (shown(&bench), offer(&bench));
        assert_eq!(first, bench.reconciler.registration.addresses);
        let (second, third) = (one("paul.example.org:4100"), one("192.0.2.7:4100"));
        bench.reconciler.registration.addresses = second.clone();
        bench.steps(2).await;
        assert_eq!((shown(&bench), offer(&bench)), (second.clone(), before), "nothing else changes");
        bench.reconciler.registration.addresses = third.clone();
        bench.steps(2).await;
        assert_eq!(shown(&bench), second, "each change costs a fee");
        bench.steps(bench.epoch_blocks()).await;
        assert_eq!(shown(&bench), third);
    });
}

/// A capacity falls no lower than what is sold, and grows no higher than the bond covers.
#[test]
fn changed_settings_reach_the_ledger_by_themselves_within_what_is_sold_and_covered() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        bench.open(100);
        let world = |bench: &Bench| bench.ledger.world.clone();
        let offer = |bench: &Bench| {
            world(bench).lock().get::<Offer>(Offer::key(&account("paul"))).expect("registered")
        };
        bench.steps(2).await;
        let before = offer(&bench);
        let own = |bench: &mut Bench, change: fn(&mut RegisterProvider)| {
            change(&mut bench.reconciler.registration);
        };
        own(&mut bench, |own| {
            (own.reserve, own.term_max) = (PerClass::new(7, 9, 0), 30);
            own.capacity = PerClass::new(1, 1, 0);
        });
        bench.steps(bench.epoch_blocks()).await;
        let (now, sold) = (offer(&bench), bench.provider().sold);
        assert!(sold[Class::Storage] > 1 && sold[Class::Storage] < before.capacity[Class::Storage]);
        assert_eq!((now.reserve, now.term_max), (PerClass::new(7, 9, 0), 30));
        assert!(sold[Class::Egress] > 1);
        assert_eq!(now.capacity, sold, "what is sold stays declared");
        own(&mut bench, |own| own.capacity = PerClass::new(u64::MAX, 1 << 40, 0));
        bench.steps(bench.epoch_blocks()).await;
        let (now, held) = (offer(&bench), bench.provider());
        let covered = held.bond.grains() / Parameters::LOCAL.bond_per_leaf.grains();
        assert_eq!(u128::from(now.capacity[Class::Storage]), covered);
        assert_eq!(now.capacity[Class::Egress], 1 << 40);
        let declared = bench.reconciler.declared;
        bench.steps(2 * bench.epoch_blocks()).await;
        assert_eq!(bench.reconciler.declared, declared, "nothing differs, so nothing is paid");
    });
}

#[test]
fn a_declaration_that_failed_is_sent_again_within_the_epoch() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        let epoch = bench.epoch_blocks();
        while !bench.ledger.world.lock().height.is_multiple_of(epoch) {
            bench.step().await;
        }
        let term = |bench: &Bench| {
            let offer = bench.ledger.world.lock().get::<Offer>(Offer::key(&account("paul")));
            offer.expect("registered").term_max
        };
        let before = term(&bench);
        bench.ledger.is_away.store(true, Ordering::Relaxed);
        bench.reconciler.registration.term_max = before / 2;
        bench.steps(2).await;
        bench.ledger.is_away.store(false, Ordering::Relaxed);
        bench.steps(2).await;
        assert_eq!(term(&bench), before, "each attempt may cost a fee");
        bench.steps(REGISTER_BLOCKS).await;
        assert_eq!(term(&bench), before / 2);
    });
}
