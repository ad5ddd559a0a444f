//! The coordinator's program.

use raven_coordinator::certificate;
use raven_coordinator::cli::{self, AddKey, Command, Decide, Deposit};
use raven_coordinator::config::WITHDRAWAL_LEAST;
use raven_coordinator::contribute::{Contribute, ContributeError, Wish, contribute};
use raven_coordinator::doctor::{Verdict, examine};
use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::receipt;
use raven_coordinator::referee::replay;
use raven_coordinator::secret::{Secret, SecretKind};
use raven_coordinator::serve::{data_folder, serve, store_file};
use raven_coordinator::settlement::{self, Decision, Manual, Settlement};
use raven_coordinator::signing::SigningKeys;
use raven_coordinator::store::{
    Audited, AuditedAllocations, Book, KeyId, NewAccount, NewKey, Store, mode_of, parse_site,
    requester,
};
use raven_coordinator::ticket::{TICKET_MS, signing_folder};
use raven_coordinator::time::UnixMs;
use raven_coordinator::token::PaidTokens;
use raven_engine::ledger::Added;
use raven_engine::money::NanoUsd;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// For tasks that still run when everything is done: e.g. a name that is looked up.
const LEAVE: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let environment = |name: &str| std::env::var(name).ok();
    let command = match cli::parse(std::env::args().skip(1), &environment) {
        Ok(command) => command,
        Err(error) => {
            eprint!("{error}\n\n{}", cli::usage());
            return ExitCode::from(2);
        }
    };
    log(matches!(&command, Command::Serve(config) if config.log_json));
    if let Command::Replay(asked) = &command {
        return ExitCode::from(replay::run(asked));
    }
    if let Command::VerifyModel(asked) = &command {
        return ExitCode::from(certificate::command::run(asked));
    }
    if let Command::VerifyReceipt { receipt, key } = &command {
        return ExitCode::from(receipt::run(receipt, *key));
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("coordinator: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(command));
    // An operation of the executor may still run; nobody waits for what it comes to.
    runtime.shutdown_timeout(LEAVE);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coordinator: {error}");
            ExitCode::FAILURE
        }
    }
}

fn log(json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    if json {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(true).init();
    } else {
        lines.init();
    }
}

/// Ends with the first signal. A second one ends the process at once.
async fn stop(mut terminate: Signal, mut interrupt: Signal) {
    asked(&mut terminate, &mut interrupt).await;
    tokio::spawn(async move {
        asked(&mut terminate, &mut interrupt).await;
        eprintln!("coordinator: asked twice, ending at once");
        std::process::exit(1);
    });
}

async fn asked(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Help => print!("{}", cli::usage()),
        // They need no runtime: answered before there is one.
        Command::Replay(_) | Command::VerifyModel(_) | Command::VerifyReceipt { .. } => {}
        Command::Serve(config) => {
            let terminate = signal(SignalKind::terminate())?;
            let interrupt = signal(SignalKind::interrupt())?;
            let stop = stop(terminate, interrupt);
            serve(*config, stop, |address| println!("listening on http://{address}")).await?;
        }
        Command::RotateSigning { data } => {
            data_folder(&data)?;
            let key = SigningKeys::rotate(&signing_folder(&data), UnixMs::now(), TICKET_MS)?;
            println!("{} signs from now on; tickets of older keys hold until they expire", key.id);
        }
        Command::Doctor(config) => {
            let findings = examine(&config).await;
            findings.iter().for_each(|finding| println!("{finding}"));
            let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
            if bad > 0 {
                return Err(format!("{bad} of {} checks are bad", findings.len()).into());
            }
        }
        Command::CreateKey { data, mode } => create_key(&data, mode).await?,
        Command::AddKey(asked) => add_key(&asked).await?,
        Command::RevokeKey { data, key } => {
            let key = ApiKey::parse(&key)?;
            let store = open(&data).await?;
            let revoked = store.revoke_key(&key).await?;
            println!("{}", if revoked { "revoked" } else { "unknown, or revoked before" });
        }
        Command::Audit { data } => audit(&data).await?,
        Command::Contribute(asked) => take_part(*asked).await?,
        Command::Deposit(asked) => deposit(&asked).await?,
        Command::ListWithdrawals { data, all } => list_withdrawals(&data, all).await?,
        Command::SetTokenRate { data, nano_usd } => {
            let store = open(&data).await?;
            let rate = store.set_token_rate(nano_usd, UnixMs::now).await?;
            store.close().await;
            let worth = NanoUsd(rate.nano_usd);
            println!("a token is worth {worth} USD from {} on", rate.from.rfc3339());
        }
        Command::DecideWithdrawal(asked) => decide(asked).await?,
        Command::RevokeSite { data, site } => {
            let site = parse_site(&site).ok_or("a site's id is site_ and 16 hex digits")?;
            let store = open(&data).await?;
            let revoked = store.revoke_site(site).await?;
            println!("{}", if revoked { "revoked" } else { "unknown, or revoked before" });
        }
    }
    Ok(())
}

async fn open(data: &Path) -> Result<Store, Box<dyn Error>> {
    data_folder(data)?;
    Ok(Store::open(&store_file(data)).await?)
}

/// Prints the key, and the code by which its account is had back: neither can be shown again.
async fn create_key(data: &Path, mode: KeyMode) -> Result<(), Box<dyn Error>> {
    let key = ApiKey::generate(mode);
    let store = open(data).await?;
    let code = Secret::generate(SecretKind::Recovery);
    store
        .add_account(
            &NewKey::whole(&key),
            &NewAccount { recovery: Some(&code), ..NewAccount::default() },
        )
        .await?;
    store.close().await;
    // Beside the key, so that whoever pipes one of them pipes only that.
    eprintln!("recovery code, shown once: {}", code.reveal());
    println!("{}", key.reveal());
    Ok(())
}

/// The one account of that name in the books, or with a key of that hint.
async fn account(store: &Store, text: &str) -> Result<(KeyId, Book), Box<dyn Error>> {
    match store.accounts_named(text).await?[..] {
        [found] => Ok(found),
        [] => Err("no account of that name, and no key with that hint".into()),
        _ => Err("keys of several accounts have that hint: name the account".into()),
    }
}

/// Prints another key of an account, also of one whose keys are all revoked.
async fn add_key(asked: &AddKey) -> Result<(), Box<dyn Error>> {
    let store = open(&asked.data).await?;
    let (owner, book) = account(&store, &asked.of).await?;
    let key = ApiKey::generate(mode_of(book));
    let (name, scopes) = (asked.name.as_str(), asked.scopes);
    store.add_key_of(owner, &NewKey { name, scopes, ..NewKey::whole(&key) }).await?;
    store.close().await;
    println!("{}", key.reveal());
    Ok(())
}

/// Contributes until it is asked to end. A second time ends the process at once; the two
/// signals that are a user's own pause it and let it go on.
async fn take_part(asked: Contribute) -> Result<(), Box<dyn Error>> {
    let terminate = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;
    let mut pause = signal(SignalKind::user_defined1())?;
    let mut resume = signal(SignalKind::user_defined2())?;
    let (wishes, wish) = tokio::sync::watch::channel(Wish::Work);
    let contributing = contribute(asked, wish);
    let wishing = async {
        let stop = stop(terminate, interrupt);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = pause.recv() => wishes.send_replace(Wish::Pause),
                _ = resume.recv() => wishes.send_replace(Wish::Work),
            };
        }
        wishes.send_replace(Wish::Stop);
        std::future::pending::<()>().await
    };
    let ended: Result<(), ContributeError> = tokio::select! {
        ended = contributing => ended,
        () = wishing => Ok(()),
    };
    Ok(ended?)
}

/// Computes every balance anew, and prints what whoever keeps it can compare later.
async fn audit(data: &Path) -> Result<(), Box<dyn Error>> {
    let store = open(data).await?;
    let mut faults = 0;
    for book in Book::ALL {
        match store.audit(book).await {
            Ok(Audited { entries, accounts, head }) => {
                println!("{book}: {entries} entries, {accounts} accounts, all right; head {head}");
            }
            Err(error) => {
                println!("{error}");
                faults += 1;
            }
        }
    }
    match store.audit_allocations().await {
        Ok(AuditedAllocations { lines, head }) => {
            println!("allocations: {lines} lines, all right; head {head}");
        }
        Err(error) => {
            println!("{error}");
            faults += 1;
        }
    }
    store.close().await;
    if faults > 0 { Err(format!("{faults} of the books are wrong").into()) } else { Ok(()) }
}

async fn deposit(asked: &Deposit) -> Result<(), Box<dyn Error>> {
    let key = ApiKey::parse(&asked.key)?;
    let store = open(&asked.data).await?;
    let owner = store.find_key(&key).await?.ok_or("the API key is unknown or revoked")?;
    let (amount, payment) = (asked.amount, asked.payment.clone());
    let settlement = Manual::new(store.clone(), WITHDRAWAL_LEAST);
    let added = settlement.deposit(settlement::Deposit { owner, amount, payment }).await?;
    let book = store.book_of(owner).await?;
    let paid = store.paid_tokens(book, &asked.payment).await?;
    let available = store.balance(book, requester(owner)).await?.available();
    store.close().await;
    let entered = if added == Added::New { "entered" } else { "entered before" };
    let tokens = paid.map(|PaidTokens { tokens, rate }| {
        let (micro, rate) = (tokens.0, NanoUsd(rate.nano_usd));
        format!(" as {micro} millionths of a token at {rate} USD")
    });
    let tokens = tokens.unwrap_or_default();
    println!("{entered}{tokens} in the {book} book; {available} USD are there to spend");
    Ok(())
}

/// Withdrawals of one list: an operator has decided about older ones.
const LISTED_MAX: u32 = 1_000;

async fn list_withdrawals(data: &Path, all: bool) -> Result<(), Box<dyn Error>> {
    let store = open(data).await?;
    Manual::new(store.clone(), WITHDRAWAL_LEAST).expire(UnixMs::now()).await?;
    let mut rows = store.withdrawals(None, !all, LISTED_MAX + 1).await?;
    let is_cut = rows.len() > LISTED_MAX as usize;
    rows.truncate(LISTED_MAX as usize);
    for found in rows {
        let settlement::Withdrawal { id, request, state, requested, expires, rate, .. } = found;
        let (state, requested) = (state.as_str(), requested.rfc3339());
        let expires = expires.rfc3339();
        let settlement::Request { account, amount, address, reference, .. } = request;
        let tokens = rate.and_then(|rate| rate.micro_tokens(amount));
        let tokens = tokens.map(|micro| format!(" as {micro} millionths of a token"));
        let tokens = tokens.unwrap_or_default();
        println!(
            "{id} {state} {requested} expires {expires} {amount} USD{tokens} of {account}, \
             {reference}: {address}"
        );
    }
    if is_cut {
        let first = if all { "newest" } else { "oldest" };
        eprintln!("there are more: these are the {LISTED_MAX} {first}");
    }
    store.close().await;
    Ok(())
}

async fn decide(asked: Decide) -> Result<(), Box<dyn Error>> {
    let store = open(&asked.data).await?;
    let settlement = Manual::new(store.clone(), WITHDRAWAL_LEAST);
    let is_begun = asked.decision == Decision::Begin;
    let decided = settlement.decide(asked.id, asked.decision, asked.note, UnixMs::now()).await?;
    store.close().await;
    let settlement::Request { account, amount, address, .. } = decided.request;
    println!("{} {}: {amount} USD of {account} to {address}", decided.id, decided.state.as_str());
    if is_begun {
        println!("pay it now, and then approve it; refuse it where it was not paid");
    }
    Ok(())
}
