//! A real local network for measurements: processes of a release build, driven by its own commands.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

/// The program to measure: the named one, or a release build made now.
pub(crate) fn program(named: Option<PathBuf>) -> Result<PathBuf, String> {
    if let Some(program) = named {
        return Ok(program);
    }
    if !crate::cargo(&["build", "--release", "--locked", "--package", "posync-cli"]) {
        return Err("the release build failed".into());
    }
    Ok(crate::tools::target_directory().join("release/posync"))
}

/// A network in a directory of its own; dropping it stops it and removes the directory.
pub(crate) struct Net {
    supervisor: Child,
    program: PathBuf,
    pub(crate) directory: PathBuf,
}

impl Net {
    /// Starts a network of ten providers and waits until it reports that it is ready.
    pub(crate) fn start(program: &Path, name: &str) -> Result<Self, String> {
        let directory = crate::tools::target_directory().join(format!("{name}-{}", std::process::id()));
        let started = Command::new(program)
            .args(["--json", "devnet", "--dir"])
            .arg(&directory)
            .env_remove("POSYNC_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let mut supervisor = started.map_err(|error| format!("{}: {error}", program.display()))?;
        let stdout = supervisor.stdout.take();
        let net = Self { supervisor, program: program.to_path_buf(), directory };
        let mut line = String::new();
        let read = stdout.map(|stdout| BufReader::new(stdout).read_line(&mut line));
        match read {
            Some(Ok(length)) if length > 0 => Ok(net),
            _ => Err("the network did not start; its message is above".into()),
        }
    }

    /// Process id of the supervisor, which starts and restarts the members.
    pub(crate) fn supervisor(&self) -> u32 {
        self.supervisor.id()
    }

    /// A command of the product on this network, not yet started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--json").arg("--net").arg(&self.directory).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command on this network to its end.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<Output, String> {
        self.command(arguments).output().map_err(|error| format!("{}: {error}", self.program.display()))
    }

    /// Process id of a member: the process whose last argument is the member's directory.
    pub(crate) fn member(&self, name: &str) -> Result<u32, String> {
        let directory = self.directory.join(name);
        let entries = fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .find(|pid| last_argument(*pid).as_deref() == Some(&*directory))
            .ok_or_else(|| format!("{name} does not run"))
    }

    /// Sends a signal to a member's process.
    pub(crate) fn signal(&self, name: &str, signal: &str) -> Result<(), String> {
        let pid = self.member(name)?.to_string();
        let status = Command::new("kill").args(["-s", signal, &pid]).status();
        if status.is_ok_and(|status| status.success()) {
            Ok(())
        } else {
            Err(format!("{name} cannot be sent {signal}"))
        }
    }

    /// Lines of a member's log that contain one of these texts.
    pub(crate) fn logged(&self, name: &str, texts: &[&str]) -> Vec<String> {
        let log = fs::read_to_string(self.directory.join(name).join("log")).unwrap_or_default();
        let found = log.lines().filter(|line| texts.iter().any(|text| line.contains(text)));
        found.map(str::to_owned).collect()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.supervisor.id().to_string()).status();
        let _ = self.supervisor.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Last argument of a process, as a path.
pub(crate) fn last_argument(pid: u32) -> Option<PathBuf> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let last = line.split(|byte| *byte == 0).rfind(|argument| !argument.is_empty())?;
    Some(PathBuf::from(String::from_utf8(last.to_vec()).ok()?))
}
