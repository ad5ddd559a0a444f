//! Stores what the engine learns of identities, many at a time: each lesson is
//! small, and one that is lost in a crash is learned again.

use crate::store::Store;
use raven_engine::{Identity, Trust};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc;

/// Lessons are gathered for so long.
const EVERY: Duration = Duration::from_millis(500);

/// Serves until the driver is gone.
pub async fn store_trust(store: Store, mut lessons: mpsc::UnboundedReceiver<(Identity, Trust)>) {
    let mut known: HashMap<Identity, Trust> = HashMap::new();
    while let Some((identity, trust)) = lessons.recv().await {
        known.insert(identity, trust);
        if trust != Trust::Excluded {
            tokio::time::sleep(EVERY).await;
        }
        while let Ok((identity, trust)) = lessons.try_recv() {
            known.insert(identity, trust);
        }
        let gathered: Vec<(Identity, Trust)> = known.iter().map(|(&i, &t)| (i, t)).collect();
        match store.set_trust(&gathered).await {
            Ok(()) => known.clear(),
            // They stay known and go with the next.
            Err(error) => tracing::warn!(%error, "what is known of identities was not stored"),
        }
    }
}
