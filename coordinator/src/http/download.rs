//! Files that are sent piece by piece: whatever their size, little of one is in memory.

use super::Problem;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, Take};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::timeout;

/// Files on their way at a time: each is open and holds some pieces.
static DOWNLOADS: Semaphore = Semaphore::const_new(8);
/// Bytes of a piece: some reads of the disk, some packets of the network.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that wait for their reader.
const PIECES_MAX: usize = 2;
/// A reader that takes nothing for so long has gone.
const STALLED: Duration = Duration::from_secs(60);

/// Answers a file under a name of its own; `None` where there is none.
///
/// # Errors
/// [`Problem`]: 503 where as many as may be are on their way, 500 where the disk fails.
pub async fn attachment(path: &Path, name: &str) -> Result<Option<Response>, Problem> {
    let permit = DOWNLOADS.try_acquire().map_err(|_| {
        let detail = "other files are being sent; ask again later";
        Problem::unavailable(detail).with_retry_after(STALLED.as_secs())
    })?;
    let file = match File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Problem::internal(&error)),
    };
    let metadata = file.metadata().await.map_err(|error| Problem::internal(&error))?;
    let bytes = metadata.len();
    let (out, pieces) = mpsc::channel(PIECES_MAX);
    tokio::spawn(send(file.take(bytes), out, STALLED, permit));
    let stream = unfold(pieces, |mut pieces| async { Some((pieces.recv().await?, pieces)) });
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, bytes.to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    Ok(Some((headers, Body::from_stream(stream)).into_response()))
}

/// Sends a file to its end, to a reader that goes, or to one that stalls.
async fn send(
    mut file: Take<File>,
    out: mpsc::Sender<io::Result<Bytes>>,
    stalled: Duration,
    _permit: SemaphorePermit<'static>,
) {
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece).await;
        let piece = match read {
            Ok(0) => return,
            Ok(_) => Ok(piece.into()),
            Err(error) => Err(error),
        };
        let is_last = piece.is_err();
        // A connection that breaks here is not taken for the whole file: its length was told.
        if !matches!(timeout(stalled, out.send(piece)).await, Ok(Ok(()))) || is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("written");
        file
    }

    #[tokio::test]
    async fn a_file_comes_whole_in_small_pieces() {
        let bytes: Vec<u8> = (0..3 * PIECE_BYTES + 17).map(|i| (i % 251) as u8).collect();
        let file = file(&bytes);
        let answer = attachment(file.path(), "x.evidence").await.expect("sent").expect("there");
        assert_eq!(answer.headers()[header::CONTENT_LENGTH], bytes.len().to_string());
        let mut stream = answer.into_body().into_data_stream();
        let mut found = Vec::new();
        while let Some(piece) = stream.next().await {
            let piece = piece.expect("a piece");
            assert!(piece.len() <= PIECE_BYTES, "{} bytes at once", piece.len());
            found.extend_from_slice(&piece);
        }
        assert!(found == bytes);
        assert!(attachment(Path::new("/nonexistent"), "x").await.expect("asked").is_none());
    }

    #[tokio::test]
    async fn who_does_not_read_on_holds_a_file_for_a_while_only() {
        let file = file(&vec![1; (PIECES_MAX + 2) * PIECE_BYTES]);
        let open = File::open(file.path()).await.expect("open");
        let (out, mut pieces) = mpsc::channel(PIECES_MAX);
        let permit = DOWNLOADS.acquire().await.expect("never closed");
        send(open.take(u64::MAX), out, Duration::from_millis(20), permit).await;
        let mut left = 0;
        while pieces.recv().await.is_some() {
            left += 1;
        }
        assert_eq!(left, PIECES_MAX, "no more than waits was read");
    }
}
