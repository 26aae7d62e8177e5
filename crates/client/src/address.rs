//! The address at which a service announces itself: `host:port`, with a host name or an IP address.
//!
//! A name is resolved anew for each connection, so that a machine may move. It proves nothing: the peer at
//! the other end proves its key.

use commonware_runtime::{Clock, Resolver};
use commonware_utils::Hostname;
use futures::future::{Either, select};
use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::pin,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

/// Most addresses of one name that are tried.
pub(crate) const TRIED_MAX: usize = 4;
/// Time that a name's resolution may take.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);

/// The address of a service: an IP address or a host name, with a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An IP address with a port.
    Ip(SocketAddr),
    /// A host name with a port.
    Name(Arc<str>, u16),
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// There is no `:port` at its end.
    #[error("'{0}' has no port; write host:port, such as storage.example.org:4100")]
    Port(String),
    /// The host is neither an IP address nor a name.
    #[error(
        "the host in '{0}' is neither an IP address nor a host name; write it as in storage.example.org:4100 or [2001:db8::7]:4100"
    )]
    Host(String),
}

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    /// The name service gave no address.
    #[error("the name {0} has no address: {1}; check its spelling and this machine's name service")]
    Nowhere(Arc<str>, String),
    /// The name service did not answer in time.
    #[error("the name service did not answer about {0} in time; check this machine's name service")]
    Late(Arc<str>),
}

/// How far an IP address leads, from the widest to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// The internet routes it to one machine.
    Internet,
    /// It belongs to a private network, to documentation or to a tunnel.
    Private,
    /// It is this machine's own.
    Here,
    /// It is no machine's address, or that of a link.
    Nowhere,
}

/// The scope of an address; an IPv4 address in IPv6 form counts as what it is.
pub(crate) fn scope(ip: IpAddr) -> Scope {
    let ip = ip.to_canonical();
    let is_link = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.octets()[0] == 0 || ip.octets()[0] >= 240,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    match ip {
        _ if is_public(ip) => Scope::Internet,
        _ if ip.is_loopback() => Scope::Here,
        _ if is_link || ip.is_unspecified() || ip.is_multicast() => Scope::Nowhere,
        _ => Scope::Private,
    }
}

/// The addresses that count as one machine: an IPv4 address, or the /64 network of an IPv6 address.
pub fn group(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        ip => ip,
    }
}

/// True for an address that the internet routes to one machine.
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [first, second, third, _] = ip.octets();
            let is_shared = first == 100 && second & 0xc0 == 64;
            let is_assigned = first == 192 && second == 0 && third == 0;
            let is_test = first == 198 && second & 0xfe == 18;
            !(ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_documentation()
                || first == 0
                || first >= 224
                || is_shared
                || is_assigned
                || is_test)
        }
        // Global unicast addresses are 2000::/3; of them, documentation (2001:db8::/32, 3fff::/20) and tunnels of
        // IPv4 lead elsewhere.
        IpAddr::V6(ip) => {
            let [first, second, ..] = ip.segments();
            first & 0xe000 == 0x2000
                && first != 0x2002
                && !(first == 0x2001 && (second == 0 || second == 0xdb8))
                && !(first == 0x3fff && second < 0x1000)
        }
    }
}

impl Address {
    /// The port, whatever the host is.
    pub const fn port(&self) -> u16 {
        match self {
            Self::Ip(address) => address.port(),
            Self::Name(_, port) => *port,
        }
    }

    /// The socket addresses to try now, in order; at most `TRIED_MAX`.
    ///
    /// # Errors
    /// [`Unresolved`], only of a name.
    pub async fn resolve(&self, context: &(impl Clock + Resolver)) -> Result<Vec<SocketAddr>, Unresolved> {
        let (name, port) = match self {
            Self::Ip(address) => return Ok(vec![*address]),
            Self::Name(name, port) => (name, *port),
        };
        let (asked, late) = (pin!(context.resolve(name)), pin!(context.sleep(RESOLVE_WITHIN)));
        let found = match select(asked, late).await {
            Either::Left((Ok(found), _)) => found,
            Either::Left((Err(error), _)) => {
                return Err(Unresolved::Nowhere(name.clone(), error.to_string()));
            }
            Either::Right(_) => return Err(Unresolved::Late(name.clone())),
        };
        let mut all: Vec<SocketAddr> = Vec::new();
        for ip in found {
            let address = SocketAddr::new(ip, port);
            if all.len() < TRIED_MAX && !all.contains(&address) {
                all.push(address);
            }
        }
        if all.is_empty() { Err(Unresolved::Nowhere(name.clone(), "no record".into())) } else { Ok(all) }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let port = || BadAddress::Port(text.into());
        let (host, digits) = text.rsplit_once(':').ok_or_else(port)?;
        let is_port = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse().ok().filter(|_| is_port).ok_or_else(port)?;
        // The last label of a name is no number: 10.0.0.300 is a mistyped IP address.
        let is_numeric =
            host.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
        if is_numeric || host.parse::<IpAddr>().is_ok() || Hostname::new(host).is_err() {
            return Err(BadAddress::Host(text.into()));
        }
        Ok(Self::Name(host.to_ascii_lowercase().into(), number))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_runtime::{Runner as _, deterministic};

    #[test]
    fn an_address_is_a_host_with_a_port_and_comes_back_as_it_was_written() {
        for good in ["127.0.0.1:7", "[2001:db8::7]:4100", "localhost:1", "a-1.example.org:65535"] {
            assert_eq!(good.parse::<Address>().expect(good).to_string(), good);
        }
        for (bad, port) in [
            ("", true),
            ("example.org", true),
            ("example.org:", true),
            ("example.org:70000", true),
            ("example.org:+80", true),
            (":80", false),
            ("10.0.0.300:80", false),
            ("2001:db8::7:80", false),
            ("exa mple.org:80", false),
            ("-a.org:80", false),
        ] {
            let error = bad.parse::<Address>().expect_err(bad);
            assert_eq!(matches!(error, BadAddress::Port(_)), port, "{bad}: {error}");
        }
    }

    #[test]
    fn a_name_is_looked_up_anew_each_time() {
        deterministic::Runner::default().start(|context| async move {
            let address: Address = "storage.example.org:80".parse().expect("a name");
            let error = address.resolve(&context).await.expect_err("nobody knows it");
            assert!(error.to_string().contains("storage.example.org"), "{error}");
            for last in 1..3 {
                let ip = IpAddr::from([10, 0, 0, last]);
                context.resolver_register("storage.example.org", Some(vec![ip, ip]));
                let found = address.resolve(&context).await.expect("it is known");
                assert_eq!(found, [SocketAddr::new(ip, 80)]);
            }
            let many = (0..9).map(|last| IpAddr::from([10, 0, 1, last])).collect();
            context.resolver_register("storage.example.org", Some(many));
            assert_eq!(address.resolve(&context).await.expect("it is known").len(), TRIED_MAX);
        });
    }
}
