//! The commands, one file for each.

pub(crate) mod account;
pub(crate) mod agreements;
pub(crate) mod blocks;
pub(crate) mod demo;
pub(crate) mod devnet;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod gateway;
pub(crate) mod get;
pub(crate) mod join;
pub(crate) mod leave;
pub(crate) mod ls;
pub(crate) mod net;
pub(crate) mod prices;
pub(crate) mod prove;
pub(crate) mod providers;
pub(crate) mod put;
pub(crate) mod recompute;
pub(crate) mod rm;
pub(crate) mod send;
pub(crate) mod sim;
pub(crate) mod status;
pub(crate) mod verify;
pub(crate) mod watch;
pub(crate) mod why;
