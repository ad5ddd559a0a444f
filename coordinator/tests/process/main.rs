//! The coordinator's own program, started, killed and started again.

mod certificates;
mod commands;
mod commands_receipt;
mod contribute;
mod divergence;
mod hostile_http;
mod impostor;
mod kills;
mod mail;
mod mail_tls;
mod money_commands;
mod native;
mod operations;
#[path = "../server/mod.rs"]
mod server;
mod soak;
#[path = "../sold/mod.rs"]
mod sold;
mod storage;
#[path = "../support/mod.rs"]
mod support;
