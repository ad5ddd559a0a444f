//! The database: what it takes, what it refuses, and what it says after a repeat.

mod accounts;
mod books;
mod chain;
mod earlier;
mod evidence;
mod executions;
mod file;
mod grouped;
mod holds;
mod money_walks;
mod moved;
mod partners;
mod pay;
mod pay_cuts;
mod records;
mod repeats;
#[path = "../server/mod.rs"]
mod server;
mod settled;
mod settlement;
mod token_deposits;
mod trust;
