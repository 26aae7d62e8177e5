//! A draft: what the members agree on before they make the network key.
//!
//! It is one text file (JSON): parameters, supply, first accounts, the cards of all authorities, a start time
//! and a nonce. Its id is the SHA-256 of the file's bytes, so that two files that differ in one byte have
//! different ids. The members compare the id by voice. A genesis is a draft together with the network key.

use super::{
    card::{Card, CardError, CardText},
    overrides,
};
use crate::{
    config::{hex, unhex},
    engine::{AUTHORITIES_MAX, PublicKey, Variant},
    epoch::{Directory, DirectoryEntry},
    genesis::{Authority, Genesis, GenesisError, check_terms},
};
use commonware_cryptography::bls12381::dkg::feldman_desmedt::Output;
use commonware_utils::ordered::{Map, Set};
use posync_protocol::{
    Account, Amount, Hash,
    block::sha256,
    limits::{Parameters, SEATS_MIN},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;

/// Version of the draft's form.
const FORMAT: u32 = 1;
/// Upper bound on the bytes of a draft.
pub const DRAFT_BYTES_MAX: u64 = 4 << 20;
/// Most accounts that a draft funds.
const ACCOUNTS_MAX: usize = 16_384;

/// Why a draft is refused.
#[derive(Debug, Error)]
pub enum DraftError {
    /// The text has another form.
    #[error("it is no draft: {0}; make one with `posync ceremony draft`")]
    Text(String),
    /// One of its cards is refused.
    #[error("card {0} of the draft: {1}")]
    Card(usize, CardError),
    /// A parameter has no such name or value.
    #[error("the parameters of the draft: {0}")]
    Parameters(String),
    /// The fields contradict each other.
    #[error("the draft contradicts itself: {0}; make a new one with `posync ceremony draft`")]
    Contradiction(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftText {
    draft: u32,
    nonce: String,
    start_ms: u64,
    parameters: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    overrides: BTreeMap<String, String>,
    supply_grains: String,
    accounts: Vec<FundedText>,
    authorities: Vec<CardText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FundedText {
    account: String,
    grains: String,
}

/// The choices from which a draft is made.
#[derive(Clone, Debug)]
pub struct Choices {
    /// Name of a set of parameters: `local` or `production`.
    pub parameters: String,
    /// Parameters that differ from the set, by name.
    pub overrides: BTreeMap<String, String>,
    /// All money that will ever exist.
    pub supply: Amount,
    /// Accounts with their first balances.
    pub accounts: Vec<(Account, Amount)>,
    /// Cards of all authorities.
    pub cards: Vec<Card>,
    /// Start of the network in milliseconds since 1970.
    pub start_ms: u64,
    /// Random bytes that make this attempt another one than every earlier attempt.
    pub nonce: [u8; 16],
}

/// The agreement of the members before there is a network key.
#[derive(Clone, Debug)]
pub struct Draft {
    /// SHA-256 of the draft's bytes.
    pub id: Hash,
    /// Name of the set of parameters.
    pub set: String,
    /// Parameters that differ from the set, by name.
    pub overrides: BTreeMap<String, String>,
    /// The set with these changes.
    pub parameters: Parameters,
    /// Start of the network in milliseconds since 1970.
    pub start_ms: u64,
    /// All money that will ever exist.
    pub supply: Amount,
    /// Accounts with their first balances.
    pub accounts: Vec<(Account, Amount)>,
    /// Cards of the authorities, in the order of their keys.
    pub cards: Vec<Card>,
}

impl Draft {
    /// Writes the text of a draft, and checks it.
    ///
    /// # Errors
    /// [`DraftError`] if the choices do not make a network.
    pub fn compose(choices: Choices) -> Result<String, DraftError> {
        let Choices { parameters, overrides, supply, accounts, cards, start_ms, nonce } = choices;
        let funded = |(account, amount): (Account, Amount)| FundedText {
            account: account.to_string(),
            grains: amount.grains().to_string(),
        };
        let text = DraftText {
            draft: FORMAT,
            nonce: hex(&nonce),
            start_ms,
            parameters,
            overrides,
            supply_grains: supply.grains().to_string(),
            accounts: accounts.into_iter().map(funded).collect(),
            authorities: cards.iter().map(Card::to_text).collect(),
        };
        let text = serde_json::to_string_pretty(&text).expect("a draft is plain data") + "\n";
        Self::from_bytes(text.as_bytes())?;
        Ok(text)
    }

    /// Parses and checks the bytes of a draft.
    ///
    /// # Errors
    /// [`DraftError`] names the part that is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DraftError> {
        if bytes.len() as u64 > DRAFT_BYTES_MAX {
            return Err(DraftError::Text("it has more than 4 MiB".into()));
        }
        let text: DraftText =
            serde_json::from_slice(bytes).map_err(|error| DraftError::Text(error.to_string()))?;
        if text.draft != FORMAT {
            return Err(DraftError::Text(format!(
                "its form is version {}, this program reads {FORMAT}",
                text.draft
            )));
        }
        if unhex(text.nonce.as_bytes()).is_none_or(|nonce| nonce.len() != 16) {
            return Err(DraftError::Text("its nonce is not 32 hex digits".into()));
        }
        let set = overrides::set(&text.parameters).map_err(DraftError::Parameters)?;
        let parameters = overrides::apply(set, &text.overrides).map_err(DraftError::Parameters)?;
        if text.accounts.len() > ACCOUNTS_MAX {
            return Err(DraftError::Contradiction(format!("it funds more than {ACCOUNTS_MAX} accounts")));
        }
        let accounts = text.accounts.iter().map(funded).collect::<Result<Vec<_>, _>>()?;
        let mut cards = Vec::with_capacity(text.authorities.len().min(AUTHORITIES_MAX.get() as usize));
        for (number, card) in (1..).zip(text.authorities).take(AUTHORITIES_MAX.get() as usize + 1) {
            cards.push(Card::from_text(card).map_err(|error| DraftError::Card(number, error))?);
        }
        cards.sort_by(|a, b| a.key.cmp(&b.key));
        let draft = Self {
            id: sha256(bytes),
            set: text.parameters,
            overrides: text.overrides,
            parameters,
            start_ms: text.start_ms,
            supply: grains(&text.supply_grains)?,
            accounts,
            cards,
        };
        draft.check()?;
        Ok(draft)
    }

    fn check(&self) -> Result<(), DraftError> {
        let refuse = |why: &str| Err(DraftError::Contradiction(why.into()));
        if self.cards.len() < SEATS_MIN as usize {
            return refuse("a network needs at least 4 authorities, so that one may fail");
        }
        if self.cards.windows(2).any(|pair| pair[0].key == pair[1].key) {
            return refuse("two cards are of one account");
        }
        if self.cards.iter().any(|card| card.is_private() != self.is_private()) {
            return refuse(
                "some authorities have private addresses and others public ones: they cannot all connect",
            );
        }
        if let Some(why) = self.parameters.contradiction() {
            return refuse(why);
        }
        match check_terms(&self.parameters, self.supply, &self.accounts, &self.authorities()) {
            Some(why) => refuse(why),
            None => Ok(()),
        }
    }

    /// The id as it is compared by voice: sixteen groups of four hex digits.
    pub fn spoken_id(&self) -> String {
        spoken(&self.id)
    }

    /// Returns true if the authorities reach each other within a private network only.
    pub fn is_private(&self) -> bool {
        self.cards.first().is_some_and(Card::is_private)
    }

    /// The keys of all authorities.
    pub(crate) fn participants(&self) -> Set<PublicKey> {
        Set::from_iter_dedup(self.cards.iter().map(|card| card.key.clone()))
    }

    /// Addresses and weights of the authorities.
    pub(crate) fn directory(&self) -> Directory {
        let entries = self.authorities().into_iter().map(|authority| {
            (authority.key, DirectoryEntry { address: authority.address, weight: authority.weight })
        });
        Directory(Map::from_iter_dedup(entries))
    }

    /// Least number of blocks of a ceremony: its second half needs a turn for each dealer.
    pub(crate) fn ceremony_blocks(&self) -> u64 {
        (4 * self.cards.len() as u64).max(40)
    }

    fn authorities(&self) -> Vec<Authority> {
        self.cards.iter().map(Card::authority).collect()
    }

    /// The genesis of this draft with a network key.
    ///
    /// # Errors
    /// [`GenesisError`] if the key is not shared among exactly the draft's authorities.
    pub(crate) fn genesis(&self, output: Output<Variant, PublicKey>) -> Result<Genesis, GenesisError> {
        let genesis = Genesis {
            parameters: self.parameters,
            time_ms: self.start_ms,
            supply: self.supply,
            accounts: self.accounts.clone(),
            authorities: self.authorities(),
            output,
        };
        genesis.check()?;
        Ok(genesis)
    }

    /// Returns true if `genesis` is this draft with a network key.
    pub(crate) fn is_of(&self, genesis: &Genesis) -> bool {
        self.genesis(genesis.output.clone()).is_ok_and(|own| own == *genesis)
    }
}

/// An id as sixteen groups of four hex digits.
pub(super) fn spoken(id: &Hash) -> String {
    let digits = hex(id);
    let groups: Vec<&str> = (0..digits.len() / 4).map(|group| &digits[4 * group..4 * group + 4]).collect();
    groups.join(" ")
}

fn funded(text: &FundedText) -> Result<(Account, Amount), DraftError> {
    let account = text.account.parse().map_err(DraftError::Text)?;
    Ok((account, grains(&text.grains)?))
}

fn grains(text: &str) -> Result<Amount, DraftError> {
    let amount = text.parse().ok().and_then(Amount::new);
    amount.ok_or_else(|| DraftError::Text(format!("\"{text}\" is no number of grains")))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{ceremony::card::parse_address, engine::PrivateKey};
    use commonware_cryptography::Signer as _;
    use std::net::IpAddr;

    pub(crate) fn choices(members: u64) -> Choices {
        let card = |seed: u64| {
            let at = |port: u64| parse_address(&format!("127.0.0.1:{port}")).expect("an address");
            let key = PrivateKey::from_seed(seed);
            let addresses = (at(9_000 + 2 * seed), IpAddr::from([127, 0, 0, 1]), at(9_001 + 2 * seed));
            Card::new(&key, addresses, Account::of(&key.public_key())).expect("a card")
        };
        Choices {
            parameters: "local".into(),
            overrides: BTreeMap::new(),
            supply: Amount::sync(1_000_000),
            accounts: vec![(Account([1; 32]), Amount::sync(5))],
            cards: (0..members).map(card).collect(),
            start_ms: 1_700_000_000_000,
            nonce: [3; 16],
        }
    }

    pub(crate) fn draft(members: u64) -> Draft {
        Draft::from_bytes(Draft::compose(choices(members)).expect("a draft").as_bytes()).expect("a draft")
    }

    #[test]
    fn every_byte_of_a_draft_is_in_its_id_and_a_nonce_makes_another_attempt() {
        let text = Draft::compose(choices(4)).expect("a draft");
        let id = |text: &str| Draft::from_bytes(text.as_bytes()).expect("a draft").id;
        assert_eq!(id(&text), id(&text));
        assert_ne!(id(&text), id(&format!("{text}\n")));
        assert_ne!(id(&text), id(&text.replacen("700000000", "700000001", 1)));
        let other = Draft::compose(Choices { nonce: [4; 16], ..choices(4) }).expect("a draft");
        assert_ne!(id(&text), id(&other));
        let spoken = draft(4).spoken_id();
        assert_eq!((spoken.len(), spoken.split(' ').count()), (79, 16));
    }

    #[test]
    fn a_draft_is_checked_as_a_genesis_is() {
        let of = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        Draft::compose(choices(10)).expect("ten authorities fit a local term");
        Draft::compose(Choices { overrides: of("block_ms", "25"), ..choices(4) }).expect("faster blocks");
        Draft::compose(Choices { parameters: "production".into(), ..choices(4) }).expect("a real network");
        let mut twice = choices(4);
        twice.cards[1] = twice.cards[0].clone();
        let mut taken = choices(4);
        taken.accounts.push(taken.accounts[0]);
        let refused = [
            (choices(3), "at least 4"),
            (choices(11), "4 blocks for each"),
            (twice, "one account"),
            (taken, "funded twice"),
            (Choices { supply: Amount::sync(40_004), ..choices(4) }, "more than the supply"),
            (Choices { parameters: "lokal".into(), ..choices(4) }, "local"),
            (Choices { overrides: of("block_m", "25"), ..choices(4) }, "block_ms"),
            (Choices { overrides: of("block_ms", "soon"), ..choices(4) }, "soon"),
            (Choices { overrides: of("block_ms", "1000"), ..choices(4) }, "more time than a block"),
            (Choices { overrides: of("burn", "0"), ..choices(4) }, "burn"),
            (Choices { overrides: of("certification_timeout_ms", "70000"), ..choices(4) }, "minute"),
        ];
        for (choices, why) in refused {
            let error = Draft::compose(choices).expect_err(why).to_string();
            assert!(error.contains(why), "{error} lacks {why}");
        }
    }

    #[test]
    fn a_card_in_a_draft_cannot_be_changed() {
        let text = Draft::compose(choices(4)).expect("a draft");
        let changed = text.replacen("127.0.0.1:9004", "127.0.0.1:9999", 1);
        let error = Draft::from_bytes(changed.as_bytes()).expect_err("a signature breaks");
        assert!(matches!(error, DraftError::Card(3, CardError::Signature(_))), "{error}");
    }
}
