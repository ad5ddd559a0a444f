//! The command line.

use crate::keys::KeyMode;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What is printed for `--help` and after a mistake.
pub const USAGE: &str = "\
coordinator serve --data DIR [--listen 127.0.0.1:8080] [--origin URL] [--embed DIR] [--www DIR] [--kernel FILE]
coordinator keys create --data DIR [--live]
coordinator keys revoke --data DIR KEY
coordinator sites revoke --data DIR SITE_ID

  --data    folder of the store, blobs and caches; made where it is missing
  --listen  address and port (port 0: any free one, printed at the start)
  --origin  origin under which browsers reach this coordinator; the listen address if absent
  --embed   built tag, frame and workers (web-snippet/dist)
  --www     built network page
  --kernel  kernel module (dist/kernel/raven_kernel.wasm)
";

const LISTEN: &str = "127.0.0.1:8080";
const KERNEL: &str = "dist/kernel/raven_kernel.wasm";

/// One invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Help,
    Serve(Serve),
    CreateKey { data: PathBuf, mode: KeyMode },
    RevokeKey { data: PathBuf, key: String },
    RevokeSite { data: PathBuf, site: String },
}

/// What `serve` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    pub data: PathBuf,
    pub listen: SocketAddr,
    pub origin: Option<String>,
    pub embed: Option<PathBuf>,
    pub www: Option<PathBuf>,
    pub kernel: PathBuf,
}

/// Why a command line is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CliError {
    #[error("unknown command: {0}")]
    Command(String),
    #[error("{0} is needed")]
    Missing(&'static str),
    #[error("{0} needs a value")]
    Value(String),
    #[error("unknown argument: {0}")]
    Unknown(String),
    #[error("{0} is given twice")]
    Twice(String),
    #[error("--listen: not an address and port")]
    Listen,
}

/// Arguments by name, and those without one.
#[derive(Debug, Default)]
struct Arguments {
    named: Vec<(String, Option<String>)>,
    plain: Vec<String>,
}

impl Arguments {
    fn read(
        arguments: impl Iterator<Item = String>,
        with_value: &[&str],
        flags: &[&str],
    ) -> Result<Self, CliError> {
        let mut read = Arguments::default();
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            if read.named.iter().any(|(name, _)| *name == argument) {
                return Err(CliError::Twice(argument));
            }
            if with_value.contains(&argument.as_str()) {
                let value = arguments.next().ok_or_else(|| CliError::Value(argument.clone()))?;
                read.named.push((argument, Some(value)));
            } else if flags.contains(&argument.as_str()) {
                read.named.push((argument, None));
            } else if argument.starts_with('-') {
                return Err(CliError::Unknown(argument));
            } else {
                read.plain.push(argument);
            }
        }
        Ok(read)
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.named.iter().find(|(found, _)| found == name)?.1.as_deref()
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    fn data(&self) -> Result<PathBuf, CliError> {
        self.path("--data").ok_or(CliError::Missing("--data"))
    }

    fn flag(&self, name: &str) -> bool {
        self.named.iter().any(|(found, _)| found == name)
    }

    /// Exactly one plain argument.
    fn only(mut self, what: &'static str) -> Result<String, CliError> {
        let last = self.plain.pop().ok_or(CliError::Missing(what))?;
        self.none()?;
        Ok(last)
    }

    /// No plain argument.
    fn none(&self) -> Result<(), CliError> {
        self.plain.first().map_or(Ok(()), |extra| Err(CliError::Unknown(extra.clone())))
    }
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// [`CliError`].
pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Command, CliError> {
    let Some(first) = arguments.next() else { return Ok(Command::Help) };
    match first.as_str() {
        "--help" | "-h" | "help" => Ok(Command::Help),
        "serve" => {
            let names = ["--data", "--listen", "--origin", "--embed", "--www", "--kernel"];
            let read = Arguments::read(arguments, &names, &[])?;
            read.none()?;
            let listen = read.value("--listen").unwrap_or(LISTEN);
            Ok(Command::Serve(Serve {
                data: read.data()?,
                listen: listen.parse().map_err(|_| CliError::Listen)?,
                origin: read.value("--origin").map(str::to_owned),
                embed: read.path("--embed"),
                www: read.path("--www"),
                kernel: read.path("--kernel").unwrap_or_else(|| KERNEL.into()),
            }))
        }
        "keys" | "sites" => {
            let verb = arguments.next().ok_or(CliError::Missing("a verb such as create"))?;
            let read = Arguments::read(arguments, &["--data"], &["--live"])?;
            let data = read.data()?;
            match (first.as_str(), verb.as_str()) {
                ("keys", "create") => {
                    read.none()?;
                    let mode = if read.flag("--live") { KeyMode::Live } else { KeyMode::Test };
                    Ok(Command::CreateKey { data, mode })
                }
                ("keys", "revoke") => Ok(Command::RevokeKey { data, key: read.only("a key")? }),
                ("sites", "revoke") => {
                    Ok(Command::RevokeSite { data, site: read.only("a site's id")? })
                }
                (noun, verb) => Err(CliError::Command(format!("{noun} {verb}"))),
            }
        }
        other => Err(CliError::Command(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Command, CliError> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_documented_lines_are_read() {
        let Ok(Command::Serve(serve)) = read("serve --data d --embed e --kernel k.wasm") else {
            panic!("not read");
        };
        assert_eq!(serve.listen.to_string(), LISTEN);
        assert_eq!((serve.embed, serve.www), (Some("e".into()), None));
        let mode = KeyMode::Live;
        let create = Command::CreateKey { data: "d".into(), mode };
        assert_eq!(read("keys create --data d --live"), Ok(create));
        assert_eq!(read(""), Ok(Command::Help));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(read("serve"), Err(CliError::Missing("--data")));
        assert_eq!(read("serve --data"), Err(CliError::Value("--data".into())));
        assert_eq!(read("serve --data d --data e"), Err(CliError::Twice("--data".into())));
        assert_eq!(read("serve --data d --port 1"), Err(CliError::Unknown("--port".into())));
        assert_eq!(read("serve --data d --listen x"), Err(CliError::Listen));
        assert_eq!(read("keys burn --data d"), Err(CliError::Command("keys burn".into())));
        assert_eq!(read("keys revoke --data d"), Err(CliError::Missing("a key")));
    }
}
