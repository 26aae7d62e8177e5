//! `posync status`: height, processes and money of the network.

use crate::{
    failure::Outcome,
    gateway::Gateway,
    ledger::Ledger,
    liveness::Liveness,
    net::{Access, Net},
    output::{Output, table},
    session,
};
use posync_protocol::record::{Seat, System};
use rustix::process::{Pid, test_kill_process};
use serde_json::{Value, json};

/// Command-line arguments of `posync status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {}

impl Status {
    /// Prints height, consensus, processes, money and the gateway's state.
    pub(crate) fn run(self, access: &Access, output: Output) -> Outcome {
        let net = Net::open(access)?;
        session::run(async |context| {
            let ledger = Ledger::open(&context, &net).await?;
            let liveness = Liveness::take(&ledger, &net).await;
            let system: System = ledger.read(System::key()).await?.unwrap_or_default();
            let gateway = match Gateway::connect(&context, &net).await {
                // The gateway may serve other accounts only; the network's state is public all the same.
                Ok(gateway) => gateway.status().await.ok(),
                Err(_) => None,
            };
            let seats = read_seats(&ledger, &net).await?;
            let parameters = ledger.parameters();
            let height = liveness.height;
            let alive = |pid| pid > 0 && Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid).is_ok());
            let members: Vec<Value> = net
                .members
                .iter()
                .map(|node| {
                    json!({ "name": node.name, "role": node.role, "pid": node.pid,
                        "running": alive(node.pid.cast_signed()), "address": node.address })
                })
                .collect();
            let value = json!({ "network_key": net.network_key(), "chain": net.chain(), "height": height,
                "round": parameters.round(height), "epoch": parameters.epoch(height), "consensus": liveness.to_json(),
                "system": system, "accounted": system.accounted(),
                "gateway": gateway, "seats": seats.iter().map(seat_json).collect::<Vec<_>>(), "members": members });
            output.answer(&value, || {
                let no_gateway =
                    if net.gateway().is_ok() { "does not answer" } else { "none named (--gateway)" };
                format!("network   {}\n{}", liveness.to_text(), to_text(&value, &system, &seats, no_gateway))
            })
        })
    }
}

/// The seats of the nodes, with their names.
async fn read_seats(ledger: &Ledger, net: &Net) -> Outcome<Vec<(String, Seat)>> {
    let mut seats = Vec::new();
    for node in &net.file.nodes {
        let seat: Option<Seat> = ledger.read(Seat::key(&node.account)).await?;
        seats.extend(seat.map(|seat| (net.name(node), seat)));
    }
    Ok(seats)
}

fn seat_json((name, seat): &(String, Seat)) -> Value {
    let mut value = json!(seat);
    value["name"] = name.as_str().into();
    value
}

fn seats_table(seats: &[(String, Seat)], epoch: u64) -> String {
    let row = |(name, seat): &(String, Seat)| {
        let jailed = seat.jailed.map_or("no".into(), |height| format!("since block {height}"));
        let credits = seat.credits[Seat::place(epoch)].to_string();
        vec![
            name.clone(),
            seat.bond.to_string(),
            credits,
            seat.paid.to_string(),
            seat.slashed.to_string(),
            jailed,
        ]
    };
    let rows: Vec<Vec<String>> = seats.iter().map(row).collect();
    table(&["seat", "bond SYNC", "credits", "paid SYNC", "slashed", "jailed"], &rows)
}

/// The bytes of the accounts that the gateway serves, if they are more than the caller itself.
fn users_table(users: &[Value]) -> String {
    let row = |user: &Value| {
        let quota = match (user["listed"] == true, user["quota"].as_u64()) {
            (false, _) => "not listed".into(),
            (true, None) => "none".into(),
            (true, Some(quota)) => quota.to_string(),
        };
        let number = |name: &str| user[name].to_string();
        let account = user["account"].as_str().unwrap_or_default().to_owned();
        vec![account, number("files"), number("bytes"), number("pending"), quota]
    };
    let rows: Vec<Vec<String>> = users.iter().map(row).collect();
    format!("\n\n{}", table(&["user of the gateway", "files", "bytes", "of them pending", "quota"], &rows))
}

/// The text for people; `no_gateway` stands there if no gateway gave its state.
fn to_text(value: &Value, system: &System, seats: &[(String, Seat)], no_gateway: &str) -> String {
    let empty = Vec::new();
    let members = value["members"].as_array().unwrap_or(&empty);
    let rows: Vec<Vec<String>> = members
        .iter()
        .map(|member| {
            let running = if member["running"] == true { "running" } else { "stopped" };
            let text = |name: &str| member[name].as_str().unwrap_or_default().to_owned();
            vec![text("name"), running.into(), member["pid"].to_string(), text("address")]
        })
        .collect();
    let users = value["gateway"]["users"].as_array().unwrap_or(&empty);
    let has_quota = users.iter().any(|user| user["quota"].is_u64());
    let users = if users.len() > 1 || has_quota { users_table(users) } else { String::new() };
    let gateway = match value["gateway"]["files"].as_u64() {
        Some(files) => format!(
            "{files} files, {} shards wait for repair, {} faults seen",
            value["gateway"]["repairs_open"],
            value["gateway"]["faults"].as_array().map_or(0, Vec::len)
        ),
        None => no_gateway.into(),
    };
    let members = if rows.is_empty() {
        String::new()
    } else {
        format!("{}\n\n", table(&["member", "state", "pid", "address"], &rows))
    };
    format!(
        "height    {} (round {}, epoch {})\nledger    {} providers, {} agreements\nmoney     {} SYNC with \
         members, {} in pools, {} burned, {} reserve\ngateway   {gateway}\n\n{members}{}{users}",
        value["height"],
        value["round"],
        value["epoch"],
        system.providers,
        system.agreements,
        system.balances,
        system.storage_pools,
        system.burned,
        system.reserve,
        seats_table(seats, value["epoch"].as_u64().unwrap_or_default())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_without_processes_or_a_gateway_of_its_own_shows_no_empty_table_and_the_reason() {
        let text = |value: &Value| to_text(value, &System::default(), &[], "none named (--gateway)");
        let bare = text(&json!({ "height": 7, "members": [] }));
        assert!(bare.contains("gateway   none named (--gateway)") && !bare.contains("pid"), "{bare}");
        let one = json!({ "name": "gateway", "role": "gateway", "pid": 0, "address": "127.0.0.1:7" });
        let full = text(&json!({ "members": [one], "gateway": { "files": 3 } }));
        assert!(full.contains("pid") && full.contains("3 files") && !full.contains("none named"), "{full}");
    }
}
