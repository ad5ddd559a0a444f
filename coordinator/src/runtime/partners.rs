//! Open sessions by the site through which they came, and what becomes of them where
//! the site's owner changes something: a switch that is thrown takes effect without a
//! visitor loading the page again.

use super::Shared;
use super::driver::Input;
use super::outbox::{Ending, Outbox};
use super::session::Refusal;
use crate::store::SiteRow;
use raven_engine::{CategorySet, Event, SiteId};
use raven_protocol::{GoodbyeReason, SessionId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// One session of a site's visitor.
#[derive(Clone, Debug)]
pub struct Visitor {
    pub outbox: Outbox,
    /// The page's origin, as far as it is known.
    pub origin: Option<String>,
    /// What its card did not offer, so that its yes is to none of it, whatever the site
    /// takes by now.
    pub hidden: CategorySet,
    /// What the engine was told that the site refuses, with that.
    pub refuses: CategorySet,
}

/// Everybody who came through a site and is there.
#[derive(Debug, Default)]
pub struct Visitors(Mutex<HashMap<SiteId, HashMap<SessionId, Visitor>>>);

impl Visitors {
    fn lock(&self) -> MutexGuard<'_, HashMap<SiteId, HashMap<SessionId, Visitor>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session has opened.
    pub fn enter(&self, site: SiteId, session: SessionId, visitor: Visitor) {
        self.lock().entry(site).or_default().insert(session, visitor);
    }

    /// It has ended.
    pub fn leave(&self, site: SiteId, session: SessionId) {
        let mut sites = self.lock();
        if let Some(sessions) = sites.get_mut(&site) {
            sessions.remove(&session);
            if sessions.is_empty() {
                sites.remove(&site);
            }
        }
    }

    fn sites(&self) -> Vec<SiteId> {
        self.lock().keys().copied().collect()
    }

    /// Ends the sessions that the site does not have any more; answers those that
    /// are to be told what it refuses now.
    fn look(&self, id: SiteId, row: Option<&SiteRow>) -> Vec<(SessionId, CategorySet)> {
        let mut sites = self.lock();
        let sessions = sites.get_mut(&id).into_iter().flatten();
        let mut told = Vec::new();
        for (session, visitor) in sessions {
            match row.map(|row| stays(row, visitor)) {
                Some(Ok(())) => {}
                Some(Err(why)) => visitor.outbox.end(goodbye(why)),
                None => visitor.outbox.end(goodbye("the site is not known any more")),
            }
            let Some(row) = row else { continue };
            let refuses = row.refused().union(visitor.hidden);
            if refuses != visitor.refuses {
                visitor.refuses = refuses;
                told.push((*session, refuses));
            }
        }
        told
    }
}

fn stays(row: &SiteRow, visitor: &Visitor) -> Result<(), &'static str> {
    if row.revoked {
        return Err("the site is revoked");
    }
    if row.paused {
        return Err("the site's owner has paused it");
    }
    match &visitor.origin {
        Some(origin) if !row.origins.contains(origin) => Err("the page is not the site's any more"),
        _ => Ok(()),
    }
}

fn goodbye(why: &str) -> Ending {
    Ending::Goodbye(Refusal::new(GoodbyeReason::BadTicket, format!("ticket: {why}")))
}

/// Looks at the sites of open sessions now and then, until the coordinator stops.
pub async fn watch_sites(shared: Arc<Shared>, mut stopping: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(shared.config.site_look) => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        for site in shared.visitors.sites() {
            let row = match shared.store.site(site).await {
                Ok(row) => row,
                Err(error) => {
                    tracing::warn!(%error, "a site was not looked at");
                    continue;
                }
            };
            for (session, categories) in shared.visitors.look(site, row.as_ref()) {
                let event = Event::SiteRefuses { session, categories };
                // Where the driver is gone the coordinator is going down.
                let _ = shared.inputs.send(Input::Event(event)).await;
            }
        }
    }
}
