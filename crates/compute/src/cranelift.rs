//! The engine that runs jobs: wasmtime with its compiler Cranelift.
//!
//! Its settings are part of the profile. NaNs have one form; what differs between machines is off. A module is
//! compiled once: its machine code stays with the caller and, if there is a directory for it, on the disk. Machine
//! code never comes from anywhere else.

use crate::{
    cache,
    environment::{End, Fault, Growth, Left, Live, Start},
    job::{Job, Outcome, Trap},
    limits,
    meter::{GAS, STACK},
    program::Program,
    wasi::{self, Halt, State},
};
use std::{path::Path, sync::Arc};
use wasmtime::{
    Cache, CacheConfig, Caller, Config, Engine, Extern, FuncType, Global, Instance, InstancePre, Linker,
    Memory, Module, OptLevel, ResourceLimiter, Store, Val, ValType,
};

/// A compiler and its settings.
pub struct Cranelift {
    engine: Engine,
    linker: Linker<Host>,
}

/// A program in machine code.
pub struct Compiled {
    program: Arc<Program>,
    ready: InstancePre<Host>,
}

/// The host's side of a running program.
struct Host {
    state: State,
    growth: Growth,
    /// Found once the instance is there: before it, no import can be called.
    exports: Option<Exports>,
}

/// The exports of a program that the host uses.
#[derive(Clone, Copy)]
struct Exports {
    gas: Global,
    stack: Global,
    memory: Option<Memory>,
}

impl ResourceLimiter for Growth {
    fn memory_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.allows_memory(desired, maximum))
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.failed = true;
        Ok(())
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.allows_table(desired, maximum))
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.failed = true;
        Ok(())
    }
}

/// The settings of the profile. Memories begin as copies on write of their first contents, which no program can see:
/// its gas is in the module, and no engine's own count is used.
fn config() -> Config {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_backtrace_max_frames(None)
        .generate_address_map(false)
        .max_wasm_stack(limits::ENGINE_STACK_BYTES)
        .async_stack_size(limits::ENGINE_STACK_BYTES);
    config
}

impl Cranelift {
    /// Makes the compiler. It keeps machine code in `cache`, a directory of this user alone, if one is given.
    ///
    /// # Errors
    /// [`Fault::Engine`] if the directory cannot be used.
    pub fn new(cache: Option<&Path>) -> Result<Self, Fault> {
        Self::build(config(), cache)
    }

    /// The compiler with its usual settings, which leave NaNs as the machine makes them: to compare with.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn plain() -> Result<Self, Fault> {
        let mut config = config();
        config.cranelift_nan_canonicalization(false);
        Self::build(config, None)
    }

    fn build(mut config: Config, cache: Option<&Path>) -> Result<Self, Fault> {
        if let Some(directory) = cache {
            cache::remove_abandoned(directory);
            let mut settings = CacheConfig::new();
            settings.with_directory(directory);
            config.cache(Some(Cache::new(settings).map_err(failed)?));
        }
        let engine = Engine::new(&config).map_err(failed)?;
        let mut linker = Linker::new(&engine);
        for (index, function) in wasi::FUNCTIONS.iter().enumerate() {
            let params = function
                .params
                .bytes()
                .map(|letter| if letter == b'l' { ValType::I64 } else { ValType::I32 });
            let kind = FuncType::new(&engine, params, function.returns().then_some(ValType::I32));
            let run = move |caller: Caller<'_, Host>, params: &[Val], results: &mut [Val]| {
                call(caller, index, params, results)
            };
            linker.func_new(wasi::MODULE, function.name, kind, run).map_err(failed)?;
        }
        Ok(Self { engine, linker })
    }

    /// Compiles a program, or finds it in the cache.
    ///
    /// # Errors
    /// [`Fault::Engine`] with the compiler's reason: a function may be too large for it.
    pub fn compile(&self, program: Arc<Program>) -> Result<Compiled, Fault> {
        let module = Module::new(&self.engine, program.metered()).map_err(failed)?;
        let ready = self.linker.instantiate_pre(&module).map_err(failed)?;
        Ok(Compiled { program, ready })
    }

    /// Makes an instance of a program for a job, and drops it: to measure a start.
    ///
    /// # Errors
    /// A [`Fault`], also if a segment of the module does not fit.
    pub fn instantiate(&self, compiled: &Compiled, job: Job) -> Result<(), Fault> {
        let (mut store, _) = self.prepare(compiled, job, Box::new(|_| ()))?;
        let instance = compiled.ready.instantiate(&mut store).map_err(failed)?;
        exports(&mut store, &instance).map(drop)
    }

    /// The host's side of a job before its instance is made, and its gas.
    fn prepare(&self, compiled: &Compiled, job: Job, live: Live) -> Result<(Store<Host>, Gas), Fault> {
        let Start { state, growth, gas, limit } = Start::new(&compiled.program, job, live)?;
        let mut store = Store::new(&self.engine, Host { state, growth, exports: None });
        store.limiter(|host| &mut host.growth);
        Ok((store, Gas { gas, limit }))
    }

    /// Runs a job. The thread needs a stack of [`limits::ENGINE_STACK_BYTES`] and a little more: see
    /// [`crate::lane::with_stack`].
    ///
    /// # Errors
    /// A [`Fault`] if there is no outcome.
    pub fn run(&self, compiled: &Compiled, job: Job, live: Live) -> Result<Outcome, Fault> {
        let (mut store, start) = self.prepare(compiled, job, live)?;
        let (end, exports) = if start.gas < 0 {
            (End::Halted(Halt::OutOfGas), None)
        } else {
            run(&mut store, compiled, start.gas)?
        };
        if store.data().growth.failed {
            return Err(Fault::Memory);
        }
        let (mut gas, mut stack) = (start.gas, 0);
        if let Some(exports) = exports {
            gas = exports.gas.get(&mut store).unwrap_i64();
            stack = exports.stack.get(&mut store).unwrap_i32();
        }
        let memory = exports.and_then(|exports| exports.memory);
        let memory = blake3::hash(memory.map_or(&[], |memory| memory.data(&store))).into();
        let left = Left { end, gas, stack, memory };
        Ok(left.outcome(store.into_data().state, start.limit))
    }
}

/// The gas with which a job starts, and its limit.
struct Gas {
    gas: i64,
    limit: u64,
}

/// Instantiates and runs a program with `gas`.
fn run(store: &mut Store<Host>, compiled: &Compiled, gas: i64) -> Result<(End, Option<Exports>), Fault> {
    let instance = match compiled.ready.instantiate(&mut *store) {
        Ok(instance) => instance,
        // Segments that do not fit.
        Err(error) => return Ok((trapped(&error)?, None)),
    };
    let exports = exports(store, &instance)?;
    exports.gas.set(&mut *store, Val::I64(gas)).map_err(failed)?;
    store.data_mut().exports = Some(exports);
    let start = instance.get_typed_func::<(), ()>(&mut *store, "_start").map_err(failed)?;
    let end = match start.call(&mut *store, ()) {
        Ok(()) => End::Returned,
        Err(error) => match error.downcast_ref::<Halt>() {
            Some(halt) => End::Halted(*halt),
            None => trapped(&error)?,
        },
    };
    Ok((end, Some(exports)))
}

fn exports(store: &mut Store<Host>, instance: &Instance) -> Result<Exports, Fault> {
    let mut global = |name| {
        let found = instance.get_global(&mut *store, name);
        found.ok_or_else(|| Fault::Engine(format!("{name} is missing")))
    };
    let (gas, stack) = (global(GAS)?, global(STACK)?);
    Ok(Exports {
        gas,
        stack,
        memory: instance.get_export(&mut *store, "memory").and_then(Extern::into_memory),
    })
}

/// Carries a call of the program to the shim.
fn call(
    mut caller: Caller<'_, Host>,
    index: usize,
    params: &[Val],
    results: &mut [Val],
) -> wasmtime::Result<()> {
    let mut args = [0; 9];
    for (arg, param) in args.iter_mut().zip(params) {
        *arg = match param {
            Val::I64(value) => value.cast_unsigned(),
            Val::I32(value) => value.cast_unsigned().into(),
            _ => unreachable!("the linker checked the types"),
        };
    }
    let exports = caller.data().exports.expect("no import is called before the instance is there");
    let mut gas = exports.gas.get(&mut caller).unwrap_i64();
    let (memory, host) = match exports.memory {
        Some(memory) => memory.data_and_store_mut(&mut caller),
        None => (&mut [][..], caller.data_mut()),
    };
    let answer = wasi::call(index, &args[..params.len()], &mut host.state, memory, &mut gas);
    exports.gas.set(&mut caller, Val::I64(gas))?;
    if let Some(result) = results.first_mut() {
        *result = Val::I32(answer?.cast_signed());
    } else {
        answer?;
    }
    Ok(())
}

/// The kind of a trap, or a fault if the engine stopped for a reason of its own.
fn trapped(error: &wasmtime::Error) -> Result<End, Fault> {
    use wasmtime::Trap as Theirs;
    let trap = match error.downcast_ref::<Theirs>() {
        Some(Theirs::UnreachableCodeReached) => Trap::Unreachable,
        Some(Theirs::MemoryOutOfBounds) => Trap::MemoryBounds,
        Some(Theirs::TableOutOfBounds) => Trap::TableBounds,
        Some(Theirs::IndirectCallToNull) => Trap::NullCall,
        Some(Theirs::BadSignature) => Trap::CallType,
        Some(Theirs::IntegerOverflow) => Trap::Overflow,
        Some(Theirs::IntegerDivisionByZero) => Trap::DivisionByZero,
        Some(Theirs::BadConversionToInteger) => Trap::Conversion,
        Some(Theirs::StackOverflow) => return Err(Fault::Stack),
        _ => return Err(Fault::Engine(format!("{error:#}"))),
    };
    Ok(End::Trapped(trap))
}

/// A failure of the engine, with its causes in one line.
fn failed(error: wasmtime::Error) -> Fault {
    Fault::Engine(format!("{error:#}"))
}
