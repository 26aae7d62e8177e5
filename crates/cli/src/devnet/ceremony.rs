//! A new local network by the real ceremony: a process for each authority, which meet over loopback.
//!
//! Nobody deals the network key then, this process included: each authority has its own share alone.

use super::layout::Seat;
use crate::{
    commands::card::{self, Places},
    devnet::create::SUPPLY,
    failure::{Exit, Failure, Outcome},
    keys,
    network::Role,
    role::{GENESIS_FILE, KEY_FILE, settings::Settings},
    target,
};
use posync_node::{
    ceremony::{Choices, Draft},
    genesis::Genesis,
};
use posync_protocol::{Account, Amount};
use rand_core::CryptoRng;
use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Name of the draft in each authority's directory, and of the file with the lines of its screen.
const DRAFT_FILE: &str = "draft.json";
const SCREEN_FILE: &str = "ceremony.screen";
/// Advice after a ceremony that failed: the directory is no network yet, so `--fresh` does not clear it.
const AGAIN: &str = "mend what the reason names, remove the network's directory, and begin again";
/// Time between two looks at the processes.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Makes the authorities' keys and holds their ceremony. Returns the genesis, in which each of them has `each`
/// beside the other `accounts`, and the authorities' accounts in the order of their seats.
pub(super) fn hold(
    directory: &Path,
    seats: &[Seat],
    mut accounts: Vec<(Account, Amount)>,
    each: Amount,
    rng: &mut impl CryptoRng,
) -> Outcome<(Genesis, Vec<Account>)> {
    let (mut cards, mut members, mut authorities) = (Vec::new(), Vec::new(), Vec::new());
    for seat in seats {
        let Some(peers) = seat.peers else { continue };
        let own = directory.join(&seat.name);
        let key = keys::create(&own.join(KEY_FILE), rng)?;
        let mut settings = Settings::new(Role::Authority, &own);
        settings.set("private", "true")?;
        settings.set("listen", &peers.to_string())?;
        settings.write()?;
        let (advertise, service) = (peers.to_string(), seat.service.to_string());
        cards.push(card::write(&own, &key, &Places { advertise, egress: None, service, payout: None })?);
        authorities.push(keys::account(&key));
        accounts.push((keys::account(&key), each));
        members.push(own);
    }
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let start_ms = u64::try_from(since_1970.as_millis()).unwrap_or_default();
    let mut nonce = [0; 16];
    rng.fill_bytes(&mut nonce);
    let (parameters, overrides) = ("local".to_owned(), BTreeMap::new());
    let choices = Choices { parameters, overrides, supply: SUPPLY, accounts, cards, start_ms, nonce };
    let text = Draft::compose(choices).map_err(|error| {
        Failure::new(Exit::Failed, "cannot make a draft", error, "report this: it should not depend on you")
    })?;
    for own in &members {
        target::replace(&own.join(DRAFT_FILE), text.as_bytes())?;
    }
    attend(&members)?;
    let path = members[0].join(GENESIS_FILE);
    let bytes = fs::read(&path).map_err(|error| Failure::file(&path, "read", error))?;
    let genesis = Genesis::from_bytes(&bytes).map_err(|error| Failure::damaged(&path, error, AGAIN))?;
    Ok((genesis, authorities))
}

/// Runs `posync ceremony` for each of the directories; if one ends without a genesis, all end.
fn attend(members: &[PathBuf]) -> Outcome {
    let mut running = Vec::new();
    let held = members.iter().try_for_each(|own| {
        running.push((own, start(own)?));
        Ok(())
    });
    let held = held.and_then(|()| wait(&mut running));
    for (_, child) in &mut running {
        let _ = child.kill();
        let _ = child.wait();
    }
    held
}

fn start(own: &Path) -> Outcome<Child> {
    let program = env::current_exe().map_err(|error| Failure::file(Path::new("posync"), "find", error))?;
    let path = own.join(SCREEN_FILE);
    let screen = File::create(&path).map_err(|error| Failure::file(&path, "write", error))?;
    let mut command = Command::new(&program);
    command.args(["ceremony", "--child", "--dir"]).arg(own).arg(own.join(DRAFT_FILE));
    // The pipe ends with this process, and the child with the pipe.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(screen);
    command.spawn().map_err(|error| Failure::file(&program, "start", error))
}

/// Waits until every process has ended well. At a failure, all that have not ended are left in `running`.
fn wait(running: &mut Vec<(&PathBuf, Child)>) -> Outcome {
    while !running.is_empty() {
        let mut index = 0;
        while let Some((own, child)) = running.get_mut(index) {
            match child.try_wait() {
                Ok(None) => index += 1,
                Ok(Some(status)) if status.success() => drop(running.swap_remove(index)),
                ended => {
                    let screen = own.join(SCREEN_FILE);
                    let why = fs::read_to_string(&screen).unwrap_or_else(|error| error.to_string());
                    let what =
                        format!("the ceremony of {} ended without a genesis ({ended:?})", own.display());
                    return Err(Failure::new(Exit::Failed, what, why.trim(), AGAIN));
                }
            }
        }
        thread::park_timeout(LOOK_EVERY);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_fails_leaves_no_other_one_running() {
        let own = PathBuf::from("nowhere");
        let start = |program: &str| {
            let mut command = Command::new(program);
            // It reads until its input ends.
            command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts")
        };
        let mut running = vec![(&own, start("cat")), (&own, start("false")), (&own, start("cat"))];
        let waiting = [running[0].1.id(), running[2].1.id()];
        assert!(wait(&mut running).is_err(), "one of them failed");
        let left: Vec<u32> = running.iter().map(|(_, child)| child.id()).collect();
        assert!(waiting.iter().all(|id| left.contains(id)), "who started them ends them: {left:?}");
        for (_, child) in &mut running {
            let _ = child.kill();
            child.wait().expect("it ends");
        }
    }
}
