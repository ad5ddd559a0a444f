//! One instance of the kernel module that takes the frames which contributors
//! take, for the coordinator's own node and the referee. It blocks.

use super::executor::{ExecutorError, Kernel, KernelModule};
use crate::blobs::Blobs;
use raven_protocol::frame::encode;
use raven_protocol::{Frame, FrameLimits, FromContributor, LeaseId, RefuseReason, ToContributor};
use std::time::Instant;

/// Flops of one step of the module; nothing is done in between.
const STEP_FLOPS: f64 = 1e9;

/// The module's instance, on the threads that may block.
#[derive(Debug)]
pub(super) struct Bench {
    module: KernelModule,
    blobs: Blobs,
    memory_bytes: u64,
    kernel: Option<Kernel>,
}

impl Bench {
    /// An instance that is made when it is first needed.
    pub(super) fn new(module: KernelModule, blobs: Blobs, memory_bytes: u64) -> Self {
        Bench { module, blobs, memory_bytes, kernel: None }
    }

    /// Gives up the instance: the next frame meets a fresh one.
    pub(super) fn renew(&mut self) {
        self.kernel = None;
    }

    /// Takes one frame; answers what is to be sent back. An instance that broke
    /// is replaced, and its lease handed back.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let header = Frame::decode(bytes, &FrameLimits::TO_CONTRIBUTOR).map(|frame| {
            let message = ToContributor::from_header(frame.header());
            message.ok().and_then(|message| match message {
                ToContributor::Task(task) => Some(task.lease),
                _ => None,
            })
        });
        let lease = header.ok().flatten();
        let result = match lease {
            Some(_) => self.task(bytes),
            None => self.kernel().and_then(|kernel| Ok(kernel.accept(bytes)?)),
        };
        match result {
            Ok(reply) => reply.into_iter().collect(),
            Err(error) => {
                tracing::error!(%error, "the operator's node is made anew");
                self.kernel = None;
                lease.map(|lease| refusal(lease, &error)).into_iter().collect()
            }
        }
    }

    fn kernel(&mut self) -> Result<&mut Kernel, ExecutorError> {
        match &mut self.kernel {
            Some(kernel) => Ok(kernel),
            empty => Ok(empty.insert(Kernel::new(&self.module, self.memory_bytes)?)),
        }
    }

    /// Runs a task; answers its commitment or its refusal.
    fn task(&mut self, frame: &[u8]) -> Result<Option<Vec<u8>>, ExecutorError> {
        let blobs = self.blobs.clone();
        let kernel = self.kernel()?;
        for blob in kernel.missing(frame)? {
            let id = blob.parse().map_err(|_| ExecutorError::Missing { name: blob })?;
            kernel.accept(&blobs.get(id)?)?;
        }
        let began = Instant::now();
        if let Some(refusal) = kernel.begin(frame)? {
            return Ok(Some(refusal));
        }
        while !kernel.step(STEP_FLOPS)? {}
        let elapsed_ms = began.elapsed().as_millis() as u64;
        Ok(Some(kernel.finish(elapsed_ms)?))
    }
}

/// What a broken instance lost is sent again.
fn refusal(lease: LeaseId, error: &ExecutorError) -> Vec<u8> {
    let detail = error.to_string();
    encode(&FromContributor::Refuse { lease, reason: RefuseReason::Missing, detail }, &[])
}
