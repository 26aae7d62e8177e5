//! The agreement of all members before the first block: rules, money, authorities, network key.
//!
//! The chain's name is the SHA-256 of the encoded genesis, so networks that differ in one byte never accept
//! each other's signatures. The record store starts empty, as the engine requires; the first block writes
//! the genesis records before it runs any operation.
//!
//! Invariants:
//! 1. The authorities are exactly the players of the dealt key, with distinct keys and addresses.
//! 2. No account is funded twice, and the accounts, the seats' bonds and the reserve add up to the
//!    supply.
//! 3. Every authority has a seat with a bond, in the order of their keys (AU-1).

pub(crate) mod signatures;

pub use signatures::{SIGNATURES_FILE, Signatures, sign_all};

use crate::{
    engine::{
        AUTHORITIES_MAX, Block, Database, Digest, EpochInfo, NetworkKey, PrivateKey, PublicKey, Runtime,
        Variant,
    },
    epoch::{Directory, DirectoryEntry},
};
use bytes::BufMut;
use commonware_codec::{
    Buf, Copying, DecodeExt as _, Encode as _, EncodeSize, Error as CodecError, FixedSize as _, RangeCfg,
    Read, ReadExt as _, Write,
};
use commonware_consensus::types::Epoch;
use commonware_cryptography::{
    Signer as _,
    bls12381::{
        dkg::feldman_desmedt::{Output, deal as deal_shares},
        primitives::{
            group::Share,
            sharing::{Mode, ModeVersion},
        },
    },
};
use commonware_glue::{dkg::types::EpochOutcome, stateful::db::ManagedDb};
use commonware_math::algebra::Random as _;
use commonware_p2p::{Address, Ingress};
use commonware_utils::{
    N3f1,
    ordered::{Map, Set},
};
use posync_protocol::{
    Account, Amount, Hash, Key, Record as _, Slot,
    block::{Header, sha256},
    ledger,
    limits::{BLOCKS_KEPT, Parameters},
    record::{AccountState, RoundInfo, Seat, SeatAt, System},
    wire::node::GENESIS_BYTES_MAX,
};
use rand_core::CryptoRng;
use signatures::SignaturesError;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};
use thiserror::Error;

/// Format of the genesis and of the headers.
pub(crate) const VERSION: u16 = 1;
/// Upper bound on the timeouts of a view.
const TIMEOUT_MS_MAX: u64 = 60_000;
/// Upper bound on the accounts that a genesis funds.
const ACCOUNTS_MAX: usize = 65_536;
/// Most bytes of an authority: two addresses with host names, keys, its part of the sharing.
const AUTHORITY_BYTES_MAX: usize = 1 << 10;

// A node serves its genesis in one answer.
const _: () = assert!(
    ACCOUNTS_MAX * (Account::SIZE + Amount::SIZE)
        + AUTHORITIES_MAX.get() as usize * AUTHORITY_BYTES_MAX
        + (64 << 10)
        <= GENESIS_BYTES_MAX
);

/// Why a genesis is refused.
#[derive(Debug, Error)]
pub enum GenesisError {
    /// The bytes are not a genesis.
    #[error("the genesis does not decode: {0}; fetch the file again")]
    Decode(#[from] CodecError),
    /// The fields contradict each other.
    #[error("the genesis contradicts itself: {0}")]
    Contradiction(&'static str),
    /// Not all of its authorities signed it.
    #[error(transparent)]
    Signatures(#[from] SignaturesError),
    /// The network key could not be dealt.
    #[error("the network key cannot be dealt: {0}")]
    Deal(String),
}

/// An authority of the first terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Key that signs headers and authenticates it to the other authorities.
    pub key: PublicKey,
    /// Address that the other authorities dial, and the one that it dials from.
    pub address: Address,
    /// Address at which clients reach its node service, if the genesis names one.
    pub service: Option<Ingress>,
    /// Account that its member named for its pay. No rule reads it yet: seats are paid to their own account.
    pub payout: Account,
    /// Share of the drawn views, relative to the other authorities.
    pub weight: u64,
}

/// The secrets that the dealer gives to one authority, in private.
#[derive(Clone, Debug)]
pub struct AuthoritySecret {
    /// The key that signs headers.
    pub key: PrivateKey,
    /// The share of the network key in the first term.
    pub share: Share,
}

/// The initial data of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// Constants of the ledger's rules.
    pub parameters: Parameters,
    /// Start of the network in milliseconds since 1970. The first block may be at most ten seconds later.
    /// The dealer sets it; 0 suits a simulated clock.
    pub time_ms: u64,
    /// All money that will ever exist.
    pub supply: Amount,
    /// Initial balances. The rest of the supply is the seats' bonds and the reserve.
    pub accounts: Vec<(Account, Amount)>,
    /// The authorities, ordered by their keys.
    pub authorities: Vec<Authority>,
    /// The network key, and its sharing in the first term.
    pub output: Output<Variant, PublicKey>,
}

/// Deals a genesis in one process, with one authority for each address: for tests and local networks.
///
/// # Errors
/// [`GenesisError`] if there are no or too many addresses, or accounts exceed the supply.
pub fn deal(
    addresses: &[SocketAddr],
    parameters: Parameters,
    supply: Amount,
    accounts: Vec<(Account, Amount)>,
    mut rng: impl CryptoRng,
) -> Result<(Genesis, Vec<AuthoritySecret>), GenesisError> {
    let mut keys: Vec<PrivateKey> = addresses.iter().map(|_| PrivateKey::random(&mut rng)).collect();
    keys.sort_by_key(PrivateKey::public_key);
    let players = Set::from_iter_dedup(keys.iter().map(PrivateKey::public_key));
    let (output, shares) = deal_shares::<Variant, _, N3f1>(&mut rng, Mode::NonZeroCounter, players)
        .map_err(|error| GenesisError::Deal(error.to_string()))?;
    let authorities = keys
        .iter()
        .zip(addresses)
        .map(|(key, address)| Authority {
            key: key.public_key(),
            address: Address::Symmetric(*address),
            service: None,
            payout: Account::of(&key.public_key()),
            weight: 1,
        })
        .collect();
    let genesis = Genesis { parameters, time_ms: 0, supply, accounts, authorities, output };
    genesis.check()?;
    let secrets = keys.into_iter().map(|key| {
        let share = shares.get_value(&key.public_key());
        AuthoritySecret { share: share.expect("every player is dealt a share").clone(), key }
    });
    Ok((genesis, secrets.collect()))
}

impl Genesis {
    /// Decodes and checks a genesis.
    ///
    /// # Errors
    /// [`GenesisError`]: it does not decode, or contradicts itself.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, GenesisError> {
        let genesis = Self::decode(Copying(bytes))?;
        genesis.check()?;
        Ok(genesis)
    }

    /// The name of the chain: the SHA-256 of the genesis.
    pub fn chain(&self) -> Hash {
        sha256(&self.encode())
    }

    /// The key under which every certificate of every term verifies.
    pub fn network_key(&self) -> NetworkKey {
        *self.output.public().public()
    }

    /// The namespace that binds certificates to the consensus of this chain.
    pub fn namespace(&self) -> Vec<u8> {
        [b"posync/consensus/1".as_slice(), &self.chain()].concat()
    }

    /// Addresses and weights of the authorities.
    pub(crate) fn directory(&self) -> Directory {
        let entries = self.authorities.iter().map(|authority| {
            let entry = DirectoryEntry { address: authority.address.clone(), weight: authority.weight };
            (authority.key.clone(), entry)
        });
        Directory(Map::from_iter_dedup(entries))
    }

    /// The first term as the engine expects it: key, players, directory.
    pub(crate) fn epoch_info(&self) -> EpochInfo {
        let players = self.output.players().clone();
        EpochInfo {
            outcome: EpochOutcome::Success,
            epoch: Epoch::zero(),
            output: self.output.clone(),
            next_players: players.clone(),
            players,
            directory: self.directory(),
        }
    }

    /// The block at height 0, which names the empty store and the authorities.
    pub fn block<E: Runtime>(&self) -> Block {
        let empty = <Database<E> as ManagedDb<E>>::initial_sync_target();
        let zero = [0; 32];
        let header = Header {
            version: VERSION,
            chain: self.chain(),
            term: 0,
            view: 0,
            leader: Account::default(),
            parent_view: 0,
            parent: zero,
            height: 0,
            time_ms: self.time_ms,
            beacon: None,
            body_root: zero,
            receipts_root: zero,
            state_root: zero,
            ops_root: hash(&empty.root),
            range_start: *empty.range.start(),
            range_end: *empty.range.end(),
            signature: [0; 64],
        };
        Block::genesis(header, self.authorities[0].key.clone(), self.epoch_info())
    }

    /// The records that the first block finds, in key order.
    pub fn records(&self) -> BTreeMap<Key, Slot> {
        const WITHIN: &str = "a checked genesis spends within the supply";
        let bonds = bonds(&self.parameters, self.authorities.len());
        let (balances, seat_bonds) = sum(&self.accounts).zip(bonds).expect(WITHIN);
        let spent = balances.checked_add(seat_bonds).expect(WITHIN);
        let reserve = self.supply.checked_sub(spent).expect(WITHIN);
        let seats = u32::try_from(self.authorities.len()).expect("at most 64 authorities");
        let base_fee = ledger::floor(&self.parameters);
        let system = System { balances, reserve, seats, seat_bonds, base_fee, ..System::default() };
        let anchor = RoundInfo::default();
        let mut records =
            BTreeMap::from([(System::key(), system.to_slot()), (RoundInfo::key(0), anchor.to_slot())]);
        for (account, balance) in &self.accounts {
            let state = AccountState { nonce: 0, balance: *balance };
            records.insert(AccountState::key(account), state.to_slot());
        }
        for (index, authority) in (0..).zip(&self.authorities) {
            let account = Account::of(&authority.key);
            records.insert(Seat::key(&account), Seat::new(index, self.parameters.seat_bond).to_slot());
            records.insert(SeatAt::key(index), SeatAt { account }.to_slot());
        }
        records
    }

    /// Checks that the fields agree with each other.
    pub(crate) fn check(&self) -> Result<(), GenesisError> {
        let refuse = |what| Err(GenesisError::Contradiction(what));
        let keys = self.authorities.iter().map(|authority| &authority.key);
        if !keys.eq(self.output.players().iter()) {
            return refuse("the authorities are not the players of the network key, in order");
        }
        check_terms(&self.parameters, self.supply, &self.accounts, &self.authorities).map_or(Ok(()), refuse)
    }
}

/// An error in what the members agree on before there is a key, if there is one: of a genesis or a draft.
pub(crate) fn check_terms(
    parameters: &Parameters,
    supply: Amount,
    accounts: &[(Account, Amount)],
    authorities: &[Authority],
) -> Option<&'static str> {
    if authorities.is_empty() || authorities.len() > AUTHORITIES_MAX.get() as usize {
        return Some("there must be 1 to 64 authorities");
    }
    let addresses: BTreeSet<_> = authorities.iter().map(|authority| authority.address.ingress()).collect();
    if addresses.len() != authorities.len() {
        return Some("two authorities have the same address");
    }
    let funded: BTreeSet<_> = accounts.iter().map(|(account, _)| *account).collect();
    if funded.len() != accounts.len() {
        return Some("an account is funded twice");
    }
    if authorities.iter().any(|authority| authority.weight == 0) {
        return Some("an authority of weight zero would never lead: give each at least one");
    }
    let spent = sum(accounts)
        .zip(bonds(parameters, authorities.len()))
        .and_then(|(funded, bonds)| funded.checked_add(bonds));
    if spent.is_none_or(|spent| spent > supply) {
        return Some("the accounts and the seats' bonds hold more than the supply");
    }
    check_times(parameters, authorities.len() as u64)
}

fn sum(accounts: &[(Account, Amount)]) -> Option<Amount> {
    accounts.iter().try_fold(Amount::ZERO, |sum, (_, balance)| sum.checked_add(*balance))
}

fn bonds(parameters: &Parameters, authorities: usize) -> Option<Amount> {
    Amount::new(parameters.seat_bond.grains().checked_mul(authorities as u128)?)
}

/// An error in the times that the engine takes from the parameters, if there is one.
fn check_times(parameters: &Parameters, authorities: u64) -> Option<&'static str> {
    let Parameters { block_ms, round_blocks, term_rounds, epoch_rounds, .. } = *parameters;
    let (leader, certification) = (parameters.leader_timeout_ms, parameters.certification_timeout_ms);
    if [round_blocks, term_rounds, epoch_rounds].contains(&0) || !epoch_rounds.is_multiple_of(term_rounds) {
        return Some("rounds, terms and epochs must have blocks, and an epoch whole terms");
    }
    let term_blocks = round_blocks.saturating_mul(term_rounds);
    if !(4 * authorities..=BLOCKS_KEPT).contains(&term_blocks) {
        return Some(
            "a term needs 4 blocks for each authority's dealing, and at most the blocks that are kept",
        );
    }
    if block_ms >= leader || leader >= certification || certification > TIMEOUT_MS_MAX {
        return Some(
            "a leader needs more time than a block, a certificate more than a leader, at most a minute",
        );
    }
    None
}

/// Copies the bytes of a digest into a ledger hash.
pub(crate) fn hash(digest: &Digest) -> Hash {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

impl Write for Authority {
    fn write(&self, buf: &mut impl BufMut) {
        self.key.write(buf);
        self.address.write(buf);
        self.service.write(buf);
        self.payout.write(buf);
        self.weight.write(buf);
    }
}

impl EncodeSize for Authority {
    fn encode_size(&self) -> usize {
        self.key.encode_size()
            + self.address.encode_size()
            + self.service.encode_size()
            + Account::SIZE
            + u64::SIZE
    }
}

impl Read for Authority {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, CodecError> {
        Ok(Self {
            key: PublicKey::read(buf)?,
            address: Address::read(buf)?,
            service: Option::read(buf)?,
            payout: Account::read(buf)?,
            weight: u64::read(buf)?,
        })
    }
}

impl Write for Genesis {
    fn write(&self, buf: &mut impl BufMut) {
        VERSION.write(buf);
        self.parameters.write(buf);
        self.time_ms.write(buf);
        self.supply.write(buf);
        self.accounts.write(buf);
        self.authorities.write(buf);
        self.output.write(buf);
    }
}

impl EncodeSize for Genesis {
    fn encode_size(&self) -> usize {
        u16::SIZE
            + self.parameters.encode_size()
            + u64::SIZE
            + self.supply.encode_size()
            + self.accounts.encode_size()
            + self.authorities.encode_size()
            + self.output.encode_size()
    }
}

impl Read for Genesis {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, CodecError> {
        if u16::read(buf)? != VERSION {
            return Err(CodecError::Invalid("Genesis", "another version"));
        }
        let authorities_max = AUTHORITIES_MAX.get() as usize;
        Ok(Self {
            parameters: Parameters::read(buf)?,
            time_ms: u64::read(buf)?,
            supply: Amount::read(buf)?,
            accounts: Vec::read_cfg(buf, &(RangeCfg::new(0..=ACCOUNTS_MAX), ((), ())))?,
            authorities: Vec::read_cfg(buf, &(RangeCfg::new(1..=authorities_max), ()))?,
            output: Output::read_cfg(buf, &(AUTHORITIES_MAX, ModeVersion::v0()))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_utils::TestRng;
    use posync_protocol::invariants::check_all;

    fn dealt(parameters: Parameters, accounts: Vec<(Account, Amount)>) -> Result<Genesis, GenesisError> {
        let addresses: Vec<_> = (0..4).map(|i| SocketAddr::from(([127, 0, 0, 1], 9_000 + i))).collect();
        Ok(deal(&addresses, parameters, Amount::sync(40_010), accounts, TestRng::new(1))?.0)
    }

    #[test]
    fn a_genesis_survives_its_bytes_and_names_its_chain() {
        let genesis = dealt(Parameters::LOCAL, vec![(Account([1; 32]), Amount::sync(4))]).expect("valid");
        let decoded = Genesis::from_bytes(&genesis.encode()).expect("valid");
        assert!(decoded == genesis && decoded.chain() == genesis.chain());
        let other = dealt(Parameters::PRODUCTION, Vec::new()).expect("valid");
        assert_ne!(other.chain(), genesis.chain());
        let system = System::from_slot(&genesis.records()[&System::key()]).expect("it decodes");
        assert_eq!((system.balances, system.reserve), (Amount::sync(4), Amount::sync(6)));
        assert_eq!((system.seats, system.seat_bonds), (4, Amount::sync(40_000)));
        check_all(genesis.records(), genesis.supply).expect("every grain and every seat is in its place");
    }

    #[test]
    fn contradictions_are_refused() {
        let local = Parameters::LOCAL;
        let account = Account([1; 32]);
        let cases = [
            (Parameters { round_blocks: 0, ..local }, vec![]),
            (Parameters { term_rounds: 3, ..local }, vec![]),
            (Parameters { round_blocks: 1_000, ..local }, vec![]),
            (Parameters { round_blocks: 1, ..local }, vec![]),
            (Parameters { block_ms: 1_000, ..local }, vec![]),
            (Parameters { certification_timeout_ms: 1_000, ..local }, vec![]),
            (local, vec![(account, Amount::sync(11))]),
            (Parameters { seat_bond: Amount::sync(10_003), ..local }, vec![]),
            (Parameters { seat_bond: Amount::MAX, ..local }, vec![]),
            (local, vec![(account, Amount::sync(1)), (account, Amount::sync(1))]),
        ];
        for (index, (parameters, accounts)) in cases.into_iter().enumerate() {
            let result = dealt(parameters, accounts);
            assert!(matches!(result, Err(GenesisError::Contradiction(_))), "case {index}: {result:?}");
        }
        let mut weightless = dealt(local, Vec::new()).expect("valid");
        weightless.authorities[0].weight = 0;
        let result = Genesis::from_bytes(&weightless.encode());
        assert!(matches!(result, Err(GenesisError::Contradiction(_))), "{result:?}");
    }
}
