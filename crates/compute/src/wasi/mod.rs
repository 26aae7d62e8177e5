//! WASI preview 1 without a machine behind it: arguments, a tree of files in memory, a clock that counts calls, and
//! random numbers from a seed.
//!
//! All 46 functions exist. Those of sockets and links answer that they are not supported. Nothing reads the host:
//! equal jobs see equal answers, also about times (0), inode numbers (by order of creation) and the order of names
//! (sorted). The shim is written once over the guest's memory as bytes; [`crate::cranelift`] and
//! [`crate::interpreter`] only carry calls to [`call`].
//!
//! Every call costs gas before it does its work, and a byte more for each byte that it moves: [`crate::price`].
//! Source of names, numbers and layouts:
//! <https://github.com/WebAssembly/WASI/blob/wasi-0.1/preview1/docs.md>.

mod descriptors;
mod errno;
mod guest;
mod machine;
mod paths;
mod state;

pub(crate) use errno::Errno;
pub(crate) use state::State;

#[cfg(test)]
mod tests;

use crate::{price, profile::Signature};
use guest::Guest;
use wasmparser::ValType;

/// Module name of the imports.
pub(crate) const MODULE: &str = "wasi_snapshot_preview1";

/// A function of the shim.
pub(crate) struct Function {
    /// Name of the import.
    pub(crate) name: &'static str,
    /// Parameters, one letter each: `i` is an i32 and `l` an i64.
    pub(crate) params: &'static str,
    run: fn(&mut Call<'_>, &[u64]) -> Result<(), Stop>,
}

impl Function {
    /// True if it returns an error number: all but `proc_exit` do.
    pub(crate) fn returns(&self) -> bool {
        self.name != "proc_exit"
    }

    /// Its type as WebAssembly has it.
    pub(crate) fn signature(&self) -> Signature {
        let params =
            self.params.chars().map(|letter| if letter == 'l' { ValType::I64 } else { ValType::I32 });
        let results = if self.returns() { vec![ValType::I32] } else { Vec::new() };
        Signature { params: params.collect(), results }
    }
}

/// The reason for which a call ends the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Halt {
    #[error("the program exits with {0}")]
    Exit(u32),
    #[error("the gas is used up")]
    OutOfGas,
}

/// The reason for which a call has no success: an error number for the program, or its end.
enum Stop {
    Errno(Errno),
    Halt(Halt),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// A call of the program into the shim.
struct Call<'a> {
    state: &'a mut State,
    guest: Guest<'a>,
    gas: &'a mut i64,
}

impl Call<'_> {
    /// Takes `cost` from the gas, before the work that it pays.
    fn pay(&mut self, cost: u64) -> Result<(), Stop> {
        *self.gas = self.gas.saturating_sub(i64::try_from(cost).unwrap_or(i64::MAX));
        if *self.gas < 0 { Err(Stop::Halt(Halt::OutOfGas)) } else { Ok(()) }
    }
}

/// Calls the function at `index` of [`FUNCTIONS`] and returns the error number for the program.
///
/// # Errors
/// [`Halt`] if the program ends here.
pub(crate) fn call(
    index: usize,
    args: &[u64],
    state: &mut State,
    memory: &mut [u8],
    gas: &mut i64,
) -> Result<u32, Halt> {
    let mut call = Call { state, guest: Guest::new(memory), gas };
    let done = call.pay(price::HOST_CALL).and_then(|()| (FUNCTIONS[index].run)(&mut call, args));
    match done {
        Ok(()) => Ok(0),
        Err(Stop::Errno(errno)) => Ok(errno.0.into()),
        Err(Stop::Halt(halt)) => Err(halt),
    }
}

macro_rules! functions {
    ($($name:ident $params:literal $module:ident,)*) => {
        /// All functions of preview 1, by name.
        pub(crate) static FUNCTIONS: &[Function] =
            &[$(Function { name: stringify!($name), params: $params, run: $module::$name }),*];
    };
}

functions! {
    args_get "ii" machine,
    args_sizes_get "ii" machine,
    clock_res_get "ii" machine,
    clock_time_get "ili" machine,
    environ_get "ii" machine,
    environ_sizes_get "ii" machine,
    fd_advise "illi" descriptors,
    fd_allocate "ill" descriptors,
    fd_close "i" descriptors,
    fd_datasync "i" descriptors,
    fd_fdstat_get "ii" descriptors,
    fd_fdstat_set_flags "ii" descriptors,
    fd_fdstat_set_rights "ill" descriptors,
    fd_filestat_get "ii" descriptors,
    fd_filestat_set_size "il" descriptors,
    fd_filestat_set_times "illi" descriptors,
    fd_pread "iiili" descriptors,
    fd_prestat_dir_name "iii" descriptors,
    fd_prestat_get "ii" descriptors,
    fd_pwrite "iiili" descriptors,
    fd_read "iiii" descriptors,
    fd_readdir "iiili" descriptors,
    fd_renumber "ii" descriptors,
    fd_seek "ilii" descriptors,
    fd_sync "i" descriptors,
    fd_tell "ii" descriptors,
    fd_write "iiii" descriptors,
    path_create_directory "iii" paths,
    path_filestat_get "iiiii" paths,
    path_filestat_set_times "iiiilli" paths,
    path_link "iiiiiii" paths,
    path_open "iiiiillii" paths,
    path_readlink "iiiiii" paths,
    path_remove_directory "iii" paths,
    path_rename "iiiiii" paths,
    path_symlink "iiiii" paths,
    path_unlink_file "iii" paths,
    poll_oneoff "iiii" machine,
    proc_exit "i" machine,
    proc_raise "i" machine,
    random_get "ii" machine,
    sched_yield "" machine,
    sock_accept "iii" machine,
    sock_recv "iiiiii" machine,
    sock_send "iiiii" machine,
    sock_shutdown "ii" machine,
}
