//! Measures an idle network: starts one from a release build, samples every process each few seconds, and
//! compares the last minute with the one at a third of the time.
//!
//! The figures of a minute are the highest of its samples: an authority opens files as a term begins and
//! removes them as it ends, so two single samples would compare two places in a term.
//!
//! It reads `/proc`, so it runs on Linux only.

use crate::net::{self, Net};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

/// Growth, in percent, up to which a figure counts as steady.
const GROWTH_MAX: u64 = 10;
/// Minutes that are measured without `--minutes`.
const MINUTES_USUAL: usize = 30;
/// Time of which the highest figures are kept.
const MINUTE: Duration = Duration::from_secs(60);
/// Time between two samples of the processes: a fraction of a local term, which takes about ten seconds.
const EVERY: Duration = Duration::from_secs(4);

/// Resources of one process at one moment.
#[derive(Clone, Copy, Default)]
struct Sample {
    descriptors: u64,
    files: u64,
    resident: u64,
    disk: u64,
    /// Processor time since its start, in ticks.
    ticks: u64,
}

/// A column of the table: its name, its value, and if growth of it fails the run.
type Figure = (&'static str, fn(&Sample) -> u64, bool);

const FIGURES: [Figure; 4] = [
    ("descriptors", |sample| sample.descriptors, true),
    ("files", |sample| sample.files, true),
    ("resident KiB", |sample| sample.resident >> 10, true),
    ("disk KiB", |sample| sample.disk >> 10, false),
];

/// Runs a network for as many minutes as asked, and judges its growth.
pub(crate) fn run(options: &[&str]) -> ExitCode {
    let Some((minutes, program)) = read(options) else {
        eprintln!(
            "usage: cargo xtask idle [--minutes N] [--program FILE]; N is 3 at least: minute N is compared with N/3"
        );
        return ExitCode::from(2);
    };
    match measure(minutes, program) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("idle: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the minutes to measure, and the program if one is named.
fn read(options: &[&str]) -> Option<(usize, Option<PathBuf>)> {
    let (mut minutes, mut program) = (MINUTES_USUAL, None);
    for option in options.chunks(2) {
        match option {
            ["--minutes", number] => minutes = number.parse().ok().filter(|minutes| *minutes >= 3)?,
            ["--program", file] => program = Some(PathBuf::from(file)),
            _ => return None,
        }
    }
    Some((minutes, program))
}

fn measure(minutes: usize, program: Option<PathBuf>) -> Result<bool, String> {
    let program = net::program(program)?;
    let net = Net::start(&program, "idle")?;
    let hertz = ticks_per_second();
    let (mut samples, mut busy) = (vec![sample(&net)?], Vec::new());
    let mut since = Instant::now();
    for minute in 1..=minutes {
        let highest = highest_of(&net, since + MINUTE)?;
        let seconds = since.elapsed().as_secs_f64();
        since = Instant::now();
        samples.push(highest);
        let cores = cores(&samples[minute - 1], &samples[minute], hertz) / seconds;
        busy.push(cores);
        let sums =
            FIGURES.map(|(name, of, _)| format!("{} {name}", samples[minute].values().map(of).sum::<u64>()));
        println!("minute {minute:>3}  {}  {cores:.3} cores", sums.join("  "));
    }
    drop(net);
    let mean = busy.iter().sum::<f64>() / busy.len() as f64;
    Ok(judge(&samples, minutes, mean))
}

/// Samples the network until `end`, and returns the highest figures of each process that runs then.
fn highest_of(net: &Net, end: Instant) -> Result<BTreeMap<String, Sample>, String> {
    let mut highest = BTreeMap::new();
    loop {
        thread::sleep(EVERY.min(end.saturating_duration_since(Instant::now())));
        highest = raised(&highest, sample(net)?);
        if Instant::now() >= end {
            return Ok(highest);
        }
    }
}

/// The processes of `now`, each with the higher of both figures and with its processor time of now.
fn raised(before: &BTreeMap<String, Sample>, mut now: BTreeMap<String, Sample>) -> BTreeMap<String, Sample> {
    for (name, sample) in &mut now {
        let Some(before) = before.get(name) else { continue };
        sample.descriptors = sample.descriptors.max(before.descriptors);
        sample.files = sample.files.max(before.files);
        sample.resident = sample.resident.max(before.resident);
        sample.disk = sample.disk.max(before.disk);
    }
    now
}

/// Prints the table and the verdict; true if no judged figure grew.
fn judge(samples: &[BTreeMap<String, Sample>], minutes: usize, cores: f64) -> bool {
    let (early, late) = (&samples[minutes / 3], &samples[minutes]);
    println!("\nminute {} -> minute {minutes}", minutes / 3);
    println!("{:<14} {}", "process", FIGURES.map(|(name, ..)| format!("{name:>24}")).join(""));
    let mut grew = Vec::new();
    for (name, before) in early {
        let Some(after) = late.get(name) else {
            grew.push(format!("{name} does not run any more"));
            continue;
        };
        let cells = FIGURES.map(|(_, of, _)| format!("{:>24}", format!("{} -> {}", of(before), of(after))));
        println!("{name:<14} {}", cells.join(""));
        grew.extend(
            FIGURES
                .iter()
                .filter(|(_, of, judged)| *judged && grows(of(before), of(after)))
                .map(|(what, of, _)| format!("{name}: {what} grew from {} to {}", of(before), of(after))),
        );
    }
    let disk = |sample: &BTreeMap<String, Sample>| sample.values().map(|one| one.disk).sum::<u64>();
    let rate = disk(late).saturating_sub(disk(early)) / (minutes - minutes / 3) as u64;
    println!("\nbytes on disk: {rate} more each minute\nprocessor: {cores:.3} cores on average");
    for line in &grew {
        println!("GREW  {line}");
    }
    if grew.is_empty() {
        println!(
            "nothing grew by more than {GROWTH_MAX} % between minute {} and minute {minutes}",
            minutes / 3
        );
    }
    grew.is_empty()
}

const fn grows(before: u64, after: u64) -> bool {
    after.saturating_mul(100) > before.saturating_mul(100 + GROWTH_MAX)
}

/// Seconds of processor time that all processes spent between two samples.
fn cores(before: &BTreeMap<String, Sample>, after: &BTreeMap<String, Sample>, hertz: f64) -> f64 {
    let ticks = |(name, sample): (&String, &Sample)| {
        sample.ticks.saturating_sub(before.get(name).map_or(0, |before| before.ticks))
    };
    after.iter().map(ticks).sum::<u64>() as f64 / hertz
}

/// Ticks of processor time in a second.
pub(crate) fn ticks_per_second() -> f64 {
    let told = Command::new("getconf").arg("CLK_TCK").output().ok();
    let text = told.and_then(|output| String::from_utf8(output.stdout).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(100.0)
}

/// Samples every process of the network, by its name.
fn sample(net: &Net) -> Result<BTreeMap<String, Sample>, String> {
    let (supervisor, mut samples) = (net.supervisor(), BTreeMap::new());
    let processes = fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        let Some((parent, ticks)) = stat(pid) else { continue };
        let (name, directory) = if pid == supervisor {
            ("devnet".to_owned(), None)
        } else if parent == supervisor {
            let Some(directory) = net::last_argument(pid) else { continue };
            let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, Some(directory))
        } else {
            continue;
        };
        let (files, disk) = directory.map_or((0, 0), |directory| size(&directory));
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count) as u64;
        samples.insert(name, Sample { descriptors, files, resident: resident(pid), disk, ticks });
    }
    if samples.len() < 2 {
        return Err(format!("no member of {} runs", net.directory.display()));
    }
    Ok(samples)
}

/// Parent and processor time (in ticks) of a process.
pub(crate) fn stat(pid: u32) -> Option<(u32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name may hold spaces and ends at the last bracket; the field after it is number 3.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some((u32::try_from(field(4)?).ok()?, field(14)? + field(15)?))
}

/// Resident bytes of a process.
pub(crate) fn resident(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

/// Count of files below a directory, and their bytes. Files that vanish meanwhile are not counted.
fn size(directory: &Path) -> (u64, u64) {
    let Ok(entries) = fs::read_dir(directory) else { return (0, 0) };
    let mut sum = (0, 0);
    for entry in entries.filter_map(Result::ok) {
        let Ok(about) = entry.metadata() else { continue };
        let (files, bytes) = if about.is_dir() { size(&entry.path()) } else { (1, about.len()) };
        sum = (sum.0 + files, sum.1 + bytes);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_or_refused() {
        assert_eq!(read(&[]), Some((30, None)));
        let program = Some(PathBuf::from("posync"));
        assert_eq!(read(&["--program", "posync", "--minutes", "3"]), Some((3, program)));
        for bad in [&["--minutes"][..], &["--minutes", "2"], &["--minutes", "x"], &["--hours", "1"], &["5"]] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_what_is_more_than_a_tenth_larger_grew() {
        assert!(!grows(100, 110) && grows(100, 111) && !grows(100, 3) && grows(0, 1) && !grows(0, 0));
    }

    #[test]
    fn a_minute_counts_with_its_highest_figures_and_only_what_still_runs() {
        let one =
            |descriptors, ticks| Sample { descriptors, ticks, files: 200 - descriptors, ..Sample::default() };
        let map = |samples: &[(&str, Sample)]| {
            samples.iter().map(|(name, sample)| ((*name).to_owned(), *sample)).collect::<BTreeMap<_, _>>()
        };
        let before = map(&[("a", one(120, 5)), ("gone", one(1, 1))]);
        let highest = raised(&before, map(&[("a", one(90, 9)), ("new", one(2, 2))]));
        assert_eq!(highest.len(), 2, "{:?}", highest.keys());
        let a = highest["a"];
        assert_eq!((a.descriptors, a.files, a.ticks), (120, 110, 9));
        assert_eq!(highest["new"].descriptors, 2);
    }

    #[test]
    fn a_member_that_grew_or_went_is_named_and_fails() {
        let minute = |descriptors| {
            BTreeMap::from([("gateway".to_owned(), Sample { descriptors, ..Sample::default() })])
        };
        let minutes = |counts: [u64; 4]| counts.map(minute).to_vec();
        assert!(judge(&minutes([90, 100, 400, 110]), 3, 0.1), "what came and went is no growth");
        assert!(!judge(&minutes([90, 100, 100, 111]), 3, 0.1));
        let mut gone = minutes([90, 100, 100, 100]);
        gone[3].clear();
        assert!(!judge(&gone, 3, 0.1));
    }

    #[test]
    fn a_process_says_what_it_holds() {
        let own = std::process::id();
        assert!(stat(own).is_some_and(|(parent, _)| parent > 0));
        assert!(resident(own) > 1 << 20);
        assert!(net::last_argument(own).is_some());
        assert!(size(Path::new(env!("CARGO_MANIFEST_DIR"))).0 >= 4);
    }
}
