//! The profile `posync-wasm-1`: the modules that are accepted, and the reason for each refusal.
//!
//! A module is a command of WASI preview 1: it exports `_start` and imports nothing but the functions of the shim
//! ([`crate::wasi`]). Of WebAssembly it may use version 2.0 and constant expressions with arithmetic: everything
//! in it has one result on every machine, once NaNs have one form. Threads, relaxed SIMD and the proposals that an
//! engine may lack are refused, and so is a start function, which would run before its gas is set.
//!
//! [`check`] validates the whole module, and collects the facts that metering needs.

use crate::{limits, price, wasi};
use wasmparser::{
    ConstExpr, DataKind, ElementKind, Encoding, ExternalKind, FuncValidatorAllocations, Parser, Payload,
    TypeRef, ValidPayload, Validator, WasmFeatures,
};

/// Name of the profile: of its rules, prices and engines together.
pub const PROFILE: &str = "posync-wasm-1";
/// Exports with this beginning are made by the metering.
pub(crate) const RESERVED: &str = "posync:";

/// The reason for which a module is refused. Its text says where the module differs from the profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More than [`limits::MODULE_BYTES_MAX`] bytes.
    #[error("the module has {0} bytes, and {max} are the most", max = limits::MODULE_BYTES_MAX)]
    Long(usize),
    /// The bytes do not begin like WebAssembly.
    #[error("the file is not WebAssembly: it does not begin with its magic number")]
    NotWasm,
    /// A component; the profile knows core modules.
    #[error("the file is a component; build a core module for WASI preview 1 (wasm32-wasip1)")]
    Component,
    /// Neither this profile nor WebAssembly with all its proposals accepts it.
    #[error("the module is not valid: {0}")]
    Invalid(String),
    /// A proposal of WebAssembly that the profile leaves out.
    #[error("the module uses a part of WebAssembly that {PROFILE} leaves out: {0}")]
    Proposal(String),
    /// The module initialises itself for callers, and is no command.
    #[error("the module is a reactor: it exports _initialize and no _start; build it as a command")]
    Reactor,
    /// There is nothing to run.
    #[error("the module exports no function _start without parameters and results")]
    NoStart,
    /// A start function, which runs before `_start`.
    #[error("the module has a start function, which would run before its gas is counted")]
    StartFunction,
    /// An export whose name the metering uses.
    #[error("the module exports {0:?}; names that begin with {RESERVED:?} are reserved")]
    Reserved(String),
    /// An import that the shim lacks.
    #[error("the module imports {0:?} from {1:?}, which no machine of the network has")]
    Import(String, String),
    /// An import of the shim with another type.
    #[error("the module imports {0:?} with a type that WASI preview 1 does not give it")]
    ImportType(String),
    /// A bound of the profile.
    #[error("the module has {has} {of}, and {max} are the most")]
    Bound {
        /// The thing that is bounded.
        of: &'static str,
        /// The number in the module.
        has: u64,
        /// The most that is accepted.
        max: u64,
    },
    /// The module became invalid when its gas was put in: a function or a section grew beyond its bound.
    #[error("the module is too large once its gas is counted: {0}")]
    Metered(String),
}

/// The facts of an accepted module that metering needs.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Parameters and results of each type.
    pub(crate) types: Vec<Signature>,
    /// Type of each function of the module itself.
    pub(crate) functions: Vec<u32>,
    /// Of each type, the number of types before it that have several results.
    pub(crate) wrappers: Vec<u32>,
    /// The highest operand stack of each function.
    pub(crate) heights: Vec<Height>,
    /// Pages of memory at its start.
    pub(crate) pages: u32,
    /// Globals of the module.
    pub(crate) globals: u32,
    /// Gas of an instance: its memory, its segments.
    pub(crate) start_gas: u64,
    /// Type of each imported function.
    imported: Vec<u32>,
    /// True once `_start` was found.
    starts: bool,
}

/// The code of the instruction `br_table`; a number of targets follows it.
const BR_TABLE: u8 = 0x0e;

/// The highest operand stack of a function, and its largest branch table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Height {
    /// Values on it, whatever their types.
    pub(crate) values: u64,
    /// Bytes of each: a vector makes every value of the function count as one.
    pub(crate) width: u64,
    /// Targets of the largest branch table, without the one for all other numbers.
    targets: u32,
}

/// Bytes of a value in a frame.
pub(crate) fn width(kind: wasmparser::ValType) -> u64 {
    if kind == wasmparser::ValType::V128 { 16 } else { 8 }
}

/// Parameters and results of a function type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    pub(crate) params: Vec<wasmparser::ValType>,
    pub(crate) results: Vec<wasmparser::ValType>,
}

/// Validates a module with its gas in it, so that no engine finds first that it became too large.
///
/// # Errors
/// [`Refusal::Metered`].
pub(crate) fn check_metered(module: &[u8]) -> Result<(), Refusal> {
    match Validator::new_with_features(features()).validate_all(module) {
        Ok(_) => Ok(()),
        Err(error) => Err(Refusal::Metered(error.to_string())),
    }
}

/// The parts of WebAssembly in the profile.
fn features() -> WasmFeatures {
    WasmFeatures::FLOATS
        | WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::SIMD
        | WasmFeatures::EXTENDED_CONST
}

/// Checks a module against the profile.
///
/// # Errors
/// The first [`Refusal`] that applies.
pub(crate) fn check(module: &[u8]) -> Result<Facts, Refusal> {
    if module.len() > limits::MODULE_BYTES_MAX {
        return Err(Refusal::Long(module.len()));
    }
    if !module.starts_with(b"\0asm") {
        return Err(Refusal::NotWasm);
    }
    let mut validator = Validator::new_with_features(features());
    let mut facts = Facts { start_gas: price::START, ..Facts::default() };
    let mut allocations = FuncValidatorAllocations::default();
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.map_err(|error| Refusal::Invalid(error.to_string()))?;
        if let Payload::Version { encoding: Encoding::Component, .. } = payload {
            return Err(Refusal::Component);
        }
        let valid = validator.payload(&payload).map_err(|error| refused(module, &error))?;
        if let ValidPayload::Func(function, body) = valid {
            let mut function = function.into_validator(allocations);
            let height = height(&mut function, &body).map_err(|error| refused(module, &error))?;
            bound("locals in one function", function.len_locals().into(), limits::LOCALS_MAX.into())?;
            bound("operands at once in one function", height.values, limits::OPERANDS_MAX.into())?;
            let targets = height.targets.into();
            bound("targets of one branch table", targets, limits::TARGETS_MAX.into())?;
            facts.heights.push(height);
            allocations = function.into_allocations();
        }
        facts.add(&payload)?;
    }
    Ok(facts)
}

/// The refusal of bytes that do not validate: they use a proposal, or are wrong in every version.
fn refused(module: &[u8], error: &wasmparser::BinaryReaderError) -> Refusal {
    match Validator::new_with_features(WasmFeatures::all()).validate_all(module) {
        Ok(_) => Refusal::Proposal(error.to_string()),
        Err(_) => Refusal::Invalid(error.to_string()),
    }
}

/// Validates a function, and returns the greatest height of its operand stack.
fn height(
    function: &mut wasmparser::FuncValidator<wasmparser::ValidatorResources>,
    body: &wasmparser::FunctionBody<'_>,
) -> Result<Height, wasmparser::BinaryReaderError> {
    let mut reader = body.get_binary_reader();
    function.read_locals(&mut reader)?;
    reader.set_features(features());
    let (mut highest, mut widest, mut targets) = (0, 8, 0);
    while !reader.eof() {
        let at = reader.original_position();
        let mut ahead = reader.clone();
        if ahead.read_u8()? == BR_TABLE {
            targets = targets.max(ahead.read_var_u32()?);
        }
        reader.visit_operator(&mut function.visitor(at))??;
        highest = highest.max(function.operand_stack_height());
        widest = widest.max(function.get_operand_type(0).flatten().map_or(8, width));
    }
    reader.finish_expression(&function.visitor(reader.original_position()))?;
    Ok(Height { values: highest.into(), width: widest, targets })
}

/// Refuses a number above its bound.
fn bound(of: &'static str, has: u64, max: u64) -> Result<(), Refusal> {
    if has > max { Err(Refusal::Bound { of, has, max }) } else { Ok(()) }
}

/// Refuses a constant expression that computes long.
fn constant(expression: &ConstExpr<'_>) -> Result<(), Refusal> {
    let bytes = expression.get_binary_reader().bytes_remaining();
    bound("bytes in one constant expression", bytes as u64, limits::CONSTANT_BYTES_MAX as u64)
}

/// The refusal of a section that the validator has accepted and a reader has not; it does not happen.
fn unreadable(error: wasmparser::BinaryReaderError) -> Refusal {
    Refusal::Invalid(error.to_string())
}

impl Facts {
    /// Adds what a section of the module says, or refuses it.
    fn add(&mut self, payload: &Payload<'_>) -> Result<(), Refusal> {
        match payload {
            Payload::TypeSection(section) => {
                let mut several = 0;
                for group in section.clone() {
                    for kind in group.map_err(unreadable)?.types() {
                        let kind = kind.unwrap_func();
                        let (params, results) = (kind.params().to_vec(), kind.results().to_vec());
                        self.wrappers.push(several);
                        several += u32::from(results.len() > 1);
                        self.types.push(Signature { params, results });
                    }
                }
            }
            Payload::ImportSection(section) => {
                for import in section.clone().into_imports() {
                    self.import(&import.map_err(unreadable)?)?;
                }
            }
            Payload::FunctionSection(section) => {
                self.functions = section.clone().into_iter().collect::<Result<_, _>>().map_err(unreadable)?;
            }
            Payload::TableSection(section) => self.tables(section)?,
            Payload::MemorySection(section) => {
                for memory in section.clone() {
                    let pages = memory.map_err(unreadable)?.initial;
                    bound("pages of memory at its start", pages, limits::PAGES_MAX.into())?;
                    self.pages = pages as u32;
                    self.start_gas += pages * price::PAGE;
                }
            }
            Payload::GlobalSection(section) => {
                self.globals = section.count();
                for global in section.clone() {
                    constant(&global.map_err(unreadable)?.init_expr)?;
                }
                self.start_gas += section.range().len() as u64 * price::ELEMENT;
            }
            Payload::ExportSection(section) => self.exports(section)?,
            Payload::StartSection { .. } => return Err(Refusal::StartFunction),
            Payload::ElementSection(section) => {
                for segment in section.clone() {
                    if let ElementKind::Active { offset_expr, .. } = segment.map_err(unreadable)?.kind {
                        constant(&offset_expr)?;
                    }
                }
                self.start_gas += section.range().len() as u64 * price::ELEMENT
            }
            Payload::DataSection(section) => {
                for segment in section.clone() {
                    if let DataKind::Active { offset_expr, .. } = segment.map_err(unreadable)?.kind {
                        constant(&offset_expr)?;
                    }
                }
                self.start_gas += section.range().len() as u64
            }
            Payload::End(_) if !self.starts => return Err(Refusal::NoStart),
            _ => {}
        }
        Ok(())
    }

    /// An import must be a function of the shim, with its type.
    fn import(&mut self, import: &wasmparser::Import<'_>) -> Result<(), Refusal> {
        let unknown = || Refusal::Import(import.name.into(), import.module.into());
        let TypeRef::Func(kind) = import.ty else { return Err(unknown()) };
        let known = wasi::FUNCTIONS.iter().find(|function| function.name == import.name);
        let known = known.filter(|_| import.module == wasi::MODULE).ok_or_else(unknown)?;
        if self.types.get(kind as usize) != Some(&known.signature()) {
            return Err(Refusal::ImportType(import.name.into()));
        }
        self.imported.push(kind);
        Ok(())
    }

    fn tables(&mut self, section: &wasmparser::TableSectionReader<'_>) -> Result<(), Refusal> {
        bound("tables", section.count().into(), limits::TABLES_MAX.into())?;
        let mut elements = 0;
        for table in section.clone() {
            elements += table.map_err(unreadable)?.ty.initial;
        }
        bound("elements of tables at its start", elements, limits::ELEMENTS_MAX.into())?;
        self.start_gas += elements * price::ELEMENT;
        Ok(())
    }

    fn exports(&mut self, section: &wasmparser::ExportSectionReader<'_>) -> Result<(), Refusal> {
        let mut reactor = false;
        for export in section.clone() {
            let export = export.map_err(unreadable)?;
            if export.name.starts_with(RESERVED) {
                return Err(Refusal::Reserved(export.name.into()));
            }
            let function = export.kind == ExternalKind::Func;
            reactor |= function && export.name == "_initialize";
            if function && export.name == "_start" {
                let kind =
                    self.kind(export.index).filter(|kind| kind.params.is_empty() && kind.results.is_empty());
                kind.ok_or(Refusal::NoStart)?;
                self.starts = true;
            }
        }
        if reactor && !self.starts { Err(Refusal::Reactor) } else { Ok(()) }
    }

    /// The type of a function, by its index among imported and own ones.
    fn kind(&self, function: u32) -> Option<&Signature> {
        let kind = self.imported.iter().chain(&self.functions).nth(function as usize)?;
        self.types.get(*kind as usize)
    }
}
