//! A card: the public data that a future authority gives to the others before there is a chain.
//!
//! It is a small text file (JSON) with the account, the addresses and the payout account of one member, signed
//! by the account's key. Nothing in it is secret; the member that writes the draft cannot change a card.

use crate::{
    config::{hex, unhex},
    engine::{PrivateKey, PublicKey},
    genesis::Authority,
};
use commonware_codec::{Copying, DecodeExt as _, Encode as _, Write as _};
use commonware_cryptography::{Signer as _, Verifier as _, ed25519};
use commonware_p2p::{Address, Ingress};
use commonware_utils::{Hostname, IpAddrExt};
use posync_protocol::{Account, Signature};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use thiserror::Error;

/// Name of a member's own card in its directory.
pub const CARD_FILE: &str = "card.json";
/// Longest host name in an address; a record of the ledger has room for it.
const HOST_BYTES_MAX: usize = 100;
/// Separates these signatures from all others of the same key.
const NAMESPACE: &[u8] = b"posync/card/1";

/// Why a card is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CardError {
    /// The text has another form.
    #[error("it is no card: {0}; ask its member for the file that `posync card` wrote")]
    Text(String),
    /// A field holds no such value.
    #[error("its {field} \"{text}\" cannot be used: {reason}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Text of the field.
        text: String,
        /// Explanation for the operator.
        reason: String,
    },
    /// The signature is not of the account that the card names.
    #[error(
        "the card of {0} was changed or signed by another key: ask its member for the file that `posync card` wrote"
    )]
    Signature(Account),
}

/// The public data of a future authority, signed by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Key that will sign headers; its account holds the seat.
    pub key: PublicKey,
    /// Address that the other authorities dial.
    pub ingress: Ingress,
    /// Address that this authority's connections come from; the others accept no other.
    pub egress: IpAddr,
    /// Address at which clients reach the node service.
    pub service: Ingress,
    /// Account that the member names for its pay.
    pub payout: Account,
    /// Signature of `key` over the other fields.
    pub signature: Signature,
}

/// A card as its file holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CardText {
    account: String,
    ingress: String,
    egress: String,
    service: String,
    payout: String,
    signature: String,
}

impl Card {
    /// Makes and signs the card of `key`.
    ///
    /// # Errors
    /// [`CardError::Field`] if an address or a payout account cannot be used.
    pub fn new(
        key: &PrivateKey,
        (ingress, egress, service): (Ingress, IpAddr, Ingress),
        payout: Account,
    ) -> Result<Self, CardError> {
        let mut card = Self { key: key.public_key(), ingress, egress, service, payout, signature: [0; 64] };
        card.check_addresses()?;
        let signature = key.sign(NAMESPACE, &card.signed());
        card.signature.copy_from_slice(&signature.encode());
        Ok(card)
    }

    /// Parses and checks the text of a card.
    ///
    /// # Errors
    /// [`CardError`]: another form, an address that cannot be used, or a wrong signature.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CardError> {
        let text: CardText =
            serde_json::from_slice(bytes).map_err(|error| CardError::Text(error.to_string()))?;
        Self::from_text(text)
    }

    pub(super) fn from_text(text: CardText) -> Result<Self, CardError> {
        let account = account("account", &text.account)?;
        let key = account
            .public_key()
            .ok_or_else(|| field("account", &text.account, "it is not the account of a key"))?;
        let egress = text
            .egress
            .parse()
            .map_err(|_| field("egress", &text.egress, "give an IP address, without port"))?;
        let signature = unhex(text.signature.as_bytes()).and_then(|bytes| bytes.try_into().ok());
        let card = Self {
            key,
            ingress: ingress("ingress", &text.ingress)?,
            egress,
            service: ingress("service", &text.service)?,
            payout: self::account("payout", &text.payout)?,
            signature: signature.ok_or(CardError::Signature(account))?,
        };
        card.check_addresses()?;
        if !card.is_signed() {
            return Err(CardError::Signature(account));
        }
        Ok(card)
    }

    pub(super) fn to_text(&self) -> CardText {
        CardText {
            account: self.account().to_string(),
            ingress: show(&self.ingress),
            egress: self.egress.to_string(),
            service: show(&self.service),
            payout: self.payout.to_string(),
            signature: hex(&self.signature),
        }
    }

    /// The text of the card's file.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(&self.to_text()).expect("a card is plain data") + "\n"
    }

    /// The account that will hold the seat.
    pub fn account(&self) -> Account {
        Account::of(&self.key)
    }

    /// Returns true if this authority is reached within a private network only.
    pub fn is_private(&self) -> bool {
        let outside = |ip: &IpAddr| IpAddrExt::is_global(ip);
        !outside(&self.egress) || self.ingress.ip().is_some_and(|ip| !outside(&ip))
    }

    /// The seat of the first terms that this card asks for.
    pub(super) fn authority(&self) -> Authority {
        let address = match &self.ingress {
            Ingress::Socket(address) if address.ip() == self.egress => Address::Symmetric(*address),
            ingress => Address::Asymmetric {
                ingress: ingress.clone(),
                egress: SocketAddr::new(self.egress, ingress.port()),
            },
        };
        Authority {
            key: self.key.clone(),
            address,
            service: Some(self.service.clone()),
            payout: self.payout,
            weight: 1,
        }
    }

    fn signed(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.key.write(&mut bytes);
        self.ingress.write(&mut bytes);
        SocketAddr::new(self.egress, 0).write(&mut bytes);
        self.service.write(&mut bytes);
        self.payout.write(&mut bytes);
        bytes
    }

    fn is_signed(&self) -> bool {
        ed25519::Signature::decode(Copying(&self.signature))
            .is_ok_and(|signature| self.key.verify(NAMESPACE, &self.signed(), &signature))
    }

    fn check_addresses(&self) -> Result<(), CardError> {
        for (name, address) in [("ingress", &self.ingress), ("service", &self.service)] {
            usable(address).map_err(|reason| field(name, &show(address), reason))?;
        }
        if self.egress.is_unspecified() || self.egress.is_multicast() {
            let reason = "name the address from which the others see this machine's connections";
            return Err(field("egress", &self.egress.to_string(), reason));
        }
        Ok(())
    }
}

fn field(field: &'static str, text: &str, reason: impl Into<String>) -> CardError {
    CardError::Field { field, text: text.chars().take(120).collect(), reason: reason.into() }
}

fn account(name: &'static str, text: &str) -> Result<Account, CardError> {
    text.parse().map_err(|reason: String| field(name, text, reason))
}

fn ingress(name: &'static str, text: &str) -> Result<Ingress, CardError> {
    parse_address(text).map_err(|reason| field(name, text, reason))
}

/// Parses `IP:PORT` or `HOST:PORT`, an address at which others reach a member.
///
/// # Errors
/// An explanation for the operator.
pub fn parse_address(text: &str) -> Result<Ingress, String> {
    const FORM: &str = "give HOST:PORT or IP:PORT, such as node.example.org:9000 or 192.0.2.7:9000";
    let address = if let Ok(address) = text.parse::<SocketAddr>() {
        Ingress::Socket(address)
    } else {
        let (host, port) = text.rsplit_once(':').ok_or(FORM)?;
        let has_letter = |label: &str| label.bytes().any(|byte| byte.is_ascii_alphabetic());
        if host.len() > HOST_BYTES_MAX || !host.rsplit('.').next().is_some_and(has_letter) {
            return Err(FORM.into());
        }
        let host = Hostname::new(host).map_err(|error| format!("{error}; {FORM}"))?;
        Ingress::Dns { host, port: port.parse().map_err(|_| FORM)? }
    };
    usable(&address)?;
    Ok(address)
}

fn usable(address: &Ingress) -> Result<(), String> {
    if address.port() == 0 {
        return Err("port 0 is no port that others can dial".into());
    }
    if address.ip().is_some_and(|ip| ip.is_unspecified() || ip.is_multicast()) {
        return Err("it is an address to listen on, not one that others can dial".into());
    }
    Ok(())
}

/// Shows an address as [`parse_address`] reads it.
pub fn show(address: &Ingress) -> String {
    match address {
        Ingress::Socket(address) => address.to_string(),
        Ingress::Dns { host, port } => format!("{}:{port}", host.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(seed: u64) -> Card {
        let addresses = (
            parse_address("node.example.org:9000").expect("an address"),
            IpAddr::from([192, 0, 2, 7]),
            parse_address("[2001:db8::1]:9001").expect("an address"),
        );
        Card::new(&PrivateKey::from_seed(seed), addresses, Account([7; 32])).expect("a card")
    }

    #[test]
    fn a_card_survives_its_text_and_every_change_of_it_is_found() {
        let card = card(1);
        let text = card.to_json();
        assert_eq!(Card::from_bytes(text.as_bytes()), Ok(card.clone()));
        for (from, to) in [
            ("node.example.org:9000", "node.example.net:9000"),
            ("\"192.0.2.7\"", "\"192.0.2.8\""),
            ("[2001:db8::1]:9001", "[2001:db8::1]:9002"),
            (&card.payout.to_string(), &Account([8; 32]).to_string()),
            (&card.account().to_string(), &self::card(2).account().to_string()),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text);
            let refused = Card::from_bytes(changed.as_bytes());
            assert!(matches!(refused, Err(CardError::Signature(_))), "{to}: {refused:?}");
        }
        let more = text.replacen('{', "{\"weight\": 9,", 1);
        assert!(matches!(Card::from_bytes(more.as_bytes()), Err(CardError::Text(_))));
    }

    #[test]
    fn a_seat_is_accepted_from_the_address_that_its_connections_come_from() {
        let came_from = IpAddr::from([192, 0, 2, 7]);
        for (ingress, is_equal) in
            [("192.0.2.7:9000", true), ("10.0.0.1:9000", false), ("node.example.org:9000", false)]
        {
            let addresses = (
                parse_address(ingress).expect("an address"),
                came_from,
                parse_address("192.0.2.7:9001").expect("an address"),
            );
            let card = Card::new(&PrivateKey::from_seed(1), addresses, Account([7; 32])).expect("a card");
            match card.authority().address {
                Address::Symmetric(address) => assert!(is_equal && address.ip() == came_from, "{ingress}"),
                Address::Asymmetric { ingress: dialled, egress } => {
                    assert!(!is_equal && egress.ip() == came_from, "{ingress}");
                    assert_eq!(dialled, parse_address(ingress).expect("an address"));
                }
            }
        }
    }

    #[test]
    fn an_address_that_nobody_can_dial_stands_on_no_card() {
        for (text, is_fine) in [
            ("node.example.org:9000", true),
            ("10.0.0.1:9000", true),
            ("0.0.0.0:9000", false),
            ("[::]:9000", false),
            ("10.0.0.1:0", false),
            ("10.0.0.256:9000", false),
            ("224.0.0.1:9000", false),
            ("node.example.org", false),
            ("node.example.org:99999", false),
            ("-node:9000", false),
            ("", false),
        ] {
            assert_eq!(parse_address(text).is_ok(), is_fine, "{text}");
        }
        let long = format!("{}.org:9000", "a".repeat(60) + "." + &"b".repeat(60));
        assert!(parse_address(&long).is_err());
    }
}
