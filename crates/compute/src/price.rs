//! The gas of each thing that a program does. A unit is about one simple instruction.
//!
//! The table is part of the profile: changing a number changes the result of a job. It follows two rules: a byte
//! that is copied, filled or handed out costs one, and an instruction that takes ten times as long as another
//! costs at least as many times more. Loads cost one wherever their memory is, so a program that misses the
//! caches all the time gets hundreds of times the seconds for its gas that another gets.

use wasmparser::Operator;

/// A call of the host, before its bytes.
pub(crate) const HOST_CALL: u64 = 500;
/// A byte that a host call copies, or an entry's share of the work.
pub(crate) const HOST_BYTE: u64 = 1;
/// A byte of random numbers.
pub(crate) const RANDOM_BYTE: u64 = 4;
/// A byte of input: it is carried, stored and hashed before the job starts.
pub(crate) const INPUT_BYTE: u64 = 16;
/// The start of a job: a fresh instance.
pub(crate) const START: u64 = 50_000;
/// A page of memory, at the start or when memory grows.
pub(crate) const PAGE: u64 = 1 << 16;
/// An element that is copied, filled or added in a table.
pub(crate) const ELEMENT: u64 = 8;
/// A name of a path that is looked up, or a node that a call looks at beside those of its path.
pub(crate) const NODE: u64 = 32;
/// A message to the lane's owner while a program runs: standard error.
pub(crate) const LIVE: u64 = 5_000;
/// Values that a call, a block or a branch moves for one unit, or locals that a call sets to zero.
pub(crate) const VALUES_PER_UNIT: u64 = 4;

/// The price of an instruction, without the bytes or elements that it moves.
pub(crate) fn of(operator: &Operator<'_>) -> u64 {
    use Operator::*;
    match operator {
        // Marks of structure: no code is made for them. The metering adds the values that they carry.
        Block { .. } | Loop { .. } | End | Else => 0,
        I32DivS | I32DivU | I32RemS | I32RemU | I64DivS | I64DivU | I64RemS | I64RemU => 16,
        F32Div | F64Div | F32Sqrt | F64Sqrt | F32x4Div | F64x2Div | F32x4Sqrt | F64x2Sqrt => 16,
        CallIndirect { .. } => 4,
        // A call into the engine.
        MemoryCopy { .. } | MemoryFill { .. } | MemoryInit { .. } | DataDrop { .. } => 50,
        TableCopy { .. } | TableFill { .. } | TableInit { .. } | ElemDrop { .. } => 50,
        TableGet { .. } | TableSet { .. } | RefFunc { .. } => 10,
        MemoryGrow { .. } | TableGrow { .. } => 1_000,
        _ => 1,
    }
}
