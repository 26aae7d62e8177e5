//! Trials of a user's day on a real local network: large files, many small ones, a slow reader, stopped
//! providers, equal payments. Each prints its figures beside its limit and fails above it.
//!
//! The limits hold on a quiet machine with two cores; the network is that of `posync devnet`.
#![expect(clippy::disallowed_types, reason = "this program links nothing of the engine")]

use crate::net::{self, Net};
use std::{
    fs::File,
    io::{self, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

/// A trial: its name, its requirement in words, and its function.
type Trial = (&'static str, &'static str, fn(&Net) -> Result<String, String>);

const TRIALS: [Trial; 6] = [
    ("small", "sixteen loops of puts of 4 KiB for 60 s: none refused", small),
    ("stopped", "puts of 4 KiB with a provider stopped: p99 below 0.5 s after the first", stopped),
    ("sends", "ten equal payments at once: ten payments within 5 s", sends),
    ("paused", "seven of ten providers stopped for 2 minutes: every file reads, nothing is rebuilt", paused),
    ("large", "five files of 1 GiB one after another: acknowledged and read back", large),
    ("slow", "a reader at 150 kB/s gets its file of 80 MB", slow),
];

const SMALL_BYTES: u64 = 4 << 10;
const SMALL_LOOPS: u64 = 16;
const SMALL_SECONDS: u64 = 60;
const STOPPED_PUTS: u64 = 100;
const STOPPED_P99_MAX: Duration = Duration::from_millis(500);
const SENDS: usize = 10;
const SENDS_MAX: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(120);
const PAUSED_FILES: u64 = 8;
const LARGE_BYTES: u64 = 1 << 30;
const LARGE_FILES: u64 = 5;
const SLOW_BYTES: u64 = 80_000_000;
const SLOW_RATE: u64 = 150_000;

/// Runs the named trials, or all of them; each has a network of its own.
pub(crate) fn run(options: &[&str]) -> ExitCode {
    let (mut names, mut named) = (Vec::new(), None);
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        match (*option, TRIALS.iter().any(|(name, ..)| name == option)) {
            ("--program", _) => named = rest.next().map(PathBuf::from),
            (name, true) => names.push(name),
            (unknown, false) => {
                let known = TRIALS.map(|(name, what, _)| format!("  {name:<8} {what}")).join("\n");
                eprintln!("no trial is called '{unknown}'; the trials are\n{known}");
                return ExitCode::from(2);
            }
        }
    }
    let program = match net::program(named) {
        Ok(program) => program,
        Err(error) => {
            eprintln!("trials: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut failed = 0;
    for (name, what, trial) in TRIALS {
        if !names.is_empty() && !names.contains(&name) {
            continue;
        }
        println!("{name}: {what}");
        match Net::start(&program, name).and_then(|net| trial(&net)) {
            Ok(figures) => println!("  held    {figures}"),
            Err(error) => {
                failed += 1;
                println!("  FAILED  {error}");
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Incompressible bytes, the same for the same seed (xorshift64*).
struct Noise {
    state: u64,
    left: u64,
}

impl Noise {
    const fn new(seed: u64, bytes: u64) -> Self {
        Self { state: seed.wrapping_mul(2).wrapping_add(1), left: bytes }
    }
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        for chunk in buffer[..length].chunks_mut(8) {
            self.state ^= self.state >> 12;
            self.state ^= self.state << 25;
            self.state ^= self.state >> 27;
            let word = self.state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        self.left -= length as u64;
        Ok(length)
    }
}

/// Writes a file of noise beside the network's members.
fn write(net: &Net, seed: u64, bytes: u64) -> Result<PathBuf, String> {
    let path = net.directory.join(format!("trial-{seed}"));
    let mut noise = BufReader::with_capacity(1 << 20, Noise::new(seed, bytes));
    File::create(&path)
        .and_then(|mut file| io::copy(&mut noise, &mut file))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// Stores a file under its seed as its name.
fn put(net: &Net, path: &Path, seed: u64) -> Result<(), String> {
    let output = net.ask(&["put", &path.to_string_lossy(), &seed.to_string()])?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("put {seed}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// Reads a file back and compares every byte, at most `rate` bytes a second if a rate is given.
fn get(net: &Net, seed: u64, bytes: u64, rate: Option<u64>) -> Result<(), String> {
    let mut child = net
        .command(&["get", &seed.to_string(), "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut output = child.stdout.take().ok_or("no output")?;
    let (mut noise, mut read, since) = (Noise::new(seed, bytes), 0_u64, Instant::now());
    let mut expected = BufReader::with_capacity(1 << 20, &mut noise);
    let (mut got, mut wanted) = (vec![0; 1 << 15], vec![0; 1 << 15]);
    let same = loop {
        let length = output.read(&mut got).map_err(|error| error.to_string())?;
        if length == 0 {
            break read == bytes;
        }
        let is_same = expected.read_exact(&mut wanted[..length]).is_ok() && wanted[..length] == got[..length];
        if !is_same {
            break false;
        }
        read += length as u64;
        if let Some(rate) = rate {
            let due = Duration::from_millis(read.saturating_mul(1000) / rate);
            thread::sleep(due.saturating_sub(since.elapsed()));
        }
    };
    drop(output);
    let mut said = String::new();
    let _ = child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut said));
    let status = child.wait().map_err(|error| error.to_string())?;
    if same && status.success() {
        Ok(())
    } else {
        Err(format!("get {seed}: {read} of {bytes} bytes were right; {}", said.trim()))
    }
}

/// The smallest time that at least `percent` of all do not exceed; sorts them.
fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let place = (times.len() * percent).div_ceil(100).clamp(1, times.len().max(1));
    times.get(place - 1).copied().unwrap_or_default()
}

fn small(net: &Net) -> Result<String, String> {
    let (times, refused) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let until = Instant::now() + Duration::from_secs(SMALL_SECONDS);
    thread::scope(|scope| {
        for each in 0..SMALL_LOOPS {
            let (times, refused) = (&times, &refused);
            scope.spawn(move || {
                let mut seed = (each + 1) << 32;
                while Instant::now() < until {
                    let since = Instant::now();
                    let done = write(net, seed, SMALL_BYTES).and_then(|path| put(net, &path, seed));
                    match done {
                        Ok(()) => times.lock().map(|mut times| times.push(since.elapsed())).unwrap_or(()),
                        Err(error) => refused.lock().map(|mut all| all.push(error)).unwrap_or(()),
                    }
                    seed += 1;
                }
            });
        }
    });
    let (mut times, refused) =
        (times.into_inner().unwrap_or_default(), refused.into_inner().unwrap_or_default());
    let figures = format!(
        "{} put, {} refused, p50 {:.2?}, p99 {:.2?}",
        times.len(),
        refused.len(),
        percentile(&mut times, 50),
        percentile(&mut times, 99)
    );
    match refused.first() {
        None => Ok(figures),
        Some(first) => Err(format!("{figures}; the first: {first}")),
    }
}

fn stopped(net: &Net) -> Result<String, String> {
    put(net, &write(net, 1, SMALL_BYTES)?, 1)?;
    net.signal("provider-0", "STOP")?;
    let mut times = Vec::new();
    for seed in 2..STOPPED_PUTS + 3 {
        let path = write(net, seed, SMALL_BYTES)?;
        let since = Instant::now();
        put(net, &path, seed)?;
        times.push(since.elapsed());
    }
    net.signal("provider-0", "CONT")?;
    let first = times.remove(0);
    let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
    let figures = format!("first {first:.2?}, then p50 {p50:.2?}, p99 {p99:.2?}");
    if p99 < STOPPED_P99_MAX { Ok(figures) } else { Err(figures) }
}

fn sends(net: &Net) -> Result<String, String> {
    let since = Instant::now();
    let mut senders = Vec::new();
    for _ in 0..SENDS {
        let mut sender = net.command(&["send", "provider-2", "1"]);
        sender.stdout(Stdio::piped()).stderr(Stdio::piped());
        senders.push(sender.spawn().map_err(|error| error.to_string())?);
    }
    for sender in senders {
        let output = sender.wait_with_output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(format!("a send failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
    }
    let took = since.elapsed();
    let figures = format!("{SENDS} payments in {took:.2?}");
    if took <= SENDS_MAX { Ok(figures) } else { Err(figures) }
}

fn paused(net: &Net) -> Result<String, String> {
    let bytes = 1 << 20;
    for seed in 1..=PAUSED_FILES {
        put(net, &write(net, seed, bytes)?, seed)?;
    }
    let members: Vec<String> = (0..7).map(|number| format!("provider-{number}")).collect();
    for member in &members {
        net.signal(member, "STOP")?;
    }
    thread::sleep(PAUSE);
    for member in &members {
        net.signal(member, "CONT")?;
    }
    let since = Instant::now();
    // A file is read again until the gateway has noticed that its holders are back.
    for seed in 1..=PAUSED_FILES {
        while let Err(error) = get(net, seed, bytes, None) {
            if since.elapsed() > PAUSE {
                return Err(error);
            }
            thread::sleep(Duration::from_secs(1));
        }
    }
    let took = since.elapsed();
    let rebuilt = net.logged("gateway", &["rebuilt elsewhere and stay", "they are rebuilt elsewhere"]);
    match rebuilt.first() {
        None => Ok(format!("{PAUSED_FILES} files read {took:.2?} after the last came back, nothing rebuilt")),
        Some(first) => Err(format!("{} providers' shards were rebuilt: {first}", rebuilt.len())),
    }
}

fn large(net: &Net) -> Result<String, String> {
    let (mut wrote, mut read) = (Vec::new(), Vec::new());
    for seed in 1..=LARGE_FILES {
        let path = write(net, seed, LARGE_BYTES)?;
        let since = Instant::now();
        put(net, &path, seed)?;
        wrote.push(since.elapsed());
        std::fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    for seed in 1..=LARGE_FILES {
        let since = Instant::now();
        get(net, seed, LARGE_BYTES, None)?;
        read.push(since.elapsed());
    }
    Ok(format!("put in {wrote:.1?}, read back in {read:.1?}"))
}

fn slow(net: &Net) -> Result<String, String> {
    put(net, &write(net, 1, SLOW_BYTES)?, 1)?;
    let since = Instant::now();
    get(net, 1, SLOW_BYTES, Some(SLOW_RATE))?;
    let _ = io::stdout().flush();
    Ok(format!("{SLOW_BYTES} bytes in {:.0?}", since.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_the_same_for_a_seed_and_as_long_as_asked() {
        let read = |seed, bytes| {
            let mut all = Vec::new();
            BufReader::with_capacity(1 << 20, Noise::new(seed, bytes)).read_to_end(&mut all).map(|_| all).ok()
        };
        assert_eq!(read(1, 100).map(|all| all.len()), Some(100));
        assert_eq!(read(1, 100), read(1, 100));
        assert_ne!(read(1, 100), read(2, 100));
    }

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let mut times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut times, 99), Duration::from_millis(99));
        assert_eq!(percentile(&mut times, 50), Duration::from_millis(50));
        assert_eq!(percentile(&mut [], 50), Duration::ZERO);
    }
}
