//! Names of shards that a provider proved to hold, taken from the storage proofs in blocks.
//!
//! Every storage proof carries the drawn leaves with their shards' names and lengths. So anyone who reads
//! blocks learns of shards that the provider must be able to serve, but not before the provider's draw
//! was open.

use crate::ledger::{Error, Ledger, decode};
use posync_protocol::{
    Account, Hash,
    agreement::check_open,
    block::BlockBody,
    limits::Parameters,
    operation::{Body, ReadAnswer},
    record::{Agreement, Audit, DataSet, Usage},
};

/// A shard that a provider proved to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its name, the hash of its bytes.
    pub shard: Hash,
    /// Its length in bytes.
    pub length: u64,
    /// Slot of the agreement under which it is held.
    pub slot: u32,
    /// Root of the data set in which it was proved.
    pub root: Hash,
}

/// The shards known of one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Height of the challenge whose answer was read.
    pub challenge: u64,
    /// The epoch in which the names were last looked up.
    pub epoch: u64,
    /// The shards that it proved then.
    pub shards: Vec<Named>,
}

/// The shards that `provider` proves in its answer to the challenge of height `challenge`; `None` if the
/// block does not hold that answer.
pub(crate) fn proved(body: &BlockBody, provider: &Account, challenge: u64) -> Option<Vec<Named>> {
    let storage_proof = body.operations.iter().find_map(|operation| match &operation.body {
        Body::StorageProof(storage_proof)
            if operation.signer == *provider && storage_proof.height == challenge =>
        {
            Some(storage_proof)
        }
        _ => None,
    })?;
    let named = |answer: &ReadAnswer| match answer {
        ReadAnswer::Proved(read) => {
            let root = read.position.place(&read.shard, read.length)?.root;
            Some(Named { shard: read.shard, length: read.length, slot: answer.slot(), root })
        }
        ReadAnswer::Missing(_) | ReadAnswer::Ended(_) => None,
    };
    let mut shards: Vec<Named> = storage_proof.answers.iter().filter_map(named).collect();
    shards.sort_unstable_by_key(|named| named.shard);
    shards.dedup();
    Some(shards)
}

/// Returns true if `provider` still owes a shard: the data set in which it was proved is in force, and
/// the agreement is open. Otherwise the consumer may have removed the shard.
///
/// # Errors
/// [`Error`].
pub(crate) async fn is_owed(
    ledger: &Ledger,
    provider: &Account,
    named: &Named,
    parameters: &Parameters,
) -> Result<bool, Error> {
    let slot = named.slot;
    let keys = vec![DataSet::key(provider, slot), Agreement::key(provider, slot), Usage::key(provider, slot)];
    let (height, slots) = ledger.read(keys).await?;
    let at = |place: usize| slots.get(place).copied().flatten();
    let (set, agreement, usage) =
        (decode::<DataSet>(at(0))?, decode::<Agreement>(at(1))?, decode::<Usage>(at(2))?);
    let (Some(set), Some(agreement), Some(usage)) = (set, agreement, usage) else { return Ok(false) };
    let is_open = check_open(&agreement, &usage, parameters.epoch(height)).is_ok();
    Ok(is_open && set.current.root == named.root)
}

/// Reads the names from the last answer of `provider` on the ledger, unless `known` has them already or
/// the answer came too late to be found.
///
/// # Errors
/// [`Error`].
pub(crate) async fn learn(
    ledger: &Ledger,
    provider: &Account,
    known: Known,
    epoch: u64,
    parameters: &Parameters,
) -> Result<Known, Error> {
    let audit: Audit = ledger.record(Audit::key(provider)).await?.unwrap_or_default();
    let challenge = audit.last_height;
    if audit.answered == 0 || challenge == known.challenge {
        return Ok(Known { epoch, ..known });
    }
    for height in challenge + 1..=challenge + parameters.deadline_blocks {
        let Some(body) = ledger.body(height).await? else { break };
        if let Some(shards) = proved(&body, provider, challenge) {
            // All of it is missing, so only the earlier shards can be asked for.
            let shards = if shards.is_empty() { known.shards } else { shards };
            return Ok(Known { challenge, epoch, shards });
        }
    }
    Ok(Known { challenge, epoch, ..known })
}

#[cfg(test)]
mod tests {
    use super::*;
    use posync_protocol::{
        Amount, Bounded, Operation,
        operation::{MissingRead, ProvedRead, StorageProof, SumPath},
        tree::SumTree,
    };

    const PROVIDER: Account = Account([5; 32]);

    fn storage_proof(signer: Account, height: u64, answers: Vec<ReadAnswer>) -> Operation {
        let (reasked, vouchers, apply, endings) = Default::default();
        let answers = Bounded::new(answers).expect("four at most");
        let body =
            StorageProof { height, anchor: [0; 32], index: 0, answers, reasked, vouchers, apply, endings };
        let (nonce, max_fee, expires, signature) = (0, Amount::ZERO, 9, [0; 64]);
        Operation { signer, nonce, max_fee, expires, body: Body::StorageProof(body), signature }
    }

    #[test]
    fn names_are_those_of_the_provider_s_own_answer() {
        let shards = [([1; 32], 2048), ([2; 32], 100), ([3; 32], 70_000)];
        let tree = SumTree::new(&shards).expect("small");
        let path = |place: usize| tree.path(place).expect("it is there");
        let proved = |place: usize| {
            let (shard, length) = shards[place];
            let (leaf, path_of_leaf) = Default::default();
            ReadAnswer::Proved(ProvedRead {
                place: 4,
                shard,
                length,
                position: path(place),
                leaf,
                path: path_of_leaf,
            })
        };
        let missing = |position: SumPath| {
            ReadAnswer::Missing(MissingRead { place: 4, shard: [2; 32], length: 100, position })
        };
        let answers = vec![proved(2), proved(0), missing(path(1)), proved(2)];
        let operations = vec![
            storage_proof(Account([6; 32]), 10, vec![proved(1)]),
            storage_proof(PROVIDER, 12, answers),
            storage_proof(PROVIDER, 14, vec![missing(path(1))]),
        ];
        let operations = Bounded::new(operations).expect("few");
        let block = BlockBody { draws: Default::default(), operations, dkg: Default::default() };
        let named = |shard, length| Named { shard, length, slot: 4, root: tree.root() };
        let expected = vec![named([1; 32], 2048), named([3; 32], 70_000)];
        assert_eq!(super::proved(&block, &PROVIDER, 12), Some(expected));
        assert_eq!(
            super::proved(&block, &PROVIDER, 14),
            Some(vec![]),
            "what is missing names nothing to read"
        );
        assert_eq!(super::proved(&block, &PROVIDER, 10), None, "another's answer");
        assert_eq!(super::proved(&block, &PROVIDER, 11), None, "no such challenge");
    }
}
