//! Puts the gas and the stack of a program into its module, so that every engine counts the same.
//!
//! ```text
//!   function body                      metered body
//!   -------------                      ------------
//!   local.get 0                        gas -= 3; trap if gas < 0       one charge for a straight run of code,
//!   i32.const 1                        local.get 0                     before the run: a trap within it is paid
//!   br_if 0                            i32.const 1
//!   ...                                br_if 0
//!                                      gas -= ...                      the run after a branch has its own charge
//! ```
//!
//! Engines have meters of their own, but those lose what a trapping program used, and differ from one engine to
//! the next. Two globals are added, exported under names that [`crate::profile`] reserves: `posync:gas` counts down
//! and `posync:stack` holds the free bytes of stack. Each traps by `unreachable` when it falls below zero, so the
//! host knows this trap from the program's own by the sign of the global.
//!
//! A function that calls others takes its frame at entry and gives it back at its only exit: its body becomes one
//! block, which stands where the label of the function stood, so branches keep their numbers, and `return` becomes
//! a branch to it. A function that calls none cannot recurse and takes no frame.
//!
//! Indices of the module do not change, because everything is appended; so the code between two charges is copied
//! byte by byte. Custom sections, which hold names and debug data, are dropped.

use crate::{
    limits, price,
    profile::{Facts, Height, Refusal, Signature, width},
};
use std::convert::Infallible;
use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, ExportKind, ExportSection, Function, GlobalSection, GlobalType,
    Instruction, Module, SectionId, TypeSection, ValType,
    reencode::{self, Reencode, utils},
};
use wasmparser::Operator;

/// Export of the gas that is left.
pub(crate) const GAS: &str = "posync:gas";
/// Export of the bytes of stack that are left.
pub(crate) const STACK: &str = "posync:stack";

/// Bytes that a frame has beside its values.
const FRAME_BYTES: u64 = 64;
/// Instructions that add a value to the frame of their function. A compiler may keep every value that a function has
/// computed across a call, if it is used again after it. [`limits::ENGINE_STACK_BYTES`] makes up for the rest.
const INSTRUCTIONS_PER_VALUE: u64 = 32;

type Error = reencode::Error<Infallible>;

/// Returns the module with its gas and stack counted. `module` has been checked, and gave `facts`. Unless it
/// `counts`, the globals are added alone, to measure what counting costs.
///
/// # Errors
/// [`Refusal::Metered`] if it cannot be rewritten.
pub(crate) fn meter(module: &[u8], facts: &Facts, counts: bool) -> Result<Vec<u8>, Refusal> {
    let mut metered = Module::new();
    let failed = |error: Error| Refusal::Metered(error.to_string());
    Meter { facts, counts, next: 0, globals: false }
        .parse_core_module(&mut metered, wasmparser::Parser::new(0), module)
        .map_err(failed)?;
    Ok(metered.finish())
}

/// Rewrites the sections of one module.
struct Meter<'a> {
    facts: &'a Facts,
    counts: bool,
    /// The function whose body comes next.
    next: usize,
    /// True once the globals are there.
    globals: bool,
}

impl Meter<'_> {
    fn gas(&self) -> u32 {
        self.facts.globals
    }

    fn stack(&self) -> u32 {
        self.facts.globals + 1
    }

    fn add_globals(&mut self, globals: &mut GlobalSection) {
        let mutable = |val_type| GlobalType { val_type, mutable: true, shared: false };
        globals.global(mutable(ValType::I64), &ConstExpr::i64_const(0));
        globals.global(mutable(ValType::I32), &ConstExpr::i32_const(limits::STACK_BYTES.cast_signed()));
        self.globals = true;
    }

    /// Types `() -> results` for blocks around functions with several results, in the order of those types.
    fn wrappers(&self) -> impl Iterator<Item = &[wasmparser::ValType]> {
        self.facts.types.iter().map(|kind| &kind.results[..]).filter(|results| results.len() > 1)
    }

    /// The type of the block around a function of type `kind`.
    fn wrapper(&mut self, kind: u32) -> Result<BlockType, Error> {
        let facts = self.facts;
        match facts.types[kind as usize].results[..] {
            [] => Ok(BlockType::Empty),
            [result] => Ok(BlockType::Result(self.val_type(result)?)),
            _ => Ok(BlockType::FunctionType(facts.types.len() as u32 + facts.wrappers[kind as usize])),
        }
    }
}

impl Reencode for Meter<'_> {
    type Error = Infallible;

    fn parse_type_section(
        &mut self,
        types: &mut TypeSection,
        section: wasmparser::TypeSectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_type_section(self, types, section)?;
        let wrappers: Vec<Vec<_>> = self.wrappers().map(<[_]>::to_vec).collect();
        for results in wrappers {
            let results = results.into_iter().map(|result| self.val_type(result));
            types.ty().function([], results.collect::<Result<Vec<_>, _>>()?);
        }
        Ok(())
    }

    fn parse_global_section(
        &mut self,
        globals: &mut GlobalSection,
        section: wasmparser::GlobalSectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_global_section(self, globals, section)?;
        self.add_globals(globals);
        Ok(())
    }

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: wasmparser::ExportSectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_export_section(self, exports, section)?;
        exports.export(GAS, ExportKind::Global, self.gas());
        exports.export(STACK, ExportKind::Global, self.stack());
        Ok(())
    }

    /// Adds the section of globals where a module has none. It has exports, which come after it.
    fn intersperse_section_hook(
        &mut self,
        module: &mut Module,
        _after: Option<SectionId>,
        before: Option<SectionId>,
    ) -> Result<(), Error> {
        if before == Some(SectionId::Export) && !self.globals {
            let mut globals = GlobalSection::new();
            self.add_globals(&mut globals);
            module.section(&globals);
        }
        Ok(())
    }

    fn parse_custom_section(
        &mut self,
        _module: &mut Module,
        _section: wasmparser::CustomSectionReader<'_>,
    ) -> Result<(), Error> {
        Ok(())
    }

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        body: wasmparser::FunctionBody<'_>,
    ) -> Result<(), Error> {
        if !self.counts {
            return utils::parse_function_body(self, code, body);
        }
        let index = self.next;
        self.next += 1;
        let kind = self.facts.functions[index];
        let facts = self.facts;
        let Signature { params, results } = &facts.types[kind as usize];
        let operators =
            body.get_operators_reader()?.into_iter_with_offsets().collect::<Result<Vec<_>, _>>()?;
        let plan = Plan::new(&operators, &facts.types, results.len());

        let mut locals = Vec::new();
        let mut count = 0_u32;
        let mut bytes = params.iter().map(|param| width(*param)).sum::<u64>();
        for local in body.get_locals_reader()? {
            let (many, local) = local?;
            count += many;
            bytes += u64::from(many) * width(local);
            locals.push((many, self.val_type(local)?));
        }
        let scratch = params.len() as u32 + count;
        locals.extend([(1, ValType::I64), (if plan.moves { 2 } else { 0 }, ValType::I32)]);
        let Height { values, width, .. } = facts.heights[index];
        bytes += (values + operators.len() as u64 / INSTRUCTIONS_PER_VALUE) * width;

        let wrapper = self.wrapper(kind)?;
        let frame = plan.calls.then(|| i32::try_from(bytes + FRAME_BYTES).unwrap_or(i32::MAX));
        let mut writer = Writer { out: Function::new(locals), gas: self.gas(), scratch };
        let values = u64::from(scratch) + results.len() as u64;
        writer.charge(values / price::VALUES_PER_UNIT + 1 + plan.entry);
        if let Some(frame) = frame {
            writer.enter(self.stack(), frame, wrapper);
        }
        writer.body(&body, &operators, &plan, frame.is_some());
        if let Some(frame) = frame {
            writer.leave(self.stack(), frame);
        }
        writer.out.instruction(&Instruction::End);
        code.function(&writer.out);
        Ok(())
    }
}

/// The charges of a function, by position.
struct Plan {
    /// Charge of the run at the function's entry.
    entry: u64,
    /// Charges of later runs, each with the index of the operator before which it stands.
    charges: Vec<(usize, u64)>,
    /// True if an operator moves a number of bytes or elements that the program computes.
    moves: bool,
    /// True if the function calls another.
    calls: bool,
}

/// A construct that is open at a point of a function, and how it is left.
struct Label {
    /// True for a loop: a branch to it goes to its start.
    is_loop: bool,
    /// True if its end can be reached by more than one way.
    joins: bool,
    /// Values that a branch to it carries.
    carries: usize,
}

impl Plan {
    /// The plan of a function that has so many `results`.
    fn new(operators: &[(Operator<'_>, usize)], types: &[Signature], results: usize) -> Self {
        let mut plan = Self { entry: 0, charges: Vec::new(), moves: false, calls: false };
        let mut labels = vec![Label { is_loop: false, joins: false, carries: results }];
        // The run that is being added up: the operator that it starts at, and its price so far.
        let (mut start, mut cost, mut dead) = (0, 0, false);
        for (index, (operator, _)) in operators.iter().enumerate() {
            use Operator::*;
            if !dead {
                cost += price::of(operator) + values(operator, types, &labels) / price::VALUES_PER_UNIT;
            }
            plan.moves |= unit(operator).is_some();
            plan.calls |= matches!(operator, Call { .. } | CallIndirect { .. });
            let ends = match operator {
                Block { blockty } => {
                    labels.push(Label { is_loop: false, joins: false, carries: arity(types, *blockty).1 });
                    false
                }
                Loop { blockty } => {
                    labels.push(Label { is_loop: true, joins: false, carries: arity(types, *blockty).0 });
                    true
                }
                If { blockty } => {
                    labels.push(Label { is_loop: false, joins: true, carries: arity(types, *blockty).1 });
                    true
                }
                Else => true,
                // The end of a loop, or of a block without branches to it, is reached from within alone.
                End => labels.pop().is_some_and(|label| label.joins) || dead,
                Br { relative_depth } | BrIf { relative_depth } => {
                    branch(&mut labels, *relative_depth);
                    true
                }
                BrTable { targets } => {
                    for target in targets.targets().flatten().chain([targets.default()]) {
                        branch(&mut labels, target);
                    }
                    true
                }
                Return | Unreachable => true,
                _ => false,
            };
            if ends {
                plan.flush(start, cost);
                (start, cost) = (index + 1, 0);
                dead = match operator {
                    Br { .. } | BrTable { .. } | Return | Unreachable => true,
                    End | Else => false,
                    _ => dead,
                };
            }
        }
        plan.flush(start, cost);
        plan
    }

    fn flush(&mut self, start: usize, cost: u64) {
        match start {
            0 => self.entry = cost,
            _ if cost > 0 => self.charges.push((start, cost)),
            _ => {}
        }
    }
}

/// Parameters and results of a block.
fn arity(types: &[Signature], kind: wasmparser::BlockType) -> (usize, usize) {
    match kind {
        wasmparser::BlockType::Empty => (0, 0),
        wasmparser::BlockType::Type(_) => (0, 1),
        wasmparser::BlockType::FuncType(index) => {
            let kind = &types[index as usize];
            (kind.params.len(), kind.results.len())
        }
    }
}

/// Values that an operator may move beside its operands: a block at its start and its end, a branch to its label.
/// A function's own are charged at its entry.
fn values(operator: &Operator<'_>, types: &[Signature], labels: &[Label]) -> u64 {
    use Operator::*;
    let carries = |depth: u32| labels.iter().rev().nth(depth as usize).map_or(0, |label| label.carries);
    let values = match operator {
        Block { blockty } | Loop { blockty } | If { blockty } => {
            let (params, results) = arity(types, *blockty);
            params + results
        }
        Br { relative_depth } | BrIf { relative_depth } => carries(*relative_depth),
        // All of its targets carry as many.
        BrTable { targets } => carries(targets.default()),
        _ => 0,
    };
    values as u64
}

/// Notes a branch to the label that is `depth` constructs out.
fn branch(labels: &mut [Label], depth: u32) {
    let target = labels.iter_mut().rev().nth(depth as usize);
    if let Some(label) = target.filter(|label| !label.is_loop) {
        label.joins = true;
    }
}

/// The price of each byte, page or element that an operator moves or adds; `None` for other operators.
fn unit(operator: &Operator<'_>) -> Option<u64> {
    use Operator::*;
    match operator {
        MemoryCopy { .. } | MemoryFill { .. } | MemoryInit { .. } => Some(price::HOST_BYTE),
        TableCopy { .. } | TableFill { .. } | TableInit { .. } | TableGrow { .. } => Some(price::ELEMENT),
        MemoryGrow { .. } => Some(price::PAGE),
        _ => None,
    }
}

/// Writes the body of one function.
struct Writer {
    out: Function,
    gas: u32,
    /// The first of the added locals: one i64, then two i32 if the plan has moves.
    scratch: u32,
}

impl Writer {
    fn write(&mut self, instructions: &[Instruction<'_>]) {
        for instruction in instructions {
            self.out.instruction(instruction);
        }
    }

    /// Takes the number on the operand stack from the gas, and traps if nothing is left.
    fn take(&mut self) {
        use Instruction::*;
        self.write(&[I64Sub, LocalTee(self.scratch), GlobalSet(self.gas), LocalGet(self.scratch)]);
        self.write(&[I64Const(0), I64LtS, If(BlockType::Empty), Unreachable, End]);
    }

    fn charge(&mut self, cost: u64) {
        let cost = i64::try_from(cost).unwrap_or(i64::MAX / 2);
        self.write(&[Instruction::GlobalGet(self.gas), Instruction::I64Const(cost)]);
        self.take();
    }

    /// Charges `price` for each of the units that the local `count` holds.
    fn charge_each(&mut self, count: u32, price: u64) {
        use Instruction::*;
        self.write(&[GlobalGet(self.gas), LocalGet(count), I64ExtendI32U]);
        self.write(&[I64Const(price.cast_signed()), I64Mul]);
        self.take();
    }

    /// Takes the frame of a function, and opens the block around its body.
    fn enter(&mut self, stack: u32, frame: i32, wrapper: BlockType) {
        use Instruction::*;
        self.write(&[GlobalGet(stack), I32Const(frame), I32Sub, GlobalSet(stack)]);
        self.write(&[GlobalGet(stack), I32Const(0), I32LtS, If(BlockType::Empty), Unreachable, End]);
        self.write(&[Block(wrapper)]);
    }

    /// Closes the block around the body, and gives the frame back.
    fn leave(&mut self, stack: u32, frame: i32) {
        use Instruction::*;
        self.write(&[End, GlobalGet(stack), I32Const(frame), I32Add, GlobalSet(stack)]);
    }

    /// Copies the operators but the last `end`, with a charge before each run.
    fn body(
        &mut self,
        body: &wasmparser::FunctionBody<'_>,
        operators: &[(Operator<'_>, usize)],
        plan: &Plan,
        wrapped: bool,
    ) {
        let mut charges = plan.charges.iter().peekable();
        let mut depth = 0;
        // Code before this position is written.
        let mut written = operators[0].1;
        let last = operators.len() - 1;
        for (index, (operator, at)) in operators[..last].iter().enumerate() {
            let next = operators[index + 1].1;
            if let Some((_, cost)) = charges.next_if(|(start, _)| *start == index) {
                self.copy(body, written, *at);
                written = *at;
                self.charge(*cost);
            }
            match operator {
                Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => depth += 1,
                Operator::End => depth -= 1,
                Operator::Return if wrapped => {
                    self.copy(body, written, *at);
                    written = next;
                    self.write(&[Instruction::Br(depth)]);
                }
                _ => {
                    let Some(price) = unit(operator) else { continue };
                    self.copy(body, written, *at);
                    written = next;
                    self.moving(operator, price, |writer| writer.copy(body, *at, next));
                }
            }
        }
        self.copy(body, written, operators[last].1);
    }

    /// Copies the code from one position of the module to another.
    fn copy(&mut self, body: &wasmparser::FunctionBody<'_>, from: usize, to: usize) {
        let base = body.range().start;
        self.out.raw(body.as_bytes()[from - base..to - base].iter().copied());
    }

    /// An operator that moves as many units as its last operand says. Growth that is refused gives its charge back;
    /// growth beyond every bound is refused at once, and costs nothing more.
    fn moving(&mut self, operator: &Operator<'_>, price: u64, itself: impl FnOnce(&mut Self)) {
        use Instruction::*;
        let (count, grown) = (self.scratch + 1, self.scratch + 2);
        let most = match operator {
            Operator::MemoryGrow { .. } => limits::PAGES_MAX,
            Operator::TableGrow { .. } => limits::ELEMENTS_MAX,
            _ => {
                self.write(&[LocalTee(count)]);
                self.charge_each(count, price);
                return itself(self);
            }
        };
        self.write(&[LocalTee(count), LocalGet(count), I32Const(0)]);
        self.write(&[LocalGet(count), I32Const(most.cast_signed()), I32LeU, Select, LocalSet(count)]);
        self.charge_each(count, price);
        itself(self);
        self.write(&[LocalTee(grown), I32Const(-1), I32Eq, If(BlockType::Empty)]);
        self.write(&[GlobalGet(self.gas), LocalGet(count), I64ExtendI32U, I64Const(price.cast_signed())]);
        self.write(&[I64Mul, I64Add, GlobalSet(self.gas), End, LocalGet(grown)]);
    }
}
