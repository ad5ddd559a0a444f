//! The command line.

use crate::certificate::Signatory;
use crate::certificate::command::{SAMPLE_DEFAULT, Source, VerifyModel};
use crate::certificate::verify::Draw;
use crate::config::{ConfigError, Environment, KERNEL, SETTINGS, Serve, resolve};
use crate::contribute::{Address, AddressError, Contribute, SHARE_DEFAULT};
use crate::keys::KeyMode;
use crate::referee::replay::Replay;
use crate::runtime::session::parse_hex;
use crate::scopes::Scopes;
use crate::settlement::{DEPOSIT_MAX, Decision, Tender, WithdrawalId};
use crate::token::{MicroTokens, RATE_MAX, RATE_MIN};
use raven_engine::money::NanoUsd;
use raven_protocol::Seed;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const COMMANDS: &str = "\
coordinator serve --data DIR [--config FILE] [--SETTING VALUE ...]
coordinator keys create --data DIR [--live]
coordinator keys create --data DIR --of ACCOUNT|KEY_HINT [--scopes LIST] [--name TEXT]
coordinator keys revoke --data DIR KEY
coordinator sites revoke --data DIR SITE_ID
coordinator signing rotate --data DIR
coordinator audit --data DIR
coordinator deposit --data DIR --nano-usd N|--micro-tokens N --payment ID KEY
coordinator withdrawals list --data DIR [--all]
coordinator withdrawals begin --data DIR [--note TEXT] ID
coordinator withdrawals approve --data DIR [--note TEXT] ID
coordinator withdrawals refuse --data DIR [--note TEXT] ID
coordinator token-rate set --data DIR NANO_USD
coordinator verify-receipt FILE [--key KEY]
coordinator doctor --data DIR [--config FILE] [--SETTING VALUE ...]
coordinator replay EVIDENCE [--kernel FILE] [--key KEY]
coordinator verify-model BUNDLE --model FILE [--kernel FILE] [--sample N | --all]
    [--evaluate] [--seed SEED] [--signer KEY] [--cache DIR]
coordinator verify-model --url URL --job JOB_ID --key rk_... [the same]
coordinator contribute --to https://HOST[:PORT] [--share 0.5] [--workers N] [--key FILE]
    [--kernel FILE] [--cache DIR] [--ca FILE] [--yes]

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
    AddKey(AddKey),
    RevokeKey { data: PathBuf, key: String },
    RevokeSite { data: PathBuf, site: String },
    RotateSigning { data: PathBuf },
    Audit { data: PathBuf },
    Deposit(Deposit),
    ListWithdrawals { data: PathBuf, all: bool },
    DecideWithdrawal(Decide),
    SetTokenRate { data: PathBuf, nano_usd: i64 },
    VerifyReceipt { receipt: PathBuf, key: Option<Signatory> },
    Replay(Replay),
    VerifyModel(Box<VerifyModel>),
    Contribute(Box<Contribute>),
}

/// Another key of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddKey {
    pub data: PathBuf,
    /// The account's name in the books, or the hint of one of its keys.
    pub of: String,
    pub scopes: Scopes,
    pub name: String,
}

/// Where keys of contributors are, below their owner's home.
const CONTRIBUTOR_KEYS: &str = ".raven";

/// Money that came in from outside, as whoever runs the coordinator has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deposit {
    pub data: PathBuf,
    /// A key of whoever paid.
    pub key: String,
    pub amount: Tender,
    /// What the payment is known by: one payment is entered once.
    pub payment: String,
}

/// What becomes of a withdrawal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decide {
    pub data: PathBuf,
    pub id: WithdrawalId,
    pub decision: Decision,
    /// E.g. what the payment is known by; whoever asked sees it.
    pub note: Option<String>,
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
    #[error("{name}: {rule}")]
    Form { name: &'static str, rule: &'static str },
    #[error("{0} is given twice")]
    Twice(String),
    #[error("--to: {0}")]
    Address(#[from] AddressError),
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
    let key = parsed(&read, "--key", "64 lower-case hex digits", parse_hex)?;
    Ok(Replay {
        kernel: read.path("--kernel").unwrap_or_else(|| KERNEL.into()),
        key,
        evidence: read.only("an evidence file")?.into(),
    })
}

/// A value of that name, read.
fn parsed<T>(
    read: &Arguments,
    name: &'static str,
    rule: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, CliError> {
    let Some(text) = read.value(name) else { return Ok(None) };
    parse(text).map(Some).ok_or(CliError::Form { name, rule })
}

/// The key stands in the environment as well, where other users do not see it.
fn verify_model(
    arguments: impl Iterator<Item = String>,
    environment: Environment<'_>,
) -> Result<VerifyModel, CliError> {
    let names = [
        "--model", "--kernel", "--sample", "--seed", "--signer", "--url", "--job", "--key",
        "--cache",
    ];
    let read = Arguments::read(arguments, &names, &["--all", "--evaluate"])?;
    let sample = parsed(&read, "--sample", "a whole number from 1", |text| {
        text.parse().ok().filter(|count: &u32| *count > 0)
    })?;
    let draw = match (sample, read.flag("--all")) {
        (Some(_), true) => {
            return Err(CliError::Form { name: "--all", rule: "goes without --sample" });
        }
        (None, true) => Draw::All,
        (sample, false) => Draw::Rounds(sample.unwrap_or(SAMPLE_DEFAULT)),
    };
    let seed = parsed(&read, "--seed", "0x and 16 lower-case hex digits", |text| {
        text.parse().ok().map(|seed: Seed| seed.0)
    })?;
    let signer = parsed(&read, "--signer", "64 lower-case hex digits", |text| text.parse().ok())?;
    let job = parsed(&read, "--job", "job_ and 16 hex digits", |text| text.parse().ok())?;
    let (kernel, cache) = (read.path("--kernel"), read.path("--cache"));
    let evaluate = read.flag("--evaluate") || draw == Draw::All;
    let source = match read.value("--url") {
        Some(url) => {
            read.none()?;
            let key = read.value("--key").map(str::to_owned).or_else(|| environment("RAVEN_KEY"));
            let job = job.ok_or(CliError::Missing("--job"))?;
            let key = key.ok_or(CliError::Missing("--key, or RAVEN_KEY in the environment,"))?;
            Source::Coordinator { url: url.to_owned(), job, key }
        }
        None => {
            let model = read.path("--model").ok_or(CliError::Missing("--model"))?;
            Source::Files { bundle: read.only("a bundle")?.into(), model }
        }
    };
    Ok(VerifyModel { source, kernel, cache, draw, evaluate, seed, signer })
}

/// The key is kept where its owner keeps such things, unless a file is named. Each
/// coordinator sees another one, so that nobody is known from one to the next.
fn contribute(
    arguments: impl Iterator<Item = String>,
    environment: Environment<'_>,
) -> Result<Contribute, CliError> {
    let names = ["--to", "--share", "--workers", "--key", "--kernel", "--cache", "--ca"];
    let read = Arguments::read(arguments, &names, &["--yes"])?;
    read.none()?;
    let to = read.value("--to").ok_or(CliError::Missing("--to"))?;
    let to = to.parse::<Address>()?;
    let share = parsed(&read, "--share", "a number above 0 and at most 1", |text| {
        text.parse().ok().filter(|share: &f64| *share > 0.0 && *share <= 1.0)
    })?;
    let workers = parsed(&read, "--workers", "a whole number from 1 to 256", |text| {
        text.parse().ok().filter(|workers| (1..=256).contains(workers))
    })?;
    let file = format!("contributor-{}.key", to.file_name());
    let home = || environment("HOME").map(|it| Path::new(&it).join(CONTRIBUTOR_KEYS).join(&file));
    let key = read.path("--key").or_else(home).ok_or(CliError::Missing("--key"))?;
    Ok(Contribute {
        to,
        share: share.unwrap_or(SHARE_DEFAULT),
        workers,
        key,
        kernel: read.path("--kernel").unwrap_or_else(|| KERNEL.into()),
        cache: read.path("--cache"),
        authorities: read.path("--ca"),
        yes: read.flag("--yes"),
    })
}

fn deposit(arguments: impl Iterator<Item = String>) -> Result<Deposit, CliError> {
    let known = ["--data", "--nano-usd", "--micro-tokens", "--payment"];
    let read = Arguments::read(arguments, &known, &[])?;
    let rule = "a whole number from 1 to 10^15, a million USD";
    let usd = parsed(&read, "--nano-usd", rule, |text| {
        text.parse().ok().filter(|amount| (1..=DEPOSIT_MAX.0).contains(amount)).map(NanoUsd)
    })?;
    // What they may be at most depends on what they are worth then.
    let rule = "a whole number of millionths of a token from 1";
    let tokens = parsed(&read, "--micro-tokens", rule, |text| {
        text.parse().ok().filter(|micro| *micro >= 1).map(MicroTokens)
    })?;
    let amount = match (usd, tokens) {
        (Some(_), Some(_)) => {
            let rule = "goes without --nano-usd: a payment is in one of them";
            return Err(CliError::Form { name: "--micro-tokens", rule });
        }
        (usd, tokens) => usd.map(Tender::Usd).or(tokens.map(Tender::Tokens)),
    };
    let payment = read.value("--payment").filter(|payment| !payment.is_empty());
    let payment = payment.ok_or(CliError::Missing("--payment"))?.to_owned();
    let amount = amount.ok_or(CliError::Missing("--nano-usd, or --micro-tokens,"))?;
    Ok(Deposit { data: read.data()?, key: read.only("a key")?, amount, payment })
}

fn add_key(read: &Arguments, data: PathBuf, of: &str) -> Result<AddKey, CliError> {
    if read.flag("--live") {
        let rule = "goes without --of: an account's money is of one kind";
        return Err(CliError::Form { name: "--live", rule });
    }
    let rule = "of jobs, datasets, sites, account and keys, with commas between";
    let scopes = parsed(read, "--scopes", rule, |text| Scopes::parse(text).ok())?;
    let name = read.value("--name").unwrap_or_default().to_owned();
    Ok(AddKey { data, of: of.to_owned(), scopes: scopes.unwrap_or(Scopes::ALL), name })
}

fn token_rate(mut arguments: impl Iterator<Item = String>) -> Result<Command, CliError> {
    let verb = arguments.next().ok_or(CliError::Missing("a verb such as set"))?;
    if verb != "set" {
        return Err(CliError::Command(format!("token-rate {verb}")));
    }
    let read = Arguments::read(arguments, &["--data"], &[])?;
    let (name, rule) = ("nano-USD of a token", "a whole number from 1,000 to 10^15");
    let data = read.data()?;
    let nano_usd = read.only("what a token is worth, in nano-USD,")?.parse().ok();
    let nano_usd = nano_usd.filter(|rate| (RATE_MIN..=RATE_MAX).contains(rate));
    Ok(Command::SetTokenRate { data, nano_usd: nano_usd.ok_or(CliError::Form { name, rule })? })
}

fn withdrawals(mut arguments: impl Iterator<Item = String>) -> Result<Command, CliError> {
    let verb = arguments.next().ok_or(CliError::Missing("a verb such as list"))?;
    let decision = match verb.as_str() {
        "list" => {
            let read = Arguments::read(arguments, &["--data"], &["--all"])?;
            read.none()?;
            return Ok(Command::ListWithdrawals { data: read.data()?, all: read.flag("--all") });
        }
        "begin" => Decision::Begin,
        "approve" => Decision::Approve,
        "refuse" => Decision::Refuse,
        verb => return Err(CliError::Command(format!("withdrawals {verb}"))),
    };
    let read = Arguments::read(arguments, &["--data", "--note"], &[])?;
    let (data, note) = (read.data()?, read.value("--note").map(str::to_owned));
    let id = read.only("a withdrawal's id")?;
    let id = id.parse().map_err(|rule| CliError::Form { name: "a withdrawal's id", rule })?;
    Ok(Command::DecideWithdrawal(Decide { data, id, decision, note }))
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
        "verify-model" => {
            verify_model(arguments, environment).map(Box::new).map(Command::VerifyModel)
        }
        "audit" => {
            let read = Arguments::read(arguments, &["--data"], &[])?;
            read.none()?;
            Ok(Command::Audit { data: read.data()? })
        }
        "contribute" => contribute(arguments, environment).map(Box::new).map(Command::Contribute),
        "deposit" => deposit(arguments).map(Command::Deposit),
        "withdrawals" => withdrawals(arguments),
        "token-rate" => token_rate(arguments),
        "verify-receipt" => {
            let read = Arguments::read(arguments, &["--key"], &[])?;
            let key = parsed(&read, "--key", "64 lower-case hex digits", |text| text.parse().ok())?;
            Ok(Command::VerifyReceipt { receipt: read.only("a receipt")?.into(), key })
        }
        "keys" | "sites" | "signing" => {
            let verb = arguments.next().ok_or(CliError::Missing("a verb such as create"))?;
            let names = match (first.as_str(), verb.as_str()) {
                ("keys", "create") => &["--data", "--of", "--scopes", "--name"][..],
                _ => &["--data"],
            };
            let read = Arguments::read(arguments, names, &["--live"])?;
            let data = read.data()?;
            match (first.as_str(), verb.as_str()) {
                ("keys", "create") => {
                    read.none()?;
                    if let Some(of) = read.value("--of") {
                        return add_key(&read, data, of).map(Command::AddKey);
                    }
                    if let Some(name) =
                        ["--scopes", "--name"].into_iter().find(|n| read.value(n).is_some())
                    {
                        return Err(CliError::Form { name, rule: "goes with --of" });
                    }
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
        let line = "keys create --data d --of rk_test_abcdef --scopes jobs,keys";
        let scopes = Scopes::parse("jobs keys").expect("scopes");
        let of = "rk_test_abcdef".to_owned();
        let add = AddKey { data: "d".into(), of, scopes, name: String::new() };
        assert_eq!(read(line), Ok(Command::AddKey(add)));
        for (more, at) in [("--of x --live", "--live"), ("--scopes jobs", "--scopes")] {
            let error = read(&format!("keys create --data d {more}"));
            assert!(matches!(&error, Err(CliError::Form { name, .. }) if *name == at), "{error:?}");
        }
        let rate = Command::SetTokenRate { data: "d".into(), nano_usd: 50_000_000 };
        assert_eq!(read("token-rate set --data d 50000000"), Ok(rate));
        for bad in ["999", "0", "1.5", "1000000000000001"] {
            let line = format!("token-rate set --data d {bad}");
            assert!(matches!(read(&line), Err(CliError::Form { .. })), "{bad}");
        }
        let list = Command::ListWithdrawals { data: "d".into(), all: true };
        assert_eq!(read("withdrawals list --data d --all"), Ok(list));
        let (id, decision) = (WithdrawalId(7), Decision::Approve);
        let decide = Decide { data: "d".into(), id, decision, note: Some("n".into()) };
        let line = "withdrawals approve wd_0000000000000007 --data d --note n";
        assert_eq!(read(line), Ok(Command::DecideWithdrawal(decide)));
        assert!(matches!(read("withdrawals refuse 7 --data d"), Err(CliError::Form { .. })));
        assert_eq!(read(""), Ok(Command::Help));
        assert_eq!(read("audit --data d"), Ok(Command::Audit { data: "d".into() }));
        let (key, payment, amount) = ("rk".to_owned(), "p".to_owned(), NanoUsd(5));
        let deposit = Deposit { data: "d".into(), key, amount: amount.into(), payment };
        let line = "deposit rk --data d --nano-usd 5 --payment p";
        assert_eq!(read(line), Ok(Command::Deposit(deposit.clone())));
        let deposit = Deposit { amount: Tender::Tokens(MicroTokens(7)), ..deposit };
        let line = "deposit rk --data d --micro-tokens 7 --payment p";
        assert_eq!(read(line), Ok(Command::Deposit(deposit)));
        for amount in ["-5", "0", "1.5", "9223372036854775808", "7 --nano-usd 5"] {
            let line = format!("deposit rk --data d --micro-tokens {amount} --payment p");
            assert!(matches!(read(&line), Err(CliError::Form { .. })), "{amount}");
        }
        for amount in ["-5", "0", "1000000000000001", "1.5"] {
            let line = format!("deposit rk --data d --nano-usd {amount} --payment p");
            assert!(matches!(read(&line), Err(CliError::Form { .. })), "{amount}");
        }
        let replay = Replay { evidence: "e".into(), kernel: KERNEL.into(), key: None };
        assert_eq!(read("replay e"), Ok(Command::Replay(replay.clone())));
        let key = "00".repeat(32);
        let pinned = Replay { kernel: "k".into(), key: Some([0; 32]), ..replay };
        let line = format!("replay --kernel k e --key {key}");
        assert_eq!(read(&line), Ok(Command::Replay(pinned)));
    }

    #[test]
    fn a_model_is_checked_from_files_or_from_a_coordinator() {
        let Ok(Command::VerifyModel(asked)) = read("verify-model b.tar --model m") else {
            panic!("not read");
        };
        let source = Source::Files { bundle: "b.tar".into(), model: "m".into() };
        assert_eq!((&asked.source, asked.evaluate), (&source, false));
        assert_eq!(asked.draw, Draw::Rounds(SAMPLE_DEFAULT));
        let line = "verify-model --url http://x --job job_0000000000000007 --key k --all \
                    --seed 0x0000000000000009 --kernel k.wasm";
        let Ok(Command::VerifyModel(asked)) = read(line) else { panic!("not read") };
        let (url, key) = ("http://x".to_owned(), "k".to_owned());
        let source = Source::Coordinator { url, job: raven_protocol::JobId(7), key };
        assert_eq!((&asked.source, asked.draw), (&source, Draw::All));
        assert_eq!((asked.seed, asked.evaluate), (Some(9), true));
        let told = |line: &str| read(line).expect_err("refused").to_string();
        assert_eq!(told("verify-model b.tar"), "--model is needed");
        assert_eq!(told("verify-model --model m"), "a bundle is needed");
        assert!(told("verify-model b --model m --sample 0").starts_with("--sample: "));
        assert!(told("verify-model b --model m --sample 3 --all").starts_with("--all: "));
        assert!(told("verify-model b --model m --signer abc").starts_with("--signer: "));
        assert!(told("verify-model --url http://x --job 7 --key k").starts_with("--job: "));
    }

    #[test]
    fn a_contributor_needs_an_address_and_a_sensible_share() {
        let home = |name: &str| (name == "HOME").then(|| "/home/ann".to_owned());
        let read = |line: &str| parse(line.split_whitespace().map(str::to_owned), &home);
        let Ok(Command::Contribute(asked)) = read("contribute --to http://host:81") else {
            panic!("not read");
        };
        assert_eq!(asked.to.to_string(), "http://host:81");
        assert_eq!((asked.share, asked.workers, asked.yes), (0.5, None, false));
        assert_eq!(asked.key, Path::new("/home/ann/.raven/contributor-host-81.key"));
        let line = "contribute --to http://host --share 0.1 --workers 3 --key k --yes";
        let Ok(Command::Contribute(asked)) = read(line) else { panic!("not read") };
        assert_eq!((asked.share, asked.workers, asked.yes), (0.1, Some(3), true));
        let told = |line: &str| read(line).expect_err("refused").to_string();
        assert_eq!(told("contribute"), "--to is needed");
        assert!(told("contribute --to host").starts_with("--to: must begin"));
        for share in ["0", "-1", "1.01", "NaN", "x"] {
            let line = format!("contribute --to http://host --share {share}");
            assert!(told(&line).starts_with("--share: "), "{share}");
        }
        for workers in ["0", "257", "1.5"] {
            let line = format!("contribute --to http://host --workers {workers}");
            assert!(told(&line).starts_with("--workers: "), "{workers}");
        }
        let homeless = "contribute --to http://host".split_whitespace().map(str::to_owned);
        assert_eq!(parse(homeless, &|_| None), Err(CliError::Missing("--key")));
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
        let key = CliError::Form { name: "--key", rule: "64 lower-case hex digits" };
        assert_eq!(read("replay e --key 00"), Err(key));
        assert_eq!(read("keys revoke --data d"), Err(CliError::Missing("a key")));
    }
}
