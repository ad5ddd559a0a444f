//! The command line.

use crate::config::{ConfigError, Environment, KERNEL, SETTINGS, Serve, resolve};
use crate::keys::KeyMode;
use crate::referee::replay::Replay;
use crate::runtime::session::parse_hex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const COMMANDS: &str = "\
coordinator serve --data DIR [--config FILE] [--SETTING VALUE ...]
coordinator keys create --data DIR [--live]
coordinator keys revoke --data DIR KEY
coordinator sites revoke --data DIR SITE_ID
coordinator signing rotate --data DIR
coordinator doctor --data DIR [--config FILE] [--SETTING VALUE ...]
coordinator replay EVIDENCE [--kernel FILE] [--key KEY]

--config names a file of settings, one `name = value` a line (TOML). A setting is a
flag, RAVEN_NAME in the environment, or a line of that file, in this order:
";

/// What is printed for `--help` and after a mistake.
pub fn usage() -> String {
    let lines = SETTINGS.iter().map(|setting| {
        let given = format!("{} {}", setting.flag(), setting.takes);
        format!("  {given:<40} {}\n", setting.what)
    });
    std::iter::once(COMMANDS.to_owned()).chain(lines).collect()
}

/// One invocation.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Help,
    Serve(Box<Serve>),
    Doctor(Box<Serve>),
    CreateKey { data: PathBuf, mode: KeyMode },
    RevokeKey { data: PathBuf, key: String },
    RevokeSite { data: PathBuf, site: String },
    RotateSigning { data: PathBuf },
    Replay(Replay),
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
    #[error("--key is a public key, 64 lower-case hex digits")]
    PublicKey,
    #[error("{0} is given twice")]
    Twice(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
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

/// Settings from flags and the other places.
fn settings(
    arguments: impl Iterator<Item = String>,
    environment: Environment<'_>,
) -> Result<Box<Serve>, CliError> {
    let flags: Vec<String> = SETTINGS.iter().map(|setting| setting.flag()).collect();
    let mut names: Vec<&str> = flags.iter().map(String::as_str).collect();
    names.push("--config");
    let read = Arguments::read(arguments, &names, &[])?;
    read.none()?;
    let given: BTreeMap<&'static str, String> = SETTINGS
        .iter()
        .filter_map(|setting| Some((setting.name, read.value(&setting.flag())?.to_owned())))
        .collect();
    let config = read.value("--config").map(Path::new);
    Ok(Box::new(resolve(&given, config, environment)?))
}

/// An evidence file, and what it is held against.
fn replay(arguments: impl Iterator<Item = String>) -> Result<Replay, CliError> {
    let read = Arguments::read(arguments, &["--kernel", "--key"], &[])?;
    let key = read.value("--key").map(|text| parse_hex(text).ok_or(CliError::PublicKey));
    Ok(Replay {
        kernel: read.path("--kernel").unwrap_or_else(|| KERNEL.into()),
        key: key.transpose()?,
        evidence: read.only("an evidence file")?.into(),
    })
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// [`CliError`].
pub fn parse(
    mut arguments: impl Iterator<Item = String>,
    environment: Environment<'_>,
) -> Result<Command, CliError> {
    let Some(first) = arguments.next() else { return Ok(Command::Help) };
    match first.as_str() {
        "--help" | "-h" | "help" => Ok(Command::Help),
        "serve" => Ok(Command::Serve(settings(arguments, environment)?)),
        "doctor" => Ok(Command::Doctor(settings(arguments, environment)?)),
        "replay" => replay(arguments).map(Command::Replay),
        "keys" | "sites" | "signing" => {
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
                ("signing", "rotate") => {
                    read.none()?;
                    Ok(Command::RotateSigning { data })
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
        parse(line.split_whitespace().map(str::to_owned), &|_| None)
    }

    #[test]
    fn the_documented_lines_are_read() {
        let Ok(Command::Serve(serve)) = read("serve --data d --embed e --kernel k.wasm") else {
            panic!("not read");
        };
        assert_eq!(serve.listen.to_string(), "127.0.0.1:8080");
        assert_eq!((serve.embed, serve.www), (Some("e".into()), None));
        let mode = KeyMode::Live;
        let create = Command::CreateKey { data: "d".into(), mode };
        assert_eq!(read("keys create --data d --live"), Ok(create));
        assert_eq!(read(""), Ok(Command::Help));
        let replay = Replay { evidence: "e".into(), kernel: KERNEL.into(), key: None };
        assert_eq!(read("replay e"), Ok(Command::Replay(replay.clone())));
        let key = "00".repeat(32);
        let pinned = Replay { kernel: "k".into(), key: Some([0; 32]), ..replay };
        let line = format!("replay --kernel k e --key {key}");
        assert_eq!(read(&line), Ok(Command::Replay(pinned)));
    }

    #[test]
    fn mistakes_are_named() {
        let missing = ConfigError::Missing("--data".into());
        assert_eq!(read("serve"), Err(CliError::Config(missing)));
        assert_eq!(read("serve --data"), Err(CliError::Value("--data".into())));
        assert_eq!(read("serve --data d --data e"), Err(CliError::Twice("--data".into())));
        assert_eq!(read("serve --data d --port 1"), Err(CliError::Unknown("--port".into())));
        let refused = read("serve --data d --listen x").expect_err("refused").to_string();
        assert!(refused.starts_with("--listen: "), "{refused}");
        assert_eq!(read("keys burn --data d"), Err(CliError::Command("keys burn".into())));
        assert_eq!(read("replay"), Err(CliError::Missing("an evidence file")));
        assert_eq!(read("replay e --key 00"), Err(CliError::PublicKey));
        assert_eq!(read("keys revoke --data d"), Err(CliError::Missing("a key")));
    }
}
