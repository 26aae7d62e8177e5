//! Machines on one machine: a network namespace each, with an address, a user and a directory of its own.
//!
//! ```text
//!   a0  a2  p0  p2 ...            a1  a3  p1  p3 ...      each: a namespace, one address, /etc/hosts,
//!    │   │   │   │                 │   │   │   │                a user id, a home of mode 0700
//!   [ switch: left ]────uplink────[ switch: right ]
//! ```
//!
//! The switches are bridges in a namespace of their own, so nothing is changed on the machine itself. An uplink
//! that is down parts the two sides. Names are resolved by the file `/etc/netns/NAMESPACE/hosts`, which
//! `ip netns exec` shows to the machine as `/etc/hosts`.

use super::relay::{self, Relay};
use std::{
    collections::BTreeMap,
    env,
    fs::{self, File, Permissions},
    io,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{self, Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Names of namespaces and of the directory begin with this; the process id of the run follows.
const PREFIX: &str = "posync-hosts-";
/// The machines' network. No route leads out of the namespaces, so these addresses reach nobody. They are no
/// private ones, because a network of strangers has none.
const SUBNET: &str = "11.0.0";
/// Domain of the machines' names.
pub(super) const DOMAIN: &str = "example.org";
/// User ids of a run begin here, a hundred for each process id.
const USERS_FROM: u32 = 1_000_000;
/// Time between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Lines of a machine's screen that a failure shows.
const LINES_SHOWN: usize = 12;
/// Programs that the machines are made of, and that the manual's commands use.
const TOOLS: [(&str, &str); 2] = [("ip", "-Version"), ("setpriv", "--version")];

/// The switch that a machine is connected to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The side with the even authorities.
    Left,
    /// The side with the odd authorities.
    Right,
}

impl Side {
    /// The side of the machine with this number: every second one is on the right.
    pub(super) const fn of(number: usize) -> Self {
        if number.is_multiple_of(2) { Self::Left } else { Self::Right }
    }

    const fn switch(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
        }
    }
}

struct Machine {
    address: u8,
    user: u32,
    process: Option<Child>,
}

/// All machines of a run. Dropping it ends their processes and removes every trace of them.
pub(super) struct World {
    directory: PathBuf,
    machines: BTreeMap<String, Machine>,
    /// Host names and the last part of their addresses.
    names: BTreeMap<String, u8>,
    next_address: u8,
    /// Stands between the machines instead of the switches, if the way is to be long or lossy.
    pub(super) relay: Option<Relay>,
}

/// The reason why no machines can be made here; `None` if they can.
pub(crate) fn unavailable() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("network namespaces exist on Linux only".into());
    }
    if fs::metadata("/proc/self").map_or(1, |own| own.uid()) != 0 {
        return Some("only root makes network namespaces".into());
    }
    for (tool, version) in TOOLS {
        let found = Command::new(tool).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            return Some(format!("there is no `{tool}`"));
        }
    }
    // A container may have the programs and not the permission.
    World::new().err().map(|error| format!("no network namespace can be made: {error}"))
}

/// Runs a program that must succeed.
pub(super) fn must(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", arguments.join(" "), why.trim()))
}

/// Looks twice a second until a value is found; `None` after the time of `patience`.
///
/// # Errors
/// The first error of `look`.
pub(super) fn poll<T>(
    patience: Duration,
    mut look: impl FnMut() -> Result<Option<T>, String>,
) -> Result<Option<T>, String> {
    let began = Instant::now();
    loop {
        let found = look()?;
        if found.is_some() || began.elapsed() > patience {
            return Ok(found);
        }
        thread::sleep(LOOK_EVERY);
    }
}

pub(super) fn ip(arguments: &[&str]) -> Result<(), String> {
    must("ip", arguments)
}

/// Adds the path that was tried to an error of the system.
fn at(path: &Path) -> impl Fn(io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

/// Name of a machine's namespace.
pub(super) fn namespace(machine: &str) -> String {
    format!("{PREFIX}{}-{machine}", process::id())
}

/// Process id of the run that made an entry of this name.
fn run_of(entry: &str) -> Option<u32> {
    entry.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Removes the namespaces and directories of the runs that `is_over` names.
fn remove(is_over: impl Fn(u32) -> bool) {
    let entries = |directory: &Path| -> Vec<(PathBuf, String)> {
        let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        let named = entries.filter_map(|entry| Some((entry.path(), entry.file_name().into_string().ok()?)));
        named.filter(|(_, name)| run_of(name).is_some_and(&is_over)).collect()
    };
    for (_, name) in entries(Path::new("/run/netns")) {
        let _ = ip(&["netns", "delete", &name]);
    }
    for directory in [PathBuf::from("/etc/netns"), env::temp_dir()] {
        for (path, _) in entries(&directory) {
            let _ = fs::remove_dir_all(path);
        }
    }
    // Empty only if this program made it.
    let _ = fs::remove_dir("/etc/netns");
}

impl World {
    /// Makes the two switches; removes what runs that were killed left behind.
    pub(super) fn new() -> Result<Self, String> {
        remove(|run| !Path::new("/proc").join(run.to_string()).exists());
        let directory = env::temp_dir().join(format!("{PREFIX}{}", process::id()));
        fs::create_dir_all(&directory).map_err(at(&directory))?;
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).map_err(at(&directory))?;
        let (machines, names) = (BTreeMap::new(), BTreeMap::new());
        let world = Self { directory, machines, names, next_address: 1, relay: None };
        let switches = world.switches();
        ip(&["netns", "add", &switches])?;
        for side in [Side::Left, Side::Right] {
            ip(&["-n", &switches, "link", "add", side.switch(), "type", "bridge"])?;
            ip(&["-n", &switches, "link", "set", side.switch(), "up"])?;
        }
        ip(&["-n", &switches, "link", "add", "uplink", "type", "veth", "peer", "name", "downlink"])?;
        for (end, side) in [("uplink", Side::Left), ("downlink", Side::Right)] {
            ip(&["-n", &switches, "link", "set", end, "master", side.switch()])?;
            ip(&["-n", &switches, "link", "set", end, "up"])?;
        }
        Ok(world)
    }

    fn switches(&self) -> String {
        namespace("switch")
    }

    /// Copies the program to a place that every machine may read, as an installation does.
    pub(super) fn install(&self, program: &Path) -> Result<(), String> {
        let bin = self.directory.join("bin");
        fs::create_dir_all(&bin).map_err(at(&bin))?;
        let to = bin.join("posync");
        fs::copy(program, &to).map_err(at(program))?;
        fs::set_permissions(&to, Permissions::from_mode(0o755)).map_err(at(&to))
    }

    /// Makes a machine and connects it; its host name is `NAME.example.org`.
    pub(super) fn add(&mut self, name: &str, side: Side) -> Result<(), String> {
        let own = namespace(name);
        let address = self.free_address();
        let user = USERS_FROM + process::id() * 100 + u32::from(address);
        ip(&["netns", "add", &own])?;
        match &mut self.relay {
            Some(relay) => relay.plug(name, side)?,
            None => self.connect(name, side)?,
        }
        ip(&["-n", &own, "address", "add", &format!("{SUBNET}.{address}/24"), "dev", "eth0"])?;
        ip(&["-n", &own, "link", "set", "eth0", "up"])?;
        ip(&["-n", &own, "link", "set", "lo", "up"])?;
        let etc = Path::new("/etc/netns").join(&own);
        fs::create_dir_all(&etc).map_err(at(&etc))?;
        let home = self.home(name);
        fs::create_dir(&home).map_err(at(&home))?;
        chown(&home, Some(user), Some(user)).map_err(at(&home))?;
        fs::set_permissions(&home, Permissions::from_mode(0o700)).map_err(at(&home))?;
        self.machines.insert(name.into(), Machine { address, user, process: None });
        self.names.insert(format!("{name}.{DOMAIN}"), address);
        self.publish()
    }

    /// Connects a machine to the switch of its side.
    fn connect(&self, name: &str, side: Side) -> Result<(), String> {
        let (own, switches) = (namespace(name), self.switches());
        ip(&["-n", &switches, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", &own])?;
        ip(&["-n", &switches, "link", "set", name, "master", side.switch()])?;
        ip(&["-n", &switches, "link", "set", name, "up"])
    }

    const fn free_address(&mut self) -> u8 {
        self.next_address += 1;
        self.next_address
    }

    /// Gives a machine another address; its host name leads there, and the old address to nobody.
    pub(super) fn readdress(&mut self, name: &str) -> Result<String, String> {
        let (new, own) = (self.free_address(), namespace(name));
        let machine = self.machines.get_mut(name).ok_or_else(|| format!("no machine {name}"))?;
        let (old, now) = (format!("{SUBNET}.{}/24", machine.address), format!("{SUBNET}.{new}/24"));
        machine.address = new;
        ip(&["-n", &own, "address", "delete", &old, "dev", "eth0"])?;
        ip(&["-n", &own, "address", "add", &now, "dev", "eth0"])?;
        self.name(&format!("{name}.{DOMAIN}"), name)?;
        Ok(format!("{SUBNET}.{new}"))
    }

    /// Lets a host name lead to a machine.
    pub(super) fn name(&mut self, host: &str, machine: &str) -> Result<(), String> {
        let address = self.machine(machine)?.address;
        self.names.insert(host.into(), address);
        self.publish()
    }

    /// Writes the hosts file of every machine; the files stay the same ones, so running processes see it.
    fn publish(&self) -> Result<(), String> {
        let mut text = String::from("127.0.0.1 localhost\n");
        for (host, address) in &self.names {
            text.push_str(&format!("{SUBNET}.{address} {host}\n"));
        }
        for name in self.machines.keys() {
            let path = Path::new("/etc/netns").join(namespace(name)).join("hosts");
            fs::write(&path, &text).map_err(at(&path))?;
        }
        Ok(())
    }

    /// Parts the two sides, or joins them again.
    pub(super) fn uplink(&self, state: &str) -> Result<(), String> {
        ip(&["-n", &self.switches(), "link", "set", "uplink", state])
    }

    /// Lets nothing that a machine sends reach another one, at the address that the other has now.
    pub(super) fn bar(&self, name: &str, other: &str) -> Result<(), String> {
        let address = format!("{SUBNET}.{}/32", self.machine(other)?.address);
        ip(&["-n", &namespace(name), "route", "add", "blackhole", &address])
    }

    /// Takes a machine off the network.
    pub(super) fn unplug(&self, name: &str) -> Result<(), String> {
        ip(&["-n", &self.switches(), "link", "set", name, "down"])
    }

    fn machine(&self, name: &str) -> Result<&Machine, String> {
        self.machines.get(name).ok_or_else(|| format!("no machine {name}"))
    }

    /// The directory that a machine's commands run in.
    pub(super) fn home(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn screen_path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.screen"))
    }

    /// A shell command as the machine's user, in its home, with the machine's network alone.
    fn command(&self, name: &str, command: &str) -> Result<Command, String> {
        let user = self.machine(name)?.user.to_string();
        let home = self.home(name);
        let mut whole = Command::new("ip");
        whole.args(["netns", "exec", &namespace(name), "setpriv", "--reuid", &user, "--regid", &user]);
        whole.args(["--clear-groups", "--no-new-privs", "--pdeathsig", "KILL", "sh", "-c", command]);
        whole.env_clear().env("HOME", &home).current_dir(&home).stdin(Stdio::null()).process_group(0);
        whole.env("PATH", format!("{}:/usr/bin:/bin", self.directory.join("bin").display()));
        Ok(whole)
    }

    /// Runs a command to its end; returns its exit code and the text of both outputs.
    pub(super) fn ask(&self, name: &str, command: &str) -> Result<(i32, String, String), String> {
        let output = self.command(name, command)?.output().map_err(|error| format!("{name}: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        Ok((output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr)))
    }

    /// Runs a command that must succeed; returns its output.
    pub(super) fn run(&self, name: &str, command: &str) -> Result<String, String> {
        match self.ask(name, command)? {
            (0, output, _) => Ok(output),
            (code, output, why) => Err(format!("{name}: `{command}` ended with {code}: {output}\n{why}")),
        }
    }

    /// Starts the process of a machine; what it prints is the machine's screen.
    pub(super) fn start(&mut self, name: &str, command: &str) -> Result<(), String> {
        let path = self.screen_path(name);
        let screen = File::options().create(true).append(true).open(&path).map_err(at(&path))?;
        let also = screen.try_clone().map_err(at(&path))?;
        let mut whole = self.command(name, &format!("exec {command}"))?;
        let child = whole.stdout(screen).stderr(also).spawn().map_err(|error| format!("{name}: {error}"))?;
        let machine = self.machines.get_mut(name).ok_or_else(|| format!("no machine {name}"))?;
        if machine.process.replace(child).is_some() {
            return Err(format!("{name} runs a process already"));
        }
        Ok(())
    }

    /// Everything that the machine's processes printed.
    pub(super) fn screen(&self, name: &str) -> String {
        fs::read_to_string(self.screen_path(name)).unwrap_or_default()
    }

    /// Ends the process of a machine by a signal, and waits for it.
    pub(super) fn end(&mut self, name: &str, signal: &str) -> Result<ExitStatus, String> {
        let machine = self.machines.get_mut(name).ok_or_else(|| format!("no machine {name}"))?;
        let mut child = machine.process.take().ok_or_else(|| format!("{name} runs nothing"))?;
        must("kill", &["-s", signal, "--", &format!("-{}", child.id())])?;
        child.wait().map_err(|error| format!("{name}: {error}"))
    }

    /// The exit status of a machine's process, once it has ended by itself.
    pub(super) fn ended(&mut self, name: &str) -> Result<Option<ExitStatus>, String> {
        let machine = self.machines.get_mut(name).ok_or_else(|| format!("no machine {name}"))?;
        let child = machine.process.as_mut().ok_or_else(|| format!("{name} runs nothing"))?;
        let status = child.try_wait().map_err(|error| format!("{name}: {error}"))?;
        if status.is_some() {
            machine.process = None;
        }
        Ok(status)
    }

    /// Process id of a machine's process.
    pub(super) fn process(&self, name: &str) -> Result<u32, String> {
        let child = self.machine(name)?.process.as_ref().ok_or_else(|| format!("{name} runs nothing"))?;
        Ok(child.id())
    }

    /// The machines that run a process now.
    pub(super) fn running(&self) -> Vec<String> {
        let running = self.machines.iter().filter(|(_, machine)| machine.process.is_some());
        running.map(|(name, _)| name.clone()).collect()
    }

    /// Carries a file from one machine to another, as mail does: the bytes and nothing else.
    pub(super) fn mail(&self, from: &str, file: &str, to: &str, into: &str) -> Result<(), String> {
        let (from, path) = (self.home(from).join(file), self.home(to).join(into));
        if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
            fs::create_dir_all(parent).map_err(at(parent))?;
            self.give(to, parent)?;
        }
        fs::copy(&from, &path).map_err(at(&from))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(at(&path))?;
        self.give(to, &path)
    }

    /// Writes a file on a machine.
    pub(super) fn write(&self, name: &str, file: &str, bytes: &[u8]) -> Result<(), String> {
        let path = self.home(name).join(file);
        fs::write(&path, bytes).map_err(at(&path))?;
        self.give(name, &path)
    }

    fn give(&self, name: &str, path: &Path) -> Result<(), String> {
        let user = self.machine(name)?.user;
        chown(path, Some(user), Some(user)).map_err(at(path))
    }

    /// Waits until `look` returns a value.
    ///
    /// # Errors
    /// After `seconds`, with the last lines of the machines' screens in `shown`.
    pub(super) fn until<T>(
        &mut self,
        awaited: &str,
        seconds: u64,
        shown: &[&str],
        mut look: impl FnMut(&mut Self) -> Result<Option<T>, String>,
    ) -> Result<T, String> {
        let found = poll(Duration::from_secs(seconds), || look(self))?;
        found.ok_or_else(|| {
            let screens: Vec<String> = shown.iter().map(|name| self.tail(name)).collect();
            format!("{awaited}: not within {seconds} s{}", screens.concat())
        })
    }

    /// Copies the screens of all machines into a directory, where they outlast the run.
    pub(super) fn keep_screens(&self, to: &Path) -> Result<(), String> {
        let _ = fs::remove_dir_all(to);
        fs::create_dir_all(to).map_err(at(to))?;
        for name in self.machines.keys() {
            fs::write(to.join(name), self.screen(name)).map_err(at(to))?;
        }
        Ok(())
    }

    fn tail(&self, name: &str) -> String {
        let screen = self.screen(name);
        let lines: Vec<&str> = screen.lines().collect();
        let last = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
        format!("\n  -- {name}\n  {}", last.join("\n  "))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for machine in self.machines.values_mut() {
            if let Some(mut child) = machine.process.take() {
                let _ = must("kill", &["-s", "KILL", "--", &format!("-{}", child.id())]);
                let _ = child.wait();
            }
        }
        if self.relay.take().is_some() {
            // A device keeps its namespace until its reader has ended.
            for name in self.machines.keys() {
                let _ = ip(&["-n", &namespace(name), "link", "delete", relay::DEVICE]);
            }
        }
        remove(|run| run == process::id());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_names_the_run_that_made_it() {
        assert_eq!(run_of("posync-hosts-12-a0"), Some(12));
        assert_eq!(run_of("posync-hosts-12"), Some(12));
        for other in ["posync-hosts-", "posync-hosts-x-a0", "posync-12", "a0"] {
            assert_eq!(run_of(other), None, "{other}");
        }
    }

    #[test]
    fn neighbours_are_on_different_sides() {
        assert!(Side::of(0) == Side::of(2) && Side::of(0) != Side::of(1));
    }
}
