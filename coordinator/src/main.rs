//! The coordinator's program.

use raven_coordinator::cli::{self, Command, USAGE};
use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::serve::{data_folder, serve, store_file};
use raven_coordinator::store::{Store, parse_site};
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let command = match cli::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            eprint!("{error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coordinator: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Help => print!("{USAGE}"),
        Command::Serve(config) => {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let stop = async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            serve(config, stop, |address| println!("listening on http://{address}")).await?;
        }
        Command::CreateKey { data, mode } => create_key(&data, mode).await?,
        Command::RevokeKey { data, key } => {
            let key = ApiKey::parse(&key)?;
            let store = open(&data).await?;
            let revoked = store.revoke_key(&key).await?;
            println!("{}", if revoked { "revoked" } else { "unknown, or revoked before" });
        }
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

/// Prints the key: it cannot be shown again.
async fn create_key(data: &Path, mode: KeyMode) -> Result<(), Box<dyn Error>> {
    let key = ApiKey::generate(mode);
    let store = open(data).await?;
    store.add_key(&key).await?;
    store.close().await;
    println!("{}", key.reveal());
    Ok(())
}
