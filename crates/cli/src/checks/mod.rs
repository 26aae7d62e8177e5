//! The checks of a role's machine and network, for `posync doctor` and `posync join`.
//!
//! ```text
//!   directory ─► key, network file ─► machine: descriptors, disk, address, clock of this machine
//!                                  ├► outside: ports, nodes, clock against blocks, dial-back by nodes to each door
//!                                  └► jail: a provider's term in jail
//! ```
//!
//! They change nothing: what they write or open is gone when they end.

mod door;
mod jail;
pub(crate) mod machine;
mod outside;

use crate::{
    failure::{Exit, Failure, Outcome},
    net,
    output::Output,
    role::settings::Settings,
};
use commonware_runtime::tokio::Context;
use serde::Serialize;
use std::path::Path;

/// The judgement of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Nothing is to be done.
    Ok,
    /// The role can run, but less well, or the check could not be made.
    Warn,
    /// The role cannot do its work until this is mended.
    Fail,
}

/// One check: its result, the reason, and the next step of the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// Short name, the same in every run.
    pub(crate) name: &'static str,
    /// Judgement, which decides the exit code.
    pub(crate) state: State,
    /// Finding, in one sentence.
    pub(crate) what: String,
    /// Reason; empty if there is nothing to explain.
    pub(crate) why: String,
    /// Next step; empty if there is nothing to do.
    pub(crate) next: String,
}

impl Check {
    fn ok(name: &'static str, what: impl Into<String>) -> Self {
        Self { name, state: State::Ok, what: what.into(), why: String::new(), next: String::new() }
    }

    fn warn(
        name: &'static str,
        what: impl Into<String>,
        why: impl ToString,
        next: impl Into<String>,
    ) -> Self {
        Self { name, state: State::Warn, what: what.into(), why: why.to_string(), next: next.into() }
    }

    fn fail(
        name: &'static str,
        what: impl Into<String>,
        why: impl ToString,
        next: impl Into<String>,
    ) -> Self {
        Self { state: State::Fail, ..Self::warn(name, what, why, next) }
    }

    fn failed(name: &'static str, failure: &Failure) -> Self {
        let [what, why, next] = failure.parts();
        Self::fail(name, what, why, next)
    }

    /// The check in lines for people.
    pub(crate) fn to_text(&self) -> String {
        let Self { name, state, what, why, next } = self;
        let state = match state {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "FAIL",
        };
        let mut text = format!("{state:<5} {name:<12} {what}");
        for (label, more) in [("why", why), ("next", next)] {
            if !more.is_empty() {
                text += &format!("\n{:18} {label}: {}", "", more.replace('\n', &format!("\n{:24}", "")));
            }
        }
        text
    }
}

/// Makes all checks of the role in `directory`.
pub(crate) async fn all(context: &Context, directory: &Path) -> Vec<Check> {
    let settings = match Settings::read(directory) {
        Ok(settings) => settings,
        Err(failure) => return vec![Check::failed("directory", &failure)],
    };
    let mut checks = machine::checks(&settings);
    let key = settings.key();
    checks.push(match &key {
        Ok(_) => Check::ok("key", "the key of the role can be read"),
        Err(failure) => Check::failed("key", failure),
    });
    if outside::awaits_a_ceremony(&settings) {
        checks.extend(outside::before_the_ceremony(&settings));
        return checks;
    }
    match (net::of_role(&settings), key) {
        (Ok(net), Ok(key)) => {
            checks.extend(outside::checks(context, &settings, &net, &key).await);
            checks.extend(jail::check(context, &settings, &net, &key).await);
        }
        (Err(failure), _) => checks.push(Check::failed("network", &failure)),
        (Ok(_), Err(_)) => {}
    }
    checks
}

/// Prints the checks, each with what, why and what to do next.
///
/// # Errors
/// [`Failure`] if one of them failed; it names all that did.
pub(crate) fn report(checks: &[Check], output: Output) -> Outcome {
    let failed: Vec<&Check> = checks.iter().filter(|check| check.state == State::Fail).collect();
    let value = serde_json::json!({ "ok": failed.is_empty(), "checks": checks });
    output.answer(&value, || checks.iter().map(Check::to_text).collect::<Vec<_>>().join("\n"))?;
    if failed.is_empty() {
        return Ok(());
    }
    let line = |check: &&Check| format!("{}: {}", check.name, check.what);
    let why = failed.iter().map(line).collect::<Vec<_>>().join("\n");
    let next = failed.iter().map(|check| check.next.as_str()).collect::<Vec<_>>().join("\n");
    Err(Failure::new(Exit::Failed, format!("{} of {} checks failed", failed.len(), checks.len()), why, next))
}
