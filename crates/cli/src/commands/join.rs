//! `posync join`: from nothing to a provider or gateway that serves, with one command.
//!
//! ```text
//!   directory (as `init`) ─► checks ─► account and sum ─► money arrives ─► checks ─► the role (as `start`)
//!        └── whatever is there already is used: the command may be killed and repeated at any point
//! ```
//!
//! A role that was started once is started again whatever the checks say: it may hold other people's data.

use crate::{
    checks::{self, Check, State, machine::has_room},
    descriptors,
    failure::{Exit, Failure, Outcome},
    keys,
    ledger::Ledger,
    log,
    net::{self, Access, Net, file},
    network::Role,
    output::Output,
    role::{
        KEY_FILE,
        init::{apply, back_up, is_new_volume, never, private},
        settings::{Settings, change, listed},
        start::{Start, end_on_signals, provider_config, writable},
    },
    session, target,
};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::tokio::Context;
use posync_alert::Alerts;
use posync_client::account::{paying, sign_paying};
use posync_gateway::Policy;
use posync_protocol::{
    Account, Amount, Body, Class, PerClass, Units,
    agreement::{locked, terms},
    books::{Pair, pair},
    ledger::base_fee,
    operation::Open,
    provider::bond_needed,
    record::{AccountState, Endpoint, Market, Offer, Provider, System},
};
use posync_provider::alerts::Reporter;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Time between two looks at the ledger.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Time between two lines while nothing changes.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// Multiple of today's fee that an operation offers, as every operation of this program does.
const FEE_MARGIN: u128 = 4;
/// Later operations whose fees are part of the sum: until its pay, a role has no other money.
const OPERATIONS: u128 = 32;

/// Prices may rise by one part in this many before the first agreements are opened.
const PRICE_SLACK: u64 = 4;

/// Command-line arguments of `posync join`.
#[derive(Debug, clap::Args)]
pub(crate) struct Join {
    /// The role to take
    #[arg(value_enum)]
    role: Joining,
    /// The role's directory; made if it does not exist, used as it is if it does
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// A setting of its config.toml, such as advertise=storage.example.org:4100; may be repeated (--help lists them)
    #[arg(long = "set", value_name = "KEY=VALUE", long_help = listed(&[Role::Provider, Role::Gateway]))]
    set: Vec<String>,
    /// Most seconds to wait for the money; no limit if not given
    #[arg(long, value_name = "SECONDS")]
    patience: Option<u64>,
}

/// Roles that a stranger may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Joining {
    /// Stores other people's data.
    Provider,
    /// Stores the files of its users at providers.
    Gateway,
}

/// One line of progress.
fn say(output: Output, step: &str, mut value: Value, text: &str) -> Outcome {
    value["step"] = step.into();
    output.answer(&value, || format!("{step:<10} {text}"))
}

impl Join {
    /// Joins and runs the role; returns only when it fails.
    pub(crate) fn run(self, access: Option<&Access>, output: Output) -> Outcome {
        let settings = self.directory(access)?;
        let key = settings.key()?;
        let is_apart = log::member(&self.dir, settings.text("log")? == "file");
        let net = net::of_role(&settings)?;
        let joined = self.joined(&settings, &net, &key, output);
        if let Err(failure) = &joined
            && is_apart
        {
            tracing::error!("{}", failure.in_one_line());
        }
        joined
    }

    fn joined(&self, settings: &Settings, net: &Net, key: &PrivateKey, output: Output) -> Outcome {
        descriptors::ensure("a command", descriptors::COMMAND)?;
        let account = keys::account(key);
        let value = json!({ "role": settings.role, "directory": self.dir, "account": account.to_string() });
        let at = self.dir.display();
        say(output, "account", value, &format!("{account}, a {} in {at}", settings.role))?;
        if ran(&self.dir) {
            end_on_signals()?;
            say(output, "again", json!({}), "the role was started here before, and goes on")?;
        } else {
            session::run(async |context| self.prepare(&context, settings, net, key, output).await)?;
            end_on_signals()?;
        }
        say(output, "start", json!({}), "the role starts")?;
        follow(settings.role, net.clone(), account, output);
        Start::of(self.dir.clone()).run(settings)
    }

    /// Makes what is missing in the directory; the key comes last, as with `init`.
    fn directory(&self, access: Option<&Access>) -> Outcome<Settings> {
        let role = match self.role {
            Joining::Provider => Role::Provider,
            Joining::Gateway => Role::Gateway,
        };
        let mut settings = Settings::new(role, &self.dir);
        let is_new = !settings.path().exists();
        if !is_new {
            settings = Settings::read(&self.dir)?;
            if settings.role != role {
                let what = format!("{} is the directory of a {}", self.dir.display(), settings.role);
                let next = "name another directory with --dir";
                return Err(Failure::new(Exit::Refused, what, format!("it cannot become a {role}"), next));
            }
        }
        apply(&mut settings, &self.set)?;
        if role == Role::Gateway && settings.account("owner")?.is_none() {
            let next =
                "add --set owner=sync1..., the account that `posync key show FILE` prints for your own key";
            let why = "it serves its owner and the accounts that it lists";
            return Err(Failure::new(Exit::Usage, "the gateway has no owner", why, next));
        }
        for needed in ["operator", "region"].iter().filter(|_| role == Role::Provider) {
            if settings.text(needed)?.is_empty() {
                let next = format!("add --set {needed}=NAME");
                let why = "gateways spread the shards of a file by it";
                return Err(Failure::new(Exit::Usage, format!("the provider has no {needed}"), why, next));
            }
        }
        private(&self.dir)?;
        writable(&self.dir)?;
        if is_new {
            has_room(&settings)?;
        }
        self.network_file(access)?;
        let path = self.dir.join(KEY_FILE);
        if !path.exists() {
            // A directory with settings had a key before it had them.
            let storage = self.dir.join("storage");
            if !is_new || ran(&self.dir) || storage.exists() && !is_new_volume(&storage) {
                let why = format!("there is no {}, and a new key would be another member", path.display());
                let next = "restore node.key from its copy, or join with a new directory";
                return Err(Failure::new(Exit::Refused, "this directory has lost its key", why, next));
            }
            keys::create(&path, &mut commonware_utils::sys_rng())?;
        }
        if is_new {
            settings.write()?;
        } else if !self.set.is_empty() {
            // The operator's own comments stay.
            let pairs = self.set.iter().filter_map(|pair| pair.split_once('='));
            let pairs: Vec<(&str, &str)> = pairs.map(|(key, value)| (key.trim(), value.trim())).collect();
            change(&self.dir, &pairs)?;
        }
        Ok(settings)
    }

    /// Keeps the network file that `--net` names; without it, the directory has one already.
    fn network_file(&self, access: Option<&Access>) -> Outcome {
        let path = self.dir.join(file::FILE);
        let Some(access) = access else {
            if path.exists() {
                return Ok(());
            }
            let next =
                "name a network file or its posync1... line with --net; an operator of the network has it";
            return Err(Failure::new(Exit::Usage, "no network is named", "--net was not given", next));
        };
        let net = Net::open(access)?;
        if path.exists() && net::read(&path)?.chain != net.file.chain {
            let why = format!("{} names another chain than --net", path.display());
            let next = "join another network with another directory";
            return Err(Failure::new(Exit::Refused, "this directory belongs to another network", why, next));
        }
        if path.exists() { Ok(()) } else { target::replace(&path, net.file.to_toml().as_bytes()) }
    }

    /// Everything before the first start: checks, the money, and the checks again if it took time.
    async fn prepare(
        &self,
        context: &Context,
        settings: &Settings,
        net: &Net,
        key: &PrivateKey,
        output: Output,
    ) -> Outcome {
        let role = settings.role;
        let keep = json!({ "back_up": back_up(role), "never_restore": never(role) });
        say(
            output,
            "back up",
            keep,
            &format!("{}\n           never restore {}", back_up(role), never(role)),
        )?;
        gate(context, settings, output).await?;
        if self.money(context, settings, net, key, output).await? {
            gate(context, settings, output).await?;
        }
        Ok(())
    }

    /// Waits until the account has what the role needs; true if it had to wait.
    async fn money(
        &self,
        context: &Context,
        settings: &Settings,
        net: &Net,
        key: &PrivateKey,
        output: Output,
    ) -> Outcome<bool> {
        let (account, began) = (keys::account(key), Instant::now());
        let (mut said, mut last): (Option<(String, Instant)>, Option<Ledger>) = (None, None);
        let mut named: Option<Amount> = None;
        loop {
            let looked = match last.take() {
                Some(ledger) => Ok(ledger),
                None => Ledger::connect(context, net, key).await,
            };
            let seen = match looked {
                Ok(ledger) => {
                    let seen = look(&ledger, settings, net, key).await;
                    last = Some(ledger);
                    seen
                }
                Err(failure) => Err(failure),
            };
            let (value, text) = match seen {
                Ok(seen) => {
                    if named.is_none() {
                        seen.sum.say(&account, output)?;
                    }
                    // Prices move while money is on its way: the sum that was named stays enough.
                    let asked = *named.get_or_insert(seen.sum.total());
                    if seen.has_begun || seen.balance >= asked.min(seen.sum.total()) {
                        let value = json!({ "balance": seen.balance });
                        say(output, "money", value, &format!("{} SYNC are there", seen.balance))?;
                        return Ok(said.is_some());
                    }
                    let left = asked.checked_sub(seen.balance).unwrap_or(Amount::ZERO);
                    let value = json!({ "balance": seen.balance, "missing": left });
                    (value, format!("waiting for {left} SYNC more, {} are there", seen.balance))
                }
                // What the network cannot answer now it may answer later.
                Err(failure)
                    if [Exit::Unreachable, Exit::NotFound, Exit::TimedOut].contains(&failure.exit) =>
                {
                    last = None;
                    let why = failure.in_one_line();
                    (json!({ "problem": why }), format!("waiting for the network: {why}"))
                }
                Err(failure) => return Err(failure),
            };
            if said.as_ref().is_none_or(|(line, at)| *line != text || at.elapsed() >= SAY_EVERY) {
                say(output, "money", value, &text)?;
                said = Some((text.clone(), Instant::now()));
            }
            if let Some(patience) = self.patience.filter(|seconds| began.elapsed().as_secs() >= *seconds) {
                let next =
                    format!("send the sum to {account}, and repeat the command: it goes on where it was");
                return Err(Failure::timed_out("the money to join", patience, text, next));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// True if the role was started in this directory: it may have registered and hold data.
fn ran(directory: &Path) -> bool {
    ["provider.lock", "gateway.lock"].iter().any(|name| directory.join(name).exists())
}

/// Makes the checks and prints them, one line each.
///
/// # Errors
/// [`Failure`] if one failed: nothing is announced then.
async fn gate(context: &Context, settings: &Settings, output: Output) -> Outcome {
    let checks = checks::all(context, &settings.directory).await;
    for check in &checks {
        say(output, "check", json!({ "check": check }), &check.to_text())?;
    }
    let failed: Vec<&Check> = checks.iter().filter(|check| check.state == State::Fail).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let why = failed.iter().map(|check| format!("{}: {}", check.name, check.what)).collect::<Vec<_>>();
    let next = format!(
        "{}\nthen repeat the command; `posync doctor --dir {}` makes the checks alone",
        failed.iter().map(|check| check.next.as_str()).collect::<Vec<_>>().join("\n"),
        settings.directory.display()
    );
    let what = "this machine cannot join yet; nothing was announced or paid";
    Err(Failure::new(Exit::Failed, what, why.join("\n"), next))
}

/// The money that a role needs to begin, by its parts.
struct Sum(Vec<(&'static str, Amount)>);

impl Sum {
    fn total(&self) -> Amount {
        let add = |sum: Amount, (_, part): &(_, Amount)| sum.checked_add(*part).unwrap_or(Amount::MAX);
        self.0.iter().fold(Amount::ZERO, add)
    }

    fn say(&self, account: &Account, output: Output) -> Outcome {
        let parts: Vec<Value> =
            self.0.iter().map(|(name, part)| json!({ "for": name, "amount": *part })).collect();
        let total = self.total();
        let value = json!({ "account": account.to_string(), "sum": total, "parts": parts });
        let lines = self.0.iter().map(|(name, part)| format!("\n{:11}{part} SYNC {name}", ""));
        let text = format!("send {total} SYNC to {account}:{}", lines.collect::<String>());
        say(output, "sum", value, &text)
    }
}

/// The state of the account, and what it needs.
struct Seen {
    balance: Amount,
    /// True if the role has begun on the ledger already, and needs no sum to begin.
    has_begun: bool,
    sum: Sum,
}

async fn look(ledger: &Ledger, settings: &Settings, net: &Net, key: &PrivateKey) -> Outcome<Seen> {
    let account = keys::account(key);
    let (height, state) = ledger.read_at::<AccountState>(AccountState::key(&account)).await?;
    let state = state.unwrap_or_default();
    let system: System = ledger.read(System::key()).await?.unwrap_or_default();
    let offered = Offered { ledger, net, key, height, base_fee: base_fee(&system, ledger.parameters()) };
    let (has_begun, sum) = if settings.role == Role::Provider {
        let own: Option<Provider> = ledger.read(Provider::key(&account)).await?;
        (own.is_some(), offered.provider(settings)?)
    } else {
        (state.nonce > 0 && ran(&settings.directory), offered.gateway().await?)
    };
    Ok(Seen { balance: state.balance, has_begun, sum })
}

/// Computes sums with the ledger's own functions.
struct Offered<'a> {
    ledger: &'a Ledger,
    net: &'a Net,
    key: &'a PrivateKey,
    height: u64,
    base_fee: u64,
}

impl Offered<'_> {
    /// The most that an operation offers as its fee: a submitter draws up to a sixteenth more at random.
    fn fee(&self, body: &Body) -> Amount {
        let context = paying(self.net.file.chain, *self.ledger.parameters(), self.height);
        let signed = sign_paying(self.key, &context, self.base_fee, FEE_MARGIN, 0, u64::MAX, body);
        let most = signed.max_fee.grains();
        Amount::new(most.saturating_add(most / 16)).unwrap_or(Amount::MAX)
    }

    fn provider(&self, settings: &Settings) -> Outcome<Sum> {
        let parameters = *self.ledger.parameters();
        let report = Reporter::new(Alerts::default(), None);
        let config = provider_config(settings, self.net, self.key.clone(), parameters, report)?;
        let registration = config.registration(settings.listen("listen")?).map_err(|error| {
            let next = format!("change the setting in {}", settings.path().display());
            Failure::new(Exit::Usage, "the provider cannot be registered as it is set", error, next)
        })?;
        let (bond, needed) =
            (registration.bond, bond_needed(registration.capacity[Class::Storage], &parameters));
        if bond < needed {
            let what = format!("a bond of {bond} SYNC is too small for the capacity");
            let next = "set `bond` to 0, which is as much as needed, or offer less capacity";
            return Err(Failure::new(Exit::Usage, what, format!("{needed} SYNC are needed"), next));
        }
        let fee = self.fee(&Body::RegisterProvider(registration));
        Ok(Sum(vec![
            ("bond for the capacity; it returns after `posync leave`", bond),
            ("burned by the registration", parameters.registration_burn),
            ("fees of the registration and of what follows until the first pay", times(fee, OPERATIONS + 1)),
        ]))
    }

    async fn gateway(&self) -> Outcome<Sum> {
        let parameters = *self.ledger.parameters();
        let keys = Class::ALL.map(Market::key).to_vec();
        let found = self.ledger.read_all::<Market>(keys).await?;
        let mut prices = PerClass::all(Pair { price: 0, slow: 0 });
        for (class, market) in Class::ALL.into_iter().zip(found) {
            let posted = pair(market, class, &parameters);
            let [price, slow] = [posted.price, posted.slow].map(|now| now.saturating_add(now / PRICE_SLACK));
            prices[class] = Pair { price, slow };
        }
        let policy = Policy::of(&parameters);
        let price = prices[Class::Egress].price;
        let open = Open {
            provider: Account::default(),
            slot: 0,
            session_key: Account::default(),
            storage_key: Account::default(),
            price_max: PerClass::all(u64::MAX),
            quota: PerClass::new(policy.first.leaves, policy.first.egress, 0),
            rate: Units::egress(policy.rate_egress),
            end_epoch: parameters.epoch(self.height).saturating_add(policy.epochs),
            voucher_reserve: policy.reserve(price.saturating_add(price / 8), policy.first.egress),
            storage_reserve_max: Amount::ZERO,
        };
        let agreement = terms(&Account::default(), &open, prices, self.height);
        let locks = locked(&agreement, &Provider::default(), &parameters);
        let count = policy.providers as u128;
        Ok(Sum(vec![
            ("deposits of the first agreements; they return with their ends", times(locks.deposit, count)),
            ("storage of the first agreements, paid as it is proved", times(locks.storage, count)),
            ("egress of the first agreements, paid as it is used", times(open.voucher_reserve, count)),
            (
                "fees of the openings and of what follows",
                times(self.fee(&Body::Open(open)), count + OPERATIONS),
            ),
        ]))
    }
}

fn times(amount: Amount, count: u128) -> Amount {
    amount.grains().checked_mul(count).and_then(Amount::new).unwrap_or(Amount::MAX)
}

/// Prints, beside the role, the steps that it takes on the ledger. It only looks: its end is no end of the role.
fn follow(role: Role, net: Net, account: Account, output: Output) {
    thread::spawn(move || {
        let followed = session::until_done(async |context| match role {
            Role::Provider => registered(&context, &net, &account, output).await,
            _ => Ok(()),
        });
        if let Err(failure) = followed {
            tracing::warn!("the steps of the role cannot be shown: {}", failure.in_one_line());
        }
    });
}

async fn registered(context: &Context, net: &Net, account: &Account, output: Output) -> Outcome {
    let key = net.any_key()?;
    loop {
        let seen = async {
            let ledger = Ledger::connect(context, net, &key).await?;
            let provider: Option<Provider> = ledger.read(Provider::key(account)).await?;
            let offer: Option<Offer> = ledger.read(Offer::key(account)).await?;
            let address: Option<Endpoint> = ledger.read(Endpoint::key(account)).await?;
            Ok::<_, Failure>(provider.zip(offer).zip(address))
        };
        if let Ok(Some(((provider, offer), endpoint))) = seen.await {
            let address =
                endpoint.addresses.first().map(|address| String::from_utf8_lossy(address).into_owned());
            let (address, born) = (address.unwrap_or_default(), provider.born);
            let value = json!({ "block": born, "address": address, "capacity_leaves": offer.capacity[Class::Storage],
                "bond": provider.bond });
            let text = format!(
                "in block {born}: {} KiB on offer at {address}, bond {} SYNC",
                offer.capacity[Class::Storage],
                provider.bond
            );
            return say(output, "registered", value, &text);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
