//! A provider that left stays away until its operator calls it back.

use super::*;

impl Bench {
    /// A new process on this disk, with the mark of a directory.
    async fn start_with(self, context: &Context, left: &Left) -> Self {
        let Self { ledger, handler, reconciler: old, shards } = self;
        drop(old);
        let reconciler = reconciler_of(context, &handler, &ledger, Reporter::default(), left.clone()).await;
        Self { ledger, handler, reconciler, shards }
    }

    fn record(&self) -> Option<Provider> {
        self.ledger.world.lock().get(Provider::key(&account("paul")))
    }

    /// Runs blocks until the reconciler ends; returns the error, or `None` after `blocks`.
    async fn until_end(&mut self, context: &Context, blocks: u64) -> Option<ReconcilerError> {
        for _ in 0..blocks {
            self.ledger.block();
            self.handler.parts().view.advance(self.ledger.world.lock().height);
            match self.reconciler.step().await {
                Ok(()) | Err(ReconcilerError::Ledger(_)) => {}
                Err(error) => return Some(error),
            }
            assert!(self.record().is_none(), "it registers no more");
            context.sleep(Duration::from_millis(1)).await;
        }
        None
    }
}

#[test]
fn who_left_never_registers_again_whatever_is_restarted_empties_and_ends() {
    let home = tempfile::tempdir().expect("a directory");
    let left = Left::of(home.path());
    run(|context| async move {
        let mut bench = Bench::new(&context).await.start_with(&context, &left).await;
        bench.ledger.world.lock().draws = true;
        bench.steps(10).await;
        let id = bench.open(3);
        bench.set(id, 1, &[], &[data(1, 100_000)]).await;
        bench.steps(4).await;
        assert!(!left.is_noted());
        // The notice may come from another machine with the same key.
        assert_eq!(bench.update(true, None), Ok(Code::Done));
        bench.steps(2).await;
        assert!(left.is_noted(), "it is noted before any exit");
        bench = bench.start_with(&context, &left).await;
        bench.steps(4).await;
        assert_eq!(bench.handler.parts().store.totals().bytes, 100_000, "it serves what it holds");
        while bench.ledger.world.lock().epoch() < 30 {
            bench.step().await;
        }
        let standing: Reputation =
            bench.ledger.world.lock().get(Reputation::key(&account("paul"))).expect("registered");
        assert_eq!(bench.update(false, Some(standing.registered)), Ok(Code::Done));
        assert!(bench.record().is_none(), "it is out");
        bench = bench.start_with(&context, &left).await;
        let ended = bench.until_end(&context, 400).await;
        assert!(matches!(ended, Some(ReconcilerError::Left)), "{ended:?}");
        assert_eq!(bench.handler.parts().store.totals().bytes, 0);
        // The operator calls it back.
        left.clear().expect("removed");
        bench = bench.start_with(&context, &left).await;
        bench.steps(2).await;
        assert!(bench.record().is_some());
    });
}

#[test]
fn a_mark_before_the_registration_keeps_it_off_and_what_may_be_in_flight_is_waited_for() {
    let home = tempfile::tempdir().expect("a directory");
    let left = Left::of(home.path());
    run(|context| async move {
        let mut bench = Bench::new(&context).await.start_with(&context, &left).await;
        let since = bench.ledger.world.lock().height;
        left.note(since).expect("writable");
        let lifetime = bench.ledger.world.lock().parameters.expiry_blocks_max;
        assert!(bench.until_end(&context, lifetime).await.is_none(), "one may still be in a block");
        // One node alone proves that it is registered.
        let registered = {
            let mut world = bench.ledger.world.lock().clone();
            let operation = world.sign("paul", Body::RegisterProvider(register_body()));
            assert_eq!(world.submit(&operation), Ok(Code::Done));
            (0..64).for_each(|_| drop(world.block(&[]).expect("empty")));
            world
        };
        let world = bench.ledger.world.lock().clone();
        bench.ledger.blocks.lock().confirmers = vec![world, registered];
        assert!(bench.until_end(&context, 3).await.is_none(), "two nodes must agree");
        bench.ledger.blocks.lock().confirmers.clear();
        let ended = bench.until_end(&context, 3).await;
        assert!(matches!(ended, Some(ReconcilerError::Left)), "{ended:?}");
    });
}

#[test]
fn a_mark_without_a_height_gets_the_newest_that_several_nodes_prove() {
    let home = tempfile::tempdir().expect("a directory");
    let left = Left::of(home.path());
    run(|context| async move {
        left.begin().expect("writable");
        let mut bench = Bench::new(&context).await.start_with(&context, &left).await;
        let world = bench.ledger.world.lock().clone();
        let mut ahead = world.clone();
        (0..64).for_each(|_| drop(ahead.block(&[]).expect("empty")));
        bench.ledger.blocks.lock().confirmers = vec![world, ahead.clone()];
        assert!(bench.until_end(&context, 2).await.is_none(), "one may still be in a block");
        assert_eq!(left.since(), Some(ahead.height));
    });
}
