//! Files that are served as they are, held in memory with a packed copy.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::{self, Write};
use std::path::Path;

/// Files at least this long are worth packing.
const PACK_BYTES_MIN: usize = 1024;
/// A module of a few megabytes is the largest file; a folder of others is a mistake.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// One file.
#[derive(Clone, Debug)]
pub struct StaticFile {
    pub content_type: &'static str,
    pub bytes: Bytes,
    packed: Option<Bytes>,
}

impl StaticFile {
    /// Reads a file and packs it.
    ///
    /// # Errors
    /// Those of reading; also for a file that is far too long.
    pub fn read(path: &Path) -> io::Result<Self> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if std::fs::metadata(path).map_err(named)?.len() > FILE_BYTES_MAX {
            return Err(named(io::Error::other("too long to be served from memory")));
        }
        let bytes = std::fs::read(path).map_err(named)?;
        StaticFile::new(content_type(path), bytes)
    }

    /// Packs a file's bytes.
    ///
    /// # Errors
    /// None in practice: packing writes to memory.
    pub fn new(content_type: &'static str, bytes: Vec<u8>) -> io::Result<Self> {
        let mut packed = None;
        if bytes.len() >= PACK_BYTES_MIN {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(&bytes)?;
            let smaller = encoder.finish()?;
            packed = (smaller.len() < bytes.len()).then(|| Bytes::from(smaller));
        }
        Ok(StaticFile { content_type, bytes: Bytes::from(bytes), packed })
    }

    /// The file as an answer, packed where the client takes that.
    pub fn response(&self, request: &HeaderMap) -> Response {
        let mut response = match &self.packed {
            Some(packed) if takes_gzip(request) => {
                let mut response = packed.clone().into_response();
                let gzip = HeaderValue::from_static("gzip");
                response.headers_mut().insert(header::CONTENT_ENCODING, gzip);
                response
            }
            _ => self.bytes.clone().into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        response
    }
}

fn takes_gzip(request: &HeaderMap) -> bool {
    let accepted = request.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|accepted| {
        accepted.split(',').any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            parts.next() == Some("gzip") && parts.next() != Some("q=0")
        })
    })
}

fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json" | "map") => "application/json",
        Some("wasm") => "application/wasm",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// All files below a folder by their path with `/`, hidden ones left out.
///
/// # Errors
/// Those of reading.
pub fn read_folder(root: &Path) -> io::Result<Vec<(String, StaticFile)>> {
    let mut found = Vec::new();
    let mut folders = vec![(root.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') {
                continue;
            }
            let path = format!("{prefix}{name}");
            if entry.file_type()?.is_dir() {
                folders.push((entry.path(), format!("{path}/")));
            } else {
                found.push((path, StaticFile::read(&entry.path())?));
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}
