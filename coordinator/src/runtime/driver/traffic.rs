//! Visits whose traffic is limited.

use super::Driver;
use raven_engine::Event;
use raven_protocol::{GoodbyeReason, SessionId};

/// With less than this left a visit for which there is no work now ends: work
/// that fits is not likely to come.
const LITTLE_BYTES: u64 = 1 << 20;

impl Driver {
    /// Whether a frame may still be sent. Where it may not, the session gets no
    /// more work; the task that the frame was for is taken back when it comes.
    pub(super) fn fits(&mut self, session: SessionId, frame_bytes: usize) -> bool {
        let fits = self.links.get_mut(&session).is_some_and(|link| link.fits(frame_bytes, &[], 0));
        if !fits {
            self.cap(session);
        }
        fits
    }

    pub(super) fn cap(&mut self, session: SessionId) {
        self.capped.insert(session);
        self.own_events.push_back(Event::Paused { session });
    }

    /// Takes leave of the sessions that have moved what they may and owe nothing.
    pub(super) fn release_capped(&mut self) {
        let links = &self.links;
        self.capped.retain(|session| match links.get(session) {
            Some(link) if link.is_spent() => {
                let detail = "no more work fits into what this visit may move";
                link.close(GoodbyeReason::TrafficCap, detail);
                false
            }
            Some(_) => true,
            None => false,
        });
    }

    /// Tells the engine what each visit may still move, and ends those that are
    /// nearly at their cap and have no work.
    pub(super) fn note_traffic(&mut self) {
        let told = self.links.iter_mut().filter_map(|(&session, link)| {
            Some(Event::TrafficLeft { session, bytes: link.traffic_news()? })
        });
        let told: Vec<Event> = told.collect();
        told.into_iter().for_each(|event| self.tell(event));
        let little = self.links.iter().filter(|(_, link)| link.has_less_than(LITTLE_BYTES));
        let little: Vec<SessionId> = little.map(|(&session, _)| session).collect();
        for session in little {
            if !self.capped.contains(&session) && self.engine.is_spent(session) {
                if let Some(link) = self.links.get_mut(&session) {
                    link.cap();
                }
                self.cap(session);
            }
        }
        self.release_capped();
    }
}
