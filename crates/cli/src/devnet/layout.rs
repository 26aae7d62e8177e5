//! The processes of a network on this machine, and their addresses. Pure: touches no disk.

use crate::network::Role;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

/// Permitted authorities of a local network: below 4, one fault stops it; above 32, the engine refuses.
pub(crate) const AUTHORITIES: std::ops::RangeInclusive<u16> = 4..=32;
/// Permitted providers of a local network: each has the address 127.0.(10 + i).1.
pub(crate) const PROVIDERS: std::ops::RangeInclusive<u16> = 8..=200;
/// Number of regions, assigned in turn.
const REGIONS: u16 = 5;
/// Range of first ports: below the ephemeral range, so that no client takes one meanwhile.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Ports reserved for one network, from its first on.
const PORTS_EACH: u16 = 80;

/// A member before it is created: its name, role and addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    /// The member's name, which is also the name of its directory.
    pub(crate) name: String,
    /// The role that the member runs.
    pub(crate) role: Role,
    /// Address on which its service listens.
    pub(crate) service: SocketAddr,
    /// Address on which other authorities reach it; `None` for other roles.
    pub(crate) peers: Option<SocketAddr>,
    /// A provider's operator and region; `None` for other roles.
    pub(crate) offer: Option<(String, String)>,
}

/// Plans the members of a network whose first port is `port`.
pub(crate) fn seats(authorities: u16, providers: u16, port: u16) -> Vec<Seat> {
    let at = |a, b, port| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, a, b)), port);
    let authority = |i| Seat {
        name: format!("authority-{i}"),
        role: Role::Authority,
        service: at(0, 1, port + 2 * i + 1),
        peers: Some(at(0, 1, port + 2 * i)),
        offer: None,
    };
    let provider = |i| Seat {
        name: format!("provider-{i}"),
        role: Role::Provider,
        service: at(u8::try_from(10 + i).expect("at most 200 providers"), 1, port),
        peers: None,
        offer: Some((format!("op-{i}"), format!("region-{}", i % REGIONS))),
    };
    let gateway = Seat {
        name: "gateway".into(),
        role: Role::Gateway,
        service: at(1, 1, port),
        peers: None,
        offer: None,
    };
    let authorities = (0..authorities).map(authority);
    authorities.chain((0..providers).map(provider)).chain([gateway]).collect()
}

/// A first port at which every member can listen now; `start` spreads networks that start at once.
pub(crate) fn free_port(authorities: u16, providers: u16, start: u32) -> Option<u16> {
    let places = (PORTS.end - PORTS.start) / PORTS_EACH;
    let first = u16::try_from(start % u32::from(places)).expect("below a u16");
    (0..places).map(|i| PORTS.start + (first + i) % places * PORTS_EACH).find(|port| {
        let seats = seats(authorities, providers, *port);
        let listeners: Result<Vec<_>, _> = seats
            .iter()
            .flat_map(|seat| seat.peers.into_iter().chain([seat.service]))
            .map(TcpListener::bind)
            .collect();
        listeners.is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_listener_has_its_own_address() {
        for (authorities, providers) in [(4, 10), (*AUTHORITIES.end(), *PROVIDERS.end())] {
            let seats = seats(authorities, providers, PORTS.end - PORTS_EACH);
            let listeners: Vec<_> =
                seats.iter().flat_map(|s| s.peers.into_iter().chain([s.service])).collect();
            let distinct: BTreeSet<_> = listeners.iter().collect();
            assert_eq!(distinct.len(), listeners.len());
            assert_eq!(listeners.len(), usize::from(2 * authorities + providers + 1));
            assert!(listeners.iter().all(|address| address.port() < PORTS.end));
        }
    }

    #[test]
    fn providers_stand_where_the_documentation_says() {
        let seats = seats(4, 10, 20_000);
        let third = seats.iter().find(|seat| seat.name == "provider-7").expect("ten providers");
        assert_eq!(third.service.to_string(), "127.0.17.1:20000");
        assert_eq!(third.offer, Some(("op-7".into(), "region-2".into())));
    }

    #[test]
    fn a_taken_port_is_not_offered() {
        let port = free_port(4, 8, 7).expect("some place is free");
        let taken = TcpListener::bind(("127.0.1.1", port)).expect("it was free a moment ago");
        assert_ne!(free_port(4, 8, 7), Some(port));
        drop(taken);
    }
}
