//! The commands' client of the gateway service.
//!
//! It keeps one message of a file in memory at a time, so a file may be larger than memory.
//!
//! Every wait for the gateway ends ([`Waits`]): a gateway whose process runs sends keep-alives also while it hangs, so the
//! connection alone does not show it.

use crate::{
    failure::{Exit, Failure, Outcome},
    net::{Net, file::Service},
    source::Source,
};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::{Supervisor as _, tokio::Context};
use posync_client::rpc::{self, Call, Client};
use posync_protocol::{
    Account, Bounded,
    wire::{
        gateway::{
            AgreementRow, Ask, File, FileOf, GatewayAnswer, Get, Name, Put, Refusal, Refused, Status, Why,
        },
        node::Nothing,
    },
};
use std::{
    io::{self, Write},
    time::Duration,
};

/// Bytes of a file in one message. A gateway bounds the messages that it has not processed yet, so this also
/// bounds the bytes that wait there, and sets how often a slow line is allowed to send on.
const PIECE_BYTES: usize = 64 << 10;

/// The longest waits of a command for its gateway.
const WAITS: Waits = Waits {
    connection: Duration::from_secs(60),
    answer: Duration::from_secs(30),
    piece: Duration::from_secs(3600),
};
/// The advice after a wait that was too long.
const SILENT: &str = "try again; if it goes on, the gateway's owner looks at its log and starts it again. What was asked \
                      may have been done all the same: look at `posync ls` before you repeat it";

/// Bounds of the waits for a gateway.
#[derive(Clone, Copy, Debug)]
struct Waits {
    /// For the connection: the name, the address and the handshake.
    connection: Duration,
    /// For the answer to a question that moves no bytes of a file.
    answer: Duration,
    /// For the next bytes of a file, or until the gateway takes more. A gateway waits as long for a caller: it may have a
    /// slow line to its providers, or 256 other files of the account to move first.
    piece: Duration,
}

/// A connection to the gateway.
pub(crate) struct Gateway {
    client: Client<rpc::Gateway>,
    /// Its address, for messages.
    address: String,
    waits: Waits,
}

impl Gateway {
    /// Connects to the caller's gateway.
    pub(crate) async fn connect(context: &Context, net: &Net) -> Outcome<Self> {
        Self::dial(context, net, &net.key()?).await
    }

    /// Connects to the network's gateway with a key.
    pub(crate) async fn dial(context: &Context, net: &Net, key: &PrivateKey) -> Outcome<Self> {
        Self::dial_with(context, net.gateway()?, key, WAITS).await
    }

    /// Connects to a gateway, with other bounds of the waits for it.
    async fn dial_with(
        context: &Context,
        gateway: &Service,
        key: &PrivateKey,
        waits: Waits,
    ) -> Outcome<Self> {
        let dialing = context.child("gateway");
        let opened = Client::dial(dialing, context, key, gateway.account, gateway.address.clone());
        let address = gateway.address.to_string();
        let client = within(waits.connection, &address, opened).await?.map_err(|error| {
            Failure::new(
                Exit::Unreachable,
                format!("the gateway at {address} does not answer"),
                error,
                "see that the gateway runs and that this machine reaches it; its owner has its log",
            )
        })?;
        Ok(Self { client, address, waits })
    }

    /// Stores `source` under `name`; `sent` is called with the length of every message that left.
    pub(crate) async fn put(&self, name: &str, source: &mut Source, sent: impl Fn(u64)) -> Outcome<File> {
        let ask = Ask::Put(Put { name: to_name(name)?, length: source.length() });
        let mut call = self.open(ask).await?;
        let sending = self.send_file(&call, source, sent).await?;
        match self.next(&mut call).await? {
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
        let mut call = self.open(ask).await?;
        let file = match self.next(&mut call).await? {
            GatewayAnswer::Found(file) => file,
            other => return Err(unexpected(&other)),
        };
        begin(&file);
        let mut hasher = blake3::Hasher::new();
        loop {
            match self.next(&mut call).await? {
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

    /// All files of the caller, or of another account if the caller owns the gateway, in the order of their names;
    /// asked for page by page.
    pub(crate) async fn list(&self, of: Option<Account>) -> Outcome<Vec<File>> {
        let mut files: Vec<File> = Vec::new();
        let mut from = Vec::new();
        loop {
            let name = Bounded::new(from).expect("a name with one more byte, or empty");
            let ask = match of {
                Some(account) => Ask::ListOf(FileOf { account, name }),
                None => Ask::List(name),
            };
            match self.ask(ask).await? {
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

    /// Deletes a file of the caller, or of an account that is served no more if the caller owns the gateway; returns
    /// its last state.
    pub(crate) async fn remove(&self, name: &str, of: Option<Account>) -> Outcome<File> {
        let name = to_name(name)?;
        let ask = match of {
            Some(account) => Ask::RemoveOf(FileOf { account, name }),
            None => Ask::Remove(name),
        };
        match self.ask(ask).await? {
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
        let answer = within(self.waits.answer, &self.address, self.client.call(ask)).await?;
        accepted(answer.map_err(lost)?)
    }

    async fn open(&self, ask: Ask) -> Outcome<Call<rpc::Gateway>> {
        within(self.waits.answer, &self.address, self.client.open(ask)).await?.map_err(lost)
    }

    /// Sends the bytes of an open put. The inner error is a gateway that stopped listening, whose answer
    /// says why; the outer one is a file that cannot be read, or a gateway that takes nothing.
    async fn send_file(
        &self,
        call: &Call<rpc::Gateway>,
        source: &mut Source,
        sent: impl Fn(u64),
    ) -> Outcome<Result<(), rpc::Error>> {
        while let Some(data) = source.next(PIECE_BYTES)? {
            let piece = data.len() as u64;
            let data = Ask::Data(Bounded::new(data).expect("a piece is at most one message"));
            if let Err(error) = within(self.waits.piece, &self.address, call.send(&data)).await? {
                return Ok(Err(error));
            }
            sent(piece);
        }
        Ok(Ok(()))
    }

    /// The next answer of an open call; a refusal becomes a failure.
    async fn next(&self, call: &mut Call<rpc::Gateway>) -> Outcome<GatewayAnswer> {
        let answer = within(self.waits.piece, &self.address, call.recv()).await?;
        accepted(answer.ok_or(rpc::Error::Gone).map_err(lost)?)
    }
}

/// Waits for `work` of the gateway at `address`, at most for `limit`.
async fn within<T>(limit: Duration, address: &str, work: impl Future<Output = T>) -> Outcome<T> {
    tokio::time::timeout(limit, work).await.map_err(|_| {
        Failure::new(
            Exit::TimedOut,
            format!("the gateway at {address} gives no answer"),
            format!("nothing came for {limit:?}: it hangs, has too much to do, or the way to it is blocked"),
            SILENT,
        )
    })
}

/// The failure of the target that receives a file's bytes.
fn not_written(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::closed();
    }
    Failure::file(std::path::Path::new("the target"), "write", error)
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
        | Refusal::Allowance
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
    use crate::session;
    use commonware_cryptography::Signer as _;
    use posync_client::{
        channel::Listen,
        rpc::{Incoming, Server, Service as _},
    };
    use std::{
        net::{Ipv4Addr, SocketAddr},
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    /// Waits that a test can afford; a connection in one process is made within them.
    const SHORT: Waits = Waits {
        connection: Duration::from_secs(10),
        answer: Duration::from_millis(300),
        piece: Duration::from_millis(300),
    };

    /// Serves at a free port with a gateway that hangs or, if `answers`, knows no file; returns its address.
    async fn gateway(context: &Context, key: &PrivateKey, answers: bool) -> SocketAddr {
        let server = Server::<rpc::Gateway, _>::new(move |call: Incoming<rpc::Gateway>, _| async move {
            if !answers {
                futures::future::pending::<()>().await;
            }
            drop(call.finish(&GatewayAnswer::Files(Bounded::default())).await);
        });
        let listen = Listen::new(key.clone(), rpc::Gateway::NAMESPACE, (Ipv4Addr::LOCALHOST, 0).into());
        server.listen(context.child("served"), context, listen).await.expect("a free port").address
    }

    /// Passes connections on to `to`, and of what comes back as many bytes as `left` says, then none.
    async fn relay(to: SocketAddr, left: Arc<AtomicUsize>) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let service = TcpStream::connect(to).await.expect("it listens");
                let (mut from_caller, mut to_caller) = caller.into_split();
                let (mut from_service, mut to_service) = service.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from_caller, &mut to_service).await });
                let left = left.clone();
                tokio::spawn(async move {
                    let mut bytes = vec![0; 64 << 10];
                    while let Ok(count @ 1..) = from_service.read(&mut bytes).await {
                        let passed = count.min(left.load(Ordering::SeqCst));
                        left.fetch_sub(passed, Ordering::SeqCst);
                        to_caller.write_all(&bytes[..passed]).await.expect("the caller is there");
                    }
                });
            }
        });
        address
    }

    /// The failure has three parts that name the gateway, the wait and the next step.
    fn is_explained<T>(asked: &str, outcome: Outcome<T>, address: SocketAddr) {
        let failure = outcome.err().unwrap_or_else(|| panic!("{asked}: no gateway answered"));
        assert_eq!(failure.exit, Exit::TimedOut, "{asked}: {}", failure.in_one_line());
        let [what, why, next] = failure.parts();
        assert!(what.contains(&address.to_string()), "{asked}: {what}");
        assert!(why.contains("nothing came for"), "{asked}: {why}");
        assert!(next.contains("posync ls"), "{asked}: {next}");
    }

    #[test]
    fn no_command_waits_for_ever_for_a_gateway_that_accepts_and_says_nothing() {
        session::run(async |context| {
            let [served, caller] = [31, 32].map(PrivateKey::from_seed);
            let account = Account::of(&served.public_key());
            let address = gateway(&context, &served, false).await;
            let at = Service { account, address: address.into(), archive: false };
            let hangs = Gateway::dial_with(&context, &at, &caller, SHORT).await?;
            is_explained("ls", hangs.list(None).await, address);
            is_explained("rm", hangs.remove("file", Some(account)).await, address);
            is_explained("status", hangs.status().await, address);
            is_explained("agreements", hangs.agreements().await, address);
            is_explained("why", hangs.why(account).await, address);
            is_explained("get", hangs.get("file", &mut io::sink(), |_| {}, |_| {}).await, address);
            let home = tempfile::tempdir().expect("a directory");
            let path = home.path().join("source");
            // More than one message, and more than the gateway takes unasked.
            for length in [1, 4 << 20] {
                std::fs::write(&path, vec![7; length]).expect("writable");
                let put = hangs.put("file", &mut Source::open(&path)?, |_| {}).await;
                is_explained("put", put, address);
            }
            // Its socket accepts, and no handshake comes.
            let silent = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let address = silent.local_addr().expect("bound");
            let at = Service { account, address: address.into(), archive: false };
            let waits = Waits { connection: Duration::from_millis(300), ..SHORT };
            is_explained("dial", Gateway::dial_with(&context, &at, &caller, waits).await, address);
            Ok(())
        })
        .expect("every wait ended");
    }

    #[test]
    fn half_an_answer_is_none() {
        session::run(async |context| {
            let [served, caller] = [31, 32].map(PrivateKey::from_seed);
            let account = Account::of(&served.public_key());
            let left = Arc::new(AtomicUsize::new(usize::MAX));
            let address = relay(gateway(&context, &served, true).await, left.clone()).await;
            let at = Service { account, address: address.into(), archive: false };
            // A loaded machine may be slow to answer the first question, which must succeed.
            let gateway = Gateway::dial_with(&context, &at, &caller, Waits { answer: WAITS.answer, ..SHORT });
            let mut gateway = gateway.await?;
            assert!(gateway.list(None).await?.is_empty(), "whole answers arrive");
            gateway.waits = SHORT;
            left.store(10, Ordering::SeqCst);
            is_explained("ls", gateway.list(Some(account)).await, address);
            // A loaded machine may be slower than the wait.
            let came = async {
                while left.load(Ordering::SeqCst) > 0 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(WAITS.answer, came).await.expect("half of the answer comes");
            Ok(())
        })
        .expect("every wait ended");
    }

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
