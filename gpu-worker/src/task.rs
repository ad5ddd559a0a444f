//! A task on its way through the device: checked, recorded, submitted once, read
//! back once.

use crate::bind::{Bindings, DataLimits};
use crate::cache::Cache;
use crate::device::{Fault, Gpu, Waiting, worse};
use crate::error::TaskError;
use crate::plan::{Plan, bytes_of};
use crate::pool::{Buffer, Pool};
use crate::program::{self, Gather, Recorded, Sizes};
use crate::record::COMMANDS_MAX;
use crate::signal::Signal;
use raven_graph::{DType, TensorType, ValidGraph};
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, Encoding, Frame, FromContributor, LeaseId, Numerics, OutputSpec, Program, ReduceRule,
    ResultDigest, TaskId, TaskMessage, TaskSpec, TensorPart, TensorView, result_digest,
};
use std::cell::RefCell;
use std::rc::Rc;

/// The only bits in which a NaN leaves the kernel.
const CANONICAL_NAN: u32 = 0x7fc0_0000;
/// Bytes at the end of the readback that show that the submission has run.
pub const MARK_BYTES: u64 = 16;

/// One output of the task.
#[derive(Debug)]
pub struct Slot {
    /// As the task names it.
    pub spec: OutputSpec,
    /// Its type in the answer.
    pub ty: TensorType,
    /// Where it is among the graph's outputs.
    pub at: usize,
    /// How it comes together.
    pub gather: Gather,
    /// Where it begins in the readback.
    pub offset: u64,
}

/// A value that one step of a `Scan` hands to the next.
#[derive(Clone, Copy, Debug)]
pub struct CarrySlot {
    /// Number of the graph input.
    pub input: usize,
    /// Number of the graph output.
    pub output: usize,
}

/// What came back: the readback's bytes, or why there are none.
pub type Outcome = Rc<RefCell<Option<Result<Vec<u8>, TaskError>>>>;

/// A task on the device.
pub struct Task {
    lease: LeaseId,
    id: TaskId,
    slots: Vec<Slot>,
    flops: u64,
    bytes: u64,
    /// Buffers that go back to the pool.
    buffers: Vec<Buffer>,
    readback: Buffer,
    /// Kept until the end, so that the cache forgets none of it.
    _held: (Rc<Plan>, Bindings),
    pending: Option<Waiting<()>>,
    outcome: Outcome,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task")
            .field("lease", &self.lease)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What a finished task leaves: its commitment, and the payload's frame.
#[derive(Debug)]
pub struct Finished {
    /// The lease that is answered.
    pub lease: LeaseId,
    /// Commitment to the outputs.
    pub digest: ResultDigest,
    /// The encoded `result` frame.
    pub frame: Vec<u8>,
}

/// Where a graph output of that name is, and its type.
fn output<'a>(
    graph: &'a ValidGraph,
    field: &'static str,
    name: &str,
) -> Result<(usize, &'a TensorType), TaskError> {
    let at = graph.outputs().iter().position(|output| output.name == name);
    let at = at.ok_or_else(|| TaskError::Unknown { field, name: name.to_owned() })?;
    Ok((at, graph.ty(graph.outputs()[at].node)))
}

fn slots(spec: &TaskSpec, graph: &ValidGraph) -> Result<Vec<Slot>, TaskError> {
    let is_scan = matches!(spec.program, Program::Scan { .. });
    let runs = spec.program.runs();
    let mut slots = Vec::with_capacity(spec.outputs.len());
    let mut offset = 0;
    for spec in &spec.outputs {
        let (at, ty) = output(graph, "spec.outputs.name", &spec.name)?;
        let refused = |expected: &str| TaskError::Type {
            field: "spec.outputs.reduce",
            name: spec.name.clone(),
            expected: expected.to_owned(),
            found: ty.to_string(),
        };
        let mut ty = ty.clone();
        // The sum of one value is that value, whatever its type.
        let gather = match spec.reduce {
            _ if is_scan => Gather::Last,
            ReduceRule::Sum if runs == 1 => Gather::Last,
            ReduceRule::Sum if ty.dtype == DType::F32 => Gather::Sum,
            ReduceRule::Sum => return Err(refused("f32")),
            ReduceRule::Concat if ty.shape.rank() > 0 => {
                ty.shape.0[0] = ty.shape.0[0].saturating_mul(runs);
                Gather::Concat
            }
            ReduceRule::Concat => return Err(refused("a tensor with an axis")),
        };
        let bytes = bytes_of(ty.shape.dims());
        slots.push(Slot { spec: spec.clone(), ty, at, gather, offset });
        offset += bytes.next_multiple_of(16);
    }
    Ok(slots)
}

fn carry_slots(spec: &TaskSpec, graph: &ValidGraph) -> Result<Vec<CarrySlot>, TaskError> {
    let Program::Scan { carry, .. } = &spec.program else { return Ok(Vec::new()) };
    let mut slots: Vec<CarrySlot> = Vec::with_capacity(carry.len());
    for entry in carry {
        let input = graph.inputs().iter().position(|input| input.name == entry.input);
        let input = input.ok_or_else(|| TaskError::Unknown {
            field: "spec.program.carry.input",
            name: entry.input.clone(),
        })?;
        if slots.iter().any(|slot| slot.input == input) {
            let name = entry.input.clone();
            return Err(TaskError::Twice { field: "spec.program.carry.input", name });
        }
        let (output, found) = output(graph, "spec.program.carry.output", &entry.output)?;
        let expected = &graph.inputs()[input].ty;
        if found != expected {
            return Err(TaskError::Type {
                field: "spec.program.carry.output",
                name: entry.output.clone(),
                expected: expected.to_string(),
                found: found.to_string(),
            });
        }
        slots.push(CarrySlot { input, output });
    }
    Ok(slots)
}

/// Bytes that a task takes on the device beside the cache, before its
/// parameters are known: slots, inputs that are written, partial sums, the
/// readback and its copy here.
fn bytes_needed(spec: &TaskSpec, plan: &Plan, slots: &[Slot], carry: &[CarrySlot]) -> u64 {
    let runs = spec.program.runs();
    let levels = u64::from(u32::BITS - runs.leading_zeros()) + 1;
    let values: u64 = plan.slots().iter().map(|bytes| Pool::rounded(*bytes)).sum();
    let inputs = plan.graph().inputs().iter().map(|input| bytes_of(input.ty.shape.dims()));
    let inputs: u64 = inputs.map(Pool::rounded).sum();
    let crossed = carry.iter().filter(|slot| program::is_crossed(plan, carry, slot));
    let crossed = crossed.map(|slot| bytes_of(plan.graph().inputs()[slot.input].ty.shape.dims()));
    let crossed: u64 = crossed.map(Pool::rounded).sum();
    let gathered = slots.iter().map(|slot| {
        let bytes = Pool::rounded(bytes_of(slot.ty.shape.dims()));
        let parts = if slot.gather == Gather::Sum { levels } else { 0 };
        bytes.saturating_mul(parts + 3)
    });
    let gathered = gathered.fold(0u64, u64::saturating_add);
    values.saturating_add(inputs).saturating_add(crossed).saturating_add(gathered)
}

/// Bytes of the buffer that holds a task's data and, behind it, the mark.
pub fn data_bytes(data: u64) -> u64 {
    data.next_multiple_of(16) + MARK_BYTES
}

/// Refuses what would not fit one submission before anything is laid out for it.
fn check_commands(spec: &TaskSpec, plan: &Plan) -> Result<(), TaskError> {
    let rows = spec.bindings.iter().filter(|binding| matches!(binding, Binding::Rows { .. }));
    let per_run = plan.launches().len() as u64 + rows.count() as u64;
    let (found, limit) = (u64::from(spec.program.runs()) * per_run, COMMANDS_MAX);
    if found > limit {
        return Err(TaskError::Limit { field: "commands", found, limit });
    }
    Ok(())
}

fn readback_bytes(slots: &[Slot]) -> u64 {
    let end = slots.last().map_or(0, |slot| slot.offset + bytes_of(slot.ty.shape.dims()));
    end.next_multiple_of(16) + MARK_BYTES
}

/// What bounds a task: bytes that are held beside the cache, and the budget.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Bytes that neither cache nor task hold.
    pub others: u64,
    /// Bytes of everything.
    pub budget: u64,
}

impl Task {
    /// Checks a task, records it and submits it.
    ///
    /// # Errors
    /// [`TaskError`] names the first thing that is wrong.
    pub fn begin(
        gpu: &mut Gpu,
        message: &TaskMessage,
        frame: &Frame<'_>,
        cache: &mut Cache,
        room: Room,
    ) -> Result<Self, TaskError> {
        let spec = &message.spec;
        spec.check()?;
        if spec.numerics == Numerics::Strict {
            return Err(TaskError::Strict);
        }
        if let Some(reason) = gpu.lost() {
            return Err(TaskError::Lost { reason });
        }
        let graph = spec.program.graph();
        let plan = cache.graph(graph).ok_or_else(|| TaskError::Missing {
            field: "spec.program.graph",
            id: graph.to_string(),
        })?;
        let slots = slots(spec, plan.graph())?;
        let carry = carry_slots(spec, plan.graph())?;
        check_commands(spec, &plan)?;
        let needed = bytes_needed(spec, &plan, &slots, &carry);
        let readback = readback_bytes(&slots);
        let limit = gpu.buffer_bytes_max();
        if readback > limit {
            return Err(TaskError::Limit { field: "spec.outputs", found: readback, limit });
        }
        // A first look spares the layout of attachments that cannot fit; the
        // second, in the cache, knows what this task holds on to.
        let too_large =
            |needed, available| TaskError::TooLarge { needed, available, budget: room.budget };
        let available = room.budget.saturating_sub(room.others);
        if needed > available {
            return Err(too_large(needed, available));
        }
        let limits = DataLimits {
            bytes_max: limit.min(available - needed).saturating_sub(data_bytes(0)) / 16 * 16,
            binding_bytes_max: gpu.binding_bytes_max(),
        };
        let bindings = Bindings::resolve(spec, &plan, frame, cache, limits)?;
        let bytes = needed + Pool::rounded(data_bytes(bindings.data.len() as u64));
        cache.make_room("task", bytes, room.others, room.budget).map_err(|_| {
            let pinned = cache.bytes() - cache.free_bytes();
            too_large(bytes, room.budget.saturating_sub(room.others + pinned))
        })?;
        // Free buffers of the pool are taken, or make room for new ones.
        let room = room.budget.saturating_sub(room.others + cache.bytes());
        gpu.begin(room);
        let sizes = Sizes { readback, params_max: room.saturating_sub(bytes) };
        let recorded = program::record(gpu, spec, &plan, &bindings, &slots, &carry, sizes);
        let recorded = recorded.inspect_err(|_| gpu.clear())?;
        let bytes = bytes + recorded.params.bytes();
        let (buffers, target) = (recorded.buffers.clone(), recorded.readback.clone());
        let outcome = Outcome::default();
        let pending = submit(gpu, recorded, (&bindings, readback), message.lease, &outcome);
        Ok(Task {
            lease: message.lease,
            id: message.task,
            slots,
            flops: plan.flops().saturating_mul(u64::from(spec.program.runs())),
            bytes,
            buffers,
            readback: target,
            _held: (plan, bindings),
            pending: Some(pending),
            outcome,
        })
    }

    /// The lease that this task answers.
    pub fn lease(&self) -> LeaseId {
        self.lease
    }

    /// Bytes that are set aside for this task.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Operations of the whole task.
    pub fn flops(&self) -> u64 {
        self.flops
    }

    /// Resolves once the device has answered; handed out once.
    pub fn take_pending(&mut self) -> Option<Waiting<()>> {
        self.pending.take()
    }

    /// Whether the device has answered.
    pub fn is_done(&self) -> bool {
        self.outcome.borrow().is_some()
    }

    /// Records that the device will not answer any more.
    pub fn fail(&mut self, error: TaskError) {
        self.outcome.borrow_mut().get_or_insert(Err(error));
    }

    /// Ends the task: what it leaves; its buffers go back. Checked before: it is done.
    ///
    /// # Errors
    /// What the device did not do; then its buffers are dropped.
    pub fn finish(self, gpu: &mut Gpu) -> Result<Finished, TaskError> {
        let found = self.outcome.borrow_mut().take();
        let found = found.unwrap_or(Err(TaskError::Stopped));
        let finished = found.map(|bytes| finished(self.lease, self.id, &self.slots, &bytes))?;
        gpu.give_readback(self.readback);
        gpu.give_params();
        gpu.give(self.buffers, u64::MAX);
        Ok(finished)
    }
}

/// Uploads, submits and asks for the readback; resolves when the device has answered.
fn submit(
    gpu: &mut Gpu,
    recorded: Recorded,
    (bindings, bytes): (&Bindings, u64),
    lease: LeaseId,
    outcome: &Outcome,
) -> Waiting<()> {
    let Recorded { commands, data, params, readback, .. } = recorded;
    let mark = lease.0.to_le_bytes();
    let mapped: Signal<bool> = Signal::default();
    let done = mapped.clone();
    gpu.guarded(|gpu| {
        let at = (bindings.data.len() as u64).next_multiple_of(16);
        if !bindings.data.is_empty() {
            gpu.queue().write_buffer(data.raw(), 0, &bindings.data);
        }
        gpu.queue().write_buffer(data.raw(), at, &mark);
        commands.submit(gpu, &params);
        let read = wgpu::MapMode::Read;
        readback.raw().map_async(read, ..bytes, move |result| done.send(result.is_ok()));
        gpu.counters.readbacks += 1;
    });
    let checks = gpu.take_checks();
    let uploads = bindings.uploads();
    let outcome = outcome.clone();
    Box::pin(async move {
        let mut fault = None;
        for upload in uploads {
            fault = worse(fault, upload.await);
        }
        let fault = worse(fault, checks.await);
        let found = settle(fault, mapped, (&readback, bytes), &mark).await;
        *outcome.borrow_mut() = Some(found);
    })
}

/// The readback's bytes, if the device completed the submission without an error.
async fn settle(
    fault: Option<Fault>,
    mapped: Signal<bool>,
    (readback, bytes): (&Buffer, u64),
    mark: &[u8],
) -> Result<Vec<u8>, TaskError> {
    match fault {
        Some(Fault::OutOfMemory) => return Err(TaskError::OutOfMemory),
        Some(Fault::Lost(reason)) => return Err(TaskError::Lost { reason }),
        Some(Fault::Other(reason)) => return Err(TaskError::Device { reason }),
        None => {}
    }
    let unread = |reason: &str| TaskError::Device { reason: reason.to_owned() };
    if !mapped.await {
        return Err(unread("the result could not be read"));
    }
    let range = readback.raw().get_mapped_range(..bytes);
    let bytes = range.map(|range| range.to_vec()).map_err(|error| unread(&error.to_string()))?;
    readback.raw().unmap();
    // Copied by the last command: without it, nothing else was computed either.
    if bytes.ends_with(mark) { Ok(bytes) } else { Err(unread("the submission did not complete")) }
}

/// Elements as they are sent: NaN in one form, bytes and bools packed.
fn encoded(ty: &TensorType, words: &[u8]) -> Vec<u8> {
    match ty.dtype {
        DType::I32 => words.to_vec(),
        DType::U8 | DType::Bool => words.iter().step_by(4).copied().collect(),
        DType::F32 => {
            let bits = words.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            let bits =
                bits.map(|bits| if f32::from_bits(bits).is_nan() { CANONICAL_NAN } else { bits });
            bits.flat_map(u32::to_le_bytes).collect()
        }
    }
}

/// Encodes the outputs and commits to them.
fn finished(lease: LeaseId, id: TaskId, slots: &[Slot], readback: &[u8]) -> Finished {
    let data: Vec<Vec<u8>> = slots
        .iter()
        .map(|slot| {
            let bytes = bytes_of(slot.ty.shape.dims()) as usize;
            encoded(&slot.ty, &readback[slot.offset as usize..][..bytes])
        })
        .collect();
    let views = slots.iter().zip(&data).map(|(slot, data)| {
        let Encoding::Raw = slot.spec.encoding;
        let (name, ty) = (slot.spec.name.as_str(), &slot.ty);
        (slot.spec.encoding, TensorView { name, dtype: ty.dtype, shape: &ty.shape, data })
    });
    let digest = result_digest(id, views);
    let parts: Vec<TensorPart<'_>> = slots
        .iter()
        .zip(&data)
        .map(|(slot, data)| TensorPart { name: slot.spec.name.clone(), ty: slot.ty.clone(), data })
        .collect();
    let frame = encode(&FromContributor::Result { lease }, &parts);
    Finished { lease, digest, frame }
}
