//! A session that is stored and holds a grant, and its end.

use super::Shared;
use super::driver::Input;
use super::partners::Visitor;
use super::session::hex;
use crate::random;
use raven_engine::{Event, SiteId};
use raven_protocol::{GoodbyeReason, SessionId};
use std::sync::Arc;

/// A session between its record in the store and its end. Whichever way its
/// socket's task ends, by an early disconnection or a panic too, the grant goes,
/// the engine forgets the session and the record is closed.
#[derive(Debug)]
pub struct OpenSession {
    shared: Arc<Shared>,
    session: SessionId,
    grant: String,
    /// The site through which it came, once it is among that site's visitors.
    site: Option<SiteId>,
    is_closed: bool,
}

impl OpenSession {
    /// Issues a grant to a session that has just been stored.
    pub fn new(shared: Arc<Shared>, session: SessionId) -> Self {
        let grant = hex(&random::bytes::<16>());
        shared.grants.issue(&grant, session);
        OpenSession { shared, session, grant, site: None, is_closed: false }
    }

    /// Its token for data shards.
    pub fn grant(&self) -> &str {
        &self.grant
    }

    /// Enters it among its site's visitors.
    pub fn visit(&mut self, site: SiteId, visitor: Visitor) {
        self.shared.visitors.enter(site, self.session, visitor);
        self.site = Some(site);
    }

    /// Takes back what an open session has: its grant, and its place at its site.
    fn withdraw(&self) {
        self.shared.grants.revoke(&self.grant);
        if let Some(site) = self.site {
            self.shared.visitors.leave(site, self.session);
        }
    }

    /// Ends it; resolves once its end is stored.
    pub async fn close(mut self, reason: Option<GoodbyeReason>) {
        self.withdraw();
        end(&self.shared, self.session, reason).await;
        self.is_closed = true;
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        if self.is_closed {
            return;
        }
        self.withdraw();
        let (shared, session) = (self.shared.clone(), self.session);
        // Outside of a runtime the process is ending, and the next one closes the record.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { end(&shared, session, None).await });
        }
    }
}

/// Tells the engine, which takes no notice of a session that it never knew, and the store.
async fn end(shared: &Shared, session: SessionId, reason: Option<GoodbyeReason>) {
    // Where the driver is gone the coordinator is going down.
    let _ = shared.inputs.send(Input::Event(Event::SessionClosed { session })).await;
    if let Err(error) = shared.store.session_closed(session, reason).await {
        tracing::error!(%session, %error, "a session's end was not stored");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::door::Door;
    use crate::runtime::grants::Grants;
    use crate::runtime::{Metrics, RuntimeConfig, SessionRecord};
    use crate::store::Store;
    use crate::ticket::Tickets;
    use raven_engine::{ContributorId, NetworkPrefix};
    use raven_protocol::{BlobId, Device, DeviceClass, KernelId, NumericClass};
    use std::time::Duration;
    use tokio::sync::{Semaphore, mpsc};

    const KERNEL: KernelId = KernelId([7; 32]);

    async fn shared(store: Store) -> (Arc<Shared>, mpsc::Receiver<Input>) {
        let config = RuntimeConfig::new("kernel".into(), Vec::new(), "1".into());
        let (inputs, received) = mpsc::channel(4);
        let shared = Shared {
            kernel: KERNEL,
            slots: Arc::new(Semaphore::new(config.sessions_max)),
            door: Door::new(&config),
            config,
            tickets: Tickets::new(store.clone()).await.expect("tickets"),
            store,
            metrics: Arc::new(Metrics::default()),
            grants: Grants::default(),
            visits: Default::default(),
            visitors: Default::default(),
            checks: Default::default(),
            inputs,
        };
        (Arc::new(shared), received)
    }

    fn record(session: SessionId) -> SessionRecord {
        SessionRecord {
            session,
            contributor: ContributorId([1; 32]),
            site: None,
            origin: None,
            ticket: None,
            prefix: NetworkPrefix([0; 16]),
            device: Device {
                class: DeviceClass::Desktop,
                cores: 1,
                memory_bytes: 1,
                flops_per_s: 1,
            },
            numeric: NumericClass::Cpu { kernel: KERNEL },
            share: 1.0,
            workers: 1,
            refuses: raven_engine::CategorySet::EMPTY,
            view: None,
            receipt: "{}".into(),
            signature: String::new(),
        }
    }

    #[tokio::test]
    async fn a_session_that_is_dropped_half_open_leaves_no_grant_and_no_open_record() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("raven.db")).await.expect("a store");
        let (shared, mut inputs) = shared(store.clone()).await;
        let (session, shard) = (SessionId(5), BlobId([1; 32]));
        store.session_opened(&record(session)).await.expect("stored");
        let open = OpenSession::new(shared.clone(), session);
        let grant = open.grant().to_owned();
        shared.grants.allow(&grant, [shard].into_iter());
        assert!(shared.grants.allows(&grant, shard));
        assert_eq!(store.session_end(session).await.expect("reads"), None);

        drop(open);
        assert!(!shared.grants.allows(&grant, shard));
        let told = tokio::time::timeout(Duration::from_secs(5), inputs.recv()).await;
        let Ok(Some(Input::Event(Event::SessionClosed { session: closed }))) = told else {
            panic!("the engine was told {told:?}");
        };
        assert_eq!(closed, session);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while store.session_end(session).await.expect("reads").is_none() {
            assert!(tokio::time::Instant::now() < deadline, "the record stays open");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_session_that_is_closed_is_closed_once_with_its_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("raven.db")).await.expect("a store");
        let (shared, mut inputs) = shared(store.clone()).await;
        let session = SessionId(6);
        store.session_opened(&record(session)).await.expect("stored");
        OpenSession::new(shared, session).close(Some(GoodbyeReason::TooSlow)).await;
        let end = store.session_end(session).await.expect("reads").expect("closed");
        assert_eq!(end.1.as_deref(), Some("too_slow"));
        assert!(inputs.try_recv().is_ok() && inputs.try_recv().is_err(), "told once");
    }
}
