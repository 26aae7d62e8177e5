//! The voucher store over years of operation: agreements come and go in the same slots, starts follow stops, the
//! volume fills up, the disk loses a bit now and then.

use super::{Vouchers, VouchersError};
use crate::{
    fixtures::{CHAIN, id, session},
    power_cut::{Cut, Fuse},
    redeem::claiming,
};
use commonware_cryptography::Signer as _;
use commonware_runtime::{
    Blob as _, Clock as _, Handle, ReadOptions, Runner as _, Storage as _, Supervisor as _, WriteOptions,
    deterministic,
};
use posync_protocol::{
    Account, AgreementId, Units,
    amount::ONE,
    operation::{Redemption, Voucher},
};
use proptest::prelude::*;
use std::collections::BTreeMap;

const SLOTS: usize = 4;

fn voucher(agreement: AgreementId, egress: u64) -> Redemption {
    // Any signature will do: the voucher store gets only vouchers that were judged before.
    let voucher = Voucher { agreement, units: Units::egress(egress), signature: [1; 64] };
    let session_key = Account::of(&session().public_key());
    Redemption { voucher, session_key, claim: None }
}

/// Flips a bit of a byte in one file of the journal.
async fn flip(context: &deterministic::Context, at: u64) {
    let names = context.scan("till").await.expect("there");
    let name = &names[at as usize % names.len()];
    let (blob, size) = context.open("till", name).await.expect("opens");
    if size == 0 {
        return;
    }
    let at = at % size;
    let mut byte =
        blob.read_at(at, 1, ReadOptions::default()).await.expect("readable").coalesce().as_ref().to_vec();
    byte[0] ^= 0x10;
    blob.write_at(at, byte, WriteOptions::default()).await.expect("writable");
    blob.sync().await.expect("durable");
}

#[test]
fn what_damage_took_from_the_vouchers_is_known_at_every_later_start() {
    for at in (100..1_500).step_by(83) {
        deterministic::Runner::default().start(|context| async move {
            let of = |slot| AgreementId { slot, ..id() };
            let (vouchers, task) = Vouchers::open(context.child("first"), "till").await.expect("opens");
            for slot in 0..12 {
                vouchers.keep(voucher(of(slot), 1_000)).await.expect("durable");
            }
            drop(vouchers);
            task.await.expect("lives").expect("did not fail");
            flip(&context, at).await;
            let mut known = false;
            for start in 0..4 {
                let (vouchers, task) = Vouchers::open(context.child("again"), "till").await.expect("opens");
                let lost = (0..12).any(|slot| vouchers.with(|state| state.paid(&of(slot))) == 0);
                let says = vouchers.with(|state| state.is_damaged());
                assert!(says || !(lost || known), "byte {at}, start {start}: {lost} {known}");
                known |= says;
                // The mark must also survive a snapshot that is written meanwhile.
                for egress in 0..200 {
                    vouchers.keep(voucher(of(99), 1_000 * (start + 1) + egress)).await.expect("durable");
                }
                drop(vouchers);
                task.await.expect("lives").expect("did not fail");
            }
        });
    }
}

#[derive(Clone, Copy, Debug)]
enum VoucherAction {
    /// A voucher for this much more than the last one; now and then an older one is repeated.
    Pay(usize, u64),
    Begin(usize),
    Draw(usize, u64),
    End(usize),
    /// The ledger redeems the kept voucher, with a claim of the overdue bytes.
    Redeem(usize),
    /// The agreement ends; the next one in its slot is another.
    Withdraw(usize),
    Full(bool),
    Restart,
    Damage(u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = VoucherAction> {
    let slot = || 0..SLOTS;
    prop_oneof![
        8 => (slot(), 0u64..200_000).prop_map(|(slot, more)| VoucherAction::Pay(slot, more)),
        3 => slot().prop_map(VoucherAction::Begin),
        6 => (slot(), 1u64..65_536).prop_map(|(slot, bytes)| VoucherAction::Draw(slot, bytes)),
        3 => slot().prop_map(VoucherAction::End),
        2 => slot().prop_map(VoucherAction::Redeem),
        2 => slot().prop_map(VoucherAction::Withdraw),
        1 => any::<bool>().prop_map(VoucherAction::Full),
        2 => Just(VoucherAction::Restart),
        1 => any::<u64>().prop_map(VoucherAction::Damage),
        2 => (0u64..100).prop_map(VoucherAction::Wait),
    ]
}

/// Lower bound of an agreement's worth, from the acknowledgements its consumer received.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    paid: u64,
    /// Bytes sent in this process and not paid.
    unpaid: u64,
    running: u32,
    /// Egress bytes redeemed on the ledger.
    redeemed: u64,
    disputed: u64,
}

struct Operator {
    context: deterministic::Context,
    fuse: Fuse,
    vouchers: Option<(Vouchers, Handle<Result<(), VouchersError>>)>,
    opened: [u64; SLOTS],
    accounts: BTreeMap<AgreementId, Tally>,
    is_full: bool,
    is_damaged: bool,
}

impl Operator {
    async fn start(context: deterministic::Context) -> Self {
        let fuse = Fuse::after(i64::MAX);
        let mut operator = Self {
            context,
            fuse,
            vouchers: None,
            opened: [1; SLOTS],
            accounts: BTreeMap::new(),
            is_full: false,
            is_damaged: false,
        };
        operator.open().await;
        operator
    }

    async fn open(&mut self) {
        let cut = Cut::new(self.context.child("process"), self.fuse.clone());
        self.vouchers = Some(Vouchers::open(cut, "till").await.expect("opens"));
    }

    fn vouchers(&self) -> &Vouchers {
        &self.vouchers.as_ref().expect("it runs").0
    }

    fn id(&self, slot: usize) -> AgreementId {
        AgreementId { slot: slot as u32, opened: self.opened[slot], ..id() }
    }

    fn account(&mut self, slot: usize) -> (AgreementId, &mut Tally) {
        let id = self.id(slot);
        (id, self.accounts.entry(id).or_default())
    }

    async fn stop(&mut self) {
        self.fuse.set_full(false);
        self.is_full = false;
        let (vouchers, task) = self.vouchers.take().expect("it runs");
        drop(vouchers);
        task.await.expect("lives").expect("did not fail");
        for account in self.accounts.values_mut() {
            (account.unpaid, account.running) = (0, 0);
        }
    }

    /// Checks after a start that no figure fell, or that the operator was warned.
    fn compare(&mut self, was_hit: bool) {
        let vouchers = self.vouchers().clone();
        let mut fell = vec![];
        for (id, account) in &mut self.accounts {
            let paid = vouchers.with(|state| state.paid(id));
            if paid < account.paid {
                fell.push(*id);
            }
            assert!(was_hit || paid >= account.paid, "{id:?}: {paid} of {}", account.paid);
            account.paid = paid;
        }
        let says = vouchers.with(|state| state.is_damaged());
        assert!(says || !self.is_damaged, "it was known to be damaged before");
        assert!(fell.len() <= 1, "one bit cost {fell:?}");
        assert!(says || fell.is_empty(), "{fell:?} went without a word");
        self.is_damaged = says;
    }

    async fn pay(&mut self, slot: usize, more: u64) {
        let (id, account) = self.account(slot);
        let before = account.paid;
        let egress = if more.is_multiple_of(7) { before / 2 } else { before + more };
        let vouchers = self.vouchers().clone();
        let told = vouchers.keep(voucher(id, egress)).await;
        let is_full = self.is_full;
        let (_, account) = self.account(slot);
        match told {
            Ok(()) => {
                let paid = before.max(egress);
                account.unpaid = account.unpaid.saturating_sub(paid - before);
                account.paid = paid;
            }
            Err(VouchersError::NoSpace) => assert!(is_full),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(vouchers.with(|state| state.paid(&id)), self.accounts[&id].paid, "{id:?}");
    }

    fn draw(&mut self, slot: usize, bytes: u64) {
        let vouchers = self.vouchers().clone();
        let (id, account) = self.account(slot);
        if account.running == 0 {
            return;
        }
        let before = vouchers.with(|state| state.sent(&id));
        vouchers.with(|state| state.draw(id, bytes, ONE, u64::MAX));
        let sent = vouchers.with(|state| state.sent(&id));
        account.unpaid += sent - before;
    }

    /// Checks that a claim covers sent and unpaid bytes only, and counts once.
    fn redeem(&mut self, slot: usize) {
        let (vouchers, now) = (self.vouchers().clone(), self.context.current());
        let (id, account) = self.account(slot);
        let kept =
            vouchers.with(|state| state.voucher(&id).copied().map(|kept| (kept, state.overdue(&id, now))));
        let Some((kept, overdue)) = kept else { return };
        assert!(overdue <= account.unpaid + account.disputed, "{overdue} of {account:?}");
        let redemption = claiming(&kept, overdue, account.disputed);
        let paid = redemption.voucher.units.egress;
        if paid > account.redeemed {
            let claimed = redemption.claim.map_or(paid, |claim| claim.egress);
            account.disputed +=
                (claimed - paid).saturating_sub(account.disputed).min(paid - account.redeemed);
            account.redeemed = paid;
        }
    }

    async fn withdraw(&mut self, slot: usize) {
        let (id, vouchers) = (self.id(slot), self.vouchers().clone());
        match vouchers.forget(id).await {
            Ok(()) => {
                assert_eq!(vouchers.with(|state| (state.paid(&id), state.sent(&id))), (0, 0));
                self.accounts.insert(id, Tally::default());
                self.opened[slot] += 1;
                let next = self.id(slot);
                let fresh = vouchers.with(|state| (state.paid(&next), state.sent(&next)));
                assert_eq!(fresh, (0, 0), "the next one in slot {slot} owes and has nothing");
            }
            Err(VouchersError::NoSpace) => assert!(self.is_full),
            Err(error) => panic!("{error}"),
        }
    }

    async fn take(&mut self, step: VoucherAction) {
        let now = self.context.current();
        match step {
            VoucherAction::Pay(slot, more) => self.pay(slot, more).await,
            VoucherAction::Begin(slot) => {
                let vouchers = self.vouchers().clone();
                let (id, account) = self.account(slot);
                vouchers.with(|state| state.begin(id, account.disputed, now));
                account.running += 1;
            }
            VoucherAction::Draw(slot, bytes) => self.draw(slot, bytes),
            VoucherAction::End(slot) => {
                let vouchers = self.vouchers().clone();
                let (id, account) = self.account(slot);
                if account.running > 0 {
                    account.running -= 1;
                    vouchers.with(|state| state.end(&id, now));
                }
            }
            VoucherAction::Redeem(slot) => self.redeem(slot),
            VoucherAction::Withdraw(slot) => self.withdraw(slot).await,
            VoucherAction::Full(full) => {
                self.fuse.set_full(full);
                self.is_full = full;
            }
            VoucherAction::Restart => {
                self.stop().await;
                self.open().await;
                self.compare(false);
            }
            VoucherAction::Damage(at) => {
                self.stop().await;
                flip(&self.context, at).await;
                self.open().await;
                self.compare(true);
            }
            VoucherAction::Wait(seconds) => self.context.sleep(std::time::Duration::from_secs(seconds)).await,
        }
    }
}

proptest! {
    #[test]
    fn whatever_comes_an_acknowledged_voucher_stays_or_its_loss_is_told_and_no_slot_inherits(
        steps in proptest::collection::vec(step(), 1..50),
    ) {
        deterministic::Runner::default().start(|context| async move {
            let mut operator = Operator::start(context).await;
            for step in steps {
                operator.take(step).await;
            }
            operator.stop().await;
            operator.open().await;
            operator.compare(false);
        });
    }
}

/// A voucher passes the voucher store unchanged, as its consumer signed it.
#[test]
fn a_voucher_comes_back_from_the_disk_as_it_was_signed() {
    deterministic::Runner::default().start(|context| async move {
        let signed = Voucher::signed(&session(), &CHAIN, id(), Units { egress: 9, gas: 3 });
        let kept = Redemption { voucher: signed, ..voucher(id(), 0) };
        let (vouchers, task) = Vouchers::open(context.child("first"), "till").await.expect("opens");
        vouchers.keep(kept).await.expect("durable");
        drop(vouchers);
        task.await.expect("lives").expect("did not fail");
        let (vouchers, _task) = Vouchers::open(context.child("again"), "till").await.expect("opens");
        assert_eq!(vouchers.with(|state| state.voucher(&id()).copied()), Some(kept));
    });
}
