//! What was given for each setting, and where: a flag, a variable of the
//! environment, or a line of the file.

use super::{ConfigError, Environment, SETTINGS};
use crate::front::Rate;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A configuration file is a page of text.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A setting's text, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) source: String,
}

impl Given {
    pub(super) fn refuse(&self, rule: impl fmt::Display) -> ConfigError {
        ConfigError::Value { source_name: self.source.clone(), rule: rule.to_string() }
    }

    pub(super) fn parse<T: FromStr>(&self, rule: &str) -> Result<T, ConfigError> {
        self.text.parse().map_err(|_| self.refuse(format!("{:?} is not {rule}", self.text)))
    }
}

/// Settings by name, from all places.
pub(super) struct Found(BTreeMap<&'static str, Given>);

impl Found {
    /// What is given for each setting. `flags` are by setting name.
    ///
    /// # Errors
    /// Those of reading the file.
    pub(super) fn gather(
        flags: &BTreeMap<&'static str, String>,
        config_file: Option<&Path>,
        environment: Environment<'_>,
    ) -> Result<Self, ConfigError> {
        let variable = environment("RAVEN_CONFIG").map(PathBuf::from);
        let path = config_file.map(Path::to_owned).or(variable);
        let mut file = path.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let mut found = BTreeMap::new();
        for setting in SETTINGS {
            let flag = flags.get(setting.name).cloned();
            let flag = flag.map(|text| Given { text, source: setting.flag() });
            let variable = environment(&setting.variable());
            let variable = variable.map(|text| Given { text, source: setting.variable() });
            let in_file = file.remove(setting.name);
            if let Some(given) = flag.or(variable).or(in_file) {
                found.insert(setting.name, given);
            }
        }
        Ok(Found(found))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Given> {
        self.0.get(name)
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(|given| PathBuf::from(&given.text))
    }

    /// A number of which at least one is needed.
    pub(super) fn count<T: FromStr + PartialOrd + From<u8>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, ConfigError> {
        let rule = "a whole number from 1";
        let Some(given) = self.get(name) else { return Ok(None) };
        let value = given.parse::<T>(rule)?;
        if value < T::from(1) {
            return Err(given.refuse(format!("{:?} is not {rule}", given.text)));
        }
        Ok(Some(value))
    }

    pub(super) fn rate(
        &self,
        per_s: &str,
        burst: &str,
        default: Rate,
    ) -> Result<Rate, ConfigError> {
        let number = |name: &str, default: f64| -> Result<f64, ConfigError> {
            let rule = "a number from 1 to 1e9";
            let Some(given) = self.get(name) else { return Ok(default) };
            let value: f64 = given.parse(rule)?;
            let fits = (1.0..=1e9).contains(&value);
            fits.then_some(value)
                .ok_or_else(|| given.refuse(format!("{:?} is not {rule}", given.text)))
        };
        Ok(Rate { per_s: number(per_s, default.per_s)?, burst: number(burst, default.burst)? })
    }
}

fn read_file(path: &Path) -> Result<BTreeMap<&'static str, Given>, ConfigError> {
    let refuse = |reason: String| ConfigError::File { path: path.to_owned(), reason };
    let bytes = std::fs::metadata(path).map_err(|error| refuse(error.to_string()))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(refuse(format!("{bytes} bytes, the limit is {FILE_BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let table: toml::Table = text.parse().map_err(|error| refuse(format!("{error}")))?;
    let mut found = BTreeMap::new();
    for (field, value) in table {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == field) else {
            return Err(ConfigError::Unknown { path: path.to_owned(), field });
        };
        let source = format!("{}: {field}", path.display());
        let text = text_of(&value).ok_or_else(|| ConfigError::Value {
            source_name: source.clone(),
            rule: "a text, a number or a list of texts".into(),
        })?;
        found.insert(setting.name, Given { text, source });
    }
    Ok(found)
}

/// A value as it would stand in the environment.
fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Array(list) => {
            let texts: Option<Vec<&str>> = list.iter().map(toml::Value::as_str).collect();
            Some(texts?.join(","))
        }
        _ => None,
    }
}
