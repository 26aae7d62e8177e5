//! Parameters by name: the two sets that a draft may choose, and changes of single parameters.

use posync_protocol::{Amount, Class, limits::Parameters};
use std::collections::BTreeMap;

/// Returns the set of parameters with that name.
///
/// # Errors
/// An explanation that names both sets.
pub(super) fn set(name: &str) -> Result<Parameters, String> {
    match name {
        "local" => Ok(Parameters::LOCAL),
        "production" => Ok(Parameters::PRODUCTION),
        _ => Err(format!("there is no set \"{name}\"; choose local or production")),
    }
}

/// The place of a parameter: the field with its name, or another one.
macro_rules! place {
    ($parameters:ident $name:ident) => { $parameters.$name };
    ($parameters:ident $name:ident $($place:tt)+) => { $parameters.$($place)+ };
}

/// Declares the parameters that a draft may change, by the way in which their text is read. A name that is not
/// a field has its place beside it.
macro_rules! named {
    ($($kind:ident: $($name:ident $(= ($($place:tt)+))?)*;)*) => {
        /// Names of all parameters.
        const NAMES: &[&str] = &[$($(stringify!($name),)*)*];

        /// Names and values of all parameters; money in grains.
        pub fn named(parameters: &Parameters) -> Vec<(&'static str, u128)> {
            vec![$($((stringify!($name), Value::from(place!(parameters $name $($($place)+)?)).0),)*)*]
        }

        fn change(parameters: &mut Parameters, name: &str, text: &str) -> Option<Option<()>> {
            match name {
                $($(stringify!($name) => {
                    Some($kind(text).map(|value| place!(parameters $name $($($place)+)?) = value))
                })*)*
                _ => None,
            }
        }
    };
}

/// The value of a parameter, whatever its width.
struct Value(u128);

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self(value.into())
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self(value.into())
    }
}

impl From<u128> for Value {
    fn from(value: u128) -> Self {
        Self(value)
    }
}

impl From<Amount> for Value {
    fn from(value: Amount) -> Self {
        Self(value.grains())
    }
}

named! {
    number:
        block_ms round_blocks term_rounds epoch_rounds leader_timeout_ms certification_timeout_ms
        draw_every_blocks deadline_blocks pending_rounds_max redemption_epochs agreement_epochs_max exit_epochs
        unbonding_epochs round_ring expiry_blocks_max burn committee reserve_share closing_slice
        emission_divisor usage_share subsidy_cap
        quota_leaves_max = (quota_max[Class::Storage]) quota_egress_max = (quota_max[Class::Egress])
        quota_gas_max = (quota_max[Class::Compute])
        rate_egress_max = (rate_max.egress) rate_gas_max = (rate_max.gas);
    small: draws fault_draws_min;
    wide:
        price_storage = (prices[Class::Storage]) price_egress = (prices[Class::Egress])
        price_gas = (prices[Class::Compute]);
    money:
        base_fee deposit account_burn bond_min bond_per_leaf registration_burn unjail_burn seat_bond;
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

fn small(text: &str) -> Option<u32> {
    text.parse().ok()
}

fn wide(text: &str) -> Option<u128> {
    text.parse().ok()
}

fn money(text: &str) -> Option<Amount> {
    Amount::new(text.parse().ok()?)
}

/// Changes single parameters of a set. Money is in grains.
///
/// # Errors
/// An explanation that names the parameter.
pub(super) fn apply(mut set: Parameters, changes: &BTreeMap<String, String>) -> Result<Parameters, String> {
    for (name, text) in changes {
        match change(&mut set, name, text) {
            Some(Some(())) => {}
            Some(None) => {
                return Err(format!("{name} cannot be \"{text}\"; give a whole number, money in grains"));
            }
            None => return Err(format!("there is no parameter \"{name}\"; they are {}", NAMES.join(", "))),
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_names_one_of_two_sets_of_parameters() {
        assert_eq!(set("production"), Ok(Parameters::PRODUCTION));
        assert_eq!(set("local"), Ok(Parameters::LOCAL));
        assert!(set("test").expect_err("no such set").contains("local or production"));
    }

    #[test]
    fn every_parameter_has_a_name_here() {
        let shown = format!("{:?}", Parameters::LOCAL);
        let fields: Vec<&str> = shown
            .split([' ', ','])
            .filter_map(|word| word.strip_suffix(':'))
            .flat_map(|field| match field {
                "prices" => vec!["price_storage", "price_egress", "price_gas"],
                "quota_max" => vec!["quota_leaves_max", "quota_egress_max", "quota_gas_max"],
                "rate_max" => vec!["rate_egress_max", "rate_gas_max"],
                // The fields of the values by class.
                "" | "egress" | "gas" => Vec::new(),
                field => vec![field],
            })
            .collect();
        let mut names = NAMES.to_vec();
        names.sort_unstable();
        let mut all = fields.clone();
        all.sort_unstable();
        assert_eq!(names, all);
        for name in NAMES {
            let changed = apply(Parameters::LOCAL, &BTreeMap::from([((*name).into(), "77777".into())]));
            assert_ne!(changed.expect("a number"), Parameters::LOCAL, "{name}");
        }
    }
}
