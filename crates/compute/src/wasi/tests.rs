//! The shim without an engine: each call by its name, on a memory of its own.

use super::{FUNCTIONS, Halt, State, call};
use crate::job::Job;

/// A program's view: its memory, its state and its gas.
struct Guest {
    state: State,
    memory: Vec<u8>,
    gas: i64,
}

impl Guest {
    fn new() -> Self {
        let files = vec![("/in/b".to_owned(), b"second".to_vec()), ("in/a".to_owned(), b"first".to_vec())];
        let job = Job {
            args: vec!["one".into()],
            env: vec![("A".into(), "B=C".into())],
            stdin: b"input".to_vec(),
            files,
            gas: 0,
            pages: 1,
            output: 1_000,
            seed: [1; 32],
        };
        let state = State::new(job, Box::new(|_| ())).expect("the paths are right");
        Self { state, memory: vec![0; 65_536], gas: 1_000_000 }
    }

    /// Calls a function; returns its error number.
    fn call(&mut self, name: &str, args: &[u64]) -> u32 {
        self.end(name, args).expect("the program goes on")
    }

    fn end(&mut self, name: &str, args: &[u64]) -> Result<u32, Halt> {
        let index = FUNCTIONS.iter().position(|function| function.name == name).expect(name);
        assert_eq!(FUNCTIONS[index].params.len(), args.len(), "{name}");
        call(index, args, &mut self.state, &mut self.memory, &mut self.gas)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn number(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.memory[at..at + 4].try_into().expect("4 bytes"))
    }

    fn long(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.memory[at..at + 8].try_into().expect("8 bytes"))
    }

    /// Opens a path below the root with flags; returns the descriptor or the error number.
    fn open(&mut self, path: &str, flags: u64) -> Result<u64, u32> {
        self.put(100, path.as_bytes());
        let args = [3, 0, 100, path.len() as u64, flags, u64::MAX, u64::MAX, 0, 8];
        match self.call("path_open", &args) {
            0 => Ok(self.number(8).into()),
            errno => Err(errno),
        }
    }

    fn write(&mut self, descriptor: u64, bytes: &[u8]) -> u32 {
        self.put(1_000, bytes);
        self.put(16, &1_000_u32.to_le_bytes());
        self.put(20, &(bytes.len() as u32).to_le_bytes());
        self.call("fd_write", &[descriptor, 16, 1, 24])
    }

    /// Reads up to `most` bytes.
    fn read(&mut self, descriptor: u64, most: u32) -> Result<Vec<u8>, u32> {
        self.put(16, &2_000_u32.to_le_bytes());
        self.put(20, &most.to_le_bytes());
        match self.call("fd_read", &[descriptor, 16, 1, 24]) {
            0 => Ok(self.memory[2_000..2_000 + self.number(24) as usize].to_vec()),
            errno => Err(errno),
        }
    }

    /// Names of a directory, in the order in which they are listed.
    fn names(&mut self, descriptor: u64) -> Vec<String> {
        assert_eq!(self.call("fd_readdir", &[descriptor, 4_000, 2_000, 0, 24]), 0);
        let (mut at, end, mut names) = (4_000, 4_000 + self.number(24) as usize, Vec::new());
        while at < end {
            let bytes = self.number(at + 16) as usize;
            names.push(String::from_utf8_lossy(&self.memory[at + 24..at + 24 + bytes]).into_owned());
            at += 24 + bytes;
        }
        names
    }
}

#[test]
fn arguments_and_variables_are_as_the_job_gives_them() {
    let mut guest = Guest::new();
    assert_eq!(guest.call("args_sizes_get", &[0, 4]), 0);
    assert_eq!((guest.number(0), guest.number(4)), (2, 12));
    assert_eq!(guest.call("args_get", &[0, 100]), 0);
    assert_eq!(&guest.memory[100..112], b"program\0one\0");
    assert_eq!(guest.number(4), 108);
    assert_eq!(guest.call("environ_sizes_get", &[0, 4]), 0);
    assert_eq!(guest.call("environ_get", &[0, 100]), 0);
    assert_eq!(&guest.memory[100..106], b"A=B=C\0");
}

#[test]
fn files_are_read_written_and_listed_in_order() {
    let mut guest = Guest::new();
    let directory = guest.open("in", 2).expect("it is there");
    assert_eq!(guest.names(directory), [".", "..", "a", "b"]);
    let file = guest.open("in/./../in//b", 0).expect("it is there");
    assert_eq!(guest.read(file, 3), Ok(b"sec".to_vec()));
    assert_eq!(guest.read(file, 9), Ok(b"ond".to_vec()));
    assert_eq!(guest.read(file, 9), Ok(Vec::new()));
    assert_eq!(guest.call("fd_seek", &[file, (-2_i64).cast_unsigned(), 2, 32]), 0);
    assert_eq!((guest.long(32), guest.read(file, 9)), (4, Ok(b"nd".to_vec())));
    assert_eq!(guest.call("fd_seek", &[file, (-9_i64).cast_unsigned(), 0, 32]), 28);
    assert_eq!(guest.read(0, 100), Ok(b"input".to_vec()));
    assert_eq!((guest.read(1, 1), guest.write(0, b"x"), guest.write(99, b"x")), (Err(8), 8, 8));
    assert_eq!(guest.open("in/c", 0), Err(44));
    assert_eq!(guest.open("in/b/c", 0), Err(54));
    assert_eq!(guest.open("in/b", 2), Err(54));
    assert_eq!(guest.open("in/b", 5), Err(20));
}

#[test]
fn a_removed_file_stays_for_the_descriptor_that_has_it_open() {
    let mut guest = Guest::new();
    let file = guest.open("out/x", 1).expect("it is made");
    assert_eq!(guest.write(file, b"content"), 0);
    guest.put(100, b"out/x");
    assert_eq!(guest.call("path_unlink_file", &[3, 100, 5]), 0);
    assert_eq!(guest.open("out/x", 0), Err(44));
    assert_eq!(guest.call("fd_seek", &[file, 0, 0, 32]), 0);
    assert_eq!(guest.read(file, 99), Ok(b"content".to_vec()));
    assert_eq!(guest.call("fd_close", &[file]), 0);
    assert_eq!(guest.call("fd_close", &[file]), 8);
    // Its room is there again: the whole budget can be written.
    let file = guest.open("out/y", 1).expect("it is made");
    assert_eq!(guest.call("fd_filestat_set_size", &[file, 1_000]), 0);
    assert_eq!(guest.call("fd_filestat_set_size", &[file, 1_001]), 51);
    assert_eq!(guest.state.results().files, [("y".to_owned(), Some(vec![0; 1_000]))]);
}

#[test]
fn a_directory_moves_with_what_is_in_it_but_never_into_itself() {
    let mut guest = Guest::new();
    let mut rename = |from: &str, to: &str| {
        guest.put(100, from.as_bytes());
        guest.put(300, to.as_bytes());
        guest.call("path_rename", &[3, 100, from.len() as u64, 3, 300, to.len() as u64])
    };
    assert_eq!(rename("in", "in/deeper"), 28);
    assert_eq!(rename("in", "out"), 0, "an empty directory is replaced");
    assert_eq!(rename("tmp", "out"), 55, "a full one is not");
    assert_eq!(rename("none", "out/x"), 44);
    assert_eq!(rename("out/a", "../a"), 76);
    assert_eq!(rename("out/a", "out/b"), 0);
    assert_eq!(guest.state.results().files, [("b".to_owned(), Some(b"first".to_vec()))]);
}

#[test]
fn time_moves_by_looks_and_sleeps_only() {
    let mut guest = Guest::new();
    assert_eq!(guest.call("clock_time_get", &[1, 0, 0]), 0);
    assert_eq!(guest.long(0), 1_000_000);
    let mut sleep = [0; 48];
    sleep[..8].copy_from_slice(&42_u64.to_le_bytes());
    sleep[16..20].copy_from_slice(&1_u32.to_le_bytes());
    sleep[24..32].copy_from_slice(&5_000_000_000_u64.to_le_bytes());
    guest.put(100, &sleep);
    assert_eq!(guest.call("poll_oneoff", &[100, 200, 1, 300]), 0);
    assert_eq!((guest.number(300), guest.long(200)), (1, 42));
    assert_eq!(guest.call("clock_time_get", &[0, 0, 0]), 0);
    assert_eq!(guest.long(0), 1_767_225_600_000_000_000 + 5_000_000_000 + 3_000_000);
    assert_eq!(guest.call("clock_time_get", &[9, 0, 0]), 28);
}

#[test]
fn calls_cost_gas_before_they_do_anything() {
    let mut guest = Guest::new();
    guest.gas = 499;
    assert_eq!(guest.end("sched_yield", &[]), Err(Halt::OutOfGas));
    guest.gas = 500 + 4 * 99;
    assert_eq!(guest.end("random_get", &[0, 100]), Err(Halt::OutOfGas));
    assert_eq!(guest.memory[..100], [0; 100]);
    assert_eq!(guest.end("proc_exit", &[3]), Err(Halt::OutOfGas));
    guest.gas = 10_000;
    assert_eq!(guest.end("proc_exit", &[3]), Err(Halt::Exit(3)));
}

#[test]
fn every_call_bears_every_argument() {
    // Wrong descriptors, addresses at and beyond the end, and lengths that wrap.
    let values = [0, 1, 3, 100, 65_535, 65_536, u64::from(u32::MAX), u64::MAX, i64::MAX as u64];
    for (index, function) in FUNCTIONS.iter().enumerate() {
        for round in 0..200_usize {
            let mut guest = Guest::new();
            let args: Vec<u64> = (0..)
                .zip(function.params.bytes())
                .map(|(place, kind)| {
                    let value =
                        values[(round / 9_usize.pow(place % 3) + round * place as usize) % values.len()];
                    if kind == b'l' { value } else { value & u64::from(u32::MAX) }
                })
                .collect();
            let _ = call(index, &args, &mut guest.state, &mut guest.memory, &mut guest.gas);
        }
    }
}

#[test]
fn standard_error_is_one_message_a_call_and_is_paid() {
    let mut guest = Guest::new();
    let (send, messages) = std::sync::mpsc::channel();
    guest.state.live = Box::new(move |bytes| send.send(bytes.to_vec()).expect("the test listens"));
    // A thousand empty buffers, and none of any length.
    let before = guest.gas;
    assert_eq!(guest.call("fd_write", &[2, 40_000, 1_000, 24]), 0);
    assert_eq!((guest.number(24), before - guest.gas), (0, 500 + 8_000));
    assert_eq!(messages.try_recv().ok(), None);
    guest.put(1_000, b"onetwo");
    for (place, (at, len)) in [(1_000_u32, 3_u32), (0, 0), (1_003, 3)].into_iter().enumerate() {
        guest.put(16 + place * 8, &at.to_le_bytes());
        guest.put(20 + place * 8, &len.to_le_bytes());
    }
    let before = guest.gas;
    assert_eq!(guest.call("fd_write", &[2, 16, 3, 60]), 0);
    assert_eq!(before - guest.gas, 500 + 24 + 6 + 5_000);
    assert_eq!(messages.try_iter().collect::<Vec<_>>(), [b"onetwo"]);
}

#[test]
fn a_rename_that_is_refused_pays_for_its_look_too() {
    let mut guest = Guest::new();
    guest.gas = 100_000_000;
    for index in 0..1_000 {
        let file = guest.open(&format!("in/{index}"), 1).expect("it is made");
        assert_eq!(guest.call("fd_close", &[file]), 0);
    }
    guest.put(100, b"in");
    guest.put(300, b"in/deeper");
    let before = guest.gas;
    assert_eq!(guest.call("path_rename", &[3, 100, 2, 3, 300, 9]), 28);
    assert!(before - guest.gas > 1_000 * 32, "{}", before - guest.gas);
}

#[test]
fn lists_of_directories_are_bounded_together() {
    let mut guest = Guest::new();
    guest.gas = 1_000_000_000;
    for index in 0..16_000 {
        let file = guest.open(&format!("in/{index}"), 1).expect("it is made");
        assert_eq!(guest.call("fd_close", &[file]), 0);
    }
    let mut listed = Vec::new();
    for _ in 0..100 {
        let directory = guest.open("in", 2).expect("it is there");
        listed.push((directory, guest.call("fd_readdir", &[directory, 4_000, 100, 0, 24])));
    }
    let with = listed.iter().filter(|(_, errno)| *errno == 0).count();
    assert_eq!(with, 4, "{listed:?}");
    assert!(listed[with..].iter().all(|(_, errno)| *errno == 48), "{listed:?}");
    // One that is read anew or closed makes room.
    assert_eq!(guest.call("fd_readdir", &[listed[0].0, 4_000, 100, 0, 24]), 0);
    assert_eq!(guest.call("fd_close", &[listed[0].0]), 0);
    assert_eq!(guest.call("fd_readdir", &[listed[50].0, 4_000, 100, 0, 24]), 0);
    assert_eq!(guest.call("fd_readdir", &[listed[50].0, 4_000, 100, u64::MAX, 24]), 0);
    assert_eq!(guest.number(24), 0);
}

#[test]
fn a_file_deep_in_the_tree_pays_for_the_way_up() {
    let mut guest = Guest::new();
    let mut directory = 3;
    guest.put(100, b"d");
    let made = |guest: &mut Guest, directory: u64| {
        let before = guest.gas;
        assert_eq!(guest.call("path_create_directory", &[directory, 100, 1]), 0);
        (before - guest.gas) as u64
    };
    for depth in 0..100 {
        assert_eq!(made(&mut guest, directory), 500 + 1 + 32 * (depth + 1));
        let args = [directory, 0, 100, 1, 2, u64::MAX, u64::MAX, 0, 8];
        assert_eq!(guest.call("path_open", &args), 0);
        directory = guest.number(8).into();
    }
}

#[test]
fn each_name_of_a_path_is_paid_for() {
    let mut guest = Guest::new();
    let mut cost = |path: &str| {
        guest.put(100, path.as_bytes());
        let before = guest.gas;
        assert_eq!(guest.call("path_filestat_get", &[3, 0, 100, path.len() as u64, 5_000]), 0, "{path}");
        (before - guest.gas) as u64
    };
    assert_eq!(cost("in"), 500 + 2 + 32);
    // Two look-ups in three bytes each.
    let back_and_forth = "in/../".repeat(600);
    assert_eq!(cost(&back_and_forth), 500 + 3_600 + 1_200 * 32);
    // These are no look-ups.
    assert_eq!(cost("./././in//"), 500 + 10 + 32);
}
