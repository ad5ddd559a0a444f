//! The books: who has what, to the nano-USD, and why.
//!
//! `engine/LEDGER.md` holds the rules on one page. [`pay`] turns verified work
//! into entries, [`books`] says what may be entered, [`entry`] chains what was,
//! and [`audit`], which shares no arithmetic with them, computes every balance again.

pub mod account;
pub mod audit;
pub mod books;
pub mod entry;
pub mod pay;

pub use account::{Account, RequesterId};
pub use audit::{Auditor, Fault};
pub use books::{Added, Balance, Batch, Books, Changes, Hold, HoldState, MemoryBooks, Refusal};
pub use entry::{Action, ChainHash, Entry, EntryId, Reason, Transfer, UnixMillis};
pub use pay::{Exact, JobPay, Paid, PayError, RoundKey, Voided, Work};
