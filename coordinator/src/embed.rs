//! The files that partner pages and the frame load. Those of the frame go under
//! a version that is a hash of them all: what a visitor runs together was built
//! together. The loader goes under its own hash and outlives them: a partner who
//! pinned it to its bytes hears nothing of a new build of the rest.

use crate::config::GpuUse;
use crate::files::{StaticFile, read_folder};
use crate::loaders::{self, loader_name};
use crate::view::CardView;
use axum::body::Bytes;
use raven_protocol::KernelId;
use sha2::{Digest, Sha384};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

const LOADER: &str = "raven.js";
const FRAME: &str = "frame.html";
/// Where the words of the card are, a file for each language.
const WORDS: &str = "text/";
/// The kernel's module among the files.
const KERNEL_MODULE: &str = "kernel/raven_kernel.wasm";
/// The kernel's files, all of one build.
const KERNEL_FILES: [&str; 3] = ["raven_kernel.wasm", "raven_kernel.js", "kernel.json"];

/// The module for GPUs. A build without it offers none.
const GPU_MODULE: &str = "gpu/raven_gpu.wasm";

/// The frame's page has no such place to fill.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    #[error("embed: {0}")]
    Io(#[from] io::Error),
    #[error("embed: {FRAME} is not text")]
    NotText,
    #[error("embed: {FRAME} has a place {name:?} that nothing fills")]
    UnknownPlace { name: String },
}

/// The loader with the hash that partners may pin it to.
#[derive(Clone, Debug)]
pub struct Loader {
    pub file: StaticFile,
    /// `raven-<hash of its bytes>.js`.
    pub name: String,
    /// `sha384-…` for a tag's `integrity`.
    pub integrity: String,
}

/// The embed folder in memory. Without one, every lookup finds nothing.
#[derive(Clone, Debug, Default)]
pub struct Embed {
    version: String,
    files: BTreeMap<String, StaticFile>,
    loader: Option<Loader>,
    /// Every loader that is still served, the present one among them, by its name.
    pinned: BTreeMap<String, StaticFile>,
    frame: Option<String>,
    consent_text_version: String,
    visit_mb: String,
    unclaimed_days: String,
    gpu: GpuUse,
}

/// What one visitor's frame is told.
#[derive(Clone, Debug)]
pub struct FrameValues<'a> {
    pub ticket: &'a str,
    pub site_key: &'a str,
    pub site_name: &'a str,
    /// What every card shows: what its receipt names where it learns of nothing that waits.
    pub view: &'a str,
}

impl Embed {
    /// Reads a built embed folder. The kernel's files beside `kernel` take the
    /// place of those in it, so that visitors run what the coordinator runs.
    ///
    /// # Errors
    /// [`EmbedError`].
    pub fn read(folder: Option<&Path>, kernel: &Path) -> Result<Self, EmbedError> {
        let Some(folder) = folder else { return Ok(Embed::default()) };
        let mut files: BTreeMap<String, StaticFile> = read_folder(folder)?.into_iter().collect();
        for name in KERNEL_FILES {
            let path = kernel.with_file_name(name);
            if path.exists() {
                files.insert(format!("kernel/{name}"), StaticFile::read(&path)?);
            }
        }
        Embed::new(files)
    }

    /// Takes files by their path.
    ///
    /// # Errors
    /// [`EmbedError`] for a frame that cannot be filled.
    pub fn new(files: BTreeMap<String, StaticFile>) -> Result<Self, EmbedError> {
        let mut hasher = blake3::Hasher::new();
        for (path, file) in &files {
            hasher.update(&(path.len() as u64).to_le_bytes()).update(path.as_bytes());
            hasher.update(&(file.bytes.len() as u64).to_le_bytes()).update(&file.bytes);
        }
        let version = short_hash(&hasher);
        let frame = match files.get(FRAME) {
            Some(file) => {
                Some(String::from_utf8(file.bytes.to_vec()).map_err(|_| EmbedError::NotText)?)
            }
            None => None,
        };
        let consent_text_version = consent_text_version(&files);
        let loader = files.get(LOADER).map(|file| Loader {
            file: file.clone(),
            name: loader_name(&file.bytes),
            integrity: format!("sha384-{}", base64(&Sha384::digest(&file.bytes))),
        });
        let pinned =
            loader.iter().map(|loader| (loader.name.clone(), loader.file.clone())).collect();
        let (visit_mb, unclaimed_days) = (String::new(), String::new());
        let gpu = GpuUse::No;
        let embed = Embed {
            version,
            files,
            loader,
            pinned,
            frame,
            consent_text_version,
            visit_mb,
            unclaimed_days,
            gpu,
        };
        // Filled once with nothing, so that a place without a value is found now.
        let nothing = FrameValues { ticket: "", site_key: "", site_name: "", view: "" };
        embed.frame(&nothing).transpose()?;
        Ok(embed)
    }

    /// Says on the card what one visit may move, in megabytes.
    pub fn set_visit_mb(&mut self, megabytes: u32) {
        self.visit_mb = megabytes.to_string();
    }

    /// Says on the card after how many days the reserve has what nobody has collected.
    pub fn set_unclaimed_days(&mut self, days: u32) {
        self.unclaimed_days = days.to_string();
    }

    /// Offers the GPU module to visitors, where it was built.
    pub fn set_gpu(&mut self, gpu: GpuUse) {
        self.gpu = if self.files.contains_key(GPU_MODULE) { gpu } else { GpuUse::No };
    }

    /// The GPU module that is offered.
    pub fn gpu_kernel(&self) -> Option<KernelId> {
        let module = self.files.get(GPU_MODULE).filter(|_| self.gpu != GpuUse::No)?;
        Some(KernelId(*blake3::hash(&module.bytes).as_bytes()))
    }

    /// The kernel module that visitors are served, where it is that one.
    pub fn kernel(&self, id: KernelId) -> Option<Bytes> {
        let module = self.files.get(KERNEL_MODULE)?;
        (*blake3::hash(&module.bytes).as_bytes() == id.0).then(|| module.bytes.clone())
    }

    /// 16 hex digits.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What a receipt must name.
    pub fn consent_text_version(&self) -> &str {
        &self.consent_text_version
    }

    /// What every card shows with these files.
    pub fn card_view(&self) -> CardView {
        CardView::new(&self.consent_text_version, &self.visit_mb, self.gpu.name())
    }

    /// The evergreen loader.
    pub fn loader(&self) -> Option<&Loader> {
        self.loader.as_ref()
    }

    /// A loader that partners have pinned, under the name that [`Loader::name`] gave it.
    pub fn pinned(&self, name: &str) -> Option<&StaticFile> {
        self.pinned.get(name)
    }

    /// Keeps the present loader in `folder`, and serves those that are there
    /// from earlier builds too.
    ///
    /// # Errors
    /// Those of reading and writing the folder.
    pub fn keep_loaders(&mut self, folder: &Path) -> io::Result<()> {
        let present = self.loader.as_ref().map(|loader| &loader.file);
        for (name, file) in loaders::keep(folder, present)? {
            self.pinned.entry(name).or_insert(file);
        }
        Ok(())
    }

    /// Whether there is a frame to show.
    pub fn has_frame(&self) -> bool {
        self.frame.is_some()
    }

    /// A file of this version. The frame's page is not one: it differs by visitor.
    pub fn file(&self, version: &str, path: &str) -> Option<&StaticFile> {
        if version != self.version || path == FRAME {
            return None;
        }
        self.files.get(path)
    }

    /// The frame's page for one visitor.
    ///
    /// # Errors
    /// [`EmbedError::UnknownPlace`].
    pub fn frame(&self, values: &FrameValues<'_>) -> Option<Result<String, EmbedError>> {
        let value = |name: &str| match name {
            "version" => Some(self.version.as_str()),
            "ticket" => Some(values.ticket),
            "site" => Some(values.site_key),
            "site_name" => Some(values.site_name),
            "view" => Some(values.view),
            "visit_mb" => Some(self.visit_mb.as_str()),
            "unclaimed_days" => Some(self.unclaimed_days.as_str()),
            "gpu" => Some(self.gpu.name()),
            "consent_text_version" => Some(self.consent_text_version.as_str()),
            _ => None,
        };
        Some(fill(self.frame.as_ref()?, value))
    }
}

/// The version of the text that visitors agree to: of the frame's page and of
/// the words in every language. One for all languages, since a receipt names one.
fn consent_text_version(files: &BTreeMap<String, StaticFile>) -> String {
    let mut text = blake3::Hasher::new();
    for (path, file) in files {
        if path == FRAME || path.starts_with(WORDS) {
            text.update(&(file.bytes.len() as u64).to_le_bytes()).update(&file.bytes);
        }
    }
    short_hash(&text)
}

/// Puts escaped values into `{{name}}` places, in one pass: a value that looks
/// like a place stays as it is.
fn fill<'a>(template: &str, value: impl Fn(&str) -> Option<&'a str>) -> Result<String, EmbedError> {
    let mut page = String::with_capacity(template.len() + 256);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        page.push_str(before);
        let Some((name, after)) = after.split_once("}}") else {
            page.push_str("{{");
            rest = after;
            continue;
        };
        let name = name.trim();
        let value = value(name)
            .ok_or_else(|| EmbedError::UnknownPlace { name: name.chars().take(40).collect() })?;
        escape(value, &mut page);
        rest = after;
    }
    page.push_str(rest);
    Ok(page)
}

/// Writes text so that it is text in an element and in a quoted attribute.
fn escape(text: &str, page: &mut String) {
    for c in text.chars() {
        match c {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            _ => page.push(c),
        }
    }
}

pub(crate) fn short_hash(hasher: &blake3::Hasher) -> String {
    let mut text = hasher.finalize().to_hex().to_string();
    text.truncate(16);
    text
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut word = [0; 3];
        word[..group.len()].copy_from_slice(group);
        let word = u32::from_be_bytes([0, word[0], word[1], word[2]]);
        for digit in 0..4 {
            let value = (word >> (18 - 6 * digit) & 63) as usize;
            text.push(if digit <= group.len() { char::from(DIGITS[value]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_padded() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn values_are_escaped_and_never_filled_again() {
        let template = "<b>{{site_name}}</b><meta content=\"{{ site }}\">";
        let value = |name: &str| match name {
            "site_name" => Some("<script>'{{site}}'</script>"),
            "site" => Some("\"&"),
            _ => None,
        };
        let page = fill(template, value).expect("filled");
        let name = "&lt;script&gt;&#39;{{site}}&#39;&lt;/script&gt;";
        assert_eq!(page, format!("<b>{name}</b><meta content=\"&quot;&amp;\">"));
        assert!(matches!(fill("{{what}}", |_| None), Err(EmbedError::UnknownPlace { .. })));
        assert_eq!(fill("a {{ b", |_| None).expect("no place"), "a {{ b");
    }

    fn files(frame: &str, script: &str) -> Embed {
        let file = |text: &str| StaticFile::new("text/plain", text.into()).expect("packed");
        let pairs = [("frame.html", frame), ("raven.js", script)];
        let files = pairs.map(|(path, text)| (path.to_owned(), file(text)));
        Embed::new(files.into_iter().collect()).expect("valid")
    }

    #[test]
    fn a_kernel_is_known_by_its_content() {
        let module = StaticFile::new("application/wasm", b"\0asm".to_vec()).expect("packed");
        let embed = Embed::new([(KERNEL_MODULE.to_owned(), module)].into()).expect("valid");
        let id = KernelId(*blake3::hash(b"\0asm").as_bytes());
        assert_eq!(embed.kernel(id).as_deref(), Some(&b"\0asm"[..]));
        assert_eq!(embed.kernel(KernelId([0; 32])), None);
    }

    #[test]
    fn the_version_follows_every_file() {
        let (a, b, c) = (files("x", "1"), files("x", "2"), files("y", "1"));
        assert_ne!(a.version(), b.version());
        assert_eq!(a.consent_text_version(), b.consent_text_version());
        assert_ne!(a.consent_text_version(), c.consent_text_version());
        assert!(a.file(a.version(), "raven.js").is_some());
        assert!(a.file(b.version(), "raven.js").is_none());
        assert!(a.file(a.version(), "frame.html").is_none());
    }

    #[test]
    fn the_consent_text_is_the_page_with_the_words_of_every_language() {
        let version = |changed: &str| {
            let files = ["frame.html", "frame.js", "text/en.js", "text/fr.js"].map(|path| {
                let text = if path == changed { "new" } else { "old" };
                let file = StaticFile::new("text/plain", text.into()).expect("packed");
                (path.to_owned(), file)
            });
            Embed::new(files.into_iter().collect()).expect("valid").consent_text_version
        };
        assert_eq!(version("frame.js"), version(""));
        for text in ["frame.html", "text/en.js", "text/fr.js"] {
            assert_ne!(version(text), version(""), "{text}");
        }
    }

    #[test]
    fn a_loader_is_known_by_its_own_bytes() {
        let (a, b, c) = (files("x", "1"), files("x", "2"), files("y", "1"));
        let name = |embed: &Embed| embed.loader().expect("a loader").name.clone();
        assert_eq!(name(&a), name(&c), "another frame leaves the loader's name as it is");
        assert_ne!(name(&a), name(&b));
        assert!(c.pinned(&name(&a)).is_some() && b.pinned(&name(&a)).is_none());
    }

    #[test]
    fn a_pinned_loader_outlives_its_build() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut old, mut new) = (files("x", "1"), files("y", "2"));
        let name = old.loader().expect("a loader").name.clone();
        old.keep_loaders(folder.path()).expect("kept");
        new.keep_loaders(folder.path()).expect("kept");
        assert_eq!(new.pinned(&name).expect("still there").bytes, "1");
        assert_eq!(new.pinned(&new.loader().expect("a loader").name).expect("there").bytes, "2");
        // A coordinator that is started without an embed still has the pages of its partners.
        let mut none = Embed::default();
        none.keep_loaders(folder.path()).expect("kept");
        assert!(none.pinned(&name).is_some());
    }
}
