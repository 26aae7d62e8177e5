//! The commands of docs/operating.md, as it prints them, and the fields of their answers.
//!
//! A step takes a command from here and puts its own names in the places of the example's, so a command that
//! works here works for a reader. A test compares each with the document.

/// Declares the commands, and the list of all of them that the test compares with the document.
macro_rules! commands {
    ($($(#[doc = $doc:literal])* $name:ident = $command:literal;)*) => {
        $($(#[doc = $doc])* pub(super) const $name: &str = $command;)*

        #[cfg(test)]
        const ALL: &[&str] = &[$($name),*];
    };
}

commands! {
    /// Makes an authority's directory, with its card.
    INIT_AUTHORITY = "posync init authority --dir D --set advertise=node.example.org:4000 --set service_advertise=node.example.org:4001";
    /// Collects the cards into a draft.
    DRAFT = "posync ceremony draft --parameters production --cards cards/*.json --each-authority 1000000 > draft.json";
    /// Shows the draft and its id.
    SHOW = "posync ceremony show draft.json";
    /// Takes part in the ceremony.
    CEREMONY = "posync ceremony --dir D draft.json";
    /// Runs the role of a directory.
    START = "posync start --dir D";
    /// Shows the network's state.
    STATUS = "posync status --net D";
    /// Makes the directory of a node without a seat.
    INIT_NODE = "posync init node --dir D --net network.toml --set service_advertise=node.example.org:4001";
    /// Makes a provider's directory.
    INIT_PROVIDER = "posync init provider --dir D --net network.toml --set operator=ann --set region=eu-north --set advertise=p.example.org:4100";
    /// Shows the account of a directory.
    ACCOUNT = "posync account --net D";
    /// Pays from an authority's account.
    SEND = "posync send sync1... SUM --net D";
    /// Prints the line of the network file.
    NET_SHOW = "posync net show --net D";
    /// Writes a network file that names one node alone.
    NET_EXPORT = "posync net export FILE --net D --only sync1...";
    /// Joins as a provider.
    JOIN_PROVIDER = "posync join provider --net posync1... --dir /srv/posync --set operator=NAME --set region=eu-north --set advertise=storage.example.org:4100 --set \"capacity=500 GiB\"";
    /// Checks the machine of a role.
    DOCTOR = "posync doctor --dir /srv/posync";
    /// Announces a provider's exit, and later says what is left of it.
    LEAVE = "posync leave --dir /srv/posync";
    /// Makes an owner's key, and shows its account.
    KEY = "posync key new me.key";
    /// Joins as a gateway.
    JOIN_GATEWAY = "posync join gateway --net network.toml --dir /srv/gateway --set owner=sync1...";
    /// Stores a file at a gateway.
    PUT = "posync put report.pdf --net network.toml --key me.key --gateway sync1...@127.0.0.1:4200";
    /// Saves a gateway's catalogue.
    BACKUP = "posync gateway backup FILE --net D";
    /// Brings a catalogue back.
    RESTORE = "posync gateway restore FILE --net D";
}

/// Lists the providers, for the client.
pub(super) const PROVIDERS: &str = "posync providers --net network.toml --json";

/// A command with the example's names replaced, each of which must stand in it.
pub(super) fn with(command: &str, names: &[(&str, &str)]) -> String {
    let replaced = |text: String, (from, to): &(&str, &str)| {
        assert!(text.contains(from), "'{from}' does not stand in `{text}`");
        text.replace(from, to)
    };
    names.iter().fold(command.to_owned(), replaced)
}

/// The value of the first field of this name in a JSON text: a string without its quotes, or a number.
pub(super) fn field<'a>(json: &'a str, name: &str) -> Result<&'a str, String> {
    let absent = || format!("no field '{name}' in {json}");
    let after = json.split_once(&format!("\"{name}\":")).ok_or_else(absent)?.1.trim_start();
    let value = match after.strip_prefix('"') {
        Some(text) => text.split('"').next(),
        None => after.split([',', '}', ']', '\n']).next(),
    };
    value.ok_or_else(absent)
}

/// A field that is a whole number.
pub(super) fn number(json: &str, name: &str) -> Result<u64, String> {
    let value = field(json, name)?;
    value.parse().map_err(|_| format!("the field '{name}' is no number: {value}"))
}

/// The part of a list that begins at the row of this account.
pub(super) fn row<'a>(json: &'a str, account: &str) -> Option<&'a str> {
    let start = json.find(&format!("\"account\":\"{account}\""))?;
    json.get(start..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn every_command_stands_in_the_document() {
        let path = crate::tools::root().join("docs/operating.md");
        let text = fs::read_to_string(path).unwrap_or_default().replace("\\\n", " ");
        let document = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for command in ALL {
            assert!(document.contains(command), "docs/operating.md does not print `{command}`");
        }
    }

    #[test]
    fn fields_are_found_in_answers() {
        let json = r#"{"account":"sync1a","balance":{"sync":"1.5"},"height":27}"#;
        assert_eq!(field(json, "account"), Ok("sync1a"));
        assert_eq!(field(json, "sync"), Ok("1.5"));
        assert_eq!(number(json, "height"), Ok(27));
        assert!(number(json, "account").is_err() && field(json, "none").is_err());
        let list = r#"[{"account":"a","x":1},{"account":"b","x":2}]"#;
        assert_eq!(row(list, "b").map(|row| number(row, "x")), Some(Ok(2)));
        assert!(row(list, "c").is_none());
    }

    #[test]
    #[should_panic(expected = "does not stand")]
    fn a_name_that_the_command_has_not_is_noticed() {
        with(STATUS, &[("--dir", "E")]);
    }
}
