//! A task's commands: gathered first, then recorded into one command buffer.

use crate::device::{Gpu, Pipeline};
use crate::error::TaskError;
use crate::pool::{Buffer, View};
use crate::shader::{GRID_MAX, Launch, PARAM_BYTES, ValueId, Word};
use std::collections::HashMap;
use std::rc::Rc;

/// Commands of one submission at most: recording them takes host memory and time.
pub const COMMANDS_MAX: u64 = 1 << 18;

/// What a launch may read besides its operands.
#[derive(Clone, Copy, Debug)]
pub struct RunContext {
    /// Key of the random nodes.
    pub seed: u64,
    /// Micro-batch or step.
    pub run: u32,
}

#[derive(Debug)]
enum Command {
    Dispatch { pipeline: Rc<Pipeline>, views: Vec<View>, params: u32, grid: [u32; 2] },
    Copy { from: View, to: View },
}

/// Commands in order, with the uniform blocks that they read.
#[derive(Debug, Default)]
pub struct Commands {
    commands: Vec<Command>,
    /// Blocks of [`PARAM_BYTES`]; equal ones are one.
    params: Vec<u8>,
    blocks: HashMap<Vec<u32>, u32>,
}

impl Commands {
    /// Adds a launch, in as many dispatches as keep each of them short.
    ///
    /// # Errors
    /// [`TaskError::Limit`].
    pub fn launch(
        &mut self,
        gpu: &Gpu,
        (launch, pipeline): (&Launch, &Rc<Pipeline>),
        context: RunContext,
        view: impl Fn(ValueId) -> View,
    ) -> Result<(), TaskError> {
        let views: Vec<View> =
            launch.reads.iter().chain([&launch.write]).map(|id| view(*id)).collect();
        let pieces = gpu.pieces(launch);
        let piece = launch.groups.div_ceil(pieces);
        let mut first = 0;
        while first < launch.groups {
            let end = launch.groups.min(first.saturating_add(piece));
            let params = self.block(launch, [first, end], context)?;
            let groups = end - first;
            let grid = [groups.min(GRID_MAX), groups.div_ceil(GRID_MAX)];
            self.push(Command::Dispatch {
                pipeline: pipeline.clone(),
                views: views.clone(),
                params,
                grid,
            })?;
            first = end;
        }
        Ok(())
    }

    /// Adds a copy of words from one buffer to another.
    ///
    /// # Errors
    /// [`TaskError::Limit`].
    pub fn copy(&mut self, from: View, to: View) -> Result<(), TaskError> {
        // A buffer cannot be copied onto itself, and need not be.
        if from.buffer.id() == to.buffer.id() {
            Ok(())
        } else {
            self.push(Command::Copy { from, to })
        }
    }

    fn push(&mut self, command: Command) -> Result<(), TaskError> {
        if self.commands.len() as u64 >= COMMANDS_MAX {
            let (found, limit) = (COMMANDS_MAX + 1, COMMANDS_MAX);
            return Err(TaskError::Limit { field: "commands", found, limit });
        }
        self.commands.push(command);
        Ok(())
    }

    /// Number of the uniform block of these parameters.
    fn block(
        &mut self,
        launch: &Launch,
        range: [u32; 2],
        context: RunContext,
    ) -> Result<u32, TaskError> {
        let mut words = range.to_vec();
        words.extend(launch.words.iter().map(|word| match word {
            Word::Fixed(value) => *value,
            Word::Run => context.run,
            Word::SeedLow => context.seed as u32,
            Word::SeedHigh => (context.seed >> 32) as u32,
        }));
        let next = (self.params.len() as u64 / PARAM_BYTES) as u32;
        if let Some(known) = self.blocks.get(&words) {
            return Ok(*known);
        }
        let found = 4 * words.len() as u64;
        if found > PARAM_BYTES {
            return Err(TaskError::Limit { field: "uniform block", found, limit: PARAM_BYTES });
        }
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        self.params.extend(bytes);
        self.params.resize((next as usize + 1) * PARAM_BYTES as usize, 0);
        self.blocks.insert(words, next);
        Ok(next)
    }

    /// Bytes of the uniform blocks.
    pub fn param_bytes(&self) -> u64 {
        self.params.len() as u64
    }

    /// Records everything and submits it. `params` holds [`Commands::param_bytes`].
    pub fn submit(&self, gpu: &mut Gpu, params: &Buffer) {
        if !self.params.is_empty() {
            gpu.queue().write_buffer(params.raw(), 0, &self.params);
        }
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut at = 0;
        while at < self.commands.len() {
            match &self.commands[at] {
                Command::Copy { from, to } => {
                    encoder.copy_buffer_to_buffer(
                        from.buffer.raw(),
                        from.offset,
                        to.buffer.raw(),
                        to.offset,
                        from.bytes.min(to.bytes),
                    );
                    at += 1;
                }
                Command::Dispatch { .. } => at = self.pass(gpu, &mut encoder, params, at),
            }
        }
        let buffer = encoder.finish();
        gpu.queue().submit([buffer]);
        gpu.counters.submits += 1;
    }

    /// Records dispatches from `at` up to the next copy; returns where that is.
    fn pass(
        &self,
        gpu: &mut Gpu,
        encoder: &mut wgpu::CommandEncoder,
        params: &Buffer,
        mut at: usize,
    ) -> usize {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        let mut last: Option<Rc<Pipeline>> = None;
        while let Some(Command::Dispatch { pipeline, views, params: block, grid }) =
            self.commands.get(at)
        {
            if !last.as_ref().is_some_and(|last| Rc::ptr_eq(last, pipeline)) {
                pass.set_pipeline(pipeline.raw());
                last = Some(pipeline.clone());
            }
            let group = gpu.bind(pipeline.reads(), params, views);
            pass.set_bind_group(0, &group, &[block * PARAM_BYTES as u32]);
            pass.dispatch_workgroups(grid[0], grid[1], 1);
            gpu.counters.dispatches += 1;
            at += 1;
        }
        at
    }
}
