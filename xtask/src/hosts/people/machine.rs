//! A person's machine: a network namespace with an `/etc`, a `/usr/local` and a `/var/lib` of its own, and a shell
//! of root in which the page's commands run as they stand there.
//!
//! ```text
//!   DISK/etc, DISK/usr/local, DISK/var/lib ──bound over──► /etc, /usr/local, /var/lib       for each command anew,
//!   an empty file system ──────────bound over──► the directory with everybody's disks       in a mount and a
//!                                                                                           process namespace
//! ```
//!
//! So a machine sees no file and no process of another one. `systemctl` and `journalctl` need an init system:
//! [`REPLACED`] says what they do here.

use crate::hosts::world::{Side, World, must, namespace};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

/// Commands of the page that cannot run here, by their beginning, and their replacement.
pub(super) const REPLACED: [(&str, &str); 4] = [
    ("git rev-parse", "all four machines get the same sources and the same program"),
    ("cargo build", "the program is in target/release of the sources already"),
    (
        "systemctl enable --now",
        "starts ExecStart= of the installed unit, with its User=, UMask= and LimitNOFILE= as far as this machine allows",
    ),
    ("journalctl -fu", "waits for the awaited line in the output of that unit"),
];

/// Place of the sources on a machine.
const SOURCES: &str = "/usr/local/src/posync";
/// The directory in which the page's commands are typed.
pub(super) const PLACE: &str = "/var/lib/posync";
/// Lines of a screen that a failure shows.
const LINES_SHOWN: usize = 12;

/// True if the table replaces this command.
pub(super) fn is_replaced(command: &str) -> bool {
    REPLACED.iter().any(|(begin, _)| command.starts_with(begin))
}

/// A machine, with the commands and services that run on it.
pub(super) struct Machine {
    pub(super) name: &'static str,
    disk: PathBuf,
    /// The line that each new terminal begins with.
    profile: String,
    running: BTreeMap<String, Child>,
}

fn at(path: &Path) -> impl Fn(io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

impl Machine {
    /// Makes the machine with the sources and the program in them, as after the build.
    pub(super) fn new(
        world: &mut World,
        name: &'static str,
        side: Side,
        program: &Path,
    ) -> Result<Self, String> {
        world.add(name, side)?;
        let machine = Self { name, disk: world.home(name), profile: String::new(), running: BTreeMap::new() };
        let release = machine.path(SOURCES).join("target/release");
        for directory in
            [release.clone(), machine.path("/usr/local/bin"), machine.path("/var/lib"), machine.screens()]
        {
            fs::create_dir_all(&directory).map_err(at(&directory))?;
        }
        must("chown", &["root:root", &machine.disk.to_string_lossy()])?;
        fs::copy(program, release.join("posync")).map_err(at(program))?;
        let copy =
            |from: &Path, to: &Path| must("cp", &["-a", &from.to_string_lossy(), &to.to_string_lossy()]);
        copy(&crate::tools::root().join("ops"), &machine.path(SOURCES).join("ops"))?;
        copy(Path::new("/etc"), &machine.path("/etc"))?;
        Ok(machine)
    }

    /// Takes over the names of all machines; after the last one was made.
    pub(super) fn resolve(&self) -> Result<(), String> {
        let hosts = Path::new("/etc/netns").join(namespace(self.name)).join("hosts");
        let own = self.path("/etc/hosts");
        let _ = fs::remove_file(&own);
        fs::copy(&hosts, &own).map(drop).map_err(at(&own))
    }

    /// Lets every later terminal begin with this line.
    pub(super) fn begin_terminals_with(&mut self, line: &str) {
        self.profile = format!("cd {PLACE}\n{line}");
    }

    /// A path of the machine, as seen from outside.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.disk.join(path.trim_start_matches('/'))
    }

    fn screens(&self) -> PathBuf {
        self.disk.join("screens")
    }

    fn shell(&self, script: &str) -> Command {
        let disk = self.disk.display();
        let all = self.disk.parent().unwrap_or(&self.disk).display();
        let whole = format!(
            "set -e\nfor tree in /etc /usr/local /var/lib; do mount --bind {disk}$tree $tree; done\n\
             mount -t tmpfs tmpfs {all}\ncd {SOURCES}\nshopt -s expand_aliases\n{}\n{script}",
            self.profile
        );
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace(self.name), "setpriv", "--pdeathsig", "KILL"]);
        command.args([
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "bash",
            "-c",
            &whole,
        ]);
        command.env_clear().env("HOME", "/root").env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.current_dir("/").stdin(Stdio::null()).process_group(0);
        command
    }

    /// Types lines in a terminal; they must succeed. Returns their output.
    pub(super) fn run(&self, lines: &str) -> Result<String, String> {
        let output = self.shell(lines).output().map_err(|error| format!("{}: {error}", self.name))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        let (out, why) = (text(&output.stdout), text(&output.stderr));
        Err(format!("{}: `{lines}` ended with {}: {out}\n{why}", self.name, output.status))
    }

    /// Types a command in a terminal of its own, where it goes on.
    pub(super) fn open(&mut self, terminal: &str, lines: &str) -> Result<(), String> {
        let path = self.screens().join(terminal);
        let screen = File::options().create(true).append(true).open(&path).map_err(at(&path))?;
        let also = screen.try_clone().map_err(at(&path))?;
        let child = self.shell(lines).stdout(screen).stderr(also).spawn();
        let child = child.map_err(|error| format!("{}: {error}", self.name))?;
        match self.running.insert(terminal.into(), child) {
            Some(_) => Err(format!("{}: the terminal {terminal} is in use", self.name)),
            None => Ok(()),
        }
    }

    /// Everything that a terminal or a service printed.
    pub(super) fn screen(&self, terminal: &str) -> String {
        fs::read_to_string(self.screens().join(terminal)).unwrap_or_default()
    }

    /// The last lines of a screen, for an error.
    pub(super) fn tail(&self, terminal: &str) -> String {
        let screen = self.screen(terminal);
        let lines: Vec<&str> = screen.lines().collect();
        let last = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
        format!("\n  -- {} {terminal}\n  {}", self.name, last.join("\n  "))
    }

    /// The status of a command or service that has ended by itself.
    pub(super) fn ended(&mut self, terminal: &str) -> Result<Option<ExitStatus>, String> {
        let nothing = || format!("{}: nothing runs in {terminal}", self.name);
        let child = self.running.get_mut(terminal).ok_or_else(nothing)?;
        let status = child.try_wait().map_err(|error| format!("{}: {error}", self.name))?;
        if status.is_some() {
            self.running.remove(terminal);
        }
        Ok(status)
    }

    /// Ends what runs in a terminal by a signal, as Ctrl-C does; it must end with code 0.
    pub(super) fn end(&mut self, terminal: &str, signal: &str) -> Result<(), String> {
        let nothing = || format!("{}: nothing runs in {terminal}", self.name);
        let mut child = self.running.remove(terminal).ok_or_else(nothing)?;
        must("kill", &["-s", signal, "--", &format!("-{}", child.id())])?;
        let status = child.wait().map_err(|error| format!("{}: {error}", self.name))?;
        if status.success() {
            return Ok(());
        }
        Err(format!("{}: {terminal} ended with {status} after {signal}{}", self.name, self.tail(terminal)))
    }

    /// Ends everything that runs, in order.
    pub(super) fn end_all(&mut self) -> Result<(), String> {
        let running: Vec<String> = self.running.keys().cloned().collect();
        running.iter().try_for_each(|terminal| self.end(terminal, "TERM"))
    }

    /// Does `systemctl enable --now UNIT` for a unit such as `posync-authority@main`.
    pub(super) fn enable(&mut self, command: &str) -> Result<String, String> {
        let unit = command.split_whitespace().next_back().unwrap_or_default();
        let (kind, instance) =
            unit.split_once('@').ok_or_else(|| format!("`{command}` names no instance"))?;
        let path = self.path(&format!("/etc/systemd/system/{kind}@.service"));
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        let (start, user) = (setting(&text, "ExecStart")?.replace("%i", instance), setting(&text, "User")?);
        let (mask, files) = (setting(&text, "UMask")?, setting(&text, "LimitNOFILE")?);
        let identity = format!("setpriv --reuid {user} --regid {user} --init-groups --no-new-privs");
        self.open(
            unit,
            &format!("umask {mask}\nulimit -n {files} || ulimit -n hard\nexec {identity} {start}"),
        )?;
        Ok(unit.into())
    }

    /// Copies the screens to where they outlast the run.
    pub(super) fn keep_screens(&self, to: &Path) -> Result<(), String> {
        fs::create_dir_all(to).map_err(at(to))?;
        must("cp", &["-a", &self.screens().to_string_lossy(), &to.join(self.name).to_string_lossy()])
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = must("kill", &["-s", "KILL", "--", &format!("-{}", child.id())]);
            let _ = child.wait();
        }
    }
}

/// The value of a line `NAME=VALUE` of a unit.
fn setting<'a>(unit: &'a str, name: &str) -> Result<&'a str, String> {
    let value = unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.ok_or_else(|| format!("the unit has no line {name}="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_has_the_lines_that_a_start_needs() {
        for role in ["authority", "provider", "gateway", "node"] {
            let path = crate::tools::root().join(format!("ops/systemd/posync-{role}@.service"));
            let unit = fs::read_to_string(&path).expect("the unit is there");
            for name in ["ExecStart", "User", "UMask", "LimitNOFILE"] {
                assert!(setting(&unit, name).is_ok(), "{role} {name}");
            }
            assert!(setting(&unit, "Exec").is_err(), "a part of a name is no name");
        }
    }
}
