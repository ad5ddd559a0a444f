//! The workers of one machine: what each is at, which of them keeps the payload of
//! which lease, and the tasks that wait for one.

use super::ContributeError;
use super::fetcher::{Errand, Fetcher, Wanted};
use super::frames::{Frames, Name};
use super::memory::Memory;
use super::pace::Pace;
use super::worker::{Order, Parts, Said, Word, Worker, refusal};
use crate::runtime::executor::KernelModule;
use axum::body::Bytes;
use raven_graph::GraphId;
use raven_protocol::frame::encode;
use raven_protocol::{BlobId, LeaseId, RefuseReason, ShardRef, ToContributor};
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Tasks that wait at most; a coordinator pushes a few per worker.
const QUEUE_TASKS_MAX: usize = 512;
/// Bytes of waiting tasks at most: their attachments are row numbers, mostly.
pub(super) const QUEUE_BYTES_MAX: usize = 256 << 20;
/// Orders that a worker has not looked at yet. It looks between two operations of
/// the module, so that more means that it does not hear.
const ORDERS_MAX: usize = 4096;
/// Instances that may break within the window before nothing will come of it.
const CRASHES_MAX: usize = 3;
const CRASH_WINDOW: Duration = Duration::from_secs(60);

struct Slot {
    orders: SyncSender<Order>,
    errands: SyncSender<Errand>,
    busy: Option<LeaseId>,
    /// The lease whose task waits for its shards, and not the worker for it.
    fetching: Wanted,
    /// Leases whose payload the worker's instance keeps.
    committed: HashSet<LeaseId>,
}

struct Waiting {
    lease: LeaseId,
    frame: Bytes,
    came: Instant,
    shards: Vec<ShardRef>,
}

/// See the module.
pub(super) struct Pool {
    slots: Vec<Slot>,
    queue: VecDeque<Waiting>,
    queued_bytes: usize,
    frames: Arc<Frames>,
    words: UnboundedReceiver<Word>,
    stop: Arc<AtomicBool>,
    is_paused: bool,
    committed: u64,
    crashes: VecDeque<Instant>,
}

impl Drop for Pool {
    /// Ends the workers, whatever they are at; nobody waits for them.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Pool {
    /// Starts the workers.
    ///
    /// # Errors
    /// [`ContributeError::Thread`].
    pub(super) fn start(
        module: &KernelModule,
        frames: &Arc<Frames>,
        pace: Pace,
        memory: Memory,
        flops_per_s: u64,
    ) -> Result<Self, ContributeError> {
        // One word answers one order, and orders are bounded.
        let (say, words) = unbounded_channel();
        let stop = Arc::<AtomicBool>::default();
        let slots = (0..pace.workers as usize)
            .map(|number| {
                let (orders, obeyed) = sync_channel(ORDERS_MAX);
                let worker = Worker::new(Parts {
                    number,
                    module: module.clone(),
                    frames: frames.clone(),
                    orders: obeyed,
                    words: say.clone(),
                    stop: stop.clone(),
                    duty: pace.duty,
                    flops_per_s,
                    memory_bytes: memory.instance_bytes,
                });
                let (errands, run) = sync_channel(ORDERS_MAX);
                let fetching = Wanted::default();
                let fetcher = Fetcher {
                    worker: number,
                    frames: frames.clone(),
                    errands: run,
                    wanted: fetching.clone(),
                    words: say.clone(),
                    stop: stop.clone(),
                };
                let thread = std::thread::Builder::new().name(format!("fetcher-{number}"));
                thread.spawn(move || fetcher.run())?;
                let thread = std::thread::Builder::new().name(format!("worker-{number}"));
                thread.spawn(move || worker.run())?;
                let committed = HashSet::new();
                Ok(Slot { orders, errands, busy: None, fetching, committed })
            })
            .collect::<Result<_, std::io::Error>>()
            .map_err(ContributeError::Thread)?;
        Ok(Pool {
            slots,
            queue: VecDeque::new(),
            queued_bytes: 0,
            frames: frames.clone(),
            words,
            stop,
            is_paused: false,
            committed: 0,
            crashes: VecDeque::new(),
        })
    }

    /// Tasks that were committed since the start.
    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    /// The next word of a worker. Nothing is lost where it is not awaited to its end.
    pub(super) async fn word(&mut self) -> Option<Word> {
        self.words.recv().await
    }

    /// Takes a task; a frame that is returned hands it back.
    pub(super) fn task(
        &mut self,
        lease: LeaseId,
        frame: Bytes,
        shards: Vec<ShardRef>,
    ) -> Option<Vec<u8>> {
        if self.is_paused {
            return Some(refusal(lease, RefuseReason::Stopping, "paused"));
        }
        let bytes = self.queued_bytes + frame.len();
        if self.queue.len() >= QUEUE_TASKS_MAX || bytes > QUEUE_BYTES_MAX {
            let detail = format!("{QUEUE_TASKS_MAX} tasks or {QUEUE_BYTES_MAX} bytes wait");
            return Some(refusal(lease, RefuseReason::Failed, &detail));
        }
        self.queued_bytes = bytes;
        self.queue.push_back(Waiting { lease, frame, came: Instant::now(), shards });
        self.feed();
        None
    }

    /// Asks for the projections or the payload of a result.
    pub(super) fn ask(&mut self, lease: LeaseId, frame: Bytes) -> Option<Vec<u8>> {
        match self.slots.iter().find(|slot| slot.committed.contains(&lease)) {
            Some(slot) => {
                slot.tell(Order::Ask { lease, frame });
                None
            }
            None => {
                let detail = "no result is kept under this lease";
                Some(refusal(lease, RefuseReason::Missing, detail))
            }
        }
    }

    pub(super) fn cancel(&mut self, lease: LeaseId, frame: Bytes) {
        if let Some(at) = self.queue.iter().position(|waiting| waiting.lease == lease) {
            if let Some(waiting) = self.queue.remove(at) {
                self.queued_bytes -= waiting.frame.len();
            }
            return;
        }
        let holds = |slot: &&mut Slot| slot.busy == Some(lease) || slot.committed.contains(&lease);
        let Some(slot) = self.slots.iter_mut().find(holds) else { return };
        slot.committed.remove(&lease);
        slot.busy.take_if(|busy| *busy == lease);
        if !slot.stop_fetching(Some(lease)) {
            slot.tell(Order::Cancel { lease, frame });
        }
        self.feed();
    }

    /// Forgets blobs and graphs.
    pub(super) fn forget(&mut self, frame: &Bytes, blobs: &[BlobId], graphs: &[GraphId]) {
        blobs.iter().for_each(|blob| self.frames.remove(Name::Blob(*blob)));
        graphs.iter().for_each(|graph| self.frames.remove(Name::Graph(*graph)));
        for slot in &self.slots {
            slot.tell(Order::Drop { frame: frame.clone(), graphs: graphs.to_vec() });
        }
    }

    /// Hands every task back: those that wait at once, those that run by their workers.
    pub(super) fn pause(&mut self) -> Vec<Vec<u8>> {
        self.is_paused = true;
        self.queued_bytes = 0;
        let queue = std::mem::take(&mut self.queue);
        let mut waiting: Vec<LeaseId> = queue.into_iter().map(|waiting| waiting.lease).collect();
        for slot in self.slots.iter_mut().filter(|slot| slot.busy.is_some()) {
            if slot.stop_fetching(slot.busy) {
                waiting.extend(slot.busy.take());
            } else {
                slot.tell(Order::Abort);
            }
        }
        let back = |lease| refusal(lease, RefuseReason::Stopping, "paused");
        waiting.into_iter().map(back).collect()
    }

    pub(super) fn resume(&mut self) {
        self.is_paused = false;
    }

    /// Forgets a session: its leases, graphs and weights.
    pub(super) fn end_session(&mut self) {
        // The next one is told of a pause anew.
        self.is_paused = false;
        self.queue.clear();
        self.queued_bytes = 0;
        self.frames.end();
        for slot in &mut self.slots {
            slot.committed.clear();
            slot.stop_fetching(slot.busy);
            if let Some(lease) = slot.busy.take() {
                // Ends the task between two of its steps.
                let frame = encode(&ToContributor::Cancel { lease }, &[]).into();
                slot.tell(Order::Cancel { lease, frame });
            }
            slot.tell(Order::Renew);
        }
    }

    /// Takes a worker's word; answers what is to be sent.
    ///
    /// # Errors
    /// [`ContributeError::Crashes`].
    pub(super) fn heard(&mut self, word: Word) -> Result<Option<Vec<u8>>, ContributeError> {
        let Word { worker, lease, said } = word;
        let slot = &mut self.slots[worker];
        let was_busy = slot.busy.take_if(|busy| *busy == lease).is_some();
        // What was cancelled meanwhile, or of an earlier session, is of no use.
        if !was_busy && !slot.committed.contains(&lease) {
            return Ok(None);
        }
        let frame = match said {
            Said::Commit(frame) => {
                slot.committed.insert(lease);
                self.committed += 1;
                frame
            }
            Said::Fetched { frame, came, shards } => {
                // It is still the worker's, unless it was cancelled and came again meanwhile.
                if was_busy && slot.stop_fetching(Some(lease)) {
                    slot.busy = Some(lease);
                    slot.tell(Order::Task { lease, frame, came, shards });
                }
                return Ok(None);
            }
            Said::Projected(frame) => frame,
            Said::Last(frame) => {
                slot.stop_fetching(Some(lease));
                slot.committed.remove(&lease);
                frame
            }
            Said::Broke { detail, refusal } => {
                slot.committed.remove(&lease);
                self.crashed(detail)?;
                refusal
            }
        };
        self.feed();
        Ok(Some(frame))
    }

    fn crashed(&mut self, detail: String) -> Result<(), ContributeError> {
        tracing::warn!(detail, "a kernel broke and is made anew");
        let now = Instant::now();
        self.crashes.push_back(now);
        self.crashes.retain(|crash| now.duration_since(*crash) < CRASH_WINDOW);
        if self.crashes.len() > CRASHES_MAX {
            return Err(ContributeError::Crashes { detail });
        }
        Ok(())
    }

    fn feed(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| slot.busy.is_none()) {
            let Some(Waiting { lease, frame, came, shards }) = self.queue.pop_front() else {
                return;
            };
            self.queued_bytes -= frame.len();
            slot.busy = Some(lease);
            if shards.is_empty() {
                slot.tell(Order::Task { lease, frame, came, shards: Vec::new() });
            } else {
                slot.send_for(Errand { lease, frame, came, shards });
            }
        }
    }
}

impl Slot {
    fn send_for(&self, errand: Errand) {
        *self.fetching.lock().unwrap_or_else(PoisonError::into_inner) = Some(errand.lease);
        if self.errands.try_send(errand).is_err() {
            tracing::warn!("shards do not come; the lease will run out");
        }
    }

    /// Whether this lease's task waited for its shards, which it now does no more.
    fn stop_fetching(&self, lease: Option<LeaseId>) -> bool {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        lease.is_some() && fetching.take_if(|it| Some(*it) == lease).is_some()
    }

    fn tell(&self, order: Order) {
        if self.orders.try_send(order).is_err() {
            tracing::warn!("a worker does not hear; its lease will run out");
        }
    }
}
