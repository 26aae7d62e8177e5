//! Nodes known from the ledger: read from proved records, added to a connection, kept through restarts.
//!
//! ```text
//!   SeatAt 0..seats, NodeAt 0..256 ─► accounts ─► Node records ─► Connection::learn ─► two slots on disk
//! ```
//!
//! Invariants
//! 1. A node is learned from a proved record only. The record vouches for its address, and for nothing that it
//!    answers.
//! 2. A reading covers the whole list, or counts for nothing. It makes a connection forget a node only to make room,
//!    and never one that answers for a stranger.
//! 3. Nodes with a seat, proved by their records at the reading, are trusted as those of the network file. All others
//!    are strangers, which anyone can be for a deposit: they are asked while no trusted node answers.
//! 4. Memory and disk hold at most [`LEARNED_MAX`] learned nodes; a damaged slot costs what it held.

use crate::{
    address::Address,
    connection::{Connection, Endpoint, Error, LEARNED_MAX, Learned, decode as decode_record},
    two_slots::TwoSlots,
};
use commonware_runtime::{Blob, Clock, Error as StorageError, Spawner, Storage};
use posync_protocol::{
    Account, Hash, Key, Record,
    limits::{ADDRESS_BYTES_MAX, NODES_MAX, READ_KEYS_MAX, SEATS_MAX},
    record::{Node, NodeAt, SeatAt, System},
};
use std::time::Duration;

/// Time between two readings of the list.
const EVERY: Duration = Duration::from_secs(300);
/// Time from the start to the second reading: nodes of a young network announce themselves then.
const SOON: Duration = Duration::from_secs(20);
/// Bytes of a slot: chain, number of the writing, number of nodes, checksum, and the nodes.
const SLOT: usize = HEAD + LEARNED_MAX * (32 + 1 + ADDRESS_BYTES_MAX);
/// Bit of the length of an address that marks a node with a seat.
const SEAT_BIT: u8 = 0x80;
const _: () = assert!(ADDRESS_BYTES_MAX < SEAT_BIT as usize);
const HEAD: usize = 32 + 8 + 1 + 8;
const NAME: &[u8] = b"nodes";

/// A node in the ledger's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its account and the address of its node service.
    pub endpoint: Endpoint,
    /// True if it says that it keeps every block.
    pub archive: bool,
    /// Name of its region; may be empty.
    pub region: String,
    /// True if it has a seat.
    pub has_seat: bool,
}

impl Listed {
    /// The node as a connection learns it.
    pub fn learned(&self) -> Learned {
        Learned { endpoint: self.endpoint.clone(), has_seat: self.has_seat }
    }
}

/// Reads the whole list of nodes: those with a seat, then those at a place, from a random one on. Addresses that are
/// not dialled from here are left out.
///
/// # Errors
/// [`Error`].
pub async fn listed(connection: &Connection) -> Result<Vec<Listed>, Error> {
    let system = connection.read::<System>(System::key()).await?.value.unwrap_or_default();
    let seats: Vec<Key> = (0..system.seats.min(SEATS_MAX)).map(SeatAt::key).collect();
    let mut found = Vec::new();
    for keys in seats.chunks(READ_KEYS_MAX) {
        let at = records::<SeatAt>(connection, keys).await?;
        gather(connection, at.into_iter().flatten().map(|at| at.account), &mut found).await?;
    }
    let mut places: Vec<Key> = (0..NODES_MAX).map(NodeAt::key).collect();
    places.rotate_left(connection.random() as usize % NODES_MAX as usize);
    for keys in places.chunks(READ_KEYS_MAX) {
        let at = records::<NodeAt>(connection, keys).await?;
        gather(connection, at.into_iter().flatten().map(|at| at.account), &mut found).await?;
    }
    Ok(found)
}

/// Reads the records of these nodes.
async fn gather(
    connection: &Connection,
    accounts: impl Iterator<Item = Account>,
    found: &mut Vec<Listed>,
) -> Result<(), Error> {
    let accounts: Vec<Account> = accounts.collect();
    let keys: Vec<Key> = accounts.iter().map(Node::key).collect();
    if keys.is_empty() {
        return Ok(());
    }
    for (account, node) in accounts.into_iter().zip(records::<Node>(connection, &keys).await?) {
        let Some(node) = node else { continue };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Ok(address) = text(&node.address).parse::<Address>() else { continue };
        if !connection.may_dial(&address) {
            continue;
        }
        let endpoint = Endpoint { account, address };
        let (archive, region, has_seat) = (node.archive, text(&node.region), node.place.is_none());
        found.push(Listed { endpoint, archive, region, has_seat });
    }
    Ok(())
}

async fn records<R: Record>(connection: &Connection, keys: &[Key]) -> Result<Vec<Option<R>>, Error> {
    connection.read_many(keys).await?.value.into_iter().map(decode_record).collect()
}

/// Adds the nodes kept in `partition` to the connections, then reads the ledger's list again and again and keeps
/// what is new, for as long as `context` lives. The first connection also moves to a near node that no other
/// one asks. `own` is an account that is not learned: the caller's own node.
pub async fn keep<E>(context: E, connections: Vec<Connection>, partition: &str, own: Option<Account>)
where
    E: Spawner + Clock + Storage,
{
    let Some(first) = connections.first().cloned() else { return };
    let mut store = match Store::open(&context, partition, first.light().chain()).await {
        Ok((store, kept)) => {
            for connection in &connections {
                connection.recall(&kept);
            }
            Some(store)
        }
        Err(error) => {
            tracing::warn!(%error, partition, "the nodes that are learned are not kept through a restart");
            None
        }
    };
    context.spawn(move |context| async move {
        let mut pause = SOON;
        loop {
            match listed(&first).await {
                Ok(listed) => {
                    let others = listed.iter().filter(|node| Some(node.endpoint.account) != own);
                    let listed: Vec<Learned> = others.map(Listed::learned).collect();
                    learn(&connections, &listed, store.as_mut()).await;
                }
                Err(error) => tracing::debug!(%error, "the list of nodes cannot be read now"),
            }
            let others: Vec<Endpoint> = connections[1..].iter().filter_map(Connection::current).collect();
            first.prefer_near(&others).await;
            // Clients that start together do not read together.
            let spread = Duration::from_millis(first.random() % (1 + pause.as_millis() as u64 / 4));
            context.sleep(pause + spread).await;
            pause = EVERY;
        }
    });
}

/// Adds listed nodes to the connections, and writes the learned ones if there are new ones.
async fn learn<B: Blob>(connections: &[Connection], listed: &[Learned], store: Option<&mut Store<B>>) {
    let before = connections[0].learned();
    let added = connections.iter().map(|connection| connection.learn(listed)).max().unwrap_or(0);
    if added > 0 {
        tracing::info!(added, "learned nodes of the network from the ledger");
    }
    if connections[0].learned() == before {
        return;
    }
    let Some(store) = store else { return };
    if let Err(error) = store.put(&connections[0].learned()).await {
        tracing::warn!(%error, "the learned nodes are not written; the next try is in 5 min");
    }
}

/// The learned nodes on disk.
struct Store<B> {
    slots: TwoSlots<B>,
    chain: Hash,
    number: u64,
}

impl<B: Blob> Store<B> {
    /// Opens the slots; also returns the nodes of the newest one that is intact.
    async fn open<E>(context: &E, partition: &str, chain: Hash) -> Result<(Self, Vec<Learned>), StorageError>
    where
        E: Storage<Blob = B>,
    {
        let (slots, contents) = TwoSlots::open(context, partition, NAME, SLOT).await?;
        let intact = contents.iter().filter_map(|slot| decode(&chain, slot));
        let (number, nodes) = intact.max_by_key(|(number, _)| *number).unwrap_or_default();
        Ok((Self { slots, chain, number }, nodes))
    }

    async fn put(&mut self, nodes: &[Learned]) -> Result<(), StorageError> {
        self.number += 1;
        let mut slot = encode(&self.chain, self.number, nodes);
        slot.resize(SLOT, 0);
        self.slots.write_durably(self.number, slot).await
    }
}

/// The bytes of learned nodes, as a slot or a file holds them; beyond [`LEARNED_MAX`] nodes are left out.
pub fn encode(chain: &Hash, number: u64, nodes: &[Learned]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut count = 0_u8;
    for node in nodes.iter().take(LEARNED_MAX) {
        let Learned { endpoint: node, has_seat } = node;
        let address = node.address.to_string();
        let Some(length) = u8::try_from(address.len()).ok().filter(|_| address.len() <= ADDRESS_BYTES_MAX)
        else {
            continue;
        };
        body.extend(node.account.0);
        body.push(if *has_seat { length | SEAT_BIT } else { length });
        body.extend(address.as_bytes());
        count += 1;
    }
    let head = [&chain[..], &number.to_be_bytes(), &[count]].concat();
    let check = blake3::hash(&[&head[..], &body].concat());
    [&head[..], &check.as_bytes()[..8], &body].concat()
}

/// The number of the writing and the nodes in these bytes, if they are intact and belong to this chain.
pub fn decode(chain: &Hash, bytes: &[u8]) -> Option<(u64, Vec<Learned>)> {
    let number = u64::from_be_bytes(bytes.get(32..40)?.try_into().ok()?);
    let mut rest = bytes.get(HEAD..)?;
    let mut nodes = Vec::new();
    for _ in 0..usize::from(*bytes.get(40)?).min(LEARNED_MAX) {
        let (account, more) = rest.split_first_chunk::<32>()?;
        let (length, more) = more.split_first()?;
        let (has_seat, length) = (length & SEAT_BIT != 0, length & !SEAT_BIT);
        let (address, more) = more.split_at_checked(usize::from(length))?;
        let address = std::str::from_utf8(address).ok()?.parse().ok()?;
        nodes.push(Learned { endpoint: Endpoint { account: Account(*account), address }, has_seat });
        rest = more;
    }
    let whole = encode(chain, number, &nodes);
    let is_padded = rest.iter().all(|byte| *byte == 0);
    (bytes.starts_with(&whole) && is_padded).then_some((number, nodes))
}

#[cfg(test)]
mod tests;
