//! `config.toml`: the settings of one role, each with its default and reason beside it.
//!
//! Invariants
//! 1. A file with an unknown name, or a value of the wrong form, starts nothing.
//! 2. A setting that the file lacks has its default.

use super::{
    KEY_FILE,
    table::{Kind, Setting, TABLE},
};
use crate::{
    commands::watch::hook,
    failure::{Exit, Failure, Outcome},
    keys,
    network::Role,
    target,
};
use commonware_cryptography::ed25519::PrivateKey;
use posync_alert::Alerts;
use posync_client::address::Address;
use posync_gateway::User;
use posync_protocol::Account;
use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};
use toml_edit::{DocumentMut, Value};

/// Name of the file of settings.
pub(crate) const FILE: &str = "config.toml";
/// Most bytes of that file.
const BYTES_MAX: u64 = 1 << 20;

/// Units of bytes; the one that ends the others is last.
const BYTES: &[(&str, u64)] =
    &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("B", 1)];

/// The settings of the role in a directory.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The role that they are for.
    pub(crate) role: Role,
    /// Directory that holds the file.
    pub(crate) directory: PathBuf,
    values: BTreeMap<&'static str, Value>,
}

fn of(role: Role) -> impl Iterator<Item = &'static Setting> {
    TABLE.iter().filter(move |setting| setting.roles.contains(&role))
}

/// The help of `--set`: the names of all settings of these roles.
pub(crate) fn listed(roles: &[Role]) -> String {
    let names = |role: Role| of(role).map(|setting| setting.key).collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = roles.iter().map(|role| format!("  {role}: {}", names(*role))).collect();
    format!(
        "A setting of its config.toml, such as advertise=storage.example.org:4100; may be repeated. The file says of each \
         what it does, its unit, its default and why. They are:\n{}",
        lines.join("\n")
    )
}

impl Settings {
    /// The defaults of a role.
    pub(crate) fn new(role: Role, directory: &Path) -> Self {
        let usual = |setting: &Setting| setting.usual.parse().expect("a default is TOML");
        let values = of(role).map(|setting| (setting.key, usual(setting))).collect();
        Self { role, directory: directory.into(), values }
    }

    /// Reads the settings in the directory of a provider. `why` and `next` are the reason and the advice for other
    /// roles.
    ///
    /// # Errors
    /// As [`Self::read`]; [`Failure`] that names the role of the directory.
    pub(crate) fn of_provider(directory: &Path, why: &str, next: &str) -> Outcome<Self> {
        let settings = Self::read(directory)?;
        if settings.role == Role::Provider {
            return Ok(settings);
        }
        let what = format!("{} is a {}", directory.display(), settings.role);
        Err(Failure::new(Exit::Usage, what, why, next))
    }

    /// Reads and checks the settings in a directory.
    ///
    /// # Errors
    /// [`Failure`] that names the line or the setting.
    pub(crate) fn read(directory: &Path) -> Outcome<Self> {
        let path = directory.join(FILE);
        let about = fs::metadata(&path).map_err(|error| no_role(directory, &path, error))?;
        if about.len() > BYTES_MAX {
            return Err(Failure::file(&path, "read", "it is longer than 1 MiB"));
        }
        let text = fs::read_to_string(&path).map_err(|error| Failure::file(&path, "read", error))?;
        Self::parse(&text, directory)
    }

    fn parse(text: &str, directory: &Path) -> Outcome<Self> {
        let path = directory.join(FILE);
        let document: DocumentMut =
            text.parse().map_err(|error| Failure::damaged(&path, error, "mend the line that it names"))?;
        let named = document.get("role").and_then(|role| role.as_str()).unwrap_or_default();
        let role = Role::ALL.into_iter().find(|role| role.to_string() == named).ok_or_else(|| {
            let next = "write role = \"authority\", \"provider\", \"gateway\" or \"node\" at its beginning";
            Failure::damaged(&path, format!("it names no role: \"{named}\""), next)
        })?;
        let mut settings = Self::new(role, directory);
        for (key, item) in document.iter().filter(|(key, _)| *key != "role") {
            let value = item.as_value().cloned();
            let value = value.ok_or_else(|| settings.bad(key, "it is a table; a setting is one value"))?;
            settings.enter(key, value)?;
        }
        settings.check()?;
        Ok(settings)
    }

    /// Sets `key` to a value in TOML, or to a text without its quotes.
    ///
    /// # Errors
    /// [`Failure`] for an unknown name or a value of the wrong form.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Outcome {
        let is_text = |setting: &&Setting| setting.key == key && setting.usual.starts_with('"');
        let value = match value.parse::<Value>() {
            Ok(value) if value.is_str() || !of(self.role).any(|setting| is_text(&setting)) => value,
            _ => Value::from(value),
        };
        self.enter(key, value)?;
        self.check_one(key)
    }

    fn enter(&mut self, key: &str, value: Value) -> Outcome {
        match of(self.role).find(|setting| setting.key == key) {
            Some(setting) => drop(self.values.insert(setting.key, value.decorated(" ", ""))),
            None => return Err(self.unknown(key)),
        }
        Ok(())
    }

    fn unknown(&self, key: &str) -> Failure {
        let nearest = of(self.role).min_by_key(|setting| distance(key, setting.key));
        let nearest = nearest.expect("every role has settings").key;
        let next =
            format!("did you mean `{nearest}`? Every setting stands in the {FILE} that `posync init` writes");
        let why = format!("a {} has no setting of that name", self.role);
        Failure::new(Exit::Usage, format!("{}: unknown setting `{key}`", self.path().display()), why, next)
    }

    /// The default of a text setting, without its quotes; empty if there is no such setting.
    pub(super) fn usual(&self, key: &str) -> &'static str {
        of(self.role).find(|setting| setting.key == key).map_or("", |setting| setting.usual.trim_matches('"'))
    }

    /// Path of the file of settings.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    fn bad(&self, key: &str, why: impl std::fmt::Display) -> Failure {
        let about = of(self.role).find(|setting| setting.key == key).map_or("", |setting| setting.about);
        let next = format!("set it as its comment says: {}", about.replace('\n', " "));
        Failure::new(Exit::Usage, format!("{}: `{key}` is not valid", self.path().display()), why, next)
    }

    /// Writes the settings with their comments.
    pub(crate) fn write(&self) -> Outcome {
        self.check()?;
        keep(&self.path(), &self.render())
    }

    fn render(&self) -> String {
        let mut text = format!(
            "# Settings of this {role}. `posync start --dir` of this directory reads them at its start.\n\
             # A setting that is removed has its default.\n\nrole = \"{role}\"\n",
            role = self.role
        );
        for setting in of(self.role) {
            text += &format!("\n# {}\n", setting.about.replace('\n', "\n# "));
            let value = self.values[setting.key].to_string();
            text += &format!("# Default: {}\n{} = {}\n", setting.usual, setting.key, value.trim());
        }
        text
    }

    fn check(&self) -> Outcome {
        of(self.role).try_for_each(|setting| self.check_one(setting.key))
    }

    fn check_one(&self, key: &str) -> Outcome {
        let setting = of(self.role).find(|setting| setting.key == key).ok_or_else(|| self.unknown(key))?;
        match setting.kind {
            Kind::Text => self.text(key).map(drop),
            Kind::Word(words) => {
                let word = self.text(key)?;
                let why = || format!("\"{word}\" is none of {}", words.join(", "));
                if words.contains(&word) { Ok(()) } else { Err(self.bad(key, why())) }
            }
            Kind::Listen => self.listen(key).map(drop),
            Kind::Announce => self.named(key).map(drop),
            Kind::Ip => self.ip(key).map(drop),
            Kind::Flag => self.flag(key).map(drop),
            Kind::Count => self.count(key).map(drop),
            Kind::Bytes => self.bytes(key).map(drop),
            Kind::Time => self.time(key).map(drop),
            Kind::Account => self.account(key).map(drop),
            Kind::Users => self.users(key).map(drop),
        }
    }

    /// A text, which may be empty.
    pub(crate) fn text(&self, key: &str) -> Outcome<&str> {
        self.values[key].as_str().ok_or_else(|| self.bad(key, "it is no text in double quotes"))
    }

    /// A switch: true or false.
    pub(crate) fn flag(&self, key: &str) -> Outcome<bool> {
        self.values[key].as_bool().ok_or_else(|| self.bad(key, "it is neither true nor false"))
    }

    /// A whole number from 0 on.
    pub(crate) fn count(&self, key: &str) -> Outcome<u64> {
        let count = self.values[key].as_integer().and_then(|count| u64::try_from(count).ok());
        count.ok_or_else(|| self.bad(key, "it is no whole number from 0 on"))
    }

    /// A number of bytes.
    pub(crate) fn bytes(&self, key: &str) -> Outcome<u64> {
        self.measure(key, BYTES, "bytes as a number, or as \"100 GiB\" (B, KiB, MiB, GiB, TiB)")
    }

    /// Bytes of shards for which a provider has room: as many as it offers, or the space on its volume if that is less.
    pub(crate) fn promised(&self) -> Outcome<u64> {
        let (offered, space) = (self.bytes("capacity")?, self.bytes("space")?);
        Ok(if space == 0 { offered } else { offered.min(space) })
    }

    /// A duration, with or without its unit.
    pub(crate) fn time(&self, key: &str) -> Outcome<Duration> {
        let units =
            [("days", 86_400), ("day", 86_400), ("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1_u64)];
        let seconds =
            self.measure(key, &units, "seconds as a number, or as \"14 days\" (s, min, h, days)")?;
        Ok(Duration::from_secs(seconds))
    }

    fn measure(&self, key: &str, units: &[(&str, u64)], form: &str) -> Outcome<u64> {
        let value = &self.values[key];
        let whole = || value.as_integer().and_then(|number| u64::try_from(number).ok());
        let with_unit = || with_unit(value.as_str()?, units);
        whole().or_else(with_unit).ok_or_else(|| self.bad(key, format!("{value} is not {form}")))
    }

    /// An address to listen on.
    pub(crate) fn listen(&self, key: &str) -> Outcome<SocketAddr> {
        let text = self.text(key)?;
        text.parse().map_err(|_| {
            self.bad(key, format!("\"{text}\" is no IP address with a port, such as {}", self.usual(key)))
        })
    }

    /// An IP address, if one is given.
    pub(crate) fn ip(&self, key: &str) -> Outcome<Option<IpAddr>> {
        let text = self.text(key)?;
        if text.is_empty() {
            return Ok(None);
        }
        let ip: IpAddr = text.parse().map_err(|_| self.bad(key, format!("\"{text}\" is no IP address")))?;
        if ip.is_unspecified() || (ip.is_loopback() && !self.flag("private")?) {
            return Err(self.bad(key, format!("others cannot meet {ip}: name the address that they see")));
        }
        Ok(Some(ip))
    }

    fn named(&self, key: &str) -> Outcome<Option<Address>> {
        let text = self.text(key)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|error| self.bad(key, error))
    }

    /// The address that `advertise` names, or `listen` if that names none; one that nobody else can reach is
    /// refused.
    ///
    /// # Errors
    /// [`Failure`] that says what to set.
    pub(crate) fn announced(&self, advertise: &str, listen: &str) -> Outcome<Address> {
        let named = self.named(advertise)?;
        let address = match &named {
            Some(address) => address.clone(),
            None => self.listen(listen)?.into(),
        };
        let private = self.flag("private")?;
        let ips: Vec<IpAddr> = match &address {
            Address::Ip(address) => vec![address.ip()],
            // A name service that is away now is no reason not to start.
            Address::Name(name, port) => (&**name, *port)
                .to_socket_addrs()
                .map(|all| all.map(|at| at.ip()).collect())
                .unwrap_or_default(),
        };
        let hidden = |ip: &IpAddr| ip.is_unspecified() || (ip.is_loopback() && !private);
        if named.is_some() && address.port() == 0 {
            return Err(self.bad(advertise, format!("port 0 of {address} cannot be dialled")));
        }
        if !ips.is_empty() && ips.iter().all(hidden) {
            let why = format!("{address} would be announced, and no other machine can reach it");
            let next = format!(
                "set `{advertise}` to the host name or address and port at which others reach this machine, such \
                 as \"storage.example.org:{}\"; on a network of one machine set private = true and one address \
                 in `{listen}`",
                address.port().max(1)
            );
            let what = format!("{}: the role has no address for others", self.path().display());
            return Err(Failure::new(Exit::Usage, what, why, next));
        }
        Ok(address)
    }

    /// An account, if one is given.
    pub(crate) fn account(&self, key: &str) -> Outcome<Option<Account>> {
        let text = self.text(key)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|error: String| self.bad(key, error))
    }

    /// A list of accounts, each with its quota if it has one.
    pub(crate) fn users(&self, key: &str) -> Outcome<Vec<User>> {
        let list = self.values[key].as_array().ok_or_else(|| self.bad(key, "it is no list"))?;
        let parse = |value: &Value| {
            let text = value.as_str().ok_or_else(|| self.bad(key, "an entry is no text in double quotes"))?;
            let (account, quota) = text.split_once('=').map_or((text, None), |(of, quota)| (of, Some(quota)));
            let quota = quota.map(|quota| {
                let why = || format!("\"{quota}\" is no quota, which is bytes as in \"sync1...=50 GiB\"");
                with_unit(quota, BYTES).ok_or_else(|| self.bad(key, why()))
            });
            let account = account.trim().parse().map_err(|error: String| self.bad(key, error))?;
            Ok(User { account, quota: quota.transpose()? })
        };
        list.iter().map(parse).collect()
    }

    /// A path, relative to the role's directory.
    pub(crate) fn file(&self, key: &str) -> Outcome<PathBuf> {
        Ok(self.directory.join(self.text(key)?))
    }

    /// The destination of the role's alerts.
    pub(crate) fn alerts(&self) -> Outcome<Alerts> {
        let mode = fs::metadata(self.path()).map_or(0, |about| about.permissions().mode());
        if !self.text("alert_url")?.is_empty() && mode & 0o077 != 0 {
            let file = self.path().display().to_string();
            tracing::warn!(
                file,
                "other users of this machine may read the address of the alerts: chmod 600 the file"
            );
        }
        let ca = self.text("alert_ca")?;
        let ca = (!ca.is_empty()).then(|| self.directory.join(ca));
        hook(Some(self.text("alert_url")?), ca.as_deref())
    }

    /// The private key of the role's account.
    pub(crate) fn key(&self) -> Outcome<PrivateKey> {
        keys::read(&self.directory.join(KEY_FILE))
    }
}

/// A number with one of these units behind it, or with none.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let (unit, factor) = units.iter().find(|(unit, _)| text.ends_with(unit))?;
    let number = text.strip_suffix(unit)?.trim();
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn no_role(directory: &Path, path: &Path, error: std::io::Error) -> Failure {
    let next = "make one with `posync init ROLE --dir DIR`, or name the directory of one with --dir";
    let what = format!("there is no role in {}", directory.display());
    Failure::new(Exit::Local, what, format!("{}: {error}", path.display()), next)
}

/// Changes one setting of the role in a directory; the rest of the file stays as it is.
pub(crate) fn change(directory: &Path, changes: &[(&str, &str)]) -> Outcome {
    let mut settings = Settings::read(directory)?;
    let path = settings.path();
    let text = fs::read_to_string(&path).map_err(|error| Failure::file(&path, "read", error))?;
    let mut document: DocumentMut =
        text.parse().map_err(|error| Failure::damaged(&path, error, "mend the line that it names"))?;
    for (key, value) in changes {
        settings.set(key, value)?;
        document[key] = toml_edit::Item::Value(settings.values[key].clone());
    }
    settings.check()?;
    keep(&path, &document.to_string())
}

/// Writes a file of settings, which only its owner may read: it may hold the address of a webhook, and anyone who knows
/// that may write to the operator.
fn keep(path: &Path, text: &str) -> Outcome {
    let bytes = text.as_bytes();
    match fs::set_permissions(path, Permissions::from_mode(0o600)) {
        // A new content takes the mode of the old one.
        Ok(()) => target::replace(path, bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            target::create(path, bytes).map_err(|error| Failure::file(path, "write", error))
        }
        Err(error) => Err(Failure::file(path, "keep others from reading", error)),
    }
}

/// Edits that lead from one name to another: insertions, removals, replacements.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().take(64).enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = before + usize::from(a != *b);
            before = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(before + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Outcome<Settings> {
        Settings::parse(text, Path::new("/role"))
    }

    fn refused(text: &str) -> String {
        parsed(text).expect_err(text).in_one_line()
    }

    #[test]
    fn what_is_written_comes_back_and_every_setting_has_its_default_and_reason() {
        for role in Role::ALL {
            let settings = Settings::new(role, Path::new("/role"));
            let text = settings.render();
            let again = parsed(&text).expect("its own text");
            assert_eq!(again.render(), text, "{role}");
            let count = of(role).count();
            assert_eq!(text.matches("\n# Default: ").count(), count, "{role}");
            assert!(of(role).all(|setting| setting.about.len() > 20), "{role}");
            let keys: std::collections::BTreeSet<_> = of(role).map(|setting| setting.key).collect();
            assert_eq!(keys.len(), count, "{role}");
        }
    }

    #[test]
    fn an_unknown_name_is_refused_and_the_nearest_known_one_named() {
        for (typed, meant) in [
            ("capcity", "capacity"),
            ("Listen", "listen"),
            ("scrub_rat", "scrub_rate"),
            ("adverise", "advertise"),
        ] {
            let text = refused(&format!("role = \"provider\"\n{typed} = 1\n"));
            assert!(text.contains(typed) && text.contains(&format!("`{meant}`")), "{text}");
        }
        let text = refused("role = \"gateway\"\ncapacity = 1\n");
        assert!(text.contains("a gateway has no setting"), "{text}");
        assert!(refused("role = \"miner\"").contains("miner"));
        assert!(refused("role = \"provider\"\nlisten = \n").contains("damaged"));
        assert!(refused("role = \"provider\"\n[listen]\na = 1\n").contains("listen"));
    }

    #[test]
    fn no_two_roles_of_one_machine_listen_on_the_same_port_unless_they_are_told_to() {
        let usual = |role: Role, key: &str| {
            Settings::new(role, Path::new("/role")).listen(key).expect("a default is an address").port()
        };
        let (authority, provider) = (usual(Role::Authority, "listen"), usual(Role::Provider, "listen"));
        let (gateway, node) = (usual(Role::Gateway, "listen"), usual(Role::Node, "service_listen"));
        let ports = std::collections::BTreeSet::from([authority, provider, gateway, node]);
        assert_eq!(ports.len(), 4, "{ports:?}");
        assert_eq!((provider, gateway), (4_100, 4_200), "documents and open firewalls name them");
        let text = refused("role = \"gateway\"\nlisten = \"here\"\n");
        assert!(text.contains("0.0.0.0:4200"), "the example is the role's own: {text}");
    }

    #[test]
    fn sizes_and_times_have_units_and_what_has_none_is_a_number() {
        let of = |key: &str, value: &str| {
            let mut settings = Settings::new(Role::Provider, Path::new("/role"));
            settings.set(key, value).map(|()| settings)
        };
        for (value, bytes) in [("7", 7), ("2 KiB", 2_048), ("8GiB", 8 << 30), ("1 TiB", 1 << 40), ("5 B", 5)]
        {
            assert_eq!(of("capacity", value).expect(value).bytes("capacity").expect(value), bytes);
        }
        for (value, seconds) in [("20 s", 20), ("6 h", 21_600), ("14 days", 1_209_600), ("3 min", 180)] {
            let settings = of("grace", value).expect(value);
            assert_eq!(settings.time("grace").expect(value), Duration::from_secs(seconds));
        }
        for (key, value) in [
            ("capacity", "8 Gigs"),
            ("capacity", "-1"),
            ("capacity", "99999999999 TiB"),
            ("grace", "soon"),
            ("listen", "localhost:1"),
            ("advertise", "localhost"),
            ("private", "perhaps"),
            ("log", "printer"),
            ("term_max", "1.5"),
        ] {
            let text = of(key, value).expect_err(value).in_one_line();
            assert!(text.contains(&format!("`{key}`")) && text.contains("set it as"), "{text}");
        }
    }

    #[test]
    fn users_are_accounts_with_or_without_a_quota_and_anything_else_is_refused_with_what_is_expected() {
        let account = Account([7; 32]);
        let users = |list: &str| parsed(&format!("role = \"gateway\"\nusers = {list}\n"))?.users("users");
        let found =
            users(&format!(r#"["{account}", "{account}=9", "{account} = 2 KiB"]"#)).expect("accounts");
        let user = |quota| User { account, quota };
        assert_eq!(found, [user(None), user(Some(9)), user(Some(2_048))]);
        for wrong in
            ["[7]", r#"["x"]"#, "7", &format!(r#"["{account}="]"#), &format!(r#"["{account}=much"]"#)]
        {
            let text = users(wrong).expect_err(wrong).in_one_line();
            assert!(text.contains("`users`") && text.contains("sync1...=50 GiB"), "{text}");
        }
    }

    #[test]
    fn an_address_that_nobody_else_can_reach_is_not_announced_outside_a_private_network() {
        for (private, listen, advertise, announced) in [
            (false, "0.0.0.0:1", "", None),
            (true, "0.0.0.0:1", "", None),
            (true, "[::]:1", "", None),
            (false, "127.0.0.1:1", "", None),
            (true, "127.0.0.1:1", "", Some("127.0.0.1:1")),
            (true, "127.0.0.1:0", "", Some("127.0.0.1:0")),
            (false, "0.0.0.0:1", "0.0.0.0:2", None),
            (false, "0.0.0.0:1", "127.0.0.1:2", None),
            (false, "0.0.0.0:1", "localhost:2", None),
            (true, "0.0.0.0:1", "localhost:2", Some("localhost:2")),
            (false, "0.0.0.0:1", "192.0.2.1:0", None),
            (false, "0.0.0.0:1", "192.0.2.1:2", Some("192.0.2.1:2")),
            (false, "192.0.2.1:1", "", Some("192.0.2.1:1")),
            (false, "0.0.0.0:1", "no-such-host.invalid:2", Some("no-such-host.invalid:2")),
        ] {
            let mut settings = Settings::new(Role::Provider, Path::new("/role"));
            let private = if private { "true" } else { "false" };
            for (key, value) in [("private", private), ("listen", listen), ("advertise", advertise)] {
                settings.set(key, value).expect(value);
            }
            let found = settings.announced("advertise", "listen");
            match (found, announced) {
                (Ok(found), Some(announced)) => assert_eq!(found.to_string(), announced),
                (Err(failure), None) => assert!(failure.in_one_line().contains("advertise")),
                (found, _) => panic!("{private} {listen} {advertise}: {found:?}"),
            }
        }
    }

    #[test]
    fn one_setting_is_changed_and_the_users_own_comments_stay() {
        let home = tempfile::tempdir().expect("a directory");
        fs::write(home.path().join(FILE), "role = \"gateway\" # mine\nlisten = \"127.0.0.1:1\"\n")
            .expect("writable");
        change(home.path(), &[("alert_url", "http://127.0.0.1:9/x"), ("log", "file")]).expect("changed");
        let text = fs::read_to_string(home.path().join(FILE)).expect("there");
        assert!(text.contains("# mine") && text.contains("alert_url = \"http://127.0.0.1:9/x\""), "{text}");
        let settings = Settings::read(home.path()).expect("valid");
        assert_eq!(settings.text("log").expect("a word"), "file");
        let mode = || fs::metadata(home.path().join(FILE)).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600, "the address of the alerts is the operator's alone");
        settings.write().expect("written anew");
        assert_eq!(mode(), 0o600);
        fs::write(home.path().join(FILE), &text).expect("as it was");
        assert!(change(home.path(), &[("log", "printer")]).is_err());
        assert_eq!(fs::read_to_string(home.path().join(FILE)).expect("there"), text, "it is as it was");
    }
}
