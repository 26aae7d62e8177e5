//! Providers: registration, standing offer, exit.

use crate::{
    Account, Code,
    ledger::{Touched, Working},
    operation::{RegisterProvider, UpdateProvider},
};

pub(crate) fn touches_register(_signer: &Account, _touched: &mut Touched) {}
pub(crate) fn touches_update(_signer: &Account, _body: &UpdateProvider, _touched: &mut Touched) {}
pub(crate) fn register(
    _w: &mut Working<'_>,
    _signer: &Account,
    _body: &RegisterProvider,
) -> Result<(), Code> {
    Err(Code::BadShape)
}
pub(crate) fn update(_w: &mut Working<'_>, _signer: &Account, _body: &UpdateProvider) -> Result<(), Code> {
    Err(Code::BadShape)
}
