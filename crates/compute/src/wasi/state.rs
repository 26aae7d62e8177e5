//! The state of a running program outside its memory.

use super::Errno;
use crate::{
    environment::Live,
    job::Job,
    limits,
    tree::{Node, ROOT, Tree},
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
use std::rc::Rc;

/// Name of each program, its first argument. A file's name here would make gas depend on it.
const PROGRAM: &str = "program";
/// Directories that each tree has at the start; the files below the first are the output.
const DIRECTORIES: [&str; 2] = ["out", "tmp"];
/// Names under which a program gets the root: as a path, and as the directory that it starts in.
const PREOPENED: [&str; 2] = ["/", "."];
/// The time at which each program starts: 1 January 2026, in nanoseconds since 1970. Formats of archives know no
/// time before 1980.
const EPOCH_NS: u64 = 1_767_225_600 * 1_000_000_000;

/// A descriptor of a program.
#[derive(Clone, Debug)]
pub(super) enum Descriptor {
    Stdin { at: usize },
    Stdout,
    Stderr,
    File { node: Node, at: u64, append: bool },
    Directory { node: Node, preopened: Option<&'static str>, list: Option<Rc<Vec<Item>>> },
}

/// A line of a directory's list.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) name: String,
    pub(super) node: Node,
    pub(super) is_directory: bool,
}

/// Everything that a program can see or change through the shim.
pub(crate) struct State {
    /// Arguments and variables as a program gets them, without the zero at their end.
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) stdin: Vec<u8>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) tree: Tree,
    pub(super) descriptors: Vec<Option<Descriptor>>,
    /// Nanoseconds since the start, as the virtual clock counts them.
    pub(super) elapsed_ns: u64,
    pub(super) random: ChaCha20Rng,
    /// Receives what is written to standard error at once.
    pub(super) live: Live,
}

impl State {
    /// The state at the start of a job.
    ///
    /// # Errors
    /// A sentence if a file of the job has a path that a tree cannot hold.
    pub(crate) fn new(job: Job, live: Live) -> Result<Self, String> {
        let mut tree = Tree::new(job.output.min(limits::OUTPUT_BYTES_MAX as u64));
        for name in DIRECTORIES {
            tree.create(ROOT, name, true).map_err(|_| "the tree is too small".to_owned())?;
        }
        for (path, bytes) in job.files {
            tree.put(&path, bytes).map_err(|errno| refused_path(&path, errno))?;
        }
        let root = |name| Descriptor::Directory { node: ROOT, preopened: Some(name), list: None };
        let mut descriptors =
            vec![Some(Descriptor::Stdin { at: 0 }), Some(Descriptor::Stdout), Some(Descriptor::Stderr)];
        for name in PREOPENED {
            tree.open(ROOT);
            descriptors.push(Some(root(name)));
        }
        Ok(Self {
            args: std::iter::once(PROGRAM.to_owned()).chain(job.args).collect(),
            env: job.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            stdin: job.stdin,
            stdout: Vec::new(),
            stderr: Vec::new(),
            tree,
            descriptors,
            elapsed_ns: 0,
            random: ChaCha20Rng::from_seed(job.seed),
            live,
        })
    }

    /// The virtual time since 1970, in nanoseconds.
    pub(super) fn now_ns(&self) -> u64 {
        EPOCH_NS.saturating_add(self.elapsed_ns)
    }

    pub(super) fn descriptor(&mut self, number: u64) -> Result<&mut Descriptor, Errno> {
        let place = usize::try_from(number).ok().and_then(|number| self.descriptors.get_mut(number));
        place.and_then(Option::as_mut).ok_or(Errno::BADF)
    }

    /// The node of a directory that is open.
    pub(super) fn directory(&mut self, number: u64) -> Result<Node, Errno> {
        match self.descriptor(number)? {
            Descriptor::Directory { node, .. } => Ok(*node),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// Puts a descriptor at the first free number.
    pub(super) fn add(&mut self, descriptor: Descriptor) -> Result<u32, Errno> {
        let number = match self.descriptors.iter().position(Option::is_none) {
            Some(number) => number,
            None if self.descriptors.len() < limits::DESCRIPTORS_MAX => {
                self.descriptors.push(None);
                self.descriptors.len() - 1
            }
            None => return Err(Errno::MFILE),
        };
        if let Some(node) = descriptor.node() {
            self.tree.open(node);
        }
        self.descriptors[number] = Some(descriptor);
        Ok(number as u32)
    }

    /// Closes a descriptor, and returns it.
    pub(super) fn close(&mut self, number: u64) -> Result<(), Errno> {
        let closed = self.descriptor(number)?.node();
        self.descriptors[number as usize] = None;
        if let Some(node) = closed {
            self.tree.close(node);
        }
        Ok(())
    }

    /// The results: standard output, standard error, and the files below `/out`.
    pub(crate) fn results(mut self) -> Results {
        let out = self.tree.child(ROOT, DIRECTORIES[0]).ok().flatten();
        let out = out.filter(|node| self.tree.is_directory(*node));
        let files = out.map(|node| self.tree.take_below(node)).unwrap_or_default();
        Results { stdout: self.stdout, stderr: self.stderr, files }
    }
}

/// The reason for which a file of a job has no place in its tree.
fn refused_path(path: &str, errno: Errno) -> String {
    let why = match errno {
        Errno::EXIST => "the path is given twice, or is a directory",
        Errno::NOTDIR => "a part of the path is a file",
        Errno::NAMETOOLONG => "the path is too long",
        Errno::NOSPC => "there are too many files",
        _ => "a part of the path is empty, `.` or `..`",
    };
    format!("{path:?}: {why}")
}

/// The results of a program, by where it wrote them.
pub(crate) struct Results {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) files: Vec<(String, Option<Vec<u8>>)>,
}

impl Descriptor {
    /// Names in the list that it keeps.
    pub(super) fn listed(&self) -> usize {
        match self {
            Self::Directory { list: Some(list), .. } => list.len(),
            _ => 0,
        }
    }

    /// The node that it keeps open.
    pub(super) fn node(&self) -> Option<Node> {
        match self {
            Self::File { node, .. } | Self::Directory { node, .. } => Some(*node),
            _ => None,
        }
    }
}
