//! The commands' client of the gateway service.
//!
//! It keeps one message of a file in memory at a time, so a file may be larger than memory.

use crate::{
    failure::{Exit, Failure, Outcome},
    net::Net,
    source::Source,
};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::{Supervisor as _, tokio::Context};
use posync_client::rpc::{self, Call, Client};
use posync_protocol::{
    Account, Bounded,
    wire::{
        gateway::{AgreementRow, Ask, File, GatewayAnswer, Get, Name, Put, Refusal, Refused, Status, Why},
        node::Nothing,
    },
};
use std::io::{self, Write};

/// Bytes of a file in one message. A gateway bounds the messages that it has not processed yet, so this also
/// bounds the bytes that wait there, and sets how often a slow line is allowed to send on.
const PIECE_BYTES: usize = 64 << 10;

/// A connection to the gateway.
pub(crate) struct Gateway(Client<rpc::Gateway>);

impl Gateway {
    /// Connects to the caller's gateway.
    pub(crate) async fn connect(context: &Context, net: &Net) -> Outcome<Self> {
        Self::dial(context, net, &net.key()?).await
    }

    /// Connects to the network's gateway with a key.
    pub(crate) async fn dial(context: &Context, net: &Net, key: &PrivateKey) -> Outcome<Self> {
        let gateway = net.gateway()?;
        let (dialing, address) = (context.child("gateway"), gateway.address.clone());
        let opened = Client::dial(dialing, context, key, gateway.account, address).await;
        opened.map(Self).map_err(|error| {
            Failure::new(
                Exit::Unreachable,
                format!("the gateway at {} does not answer", gateway.address),
                error,
                "see that the gateway runs and that this machine reaches it; its owner has its log",
            )
        })
    }

    /// Stores `source` under `name`; `sent` is called with the length of every message that left.
    pub(crate) async fn put(&self, name: &str, source: &mut Source, sent: impl Fn(u64)) -> Outcome<File> {
        let ask = Ask::Put(Put { name: to_name(name)?, length: source.length() });
        let mut call = self.0.open(ask).await.map_err(lost)?;
        let sending = send_file(&call, source, sent).await?;
        match next(&mut call).await? {
            GatewayAnswer::Stored(file) => Ok(file),
            other => Err(sending.err().map_or_else(|| unexpected(&other), lost)),
        }
    }

    /// Reads a whole file into `target`; `begin` gets its length, `received` the length of every piece.
    pub(crate) async fn get(
        &self,
        name: &str,
        target: &mut impl Write,
        begin: impl FnOnce(&File),
        mut received: impl FnMut(u64),
    ) -> Outcome<File> {
        let ask = Ask::Get(Get { name: to_name(name)?, offset: 0, length: None });
        let mut call = self.0.open(ask).await.map_err(lost)?;
        let file = match next(&mut call).await? {
            GatewayAnswer::Found(file) => file,
            other => return Err(unexpected(&other)),
        };
        begin(&file);
        let mut hasher = blake3::Hasher::new();
        loop {
            match next(&mut call).await? {
                GatewayAnswer::Data(data) => {
                    hasher.update(&data);
                    target.write_all(&data).map_err(not_written)?;
                    received(data.len() as u64);
                }
                GatewayAnswer::End(_) => break,
                other => return Err(unexpected(&other)),
            }
        }
        if hasher.finalize().as_bytes() != &file.blake3 {
            return Err(Failure::new(
                Exit::Failed,
                format!("'{name}' came back with other bytes"),
                "its BLAKE3 is not the one of the catalogue",
                "read it again; if it happens twice, report it with the gateway's log",
            ));
        }
        Ok(file)
    }

    /// All files, in the order of their names; asked for page by page.
    pub(crate) async fn list(&self) -> Outcome<Vec<File>> {
        let mut files: Vec<File> = Vec::new();
        let mut from = Vec::new();
        loop {
            match self
                .ask(Ask::List(Bounded::new(from).expect("a name with one more byte, or empty")))
                .await?
            {
                GatewayAnswer::Files(page) if page.is_empty() => return Ok(files),
                GatewayAnswer::Files(page) => files.extend(page.into_inner()),
                other => return Err(unexpected(&other)),
            }
            let last = files.last().expect("the page was not empty");
            match after(&last.name) {
                Some(next) => from = next,
                None => return Ok(files),
            }
        }
    }

    /// Deletes a file; returns its last state.
    pub(crate) async fn remove(&self, name: &str) -> Outcome<File> {
        match self.ask(Ask::Remove(to_name(name)?)).await? {
            GatewayAnswer::Removed(file) => Ok(file),
            other => Err(unexpected(&other)),
        }
    }

    /// The gateway's state and its faults.
    pub(crate) async fn status(&self) -> Outcome<Status> {
        match self.ask(Ask::Status(Nothing {})).await? {
            GatewayAnswer::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// All agreements of the gateway.
    pub(crate) async fn agreements(&self) -> Outcome<Vec<AgreementRow>> {
        match self.ask(Ask::Agreements(Nothing {})).await? {
            GatewayAnswer::Agreements(rows) => Ok(rows.into_inner()),
            other => Err(unexpected(&other)),
        }
    }

    /// The gateway's placement decision about a provider.
    pub(crate) async fn why(&self, provider: Account) -> Outcome<Why> {
        match self.ask(Ask::Why(provider)).await? {
            GatewayAnswer::Why(why) => Ok(why),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&self, ask: Ask) -> Outcome<GatewayAnswer> {
        accepted(self.0.call(ask).await.map_err(lost)?)
    }
}

/// Sends the bytes of an open put. The inner error is a gateway that stopped listening, whose answer
/// says why; the outer one is a file that cannot be read.
async fn send_file(
    call: &Call<rpc::Gateway>,
    source: &mut Source,
    sent: impl Fn(u64),
) -> Outcome<Result<(), rpc::Error>> {
    while let Some(data) = source.next(PIECE_BYTES)? {
        let piece = data.len() as u64;
        let data = Bounded::new(data).expect("a piece is at most one message");
        if let Err(error) = call.send(&Ask::Data(data)).await {
            return Ok(Err(error));
        }
        sent(piece);
    }
    Ok(Ok(()))
}

/// The failure of the target that receives a file's bytes.
fn not_written(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::closed();
    }
    Failure::file(std::path::Path::new("the target"), "write", error)
}

/// The next answer of an open call; a refusal becomes a failure.
async fn next(call: &mut Call<rpc::Gateway>) -> Outcome<GatewayAnswer> {
    accepted(call.recv().await.ok_or(rpc::Error::Gone).map_err(lost)?)
}

fn accepted(answer: GatewayAnswer) -> Outcome<GatewayAnswer> {
    match answer {
        GatewayAnswer::Refused(refusal) => Err(refused(&refusal)),
        answer => Ok(answer),
    }
}

/// Turns a gateway's refusal into a failure: the reason and, after the last semicolon, the advice.
fn refused(refusal: &Refused) -> Failure {
    let exit = match refusal.kind {
        Refusal::NoFile => Exit::NotFound,
        Refusal::NotServed
        | Refusal::Request
        | Refusal::Providers
        | Refusal::Full
        | Refusal::Interrupted
        | Refusal::Stopping => Exit::Refused,
    };
    let text = String::from_utf8_lossy(&refusal.text);
    let usual = (text.as_ref(), "look at `posync ls`, `posync status` and the gateway's log");
    let (why, next) = text.rsplit_once("; ").unwrap_or(usual);
    Failure::new(exit, "the gateway refused", why, next)
}

fn unexpected(answer: &GatewayAnswer) -> Failure {
    let text = format!("{answer:?}");
    Failure::new(
        Exit::Failed,
        "the gateway gave an answer that does not fit the question",
        text.chars().take(80).collect::<String>(),
        "use the same version of posync for both",
    )
}

fn lost(error: rpc::Error) -> Failure {
    Failure::new(
        Exit::Unreachable,
        "the connection to the gateway is lost",
        error,
        "check `posync status`; it may have been done all the same, so look at `posync ls` before you repeat it",
    )
}

/// Checks a name against the gateway's limits.
fn to_name(name: &str) -> Outcome<Name> {
    let usage = |why: &str| {
        Failure::new(
            Exit::Usage,
            format!("'{}' cannot be a file's name", name.chars().take(64).collect::<String>()),
            why,
            "give a name of 1 to 1,024 bytes",
        )
    };
    if name.is_empty() {
        return Err(usage("it is empty"));
    }
    Bounded::new(name.as_bytes().to_vec()).ok_or_else(|| usage("it is longer than 1,024 bytes"))
}

/// The least name after `name`, if one of permitted length exists.
fn after(name: &[u8]) -> Option<Vec<u8>> {
    let mut next = name.to_vec();
    if next.len() < posync_protocol::limits::NAME_BYTES_MAX {
        next.push(0);
        return Some(next);
    }
    while let Some(last) = next.pop() {
        if last < u8::MAX {
            next.push(last + 1);
            return Some(next);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_name_follows_closely() {
        assert_eq!(after(b"a"), Some(b"a\0".to_vec()));
        let longest = vec![b'x'; 1024];
        let mut expected = longest.clone();
        expected[1023] = b'y';
        assert_eq!(after(&longest), Some(expected));
        assert_eq!(after(&[u8::MAX; 1024]), None);
    }

    #[test]
    fn a_refusal_says_why_and_what_to_do() {
        for (kind, text, code, why, next) in [
            (
                Refusal::NoFile,
                "there is no file 'a; b'; `posync ls` lists the names",
                4,
                "there is no file 'a; b'",
                "`posync ls`",
            ),
            (
                Refusal::NotServed,
                "account x is not served here; ask the owner",
                5,
                "account x is not served here",
                "ask the owner",
            ),
            // The words alone decide nothing.
            (
                Refusal::Full,
                "there is no file left to replace; remove one",
                5,
                "there is no file left to replace",
                "remove",
            ),
            (Refusal::NoFile, "no", 4, "no", "look at `posync ls`"),
        ] {
            let text_of = Bounded::new(text.as_bytes().to_vec()).expect("short");
            let failure = refused(&Refused { kind, text: text_of });
            let error = &failure.to_json()["error"];
            assert_eq!((&error["exit"], &error["why"]), (&code.into(), &why.into()), "{text}");
            assert!(error["next"].as_str().is_some_and(|text| text.starts_with(next)), "{error}");
        }
    }

    #[test]
    fn names_have_a_length() {
        assert!(to_name("").is_err());
        assert!(to_name(&"é".repeat(512)).is_ok());
        assert!(to_name(&"é".repeat(513)).is_err());
    }
}
