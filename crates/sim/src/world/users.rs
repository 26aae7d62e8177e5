//! Carries out each step of a plan: faults, and the requests of users.

use super::{Failure, World, account, member_key, processes::address, user_key};
use crate::{
    network::{Role, host},
    plan::{Process, Sample, SmallFiles, Step},
};
use commonware_macros::select;
use commonware_runtime::{Clock as _, Supervisor as _};
use posync_client::{
    account::Submitter,
    connection::Connection,
    light::Light,
    rpc::{Client, Gateway},
};
use posync_protocol::{
    Account, Amount, Body, Bounded,
    operation::Transfer,
    wire::gateway::{Ask, DATA_BYTES_MAX, GatewayAnswer, Get, Name, Put},
};
use std::time::Duration;

/// Time after which a user gives up on a request.
const PATIENCE: Duration = Duration::from_secs(600);
/// Number of times that a user repeats a put, and the pause before each.
const PUTS_MAX: u32 = 10;
const AGAIN: Duration = Duration::from_secs(2);
const GATEWAY: Process = Process::Gateway(0);

impl World<'_> {
    pub(super) async fn step(&mut self, number: usize, step: &Step) -> Result<(), Failure> {
        self.count(step);
        match step {
            Step::Reach(height) => self.reach(*height).await?,
            Step::Until(condition, last) => self.until(number, *condition, *last).await?,
            Step::Crash(process) => self.crash(*process).await,
            Step::Restart(process) => self.start_process(*process),
            Step::Wipe(index) => self.wipe(*index),
            Step::Put(sample) => {
                self.user("put", self.put(sample)).await?;
                self.lasting.acknowledged.push(*sample);
            }
            Step::PutEach(row) => self.user("a row of puts", self.put_each(row)).await?,
            Step::Get(sample) => self.user("get", self.get(sample)).await?,
            Step::Send => {
                self.user("send", self.send(account(&user_key(1)))).await?;
                self.lasting.paid += 1;
            }
            Step::SendUntold => self.user("send", self.send(account(&user_key(1)))).await?,
            Step::Remove(sample) => self.user("remove", self.remove(sample)).await?,
            Step::Fund(authority) => {
                let to = account(&self.lasting.seats[usize::from(*authority)].key);
                self.user("fund", self.send(to)).await?;
            }
            Step::Equivocate(liar) => self.equivocate(*liar).await?,
            Step::SignAgain { liar, to } => self.sign_again(*liar, *to).await?,
            Step::Gossip(gossip) => self.link_all(*gossip).await,
            Step::Isolate(process) => self.isolate(*process).await,
            Step::Rejoin(process) => self.rejoin(*process).await,
            Step::Storage(config) => *self.context.storage_fault_config().write() = config.clone(),
            Step::Mint => self.lasting.judge.ledger.mint(),
            // The phase ends with this step, and all state that is not on a disk is lost.
            Step::PowerCut => {}
            Step::Blackout => self.lasting.up.clear(),
            other => self.fault(other).await?,
        }
        Ok(())
    }

    /// Bounds the time that a user waits.
    async fn user(&self, what: &str, work: impl Future<Output = Result<(), String>>) -> Result<(), Failure> {
        let result = select! {
            result = work => result,
            _ = self.context.sleep(PATIENCE) => Err("no answer in ten minutes".into()),
        };
        result.map_err(|reason| Failure::User { what: what.into(), reason })
    }

    pub(super) async fn gateway(&self) -> Result<Client<Gateway>, String> {
        let network = self.lasting.fabric.at(&self.context, host(Role::User, 0));
        let peer = account(&member_key(GATEWAY));
        Client::dial(self.context.child("user"), &network, &user_key(0), peer, address(GATEWAY))
            .await
            .map_err(|error| error.to_string())
    }

    /// Puts a file, and tries again when the gateway says "try again".
    pub(super) async fn put(&self, sample: &Sample) -> Result<(), String> {
        for _ in 0..PUTS_MAX {
            match self.put_once(sample).await {
                Err(reason) if reason.contains("try again") => self.context.sleep(AGAIN).await,
                other => return other,
            }
        }
        self.put_once(sample).await
    }

    async fn put_once(&self, sample: &Sample) -> Result<(), String> {
        self.put_bytes(&name(sample), &sample.bytes()).await
    }

    async fn put_bytes(&self, name: &Name, bytes: &[u8]) -> Result<(), String> {
        let client = self.gateway().await?;
        let ask = Ask::Put(Put { name: name.clone(), length: bytes.len() as u64 });
        let mut call = client.open(ask).await.map_err(|error| error.to_string())?;
        for part in bytes.chunks(DATA_BYTES_MAX) {
            let part = Bounded::new(part.to_vec()).expect("a chunk of that size");
            // If the gateway stops listening, its reason is read below.
            let _ = call.send(&Ask::Data(part)).await;
        }
        match call.recv().await {
            Some(GatewayAnswer::Stored(file)) if file.blake3 == *blake3::hash(bytes).as_bytes() => Ok(()),
            other => Err(explain(other)),
        }
    }

    /// Stores the files of a row, each over a connection of its own. Every put but the first must be
    /// acknowledged in time.
    async fn put_each(&self, row: &SmallFiles) -> Result<(), String> {
        let mut slow = Vec::new();
        for file in 0..row.files {
            let begun = self.context.current();
            let (name, bytes) = (format!("row {file}"), vec![file as u8; row.length]);
            self.put_bytes(&Bounded::new(name.into_bytes()).expect("a short name"), &bytes).await?;
            let took = self.context.current().duration_since(begun).unwrap_or_default();
            if file > 0 && took > row.within {
                slow.push(format!("put {file} took {took:?}"));
            }
        }
        if slow.is_empty() { Ok(()) } else { Err(slow.join(", ")) }
    }

    pub(super) async fn get(&self, sample: &Sample) -> Result<(), String> {
        let (client, bytes) = (self.gateway().await?, sample.bytes());
        let ask = Ask::Get(Get { name: name(sample), offset: 0, length: None });
        let mut call = client.open(ask).await.map_err(|error| error.to_string())?;
        let mut got = Vec::new();
        loop {
            match call.recv().await {
                Some(GatewayAnswer::Found(file)) if file.bytes == bytes.len() as u64 => {}
                Some(GatewayAnswer::Data(data)) => got.extend_from_slice(&data),
                Some(GatewayAnswer::End(_)) if got == bytes => return Ok(()),
                Some(GatewayAnswer::End(_)) => return Err("other bytes came back".into()),
                other => return Err(explain(other)),
            }
        }
    }

    async fn remove(&self, sample: &Sample) -> Result<(), String> {
        let answer = self.gateway().await?.call(Ask::Remove(name(sample))).await;
        match answer.map_err(|error| error.to_string())? {
            GatewayAnswer::Removed(_) => Ok(()),
            other => Err(explain(Some(other))),
        }
    }

    async fn send(&self, to: Account) -> Result<(), String> {
        let genesis = &self.lasting.genesis;
        let network = self.lasting.fabric.at(&self.context, host(Role::User, 0));
        let light = Light::new(genesis.chain(), genesis.network_key());
        let context = self.context.child("user");
        let connection = Connection::new(context, network, user_key(0), self.nodes(), light);
        let submitter = Submitter::new(connection, user_key(0), self.lasting.plan.parameters);
        let transfer = Transfer { to, amount: Amount::sync(1) };
        let sent = submitter.send(Body::Transfer(transfer)).await.and_then(|sent| sent.done());
        sent.map(|_| ()).map_err(|error| error.to_string())
    }
}

pub(super) fn name(sample: &Sample) -> Name {
    Bounded::new(sample.name.as_bytes().to_vec()).expect("a short name")
}

fn explain(answer: Option<GatewayAnswer>) -> String {
    match answer {
        Some(GatewayAnswer::Refused(refused)) => String::from_utf8_lossy(&refused.text).into_owned(),
        Some(other) => format!("an answer to another question: {other:?}").chars().take(200).collect(),
        None => "the gateway went away".into(),
    }
}
