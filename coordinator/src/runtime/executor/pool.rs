//! The executor's threads. A job stays on one thread, so that its graphs and
//! shards are loaded once and its operations keep their order.

use super::ExecutorError;
use super::evaluate::Evaluation;
use super::kernel::KernelModule;
use super::operations::{Begun, Done, Fold, Operation, Worker};
use super::runner::Runner;
use crate::blobs::Blobs;
use crate::runtime::metrics::Metrics;
use raven_engine::EffectId;
use raven_protocol::JobId;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

/// What may wait for one thread. A job has one or two operations at a time, so
/// that beside the results this is far above what the engine's bound on active
/// jobs leads to.
const QUEUE_MAX: usize = 4096;
/// Of it, results to be summed before their step: they are a saving only and
/// must not take an operation's place, whose job would end for it.
const FOLDS_MAX: usize = QUEUE_MAX / 4;
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
    /// Results that wait for the threads, all together.
    folds: Arc<AtomicUsize>,
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
        let folds = Arc::<AtomicUsize>::default();
        let (queues, waiting) = (Vec::new(), folds.clone());
        let mut executor = Executor { queues, folds, threads: Vec::new() };
        for index in 0..threads.max(1) {
            let (queue, items) = sync_channel(QUEUE_MAX);
            let (module, blobs) = (module.clone(), blobs.clone());
            let (metrics, done, folds) = (metrics.clone(), done.clone(), waiting.clone());
            let fresh =
                move || Worker::new(Runner::new(module.clone(), blobs.clone(), memory_bytes));
            let thread = std::thread::Builder::new()
                .name(format!("executor-{index}"))
                .spawn(move || serve(&fresh, &items, &folds, &metrics, &done))?;
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
        if self.folds.fetch_add(1, Ordering::Relaxed) >= FOLDS_MAX {
            self.folds.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        if let Err(error) = self.send(job, Item::Fold(fold)) {
            self.folds.fetch_sub(1, Ordering::Relaxed);
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

/// One thread's work.
struct Thread<'a> {
    fresh: &'a dyn Fn() -> Worker,
    worker: Worker,
    folds: &'a AtomicUsize,
    metrics: &'a Metrics,
    done: &'a UnboundedSender<Answer>,
    /// Evaluations that are going on; they take turns.
    evaluations: VecDeque<(EffectId, Box<Evaluation>)>,
}

fn serve(
    fresh: &dyn Fn() -> Worker,
    items: &Receiver<Item>,
    folds: &AtomicUsize,
    metrics: &Metrics,
    done: &UnboundedSender<Answer>,
) {
    let worker = fresh();
    let evaluations = VecDeque::new();
    let mut thread = Thread { fresh, worker, folds, metrics, done, evaluations };
    loop {
        if thread.evaluations.is_empty() {
            let Ok(item) = items.recv() else { return };
            thread.take(item);
        }
        for _ in 0..REQUESTS_BETWEEN_RUNS {
            match items.try_recv() {
                Ok(item) => thread.take(item),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        thread.go_on();
    }
}

impl Thread<'_> {
    fn take(&mut self, item: Item) {
        match item {
            Item::Request(request) => self.begin(request),
            Item::Fold(fold) => self.fold(fold),
            Item::Forget(job) => self.worker.forget(job),
        }
    }

    /// Sums what can be summed of a round; its step does what this does not.
    fn fold(&mut self, fold: Fold) {
        self.folds.fetch_sub(1, Ordering::Relaxed);
        if self.done.is_closed() {
            return;
        }
        let job = fold.context.job();
        if self.compute(job, "fold", |worker| worker.fold(fold)).is_err() {
            self.worker.forget(job);
        }
    }

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
