//! The commands' view of the ledger: [`Connection`] accepts only proofs that lead to the network
//! key of the network file; this adds the messages for questions that get no answer.

use crate::{
    failure::{Exit, Failure, Outcome},
    net::{Net, known},
};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::{Supervisor as _, tokio::Context};
use posync_client::{
    account::{Final, Submitter, beside},
    connection::{self, Connection, Error, Follow, Heard},
    known::Listed,
    light::{Subject, SyncProof},
};
use posync_protocol::{
    Account, Body, Key, Record,
    block::{BlockBody, Header, Receipts},
    ledger::Event,
    limits::{Parameters, READ_KEYS_MAX},
    record::{ProviderAt, System},
    wire::node::Unavailable,
};
use std::{collections::BTreeSet, path::Path, time::Duration};

/// Time that an operation waits while no newer block is proved; its fate is unknown then. It waits four
/// times as long while blocks come without it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Nodes that must prove what nothing can undo afterwards.
const CONFIRMERS: usize = 2;

/// A finalized block with its receipts and events.
#[derive(Debug)]
pub(crate) struct Block {
    /// Header under the authorities' certificate.
    pub(crate) header: Header,
    /// Operations and draws, as committed to by the header.
    pub(crate) body: BlockBody,
    /// Outcome of each operation, as committed to by the header.
    pub(crate) receipts: Receipts,
    /// Events as the node reports them, without proof.
    pub(crate) events: Vec<Event>,
}

/// A verified connection to the network's nodes.
pub(crate) struct Ledger {
    connection: Connection,
    /// The nodes of the network file and those with a seat alone, each over a connection of its own.
    trusted: Connection,
    /// True if the network file names one node.
    trusts_one: bool,
    parameters: Parameters,
}

/// A record as several trusted nodes prove it, each by itself.
pub(crate) struct Confirmed<R> {
    /// The record, if one of them proves that it is there; then the newest.
    pub(crate) record: Option<R>,
    /// Least height at which it was proved.
    pub(crate) least: u64,
    /// Number of the nodes.
    pub(crate) nodes: usize,
}

impl Ledger {
    /// Connects to a network, under the caller's key if one is named.
    pub(crate) async fn open(context: &Context, net: &Net) -> Outcome<Self> {
        Self::connect(context, net, &net.any_key()?).await
    }

    /// Connects to the network's nodes.
    pub(crate) async fn connect(context: &Context, net: &Net, key: &PrivateKey) -> Outcome<Self> {
        // A network that does not run is reported at once, with the reason of each node.
        let parameters = net.parameters(context, key).await?;
        let (client, over) = (context.child("ledger"), context.child("network"));
        let endpoints = net.file.endpoints();
        let trusts_one = endpoints.iter().map(|node| node.account).collect::<BTreeSet<_>>().len() == 1;
        let connect =
            |client, over| Connection::new(client, over, key.clone(), endpoints.clone(), net.light.clone());
        let connection = connect(client, over);
        let trusted = connect(context.child("trusted"), context.child("network"));
        connection.recall(&net.known);
        connection.raise_floor(net.file.checkpoint.height);
        // One node alone could show an old state: two are compared, and reads stay near that height.
        connection.compare().await.map_err(failed)?;
        if let Some(directory) = &net.directory {
            known::renew(directory, &connection, &net.known).await;
        }
        let seats: Vec<_> = connection.learned().into_iter().filter(|node| node.has_seat).collect();
        trusted.recall(&seats);
        Ok(Self { connection, trusted, trusts_one, parameters })
    }

    /// The constants of the network's rules.
    pub(crate) const fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Height of the newest final block that a node can answer about, as that node reports it.
    pub(crate) async fn height(&self) -> Outcome<u64> {
        Ok(self.connection.info().await.map_err(failed)?.height)
    }

    /// Reads a record with its proof.
    pub(crate) async fn read<R: Record>(&self, key: Key) -> Outcome<Option<R>> {
        Ok(self.connection.read(key).await.map_err(failed)?.value)
    }

    /// Reads a record with its proof; also returns the height of the state that holds it.
    pub(crate) async fn read_at<R: Record>(&self, key: Key) -> Outcome<(u64, Option<R>)> {
        let proved = self.connection.read(key).await.map_err(failed)?;
        Ok((proved.header.height, proved.value))
    }

    /// Reads a record from [`CONFIRMERS`] trusted nodes, each by itself. If the network file names one node, one is enough:
    /// that one, or one with a seat while it is silent. All are asked for their height first: one that keeps old states counts for
    /// nothing, here and in later reads.
    pub(crate) async fn confirmed<R: Record>(&self, key: Key) -> Outcome<Confirmed<R>> {
        self.trusted.raise_floor(self.connection.floor());
        self.trusted.note_written(self.connection.written());
        drop(self.trusted.survey().await);
        self.connection.raise_floor(self.trusted.floor());
        let proofs = if self.trusts_one {
            self.trusted.read_from_some(&[key], 0, CONFIRMERS).await
        } else {
            self.trusted.read_from_several(&[key], 0, CONFIRMERS).await
        };
        let proofs = proofs.map_err(failed)?;
        self.connection.raise_floor(self.trusted.floor());
        let (nodes, mut newest) = (proofs.len(), None);
        let mut least = u64::MAX;
        for proof in proofs {
            let height = proof.header.height;
            least = least.min(height);
            let record: Option<R> =
                connection::decode(proof.value.into_iter().next().flatten()).map_err(failed)?;
            if let Some(record) = record
                && newest.as_ref().is_none_or(|(at, _)| *at < height)
            {
                newest = Some((height, record));
            }
        }
        Ok(Confirmed { record: newest.map(|(_, record)| record), least, nodes })
    }

    /// The newest height that was proved here or by an earlier command.
    pub(crate) fn floor(&self) -> u64 {
        self.connection.floor()
    }

    /// Newest height that was proved here.
    pub(crate) async fn certified_height(&self) -> Outcome<u64> {
        self.connection.height().await.map_err(failed)
    }

    /// The certified header at `height`.
    pub(crate) async fn header(&self, height: u64) -> Outcome<Header> {
        self.connection.header(height).await.map_err(|error| missing(height, error))
    }

    /// Asks all known nodes at once; returns the proven answer of each: those of the network file in their order,
    /// then those that were learned.
    pub(crate) async fn survey(&self) -> Vec<Heard> {
        self.connection.survey().await
    }

    /// The nodes in the ledger's list.
    pub(crate) async fn listed(&self) -> Outcome<Vec<Listed>> {
        posync_client::known::listed(&self.connection).await.map_err(failed)
    }

    /// Learns the nodes in the ledger's list, so that [`Self::survey`] asks them too, and returns the list.
    pub(crate) async fn learn(&self) -> Outcome<Vec<Listed>> {
        let listed = self.listed().await?;
        self.connection.learn(&listed.iter().map(Listed::learned).collect::<Vec<_>>());
        Ok(listed)
    }

    /// Accounts of all registered providers, in the order of their indices.
    pub(crate) async fn providers(&self) -> Outcome<Vec<Account>> {
        let system: System = self.read(System::key()).await?.unwrap_or_default();
        let keys = (0..system.providers).map(ProviderAt::key).collect();
        let places = self.read_all::<ProviderAt>(keys).await?;
        Ok(places.into_iter().filter_map(|place| place?.account).collect())
    }

    /// Reads records with their proofs, in the order of the keys.
    pub(crate) async fn read_all<R: Record>(&self, keys: Vec<Key>) -> Outcome<Vec<Option<R>>> {
        let mut records = Vec::with_capacity(keys.len());
        for keys in keys.chunks(READ_KEYS_MAX) {
            for slot in self.connection.read_many(keys).await.map_err(failed)?.value {
                records.push(connection::decode(slot).map_err(failed)?);
            }
        }
        Ok(records)
    }

    /// A proof that anyone verifies with the network key.
    pub(crate) async fn prove(&self, subject: &Subject) -> Outcome<SyncProof> {
        self.connection.prove(subject).await.map_err(failed)
    }

    /// A certified header and the body that it commits to.
    pub(crate) async fn header_and_body(&self, height: u64) -> Outcome<(Header, BlockBody)> {
        let missing = |error| missing(height, error);
        let header = self.connection.header(height).await.map_err(missing)?;
        let body = self.connection.body(&header).await.map_err(missing)?;
        Ok((header, body))
    }

    /// Reads a finalized block with its receipts and events.
    pub(crate) async fn block(&self, height: u64) -> Outcome<Block> {
        let (header, body) = self.header_and_body(height).await?;
        let outcome = self.connection.outcome(height).await.map_err(|error| missing(height, error))?.value;
        Ok(Block { header, body, receipts: outcome.receipts, events: outcome.events })
    }

    /// Certified headers as they become final, from the newest on, without end.
    pub(crate) fn follow(&self) -> Follow {
        self.connection.follow(0)
    }

    /// Signs an operation with the account's next nonce, sends it and waits until it is final. Processes
    /// that share the key file at `path` take turns.
    pub(crate) async fn run(&self, key: &PrivateKey, path: &Path, body: Body) -> Outcome<Final> {
        let (connection, turns) = (self.connection.clone(), Some(beside(path)));
        let submitter = Submitter::for_command(connection, key.clone(), self.parameters, turns, PATIENCE);
        submitter.send(body).await.and_then(Final::done).map_err(failed)
    }
}

/// Turns the error of a question into a message for the user.
pub(crate) fn failed(error: Error) -> Failure {
    let (exit, what, next) = match &error {
        Error::Unreachable(_) | Error::NoEndpoint => return unreachable(&error.to_string()),
        Error::Refused(_) => (
            Exit::Refused,
            "the ledger refused the operation",
            "change what the reason names, then send it again",
        ),
        Error::NotBelieved(_) => (
            Exit::Unproven,
            "the node's answer is not proved",
            "ask another node; this one lies, or is damaged",
        ),
        Error::Unavailable(_) => {
            (Exit::NotFound, "the nodes cannot answer", "wait a moment and repeat the command")
        }
        Error::Expired => {
            (Exit::Refused, "the operation did not happen", "look at `posync status`, then send it again")
        }
        Error::Undecided { .. } => (
            Exit::TimedOut,
            "it is not known what becomes of the operation",
            "do not send it again yet: `posync status` says whether blocks come, `posync account` shows the \
             next nonce, `posync blocks --json` what stands in blocks",
        ),
        Error::Behind { .. } => (
            Exit::NotFound,
            "the nodes that answer show an old state",
            "look at `posync status`: wait until they caught up, or start the other nodes",
        ),
        Error::TooFew { .. } => (
            Exit::Unreachable,
            "too few nodes of the network prove it",
            "see that the nodes that it names run and that this machine reaches them, or name more nodes in the network \
             file (`posync net export`)",
        ),
        Error::TooLarge(_) => {
            (Exit::Failed, "the question is too large", "report this: it should not depend on you")
        }
    };
    Failure::new(exit, what, error, next)
}

fn unreachable(why: &str) -> Failure {
    Failure::new(
        Exit::Unreachable,
        "no node of the network answers",
        why,
        "see that the network runs and that this machine reaches it (`posync net show --net ...` names its nodes)",
    )
}

fn missing(height: u64, error: Error) -> Failure {
    let next = match error {
        Error::Unavailable(Unavailable::Pruned) => "ask for newer blocks: nodes keep the last 4,096",
        Error::Unavailable(Unavailable::NotYet) => "wait until it is final",
        other => return failed(other),
    };
    Failure::new(Exit::NotFound, format!("block {height} cannot be had"), error, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_is_not_to_be_had_is_told_apart_from_one_that_is_not_there_yet() {
        let told = |why| missing(7, Error::Unavailable(why)).to_json().to_string();
        let (pruned, early) = (told(Unavailable::Pruned), told(Unavailable::NotYet));
        assert!(pruned.contains("block 7 cannot be had") && pruned.contains("the last 4,096"), "{pruned}");
        assert!(early.contains("block 7 cannot be had") && early.contains("wait"), "{early}");
        assert!(matches!(missing(7, Error::Unavailable(Unavailable::Busy)).exit, Exit::NotFound));
        assert!(matches!(missing(7, Error::NoEndpoint).exit, Exit::Unreachable));
    }
}
