//! The owner's side: starts a lane, gives it work, and ends it when it is late or wrong.

use super::frame::{self, EngineKind, Reply, Request};
use crate::{
    job::{Job, Outcome},
    limits,
    program::{ModuleHash, input_bytes},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    ffi::OsStr,
    io::{self, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Most bytes of an answer about a module: the reason for a refusal may quote a long name.
const READY_BYTES_MAX: usize = 1 << 20;
/// Bytes after which a reason that comes from a lane is cut: a hostile module chooses names that are quoted in it.
const REASON_BYTES_MAX: usize = 1_000;
/// Bytes of a job's answer beside its output, its files' paths and its standard error.
const DONE_BYTES: usize = 64 << 10;

/// The failure of a lane. After any but [`LaneError::Refused`] and [`LaneError::Failed`] the lane has ended.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The process did not start.
    #[error("a lane did not start: {0}")]
    Start(#[source] io::Error),
    /// The module is refused; the reason.
    #[error("{0}")]
    Refused(String),
    /// There is no outcome; the reason.
    #[error("{0}")]
    Failed(String),
    /// The process has ended by itself: a crash, or a limit of its memory.
    #[error("the lane ended while it worked: {0}")]
    Ended(ExitStatus),
    /// It was killed at the deadline.
    #[error("it took longer than {} s and was ended", .0.as_secs())]
    Late(Duration),
    /// It sent bytes that are no answer.
    #[error("the lane sent no valid answer: {0}")]
    Garbled(String),
}

/// A child process that runs jobs. It is killed when it is dropped.
pub struct Lane {
    child: Child,
    /// Its output, to see whether there is any; the reader reads it.
    output: OwnedFd,
    /// Frames for the writer: a lane that does not read must not hold its owner.
    requests: mpsc::SyncSender<Vec<u8>>,
    /// For the reader: read one frame of at most so many bytes. Nothing is read before.
    wanted: mpsc::Sender<usize>,
    answers: mpsc::Receiver<io::Result<Option<Reply>>>,
}

impl Lane {
    /// Starts a lane: `program` with `arguments` must call [`super::serve`].
    ///
    /// # Errors
    /// [`LaneError::Start`].
    pub fn start(program: &Path, arguments: &[&OsStr]) -> Result<Self, LaneError> {
        let mut child = Command::new(program)
            .args(arguments)
            // Secrets of the owner's environment are not the program's.
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(LaneError::Start)?;
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let ready = || -> io::Result<_> {
            let output = stdout.as_fd().try_clone_to_owned()?;
            let (requests, queue) = mpsc::sync_channel(1);
            let (wanted, permits) = mpsc::channel();
            let (send, answers) = mpsc::channel();
            thread::Builder::new().name("lane-write".into()).spawn(move || write(stdin, &queue))?;
            thread::Builder::new().name("lane-read".into()).spawn(move || read(stdout, &permits, &send))?;
            Ok((output, requests, wanted, answers))
        };
        match ready() {
            Ok((output, requests, wanted, answers)) => Ok(Self { child, output, requests, wanted, answers }),
            Err(error) => {
                let _ = end(&mut child);
                Err(LaneError::Start(error))
            }
        }
    }

    /// Number of the lane's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Makes a module ready, and returns its name.
    ///
    /// # Errors
    /// [`LaneError`], among them the reason for a refusal.
    pub fn ready(&mut self, module: &[u8], within: Duration) -> Result<ModuleHash, LaneError> {
        let hash = blake3::hash(module).into();
        match self.ask(&Request::Module(module.to_vec()), READY_BYTES_MAX, within, &mut |_| {})? {
            Reply::Ready(ready) if ready == hash => Ok(hash),
            Reply::Refused(why) => Err(LaneError::Refused(plain(&why))),
            Reply::Failed(why) => Err(LaneError::Failed(plain(&why))),
            _ => Err(self.garbled("an answer to another question")),
        }
    }

    /// Runs a job of a module that is ready. `live` gets standard error while the job runs.
    ///
    /// # Errors
    /// [`LaneError`].
    pub fn run(
        &mut self,
        module: ModuleHash,
        engine: EngineKind,
        job: Job,
        within: Duration,
        live: &mut dyn FnMut(&[u8]),
    ) -> Result<Outcome, LaneError> {
        let limit = job.gas;
        let most = answer_bytes_max(&job);
        match self.ask(&Request::Job { module, engine, job }, most, within, live)? {
            Reply::Done(outcome) if outcome.gas > limit => Err(self.garbled("more gas than the job may use")),
            Reply::Done(outcome) => match outcome.files.iter().find(|(path, _)| !is_inside(path)) {
                Some((path, _)) => Err(self.garbled(&format!("the path {path:?} leaves the output"))),
                None => Ok(outcome),
            },
            Reply::Failed(why) => Err(LaneError::Failed(plain(&why))),
            _ => Err(self.garbled("an answer to another question")),
        }
    }

    /// Sends a request and waits for its answer, whose frames have at most `most` bytes.
    fn ask(
        &mut self,
        request: &Request,
        most: usize,
        within: Duration,
        live: &mut dyn FnMut(&[u8]),
    ) -> Result<Reply, LaneError> {
        let start = Instant::now();
        let frame = frame::encode(request).map_err(|error| LaneError::Failed(error.to_string()))?;
        if self.has_output() {
            return Err(self.garbled("it answers before it is asked"));
        }
        match self.requests.try_send(frame) {
            Ok(()) => {}
            Err(mpsc::TrySendError::Full(_)) => return Err(self.garbled("it has not read the last request")),
            Err(mpsc::TrySendError::Disconnected(_)) => return Err(self.ended()),
        }
        let mut errors_left = limits::STDERR_BYTES_MAX;
        loop {
            if self.wanted.send(most).is_err() {
                return Err(self.ended());
            }
            let left = within.checked_sub(start.elapsed()).filter(|left| !left.is_zero());
            match left.map(|left| self.answers.recv_timeout(left)) {
                Some(Ok(Ok(Some(Reply::Stderr(bytes))))) => {
                    if bytes.is_empty() || bytes.len() > errors_left {
                        return Err(self.garbled("it sends more to standard error than a job may"));
                    }
                    errors_left -= bytes.len();
                    live(&bytes);
                }
                Some(Ok(Ok(Some(answer)))) => return Ok(answer),
                Some(Ok(Ok(None)) | Err(mpsc::RecvTimeoutError::Disconnected)) => return Err(self.ended()),
                Some(Ok(Err(error))) => return Err(self.garbled(&error.to_string())),
                None | Some(Err(mpsc::RecvTimeoutError::Timeout)) => {
                    let _ = end(&mut self.child);
                    return Err(LaneError::Late(within));
                }
            }
        }
    }

    /// True if the lane has written something that nobody has read.
    fn has_output(&self) -> bool {
        let mut output = [PollFd::new(&self.output, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut output, Some(&at_once)).is_ok() && output[0].revents().contains(PollFlags::IN)
    }

    fn garbled(&mut self, why: &str) -> LaneError {
        let _ = end(&mut self.child);
        LaneError::Garbled(plain(why))
    }

    /// The error of a lane that closed its output, with the status of its process.
    fn ended(&mut self) -> LaneError {
        match end(&mut self.child) {
            Ok(status) => LaneError::Ended(status),
            Err(error) => LaneError::Start(error),
        }
    }
}

/// Ends a process at once. One that has ended by itself keeps its status.
fn end(child: &mut Child) -> io::Result<ExitStatus> {
    let _ = child.kill();
    child.wait()
}

/// Writes requests to a lane, until one of the two is gone.
fn write(mut stdin: ChildStdin, queue: &mpsc::Receiver<Vec<u8>>) {
    while let Ok(frame) = queue.recv() {
        if stdin.write_all(&frame).is_err() {
            return;
        }
    }
}

/// Reads answers of a lane, one whenever its owner wants one.
fn read(
    mut stdout: ChildStdout,
    wanted: &mpsc::Receiver<usize>,
    send: &mpsc::Sender<io::Result<Option<Reply>>>,
) {
    while let Ok(most) = wanted.recv() {
        let answer = frame::read(&mut stdout, most);
        let is_last = !matches!(answer, Ok(Some(_)));
        if send.send(answer).is_err() || is_last {
            return;
        }
    }
}

/// Most bytes of an answer about a job: what it may write, and the input files that it may have moved.
fn answer_bytes_max(job: &Job) -> usize {
    let output = usize::try_from(job.output).unwrap_or(usize::MAX).min(limits::OUTPUT_BYTES_MAX);
    let paths = limits::NODES_MAX * limits::PATH_BYTES_MAX;
    let most = input_bytes(job).saturating_add(output + paths + limits::STDERR_BYTES_MAX + DONE_BYTES);
    most.min(limits::FRAME_BYTES_MAX)
}

/// A reason as it can be printed: one line without control characters, and no longer than people read.
fn plain(reason: &str) -> String {
    let mut plain = String::new();
    for letter in reason.chars() {
        if plain.len() >= REASON_BYTES_MAX {
            return plain + " ...";
        }
        match letter {
            '\n' | '\t' => plain.push(' '),
            '"' | '\'' | '\\' => plain.push(letter),
            _ => plain.extend(letter.escape_debug()),
        }
    }
    plain
}

/// True for a relative path that stays below the directory from which it is followed.
fn is_inside(path: &str) -> bool {
    !path.contains('\0') && path.split('/').all(|name| !matches!(name, "" | "." | ".."))
}

impl Drop for Lane {
    fn drop(&mut self) {
        let _ = end(&mut self.child);
    }
}

#[cfg(test)]
mod tests {
    use super::is_inside;

    #[test]
    fn a_path_that_leaves_the_output_is_known() {
        for path in ["a", "a/b", "a.b/..c", "..."] {
            assert!(is_inside(path), "{path}");
        }
        for path in ["", "/a", "..", "../a", "a/../b", "a/..", "a//b", "a/", "./a", "a\0b"] {
            assert!(!is_inside(path), "{path}");
        }
    }
}
