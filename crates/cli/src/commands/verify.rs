//! `posync verify`: checks a proof with the network key alone, or with the network file that holds it. It opens no
//! connection.

use crate::{
    failure::{Exit, Failure, Outcome},
    net::{Access, Net},
    output::Output,
};
use posync_client::light::{self, NetworkKey, SYNC_PROOF_BYTES_MAX, SyncProof, Verified};
use posync_protocol::{Account, json::AnyRecord, wire::node::NETWORK_KEY_BYTES};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

/// Command-line arguments of `posync verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// File with the proof
    proof: PathBuf,
    /// The network's key, 192 hex digits; not needed if --net names a network file or its line
    #[arg(long, value_name = "HEX")]
    network_key: Option<String>,
}

impl Verify {
    /// Prints the proven record; fails if the proof does not verify.
    pub(crate) fn run(self, access: Option<&Access>, output: Output) -> Outcome {
        let (key, chain) = match (&self.network_key, access) {
            // Both may be named, by POSYNC_NET for one: the chain of the network file counts as well.
            (Some(digits), access) => {
                let net = access.map(Net::open).transpose()?;
                (network_key(digits)?, net.map(|net| net.file.chain))
            }
            (None, Some(access)) => {
                let net = Net::open(access)?;
                (*net.light.network_key(), Some(net.file.chain))
            }
            (None, None) => {
                let next = "give --network-key HEX, or --net with the network file or its posync1... line";
                let why = "a proof is checked with the key of its network";
                return Err(Failure::new(Exit::Usage, "no network is named", why, next));
            }
        };
        let bytes = read(&self.proof)?;
        let verified = SyncProof::verify(&bytes, &key).map_err(|error| {
            Failure::new(
                Exit::Unproven,
                format!("{} proves nothing", self.proof.display()),
                error,
                "ask its giver for an undamaged copy, and the network for its key",
            )
        })?;
        if let Some(chain) = chain.filter(|chain| *chain != verified.header.chain) {
            let [its, ours] = [verified.header.chain, chain].map(hex::encode);
            return Err(Failure::new(
                Exit::Unproven,
                format!("{} proves nothing about this network", self.proof.display()),
                format!("it is of the chain {its}, and the network file names {ours}"),
                "use the network file of the network that the proof is about",
            ));
        }
        let value = describe(&verified);
        let is_absent = verified.slot.is_none() && verified.row.is_none();
        output.answer(&value, || to_text(&value, is_absent))
    }
}

fn network_key(text: &str) -> Outcome<NetworkKey> {
    let refuse = |why: String| {
        let next = "give the 192 hex digits that the network file calls network_key";
        Failure::new(Exit::Usage, "the network key cannot be read", why, next)
    };
    let bytes = hex::decode(text).map_err(|error| refuse(error.to_string()))?;
    let bytes: [u8; NETWORK_KEY_BYTES] =
        bytes.try_into().map_err(|bytes: Vec<u8>| refuse(format!("it has {} bytes, not 96", bytes.len())))?;
    light::network_key(&bytes).map_err(|error| refuse(error.to_string()))
}

/// Reads the file, at most one byte more than the largest proof has.
fn read(path: &Path) -> Outcome<Vec<u8>> {
    let failed = |error| Failure::file(path, "read", error);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(SYNC_PROOF_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn describe(verified: &Verified) -> Value {
    let header = &verified.header;
    let (kind, fields) = match verified.slot.as_ref().map(AnyRecord::read) {
        None => (NOTHING, Value::Null),
        Some(None) => ("record of a later version", Value::Null),
        Some(Some(record)) => (record.name, json!(record)),
    };
    let id = &verified.subject.id;
    let account = id.get(..32).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).map(Account);
    let (kind, account, fields) = match &verified.row {
        Some((account, row)) => ("payout", Some(*account), json!(row)),
        None => (kind, account, fields),
    };
    json!({
        "verified": true,
        "chain": hex::encode(header.chain),
        "height": header.height,
        "time_ms": header.time_ms,
        "account": account,
        "place": hex::encode(id.get(32..).unwrap_or_default()),
        "record": kind,
        "fields": fields,
        "checkpoint": Value::Null,
    })
}

/// Kind that stands for a record whose absence is proved.
const NOTHING: &str = "nothing";

fn to_text(value: &Value, is_absent: bool) -> String {
    let first = if is_absent {
        "proved: the state holds no such record at this height".to_owned()
    } else {
        format!("proved: this {} is in the state", plain(&value["record"]))
    };
    let mut lines = vec![first];
    for name in ["account", "chain", "height"] {
        if !value[name].is_null() {
            lines.push(format!("  {name:<16} {}", plain(&value[name])));
        }
    }
    if let Some(fields) = value["fields"].as_object() {
        lines.extend(fields.iter().map(|(name, field)| format!("  {name:<16} {}", plain(field))));
    }
    lines.push(
        "no checkpoint was given: a quorum of one past committee that kept its shares could have forged it"
            .into(),
    );
    lines.join("\n")
}

/// A value without the quotes of JSON; an amount of money in SYNC.
fn plain(value: &Value) -> String {
    let sync = value["sync"].as_str().map(|sync| format!("{sync} SYNC"));
    sync.or_else(|| value.as_str().map(str::to_owned)).unwrap_or_else(|| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absence_reads_in_plain_words() {
        let text = to_text(&json!({ "record": NOTHING, "height": 7, "account": null, "fields": null }), true);
        assert!(text.starts_with("proved: the state holds no such record at this height"), "{text}");
        assert!(text.contains("height           7") && !text.contains("this nothing"), "{text}");
    }

    #[test]
    fn a_wrong_key_is_explained() {
        for (key, why) in
            [("xyzt", "Invalid character"), ("00", "1 bytes"), (&"00".repeat(96), "network key")]
        {
            let failure = network_key(key).expect_err("not a key");
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.to_json().to_string().contains(why), "{key}: {}", failure.to_json());
        }
    }
}
