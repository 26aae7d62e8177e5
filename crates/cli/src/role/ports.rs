//! The addresses on which a role listens: a taken one ends the start, with the setting that names it.

use super::settings::Settings;
use crate::{
    failure::{Exit, Failure, Outcome},
    network::Role,
};
use std::{
    io,
    net::{SocketAddr, TcpListener},
};

/// Checks that the role can listen on `address`, which the setting `key` names.
///
/// # Errors
/// As [`refused`].
pub(super) fn free(settings: &Settings, key: &str, address: SocketAddr) -> Outcome {
    TcpListener::bind(address).map(drop).map_err(|error| refused(settings, key, address, &error))
}

/// The failure of a role that cannot listen on `address`, which the setting `key` names.
pub(crate) fn refused(settings: &Settings, key: &str, address: SocketAddr, error: &io::Error) -> Failure {
    let (role, file, port) = (settings.role, settings.path(), address.port());
    let announced = match (role, key) {
        (Role::Gateway, _) => "",
        (_, "service_listen") => " and in `service_advertise`",
        _ => " and in `advertise`",
    };
    let cannot = format!("this {role} cannot listen on {address}");
    let (what, next) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            format!("port {port} is taken: {cannot}"),
            format!(
                "find the program that has it with `ss -tlnp 'sport = :{port}'` and stop it, or set another port in \
                 `{key}`{announced}"
            ),
        ),
        io::ErrorKind::AddrNotAvailable => (
            cannot,
            format!("set `{key}` to 0.0.0.0:{port}, or to an address of this machine (see `ip address`)"),
        ),
        _ => {
            (cannot, format!("set `{key}` to a port that this user may use, such as {}", settings.usual(key)))
        }
    };
    let why = format!("`{key}` in {} names it: {error}", file.display());
    Failure::new(Exit::Local, what, why, next)
}
