//! What a refusal looks like to whoever gets it: a person at a terminal, or a script.

mod common;

use common::POSYNC;
use serde_json::Value;
use std::process::{Command, Output, Stdio};

/// Runs the program in an empty directory, with nothing in its environment but this.
fn run(environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(POSYNC);
    command.args(arguments).env_clear().envs(environment.iter().copied()).current_dir(home.path());
    command.stdin(Stdio::null()).output().expect("the program starts")
}

/// The exit code, and the error object, which is all that is said.
fn refused(environment: &[(&str, &str)], arguments: &[&str]) -> (i32, Value) {
    let output = run(environment, arguments);
    assert!(output.stdout.is_empty(), "{output:?}");
    let error: Value = serde_json::from_slice(&output.stderr)
        .unwrap_or_else(|_| panic!("no single JSON object: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().expect("it ended"), error["error"].clone())
}

#[test]
fn a_command_line_that_cannot_be_read_is_an_error_object_for_a_script() {
    for (arguments, says) in [
        (&["--json", "no-such-command"][..], "no-such-command"),
        (&["put", "--json"], "<FILE>"),
        (&["--json", "blocks", "--from", "x"], "invalid value 'x'"),
        (&["--json", "blocks", "--from", "-1"], "invalid value '-1'"),
        (&["--json", "devnet", "--providers", "3"], "3 is not in 8..=200"),
        (&["--json"], "requires a subcommand"),
    ] {
        let (code, error) = refused(&[], arguments);
        assert_eq!((code, &error["exit"]), (2, &Value::from(2)), "{arguments:?}");
        assert!(error["why"].as_str().is_some_and(|why| why.contains(says)), "{arguments:?}: {error}");
    }
    let help = run(&[], &["--json", "put", "--help"]);
    assert!(help.status.success() && help.stderr.is_empty() && !help.stdout.is_empty(), "{help:?}");
}

#[test]
fn a_negative_number_is_a_bad_amount_and_no_unknown_option() {
    let (code, error) = refused(&[], &["--json", "send", "provider-1", "-1"]);
    assert_eq!(code, 2);
    assert_eq!(error["what"], "'-1' is not an amount");
}

#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    for environment in [&[][..], &[("POSYNC_NET", ""), ("POSYNC_LOG", "")]] {
        let (code, error) = refused(environment, &["--json", "status"]);
        assert_eq!((code, &error["what"]), (3, &Value::from("no network in devnet")));
    }
    let (code, error) = refused(&[("POSYNC_NET", "elsewhere")], &["--json", "status"]);
    assert_eq!((code, &error["what"]), (3, &Value::from("no network in elsewhere")));
}

#[test]
fn no_name_moves_the_cursor_of_whoever_reads_the_refusal() {
    let name = "a\u{1b}[2Jb\u{202e}c\r\nd";
    for arguments in [&["--net", name, "status"][..], &["put", name, "x"], &["demo", "--file", name]] {
        let output = run(&[], arguments);
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).expect("text");
        assert!(text.contains("\\u{1b}[2J"), "it is named: {text}");
        let obeyed = |c: char| c == '\u{202e}' || (c.is_control() && c != '\n');
        assert!(!text.contains(obeyed), "{text:?}");
    }
}
