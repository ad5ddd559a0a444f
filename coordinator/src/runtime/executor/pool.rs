//! The executor's threads. A job stays on one thread, so that its graphs and
//! shards are loaded once and its operations keep their order.

use super::ExecutorError;
use super::evaluate::Evaluation;
use super::kernel::KernelModule;
use super::operations::{Begun, Done, Operation, Worker};
use super::runner::Runner;
use crate::blobs::Blobs;
use crate::runtime::metrics::Metrics;
use raven_engine::EffectId;
use raven_protocol::JobId;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

/// Operations that may wait for one thread. A job has one or two at a time, so
/// this is far above what the engine's bound on active jobs leads to.
const QUEUE_MAX: usize = 4096;
/// Operations that are begun between two runs of an evaluation: rounds of other
/// jobs go on, and the evaluation does as well.
const REQUESTS_BETWEEN_RUNS: usize = 8;

/// An operation and the effect that it answers.
#[derive(Debug)]
pub struct Request {
    /// Told when it is done.
    pub effect: EffectId,
    /// What to compute.
    pub operation: Operation,
}

/// The answer to a [`Request`].
pub type Answer = (EffectId, Result<Done, ExecutorError>);

/// Threads that compute for the master.
#[derive(Debug)]
pub struct Executor {
    queues: Vec<SyncSender<Request>>,
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
            let (queue, requests) = sync_channel(QUEUE_MAX);
            let (module, blobs) = (module.clone(), blobs.clone());
            let (metrics, done) = (metrics.clone(), done.clone());
            let fresh =
                move || Worker::new(Runner::new(module.clone(), blobs.clone(), memory_bytes));
            let thread = std::thread::Builder::new()
                .name(format!("executor-{index}"))
                .spawn(move || serve(&fresh, &requests, &metrics, &done))?;
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
        let index = request.operation.job().0 % self.queues.len() as u64;
        self.queues[index as usize].try_send(request).map_err(|error| match error {
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

/// One thread's work.
struct Thread<'a> {
    fresh: &'a dyn Fn() -> Worker,
    worker: Worker,
    metrics: &'a Metrics,
    done: &'a UnboundedSender<Answer>,
    /// Evaluations that are going on; they take turns.
    evaluations: VecDeque<(EffectId, Box<Evaluation>)>,
}

fn serve(
    fresh: &dyn Fn() -> Worker,
    requests: &Receiver<Request>,
    metrics: &Metrics,
    done: &UnboundedSender<Answer>,
) {
    let worker = fresh();
    let mut thread = Thread { fresh, worker, metrics, done, evaluations: VecDeque::new() };
    loop {
        if thread.evaluations.is_empty() {
            let Ok(request) = requests.recv() else { return };
            thread.begin(request);
        }
        for _ in 0..REQUESTS_BETWEEN_RUNS {
            match requests.try_recv() {
                Ok(request) => thread.begin(request),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        thread.go_on();
    }
}

impl Thread<'_> {
    fn begin(&mut self, Request { effect, operation }: Request) {
        // Once nobody listens, what is still queued is not worth computing.
        if self.done.is_closed() {
            return;
        }
        let (job, name) = (operation.job(), operation.name());
        match self.compute(job, name, |worker| worker.begin(operation)) {
            Ok(Begun::Evaluation(evaluation)) => self.evaluations.push_back((effect, evaluation)),
            Ok(Begun::Done(done)) => self.answer(effect, Ok(done)),
            Err(error) => self.answer(effect, Err(error)),
        }
    }

    /// One run of the evaluation whose turn it is.
    fn go_on(&mut self) {
        let Some((effect, mut evaluation)) = self.evaluations.pop_front() else { return };
        if self.done.is_closed() {
            return;
        }
        let job = evaluation.job();
        match self.compute(job, "evaluate", |worker| worker.go_on(&mut evaluation)) {
            Ok(None) => self.evaluations.push_back((effect, evaluation)),
            Ok(Some(done)) => self.answer(effect, Ok(done)),
            Err(error) => self.answer(effect, Err(error)),
        }
    }

    fn compute<T>(
        &mut self,
        job: JobId,
        operation: &'static str,
        work: impl FnOnce(&mut Worker) -> Result<T, ExecutorError>,
    ) -> Result<T, ExecutorError> {
        let span = tracing::debug_span!("executor", %job, operation).entered();
        let start = Instant::now();
        // A job must not wait for ever for an answer, nor others for its thread.
        let worker = &mut self.worker;
        let result = catch_unwind(AssertUnwindSafe(|| work(worker)));
        let result = result.unwrap_or_else(|_| {
            self.worker = (self.fresh)();
            Err(ExecutorError::Panicked { operation })
        });
        let ms = start.elapsed().as_millis() as u64;
        self.metrics.executor_busy_ms.add(ms);
        match &result {
            Ok(_) => tracing::debug!(ms, "done"),
            Err(error) => tracing::error!(%error, "failed"),
        }
        drop(span);
        result
    }

    fn answer(&self, effect: EffectId, result: Result<Done, ExecutorError>) {
        self.metrics.executor_runs.add(1);
        if result.is_err() {
            self.metrics.executor_failures.add(1);
        }
        if self.done.send((effect, result)).is_err() {
            tracing::debug!("nobody waits for the executor");
        }
    }
}
