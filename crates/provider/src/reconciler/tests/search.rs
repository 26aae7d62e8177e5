//! Agreements that were opened and never used: no message announces them to the provider.

use super::*;
use posync_protocol::operation::{CLOSE_NAMESPACE, Close};
use posync_protocol::{Class, PerClass, Units};

/// An opening for everything that paul offers, for this many epochs.
fn all_of_it(bench: &Bench, slot: u32, epochs: u64) -> Open {
    let mut body = open_body(&bench.ledger.world.lock(), slot, epochs);
    body.quota[Class::Storage] = register_body().capacity[Class::Storage];
    body
}

/// An opening for a small part of paul's offer.
fn little(bench: &Bench, slot: u32, epochs: u64) -> Open {
    let body = open_body(&bench.ledger.world.lock(), slot, epochs);
    Open { quota: PerClass::new(1 << 10, 1 << 20, 0), ..body }
}

impl Bench {
    /// Runs blocks, each with the reconciler's step and the tasks beside it.
    async fn watch_blocks(&mut self, context: &Context, blocks: u64) {
        for _ in 0..blocks {
            self.step().await;
            context.sleep(Duration::from_millis(1)).await;
        }
    }

    /// Runs blocks while the provider is away.
    fn away(&self, blocks: u64) {
        (0..blocks).for_each(|_| drop(self.ledger.block()));
    }

    fn asked(&self) -> Vec<u64> {
        std::mem::take(&mut self.ledger.blocks.lock().asked)
    }

    fn found(&self) -> Vec<AgreementId> {
        self.reconciler.finder.finds.all().map(|(id, _)| *id).collect()
    }

    fn submit(&self, who: &str, body: Body) -> Result<Code, Code> {
        let mut world = self.ledger.world.lock();
        let operation = world.sign(who, body);
        world.submit(&operation)
    }

    fn height(&self) -> u64 {
        self.ledger.world.lock().height
    }

    /// Ends an agreement at once, signed by both parties.
    pub(super) fn close(&self, agreement: AgreementId) {
        let world = self.ledger.world.lock().clone();
        let key_of = Agreement::key(&account("paul"), agreement.slot);
        let Agreement { consumer, end_epoch, .. } = world.get(key_of).expect("stands");
        let last = world.height + 100;
        let second = sign(&key("paul"), CLOSE_NAMESPACE, &with_chain(&world.chain, &(agreement, last)));
        let index = self.provider().index;
        let close = Close { agreement, consumer, index, end_epoch, last, second };
        assert_eq!(self.submit("carol", Body::Close(close)), Ok(Code::Done));
    }

    /// An operation of paul about his own registration.
    pub(super) fn update(&self, leave: bool, exit: Option<u64>) -> Result<Code, Code> {
        let (provider, registration) = (self.provider(), register_body());
        let body = UpdateProvider {
            bond_add: Amount::ZERO,
            capacity: registration.capacity,
            reserve: registration.reserve,
            term_max: registration.term_max,
            addresses: registration.addresses,
            index: provider.index,
            leave,
            exit,
        };
        self.submit("paul", Body::UpdateProvider(body))
    }
}

async fn registered(context: &Context) -> Bench {
    let mut bench = Bench::new(context).await;
    bench.watch_blocks(context, 10).await;
    bench
}

#[test]
fn an_agreement_that_nobody_ever_used_is_cleared_after_its_end_and_an_exit_completes() {
    run(|context| async move {
        let mut bench = registered(&context).await;
        let id = bench.open_with(all_of_it(&bench, 5, 2));
        bench.watch_blocks(&context, 10).await;
        assert_eq!(bench.found(), [id]);
        let again = Body::Open(all_of_it(&bench, 6, 2));
        assert_eq!(bench.submit("carol", again), Ok(Code::NoCapacity), "all of the room is held");
        let epoch = bench.epoch_blocks();
        bench.watch_blocks(&context, 5 * epoch).await;
        let Provider { slots, sold, .. } = bench.provider();
        assert_eq!((slots, sold), (0, PerClass::all(0)));
        assert!(bench.found().is_empty(), "and its absence is proved");
        bench.open_with(all_of_it(&bench, 6, 2));
        assert_eq!(bench.update(true, None), Ok(Code::Done));
        bench.watch_blocks(&context, 23 * epoch).await;
        let reputation: Option<Reputation> = bench.ledger.world.lock().get(Reputation::key(&account("paul")));
        let registered = reputation.expect("registered").registered;
        assert_eq!(bench.update(false, Some(registered)), Ok(Code::Done), "no agreement is left");
    });
}

#[test]
fn more_than_one_operation_may_name_are_all_cleared() {
    run(|context| async move {
        let mut bench = registered(&context).await;
        for slot in 0..70 {
            bench.open_with(little(&bench, slot * 7, 3));
        }
        bench.watch_blocks(&context, 10).await;
        assert_eq!(bench.found().len(), 70);
        let blocks = 6 * bench.epoch_blocks();
        bench.watch_blocks(&context, blocks).await;
        assert_eq!((bench.provider().slots, bench.found().len()), (0, 0));
    });
}

#[test]
fn one_that_its_consumer_closes_alone_is_cleared_after_the_window() {
    run(|context| async move {
        let mut bench = registered(&context).await;
        let agreement = bench.open_with(all_of_it(&bench, 5, 300));
        bench.watch_blocks(&context, 10).await;
        let close = posync_protocol::operation::CloseAlone { agreement };
        assert_eq!(bench.submit("carol", Body::CloseAlone(close)), Ok(Code::Done));
        let blocks = 4 * bench.epoch_blocks();
        bench.watch_blocks(&context, blocks).await;
        assert_eq!((bench.provider().slots, bench.found().len()), (0, 0));
    });
}

#[test]
fn one_that_somebody_else_cleared_does_not_hold_up_the_others() {
    run(|context| async move {
        let mut bench = registered(&context).await;
        let ids: Vec<_> = (0..3).map(|slot| bench.open_with(little(&bench, slot, 2))).collect();
        bench.watch_blocks(&context, 10).await;
        assert_eq!(bench.found(), ids);
        let terms: Agreement =
            bench.ledger.world.lock().get(Agreement::key(&account("paul"), 0)).expect("stands");
        while bench.ledger.world.lock().epoch() < terms.end_epoch + 2 {
            bench.away(1);
        }
        let slots = Bounded::new(vec![(0, terms.consumer, terms.end_epoch)]).expect("one");
        let (index, endings) = (bench.provider().index, Bounded::default());
        let settle = posync_protocol::operation::Settle { provider: account("paul"), index, slots, endings };
        assert_eq!(bench.submit("carol", Body::Settle(settle)), Ok(Code::Done));
        // The first operation that is sent names the existing agreements only.
        bench.watch_blocks(&context, 2).await;
        assert_eq!(bench.provider().slots, 0);
    });
}

#[test]
fn while_the_counts_agree_no_block_is_asked_for() {
    run(|context| async move {
        let mut bench = registered(&context).await;
        let id = bench.open(6);
        bench.set(id, 1, &[], &[data(1, 100_000)]).await;
        bench.ledger.world.lock().draws = true;
        let blocks = 10 * bench.epoch_blocks();
        bench.watch_blocks(&context, blocks).await;
        assert_eq!(bench.provider().slots, 0, "it came and went");
        assert_eq!(bench.asked(), [0; 0]);
    });
}

/// Opens another agreement after 600 blocks at which the counts agreed, with or without a restart in
/// between; returns the requested blocks and the last block before the opening.
async fn asked_after_agreement(context: Context, restarts: bool) -> (Vec<u64>, u64) {
    let mut bench = registered(&context).await;
    let id = bench.open(600);
    bench.set(id, 1, &[], &[data(1, 100_000)]).await;
    // One is opened, and ends while the counts cannot be compared.
    let gone = bench.open_with(little(&bench, 8, 500));
    bench.watch_blocks(&context, 24).await;
    assert!(bench.reconciler.finder.confirmer.is_some(), "until it is proved again");
    bench.close(gone);
    bench.watch_blocks(&context, 600).await;
    assert_eq!((bench.provider().slots, bench.found().len()), (1, 0));
    let (before, _) = (bench.height(), bench.asked());
    if restarts {
        bench = bench.restart(&context, Reporter::default()).await;
    }
    let other = bench.open_with(little(&bench, 9, 5));
    bench.watch_blocks(&context, 20).await;
    assert_eq!(bench.found(), [other]);
    (bench.asked(), before)
}

#[test]
fn where_the_counts_agreed_no_block_is_ever_asked_for() {
    // A new process knows it, too, except for the last few hundred blocks.
    for (restarts, late) in [(false, 16), (true, 300)] {
        run(|context| async move {
            let (asked, before) = asked_after_agreement(context, restarts).await;
            assert!(!asked.is_empty() && asked.iter().all(|height| height + late > before), "{asked:?}");
        });
    }
}

#[test]
fn one_opened_while_another_is_closed_is_found_although_the_counts_agree() {
    run(|context| async move {
        let mut bench = registered(&context).await;
        let (chain, round) = (bench.ledger.world.lock().chain, 8);
        // More agreements than one round proves.
        for slot in 0..90 {
            let id = bench.open_with(little(&bench, slot, 600));
            let voucher = Voucher::signed(&key("carol"), &chain, id, Units::egress(1));
            let kept = Redemption { voucher, session_key: account("carol"), claim: None };
            bench.handler.parts().vouchers.keep(kept).await.expect("durable");
        }
        bench.watch_blocks(&context, 4 * round).await;
        assert_eq!(bench.found(), []);
        // The one whose turn comes last is closed by both; in the next block another is opened.
        let id = bench.reconciler.refreshed.expect("all were looked at");
        bench.close(id);
        let other = bench.open_with(little(&bench, 100, 3));
        assert_eq!(bench.provider().slots, 90);
        bench.watch_blocks(&context, 6 * round).await;
        assert_eq!(bench.found(), [other]);
    });
}

#[test]
fn a_lying_hint_is_ignored() {
    run(|context| async move {
        let mut bench = registered(&context).await;
        bench.ledger.blocks.lock().lies = vec![0, 3, 5, u32::MAX];
        bench.away(60);
        let ids = [bench.open_with(little(&bench, 3, 3)), bench.open_with(little(&bench, 5, 3))];
        bench.watch_blocks(&context, 2).await;
        let asked = bench.asked();
        assert!(asked[0] > bench.provider().born, "not before the counts agreed last");
        assert!(asked.len() > 20 && bench.found().is_empty(), "nor is a true slot at a wrong height taken");
        bench.watch_blocks(&context, 10).await;
        assert_eq!(bench.found(), ids, "each once, with the height of its opening");
        let blocks = 6 * bench.epoch_blocks();
        bench.watch_blocks(&context, blocks).await;
        assert_eq!((bench.provider().slots, bench.found().len()), (0, 0));
    });
}

#[test]
fn a_restart_in_the_middle_goes_on_where_it_was() {
    run(|context| async move {
        let mut bench = registered(&context).await;
        let early = bench.open_with(little(&bench, 3, 300));
        bench.away(200);
        let late = bench.open_with(little(&bench, 4, 300));
        bench.watch_blocks(&context, 4).await;
        let before = bench.asked();
        assert_eq!(bench.found(), [early], "in the middle");
        bench = bench.restart(&context, Reporter::default()).await;
        assert_eq!(bench.found(), [early], "durable");
        bench.watch_blocks(&context, 12).await;
        assert_eq!(bench.found(), [early, late]);
        let after = bench.asked();
        let (last, first) = (*before.last().expect("some"), after[0]);
        assert!(first > last - found::BLOCKS_A_TICK, "{last} {first}: but for what was under way");
        assert!(after.windows(2).all(|pair| pair[0] + 1 == pair[1]), "each once: {after:?}");
        bench = bench.restart(&context, Reporter::default()).await;
        bench.watch_blocks(&context, 12).await;
        assert_eq!(bench.asked(), [0; 0], "nothing is left to look for");
    });
}

#[test]
fn what_no_node_keeps_is_asked_for_again_until_an_archive_has_it() {
    run(|context| async move {
        let mut bench = registered(&context).await;
        let old = bench.open_with(little(&bench, 3, 600));
        bench.away(100);
        let new = bench.open_with(little(&bench, 4, 600));
        bench.ledger.blocks.lock().kept = new.opened;
        bench.watch_blocks(&context, 20).await;
        assert_eq!(bench.found(), [new], "what is kept is looked through first");
        bench.asked();
        let logged_at = bench.reconciler.finder.logged_at;
        assert!(logged_at.is_some(), "and the operator is told");
        bench.watch_blocks(&context, 20).await;
        assert_eq!(bench.reconciler.finder.logged_at, logged_at, "not in every block");
        assert!(bench.asked().iter().all(|height| *height > new.opened), "not in every block");
        bench = bench.restart(&context, Reporter::default()).await;
        bench.watch_blocks(&context, 20).await;
        let asked = bench.asked().into_iter().filter(|height| *height < new.opened).count();
        assert!((1..10).contains(&asked), "once by a new process: {asked}");
        bench.ledger.blocks.lock().kept = 0;
        context.sleep(Duration::from_secs(3_600)).await;
        bench.watch_blocks(&context, 20).await;
        assert_eq!(bench.found(), [old, new]);
    });
}

#[test]
fn a_node_that_is_behind_makes_nothing_forgotten() {
    run(|context| async move {
        let mut bench = registered(&context).await;
        let behind = bench.ledger.world.lock().clone();
        bench.ledger.blocks.lock().behind = Some(behind.clone());
        let id = bench.open_with(little(&bench, 3, 600));
        bench.watch_blocks(&context, 100).await;
        assert_eq!(bench.found(), [], "its absence there says nothing");
        bench.ledger.blocks.lock().behind = None;
        context.sleep(Duration::from_secs(300)).await;
        bench.watch_blocks(&context, 10).await;
        assert_eq!(bench.found(), [id]);
        bench.ledger.blocks.lock().behind = Some(behind);
        bench.watch_blocks(&context, 100).await;
        assert_eq!(bench.found(), [id], "nor does it once it is known");
    });
}

#[test]
fn a_node_that_is_behind_ends_no_agreement_that_was_used() {
    run(|context| async move {
        let mut bench = registered(&context).await;
        let behind = bench.ledger.world.lock().clone();
        let id = bench.open(600);
        bench.set(id, 1, &[], &[data(1, 10_000)]).await;
        bench.ledger.blocks.lock().behind = Some(behind);
        bench.watch_blocks(&context, 40).await;
        assert_eq!(bench.handler.parts().store.totals().bytes, 10_000);
        assert!(bench.handler.parts().data_sets.with(|state| state.agreements().eq([id])));
    });
}

#[test]
fn slots_of_a_state_before_one_was_gone_start_no_search() {
    run(|context| async move {
        let mut bench = registered(&context).await;
        bench.open_with(little(&bench, 3, 2));
        while bench.ledger.waiting.lock().is_empty() {
            bench.watch_blocks(&context, 1).await;
        }
        assert_eq!((bench.found().len(), bench.asked().is_empty()), (1, false));
        let before = bench.ledger.world.lock().clone();
        bench.ledger.block();
        assert_eq!(bench.provider().slots, 0, "cleared");
        // One node proves its absence; another, which lags, proves the provider's own records.
        let mut after = std::mem::replace(&mut *bench.ledger.world.lock(), before);
        for _ in 0..8 {
            after.block(&[]).expect("an empty block");
        }
        bench.handler.parts().view.advance(after.height);
        bench.ledger.blocks.lock().behind = Some(after);
        for _ in 0..8 {
            bench.reconciler.step().await.expect("nothing fails");
            context.sleep(Duration::from_millis(1)).await;
        }
        assert!(bench.found().is_empty() && bench.provider().slots == 1);
        assert_eq!((bench.asked(), bench.reconciler.finder.logged_at), (vec![], None));
    });
}
