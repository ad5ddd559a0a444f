//! The HTTP API. One file for each group of routes; `API.md` is the page for
//! those who call it.

mod account;
mod accounts;
mod auth;
mod blobs;
mod body;
mod card;
mod ceremony;
mod certificates;
mod challenge;
mod consents;
mod contributor_books;
mod contributors;
mod datasets;
mod download;
mod earnings;
mod embed;
mod events;
mod extract;
mod gifts;
mod headers;
mod health;
mod idempotency;
mod jobs;
mod keys;
mod links;
mod model;
mod money;
mod network;
mod pace;
mod partner;
mod passkeys;
mod payouts;
mod problem;
mod proof;
mod quotes;
mod recover;
mod sign_up;
mod sites;
mod spending;
mod streams;
mod token_rate;
mod top_up;
pub mod upkeep;
mod uploads;
mod withdrawals;
mod work_tokens;
mod www;

pub use auth::bearer;
pub use challenge::Challenges;
pub use idempotency::Turns;
pub use network::StatsCache;
pub use problem::Problem;
pub use streams::Streams;
pub use uploads::Incoming;

use crate::blobs::Blobs;
use crate::config::AdminToken;
use crate::dataset::UploadLimits;
use crate::embed::Embed;
use crate::health::Trouble;
use crate::mail::Mailer;
use crate::network::Network;
use crate::settlement::Settlement;
use crate::store::Store;
use crate::ticket::Tickets;
use crate::verify::Verifier;
use crate::www::Www;
use axum::Router;
use axum::http::{Method, StatusCode};
use raven_engine::Rates;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tower_http::trace::TraceLayer;

/// What every handler may use. Clones share it.
#[derive(Clone, Debug)]
pub struct App {
    pub store: Store,
    pub blobs: Blobs,
    pub tickets: Tickets,
    /// How money comes in and goes out.
    pub settlement: Arc<dyn Settlement>,
    pub network: Arc<dyn Network>,
    pub settings: Arc<Settings>,
    pub embed: Arc<Embed>,
    pub www: Arc<Www>,
    /// Spaces out the looks at partner pages.
    pub verifier: Arc<Verifier>,
    /// One upload is read at a time: it keeps a core and the disk busy, and a
    /// failed one may then remove its blobs without taking another's.
    pub ingestion: Arc<tokio::sync::Mutex<()>>,
    /// Permits for uploads that are being received.
    pub uploads: Arc<Semaphore>,
    /// Who writes to which resumable upload.
    pub incoming: Incoming,
    /// Open event streams.
    pub streams: Streams,
    /// Who is at work under which `Idempotency-Key`.
    pub turns: Turns,
    /// The last answer of `/v1/stats`.
    pub stats: StatsCache,
    /// What contributors were asked to sign.
    pub challenges: Challenges,
    /// Set when the process is asked to end: long answers end too.
    pub stopping: tokio::sync::watch::Receiver<bool>,
}

/// What a deployment chooses.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Origin under which browsers reach this coordinator, e.g. `http://127.0.0.1:8080`.
    pub origin: String,
    /// Folder for uploads on their way in.
    pub upload_folder: PathBuf,
    /// Folder for resumable uploads, kept across restarts; on the disk of `upload_folder`.
    pub incoming_folder: PathBuf,
    pub upload_limits: UploadLimits,
    /// Jobs of one key that have not ended.
    pub open_jobs_max: u64,
    /// Bytes of one key's data sets.
    pub dataset_bytes_max: u64,
    /// Sites of one key.
    pub sites_max: u64,
    /// At which the work of new jobs is paid.
    pub rates: Rates,
    /// Whether jobs may call for the coordinator's own node.
    pub operator: bool,
    /// Whether every contributor is known to the operator, so that jobs may leave their
    /// results unchecked.
    pub private_pool: bool,
    /// What operators send for `/metrics`; anyone may read it where there is none.
    pub admin_token: Option<AdminToken>,
    /// Bytes of all blobs beyond which no upload is taken.
    pub blob_bytes_max: Option<u64>,
    /// Bytes that uploads leave free on the disk.
    pub disk_free_bytes_min: u64,
    /// Folder of the evidence of false results.
    pub evidence_folder: PathBuf,
    /// Days after which earnings of a contributor that was not seen are nobody's.
    pub unclaimed_after_days: u32,
    pub accounts: AccountSettings,
}

/// What a deployment chooses of accounts.
#[derive(Clone, Debug)]
pub struct AccountSettings {
    /// Open sub-accounts of one account.
    pub children_max: u64,
    /// Who brings links to people; without it they cannot sign up by themselves.
    pub mailer: Option<Arc<dyn Mailer>>,
    /// Whether whoever has a passkey may make one.
    pub passkeys: bool,
}

/// Sub-accounts of one account, unless the operator chose otherwise: each may have as
/// many jobs and data sets as any account.
pub const CHILDREN_MAX: u64 = 100;

impl Default for AccountSettings {
    fn default() -> Self {
        AccountSettings { children_max: CHILDREN_MAX, mailer: None, passkeys: false }
    }
}

impl App {
    /// Whether there is room for another upload.
    ///
    /// # Errors
    /// A problem that says what is full.
    pub fn room(&self) -> Result<(), Problem> {
        if let Some(trouble) = self.store.health().trouble() {
            return Err(Problem::storage(trouble));
        }
        let used = self.blobs.used();
        if let Some(limit) = self.settings.blob_bytes_max.filter(|limit| used >= *limit) {
            return Err(Problem::full("bytes of blobs").with_limit(limit, Some(used)));
        }
        let free = self.blobs.disk_free().map_err(|error| Problem::internal(&error))?;
        if free < self.settings.disk_free_bytes_min {
            return Err(Problem::storage(Trouble::StorageFull));
        }
        Ok(())
    }
}

/// All routes but `/v1/contribute`, which the runtime brings.
pub fn router(app: App) -> Router {
    let routes = Router::new()
        .merge(datasets::routes(&app.settings.upload_limits))
        .merge(uploads::routes())
        .merge(jobs::routes())
        .merge(top_up::routes())
        .merge(quotes::routes())
        .merge(events::routes())
        .merge(model::routes())
        .merge(proof::routes())
        .merge(certificates::routes())
        .merge(account::routes())
        .merge(contributors::routes())
        .merge(payouts::routes())
        .merge(contributor_books::routes())
        .merge(consents::routes())
        .merge(links::routes())
        .merge(gifts::routes())
        .merge(accounts::routes())
        .merge(keys::routes())
        .merge(recover::routes())
        .merge(sign_up::routes())
        .merge(passkeys::routes())
        .merge(sites::routes())
        .merge(partner::routes())
        .merge(earnings::routes())
        .merge(work_tokens::routes())
        .merge(withdrawals::routes())
        .merge(spending::routes())
        .merge(token_rate::routes())
        .merge(network::routes())
        .merge(blobs::routes())
        .merge(health::routes())
        .layer(axum::middleware::from_fn(headers::api))
        .merge(embed::routes())
        .merge(card::routes())
        .merge(www::routes())
        .fallback(www::file_or_nothing)
        .method_not_allowed_fallback(no_method)
        .layer(axum::middleware::from_fn(headers::every))
        .layer(TraceLayer::new_for_http());
    routes.with_state(app)
}

async fn no_method(method: Method) -> Problem {
    let detail = format!("this route does not take {method}");
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Problem::new(status, "method-not-allowed", "Method not allowed", detail)
}
