//! What an API key may do.

use std::fmt;
use std::str::FromStr;

/// One thing that a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Quotes, jobs, and what comes of them.
    Jobs,
    /// Data sets and uploads.
    Datasets,
    /// Partner sites, but not their money.
    Sites,
    /// The account's money.
    Account,
    /// Keys and sub-accounts.
    Keys,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Scope; 5] =
        [Scope::Jobs, Scope::Datasets, Scope::Sites, Scope::Account, Scope::Keys];

    /// The name in stores and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Jobs => "jobs",
            Scope::Datasets => "datasets",
            Scope::Sites => "sites",
            Scope::Account => "account",
            Scope::Keys => "keys",
        }
    }
}

impl FromStr for Scope {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let scope = Scope::ALL.into_iter().find(|scope| scope.as_str() == text);
        scope.ok_or("must be jobs, datasets, sites, account or keys")
    }
}

/// Some scopes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Everything that a key may do.
    pub const ALL: Scopes = Scopes((1 << Scope::ALL.len()) - 1);

    /// Whether `scope` is one of them.
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & 1 << scope as u8 != 0
    }

    /// The first of `others` that is none of them.
    pub fn lacks(self, others: Scopes) -> Option<Scope> {
        others.iter().find(|scope| !self.has(*scope))
    }

    /// One after the other, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }

    /// Their names.
    pub fn names(self) -> Vec<&'static str> {
        self.iter().map(Scope::as_str).collect()
    }

    /// Reads names with spaces or commas between; at least one.
    ///
    /// # Errors
    /// The rule that a name breaks.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let names = text.split([' ', ',']).filter(|name| !name.is_empty());
        let scopes: Scopes = names.map(str::parse).collect::<Result<_, _>>()?;
        if scopes.0 == 0 { Err("names no scope") } else { Ok(scopes) }
    }
}

impl From<Scope> for Scopes {
    fn from(scope: Scope) -> Self {
        Scopes(1 << scope as u8)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Scopes(scopes.into_iter().fold(0, |bits, scope| bits | 1 << scope as u8))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(" "))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scopes({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_in_any_order() {
        assert_eq!(Scopes::parse("keys jobs").map(Scopes::names), Ok(vec!["jobs", "keys"]));
        assert_eq!(Scopes::parse(&Scopes::ALL.to_string()), Ok(Scopes::ALL));
        assert_eq!(Scopes::parse("jobs,keys"), Scopes::parse("keys jobs keys"));
        for text in ["", " ", "all", "Jobs", "jobs;keys"] {
            assert!(Scopes::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_a_key_lacks_is_named() {
        let some: Scopes = [Scope::Jobs, Scope::Keys].into_iter().collect();
        assert_eq!(some.lacks(Scopes::ALL), Some(Scope::Datasets));
        assert_eq!(Scopes::ALL.lacks(some), None);
        assert_eq!(some.lacks(Scope::Jobs.into()), None);
    }
}
