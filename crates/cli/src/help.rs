//! The command line as its help shows it: an option that names a network, a key or a gateway stands in the help of the
//! commands that use it alone. All commands accept it, so that a line may begin with it.

use clap::{Arg, Command};

/// Options that all commands share.
const SHARED: [&str; 3] = ["net", "key", "gateway"];

/// The shared options that a command uses.
fn used(command: &str) -> &'static [&'static str] {
    match command {
        // They read a network or make a directory for one.
        "devnet" | "init" | "join" | "verify" | "gateway" => &SHARED[..1],
        // What is public is answered to anyone.
        "providers" | "prices" | "watch" | "prove" | "blocks" | "explain" | "recompute" | "net" => {
            &SHARED[..1]
        }
        "send" | "account" => &SHARED[..2],
        "put" | "get" | "ls" | "rm" | "status" | "agreements" | "why" => &SHARED,
        // They name a directory of their own, or need no network.
        _ => &[],
    }
}

/// Hides the shared options from the help of the commands that do not use them.
pub(crate) fn without_unused_options(mut command: Command) -> Command {
    let shared: Vec<Arg> =
        command.get_arguments().filter(|arg| SHARED.contains(&arg.get_id().as_str())).cloned().collect();
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        let unused = shared.iter().filter(|arg| !used(&name).contains(&arg.get_id().as_str()));
        // A subcommand's own option of the same name is not replaced by the global one.
        let hidden: Vec<Arg> = unused.map(|arg| arg.clone().hide(true)).collect();
        command = command.mut_subcommand(name, |sub| sub.args(hidden));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Arguments;
    use clap::{CommandFactory as _, FromArgMatches as _};
    use std::ffi::OsStr;

    fn help(words: &[&str]) -> String {
        let line = ["posync"].iter().chain(words).chain(&["--help"]);
        let command = without_unused_options(Arguments::command());
        command.try_get_matches_from(line).expect_err("it prints the help").to_string()
    }

    #[test]
    fn the_help_of_a_command_shows_the_shared_options_that_it_uses_and_no_others() {
        for command in Arguments::command().get_subcommands() {
            let text = help(&[command.get_name()]);
            for (option, shown) in SHARED.iter().zip(["--net <FILE", "--key <FILE", "--gateway <ACCOUNT"]) {
                let is_used = used(command.get_name()).contains(option);
                assert_eq!(text.contains(shown), is_used, "{}: {text}", command.get_name());
            }
        }
        assert!(!help(&["key", "new"]).contains("--net <FILE"), "nor that of its parts");
        assert!(help(&["prove", "account"]).contains("--net <FILE"));
    }

    #[test]
    fn a_hidden_option_is_accepted_before_a_command_and_after_it() {
        let parsed = |words: &[&str]| {
            let matches = without_unused_options(Arguments::command()).try_get_matches_from(words);
            Arguments::from_arg_matches(&matches.expect("it parses")).expect("it parses")
        };
        for words in [
            ["posync", "--net", "there", "key", "show", "file"],
            ["posync", "key", "--net", "there", "show", "file"],
            ["posync", "key", "show", "file", "--net", "there"],
        ] {
            assert_eq!(parsed(&words).net.as_deref(), Some(OsStr::new("there")), "{words:?}");
        }
        let of_gateway = parsed(&["posync", "recompute", "3", "--key", "k", "--net", "there"]);
        assert_eq!(of_gateway.key.as_deref(), Some(std::path::Path::new("k")));
    }
}
