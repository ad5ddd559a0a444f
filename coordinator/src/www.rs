//! The files of the pages for people: the live network, partners, contributors.

use crate::files::{StaticFile, read_folder};
use std::collections::HashMap;
use std::io;
use std::path::Path;

const INDEX: &str = "index.html";

/// A built page in memory. Without a folder, there is none.
#[derive(Clone, Debug, Default)]
pub struct Www {
    files: HashMap<String, StaticFile>,
}

impl Www {
    /// Reads the folder.
    ///
    /// # Errors
    /// Those of reading.
    pub fn read(folder: Option<&Path>) -> io::Result<Self> {
        let files = folder.map(read_folder).transpose()?.unwrap_or_default();
        Ok(Www { files: files.into_iter().collect() })
    }

    /// The file of that path; a page by its name alone, the first one for the empty path.
    pub fn file(&self, path: &str) -> Option<&StaticFile> {
        match path {
            "" => self.files.get(INDEX),
            page if page.contains('.') => self.files.get(page),
            page => self.files.get(&format!("{page}.html")),
        }
    }
}
