//! The commands' view of the ledger. Everything except the tip's height and events is believed only
//! with a proof that leads to the network key of `devnet.json`.

use crate::{
    failure::{Exit, Failure, Outcome},
    keys,
    network::{Network, Role, USER_KEY},
    wait::{Look, until},
};
use commonware_codec::Encode as _;
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::{Supervisor as _, tokio::Context};
use posync_client::{
    light::{self, Light, SYNC_PROOF_BYTES_MAX, Subject, SyncProof},
    rpc::{self, Call, Client},
};
use posync_protocol::{
    Amount, Body, Bounded, Code, Hash, Key, Operation, Record,
    block::{BlockBody, Header, Receipts},
    ledger::Event,
    limits::{Parameters, READ_KEYS_MAX},
    record::{AccountState, System},
    wire::node::{Answer, Ask, Certified, Nothing, Read, Unavailable},
};
use std::{cell::Cell, path::Path, time::Duration};

/// Most that a command pays for one operation: far above a transfer's fee.
const FEE_MAX: Amount = Amount::sync(1);
/// Blocks for which a command's operation may wait.
const EXPIRES_AFTER: u64 = 100;
/// How long a command waits for its operation to be final.
const FINAL_WITHIN: Duration = Duration::from_secs(30);
/// How long a read may find the state moving, or a proof too long.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// A finalized block with what came of it.
#[derive(Debug)]
pub(crate) struct Block {
    /// Certified.
    pub(crate) header: Header,
    /// Committed to by the header.
    pub(crate) body: BlockBody,
    /// Committed to by the header.
    pub(crate) receipts: Receipts,
    /// The node's word.
    pub(crate) events: Vec<Event>,
}

/// Where an operation of ours ended.
#[derive(Debug)]
pub(crate) struct Receipt {
    /// Its id.
    pub(crate) operation: Hash,
    /// The block that holds it.
    pub(crate) height: u64,
}

/// A verified connection to one node.
pub(crate) struct Ledger {
    client: Client<rpc::Node>,
    light: Light,
    parameters: Parameters,
    tip: Cell<u64>,
}

impl Ledger {
    /// Connects to the network in `directory`, as its user.
    pub(crate) async fn open(context: &Context, directory: &Path) -> Outcome<Self> {
        let network = Network::read(directory)?;
        let key = keys::read(&directory.join(USER_KEY))?;
        Self::connect(context, &network, &key).await
    }

    /// Connects to the first authority that answers.
    pub(crate) async fn connect(context: &Context, network: &Network, key: &PrivateKey) -> Outcome<Self> {
        let light = trust(network)?;
        let mut last = "devnet.json names no authority".to_owned();
        for member in network.members(Role::Authority) {
            let peer = network.account(member)?;
            let dialing = context.child("node");
            let answer = match Client::dial(dialing, context, key, peer, member.address).await {
                Ok(client) => client.call(Ask::Info(Nothing {})).await.map(|answer| (client, answer)),
                Err(error) => Err(error),
            };
            match answer {
                Ok((client, Answer::Info(info))) if info.chain == light.chain() => {
                    let (parameters, tip) = (info.parameters, Cell::new(info.height));
                    return Ok(Self { client, light, parameters, tip });
                }
                Ok((_, Answer::Info(_))) => last = format!("{} is of another network", member.name),
                Ok((_, other)) => last = format!("{} answers {}", member.name, short(&other)),
                Err(error) => last = format!("{}: {error}", member.name),
            }
        }
        Err(Failure::new(
            Exit::Unreachable,
            "no node of the network answers",
            last,
            "start the network with `posync devnet`, and look at the logs in its directory",
        ))
    }

    /// The constants of the rules.
    pub(crate) const fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Height of the newest final block that the node can answer about; only its word.
    pub(crate) async fn height(&self) -> Outcome<u64> {
        match self.ask(Ask::Info(Nothing {})).await? {
            Answer::Info(info) => {
                self.tip.set(info.height.max(self.tip.get()));
                Ok(self.tip.get())
            }
            other => Err(unexpected(&other)),
        }
    }

    /// A proven record.
    pub(crate) async fn read<R: Record>(&self, key: Key) -> Outcome<Option<R>> {
        Ok(self.read_all(vec![key]).await?.into_iter().next().flatten())
    }

    /// Proven records, in the order asked for.
    pub(crate) async fn read_all<R: Record>(&self, keys: Vec<Key>) -> Outcome<Vec<Option<R>>> {
        let mut records = Vec::with_capacity(keys.len());
        for keys in keys.chunks(READ_KEYS_MAX) {
            let read = self.proven(keys).await?;
            for record in read.records.iter() {
                let record = record.slot.as_ref().map(R::from_slot).transpose();
                records.push(record.map_err(|_| not_believed(&light::Error::Malformed("a record")))?);
            }
        }
        Ok(records)
    }

    /// The bytes of a proof that anyone verifies with the network key.
    pub(crate) async fn prove(&self, subject: &Subject) -> Outcome<Vec<u8>> {
        let next = "try again: a proof is short when its block has a certificate of its own";
        until("a proof of at most 3,000 bytes", READ_WITHIN, next, async || {
            let read = self.proven(&[subject.key()]).await?;
            let record = read.records[0].clone();
            let bytes = SyncProof::new(subject.clone(), read.certified, record).to_bytes();
            Ok(if bytes.len() <= SYNC_PROOF_BYTES_MAX {
                Look::Done(bytes)
            } else {
                Look::Waiting(format!("the last one has {} bytes", bytes.len()))
            })
        })
        .await
    }

    /// A finalized block.
    pub(crate) async fn block(&self, height: u64) -> Outcome<Block> {
        let header = match self.ask(Ask::Header(height)).await? {
            Answer::Certified(certified) => self.first(certified, height)?,
            other => return Err(missing(height, &other)),
        };
        let body = match self.ask(Ask::Body(height)).await? {
            Answer::Body(body) => body,
            other => return Err(missing(height, &other)),
        };
        Light::body(&header, &body).map_err(|error| not_believed(&error))?;
        let (receipts, events) = self.outcome(height).await?;
        Light::receipts(&header, &receipts).map_err(|error| not_believed(&error))?;
        Ok(Block { header, body, receipts, events })
    }

    /// Certified headers as they become final, from the tip on, without end.
    pub(crate) async fn follow(&self) -> Outcome<Call<rpc::Node>> {
        self.client.open(Ask::Follow(0)).await.map_err(lost)
    }

    /// Signs an operation with the account's next nonce, sends it and waits until it is final.
    pub(crate) async fn run(&self, key: &PrivateKey, body: Body) -> Outcome<Receipt> {
        let account = keys::account(key);
        let state: Option<AccountState> = self.read(AccountState::key(&account)).await?;
        let nonce = state.unwrap_or_default().nonce;
        let expires = self.height().await? + EXPIRES_AFTER;
        let operation = Operation::signed(key, &self.light.chain(), nonce, FEE_MAX, expires, body);
        let id = operation.id();
        let bytes = Bounded::new(operation.encode().to_vec()).expect("an operation fits a submission");
        match self.ask(Ask::Submit(bytes)).await? {
            Answer::Accepted(_) => {}
            Answer::Refused(code) => return Err(refused(code)),
            other => return Err(unexpected(&other)),
        }
        let next = "look at `posync blocks`; the operation may still be included before it expires";
        until("the operation in a final block", FINAL_WITHIN, next, async || {
            match self.ask(Ask::Receipt(id)).await? {
                Answer::Receipt(None) => Ok(Look::Waiting("the node holds it in its mempool".into())),
                Answer::Receipt(Some(receipt)) if receipt.code == Code::Done => {
                    Ok(Look::Done(Receipt { operation: id, height: receipt.height }))
                }
                Answer::Receipt(Some(receipt)) => Err(refused(receipt.code)),
                other => Err(unexpected(&other)),
            }
        })
        .await
    }

    async fn ask(&self, ask: Ask) -> Outcome<Answer> {
        self.client.call(ask).await.map_err(lost)
    }

    /// Reads until the state holds still, and verifies.
    async fn proven(&self, keys: &[Key]) -> Outcome<Read> {
        let asked = Bounded::new(keys.to_vec()).expect("callers split reads");
        let next = "try again; if it goes on, look at the nodes' logs";
        let read = until("a read of the state", READ_WITHIN, next, async || {
            Ok(match self.ask(Ask::Read(asked.clone())).await? {
                Answer::Read(read) => Look::Done(read),
                Answer::Unavailable(why) => Look::Waiting(format!("{why:?}")),
                other => return Err(unexpected(&other)),
            })
        })
        .await?;
        self.light.read(keys, &read).map_err(|error| not_believed(&error))?;
        Ok(read)
    }

    fn first(&self, certified: Certified, height: u64) -> Outcome<Header> {
        self.light.certified(&certified).map_err(|error| not_believed(&error))?;
        let first = certified.headers.into_inner().into_iter().next();
        first.filter(|header| header.height == height).ok_or_else(|| not_believed(&light::Error::Question))
    }

    async fn outcome(&self, height: u64) -> Outcome<(Receipts, Vec<Event>)> {
        let mut call = self.client.open(Ask::Events(height)).await.map_err(lost)?;
        let mut events = Vec::new();
        loop {
            match call.recv().await.ok_or(rpc::Error::NoAnswer).map_err(lost)? {
                Answer::Events(part) => {
                    events.extend(part.events.into_inner());
                    if part.last {
                        return Ok((part.receipts, events));
                    }
                }
                other => return Err(missing(height, &other)),
            }
        }
    }
}

/// What `devnet.json` says to believe in.
fn trust(network: &Network) -> Outcome<Light> {
    let damaged = |what: &str| {
        let next = "restore devnet.json, or start over with `posync devnet --fresh`";
        Failure::new(Exit::Usage, "devnet.json is damaged", what.to_owned(), next)
    };
    let key = hex::decode(&network.network_key).ok().and_then(|bytes| bytes.try_into().ok());
    let key = light::network_key(&key.ok_or_else(|| damaged("its network key is not 96 bytes in hex"))?)
        .map_err(|error| damaged(&error.to_string()))?;
    let chain = hex::decode(&network.chain).ok().and_then(|bytes| bytes.try_into().ok());
    Ok(Light::new(chain.ok_or_else(|| damaged("its chain is not 32 bytes in hex"))?, key))
}

/// All money that the ledger's sums name.
pub(crate) fn accounted(system: &System) -> Amount {
    let parts = [
        system.balances,
        system.voucher_reserves,
        system.storage_pools,
        system.bonds,
        system.deposits,
        system.burned,
        system.committee,
        system.reserve,
    ];
    parts.into_iter().fold(Amount::ZERO, |sum, part| sum.checked_add(part).unwrap_or(Amount::MAX))
}

fn lost(error: rpc::Error) -> Failure {
    let next = "check `posync status`, then repeat the command";
    Failure::new(Exit::Unreachable, "the connection to the node is lost", error, next)
}

fn refused(code: Code) -> Failure {
    let next = "change what the reason names, then send it again";
    let why = format!("code {}: {}", code as u8, code.explain());
    Failure::new(Exit::Refused, "the ledger refused the operation", why, next)
}

fn not_believed(error: &light::Error) -> Failure {
    let next = "ask another node; this one lies, or is damaged";
    Failure::new(Exit::Unproven, "the node's answer is not proved", error, next)
}

fn missing(height: u64, answer: &Answer) -> Failure {
    let why = match answer {
        Answer::Unavailable(Unavailable::Pruned) => "the node has pruned it".to_owned(),
        Answer::Unavailable(why) => format!("the node says {why:?}"),
        other => short(other),
    };
    let next = "ask for newer blocks, or a node that keeps all of them";
    Failure::new(Exit::NotFound, format!("block {height} cannot be had"), why, next)
}

fn unexpected(answer: &Answer) -> Failure {
    let next = "use the same version of posync for both";
    Failure::new(Exit::Failed, "the node's answer does not fit the question", short(answer), next)
}

fn short(answer: &Answer) -> String {
    format!("{answer:?}").chars().take(80).collect()
}
