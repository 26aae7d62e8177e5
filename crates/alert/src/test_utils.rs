//! Test support: a webhook on a socket, for the tests of this crate and of those that send alerts.

use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::TcpListener,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

/// A request that a test's webhook received.
#[derive(Debug)]
pub struct Posted {
    /// First line of the request.
    pub line: String,
    /// The request's body, parsed.
    pub json: Value,
}

/// Reads one HTTP request, passes it on and then answers it with a status, so that a sender that got its
/// answer finds the request passed on. Returns false if no receiver is left.
///
/// # Panics
/// If the request has no JSON body.
pub(crate) fn answer<S: Read + Write>(stream: S, status: u16, got: &Sender<Posted>) -> bool {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).expect("a request");
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the body");
    let posted = Posted { line: first.trim().to_owned(), json: serde_json::from_slice(&body).expect("JSON") };
    if got.send(posted).is_err() {
        return false;
    }
    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let mut stream = reader.into_inner();
    stream.write_all(answer.as_bytes()).and_then(|()| stream.flush()).expect("it reads the answer");
    true
}

/// Starts a hook that answers its requests with these statuses in turn, then with 200; returns its address
/// and the requests that it receives.
///
/// # Panics
/// If no port is free.
pub fn listen(statuses: Vec<u16>) -> (String, Receiver<Posted>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/hook/secret", listener.local_addr().expect("it is bound"));
    let (send, got) = channel();
    thread::spawn(move || {
        let mut statuses = statuses.into_iter();
        while let Ok((stream, _)) = listener.accept() {
            if !answer(stream, statuses.next().unwrap_or(200), &send) {
                break;
            }
        }
    });
    (url, got)
}
