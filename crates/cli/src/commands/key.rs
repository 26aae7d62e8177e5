//! `posync key new|show`: makes the key of a person, and names the account of a key.
//!
//! A member's key is made by `posync init` and `posync join`. A person's key owns files and sends money.

use crate::{failure::Outcome, keys, output::Output};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Command-line arguments of `posync key`.
#[derive(Debug, clap::Args)]
pub(crate) struct Key {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a key, in a file that only you can read; an existing file is never overwritten
    New {
        /// The file to write
        file: PathBuf,
    },
    /// Print the account of a key; needs no network
    Show {
        /// The file that holds the key
        file: PathBuf,
    },
}

impl Key {
    /// Makes a key, or reads one, and prints its account.
    pub(crate) fn run(self, output: Output) -> Outcome {
        match self.command {
            Command::New { file } => {
                let key = keys::create(&file, &mut commonware_utils::sys_rng())?;
                answer(&file, &key, output, |account| {
                    format!(
                        "account   {account}\nkey       {}\n\nKeep a copy of this file in a safe place: nobody \
                         can make it again, and any person who has it owns the account.",
                        file.display()
                    )
                })
            }
            Command::Show { file } => {
                let key = keys::read(&file)?;
                answer(&file, &key, output, |account| format!("account   {account}"))
            }
        }
    }
}

fn answer(
    file: &Path,
    key: &commonware_cryptography::ed25519::PrivateKey,
    output: Output,
    text: impl FnOnce(&str) -> String,
) -> Outcome {
    let account = keys::account(key).to_string();
    output.answer(&json!({ "account": account, "key": file }), || text(&account))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    #[test]
    fn a_new_key_is_private_and_never_overwrites_a_file() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let file = home.path().join("me.key");
        let run = |command| Key { command }.run(Output { json: true });
        run(Command::New { file: file.clone() }).expect("written");
        let mode = fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{mode:o}");
        let first = fs::read(&file).expect("readable");
        assert!(run(Command::New { file: file.clone() }).is_err(), "the key would be gone");
        assert_eq!(fs::read(&file).expect("readable"), first);
        run(Command::Show { file }).expect("it is a key");
    }
}
