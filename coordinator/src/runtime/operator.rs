//! The operator's own node: works on jobs whose fallback calls for it.
//!
//! To the driver it is one more session, with an outbox, leases and commitments
//! like any other; only that its frames cross no socket. It runs the visitors'
//! module, so its results have their bits.

use super::Shared;
use super::driver::{Input, Opened};
use super::executor::{ExecutorError, Kernel, KernelModule};
use super::leases::{Answer, LeaseTable};
use super::outbox::{Ending, Next, Outbox, Waiting};
use super::session::Refusal;
use super::ws::verify;
use crate::blobs::Blobs;
use crate::random;
use crate::runtime::SessionRecord;
use crate::store::StoreError;
use axum::body::Bytes;
use raven_engine::{ContributorId, Event, NetworkPrefix, SessionProfile};
use raven_protocol::frame::encode;
use raven_protocol::{
    Device, DeviceClass, Frame, FrameLimits, FromContributor, GoodbyeReason, LeaseId, NumericClass,
    RefuseReason, SessionId, ToContributor,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Name of the random number that is the operator's contributor id.
const IDENTITY: &str = "operator";
/// Speed that is claimed until the first task is measured.
const FLOPS_PER_S: u64 = 5_000_000_000;
/// Flops of one step of the module; nothing is done in between.
const STEP_FLOPS: f64 = 1e9;

/// The contributor that the operator's work is credited to: the same over all
/// processes on a data folder, and nobody's session key.
///
/// # Errors
/// [`StoreError`].
pub async fn contributor(store: &crate::store::Store) -> Result<ContributorId, StoreError> {
    store.identity(IDENTITY).await.map(ContributorId)
}

/// The node.
#[derive(Debug)]
pub struct Operator {
    shared: Arc<Shared>,
    module: KernelModule,
    blobs: Blobs,
    outbox: Outbox,
    leases: Arc<Mutex<LeaseTable>>,
    session: SessionId,
    profile: SessionProfile,
}

/// What follows a session of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Another one.
    Again,
    /// Nothing: the coordinator goes down.
    Down,
}

/// Between two sessions: what broke one may break the next.
const BETWEEN_SESSIONS: Duration = Duration::from_secs(1);

/// The module's instance, on the threads that may block.
struct Bench {
    module: KernelModule,
    blobs: Blobs,
    memory_bytes: u64,
    kernel: Option<Kernel>,
}

impl Operator {
    /// A node that has not opened its session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn new(
        shared: Arc<Shared>,
        module: KernelModule,
        blobs: Blobs,
    ) -> Result<Self, StoreError> {
        let profile = SessionProfile {
            contributor: contributor(&shared.store).await?,
            site: None,
            prefix: NetworkPrefix([0; 16]),
            device: DeviceClass::Server,
            numeric: NumericClass::Cpu { kernel: shared.kernel },
            flops_per_s: FLOPS_PER_S,
            share: 1.0,
            workers: 1,
            memory_bytes: shared.config.executor_memory_bytes,
            traffic_bytes: None,
            operator: true,
        };
        let session = SessionId(random::nonzero_u64());
        let (outbox, leases) = (Outbox::default(), Arc::default());
        Ok(Operator { shared, module, blobs, outbox, leases, session, profile })
    }

    /// Serves until the coordinator goes down. A session that ends otherwise is
    /// followed by another: jobs may have been admitted because the node is there.
    pub async fn run(mut self) {
        while self.serve().await == After::Again {
            tokio::time::sleep(BETWEEN_SESSIONS).await;
            self.session = SessionId(random::nonzero_u64());
            (self.outbox, self.leases) = (Outbox::default(), Arc::default());
        }
    }

    /// Serves for one session.
    async fn serve(&self) -> After {
        if let Err(error) = self.store_session().await {
            tracing::error!(%error, "the operator's node has no session");
            return if self.shared.inputs.is_closed() { After::Down } else { After::Again };
        }
        let opened = Opened {
            session: self.session,
            profile: self.profile.clone(),
            outbox: self.outbox.clone(),
            leases: self.leases.clone(),
            // It reads shards from the disk.
            grant: String::new(),
            // Nothing crosses a network.
            traffic: Arc::default(),
        };
        if !self.tell(Input::Opened(Box::new(opened))).await {
            return After::Down;
        }
        let after = self.work().await;
        let session = self.session;
        let told = self.tell(Input::Event(Event::SessionClosed { session })).await;
        if let Err(error) = self.shared.store.session_closed(session, None).await {
            tracing::debug!(%error, "the operator's session was not closed in the store");
        }
        if told { after } else { After::Down }
    }

    /// Takes frames for as long as the session is open.
    async fn work(&self) -> After {
        let mut bench = Bench {
            module: self.module.clone(),
            blobs: self.blobs.clone(),
            memory_bytes: self.profile.memory_bytes,
            kernel: None,
        };
        loop {
            let waiting = match self.outbox.next().await {
                Next::Frame(waiting) => waiting,
                Next::End(Ending::Goodbye(Refusal { reason, detail }))
                    if reason != GoodbyeReason::Draining =>
                {
                    tracing::error!(?reason, detail, "the operator's node was sent away");
                    return After::Again;
                }
                Next::End(_) => return After::Down,
            };
            let bytes = waiting.bytes();
            let turn = tokio::task::spawn_blocking(move || {
                let frame = match waiting {
                    Waiting::Ready(frame) => Some(frame),
                    Waiting::Deferred { build, .. } => build(),
                };
                // Whoever could not make it has said so; the lease runs out.
                let replies = frame.map(|frame| bench.take(&frame)).unwrap_or_default();
                (bench, replies)
            });
            let Ok((back, replies)) = turn.await else {
                tracing::error!("the operator's node panicked; it begins anew");
                return After::Again;
            };
            bench = back;
            self.outbox.written(bytes);
            for reply in replies {
                if !self.answer(reply).await {
                    return After::Down;
                }
            }
        }
    }

    async fn store_session(&self) -> Result<(), StoreError> {
        let profile = &self.profile;
        let device = Device {
            class: profile.device,
            cores: 1,
            memory_bytes: profile.memory_bytes,
            flops_per_s: profile.flops_per_s,
        };
        let record = SessionRecord {
            session: self.session,
            contributor: profile.contributor,
            site: None,
            prefix: profile.prefix,
            device,
            numeric: profile.numeric,
            share: profile.share,
            workers: profile.workers,
            // Its operator runs it: there is nobody to ask.
            receipt: String::new(),
            signature: String::new(),
        };
        self.shared.store.session_opened(&record).await
    }

    /// Whether the driver is still there.
    async fn tell(&self, input: Input) -> bool {
        self.shared.inputs.send(input).await.is_ok()
    }

    /// Passes on what the module said; false where the driver is gone.
    async fn answer(&self, reply: Vec<u8>) -> bool {
        let bytes = Bytes::from(reply);
        match self.event(&bytes) {
            Ok(Some(input)) => self.tell(input).await,
            // The lease has ended in the meantime.
            Ok(None) => true,
            Err(reason) => {
                tracing::error!(reason, "the operator's node said something out of turn");
                true
            }
        }
    }

    fn event(&self, bytes: &Bytes) -> Result<Option<Input>, String> {
        let session = self.session;
        let limits = FrameLimits::TO_COORDINATOR;
        let frame = Frame::decode(bytes, &limits).map_err(|error| error.to_string())?;
        let message = FromContributor::from_header(frame.header());
        match message.map_err(|error| error.to_string())? {
            FromContributor::Commit { lease, digest, .. } => {
                let answer = lock(&self.leases).commit(lease).map_err(|e| e.to_string())?;
                let event = Event::Committed { session, lease, digest };
                Ok(matches!(answer, Answer::Taken(_)).then_some(Input::Event(event)))
            }
            FromContributor::Result { lease } => {
                let answer = lock(&self.leases).result(lease).map_err(|e| e.to_string())?;
                let Answer::Taken(held) = answer else { return Ok(None) };
                let (digest, values) = verify(&held, bytes).map_err(|refusal| refusal.detail)?;
                let bytes = bytes.len() as u64;
                Ok(Some(Input::Revealed { session, lease, digest, bytes, values }))
            }
            FromContributor::Refuse { lease, reason, detail } => {
                let answer = lock(&self.leases).refuse(lease).map_err(|e| e.to_string())?;
                let Answer::Taken(held) = answer else { return Ok(None) };
                tracing::info!(task = %held.task, ?reason, detail, "the operator's node refuses");
                Ok(Some(Input::Event(Event::Refused { session, lease, reason })))
            }
            other => Err(format!("{other:?}")),
        }
    }
}

fn lock(leases: &Mutex<LeaseTable>) -> MutexGuard<'_, LeaseTable> {
    leases.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bench {
    /// Takes one frame; answers what is to be sent back. An instance that broke
    /// is replaced, and its lease handed back.
    fn take(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
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
