//! What time takes away: uploads that were given up, and data sets whose days are over.

use super::{App, Problem, certificates, datasets, partner, proof, uploads};
use crate::store::{BooksError, Removal, UploadId};
use crate::ticket::HELD_MS;
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

/// Removes what has ended by `now`, and moves money that is due. A data set that an open job
/// uses stays until the job has ended. Each step is done whatever became of those before it.
///
/// # Errors
/// Those of the store and the disk: the first one, when all has been tried.
pub async fn sweep(app: &App, now: UnixMs) -> Result<(), Problem> {
    let mut turn = Turn::default();
    turn.note("discard uploads", discard_uploads(app, now).await);
    turn.note("delete data sets", delete_datasets(app, now).await);
    turn.note("count views", app.store.store_views().await);
    turn.note("forget tickets", app.store.forget_tickets(UnixMs(now.0 - HELD_MS)).await);
    turn.note("forget card views", app.store.forget_card_views(now).await.map(drop));
    turn.note("forget sign-ins", app.store.forget_sign_ins(now).await.map(drop));
    turn.note("end withdrawals", app.settlement.expire(now).await);
    turn.note("issue certificates", certificates::issue_waiting(app, None).await);
    turn.note("look at origins", partner::look_again(app, now).await);
    turn.note("collect for wallets", app.store.collect(now).await.map(drop));
    // A wallet may be linked, too.
    turn.note("forward to accounts", app.store.forward(now).await.map(drop));
    turn.note("give to sites", app.store.give_later(now).await.map(drop));
    turn.note("expire what is unclaimed", expire_unclaimed(app, now).await);
    turn.first.map_or(Ok(()), Err)
}

/// What went wrong in one turn.
#[derive(Default)]
struct Turn {
    first: Option<Problem>,
}

impl Turn {
    /// Logs a step's failure and keeps the first one.
    fn note<E: Into<Problem> + std::fmt::Debug>(&mut self, step: &str, done: Result<(), E>) {
        let Err(error) = done else { return };
        tracing::error!(step, ?error, "a step of the upkeep failed; the next turn tries again");
        self.first.get_or_insert(error.into());
    }
}

/// One that cannot be removed keeps no other.
async fn discard_uploads(app: &App, now: UnixMs) -> Result<(), Problem> {
    let mut turn = Turn::default();
    for id in app.store.expired_uploads(now).await? {
        turn.note("discard an upload", uploads::discard(app, id).await);
    }
    turn.first.map_or(Ok(()), Err)
}

async fn delete_datasets(app: &App, now: UnixMs) -> Result<(), Problem> {
    let mut turn = Turn::default();
    for id in app.store.expired_datasets(now).await? {
        let deleted = datasets::delete(app, id).await;
        if let Ok(Removal::Removed { .. }) = deleted {
            tracing::info!(dataset = %id, "a data set's days are over");
        }
        turn.note("delete a data set", deleted.map(drop));
    }
    turn.first.map_or(Ok(()), Err)
}

/// Moves what nobody has claimed to the reserve.
async fn expire_unclaimed(app: &App, now: UnixMs) -> Result<(), BooksError> {
    let expired = app.store.expire_unclaimed(now, app.settings.unclaimed_after_days).await?;
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
