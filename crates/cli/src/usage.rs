//! Reports an unreadable command line like any other failure: what, why, what next; JSON with `--json`.

use crate::failure::{Exit, Failure};
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};
use std::{env, process::ExitCode};

/// Prints the help or the failure; returns the exit code.
pub(crate) fn report(error: &Error) -> ExitCode {
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    let negative = negative(error);
    let failure = match &negative {
        Some(number) => below_zero(number),
        None => unreadable(error),
    };
    let json = env::args_os().skip(1).take_while(|word| word != "--").any(|word| word == "--json");
    if json && !is_help {
        eprintln!("{}", failure.to_json());
    } else if negative.is_some() {
        eprintln!("{:?}", miette::Report::new(failure));
    } else {
        // Standard output or error may be closed: it has no reader then.
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8))
}

/// The argument that clap took for an option because it is a negative number.
fn negative(error: &Error) -> Option<String> {
    let ContextValue::String(word) = error.get(ContextKind::InvalidArg)? else { return None };
    let is_unknown = error.kind() == ErrorKind::UnknownArgument;
    let digits = word.strip_prefix('-')?;
    (is_unknown && digits.starts_with(|first: char| first.is_ascii_digit() || first == '.'))
        .then(|| word.clone())
}

fn below_zero(number: &str) -> Failure {
    // Clap reports the first digit only; the message shows the whole argument.
    let typed = env::args().skip(1).find(|word| word.starts_with(number));
    let typed = typed.unwrap_or_else(|| number.to_owned());
    Failure::new(
        Exit::Usage,
        format!("'{typed}' is below zero"),
        "amounts, lengths, heights and epochs begin at zero",
        "give a number without a sign",
    )
}

fn unreadable(error: &Error) -> Failure {
    let text = error.render().to_string();
    let why = text.trim_start_matches("error: ").split("\n\nUsage:").next().unwrap_or_default();
    let why = why.split("\n\nFor more information").next().unwrap_or_default().trim();
    let next = "look at `posync help` and `posync help COMMAND`";
    Failure::new(Exit::Usage, "the command line cannot be read", why, next)
}
