//! `posync ceremony`: the members of a future network agree on a draft and make its key together.

use super::send;
use crate::{
    checks::machine::has_room_at,
    devnet::create::SUPPLY,
    failure::{Exit, Failure, Outcome},
    keys,
    net::{
        self,
        file::{NetworkFile, Service},
    },
    network::Role,
    output::{Output, table, visible},
    role::{
        GENESIS_FILE, KEY_FILE,
        settings::{self, Settings},
        start::end_with_the_parent,
    },
    target,
};
use commonware_codec::Encode as _;
use commonware_cryptography::Signer as _;
use posync_client::address::BadAddress;
use posync_node::{
    ceremony::{
        self, Card, CeremonyError, Choices, DRAFT_BYTES_MAX, Draft, Options, named_parameters, show_address,
    },
    genesis::Genesis,
};
use posync_protocol::{Account, Amount};
use rand_core::Rng as _;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Command-line arguments of `posync ceremony`.
#[derive(Debug, clap::Args)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub(crate) struct Ceremony {
    #[command(subcommand)]
    part: Option<Part>,
    /// Directory of this machine's authority, with its node.key
    #[arg(long, required = true)]
    dir: Option<PathBuf>,
    /// The draft, the same file on every machine
    #[arg(required = true, value_name = "DRAFT")]
    file: Option<PathBuf>,
    /// Address to listen on; without it `listen` of config.toml, or the address of the card if there is no config.toml
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// End when standard input closes (given by `devnet`)
    #[arg(long, hide = true)]
    child: bool,
    /// Time after which a machine that has everything ends, although others have not confirmed that they do
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    give_up_after: Duration,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// Write a draft from cards to standard output
    Draft(Compose),
    /// Show a draft: its id, its members, its parameters and its money
    Show {
        /// The draft as a file
        #[arg(value_name = "DRAFT")]
        file: PathBuf,
    },
}

/// Arguments of `posync ceremony draft`.
#[derive(Debug, clap::Args)]
struct Compose {
    /// Cards of all authorities
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    cards: Vec<PathBuf>,
    /// Set of parameters: `local` has a block every 250 ms and epochs of 10 s, `production` a block a second and epochs
    /// of a day
    #[arg(long, value_name = "local|production")]
    parameters: String,
    /// A parameter that differs from the set, with money in grains; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// All money that will ever exist; 1,000,000,000 if not given
    #[arg(long, value_name = "SYNC")]
    supply: Option<String>,
    /// An account with its first balance; may be repeated
    #[arg(long, value_name = "ACCOUNT=SYNC")]
    account: Vec<String>,
    /// First balance of each authority's own account, from which it pays for its reports; none if not given
    #[arg(long, value_name = "SYNC")]
    each_authority: Option<String>,
    /// Start of the network in milliseconds since 1970; now if not given
    #[arg(long, value_name = "MS")]
    start_ms: Option<u64>,
}

/// Parses a time such as `90s`, `10m` or `2h`.
fn time(text: &str) -> Result<Duration, String> {
    let (digits, unit) = text.split_at(text.len() - usize::from(text.ends_with(['s', 'm', 'h'])));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err("give a number with s, m or h, such as 10m".into()),
    };
    let number: u32 = digits.parse().map_err(|_| "give a number with s, m or h, such as 10m")?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

impl Ceremony {
    /// Takes part in a ceremony, or writes or shows its draft.
    pub(crate) fn run(self, output: Output) -> Outcome {
        match self.part {
            Some(Part::Draft(compose)) => compose.run(),
            Some(Part::Show { file }) => shown(&read(&file)?, output),
            None => {
                if self.child {
                    end_with_the_parent();
                }
                let (dir, file) = self.dir.zip(self.file).expect("clap requires both");
                attend(&dir, &read(&file)?, self.listen, self.give_up_after, output)
            }
        }
    }
}

/// Takes part in the ceremony of a draft as the member in `directory`.
pub(crate) fn attend(
    directory: &Path,
    draft: &Draft,
    listen: Option<SocketAddr>,
    give_up_after: Duration,
    output: Output,
) -> Outcome {
    reaches(directory, draft)?;
    if !directory.join(GENESIS_FILE).exists() {
        has_room_at(directory, Role::Authority)?;
    }
    let screen = |line: &str| drop(writeln!(io::stderr(), "{}", visible(line)));
    let listen = match listen {
        Some(listen) => listen,
        None => listens(directory, draft, &screen)?,
    };
    let options = Options::new(listen, give_up_after);
    let genesis = ceremony::run(directory, draft, &options, &screen).map_err(failed)?;
    let file = directory.join(net::file::FILE);
    if !file.exists() {
        target::replace(&file, network_file(&genesis)?.to_toml().as_bytes())?;
    }
    let (chain, key) = (hex::encode(genesis.chain()), hex::encode(genesis.network_key().encode()));
    let value = json!({ "id": hex::encode(draft.id), "chain": chain, "network_key": key, "network": file });
    output.answer(&value, || {
        format!(
            "chain  {chain}\nkey    {key}\n\nThe genesis is signed by all {} authorities. Compare the chain's name with \
             the other members; then start this authority. {} is public: members and users find the network with it.",
            genesis.authorities.len(),
            file.display()
        )
    })
}

/// Checks that this authority will dial the others after the ceremony: at private addresses it does so only with
/// `private = true`.
fn reaches(directory: &Path, draft: &Draft) -> Outcome {
    if !draft.is_private() || Settings::read(directory)?.flag("private")? {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Usage,
        "this authority would never dial the others",
        "the draft's authorities have addresses of a private network, and config.toml does not have private = true",
        format!(
            "set private = true in {}, on each machine of this network",
            directory.join(settings::FILE).display()
        ),
    ))
}

/// The network file of a genesis that names its authorities' services.
fn network_file(genesis: &Genesis) -> Outcome<NetworkFile> {
    let damaged =
        |error| Failure::new(Exit::Failed, "an authority's service has no address", error, "report this");
    let mut nodes = Vec::new();
    for authority in &genesis.authorities {
        let Some(service) = &authority.service else { continue };
        let address =
            show_address(service).parse().map_err(|error: BadAddress| damaged(error.to_string()))?;
        nodes.push(Service { account: Account::of(&authority.key), address, archive: false });
    }
    Ok(NetworkFile::new(genesis, nodes, Vec::new()))
}

/// The address to listen on if none is given: the one of the settings, where `posync start` will listen; `screen`
/// shows it if its port is not the card's. Without settings it is that of the own card, if this machine has it.
fn listens(directory: &Path, draft: &Draft, screen: &dyn Fn(&str)) -> Outcome<SocketAddr> {
    let key = keys::read(&directory.join(KEY_FILE))?;
    let Some(card) = draft.cards.iter().find(|card| card.key == key.public_key()) else {
        return Err(failed(CeremonyError::NoCard(keys::account(&key))));
    };
    let port = card.ingress.port();
    let settings = directory.join(settings::FILE).exists().then(|| Settings::read(directory)).transpose()?;
    if let Some(settings) = settings.filter(|settings| settings.role == Role::Authority) {
        let own = settings.listen("listen")?;
        if own.port() != port {
            screen(&format!("the card names port {port}, which must lead to {own} on this machine"));
        }
        return Ok(own);
    }
    let everywhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
    let own = card.ingress.ip().map(|ip| SocketAddr::new(ip, port));
    Ok(own.filter(|own| TcpListener::bind(own).is_ok()).unwrap_or(everywhere))
}

fn failed(error: CeremonyError) -> Failure {
    const AGAIN: &str = "mend what the reason names, and start the same command again: nothing is lost";
    const ANEW: &str = "all members: make a new draft from the same cards, compare its id, and start again";
    let (exit, next) = match &error {
        CeremonyError::Directory(_)
        | CeremonyError::TooFew(_)
        | CeremonyError::Full { .. }
        | CeremonyError::Listen(..) => (Exit::Local, AGAIN),
        CeremonyError::NoCard(_) => {
            (Exit::Usage, "use the directory of a member of this draft, or a draft with it")
        }
        CeremonyError::Occupied(_) => (Exit::Refused, "a directory holds one network for ever"),
        CeremonyError::Ended(_) => (Exit::Failed, "start the same command again"),
        CeremonyError::Spent
        | CeremonyError::StoreGone
        | CeremonyError::NoKey
        | CeremonyError::Revealed(_)
        | CeremonyError::Misfit(_) => (Exit::Refused, ANEW),
    };
    Failure::new(exit, "the ceremony has ended on this machine without a genesis", error, next)
}

/// Reads and checks a draft.
pub(crate) fn read(path: &Path) -> Outcome<Draft> {
    let mut bytes = Vec::new();
    let opened = File::open(path).and_then(|file| file.take(DRAFT_BYTES_MAX + 1).read_to_end(&mut bytes));
    opened.map_err(|error| Failure::file(path, "read the draft", error))?;
    Draft::from_bytes(&bytes).map_err(|error| {
        let what = format!("{} is no draft that can be used", path.display());
        Failure::new(Exit::Usage, what, error, "get the file again, or make a new draft from the cards")
    })
}

impl Compose {
    fn run(self) -> Outcome {
        let refuse = |what: String, why: &str, next: &str| Failure::new(Exit::Usage, what, why, next);
        let cards = self.cards.iter().map(|path| card(path)).collect::<Outcome<Vec<_>>>()?;
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            (name.to_owned(), value.to_owned())
        };
        let overrides: BTreeMap<String, String> = self.set.iter().map(pair).collect();
        let mut accounts: Vec<(Account, Amount)> = Vec::new();
        for (account, amount) in self.account.iter().map(pair) {
            let parsed = account.parse().map_err(|why: String| {
                refuse(
                    format!("--account {account} names no account"),
                    &why,
                    "write ACCOUNT=SYNC, as sync1...=1000",
                )
            })?;
            accounts.push((parsed, send::parse(&amount)?));
        }
        if let Some(each) = self.each_authority.as_deref().map(send::parse).transpose()? {
            fund_each(&mut accounts, &cards, each)?;
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(since_1970.as_millis()).unwrap_or_default();
        let mut nonce = [0; 16];
        commonware_utils::sys_rng().fill_bytes(&mut nonce);
        let supply = self.supply.as_deref().map_or(Ok(SUPPLY), send::parse)?;
        let (parameters, start_ms) = (self.parameters, self.start_ms.unwrap_or(now_ms));
        let choices = Choices { parameters, overrides, supply, accounts, cards, start_ms, nonce };
        let text = Draft::compose(choices).map_err(|error| {
            let next = "correct the arguments, or the card that the reason names";
            Failure::new(Exit::Usage, "these choices make no network", error, next)
        })?;
        match io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::closed()),
            written => {
                written.map_err(|error| Failure::file(Path::new("standard output"), "write to", error))
            }
        }
    }
}

/// Adds `each` to the first balance of every authority's account, beside what `--account` gives it.
fn fund_each(accounts: &mut Vec<(Account, Amount)>, cards: &[Card], each: Amount) -> Outcome {
    for account in cards.iter().map(Card::account) {
        match accounts.iter_mut().find(|(named, _)| *named == account) {
            None => accounts.push((account, each)),
            Some((_, balance)) => {
                *balance = balance.checked_add(each).ok_or_else(|| {
                    let what = format!("{account} gets more money than there can be");
                    Failure::new(Exit::Usage, what, "--account and --each-authority are added", "give less")
                })?;
            }
        }
    }
    Ok(())
}

fn card(path: &Path) -> Outcome<Card> {
    let bytes = fs::read(path).map_err(|error| Failure::file(path, "read the card", error))?;
    Card::from_bytes(&bytes).map_err(|error| {
        let what = format!("{} is no card that can be used", path.display());
        Failure::new(Exit::Usage, what, error, "ask its member for the file again")
    })
}

fn shown(draft: &Draft, output: Output) -> Outcome {
    let member = |card: &Card| {
        json!({ "account": card.account().to_string(), "ingress": show_address(&card.ingress),
            "egress": card.egress.to_string(), "service": show_address(&card.service),
            "payout": card.payout.to_string() })
    };
    let parameters: BTreeMap<&str, String> = named_parameters(&draft.parameters)
        .into_iter()
        .map(|(name, value)| (name, value.to_string()))
        .collect();
    let funded =
        |(account, amount): &(Account, Amount)| json!({ "account": account.to_string(), "balance": amount });
    let value = json!({
        "id": hex::encode(draft.id),
        "set": draft.set,
        "overrides": draft.overrides,
        "parameters": parameters,
        "start_ms": draft.start_ms,
        "supply": draft.supply,
        "accounts": draft.accounts.iter().map(funded).collect::<Vec<_>>(),
        "authorities": draft.cards.iter().map(member).collect::<Vec<_>>(),
    });
    output.answer(&value, || text(draft))
}

fn text(draft: &Draft) -> String {
    let row = |card: &Card| {
        let (account, payout) = (card.account().to_string(), card.payout.to_string());
        vec![
            account,
            show_address(&card.ingress),
            card.egress.to_string(),
            show_address(&card.service),
            payout,
        ]
    };
    let rows: Vec<Vec<String>> = draft.cards.iter().map(row).collect();
    let members = table(&["account", "dialled at", "dials from", "service", "payout (unused)"], &rows);
    let balances: Vec<Vec<String>> = draft
        .accounts
        .iter()
        .map(|(account, amount)| vec![account.to_string(), amount.to_string()])
        .collect();
    let balances = table(&["account", "SYNC"], &balances);
    let changed = |name: &str| if draft.overrides.contains_key(name) { "  (changed)" } else { "" };
    let parameters: Vec<String> = named_parameters(&draft.parameters)
        .into_iter()
        .map(|(name, value)| format!("  {name} {value}{}", changed(name)))
        .collect();
    format!(
        "id      {}\nset     {}\nstart   {} ms since 1970\nsupply  {} SYNC\n\n{} authorities\n{members}\n\n{} accounts with \
         money\n{balances}\n\nparameters (money in grains)\n{}",
        draft.spoken_id(),
        draft.set,
        draft.start_ms,
        draft.supply,
        draft.cards.len(),
        draft.accounts.len(),
        parameters.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        for (text, seconds) in
            [("90s", Some(90)), ("10m", Some(600)), ("2h", Some(7_200)), ("10", None), ("m", None)]
        {
            assert_eq!(time(text).ok().map(|time| time.as_secs()), seconds, "{text}");
        }
        assert!(time("").is_err() && time("-1m").is_err() && time("1ü").is_err());
    }
}
