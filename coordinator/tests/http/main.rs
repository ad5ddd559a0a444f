//! The HTTP API, over real connections to a server with a real store.

mod account;
mod account_races;
mod authenticator;
mod card;
mod consents;
mod contributor_money;
mod contributors;
mod cost;
mod datasets;
mod gifts;
mod hostile_files;
mod idempotency;
mod images;
mod jobs;
mod keys;
mod late;
mod pages;
mod parquet;
mod passkeys;
mod people;
mod quotes;
mod receipts;
mod recover;
#[path = "../server/mod.rs"]
mod server;
mod sign_up;
mod sites;
mod spending;
mod sub_accounts;
mod tables;
mod token_rate;
mod top_up;
mod uploads;
mod verify;
mod vouched;
