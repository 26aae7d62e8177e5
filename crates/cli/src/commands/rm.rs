//! `posync rm NAME`: forgets a stored file. The gateway's owner removes in this way also the files of an account that is
//! served no more, which nobody can bring back: that needs a flag of its own.

use crate::{
    failure::{Exit, Failure, Outcome},
    gateway::Gateway,
    net::{Access, Net},
    output::Output,
    session,
};

/// Command-line arguments of `posync rm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Rm {
    /// Name of the file on the network
    name: String,
    /// Remove the file of this account, which the gateway serves no more; for the gateway's owner alone
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
    /// Confirm that a file of another account is lost for good
    #[arg(long, requires = "account")]
    for_good: bool,
}

impl Rm {
    /// Deletes the file from the catalogue and prints its size.
    pub(crate) fn run(self, access: &Access, output: Output) -> Outcome {
        let net = Net::open(access)?;
        let of = self.account.as_deref().map(|account| net.resolve(account)).transpose()?;
        if of.is_some() && !self.for_good {
            return Err(Failure::new(
                Exit::Usage,
                format!("'{}' is a file of another account", self.name),
                "once it is removed, neither that account nor you can bring it back",
                "look at it with `posync ls --account`, and repeat the command with --for-good if it is to go",
            ));
        }
        session::run(async |context| {
            let file = Gateway::connect(&context, &net).await?.remove(&self.name, of).await?;
            output.answer(&file, || format!("removed '{}': {} bytes", self.name.escape_debug(), file.bytes))
        })
    }
}
