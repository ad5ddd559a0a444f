//! A task's `Map` or `Scan` as commands.

use crate::bind::{Bindings, Part, Source};
use crate::device::{Gpu, Pipeline};
use crate::error::TaskError;
use crate::lower::layout;
use crate::plan::{Place, Plan, bytes_of};
use crate::pool::{Buffer, View};
use crate::record::{Commands, RunContext};
use crate::shader::{Launch, ValueId, count};
use crate::task::{CarrySlot, MARK_BYTES, Slot, data_bytes};
use raven_protocol::{Program, TaskSpec};
use std::rc::Rc;

/// How one output of the task comes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gather {
    /// The value of the last run.
    Last,
    /// The sum over the runs, along the fixed balanced tree.
    Sum,
    /// The values of all runs, in order.
    Concat,
}

/// A task ready to be submitted.
#[derive(Debug)]
pub struct Recorded {
    /// What to do.
    pub commands: Commands,
    /// Receives the task's data and, behind it, the mark.
    pub data: Buffer,
    /// Receives the uniform blocks.
    pub params: Buffer,
    /// Receives the outputs and the mark.
    pub readback: Buffer,
    /// What goes back to the pool, `data` included.
    pub buffers: Vec<Buffer>,
}

/// Bytes of what a task's length decides.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes that come back.
    pub readback: u64,
    /// Bytes of uniform blocks at most.
    pub params_max: u64,
}

/// Sums of one output that are not merged yet, with the number of values in each.
#[derive(Debug, Default)]
struct Tree {
    partial: Vec<(u32, Buffer)>,
    spare: Vec<Buffer>,
}

struct Recorder<'a> {
    gpu: &'a mut Gpu,
    plan: &'a Plan,
    bindings: &'a Bindings,
    pipelines: Vec<Rc<Pipeline>>,
    commands: Commands,
    slots: Vec<View>,
    data: Buffer,
    buffers: Vec<Buffer>,
    /// Per graph input, a buffer of its own where rows, bytes or carried values go.
    own: Vec<Option<View>>,
    /// Per carried value, where it is kept until its target may be overwritten.
    saved: Vec<Option<View>>,
    trees: Vec<Tree>,
}

/// Whether a carried value is another carried input as it was: it must be read
/// before that is overwritten. One that is its own target stays where it is.
pub fn is_crossed(plan: &Plan, carry: &[CarrySlot], slot: &CarrySlot) -> bool {
    let Some(Place::Input(from)) = plan.outputs().get(slot.output) else { return false };
    *from != slot.input && carry.iter().any(|other| other.input == *from)
}

/// Records all runs of a task.
///
/// # Errors
/// [`TaskError::Limit`]: more commands or parameters than one submission takes.
pub fn record(
    gpu: &mut Gpu,
    spec: &TaskSpec,
    plan: &Plan,
    bindings: &Bindings,
    slots: &[Slot],
    carry: &[CarrySlot],
    sizes: Sizes,
) -> Result<Recorded, TaskError> {
    let readback = gpu.guarded(|gpu| gpu.take_readback(sizes.readback));
    let mut recorder = Recorder::new(gpu, plan, bindings, carry, slots.len());
    let (start, runs) = match spec.program {
        Program::Map { start, count, .. } => (start, count),
        Program::Scan { steps, .. } => (0, steps),
    };
    recorder.unpack()?;
    for run in 0..runs {
        let context = RunContext { seed: spec.seed.0, run: start + run };
        let inputs = recorder.inputs(run, carry)?;
        recorder.launches(&inputs, context)?;
        let outputs: Vec<View> =
            plan.outputs().iter().map(|place| recorder.at(*place, &inputs)).collect();
        recorder.gather(slots, &outputs, (run, runs), &readback)?;
        if run + 1 < runs {
            recorder.carry(carry, &outputs)?;
        }
    }
    recorder.finish(slots, readback, sizes)
}

impl<'a> Recorder<'a> {
    fn new(
        gpu: &'a mut Gpu,
        plan: &'a Plan,
        bindings: &'a Bindings,
        carry: &[CarrySlot],
        outputs: usize,
    ) -> Self {
        let mut buffers = Vec::new();
        let (pipelines, slots, own, saved, data) = gpu.guarded(|gpu| {
            let mut taken = |gpu: &mut Gpu, bytes: u64| {
                let buffer = gpu.take(bytes);
                buffers.push(buffer.clone());
                buffer.view(bytes)
            };
            let slots: Vec<View> = plan.slots().iter().map(|bytes| taken(gpu, *bytes)).collect();
            let own = plan.graph().inputs().iter().enumerate().map(|(at, input)| {
                let source = &bindings.sources[at];
                let written = matches!(source, Source::Rows { .. } | Source::Packed(_));
                let carried = carry.iter().any(|slot| slot.input == at);
                (written || carried).then(|| taken(gpu, bytes_of(input.ty.shape.dims())))
            });
            let own: Vec<Option<View>> = own.collect();
            let saved = carry.iter().map(|slot| {
                let bytes = bytes_of(plan.graph().inputs()[slot.input].ty.shape.dims());
                is_crossed(plan, carry, slot).then(|| taken(gpu, bytes))
            });
            let saved: Vec<Option<View>> = saved.collect();
            let data = taken(gpu, data_bytes(bindings.data.len() as u64)).buffer;
            let pipelines = plan.launches().iter().map(|launch| gpu.pipeline(launch)).collect();
            (pipelines, slots, own, saved, data)
        });
        let trees = (0..outputs).map(|_| Tree::default()).collect();
        let commands = Commands::default();
        Recorder {
            gpu,
            plan,
            bindings,
            pipelines,
            commands,
            slots,
            data,
            buffers,
            own,
            saved,
            trees,
        }
    }

    /// Runs a launch that no plan holds; its values are numbered by position:
    /// the operands first, the result last.
    fn extra(&mut self, launch: &Launch, views: &[View]) -> Result<(), TaskError> {
        let pipeline = self.gpu.pipeline(launch);
        let context = RunContext { seed: 0, run: 0 };
        let view = |id: ValueId| views[id.index()].clone();
        self.commands.launch(self.gpu, (launch, &pipeline), context, view)
    }

    fn part(&self, part: Part) -> View {
        View { buffer: self.data.clone(), offset: part.offset, bytes: part.bytes }
    }

    /// Unpacks blobs of bytes that are bound as a whole.
    fn unpack(&mut self) -> Result<(), TaskError> {
        let bindings = self.bindings;
        for (at, source) in bindings.sources.iter().enumerate() {
            if let (Source::Packed(from), Some(own)) = (source, self.own[at].clone()) {
                let words = count(self.plan.graph().inputs()[at].ty.shape.dims());
                let launch = layout::unpack(ValueId(0), ValueId(1), words);
                self.extra(&launch, &[from.clone(), own])?;
            }
        }
        Ok(())
    }

    /// Where each input lies in run `run`.
    fn inputs(&mut self, run: u32, carry: &[CarrySlot]) -> Result<Vec<View>, TaskError> {
        let bindings = self.bindings;
        let mut inputs = Vec::with_capacity(bindings.sources.len());
        for (at, source) in bindings.sources.iter().enumerate() {
            let own = self.own[at].clone();
            let carried = run > 0 && carry.iter().any(|slot| slot.input == at);
            inputs.push(match (source, own) {
                (_, Some(own)) if carried => own,
                (Source::Blob(view), _) => view.clone(),
                (Source::Attached(part), _) => self.part(*part),
                (Source::PerRun(parts), _) => self.part(parts[run as usize]),
                (Source::Rows { column, tables, width }, Some(own)) => {
                    for table in &tables[run as usize] {
                        let column = &bindings.columns[*column];
                        let values = [ValueId(0), ValueId(1), ValueId(2)];
                        let extents = [table.count, *width];
                        let launch =
                            layout::rows(values[0], values[1], values[2], column.packed, extents);
                        let pairs = self.part(table.pairs);
                        // Where no shard is read, any buffer may stand for one.
                        let shard = table.shard.map(|shard| column.parts[shard].clone());
                        let shard = shard.unwrap_or_else(|| pairs.clone());
                        self.extra(&launch, &[shard, pairs, own.clone()])?;
                    }
                    own
                }
                (Source::Packed(_), Some(own)) => own,
                // Written inputs have a buffer of their own.
                (Source::Rows { .. } | Source::Packed(_), None) => {
                    let input = self.plan.graph().inputs()[at].name.clone();
                    return Err(TaskError::Unbound { input });
                }
            });
        }
        Ok(inputs)
    }

    fn at(&self, place: Place, inputs: &[View]) -> View {
        match place {
            Place::Input(at) => inputs[at].clone(),
            Place::Slot(at) => self.slots[at].clone(),
        }
    }

    fn launches(&mut self, inputs: &[View], context: RunContext) -> Result<(), TaskError> {
        let plan = self.plan;
        for (launch, pipeline) in plan.launches().iter().zip(&self.pipelines) {
            let view = |id: ValueId| match plan.place(id) {
                Place::Input(at) => inputs[at].clone(),
                Place::Slot(at) => self.slots[at].clone(),
            };
            self.commands.launch(self.gpu, (launch, pipeline), context, view)?;
        }
        Ok(())
    }

    fn gather(
        &mut self,
        slots: &[Slot],
        outputs: &[View],
        (run, runs): (u32, u32),
        readback: &Buffer,
    ) -> Result<(), TaskError> {
        for (number, slot) in slots.iter().enumerate() {
            let from = outputs[slot.at].clone();
            let whole = bytes_of(slot.ty.shape.dims());
            match slot.gather {
                Gather::Last if run + 1 == runs => {
                    let to = View { buffer: readback.clone(), offset: slot.offset, bytes: whole };
                    self.commands.copy(from, to)?;
                }
                Gather::Last => {}
                Gather::Concat => {
                    let bytes = whole / u64::from(runs);
                    let offset = slot.offset + u64::from(run) * bytes;
                    self.commands.copy(from, View { buffer: readback.clone(), offset, bytes })?;
                }
                Gather::Sum => self.add(number, from, whole)?,
            }
        }
        Ok(())
    }

    /// Adds the next value of an output to its tree: two sums of equal size
    /// merge at once, as a binary counter's digits.
    fn add(&mut self, number: usize, value: View, bytes: u64) -> Result<(), TaskError> {
        let (mut size, mut own) = (1, None::<Buffer>);
        while let Some((_, left)) = self.trees[number].partial.pop_if(|(below, _)| *below == size) {
            let right = own.as_ref().map_or_else(|| value.clone(), |own| own.view(bytes));
            self.accumulate(right, left.view(bytes), bytes)?;
            self.trees[number].spare.extend(own);
            own = Some(left);
            size *= 2;
        }
        let own = match own {
            Some(own) => own,
            None => {
                let own = self.spare(number, bytes);
                self.commands.copy(value, own.view(bytes))?;
                own
            }
        };
        self.trees[number].partial.push((size, own));
        Ok(())
    }

    fn spare(&mut self, number: usize, bytes: u64) -> Buffer {
        self.trees[number].spare.pop().unwrap_or_else(|| {
            let buffer = self.gpu.guarded(|gpu| gpu.take(bytes));
            self.buffers.push(buffer.clone());
            buffer
        })
    }

    fn accumulate(&mut self, from: View, to: View, bytes: u64) -> Result<(), TaskError> {
        let launch = layout::accumulate(ValueId(0), ValueId(1), (bytes / 4) as u32);
        self.extra(&launch, &[from, to])
    }

    /// Hands outputs to the inputs of the next step.
    fn carry(&mut self, carry: &[CarrySlot], outputs: &[View]) -> Result<(), TaskError> {
        let to: Vec<View> = carry.iter().filter_map(|slot| self.own[slot.input].clone()).collect();
        let mut from: Vec<View> = carry.iter().map(|slot| outputs[slot.output].clone()).collect();
        for (view, saved) in from.iter_mut().zip(self.saved.clone()) {
            if let Some(saved) = saved {
                self.commands.copy(view.clone(), saved.clone())?;
                *view = saved;
            }
        }
        for (from, to) in from.into_iter().zip(to) {
            self.commands.copy(from, to)?;
        }
        Ok(())
    }

    /// Ends the sums and adds the mark.
    fn finish(
        mut self,
        slots: &[Slot],
        readback: Buffer,
        sizes: Sizes,
    ) -> Result<Recorded, TaskError> {
        for (number, slot) in
            slots.iter().enumerate().filter(|(_, slot)| slot.gather == Gather::Sum)
        {
            let bytes = bytes_of(slot.ty.shape.dims());
            let mut sum = self.trees[number].partial.pop().map(|(_, sum)| sum);
            while let Some((_, left)) = self.trees[number].partial.pop() {
                if let Some(sum) = &sum {
                    self.accumulate(sum.view(bytes), left.view(bytes), bytes)?;
                }
                sum = Some(left);
            }
            if let Some(sum) = sum {
                let to = View { buffer: readback.clone(), offset: slot.offset, bytes };
                self.commands.copy(sum.view(bytes), to)?;
            }
        }
        let at = (self.bindings.data.len() as u64).next_multiple_of(16);
        let mark = View { buffer: self.data.clone(), offset: at, bytes: MARK_BYTES };
        let offset = sizes.readback - MARK_BYTES;
        self.commands.copy(mark, View { buffer: readback.clone(), offset, bytes: MARK_BYTES })?;
        let bytes = self.commands.param_bytes();
        let (found, limit) = (Gpu::params_bytes(bytes), self.gpu.buffer_bytes_max());
        let limit = limit.min(sizes.params_max);
        if found > limit {
            return Err(TaskError::Limit { field: "parameters", found, limit });
        }
        let params = self.gpu.params(bytes);
        let Recorder { commands, data, buffers, .. } = self;
        Ok(Recorded { commands, data, params, readback, buffers })
    }
}
