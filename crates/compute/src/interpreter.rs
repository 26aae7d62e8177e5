//! The second engine: wasmi, an interpreter. It shares no code with the first but the metered module and the shim,
//! so a fault of one compiler shows as a difference.

use crate::{
    environment::{End, Fault, Growth, Left, Live, Start},
    job::{Job, Outcome, Trap},
    limits,
    meter::{GAS, STACK},
    program::Program,
    wasi::{self, Halt, State},
};
use std::sync::Arc;
use wasmi::{
    Caller, CompilationMode, Config, Engine, Extern, FuncType, Global, Instance, Linker, Memory, Module,
    ResourceLimiter, Store, Val, ValType,
    errors::{ErrorKind, InstantiationError, MemoryError, TableError},
};

/// Frames that the engine allows: more than the metering does, whose frames have at least 64 bytes.
const FRAMES_MAX: usize = limits::STACK_BYTES as usize / 64 + 1024;

/// An interpreter and its settings.
pub struct Interpreter {
    engine: Engine,
    linker: Linker<Host>,
}

/// A program in the interpreter's code.
pub struct Translated {
    program: Arc<Program>,
    module: Module,
}

/// The host's side of a running program.
struct Host {
    state: State,
    growth: Growth,
    exports: Option<Exports>,
}

#[derive(Clone, Copy)]
struct Exports {
    gas: Global,
    stack: Global,
    memory: Option<Memory>,
}

impl wasmi::errors::HostError for Halt {}

impl ResourceLimiter for Growth {
    fn memory_growing(
        &mut self,
        _: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, wasmi_core::LimiterError> {
        Ok(self.allows_memory(desired, maximum))
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, wasmi_core::LimiterError> {
        Ok(self.allows_table(desired, maximum))
    }

    fn memory_grow_failed(&mut self, error: &MemoryError) -> Result<(), wasmi_core::LimiterError> {
        self.failed |= matches!(error, MemoryError::OutOfSystemMemory);
        Ok(())
    }

    fn table_grow_failed(&mut self, error: &TableError) -> Result<(), wasmi_core::LimiterError> {
        self.failed |= matches!(error, TableError::OutOfSystemMemory);
        Ok(())
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        limits::TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        1
    }
}

impl Default for Interpreter {
    fn default() -> Self {
        Self::new()
    }
}

impl Interpreter {
    /// Makes the interpreter and its link to the shim.
    pub fn new() -> Self {
        let mut config = Config::default();
        config.set_max_recursion_depth(FRAMES_MAX).set_max_stack_height(limits::ENGINE_STACK_BYTES);
        // A function that cannot be translated shows before a job runs, and not at its first call.
        config.compilation_mode(CompilationMode::Eager);
        let engine = Engine::new(&config);
        let mut linker = Linker::new(&engine);
        for (index, function) in wasi::FUNCTIONS.iter().enumerate() {
            let params = function
                .params
                .bytes()
                .map(|letter| if letter == b'l' { ValType::I64 } else { ValType::I32 });
            let kind = FuncType::new(params, function.returns().then_some(ValType::I32));
            let run = move |caller: Caller<'_, Host>, params: &[Val], results: &mut [Val]| {
                call(caller, index, params, results)
            };
            linker.func_new(wasi::MODULE, function.name, kind, run).expect("the names differ");
        }
        Self { engine, linker }
    }

    /// Translates a program.
    ///
    /// # Errors
    /// [`Fault::Engine`] with the engine's reason.
    pub fn translate(&self, program: Arc<Program>) -> Result<Translated, Fault> {
        let module = Module::new(&self.engine, program.metered()).map_err(failed)?;
        Ok(Translated { program, module })
    }

    /// Runs a job.
    ///
    /// # Errors
    /// A [`Fault`] if there is no outcome.
    pub fn run(&self, translated: &Translated, job: Job, live: Live) -> Result<Outcome, Fault> {
        let start = Start::new(&translated.program, job, live)?;
        let host = Host { state: start.state, growth: start.growth, exports: None };
        let mut store = Store::new(&self.engine, host);
        store.limiter(|host| &mut host.growth);
        let (end, exports) = if start.gas < 0 {
            (End::Halted(Halt::OutOfGas), None)
        } else {
            self.start(&mut store, translated, start.gas)?
        };
        if store.data().growth.failed {
            return Err(Fault::Memory);
        }
        let (mut gas, mut stack) = (start.gas, 0);
        if let Some(exports) = exports {
            gas = exports.gas.get(&store).i64().unwrap_or(gas);
            stack = exports.stack.get(&store).i32().unwrap_or(stack);
        }
        let memory = exports.and_then(|exports| exports.memory);
        let memory = blake3::hash(memory.map_or(&[], |memory| memory.data(&store))).into();
        let left = Left { end, gas, stack, memory };
        Ok(left.outcome(store.into_data().state, start.limit))
    }

    fn start(
        &self,
        store: &mut Store<Host>,
        translated: &Translated,
        gas: i64,
    ) -> Result<(End, Option<Exports>), Fault> {
        let instance = match self.linker.instantiate_and_start(&mut *store, &translated.module) {
            Ok(instance) => instance,
            // Segments that do not fit.
            Err(error) => return Ok((trapped(&error)?, None)),
        };
        let exports = exports(store, &instance)?;
        exports.gas.set(&mut *store, Val::I64(gas)).map_err(failed)?;
        store.data_mut().exports = Some(exports);
        let start = instance.get_typed_func::<(), ()>(&*store, "_start").map_err(failed)?;
        let end = match start.call(&mut *store, ()) {
            Ok(()) => End::Returned,
            Err(error) => match error.downcast_ref::<Halt>() {
                Some(halt) => End::Halted(*halt),
                None => trapped(&error)?,
            },
        };
        Ok((end, Some(exports)))
    }
}

fn exports(store: &Store<Host>, instance: &Instance) -> Result<Exports, Fault> {
    let global = |name| {
        let found = instance.get_global(store, name);
        found.ok_or_else(|| Fault::Engine(format!("{name} is missing")))
    };
    let memory = instance.get_export(store, "memory").and_then(Extern::into_memory);
    Ok(Exports { gas: global(GAS)?, stack: global(STACK)?, memory })
}

/// Carries a call of the program to the shim.
fn call(
    mut caller: Caller<'_, Host>,
    index: usize,
    params: &[Val],
    results: &mut [Val],
) -> Result<(), wasmi::Error> {
    let mut args = [0; 9];
    for (arg, param) in args.iter_mut().zip(params) {
        *arg = match param {
            Val::I64(value) => value.cast_unsigned(),
            Val::I32(value) => value.cast_unsigned().into(),
            _ => unreachable!("the linker checked the types"),
        };
    }
    let exports = caller.data().exports.expect("no import is called before the instance is there");
    let mut gas = exports.gas.get(&caller).i64().expect("the metering made it so");
    let (memory, host) = match exports.memory {
        Some(memory) => memory.data_and_store_mut(&mut caller),
        None => (&mut [][..], caller.data_mut()),
    };
    let answer = wasi::call(index, &args[..params.len()], &mut host.state, memory, &mut gas);
    exports.gas.set(&mut caller, Val::I64(gas)).map_err(wasmi::Error::from)?;
    let answer = answer.map_err(wasmi::Error::host)?;
    if let Some(result) = results.first_mut() {
        *result = Val::I32(answer.cast_signed());
    }
    Ok(())
}

/// The kind of a trap, or a fault if the engine stopped for a reason of its own.
fn trapped(error: &wasmi::Error) -> Result<End, Fault> {
    use wasmi::TrapCode as Theirs;
    // The one end of an instance for which this engine has no code.
    if let ErrorKind::Instantiation(InstantiationError::ElementSegmentDoesNotFit { .. }) = error.kind() {
        return Ok(End::Trapped(Trap::TableBounds));
    }
    let trap = match error.as_trap_code() {
        Some(Theirs::UnreachableCodeReached) => Trap::Unreachable,
        Some(Theirs::MemoryOutOfBounds) => Trap::MemoryBounds,
        Some(Theirs::TableOutOfBounds) => Trap::TableBounds,
        Some(Theirs::IndirectCallToNull) => Trap::NullCall,
        Some(Theirs::BadSignature) => Trap::CallType,
        Some(Theirs::IntegerOverflow) => Trap::Overflow,
        Some(Theirs::IntegerDivisionByZero) => Trap::DivisionByZero,
        Some(Theirs::BadConversionToInteger) => Trap::Conversion,
        Some(Theirs::StackOverflow) => return Err(Fault::Stack),
        Some(Theirs::OutOfSystemMemory) => return Err(Fault::Memory),
        _ => return Err(failed(error.kind())),
    };
    Ok(End::Trapped(trap))
}

fn failed(error: impl std::fmt::Debug) -> Fault {
    Fault::Engine(format!("{error:?}"))
}
