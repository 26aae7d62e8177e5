//! `posync`: start a network, store files on it, check what it proves.
//!
//! One file per command under `commands`. A command gets its arguments and an [`Output`], and
//! returns a [`Failure`] that says what happened, why and what to do next; this file turns it into
//! an exit code. Secrets come from files only, never from arguments or the environment.

mod commands;
mod demo;
mod descriptors;
mod devnet;
mod egress;
mod failure;
mod gateway;
mod interrupt;
mod keys;
mod ledger;
mod log;
mod network;
mod output;
mod provider;
mod pulse;
mod ready;
mod records;
mod replay;
mod session;
mod source;
mod tally;
mod target;
mod usage;
mod wait;

use clap::{Parser, Subcommand};
use commands::examples;
use failure::{Exit, Failure, Outcome};
use output::Output;
use std::{
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
    /// Directory of the network to talk to (its devnet.json)
    /// [env: POSYNC_NET] [default: devnet]
    #[arg(long, global = true, value_name = "DIR")]
    net: Option<PathBuf>,
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
    /// Check a proof with the network key alone
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
    /// Simulate the economics at scale: honest worlds, attacks, prices, scores
    Sim(commands::sim::Sim),
    /// Run one member in its directory (started by `devnet`)
    #[command(name = devnet::supervise::COMMAND, hide = true)]
    RunRole(devnet::role::RunRole),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage::report(&error),
    };
    let output = Output { json: arguments.json };
    if let Command::RunRole(command) = arguments.command {
        log::member(command.directory());
        return match command.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                tracing::error!("{}", failure.in_one_line());
                ExitCode::from(failure.exit as u8)
            }
        };
    }
    log::command();
    match descriptors::ensure("a command", descriptors::COMMAND).and_then(|()| run(arguments, output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(failure, output),
    }
}

fn run(arguments: Arguments, output: Output) -> Outcome {
    let named = || std::env::var_os(NET).filter(|value| !value.is_empty()).map(PathBuf::from);
    let net = arguments.net.or_else(named).unwrap_or_else(|| "devnet".into());
    match arguments.command {
        Command::Demo(command) => command.run(output),
        Command::Devnet(command) => command.run(&net, output),
        Command::Card(command) => command.run(output),
        Command::Ceremony(command) => command.run(output),
        Command::Put(command) => command.run(&net, output),
        Command::Get(command) => command.run(&net, output),
        Command::Ls(command) => command.run(&net, output),
        Command::Rm(command) => command.run(&net, output),
        Command::Send(command) => command.run(&net, output),
        Command::Account(command) => command.run(&net, output),
        Command::Status(command) => command.run(&net, output),
        Command::Providers(command) => command.run(&net, output),
        Command::Agreements(command) => command.run(&net, output),
        Command::Gateway(command) => command.run(&net, output),
        Command::Prices(command) => command.run(&net, output),
        Command::Why(command) => command.run(&net, output),
        Command::Watch(command) => command.run(&net, output),
        Command::Prove(command) => command.run(&net, output),
        Command::Verify(command) => command.run(output),
        Command::Blocks(command) => command.run(&net, output),
        Command::Explain(command) => command.run(&net, output),
        Command::Recompute(command) => command.run(&net, output),
        Command::Sim(command) => command.run(output),
        Command::RunRole(command) => command.run(),
    }
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
    use clap::CommandFactory as _;

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
}
