//! Bounds of modules, jobs and their results, each with its reason.

/// Most bytes of a module: CPython takes 26 MB, and compiling takes a second for each 2 to 3 MB.
pub const MODULE_BYTES_MAX: usize = 32 << 20;
/// Most gas of a job that runs on this machine for its own user: a million steps of a loop in CPython take a fourteenth of it.
pub const GAS_MAX: u64 = 64_000_000_000;
/// Most pages of 64 KiB of a job's memory: 1 GiB.
pub const PAGES_MAX: u32 = 1 << 14;
/// Most elements of a table, and of all tables of a module at its start.
pub const ELEMENTS_MAX: u32 = 1 << 20;
/// Most tables of a module.
pub const TABLES_MAX: u32 = 16;
/// Most bytes of a constant expression: the start of a global, the place of a segment. Compilers write a constant, or
/// a global and a constant.
pub const CONSTANT_BYTES_MAX: usize = 64;
/// Most locals of a function, parameters included. The second engine has 65,535 slots of 8 bytes for the locals and the
/// operands of a function together, and 30,000 locals. With vectors in all of them a function at both bounds takes 40,000.
pub const LOCALS_MAX: u32 = 10_000;
/// Most values on the operand stack of a function: see [`LOCALS_MAX`].
pub const OPERANDS_MAX: u32 = 10_000;
/// Most targets of a branch table: the compiler stops at 65,520.
pub const TARGETS_MAX: u32 = 65_000;
/// Bytes of stack that a job may use, as the metering counts them: the usual stack of a native process.
pub const STACK_BYTES: u32 = 8 << 20;
/// Bytes of stack that the engine has for it. The metering must be the one that ends a job, and a compiler may keep
/// two values of each instruction in a frame in which the metering counts one of 32 instructions; so there are 64
/// times as many. Memory is used as far as the stack grows.
pub(crate) const ENGINE_STACK_BYTES: usize = 512 << 20;
/// Most arguments of a job, and most variables of its environment.
pub const WORDS_MAX: usize = 1024;
/// Most bytes of a job's arguments, variables and file names together.
pub const WORD_BYTES_MAX: usize = 1 << 20;
/// Most bytes of a job's standard input and files together.
pub const INPUT_BYTES_MAX: usize = 256 << 20;
/// Most bytes that a job may write: standard output, and files while they exist. The room of an input file that it
/// removes is added.
pub const OUTPUT_BYTES_MAX: usize = 256 << 20;
/// Most bytes that a job may write to standard error.
pub const STDERR_BYTES_MAX: usize = 1 << 20;
/// Most files and directories of a job's tree.
pub(crate) const NODES_MAX: usize = 1 << 14;
/// Most names in the lists of directories that a job is reading.
pub(crate) const LISTED_MAX: usize = 4 * NODES_MAX;
/// Most descriptors that a job has open.
pub(crate) const DESCRIPTORS_MAX: usize = 1024;
/// Most bytes of a path.
pub(crate) const PATH_BYTES_MAX: usize = 4096;
/// Most bytes of a name in a directory.
pub(crate) const NAME_BYTES_MAX: usize = 255;
/// Most buffers of one read or write.
pub(crate) const VECTORS_MAX: u32 = 1024;
/// Most bytes of a frame between a lane and its owner: an output, into which inputs may have been moved, with its paths.
pub(crate) const FRAME_BYTES_MAX: usize =
    INPUT_BYTES_MAX + OUTPUT_BYTES_MAX + NODES_MAX * PATH_BYTES_MAX + (4 << 20);

const _: () = assert!(MODULE_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX < u32::MAX as usize);
const _: () = assert!(ENGINE_STACK_BYTES / STACK_BYTES as usize >= 64);
// Counts of gas are signed: what a single operation costs must not wrap a limit.
const _: () = assert!(GAS_MAX < i64::MAX as u64 / 2);
