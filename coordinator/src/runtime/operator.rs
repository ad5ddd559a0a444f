//! The operator's own node: works on jobs whose fallback calls for it.
//!
//! To the driver it is one more session, with an outbox, leases and commitments
//! like any other; only that its frames cross no socket. It runs the visitors'
//! module, so its results have their bits.

use super::Shared;
use super::bench::Bench;
use super::driver::{Input, Opened, Revealed};
use super::executor::KernelModule;
use super::leases::{Answer, LeaseTable};
use super::outbox::{Ending, Next, Outbox, Waiting};
use super::session::Refusal;
use super::ws::{is_odd, verify};
use crate::blobs::Blobs;
use crate::random;
use crate::runtime::SessionRecord;
use crate::store::StoreError;
use axum::body::Bytes;
use raven_engine::{
    Beneficiary, ContributorId, Event, NetworkPrefix, Oddness, RefusedCategories, SessionProfile,
    Trust,
};
use raven_protocol::{
    Device, DeviceClass, Frame, FrameLimits, FromContributor, GoodbyeReason, NumericClass,
    SessionId,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Name of the random number that is the operator's contributor id.
pub(crate) const IDENTITY: &str = "operator";
/// Speed that is claimed until the first task is measured.
const FLOPS_PER_S: u64 = 5_000_000_000;
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
            beneficiary: Beneficiary::default(),
            prefix: NetworkPrefix([0; 16]),
            device: DeviceClass::Server,
            numeric: NumericClass::Cpu { kernel: shared.kernel },
            flops_per_s: FLOPS_PER_S,
            share: 1.0,
            workers: 1,
            memory_bytes: shared.config.executor_memory_bytes,
            traffic_bytes: None,
            refused: RefusedCategories::default(),
            trust: Trust::default(),
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
        let (module, blobs) = (self.module.clone(), self.blobs.clone());
        let mut bench = Bench::new(module, blobs, self.profile.memory_bytes);
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
            origin: None,
            ticket: None,
            prefix: profile.prefix,
            device,
            numeric: profile.numeric,
            share: profile.share,
            workers: profile.workers,
            refuses: profile.refused.by_visitor,
            // Its operator runs it: there is nobody to ask.
            view: None,
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
                let task = held.task;
                let (digest, values) = verify(&held, bytes).map_err(|refusal| refusal.detail)?;
                let bytes = bytes.len() as u64;
                let odd = if is_odd(&values) { Oddness::NotFinite } else { Oddness::Plain };
                let expected = held.expected;
                let revealed =
                    Revealed { session, lease, task, expected, digest, bytes, values, odd };
                Ok(Some(Input::Revealed(Box::new(revealed))))
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
