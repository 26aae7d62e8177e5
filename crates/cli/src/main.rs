//! `posync`: start a network, store files on it, check what it proves.
//!
//! One file per command under `commands`. A command gets its arguments and an [`Output`], and
//! returns a [`Failure`] that says what happened, why and what to do next; this file turns it into
//! an exit code. Keys come from files only, never from arguments or the environment.

mod checks;
mod commands;
mod demo;
mod descriptors;
mod devnet;
mod egress;
mod failure;
mod gateway;
mod help;
mod interrupt;
mod jail_term;
mod keys;
mod ledger;
mod liveness;
mod log;
mod net;
mod network;
mod output;
mod provider;
mod ready;
mod records;
mod replay;
mod role;
mod session;
mod source;
mod tally;
mod target;
mod usage;
mod wait;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use commands::examples;
use failure::{Exit, Failure, Outcome};
use net::Access;
use output::Output;
use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rent and provide storage on a network that proves what it keeps.
#[derive(Debug, Parser)]
#[command(name = "posync", version, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    /// The network to talk to: a network file, its posync1... line, or a directory that holds one
    /// [env: POSYNC_NET] [default: devnet]
    #[arg(long, global = true, value_name = "FILE|LINE|DIR")]
    net: Option<OsString>,
    /// Your key file, or a directory of your own that holds it; the one in the directory of --net if not given
    #[arg(long, global = true, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The gateway to use; the one of the network file if not given
    #[arg(long, global = true, value_name = "ACCOUNT@HOST:PORT")]
    gateway: Option<String>,
    /// Print one JSON value instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// Environment variable with the network's directory, used without `--net`; an empty value counts as unset.
const NET: &str = "POSYNC_NET";

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a local network, store a file on it, break it on purpose, and check what it proves
    #[command(after_long_help = examples::DEMO)]
    Demo(commands::demo::Demo),
    /// Run a network of processes on this machine until it is stopped
    #[command(after_long_help = examples::DEVNET)]
    Devnet(commands::devnet::Devnet),
    /// Make the card that this machine's authority gives to the others before there is a network
    Card(commands::card::Card),
    /// Make a network with the other authorities, so that no one ever holds its key
    Ceremony(commands::ceremony::Ceremony),
    /// Store a file under a name
    #[command(after_long_help = examples::PUT)]
    Put(commands::put::Put),
    /// Read a file back
    #[command(after_long_help = examples::GET)]
    Get(commands::get::Get),
    /// List the stored files
    #[command(after_long_help = examples::LS)]
    Ls(commands::ls::Ls),
    /// Remove a stored file; its space becomes free
    #[command(after_long_help = examples::RM)]
    Rm(commands::rm::Rm),
    /// Send money to an account
    #[command(after_long_help = examples::SEND)]
    Send(commands::send::Send),
    /// Show an account, its balance and its next nonce; your own if none is named
    #[command(after_long_help = examples::ACCOUNT)]
    Account(commands::account::Account),
    /// Make the key of a person, or show the account of a key
    #[command(after_long_help = examples::KEY)]
    Key(commands::key::Key),
    /// Show the state of the network: newest block, processes, money, authorities
    #[command(after_long_help = examples::STATUS)]
    Status(commands::status::Status),
    /// List providers: what they store, how they were audited, what they earned
    #[command(after_long_help = examples::PROVIDERS)]
    Providers(commands::providers::Providers),
    /// List the gateway's agreements with providers: what they store, what was signed for, when they end
    Agreements(commands::agreements::Agreements),
    /// Back up the gateway's catalogue, which says where every file is, or restore it
    Gateway(commands::gateway::Gateway),
    /// Show what storage and egress cost, and what moves their prices
    Prices(commands::prices::Prices),
    /// Explain why a provider gets shards or not, and how the ledger sees it
    #[command(after_long_help = examples::WHY)]
    Why(commands::why::Why),
    /// Report what is about to go wrong with providers, until it is stopped
    Watch(commands::watch::Watch),
    /// Export a proof of one record, for anyone to check offline
    #[command(after_long_help = examples::PROVE)]
    Prove(commands::prove::Prove),
    /// Check a proof with the network key or the network file alone
    #[command(after_long_help = examples::VERIFY)]
    Verify(commands::verify::Verify),
    /// Show blocks; with --json everything in them, one block a line
    #[command(after_long_help = examples::BLOCKS)]
    Blocks(commands::blocks::Blocks),
    /// Explain a provider's pay line by line, with every input and its block
    #[command(after_long_help = examples::EXPLAIN)]
    Explain(commands::explain::Explain),
    /// Rebuild an epoch's books from blocks alone and compare with the ledger
    Recompute(commands::recompute::Recompute),
    /// Run a WebAssembly program on this machine, as a provider would run it
    ///
    /// Equal programs and inputs give equal results on every machine, and equal gas. Only local runs exist so far.
    /// Once programs run on the network, their provider and its auditors will see program and input in clear: do
    /// not plan to give them a secret.
    #[command(after_long_help = examples::RUN)]
    Run(commands::run::Run),
    /// The child process of `run`
    #[command(hide = true)]
    Lane(commands::lane::Lane),
    /// Simulate the economics at scale: honest worlds, attacks, prices, scores
    Sim(commands::sim::Sim),
    /// Make the directory of a role: its key and its settings
    Init(role::init::Init),
    /// Run the role of a directory until a signal ends it
    Start(role::start::Start),
    /// Join a network: make the directory, wait for the money, check the machine, register, serve
    Join(commands::join::Join),
    /// Check the machine of a role, its port, the nodes, and the way in from outside
    Doctor(commands::doctor::Doctor),
    /// Leave a network as a provider, and show when the machine may be switched off
    Leave(commands::leave::Leave),
    /// Show a provider's bond, and add to it
    Bond(commands::bond::Bond),
    /// Release a provider from jail once its term is over, for a price that is burned
    Unjail(commands::unjail::Unjail),
    /// Show, check or renew a network file
    Net(commands::net::NetCommand),
}

fn main() -> ExitCode {
    let matches = help::without_unused_options(Arguments::command()).try_get_matches();
    let arguments = match matches.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => return usage::report(&error),
    };
    let output = Output { json: arguments.json };
    if let Command::Start(command) = arguments.command {
        return start(command);
    }
    // A member's log is another one, and needs its directory first.
    if !matches!(arguments.command, Command::Join(_)) {
        log::command();
    }
    descriptors::ensure("a command", descriptors::COMMAND)
        .and_then(|()| run(arguments, output))
        .unwrap_or_else(|failure| report(failure, output))
}

/// Runs a role; its failure is the last line of its log.
fn start(command: role::start::Start) -> ExitCode {
    let settings = command.settings();
    let to_file = settings.as_ref().is_ok_and(|settings| settings.text("log").is_ok_and(|log| log == "file"));
    let apart = log::member(command.directory(), to_file);
    match settings.and_then(|settings| command.run(&settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!("{}", failure.in_one_line());
            if apart {
                // The parent process can read why it ended, wherever the log is.
                let _ = writeln!(io::stderr(), "{}", failure.in_one_line());
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// Runs a command; the exit code is 0 for all but those that pass on a program's.
fn run(arguments: Arguments, output: Output) -> Outcome<ExitCode> {
    let named = || std::env::var_os(NET).filter(|value| !value.is_empty());
    let Arguments { net, key, gateway, command, .. } = arguments;
    let net = net.or_else(named);
    let is_named = net.is_some();
    let net = &Access { net: net.unwrap_or_else(|| "devnet".into()), key, gateway };
    let done = match command {
        Command::Demo(command) => command.run(output),
        Command::Devnet(command) => command.run(net, output),
        Command::Card(command) => command.run(output),
        Command::Ceremony(command) => command.run(output),
        Command::Put(command) => command.run(net, output),
        Command::Get(command) => command.run(net, output),
        Command::Ls(command) => command.run(net, output),
        Command::Rm(command) => command.run(net, output),
        Command::Send(command) => command.run(net, output),
        Command::Account(command) => command.run(net, output),
        Command::Key(command) => command.run(output),
        Command::Status(command) => command.run(net, output),
        Command::Providers(command) => command.run(net, output),
        Command::Agreements(command) => command.run(net, output),
        Command::Gateway(command) => command.run(net, output),
        Command::Prices(command) => command.run(net, output),
        Command::Why(command) => command.run(net, output),
        Command::Watch(command) => command.run(net, output),
        Command::Prove(command) => command.run(net, output),
        Command::Verify(command) => command.run(is_named.then_some(net), output),
        Command::Blocks(command) => command.run(net, output),
        Command::Explain(command) => command.run(net, output),
        Command::Recompute(command) => command.run(net, output),
        Command::Run(command) => return command.run(output).map(ExitCode::from),
        Command::Lane(command) => return Ok(command.run()),
        Command::Sim(command) => command.run(output),
        Command::Init(command) => command.run(is_named.then_some(net), output),
        Command::Start(command) => command.settings().and_then(|settings| command.run(&settings)),
        Command::Join(command) => command.run(is_named.then_some(net), output),
        Command::Doctor(command) => command.run(output),
        Command::Leave(command) => command.run(output),
        Command::Bond(command) => command.run(output),
        Command::Unjail(command) => command.run(output),
        Command::Net(command) => command.run(net, output),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn report(failure: Failure, output: Output) -> ExitCode {
    let code = ExitCode::from(failure.exit as u8);
    if failure.exit == Exit::Closed {
        return code;
    }
    // A reader that closed standard error does not want the message.
    let _ = if output.json {
        writeln!(io::stderr(), "{}", failure.to_json())
    } else {
        writeln!(io::stderr(), "{:?}", miette::Report::new(failure))
    };
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    /// The command of an example: what stands before its effect, and beside a pipe or a redirection.
    fn command(line: &str) -> &str {
        let typed = line.trim().split("  ").next().unwrap_or_default();
        let ours = typed.split(['|', '>']).find(|part| part.trim().starts_with("posync"));
        ours.unwrap_or_else(|| panic!("no command in: {line}"))
    }

    #[test]
    fn every_example_in_the_help_is_a_command_that_parses() {
        let mut seen = 0;
        for shown in Arguments::command().get_subcommands() {
            let Some(text) = shown.get_after_long_help().map(ToString::to_string) else { continue };
            for line in text.lines().skip(1) {
                let words = command(line).split_whitespace();
                let parsed = Arguments::try_parse_from(words);
                assert!(parsed.is_ok(), "{}: {line}: {:?}", shown.get_name(), parsed.err());
                seen += 1;
            }
        }
        assert!(seen >= 20, "only {seen} examples were found");
    }

    /// Command lines in a file of `ops`: what systemd and containers start, without the program's name.
    fn started(text: &str) -> Vec<Vec<String>> {
        let mut all = Vec::new();
        for line in text.lines().map(str::trim) {
            let list = line.strip_prefix("CMD ").or_else(|| line.strip_prefix("command: "));
            if let Some(line) = line.strip_prefix("ExecStart=/usr/local/bin/posync ") {
                all.push(line.replace("%i", "main").split_whitespace().map(str::to_owned).collect());
            } else if let Some(list) = list {
                all.push(serde_json::from_str(list).expect("a list of words"));
            }
        }
        all
    }

    #[test]
    fn what_supervisors_start_is_a_command_with_flags_that_exist() {
        let ops = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ops");
        let unit = |role: network::Role| format!("systemd/posync-{role}@.service");
        let units = network::Role::ALL.map(unit);
        let others = ["container/Containerfile", "container/compose.yaml"].map(str::to_owned);
        for name in units.iter().chain(&others) {
            let text = fs::read_to_string(ops.join(name)).expect(name);
            let lines = started(&text);
            assert_eq!(lines.len(), 1, "{name}");
            let words = ["posync".to_owned()].into_iter().chain(lines[0].clone());
            let arguments =
                Arguments::try_parse_from(words).unwrap_or_else(|error| panic!("{name}: {error}"));
            let Command::Start(start) = arguments.command else { panic!("{name} starts no role") };
            if let Some(unit) = name.strip_prefix("systemd/posync-") {
                let role = unit.strip_suffix("@.service").expect("a template");
                assert_eq!(start.directory(), Path::new(&format!("/var/lib/posync/{role}-main")), "{name}");
                assert!(text.contains(&format!("StateDirectory=posync/{role}-%i")), "{name}");
                let files = text.lines().find_map(|line| line.strip_prefix("LimitNOFILE="));
                let files: u64 = files.and_then(|files| files.parse().ok()).expect("a number");
                assert!(files >= posync_client::descriptors::MEMBER, "{name}");
            }
        }
        assert_eq!(fs::read_dir(ops.join("systemd")).expect("there").count(), units.len(), "no other unit");
    }
}
