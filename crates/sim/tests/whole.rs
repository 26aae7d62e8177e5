//! The whole network on one thread: four authorities, ten providers, a gateway, users.

use posync_protocol::{
    AgreementId,
    ledger::{AgreementChange, Event},
};
use posync_sim::{
    plan::{Plan, Process, Sample, SmallFiles, Step},
    world::{Report, run_twice},
};
use std::{collections::BTreeSet, time::Duration};

const FILE: Sample = Sample { name: "a file", length: 300_000 };

type Events<'a> = &'a [(u64, Event)];

fn opened(events: Events<'_>) -> usize {
    let opened = |event: &Event| matches!(event, Event::Agreement { change: AgreementChange::Opened, .. });
    events.iter().filter(|(_, event)| opened(event)).count()
}

fn ready(events: Events<'_>) -> bool {
    opened(events) >= 10
}

/// Number of providers that proved all four reads of a challenge.
fn proved(events: Events<'_>) -> usize {
    let provider = |event: &Event| match event {
        Event::Audited { provider, passed: 4, reads: 4, .. } => Some(*provider),
        _ => None,
    };
    events.iter().filter_map(|(_, event)| provider(event)).collect::<BTreeSet<_>>().len()
}

/// Number of agreements with a paid voucher.
fn redeemed(events: Events<'_>) -> usize {
    let agreement = |event: &Event| match event {
        Event::Settled { agreement: Some(agreement), .. } => Some(*agreement),
        _ => None,
    };
    events.iter().filter_map(|(_, event)| agreement(event)).collect::<BTreeSet<AgreementId>>().len()
}

/// Checks that every fee is the sum of its parts.
fn check_books(report: &Report) {
    for (height, event) in &report.events {
        if let Event::Settled { fee, burn, committee, pay, .. } = event {
            let parts = [burn, committee, pay].iter().map(|part| part.grains()).sum::<u128>();
            assert_eq!(fee.grains(), parts, "a settlement of block {height}");
        }
    }
}

/// `RUST_LOG=info cargo test -p posync-sim --test whole NAME -- --nocapture` logs the run.
fn log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    // Another test of this process may have set the logger first.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).without_time().try_init();
}

#[test]
fn a_file_is_stored_proved_read_paid_and_settled() {
    log();
    let steps = vec![
        Step::Until(ready, 200),
        Step::Put(FILE),
        Step::Get(FILE),
        Step::Until(|events| proved(events) >= 8, 800),
        Step::Until(|events| redeemed(events) >= 4, 1_200),
        Step::Send,
        Step::Get(FILE),
    ];
    let report = run_twice(&Plan::whole(11, steps));
    check_books(&report);
}

#[test]
fn a_stopped_provider_makes_no_put_slow() {
    log();
    let row = SmallFiles { files: 100, length: 4096, within: Duration::from_millis(500) };
    let steps = vec![
        Step::Until(ready, 200),
        Step::Put(FILE),
        Step::Pause(Process::Provider(0)),
        Step::PutEach(row),
        Step::Resume(Process::Provider(0)),
    ];
    run_twice(&Plan::whole(12, steps));
}
