//! `posync devnet`: a network of processes on this machine, until it is stopped. A member that
//! ends is reported and restarted, alone: the network is built to survive that.

use super::watch::hook;
use crate::{
    descriptors,
    devnet::{
        layout,
        running::{Running, Size, clear},
    },
    failure::{Failure, Outcome},
    interrupt::Asked,
    net::Access,
    network::Role,
    output::Output,
    ready, session,
};
use posync_client::descriptors::MEMBER;
use std::{
    cell::RefCell,
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

/// Time between two looks at the members.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Command-line arguments of `posync devnet`.
#[derive(Debug, clap::Args)]
pub(crate) struct Devnet {
    /// Authorities that order blocks (4 if not given)
    #[arg(long, value_parser = clap::value_parser!(u16).range(i64::from(*layout::AUTHORITIES.start())..=i64::from(*layout::AUTHORITIES.end())))]
    authorities: Option<u16>,
    /// Providers that keep shards, each of its own operator (10 if not given)
    #[arg(long, value_parser = clap::value_parser!(u16).range(i64::from(*layout::PROVIDERS.start())..=i64::from(*layout::PROVIDERS.end())))]
    providers: Option<u16>,
    /// Make the key of a new network by a ceremony of its authorities, instead of dealing it; takes some seconds
    #[arg(long)]
    ceremony: bool,
    /// The network's directory; the one of --net if not given
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Remove the network in the directory first
    #[arg(long)]
    fresh: bool,
    /// Milliseconds between blocks while no operation waits, kept in each authority's config.toml; a new network has 600
    #[arg(long, value_name = "MS")]
    quiet_ms: Option<u16>,
    /// Address to which members post their alerts as JSON; kept in each one's config.toml
    #[arg(long, value_name = "URL")]
    alert_url: Option<String>,
    /// Certificate authorities (PEM) that may have signed that host's certificate; the public ones if not given
    #[arg(long, value_name = "FILE", requires = "alert_url")]
    alert_ca: Option<PathBuf>,
}

/// Makes a path absolute: members run in directories of their own.
fn absolute(path: PathBuf) -> Outcome<PathBuf> {
    std::path::absolute(&path).map_err(|error| Failure::file(&path, "resolve", error))
}

impl Devnet {
    /// Runs `posync devnet` until a signal.
    pub(crate) fn run(self, net: &Access, output: Output) -> Outcome {
        let directory = self.dir.unwrap_or_else(|| net.directory().to_path_buf());
        hook(self.alert_url.as_deref(), self.alert_ca.as_deref())?;
        if self.fresh {
            // Nothing is removed for a network that cannot start.
            descriptors::ensure("a member of the network", MEMBER)?;
            clear(&directory)?;
        }
        let Self { authorities, providers, ceremony: by_ceremony, quiet_ms, alert_url, alert_ca, .. } = self;
        let alert_ca = alert_ca.map(absolute).transpose()?;
        let size = Size { authorities, providers, by_ceremony, alert_url, alert_ca, grace: None, quiet_ms };
        let running = RefCell::new(Running::start(&directory, &size)?);
        let result = session::until_done(async |context| {
            let mut asked = Asked::listen()?;
            let ready = async {
                let (height, late) = ready::soon(&context, &running).await;
                if let Some(late) = late {
                    print(&format!(
                        "not everything is ready: {late}; the network goes on, and what is late may come"
                    ));
                }
                if let Err(failure) = announce(&running.borrow(), height, output) {
                    print(&failure.in_one_line());
                }
                std::future::pending::<()>().await;
            };
            let supervised = async {
                loop {
                    running.borrow_mut().look().iter().for_each(|line| print(line));
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            tokio::select! {
                () = ready => {}
                () = supervised => {}
                _ = asked.next() => {}
            }
            Ok(())
        });
        running.into_inner().stop()?;
        result
    }
}

/// Prints a message on standard error; a closed one does not stop the network.
fn print(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn announce(running: &Running, height: Option<u64>, output: Output) -> Outcome {
    let network = &running.network;
    let height = height.map_or_else(|| "no block yet".into(), |height| height.to_string());
    output.answer(network, || {
        let count = |role| network.members(role).count();
        format!(
            "network   {}\nkey       {}\nheight    {height}\nmembers   {} authorities, {} providers, 1 gateway\n\
             gateway   {}\nline      {}\n\nIn another terminal: POSYNC_NET={} posync put FILE\nCtrl-C stops it; the same \
             directory continues the same chain.",
            running.directory.display(),
            network.network_key,
            count(Role::Authority),
            count(Role::Provider),
            network.endpoints.gateway,
            running.net.file.to_line(),
            running.directory.display(),
        )
    })
}
