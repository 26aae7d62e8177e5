//! F1: no agreement is given up because a node proved an old state.

use super::*;
use posync_protocol::Units;

impl Bench {
    fn stored(&self) -> u64 {
        self.handler.parts().store.totals().bytes
    }

    fn has_data_set(&self, id: AgreementId) -> bool {
        self.handler.parts().data_sets.with(|state| state.agreements().any(|known| known == id))
    }

    pub(super) async fn pay(&self, id: AgreementId, egress: u64) {
        let chain = self.ledger.world.lock().chain;
        let voucher = Voucher::signed(&key("carol"), &chain, id, Units::egress(egress));
        let kept = Redemption { voucher, session_key: account("carol"), claim: None };
        self.handler.parts().vouchers.keep(kept).await.expect("durable");
    }

    fn paid(&self, id: AgreementId) -> u64 {
        self.handler.parts().vouchers.with(|vouchers| vouchers.paid(&id))
    }

    /// A new process: it has seen no height yet, and asks a node that proves `state`.
    async fn restart_behind(self, context: &Context, state: World) -> Self {
        let Self { ledger, handler, reconciler: old, shards } = self;
        drop(old);
        let now = std::mem::replace(&mut *ledger.world.lock(), state);
        let parts = handler.parts();
        let (view, questions) = View::new(account("paul"), now.chain, now.parameters);
        let (asked, answered) = (ledger.clone(), view.clone());
        context.child("questions").spawn(move |_| answer_questions(asked, answered, questions));
        let handler = Arc::new(Handler::new(Parts {
            clock: parts.clock.clone(),
            store: parts.store.clone(),
            data_sets: parts.data_sets.clone(),
            vouchers: parts.vouchers.clone(),
            view,
            capacity_leaves: 1 << 20,
            key: key("paul"),
        }));
        let reconciler = reconciler(context, &handler, &ledger, Reporter::default()).await;
        ledger.blocks.lock().behind = None;
        Self { ledger, handler, reconciler, shards }
    }

    /// Runs blocks on the node's state, each with the reconciler's step.
    async fn look(&mut self, context: &Context, times: u64) {
        for _ in 0..times {
            self.ledger.block();
            self.handler.parts().view.advance(self.ledger.world.lock().height);
            match self.reconciler.step().await {
                Ok(()) | Err(ReconcilerError::Ledger(_)) => {}
                Err(fatal) => panic!("{fatal}"),
            }
            context.sleep(Duration::from_millis(1)).await;
        }
    }
}

/// The scenario of F1: an agreement is opened and filled, the power fails, and the provider restarts before
/// its node has caught up, which first proves the old state.
#[test]
fn a_restart_beside_a_node_that_lags_loses_nothing_and_what_is_over_is_ended_later() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        let old = bench.ledger.world.lock().clone();
        bench.steps(16).await;
        let id = bench.open(3);
        bench.set(id, 1, &[], &[data(1, 100_000), data(2, 50_000)]).await;
        bench.pay(id, 1 << 20).await;
        // Time has passed: the floor is above the opening.
        bench.steps(30).await;
        let now = bench.ledger.world.lock().clone();
        let floor = bench.reconciler.ender.ends.floor();
        assert!(floor > id.opened, "{floor}");
        bench = bench.restart_behind(&context, old).await;
        // The node catches up block by block without the agreement at any height: a false fork.
        bench.look(&context, now.height + 40 - floor).await;
        let kept = (bench.stored(), bench.has_data_set(id), bench.paid(id));
        assert_eq!(kept, (150_000, true, 1 << 20), "an old state ends nothing");
        // Now it is level with the others.
        *bench.ledger.world.lock() = now;
        bench.ledger.world.lock().draws = true;
        bench.look(&context, 40).await;
        assert_eq!((bench.stored(), bench.has_data_set(id)), (150_000, true));
        let blocks = 9 * bench.epoch_blocks();
        bench.look(&context, blocks).await;
        assert_eq!((bench.stored(), bench.has_data_set(id), bench.paid(id)), (0, false, 0), "truly over");
        assert!(bench.reconciler.ender.ends.all_gone().next().is_none());
    });
}

/// A recent state in which the agreement was never opened.
fn without(world: &World, id: AgreementId) -> World {
    let mut world = world.clone();
    let keys = [
        Agreement::key(&id.provider, id.slot),
        Usage::key(&id.provider, id.slot),
        DataSet::key(&id.provider, id.slot),
    ];
    for key in keys {
        world.state.remove(&key);
    }
    world
}

#[test]
fn an_absence_that_only_one_node_proves_ends_nothing() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        let id = bench.open(100);
        bench.set(id, 1, &[], &[data(1, 100_000)]).await;
        bench.steps(20).await;
        for _ in 0..2 * GRACE {
            let world = bench.ledger.world.lock().clone();
            let lie = without(&world, id);
            {
                let mut blocks = bench.ledger.blocks.lock();
                blocks.behind = Some(lie.clone());
                blocks.confirmers = vec![lie, world];
            }
            bench.look(&context, 1).await;
        }
        assert!(!bench.reconciler.ender.is_gone(&id) && bench.has_data_set(id));
        assert_eq!(bench.stored(), 100_000);
    });
}

/// Two nodes that lag prove for longer than the grace period that there is no record: below its opening.
#[test]
fn an_absence_below_the_opening_ends_nothing_though_two_nodes_prove_it() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        let mut lagging = bench.ledger.world.lock().clone();
        bench.steps(3 * GRACE).await;
        let id = bench.open(100);
        bench.set(id, 1, &[], &[data(1, 100_000)]).await;
        bench.steps(2).await;
        while lagging.height + 1 < id.opened {
            lagging.block(&[]).expect("an empty block");
            {
                let mut blocks = bench.ledger.blocks.lock();
                blocks.behind = Some(lagging.clone());
                blocks.confirmers = vec![lagging.clone(), lagging.clone()];
            }
            bench.look(&context, 1).await;
            assert!(!bench.reconciler.ender.is_gone(&id) && bench.has_data_set(id));
        }
        assert_eq!(bench.stored(), 100_000);
    });
}

#[test]
fn a_record_that_appears_within_the_grace_period_takes_everything_back() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        let id = bench.open(100);
        bench.set(id, 1, &[], &[data(1, 100_000)]).await;
        bench.pay(id, 1 << 20).await;
        bench.steps(20).await;
        let two = |bench: &Bench| {
            let lie = without(&bench.ledger.world.lock(), id);
            let mut blocks = bench.ledger.blocks.lock();
            blocks.behind = Some(lie.clone());
            blocks.confirmers = vec![lie.clone(), lie];
        };
        // Two nodes prove the absence for nearly the whole grace period, across a restart.
        for _ in 0..GRACE / 2 {
            two(&bench);
            bench.look(&context, 1).await;
        }
        let since = bench.reconciler.ender.ends.gone(&id).expect("two nodes proved it");
        bench = bench.restart(&context, Reporter::default()).await;
        assert_eq!(bench.reconciler.ender.ends.gone(&id), Some(since), "it survives a restart");
        while bench.ledger.world.lock().height + 2 < since + GRACE {
            two(&bench);
            bench.look(&context, 1).await;
            assert_eq!((bench.stored(), bench.has_data_set(id), bench.paid(id)), (100_000, true, 1 << 20));
        }
        {
            let mut blocks = bench.ledger.blocks.lock();
            (blocks.behind, blocks.confirmers) = (None, vec![]);
        }
        bench.look(&context, 20).await;
        assert!(!bench.reconciler.ender.is_gone(&id), "it is back");
        bench.look(&context, 3 * GRACE).await;
        assert_eq!((bench.stored(), bench.has_data_set(id), bench.paid(id)), (100_000, true, 1 << 20));
    });
}

/// A voucher is kept until its window, as last proved, is over, even if the record is gone.
#[test]
fn a_voucher_is_kept_until_its_window_is_over_whatever_is_absent() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        let id = bench.open(3);
        bench.set(id, 1, &[], &[data(1, 100_000)]).await;
        bench.pay(id, 1 << 20).await;
        bench.steps(20).await;
        let over = bench.reconciler.ender.ends.window(&id).expect("noted");
        while bench.ledger.world.lock().epoch() < over {
            assert_eq!(bench.paid(id), 1 << 20);
            let lie = without(&bench.ledger.world.lock(), id);
            {
                let mut blocks = bench.ledger.blocks.lock();
                blocks.behind = Some(lie.clone());
                blocks.confirmers = vec![lie.clone(), lie];
            }
            bench.look(&context, 1).await;
        }
        assert_eq!((bench.stored(), bench.has_data_set(id)), (0, false), "its grace period is over for long");
        {
            let mut blocks = bench.ledger.blocks.lock();
            (blocks.behind, blocks.confirmers) = (None, vec![]);
        }
        bench.ledger.world.lock().draws = true;
        let blocks = 4 * bench.epoch_blocks();
        bench.look(&context, blocks).await;
        assert_eq!(bench.paid(id), 0, "and then it goes, too");
    });
}

/// A shard whose data set was lost to damage is not treated as loose.
#[test]
fn a_shard_whose_data_set_is_unknown_here_is_not_taken_for_unsigned() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        let id = bench.open(100);
        bench.set(id, 1, &[], &[data(1, 100_000)]).await;
        bench.steps(10).await;
        let held = bench.handler.parts().store.held_by(&id);
        // Simulate damage: the data sets forget the agreement.
        bench.handler.parts().data_sets.end(id).await.expect("open");
        bench.handler.parts().data_sets.gone(id, &held);
        held.iter().for_each(|shard| bench.handler.note_loose(id, *shard));
        context.sleep(Duration::from_secs(200)).await;
        bench.look(&context, 30).await;
        assert_eq!(bench.stored(), 100_000);
    });
}
