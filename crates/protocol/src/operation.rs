//! Operations: the closed set of requests that members send to the ledger, each in a signed envelope.
//!
//! The list `operations!` declares each kind once: its number, fields, lane, checks, money, records,
//! effect and signatures. An operation's id is the SHA-256 of its bytes. Signatures are verified outside this module, in
//! batches, once per node ([`crate::wire::node`] carries the bytes). Outside the paid lane ([`Lane`])
//! `nonce` is 0. In free operations (`StorageProof`, `Settle`) `max_fee` is 0 as well.

#[macro_use]
mod declare;
mod envelope;
mod lane;
mod structure;

pub use crate::bodies::*;

pub use lane::Lane;
pub use structure::check_structure;

use crate::bodies::{of_redemptions, ranges};
use crate::{
    Account, Amount, Signature, account, agreement, authority, capacity, data_set, node, provider,
    reputation, service, settlement, storage_proof,
};
use alloc::vec::Vec;

/// Namespace of an operation's signature; the chain id follows it.
pub const OPERATION_NAMESPACE: &[u8] = b"posync/op/1";
operations! {
    |body, signer, expires, context, chain, touched, working|

    /// Moves money between two accounts.
    1 Transfer(Transfer): Paid {
        fits: ranges::amount_fits(body.amount),
        check: Ok(()),
        takes: [context.parameters.account_burn, body.amount],
        touches: account::touches(body, touched),
        apply: account::transfer(working, signer, body),
        signatures: [],
    }
    /// Registers the signer as a provider.
    2 RegisterProvider(RegisterProvider): Paid {
        fits: provider::registration_fits(body),
        check: Ok(()),
        takes: [context.parameters.registration_burn, body.bond],
        touches: provider::touches_register(signer, touched),
        apply: provider::register(working, signer, body),
        signatures: [],
    }
    /// Changes a provider's offer, or announces or completes its exit.
    3 UpdateProvider(UpdateProvider): Paid {
        fits: provider::update_fits(body),
        check: Ok(()),
        takes: [body.bond_add],
        touches: provider::touches_update(context, signer, body, touched),
        apply: provider::update(working, signer, body),
        signatures: [],
    }
    /// Opens an agreement with a provider.
    4 Open(Open): Paid {
        fits: agreement::open_fits(body, &context.parameters),
        check: Ok(()),
        takes: agreement::open_takes(body, expires, context),
        touches: agreement::touches_open(body, touched),
        apply: agreement::open(working, signer, body),
        signatures: [],
    }
    /// Adds to an agreement's voucher reserve.
    5 TopUp(TopUp): Paid {
        fits: agreement::top_up_fits(body),
        check: Ok(()),
        takes: [body.amount],
        touches: agreement::touches_top_up(body, touched),
        apply: agreement::top_up(working, signer, body),
        signatures: [],
    }
    /// Ends an agreement, signed by both parties.
    6 Close(Close): Paid {
        fits: agreement::close_fits(body),
        check: Ok(()),
        takes: [],
        touches: agreement::touches_close(body, touched),
        apply: agreement::close(working, signer, body),
        signatures: [body.check(chain, signer)],
    }
    /// Ends an agreement, signed by one party.
    7 CloseAlone(CloseAlone): Paid {
        fits: ranges::id_fits(&body.agreement),
        check: Ok(()),
        takes: [],
        touches: agreement::touches_close_alone(body, touched),
        apply: agreement::close_alone(working, signer, body),
        signatures: [],
    }
    /// Replaces an agreement's session key.
    8 RotateKey(RotateKey): Paid {
        fits: ranges::id_fits(&body.agreement),
        check: Ok(()),
        takes: [],
        touches: agreement::touches_rotate(body, touched),
        apply: agreement::rotate(working, signer, body),
        signatures: [],
    }
    /// Changes an agreement's data set.
    9 SetDataSet(SetDataSet): Paid {
        fits: data_set::fits(body),
        check: Ok(()),
        takes: [],
        touches: data_set::touches(body, touched),
        apply: data_set::apply(working, body),
        signatures: body.signatures(chain),
    }
    /// Answers a challenge; free.
    10 StorageProof(StorageProof): StorageProof {
        fits: storage_proof::fits(body, context),
        check: ranges::check_redemptions(signer, &body.vouchers),
        takes: [],
        touches: storage_proof::touches(context, signer, body, touched),
        apply: storage_proof::apply(working, signer, body),
        signatures: of_redemptions(&body.vouchers, chain),
    }
    /// Redeems vouchers outside a challenge.
    11 Redeem(Redeem): Paid {
        fits: ranges::redemptions_fit(&body.vouchers),
        check: agreement::check_redeem(signer, body),
        takes: [],
        touches: agreement::touches_redeem(context, signer, &body.vouchers, touched),
        apply: agreement::redeem(working, &body.vouchers).map(|_| ()),
        signatures: of_redemptions(&body.vouchers, chain),
    }
    /// Brings a provider's records up to date; free.
    12 Settle(Settle): Upkeep {
        fits: settlement::fits(body, context),
        check: Ok(()),
        takes: [],
        touches: settlement::touches(context, signer, body, touched),
        apply: settlement::apply(working, signer, body),
        signatures: [],
    }
    /// Ends a provider's time in jail.
    13 Unjail(Unjail): Paid {
        fits: true,
        check: Ok(()),
        takes: [context.parameters.unjail_burn, body.bond_add],
        touches: reputation::touches_unjail(signer, touched),
        apply: reputation::unjail(working, signer, body),
        signatures: [],
    }
    /// Lowers the declared capacity of a provider that refused a placement within it.
    14 Refusal(RefusedPlacement): Paid {
        fits: provider::refusal_fits(body),
        check: Ok(()),
        takes: [],
        touches: provider::touches_cut(body, touched),
        apply: provider::cut(working, body),
        signatures: [body.check(chain)],
    }
    /// Slashes and jails a seat that signed contradicting messages.
    15 Evidence(Evidence): Reserved {
        fits: true,
        check: authority::check(body, &context.chain),
        takes: [],
        touches: authority::touches_evidence(body, &context.parameters, touched),
        apply: authority::apply(working, signer, body),
        signatures: body.signatures(chain),
    }
    /// Commits an auditor to its reports of an epoch.
    16 AuditCommit(AuditCommit): Reserved {
        fits: true,
        check: Ok(()),
        takes: [],
        touches: service::touches_commit(signer, body, touched),
        apply: service::commit(working, signer, body),
        signatures: [body.check(chain, *signer)],
    }
    /// Reveals a batch of the reports that an auditor committed to.
    17 AuditReveal(AuditReveal): Reserved {
        fits: body.fits(),
        check: Ok(()),
        takes: [],
        touches: service::touches_reveal(signer, body, touched),
        apply: service::reveal(working, signer, body),
        signatures: body.signatures(chain, signer),
    }
    /// Submits the drawn peers' counts of a provider's egress.
    18 Measure(Measure): Paid {
        fits: capacity::fits(body),
        check: capacity::check_senders(signer, body),
        takes: [],
        touches: capacity::touches(signer, body, touched),
        apply: capacity::measure(working, signer, body),
        signatures: body.signatures(chain),
    }
    /// Lists a node that serves the network's state, or withdraws it.
    19 AnnounceNode(AnnounceNode): Paid {
        fits: node::announcement_fits(body),
        check: Ok(()),
        takes: [body.deposit_add],
        touches: node::touches(signer, body, touched),
        apply: node::announce(working, signer, body),
        signatures: [],
    }
}

encoded! {
    #[json("id" = Self::id, "kind" = |operation: &Self| operation.body.name())]
    /// A request in its signed envelope.
    Operation {
        /// Account that sends the operation and pays its fee.
        signer: Account,
        /// The signer's next nonce; 0 outside the paid lane.
        nonce: u64,
        /// Upper bound on the fee that may be burned; 0 for free operations.
        max_fee: Amount,
        /// Last height at which a block may hold it.
        expires: u64,
        /// The request, which decides the lane.
        #[json("fields")]
        body: Body,
        /// Ed25519 signature in `OPERATION_NAMESPACE` over chain id and the fields above.
        #[json(skip)]
        signature: Signature,
    }
}
