//! `posync card`: makes the public card of a future authority, for the member that writes the draft.

use crate::{
    failure::{Exit, Failure, Outcome},
    keys,
    output::Output,
    role::KEY_FILE,
    target,
};
use commonware_cryptography::ed25519::PrivateKey;
use posync_node::ceremony::{CARD_FILE, Card as SignedCard, parse_address};
use serde_json::json;
use std::{
    fs::DirBuilder,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// Command-line arguments of `posync card`.
#[derive(Debug, clap::Args)]
pub(crate) struct Card {
    /// Directory of this machine's authority; its key is made there if there is none
    #[arg(long)]
    dir: PathBuf,
    #[command(flatten)]
    places: Places,
}

/// The addresses and the account that a card names.
#[derive(Debug, clap::Args)]
pub(crate) struct Places {
    /// Address at which the other authorities reach this one; a host name is resolved at every dial
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: String,
    /// Address that this machine's connections come from, as the others see it; that of --advertise if not given
    #[arg(long, value_name = "IP")]
    pub(crate) egress: Option<IpAddr>,
    /// Address at which clients reach this authority
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) service: String,
    /// Account that the genesis records for its pay. No rule reads it yet: a seat is paid to its own account
    #[arg(long, value_name = "ACCOUNT")]
    pub(crate) payout: Option<String>,
}

impl Card {
    /// Makes the card and prints it.
    pub(crate) fn run(self, output: Output) -> Outcome {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|error| Failure::file(&self.dir, "make the directory", error))?;
        let path = self.dir.join(KEY_FILE);
        let key = if path.exists() {
            keys::read(&path)?
        } else {
            keys::create(&path, &mut commonware_utils::sys_rng())?
        };
        let card = write(&self.dir, &key, &self.places)?;
        let file = self.dir.join(CARD_FILE);
        let value = json!({ "account": card.account().to_string(), "card": file });
        output.answer(&value, || {
            format!(
                "account  {}\ncard     {}\n\nThe card is public: give it to the member that writes the draft. Keep {} to \
                 yourself.",
                card.account(),
                file.display(),
                path.display()
            )
        })
    }
}

/// Makes the card of `key` and writes it to the member's directory.
pub(crate) fn write(directory: &Path, key: &PrivateKey, places: &Places) -> Outcome<SignedCard> {
    let next = "give addresses that the other machines can reach, such as node.example.org:9000";
    let refuse = |what: String, why: String| Failure::new(Exit::Usage, what, why, next);
    let parse = |name: &str, text: &str| {
        parse_address(text).map_err(|why| refuse(format!("{name} {text} cannot be used"), why))
    };
    let ingress = parse("--advertise", &places.advertise)?;
    let service = parse("--service", &places.service)?;
    let egress = match places.egress.or_else(|| ingress.ip()) {
        Some(egress) => egress,
        None => resolved(&places.advertise)?,
    };
    let payout = match &places.payout {
        Some(text) => {
            text.parse().map_err(|why: String| refuse(format!("--payout {text} is no account"), why))?
        }
        None => keys::account(key),
    };
    let card = SignedCard::new(key, (ingress, egress, service), payout)
        .map_err(|error| refuse("there is no card with these addresses".into(), error.to_string()))?;
    target::replace(&directory.join(CARD_FILE), card.to_json().as_bytes())?;
    Ok(card)
}

/// The one address that a host name stands for now.
fn resolved(advertise: &str) -> Outcome<IpAddr> {
    let next = "name the address that this machine's connections come from: --egress IP, of `posync init` \
                --set egress=IP; or let the name stand for that one address";
    let refuse = |why: String| {
        Failure::new(Exit::Usage, format!("--advertise {advertise} gives no address for --egress"), why, next)
    };
    let mut found: Vec<IpAddr> = advertise
        .to_socket_addrs()
        .map_err(|error| refuse(error.to_string()))?
        .map(|address: SocketAddr| address.ip())
        .collect();
    found.sort_unstable();
    found.dedup();
    match found.as_slice() {
        [one] => Ok(*one),
        many => Err(refuse(format!("the name stands for {} addresses", many.len()))),
    }
}
