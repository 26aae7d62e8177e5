//! The table of parameters in `docs/protocol.md`, compared with the parameters themselves.

use posync_protocol::limits::Parameters;
use serde_json::Value;
use std::collections::BTreeMap;

const DOCUMENT: &str = include_str!("../../../docs/protocol.md");

/// The cells of the table's rows by the parameter that the first cell names: local, then production.
fn table() -> BTreeMap<String, [String; 2]> {
    let from = DOCUMENT.lines().skip_while(|line| !line.starts_with("| parameter | local | production |"));
    let rows = from.skip(2).take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let name = cells[1].split('`').nth(1).unwrap_or_else(|| panic!("no parameter is named: {line}"));
        (name.to_owned(), [cells[2].to_owned(), cells[3].to_owned()])
    };
    rows.map(row).collect()
}

/// The number of a cell such as `1,440 rounds`, without its separators, and its unit.
fn number(cell: &str) -> (String, &str) {
    let (number, unit) = cell.split_once(' ').unwrap_or((cell, ""));
    (number.replace(',', ""), unit)
}

/// A parameter's number as the table writes it: money in the unit of the cell.
fn expected(value: &Value, unit: &str) -> String {
    match value {
        Value::Object(money) if unit == "grains" => money["grains"].as_str().expect("a number").to_owned(),
        Value::Object(money) => {
            let sync = money["sync"].as_str().expect("a number");
            sync.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        Value::String(number) => number.clone(),
        number => number.to_string(),
    }
}

#[test]
fn the_documented_parameters_are_those_of_the_genesis_with_their_values() {
    let table = table();
    for (column, parameters) in [Parameters::LOCAL, Parameters::PRODUCTION].iter().enumerate() {
        let values = serde_json::to_value(parameters).expect("JSON");
        let values = values.as_object().expect("an object");
        assert!(table.keys().eq(values.keys()), "{:?} != {:?}", table.keys(), values.keys());
        for (name, value) in values {
            let (documented, unit) = number(&table[name][column]);
            assert_eq!(documented, expected(value, unit), "{name} in column {column}");
            assert!(
                value.is_object() == ["SYNC", "grains"].contains(&unit) || name.starts_with("price_"),
                "{name}"
            );
        }
    }
}
