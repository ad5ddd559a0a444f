//! `/v1/uploads`: files that arrive in pieces and go on where they broke off.
//!
//! What is acknowledged is synced and noted first, so that an offset holds
//! across a restart. Bytes of a piece that breaks off count as far as they came.

use super::auth::Owner;
use super::body::JsonBody;
use super::extract::Path;
use super::idempotency::{Once, Turn};
use super::pace::Pace;
use super::{App, Problem};
use crate::random;
use crate::runtime::session::hex;
use crate::store::{UploadBounds, UploadId, UploadRow};
use crate::time::UnixMs;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{self, SeekFrom};
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::sync::{OwnedMutexGuard, watch};

/// Uploads of one key at a time: the files of some data sets.
const UPLOADS_MAX: u64 = 100;
/// An upload is given up this long after its last piece.
const EXPIRY_DAYS: u32 = 1;
/// A piece is noted after so many bytes, so that a crash costs no more of it.
const NOTE_BYTES: u64 = 16 << 20;
const OFFSET: &str = "upload-offset";
const LENGTH: &str = "upload-length";

pub fn routes() -> Router<App> {
    let piece = get(show).patch(append).delete(remove).layer(DefaultBodyLimit::disable());
    Router::new().route("/v1/uploads", post(create).get(list)).route("/v1/uploads/{id}", piece)
}

/// Who writes to which upload. One request at a time does; a newer one takes
/// over, because the older one's client has most likely gone.
#[derive(Clone, Debug, Default)]
pub struct Incoming {
    slots: Arc<Mutex<HashMap<UploadId, Arc<Slot>>>>,
}

#[derive(Debug, Default)]
struct Slot {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Counts the requests that asked for the turn.
    newest: watch::Sender<u64>,
}

/// The right to write to an upload, until a newer request asks for it.
struct Writer {
    _guard: OwnedMutexGuard<()>,
    newest: watch::Receiver<u64>,
    own: u64,
}

impl Incoming {
    async fn take(&self, id: UploadId) -> Writer {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.entry(id).or_default().clone()
        };
        let mut own = 0;
        slot.newest.send_modify(|newest| {
            *newest += 1;
            own = *newest;
        });
        let newest = slot.newest.subscribe();
        Writer { _guard: slot.turn.clone().lock_owned().await, newest, own }
    }

    fn forget(&self, id: UploadId) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

impl Writer {
    /// Resolves once a newer request waits.
    async fn superseded(&mut self) {
        let own = self.own;
        // It fails where the slot is gone with its upload, which is as final.
        let _ = self.newest.wait_for(|newest| *newest != own).await;
    }
}

/// Where an upload's bytes are.
pub fn file(app: &App, id: UploadId) -> PathBuf {
    app.settings.incoming_folder.join(format!("{:016x}", id.0))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UploadSpec {
    bytes: u64,
    #[serde(default)]
    sha256: Option<String>,
}

fn answer(row: &UploadRow) -> Value {
    json!({
        "id": row.id.to_string(),
        "bytes": row.bytes,
        "offset": row.received,
        "complete": row.complete,
        "sha256": row.sha256.map(|hash| hex(&hash)),
        "expires_at": row.expires.rfc3339(),
    })
}

fn with_offset(row: &UploadRow, answer: impl IntoResponse) -> Response {
    let headers = [(OFFSET, row.received.to_string()), (LENGTH, row.bytes.to_string())];
    (headers, [(header::CACHE_CONTROL, "no-store")], answer).into_response()
}

/// The owner's upload of that id's text.
pub async fn find(app: &App, owner: Owner, text: &str) -> Result<UploadRow, Problem> {
    let unknown = || Problem::not_found("no upload of this key has that id, or it has expired");
    let id: UploadId = text.parse().map_err(|()| unknown())?;
    app.store.upload(owner.0, id, UnixMs::now()).await?.ok_or_else(unknown)
}

fn failed(error: io::Error) -> Problem {
    Problem::internal(&error)
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let lower = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    if text.len() != 64 || !text.as_bytes().iter().all(lower) {
        return None;
    }
    let mut hash = [0; 32];
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(hash)
}

async fn create(
    State(app): State<App>,
    owner: Owner,
    once: Once,
    JsonBody(spec, digest): JsonBody<UploadSpec>,
) -> Result<Response, Problem> {
    let claim = match once.begin(&app, owner, digest).await? {
        Turn::Answered(answer) => return Ok(answer),
        Turn::Mine(claim) => claim,
    };
    let limit = app.settings.upload_limits.file_bytes_max;
    if spec.bytes == 0 || spec.bytes > limit {
        let detail = format!("bytes: {} must be 1 to {limit}", spec.bytes);
        let problem = Problem::invalid(detail).with_field("bytes");
        return Err(problem.with_limit(limit, Some(spec.bytes)));
    }
    let sha256 = spec.sha256.as_deref().map(parse_hash);
    let sha256 = match sha256 {
        Some(None) => {
            let detail = "sha256: must be 64 lower-case hexadecimal digits";
            return Err(Problem::invalid(detail).with_field("sha256"));
        }
        given => given.flatten(),
    };
    let row = UploadRow {
        id: UploadId(random::nonzero_u64()),
        bytes: spec.bytes,
        sha256,
        received: 0,
        complete: false,
        expires: UnixMs::now().plus_days(EXPIRY_DAYS),
    };
    let path = file(&app, row.id);
    tokio::task::spawn_blocking(move || create_synced(&path)).await?.map_err(failed)?;
    let answer = answer(&row);
    let remembered = claim.remember(StatusCode::CREATED, &answer);
    let bytes_max = app.settings.dataset_bytes_max;
    let bounds = UploadBounds { count_max: UPLOADS_MAX, bytes_max };
    if let Err(error) = app.store.add_upload(owner.0, &row, bounds, remembered.as_ref()).await {
        // What stays is removed at the next start.
        let _ = tokio::fs::remove_file(file(&app, row.id)).await;
        return Err(error.into());
    }
    let place = [(header::LOCATION, format!("/v1/uploads/{}", row.id))];
    Ok(with_offset(&row, (StatusCode::CREATED, place, Json(answer))))
}

/// Makes an empty file whose name survives a crash.
fn create_synced(path: &FilePath) -> io::Result<()> {
    std::fs::File::create_new(path)?.sync_all()?;
    let folder = path.parent().unwrap_or(FilePath::new("."));
    std::fs::File::open(folder)?.sync_all()
}

async fn list(State(app): State<App>, owner: Owner) -> Result<Json<Value>, Problem> {
    let rows = app.store.uploads(owner.0, UnixMs::now(), UPLOADS_MAX as u32).await?;
    Ok(Json(json!({"uploads": rows.iter().map(answer).collect::<Vec<_>>()})))
}

async fn show(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let row = find(&app, owner, &id).await?;
    Ok(with_offset(&row, Json(answer(&row))))
}

async fn remove(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let row = find(&app, owner, &id).await?;
    discard(&app, row.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends an upload, whoever is writing to it, and removes its bytes.
pub async fn discard(app: &App, id: UploadId) -> Result<(), Problem> {
    let _writer = app.incoming.take(id).await;
    app.store.remove_upload(id).await?;
    app.incoming.forget(id);
    match tokio::fs::remove_file(file(app, id)).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

fn offset_of(headers: &HeaderMap) -> Result<u64, Problem> {
    let text = headers.get(OFFSET).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok()).ok_or_else(|| {
        let detail = "Upload-Offset: a header with the number of the piece's first byte is needed";
        Problem::invalid(detail).with_field("Upload-Offset")
    })
}

async fn append(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let id = find(&app, owner, &id).await?.id;
    let offset = offset_of(&headers)?;
    let _permit = app.uploads.clone().try_acquire_owned().map_err(|_| {
        Problem::unavailable("as many uploads as this coordinator takes are going on")
    })?;
    let mut writer = app.incoming.take(id).await;
    // What an older request left, now that it has let go.
    let mut row = find(&app, owner, &id.to_string()).await?;
    if offset != row.received {
        let detail = format!("the next byte of this upload is number {}", row.received);
        let problem = Problem::conflict(detail).with_field("Upload-Offset");
        return Ok(with_offset(&row, problem.with_found(offset)));
    }
    let outcome = receive(&app, &mut row, &mut writer, body).await;
    if let Err(problem) = outcome {
        return Ok(with_offset(&row, problem));
    }
    if row.received == row.bytes && !row.complete {
        verify(&app, &mut row).await?;
    }
    Ok(with_offset(&row, Json(answer(&row))))
}

/// Writes a piece as far as it comes. `row` says how much is safe, also after an error.
async fn receive(
    app: &App,
    row: &mut UploadRow,
    writer: &mut Writer,
    body: Body,
) -> Result<(), Problem> {
    let mut file =
        tokio::fs::File::options().write(true).open(file(app, row.id)).await.map_err(failed)?;
    // Bytes that were written and never noted.
    file.set_len(row.received).await.map_err(failed)?;
    file.seek(SeekFrom::Start(row.received)).await.map_err(failed)?;
    let mut stream = body.into_data_stream();
    let mut stopping = app.stopping.clone();
    let mut written = row.received;
    let mut pace = Pace::new(&app.settings.upload_limits);
    let outcome = loop {
        let next = tokio::select! {
            next = pace.wait(stream.next()) => next,
            () = writer.superseded() => {
                break Err(Problem::conflict("a newer request goes on with this upload"));
            }
            _ = stopping.wait_for(|stopping| *stopping) => {
                break Err(Problem::unavailable("the coordinator is going down; go on later"));
            }
        };
        let bytes = match next {
            Ok(Some(Ok(bytes))) => bytes,
            Ok(None) => break Ok(()),
            Ok(Some(Err(error))) => break Err(Problem::malformed(error.to_string())),
            Err(too_slow) => break Err(too_slow),
        };
        pace.received(bytes.len());
        if bytes.len() as u64 > row.bytes - written {
            break Err(Problem::too_large(row.bytes));
        }
        file.write_all(&bytes).await.map_err(failed)?;
        written += bytes.len() as u64;
        if written - row.received >= NOTE_BYTES {
            note(app, row, &mut file, written).await?;
        }
    };
    note(app, row, &mut file, written).await?;
    outcome
}

/// Makes bytes durable, then says so.
async fn note(
    app: &App,
    row: &mut UploadRow,
    file: &mut tokio::fs::File,
    written: u64,
) -> Result<(), Problem> {
    file.flush().await.map_err(failed)?;
    file.sync_data().await.map_err(failed)?;
    let complete = written == row.bytes && row.sha256.is_none();
    let expires = UnixMs::now().plus_days(EXPIRY_DAYS);
    app.store.set_received(row.id, written, complete, expires).await?;
    (row.received, row.complete, row.expires) = (written, complete, expires);
    Ok(())
}

/// Compares the whole file with what it must hash to. Bytes that do not are
/// dropped: nobody knows which of them are wrong.
async fn verify(app: &App, row: &mut UploadRow) -> Result<(), Problem> {
    let Some(expected) = row.sha256 else { return Ok(()) };
    let path = file(app, row.id);
    let hash = tokio::task::spawn_blocking(move || {
        let mut digest = Sha256::new();
        let mut file = std::fs::File::open(path)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match io::Read::read(&mut file, &mut buffer)? {
                0 => return io::Result::Ok(<[u8; 32]>::from(digest.finalize())),
                read => digest.update(&buffer[..read]),
            }
        }
    });
    let found = hash.await?.map_err(failed)?;
    let is_right = found == expected;
    row.complete = is_right;
    row.received = if is_right { row.bytes } else { 0 };
    app.store.set_received(row.id, row.received, row.complete, row.expires).await?;
    if is_right {
        return Ok(());
    }
    let detail =
        format!("sha256: the file hashes to {}; send it again from the start", hex(&found));
    Err(Problem::invalid(detail).with_field("sha256"))
}
