//! The messages between a lane and its owner: a length, a kind, and bytes.

use crate::{
    job::{Job, Outcome},
    limits::FRAME_BYTES_MAX,
    program::ModuleHash,
};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

/// The engine that runs a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineKind {
    /// The compiler, which runs jobs.
    Cranelift,
    /// The second engine, to compare with.
    Interpreter,
}

/// A request of the owner.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Make a module ready.
    Module(Vec<u8>),
    /// Run a job of a module that is ready.
    Job { module: ModuleHash, engine: EngineKind, job: Job },
}

/// An answer of the lane.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The module is ready.
    Ready(ModuleHash),
    /// The module is refused, and the reason.
    Refused(String),
    /// The job wrote these bytes to standard error.
    Stderr(Vec<u8>),
    /// The job has ended.
    Done(Outcome),
    /// There is no outcome, and the reason.
    Failed(String),
}

/// The frame of a message.
///
/// # Errors
/// A message that is too long.
pub(super) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(io::Error::other(format!("a message of {length} bytes is too long")));
    }
    bytes.splice(..0, length.to_le_bytes());
    Ok(bytes)
}

/// Writes a message as one frame.
pub(super) fn write(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    to.write_all(&encode(message)?)?;
    to.flush()
}

/// Reads the next frame, of at most `most` bytes; `None` at the end of the stream.
///
/// # Errors
/// An error of the stream, or a frame that is too long, cut or does not decode.
pub(super) fn read<T: for<'a> Deserialize<'a>>(from: &mut impl Read, most: usize) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > most {
        let why = format!("a frame of {length} bytes is too long; {most} are the most");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    // Grows with the bytes that come, not with the length that was promised.
    let mut bytes = Vec::new();
    from.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let (message, rest) = postcard::take_from_bytes(&bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    if !rest.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes follow the message in its frame"));
    }
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{job::Exit, limits::NODES_MAX};

    fn bytes(message: &Reply) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, message).expect("it fits");
        bytes
    }

    fn answer(bytes: &[u8]) -> io::Result<Option<Reply>> {
        read(&mut &bytes[..], FRAME_BYTES_MAX)
    }

    #[test]
    fn a_frame_is_read_whole_or_refused() {
        let good = bytes(&Reply::Stderr(b"words".to_vec()));
        assert!(matches!(answer(&good), Ok(Some(Reply::Stderr(words))) if words == b"words"));
        assert!(matches!(answer(&[]), Ok(None)));
        for cut in 4..good.len() {
            assert_eq!(
                answer(&good[..cut]).unwrap_err().kind(),
                io::ErrorKind::UnexpectedEof,
                "cut at {cut}"
            );
        }
        let mut longer = good.clone();
        longer[0] += 1;
        longer.push(0);
        assert_eq!(answer(&longer).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut unknown = good;
        unknown[4] = 99;
        assert_eq!(answer(&unknown).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_result_with_more_files_than_a_tree_holds_is_refused() {
        let done = |count: usize| {
            let files = vec![(String::new(), None); count];
            let (stdout, stderr) = (Vec::new(), Vec::new());
            Reply::Done(Outcome { exit: Exit::OutOfGas, gas: 1, stdout, stderr, files, memory: [0; 32] })
        };
        assert!(matches!(answer(&bytes(&done(NODES_MAX))), Ok(Some(Reply::Done(_)))));
        assert_eq!(answer(&bytes(&done(NODES_MAX + 1))).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_frame_is_no_longer_than_what_was_asked_for() {
        let good = bytes(&Reply::Stderr(b"words".to_vec()));
        let longest = good.len() - 4;
        assert!(read::<Reply>(&mut &good[..], longest).is_ok());
        let longer = read::<Reply>(&mut &good[..], longest - 1).unwrap_err();
        assert_eq!(longer.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_promised_length_takes_no_memory_before_its_bytes_come() {
        let too_long = u32::try_from(FRAME_BYTES_MAX + 1).expect("bounds are below 4 GiB").to_le_bytes();
        assert_eq!(answer(&too_long).unwrap_err().kind(), io::ErrorKind::InvalidData);
        // A list that claims more items than the frame has bytes.
        let mut claims = bytes(&Reply::Stderr(vec![7; 100]));
        claims.truncate(9);
        claims[..4].copy_from_slice(&5_u32.to_le_bytes());
        claims[5..9].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f]);
        assert_eq!(answer(&claims).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
