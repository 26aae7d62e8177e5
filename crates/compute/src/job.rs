//! A job and its outcome: equal jobs have equal outcomes on every machine and engine.

use crate::limits;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};
use std::fmt;

/// A run of a program: everything that its result depends on, beside the module itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Arguments, without the program's name, which is `program` for every job.
    pub args: Vec<String>,
    /// Variables of the environment: name and value.
    pub env: Vec<(String, String)>,
    /// Bytes of standard input.
    pub stdin: Vec<u8>,
    /// Files: path in the job's tree, and bytes.
    pub files: Vec<(String, Vec<u8>)>,
    /// Gas that it may use.
    pub gas: u64,
    /// Pages of memory that it may have, 64 KiB each.
    pub pages: u32,
    /// Bytes that it may write to standard output and into files.
    pub output: u64,
    /// Seed of its random numbers.
    pub seed: [u8; 32],
}

/// The end of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// The program ended by itself, with this code.
    Code(u32),
    /// The program did something that WebAssembly forbids.
    Trap(Trap),
    /// The gas was used up.
    OutOfGas,
    /// The stack was used up.
    OutOfStack,
}

/// The kind of a trap, as WebAssembly defines them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trap {
    /// The instruction `unreachable` was reached.
    Unreachable,
    /// A memory access beyond its end.
    MemoryBounds,
    /// A table access beyond its end.
    TableBounds,
    /// A call through an empty element.
    NullCall,
    /// A call through an element of another type.
    CallType,
    /// An integer result that does not fit.
    Overflow,
    /// A division by zero.
    DivisionByZero,
    /// A conversion to an integer that has no result.
    Conversion,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Trap(trap) => write!(f, "trap: {trap}"),
            Self::OutOfGas => f.write_str("out of gas"),
            Self::OutOfStack => f.write_str("out of stack"),
        }
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "unreachable instruction",
            Self::MemoryBounds => "memory access out of bounds",
            Self::TableBounds => "table access out of bounds",
            Self::NullCall => "call of an empty table element",
            Self::CallType => "call of a function of another type",
            Self::Overflow => "integer overflow",
            Self::DivisionByZero => "integer division by zero",
            Self::Conversion => "conversion of a number that is no integer",
        })
    }
}

/// A file below `/out`: its path, and its bytes; a directory has none.
pub type OutputFile = (String, Option<Vec<u8>>);

/// Decodes the files of a result. An entry takes more memory than the two bytes that its code may have, so their number
/// is bounded by that of a tree.
fn files<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<OutputFile>, D::Error> {
    struct Files;
    impl<'de> Visitor<'de> for Files {
        type Value = Vec<OutputFile>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {} files", limits::NODES_MAX)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
            let mut files = Vec::new();
            while let Some(file) = from.next_element()? {
                if files.len() == limits::NODES_MAX {
                    return Err(serde::de::Error::invalid_length(files.len() + 1, &self));
                }
                files.push(file);
            }
            Ok(files)
        }
    }
    from.deserialize_seq(Files)
}

/// The result of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The end of the program.
    pub exit: Exit,
    /// Gas that it used; at most the job's.
    pub gas: u64,
    /// Bytes of standard output.
    pub stdout: Vec<u8>,
    /// Bytes of standard error.
    pub stderr: Vec<u8>,
    /// Files and directories below `/out`, by path relative to it, in order; a directory has no bytes.
    #[serde(deserialize_with = "files")]
    pub files: Vec<OutputFile>,
    /// BLAKE3 of the memory at its end.
    pub memory: [u8; 32],
}

impl Outcome {
    /// BLAKE3 over standard output and the files below `/out`: each length and path is in it.
    pub fn output_hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("posync compute output 1");
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(&self.stdout);
        for (path, bytes) in &self.files {
            part(path.as_bytes());
            part(&[u8::from(bytes.is_some())]);
            part(bytes.as_deref().unwrap_or_default());
        }
        hasher.finalize().into()
    }
}
