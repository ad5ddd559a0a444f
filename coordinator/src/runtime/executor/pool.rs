//! The executor's threads. A job stays on one thread, so that its graphs and
//! shards are loaded once and its operations keep their order.

use super::ExecutorError;
use super::kernel::KernelModule;
use super::operations::{Done, Fold, Operation, Worker};
use super::runner::Runner;
use crate::blobs::Blobs;
use crate::runtime::metrics::Metrics;
use raven_engine::EffectId;
use raven_protocol::JobId;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

/// What may wait for one thread. A job has one or two operations at a time and
/// as many results as come in meanwhile, so this is far above what the engine's
/// bound on active jobs leads to.
const QUEUE_MAX: usize = 4096;

/// An operation and the effect that it answers.
#[derive(Debug)]
pub struct Request {
    /// Told when it is done.
    pub effect: EffectId,
    /// What to compute.
    pub operation: Operation,
}

/// What a thread is given.
#[derive(Debug)]
enum Item {
    Request(Request),
    Fold(Fold),
    Forget(JobId),
}

/// The answer to a [`Request`].
pub type Answer = (EffectId, Result<Done, ExecutorError>);

/// Threads that compute for the master.
#[derive(Debug)]
pub struct Executor {
    queues: Vec<SyncSender<Item>>,
    threads: Vec<JoinHandle<()>>,
}

impl Executor {
    /// Starts the threads. Answers go to `done`, which holds at most as many as
    /// operations were submitted.
    ///
    /// # Errors
    /// Where the system starts no thread.
    pub fn start(
        module: &KernelModule,
        blobs: &Blobs,
        threads: usize,
        memory_bytes: u64,
        metrics: &Arc<Metrics>,
        done: &UnboundedSender<Answer>,
    ) -> std::io::Result<Self> {
        let mut executor = Executor { queues: Vec::new(), threads: Vec::new() };
        for index in 0..threads.max(1) {
            let (queue, items) = sync_channel(QUEUE_MAX);
            let (module, blobs) = (module.clone(), blobs.clone());
            let (metrics, done) = (metrics.clone(), done.clone());
            let fresh =
                move || Worker::new(Runner::new(module.clone(), blobs.clone(), memory_bytes));
            let thread = std::thread::Builder::new()
                .name(format!("executor-{index}"))
                .spawn(move || serve(&fresh, &items, &metrics, &done))?;
            executor.queues.push(queue);
            executor.threads.push(thread);
        }
        Ok(executor)
    }

    /// Queues an operation on its job's thread.
    ///
    /// # Errors
    /// [`ExecutorError::Full`], [`ExecutorError::Stopped`].
    pub fn submit(&self, request: Request) -> Result<(), ExecutorError> {
        self.send(request.operation.job(), Item::Request(request))
    }

    /// Hands a result over to be summed before its round's step. Where there is
    /// no room the step does it: nothing is lost but time.
    pub fn fold(&self, fold: Fold) {
        let job = fold.context.job();
        if let Err(error) = self.send(job, Item::Fold(fold)) {
            tracing::debug!(%job, %error, "a result is not summed before its step");
        }
    }

    /// Lets go of what an ended job left behind.
    pub fn forget(&self, job: JobId) {
        if let Err(error) = self.send(job, Item::Forget(job)) {
            tracing::debug!(%job, %error, "an ended job's results are kept until the next one's");
        }
    }

    fn send(&self, job: JobId, item: Item) -> Result<(), ExecutorError> {
        let index = job.0 % self.queues.len() as u64;
        self.queues[index as usize].try_send(item).map_err(|error| match error {
            TrySendError::Full(_) => ExecutorError::Full { limit: QUEUE_MAX },
            TrySendError::Disconnected(_) => ExecutorError::Stopped,
        })
    }

    /// Ends the threads after what they have begun. Blocks.
    pub fn stop(self) {
        drop(self.queues);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("an executor thread panicked");
            }
        }
    }
}

fn serve(
    fresh: &dyn Fn() -> Worker,
    items: &Receiver<Item>,
    metrics: &Metrics,
    done: &UnboundedSender<Answer>,
) {
    let mut worker = fresh();
    for item in items {
        // Once nobody listens, what is still queued is not worth computing.
        if done.is_closed() {
            continue;
        }
        let Request { effect, operation } = match item {
            Item::Request(request) => request,
            Item::Fold(fold) => {
                worker = fold_in(worker, fold, metrics).unwrap_or_else(fresh);
                continue;
            }
            Item::Forget(job) => {
                worker.forget(job);
                continue;
            }
        };
        let (job, name) = (operation.job(), operation.name());
        let span = tracing::debug_span!("executor", %job, operation = name).entered();
        let start = Instant::now();
        // A job must not wait for ever for an answer, nor others for its thread.
        let result = catch_unwind(AssertUnwindSafe(|| worker.perform(operation)));
        let result = result.unwrap_or_else(|_| {
            worker = fresh();
            Err(ExecutorError::Panicked { operation: name })
        });
        metrics.executor_busy_ms.add(start.elapsed().as_millis() as u64);
        metrics.executor_runs.add(1);
        match &result {
            Ok(_) => tracing::debug!(ms = start.elapsed().as_millis() as u64, "done"),
            Err(error) => {
                metrics.executor_failures.add(1);
                tracing::error!(%error, "failed");
            }
        }
        drop(span);
        if done.send((effect, result)).is_err() {
            tracing::debug!("nobody waits for the executor");
        }
    }
}

/// Folds a result. `None` where the worker panicked and can't be used again.
fn fold_in(mut worker: Worker, fold: Fold, metrics: &Metrics) -> Option<Worker> {
    let job = fold.context.job();
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| worker.fold(fold)));
    metrics.executor_busy_ms.add(start.elapsed().as_millis() as u64);
    match result {
        Ok(Ok(())) => Some(worker),
        Ok(Err(error)) => {
            tracing::warn!(%job, %error, "results were not summed before their step");
            worker.forget(job);
            Some(worker)
        }
        Err(_) => {
            tracing::error!(%job, "the executor panicked while it summed results");
            None
        }
    }
}
