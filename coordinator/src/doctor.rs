//! `coordinator doctor`: looks at an installation and says what is wrong with
//! it. It changes nothing, and works beside a running coordinator.

use crate::blobs::{BlobError, Blobs};
use crate::certificate::CertificateKey;
use crate::config::Serve;
use crate::embed::Embed;
use crate::process::raise_open_files;
use crate::serve::store_file;
use crate::signing::SigningKeys;
use crate::store::{Inspection, inspect};
use crate::ticket::signing_folder;
use crate::time::UnixMs;
use crate::www::Www;
use raven_protocol::KernelId;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Blobs that are read and hashed: a sample, spread over all of them.
const BLOBS_READ_MAX: usize = 200;
/// A clock before this was never set: 2026-01-01.
const CLOCK_MS_MIN: i64 = 1_767_225_600_000;
/// Events from further ahead than this were stored under another clock.
const CLOCK_AHEAD_MS_MAX: i64 = 300_000;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Good,
    /// It works, and will not for ever, or not for everyone.
    Warning,
    /// It will not start, or not do its work.
    Bad,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub what: &'static str,
    pub verdict: Verdict,
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Good => "ok",
            Verdict::Warning => "warn",
            Verdict::Bad => "BAD",
        };
        write!(f, "{verdict:<5} {:<8} {}", self.what, self.detail)
    }
}

fn good(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding { what, verdict: Verdict::Good, detail: detail.into() }
}

fn warning(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding { what, verdict: Verdict::Warning, detail: detail.into() }
}

fn bad(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding { what, verdict: Verdict::Bad, detail: detail.into() }
}

/// Looks at everything that `serve` would use under these settings.
pub async fn examine(config: &Serve) -> Vec<Finding> {
    let data = &config.data;
    let mut findings = vec![folder(data)];
    if findings[0].verdict == Verdict::Bad {
        return findings;
    }
    let in_use = is_in_use(data);
    let store = store_file(data);
    let inspection = match store.exists() {
        true => Some(inspect(&store).await),
        false => None,
    };
    findings.push(schema(inspection.as_ref()));
    let inspection = inspection.and_then(Result::ok);
    findings.push(blobs(data, inspection.as_ref()));
    findings.push(disk(config));
    findings.push(signing(data));
    findings.push(kernel(&config.kernel, inspection.as_ref()));
    findings.push(embed(config));
    findings.push(www(config));
    findings.push(clock(inspection.as_ref()));
    findings.push(files(config));
    findings.push(port(config, in_use));
    findings
}

fn folder(data: &Path) -> Finding {
    let what = "data";
    let metadata = match std::fs::metadata(data) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => return bad(what, format!("{} is no folder", data.display())),
        Err(error) => return bad(what, format!("{}: {error}", data.display())),
    };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let detail = format!("{} has mode {mode:04o}: others may read it; 0700", data.display());
        return bad(what, detail);
    }
    let probe = data.join(format!("doctor-{:016x}", crate::random::nonzero_u64()));
    let written = std::fs::write(&probe, b"x").and_then(|()| std::fs::remove_file(&probe));
    match written {
        Ok(()) => good(what, format!("{}, mode {mode:04o}, writable", data.display())),
        Err(error) => bad(what, format!("{} cannot be written to: {error}", data.display())),
    }
}

/// Whether a coordinator serves from the folder.
fn is_in_use(data: &Path) -> bool {
    let file = std::fs::File::open(data.join("lock"));
    file.is_ok_and(|file| matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)))
}

fn schema(inspection: Option<&Result<Inspection, crate::store::StoreError>>) -> Finding {
    let what = "store";
    let inspection = match inspection {
        None => return good(what, "none yet; it is made at the first start"),
        Some(Err(error)) => return bad(what, error.to_string()),
        Some(Ok(inspection)) => inspection,
    };
    let (found, known) = inspection.schema;
    if inspection.check != "ok" {
        return bad(what, format!("the file is damaged: {}", inspection.check));
    }
    match usize::try_from(found).map(|found| found.cmp(&known)) {
        Ok(std::cmp::Ordering::Equal) => good(what, format!("schema {found}, sound")),
        Ok(std::cmp::Ordering::Less) => {
            let detail = format!("schema {found}, brought to {known} at the next start");
            warning(what, detail)
        }
        _ => bad(what, format!("schema {found} is newer than this program, which knows {known}")),
    }
}

fn blobs(data: &Path, inspection: Option<&Inspection>) -> Finding {
    let what = "blobs";
    let folder = data.join("blobs");
    let Some(inspection) = inspection.filter(|_| folder.exists()) else {
        return good(what, "none yet");
    };
    let ids = &inspection.blobs;
    let stride = ids.len().div_ceil(BLOBS_READ_MAX).max(1);
    let (mut read, mut wrong) = (0, Vec::new());
    for id in ids.iter().step_by(stride) {
        read += 1;
        match Blobs::look(&folder, *id) {
            Ok(_) => {}
            // A running coordinator may just have let go of an old checkpoint.
            Err(BlobError::Missing { .. }) if is_in_use(data) => {}
            Err(error) => wrong.push(error.to_string()),
        }
    }
    match wrong.first() {
        None => good(what, format!("{} referred to, {read} read and as they should be", ids.len())),
        Some(first) => bad(what, format!("{} of {read} read are damaged: {first}", wrong.len())),
    }
}

fn disk(config: &Serve) -> Finding {
    let what = "disk";
    let space = match rustix::fs::statvfs(config.data.as_path()) {
        Ok(space) => space,
        Err(error) => return bad(what, error.to_string()),
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let needed = config.disk_free_bytes_min;
    let detail = format!("{} MiB free, uploads leave {} MiB", free >> 20, needed >> 20);
    match free {
        0 => bad(what, "full"),
        free if free < needed => warning(what, detail + "; none is taken now"),
        _ => good(what, detail),
    }
}

fn signing(data: &Path) -> Finding {
    let what = "signing";
    let folder = signing_folder(data);
    if !folder.exists() {
        return good(what, "no keys yet; the first start makes one");
    }
    let keys = match SigningKeys::open(&folder) {
        Ok(keys) => keys,
        Err(error) => return bad(what, error.to_string()),
    };
    if !CertificateKey::is_in(&folder) {
        return good(what, format!("{} signs tickets", keys.newest().id));
    }
    match CertificateKey::open(&folder) {
        Ok(key) => {
            let (tickets, certificates) = (&keys.newest().id, key.signatory());
            good(what, format!("{tickets} signs tickets, {certificates} certificates"))
        }
        Err(error) => bad(what, error.to_string()),
    }
}

fn kernel(file: &Path, inspection: Option<&Inspection>) -> Finding {
    let what = "kernel";
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) => return bad(what, format!("{}: {error}", file.display())),
    };
    if !bytes.starts_with(b"\0asm") {
        return bad(what, format!("{} is no WebAssembly module", file.display()));
    }
    let id = KernelId(*blake3::hash(&bytes).as_bytes());
    let stated = std::fs::read_to_string(file.with_file_name("kernel.json"));
    if stated.is_ok_and(|text| !text.contains(&id.to_string())) {
        return bad(what, format!("kernel.json beside {} names another than {id}", file.display()));
    }
    let others = inspection.map_or(0, |found| found.kernels.iter().filter(|k| **k != id).count());
    if others > 0 {
        return warning(what, format!("{id}; open jobs are pinned to {others} other kernels"));
    }
    good(what, id.to_string())
}

fn embed(config: &Serve) -> Finding {
    let what = "embed";
    let Some(folder) = &config.embed else {
        return warning(what, "not set: no page can have contributors");
    };
    match Embed::read(Some(folder), &config.kernel) {
        Ok(embed) if embed.loader().is_some() && embed.has_frame() => {
            good(what, format!("{}, version {}", folder.display(), embed.version()))
        }
        Ok(_) => bad(what, format!("{} lacks raven.js or frame.html", folder.display())),
        Err(error) => bad(what, error.to_string()),
    }
}

fn www(config: &Serve) -> Finding {
    let what = "www";
    let Some(folder) = &config.www else { return warning(what, "not set: no network page") };
    match Www::read(Some(folder)) {
        Ok(www) if www.file("").is_some() => good(what, folder.display().to_string()),
        Ok(_) => bad(what, format!("{} lacks index.html", folder.display())),
        Err(error) => bad(what, error.to_string()),
    }
}

fn clock(inspection: Option<&Inspection>) -> Finding {
    let what = "clock";
    let now = UnixMs::now();
    if now.0 < CLOCK_MS_MIN {
        return bad(what, format!("{}: the clock is not set", now.rfc3339()));
    }
    let newest = inspection.and_then(|inspection| inspection.newest_ms).unwrap_or(0);
    if newest > now.0 + CLOCK_AHEAD_MS_MAX {
        let detail = format!("{}, behind an event of {}", now.rfc3339(), UnixMs(newest).rfc3339());
        return warning(what, detail);
    }
    good(what, now.rfc3339())
}

fn files(config: &Serve) -> Finding {
    let what = "files";
    let limit = raise_open_files();
    let wanted = config.front.connections.all_max as u64 + 256;
    if limit < wanted {
        return warning(
            what,
            format!("{limit} may be open, {wanted} are needed for connections_max"),
        );
    }
    good(what, format!("{limit} may be open"))
}

fn port(config: &Serve, in_use: bool) -> Finding {
    let (what, listen) = ("port", config.listen);
    match std::net::TcpListener::bind(listen) {
        Ok(_) if in_use => good(what, format!("{listen} is free; a coordinator serves elsewhere")),
        Ok(_) => good(what, format!("{listen} is free")),
        Err(_) if in_use => good(what, format!("{listen} is taken, a coordinator serves here")),
        Err(error) => bad(what, format!("{listen}: {error}")),
    }
}
