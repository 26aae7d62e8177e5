//! A scenario as text: one line per operation, with the receipt that it must get.
//!
//! ```text
//!   p register bond=1000s capacity=8192      accepted: Done is expected if no code is given
//!   a open p slot=1 quota=9000 => NoCapacity  refused: charged, without any other effect
//!   a send b 5 nonce=9 => !NonceGap           may not even stand in a block
//!   p leave                                   announces the exit; once announced, completes it
//!   epoch 3                                   empty blocks until the next one is of epoch 3
//! ```
//! Parameters that are not given have the defaults of `Line` below. Amounts are grains; `s` means SYNC.

use super::world::{World, account, key};
use posync_protocol::{
    Account, AgreementId, Amount, Body, Bounded, Class, Metered, Operation, PerClass, Units,
    block::{HEADER_NAMESPACE, Header, with_chain},
    limits::{ADDRESSES_MAX, OPERATOR_BYTES},
    operation::{
        AnnounceNode, CLOSE_NAMESPACE, Close, CloseAlone, Evidence, Open, Proposals, Redeem, Redemption,
        RefusedPlacement, RegisterProvider, RotateKey, TopUp, Transfer, Unjail, UpdateProvider, Voucher,
        sign,
    },
    record::{Address, Agreement, Offer, Provider, Reputation},
};
use std::collections::BTreeMap;

/// Runs a script on a new world of funded actors `a`, `b`, `p`, `q`, and returns the world.
pub(crate) fn check(script: &str) -> World {
    let mut stage = Stage::new();
    stage.play(script);
    stage.world
}

/// A world, and the agreements that the script opened in it.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) world: World,
    /// Height at which each (provider, slot) was last opened.
    pub(crate) opened: BTreeMap<(String, u32), u64>,
}

/// A parsed line: `actor verb words.. name=value.. => code`
struct Line<'a> {
    text: &'a str,
    actor: &'a str,
    verb: &'a str,
    words: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Line<'a> {
    fn parse(text: &'a str) -> Self {
        let mut words: Vec<&str> = text.split_whitespace().collect();
        assert!(words.len() >= 2, "a line needs an actor and a verb: {text}");
        let named = words.iter().filter_map(|word| word.split_once('=')).collect();
        words.retain(|word| !word.contains('='));
        Self { text, actor: words[0], verb: words[1], words: words.split_off(2), named }
    }

    fn word(&self, place: usize) -> &'a str {
        self.words.get(place).unwrap_or_else(|| panic!("word {place} is missing: {}", self.text))
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        self.named.get(name).map_or(default, |text| match *text {
            "max" => u64::MAX,
            text => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {}", self.text)),
        })
    }

    fn slot(&self, name: &str, default: u32) -> u32 {
        self.number(name, default.into()).try_into().expect("a slot has 32 bits")
    }

    fn name(&self, name: &str, default: &'a str) -> Account {
        account(self.named.get(name).unwrap_or(&default))
    }

    fn amount(&self, name: &str, default: Amount) -> Amount {
        self.named.get(name).map_or(default, |text| grains(text))
    }
}

/// Parses an amount: `12` is in grains, `12s` in SYNC.
fn grains(text: &str) -> Amount {
    let (digits, unit) = text.strip_suffix('s').map_or((text, 1), |digits| (digits, 1_000_000_000));
    let number: u128 = digits.parse().unwrap_or_else(|_| panic!("no amount: {text}"));
    Amount::new(number * unit).expect("below the bound")
}

impl Stage {
    /// A new world of funded actors `a`, `b`, `p`, `q`.
    pub(crate) fn new() -> Self {
        Self { world: World::new(&["a", "b", "p", "q"]), opened: BTreeMap::new() }
    }

    /// Signs the operation of one line without submitting it.
    pub(crate) fn sign(&self, text: &str) -> Operation {
        self.operation(&Line::parse(text))
    }

    pub(crate) fn play(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.line(line);
        }
    }

    fn line(&mut self, text: &str) {
        let (asked, expected) = text.split_once("=>").unwrap_or((text, "Done"));
        if let Some(got) = self.attempt(asked) {
            assert_eq!(got, expected.trim(), "height {}: {text}", self.world.height);
        }
    }

    /// Runs one line and returns its outcome, which may be a refusal; `None` for a line that only waits.
    pub(crate) fn attempt(&mut self, text: &str) -> Option<String> {
        let line = Line::parse(text);
        if line.actor == "epoch" || line.actor == "blocks" {
            self.wait(&line);
            return None;
        }
        let operation = self.operation(&line);
        let got = match self.world.submit(&operation) {
            Ok(code) => format!("{code:?}"),
            Err(code) => format!("!{code:?}"),
        };
        if let (Body::Open(open), "Done") = (&operation.body, got.as_str()) {
            self.opened.insert((line.word(0).to_string(), open.slot), self.world.height);
        }
        Some(got)
    }

    fn wait(&mut self, line: &Line<'_>) {
        let number: u64 = line.verb.parse().expect("a number");
        if line.actor == "epoch" {
            return self.world.skip_to_epoch(number);
        }
        for _ in 0..number {
            self.world.block(&[]).expect("an empty block is valid");
        }
    }

    /// Signs the line's operation. The line may set `nonce`, `fee`, `expires` and `signer` to wrong values.
    fn operation(&self, line: &Line<'_>) -> Operation {
        let right = self.world.sign(line.actor, self.body(line));
        let nonce = line.number("nonce", right.nonce);
        let fee = line.amount("fee", right.max_fee);
        let expires = line.number("expires", right.expires);
        Operation::signed(&key(line.actor), &self.world.chain, nonce, fee, expires, right.body)
    }

    /// Resolves `p/3` to the agreement that was last opened in slot 3 of `p`.
    pub(crate) fn id(&self, text: &str) -> AgreementId {
        let (provider, slot) = text.split_once('/').unwrap_or((text, "0"));
        let slot: u32 = slot.parse().expect("a slot");
        let opened = self.opened.get(&(provider.to_string(), slot)).copied().unwrap_or_default();
        AgreementId { provider: account(provider), slot, opened }
    }

    fn named_id(&self, line: &Line<'_>) -> AgreementId {
        let id = self.id(line.word(0));
        AgreementId { opened: line.number("opened", id.opened), slot: line.slot("slot", id.slot), ..id }
    }

    fn index(&self, provider: &Account) -> u32 {
        self.world.get::<Provider>(Provider::key(provider)).map_or(0, |provider| provider.index)
    }

    fn body(&self, line: &Line<'_>) -> Body {
        match line.verb {
            "send" => Body::Transfer(Transfer { to: account(line.word(0)), amount: grains(line.word(1)) }),
            "register" => Body::RegisterProvider(register(line)),
            "update" | "leave" => Body::UpdateProvider(self.update(line)),
            "open" => Body::Open(open(line)),
            "topup" => Body::TopUp(self.top_up(line)),
            "close" => Body::Close(self.close(line)),
            "closealone" => Body::CloseAlone(CloseAlone { agreement: self.named_id(line) }),
            "rotate" => {
                let session_key = account(line.word(1));
                Body::RotateKey(RotateKey { agreement: self.named_id(line), session_key })
            }
            "redeem" => {
                let vouchers = if line.words.is_empty() { vec![] } else { vec![self.redemption(line)] };
                Body::Redeem(Redeem { vouchers: Bounded::new(vouchers).expect("few") })
            }
            "refusal" => Body::Refusal(self.refusal(line)),
            "evidence" => Body::Evidence(self.proposals(line)),
            "unjail" => Body::Unjail(Unjail { bond_add: line.amount("bond", Amount::ZERO) }),
            "node" | "withdraw" => Body::AnnounceNode(announce(line)),
            verb => panic!("no such verb: {verb}"),
        }
    }

    /// `a refusal p leaves=5`: submits a refusal by `p` (or `by`) of a quote, or `within` an agreement.
    fn refusal(&self, line: &Line<'_>) -> RefusedPlacement {
        let refused = RefusedPlacement {
            provider: account(line.word(0)),
            consumer: account(line.actor),
            agreement: line.named.get("within").map(|id| self.id(id)),
            leaves: line.number("leaves", 1),
            height: line.number("height", self.world.height),
            signature: [0; 64],
        };
        refused.signed(&key(line.named.get("by").unwrap_or(&line.word(0))), &self.world.chain)
    }

    /// `a evidence s view=3`: two headers that `s` signed for one view of the current term, at two
    /// times. A field named by `other` differs, too; `same` makes the two equal.
    fn proposals(&self, line: &Line<'_>) -> Evidence {
        let parameters = &self.world.parameters;
        let now = (self.world.height + 1) / parameters.term_blocks();
        let (term, view, other) = (line.number("term", now), line.number("view", 3), line.named.get("other"));
        let headers = [1, 2].map(|time_ms| {
            let differs = |what: &str| other == Some(&what) && time_ms == 2;
            let leader = if differs("leader") { "elsewhere" } else { line.word(0) };
            let mut header = Header {
                chain: if other == Some(&"chain") { [8; 32] } else { self.world.chain },
                term: if differs("term") { term + 1 } else { term },
                view: if differs("view") { view + 1 } else { view },
                time_ms: if other == Some(&"nothing") { 1 } else { time_ms },
                leader: account(leader),
                ..empty_header()
            };
            header.signature = sign(&key(leader), HEADER_NAMESPACE, &header.signed_bytes());
            header
        });
        let count = if other == Some(&"missing") { 1 } else { 2 };
        let headers = Bounded::new(headers[..count].to_vec()).expect("at most two");
        Evidence::Proposals(Proposals { headers })
    }

    fn update(&self, line: &Line<'_>) -> UpdateProvider {
        let signer = account(line.actor);
        let now: Option<Provider> = self.world.get(Provider::key(&signer));
        let offer: Option<Offer> = self.world.get(Offer::key(&signer));
        let is_leaving = now.as_ref().is_some_and(|provider| provider.leaves_at != 0);
        let reputation: Option<Reputation> = self.world.get(Reputation::key(&signer));
        let registered = reputation.map_or(0, |reputation| reputation.registered);
        let declared = |of: fn(&Offer) -> u64| offer.as_ref().map_or(0, of);
        UpdateProvider {
            bond_add: line.amount("bond", Amount::ZERO),
            capacity: PerClass::new(
                line.number("capacity", declared(|offer| offer.capacity[Class::Storage])),
                line.number("out", declared(|offer| offer.capacity[Class::Egress])),
                line.number("gas_out", declared(|offer| offer.capacity[Class::Compute])),
            ),
            reserve: PerClass::new(
                line.number("storage", 0),
                line.number("egress", 0),
                line.number("gas", 0),
            ),
            term_max: line.slot("term", TERM_MAX),
            addresses: addresses(line, "127.0.0.1:2"),
            index: line.slot("index", now.map_or(0, |provider| provider.index)),
            leave: line.verb == "leave" && !is_leaving,
            exit: (line.verb == "leave" && is_leaving).then(|| line.number("registered", registered)),
        }
    }

    fn top_up(&self, line: &Line<'_>) -> TopUp {
        TopUp {
            agreement: self.named_id(line),
            amount: grains(line.word(1)),
            price_max: Metered {
                egress: line.number("max_egress", u64::MAX),
                gas: line.number("max_gas", u64::MAX),
            },
        }
    }

    fn close(&self, line: &Line<'_>) -> Close {
        let agreement = self.named_id(line);
        let record: Option<Agreement> = self.world.get(Agreement::key(&agreement.provider, agreement.slot));
        let (consumer, end) = record.map_or_else(Default::default, |r| (Some(r.consumer), r.end_epoch));
        let consumer = line.named.get("consumer").map(|name| account(name)).or(consumer);
        let second = line.named.get("second").unwrap_or(&"a");
        let last = line.number("last", self.world.height + 20);
        Close {
            agreement,
            consumer: consumer.unwrap_or_default(),
            index: line.slot("index", self.index(&agreement.provider)),
            end_epoch: line.number("end", end),
            last,
            second: sign(&key(second), CLOSE_NAMESPACE, &with_chain(&self.world.chain, &(agreement, last))),
        }
    }

    /// A voucher signed by `session` (default: the first key of the agreements that `open` makes).
    pub(crate) fn redemption_of(&self, id: AgreementId, session: &str, egress: u64, gas: u64) -> Redemption {
        let voucher = Voucher::signed(&key(session), &self.world.chain, id, Units { egress, gas });
        Redemption { voucher, session_key: account(session), claim: None }
    }

    fn redemption(&self, line: &Line<'_>) -> Redemption {
        let session = line.named.get("session").unwrap_or(&"session");
        let (egress, gas) = (line.number("egress", 0), line.number("gas", 0));
        let mut redemption = self.redemption_of(self.named_id(line), session, egress, gas);
        if line.named.contains_key("claim") {
            redemption.claim = Some(Units { egress: line.number("claim", 0), gas });
        }
        redemption
    }
}

fn empty_header() -> Header {
    Header {
        version: 1,
        chain: [0; 32],
        term: 0,
        view: 0,
        leader: Account::default(),
        parent_view: 0,
        parent: [0; 32],
        height: 1,
        time_ms: 0,
        beacon: None,
        body_root: [0; 32],
        receipts_root: [0; 32],
        state_root: [0; 32],
        ops_root: [0; 32],
        range_start: 0,
        range_end: 1,
        signature: [0; 64],
    }
}

/// Longest term of an offer that names none, in epochs.
const TERM_MAX: u32 = 720;

fn addresses(line: &Line<'_>, default: &str) -> Bounded<Address, ADDRESSES_MAX> {
    Bounded::new(vec![text(line.named.get("address").unwrap_or(&default))]).expect("one")
}

fn text<const MAX: usize>(text: &str) -> Bounded<u8, MAX> {
    Bounded::new(text.as_bytes().to_vec()).expect("within the bound")
}

fn operator(name: &str) -> [u8; OPERATOR_BYTES] {
    let mut bytes = [0; OPERATOR_BYTES];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}

fn register(line: &Line<'_>) -> RegisterProvider {
    RegisterProvider {
        operator: operator(line.named.get("operator").unwrap_or(&line.actor)),
        bond: line.amount("bond", Amount::sync(1_000)),
        capacity: PerClass::new(
            line.number("capacity", 1 << 20),
            line.number("out", 1 << 40),
            line.number("gas_out", 1 << 50),
        ),
        reserve: PerClass::new(line.number("storage", 0), line.number("egress", 0), line.number("gas", 0)),
        term_max: line.slot("term", TERM_MAX),
        addresses: addresses(line, "127.0.0.1:1"),
        region: text(line.named.get("region").unwrap_or(&"north")),
    }
}

/// `a node place=1 deposit=100s`: lists a node; `a withdraw place=1` takes it off.
fn announce(line: &Line<'_>) -> AnnounceNode {
    let is_listed = line.verb == "node";
    AnnounceNode {
        address: is_listed.then(|| text(line.named.get("address").unwrap_or(&"127.0.0.1:3"))),
        archive: line.number("archive", 0) > 0,
        region: text(line.named.get("region").unwrap_or(if is_listed { &"north" } else { &"" })),
        place: line.slot("place", 0),
        deposit_add: line.amount("deposit", Amount::ZERO),
        displaces: line.named.get("displaces").map(|name| account(name)),
    }
}

fn open(line: &Line<'_>) -> Open {
    Open {
        provider: account(line.word(0)),
        slot: line.slot("slot", 0),
        session_key: line.name("session", "session"),
        storage_key: line.name("storage", "storage"),
        price_max: PerClass::new(
            line.number("max_storage", u64::MAX),
            line.number("max_egress", u64::MAX),
            line.number("max_gas", u64::MAX),
        ),
        quota: PerClass::new(
            line.number("quota", 1 << 10),
            line.number("quota_egress", 1 << 30),
            line.number("quota_gas", 1_000_000_000),
        ),
        rate: Units { egress: line.number("rate", 1 << 20), gas: line.number("rate_gas", 1_000_000) },
        end_epoch: line.number("end", 20),
        voucher_reserve: line.amount("reserve", Amount::sync(1)),
        storage_reserve_max: line.amount("storage_max", Amount::sync(100)),
    }
}
