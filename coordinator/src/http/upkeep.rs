//! What time takes away: uploads that were given up, and data sets whose days are over.

use super::{App, Problem, certificates, datasets, partner, proof, uploads};
use crate::store::{Removal, UploadId};
use crate::ticket::TICKET_MS;
use crate::time::UnixMs;
use std::collections::HashSet;
use std::time::Duration;

/// Ends are days away; a minute more is nothing.
const EVERY: Duration = Duration::from_secs(60);

/// Sweeps now and then until the process is asked to end.
pub async fn run(app: App) {
    let mut stopping = app.stopping.clone();
    loop {
        // The log has the cause of a failure; the next turn tries again.
        let _ = sweep(&app, UnixMs::now()).await;
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
    }
}

/// Removes what has ended by `now`. A data set that an open job uses stays
/// until the job has ended.
///
/// # Errors
/// Those of the store and the disk.
pub async fn sweep(app: &App, now: UnixMs) -> Result<(), Problem> {
    for id in app.store.expired_uploads(now).await? {
        uploads::discard(app, id).await?;
    }
    for id in app.store.expired_datasets(now).await? {
        if let Removal::Removed { .. } = datasets::delete(app, id).await? {
            tracing::info!(dataset = %id, "a data set's days are over");
        }
    }
    app.store.store_views().await?;
    app.store.forget_tickets(UnixMs(now.0 - 2 * TICKET_MS)).await?;
    app.store.forget_card_views(now).await?;
    app.store.forget_sign_ins(now).await?;
    app.settlement.expire(now).await?;
    certificates::issue_waiting(app, None).await?;
    partner::look_again(app, now).await?;
    move_earnings(app, now).await
}

/// Moves what wallets collect to them, what is linked to accounts to those, and what nobody has claimed to the reserve.
async fn move_earnings(app: &App, now: UnixMs) -> Result<(), Problem> {
    app.store.collect(now).await.map_err(|error| Problem::internal(&error))?;
    // A wallet may be linked, too.
    app.store.forward(now).await.map_err(|error| Problem::internal(&error))?;
    let days = app.settings.unclaimed_after_days;
    let expired = app.store.expire_unclaimed(now, days).await;
    let expired = expired.map_err(|error| Problem::internal(&error))?;
    if expired > 0 {
        tracing::info!(expired, "accounts whose earnings nobody has claimed");
    }
    Ok(())
}

/// Removes files that no upload refers to, and evidence that was to go. Called before requests are answered.
///
/// # Errors
/// Those of the store and the disk.
pub async fn remove_strays(app: &App) -> Result<(), Problem> {
    proof::remove_evidence(app).await?;
    let present = app.store.present_uploads(UnixMs(i64::MIN)).await?;
    let present: HashSet<UploadId> = present.into_iter().collect();
    let failed = |error: std::io::Error| Problem::internal(&error);
    let mut folder = tokio::fs::read_dir(&app.settings.incoming_folder).await.map_err(failed)?;
    while let Some(file) = folder.next_entry().await.map_err(failed)? {
        let name = file.file_name();
        let id = name.to_str().and_then(|name| u64::from_str_radix(name, 16).ok()).map(UploadId);
        if !id.is_some_and(|id| present.contains(&id)) {
            tokio::fs::remove_file(file.path()).await.map_err(failed)?;
        }
    }
    Ok(())
}
