//! The registration of a provider, as tests of all crates send it.

use posync_protocol::{Amount, Bounded, PerClass, limits::OPERATOR_BYTES, operation::RegisterProvider};

/// A registration under the name of an operator, at an address. It offers 2^20 leaves, and 1 GiB of egress an epoch, at
/// any price and for up to 720 epochs; a test that needs other terms replaces their fields.
pub(crate) fn registration(operator: &str, address: &str) -> RegisterProvider {
    let mut name = [0; OPERATOR_BYTES];
    name[..operator.len()].copy_from_slice(operator.as_bytes());
    let address = Bounded::new(address.as_bytes().to_vec()).expect("short");
    RegisterProvider {
        operator: name,
        bond: Amount::sync(1_000),
        capacity: PerClass::new(1 << 20, 1 << 30, 0),
        reserve: PerClass::all(0),
        term_max: 720,
        addresses: Bounded::new(vec![address]).expect("one"),
        region: Bounded::new(b"north".to_vec()).expect("short"),
    }
}
