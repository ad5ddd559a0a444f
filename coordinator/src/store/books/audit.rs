//! The auditor over the stored books.

use super::{Book, row};
use crate::store::{Store, StoreError, failed};
use crate::time::UnixMs;
use crate::token::{MicroTokens, TokenRate};
use raven_engine::ledger::{Account, Auditor, Balance, ChainHash, Fault};
use raven_engine::money::NanoUsd;
use sqlx::Row as _;

/// Entries that are read at once.
const PAGE: i64 = 10_000;

/// Why books do not stand up to the auditor.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("the {book} books are wrong: {fault}")]
    Fault { book: Book, fault: Fault },
    #[error("the {book} books are wrong: hold {hold} is {found}, its entries say {expected}")]
    Hold { book: Book, hold: String, found: String, expected: &'static str },
    #[error("the {book} books are wrong: {account}: {rule}")]
    Escrow { book: Book, account: String, rule: &'static str },
    #[error("the {book} books are wrong: deposit {entry}: {rule}")]
    Deposit { book: Book, entry: String, rule: &'static str },
    #[error("the {book} books are wrong: of {expected} deposits in tokens {found} are there")]
    DepositsGone { book: Book, found: i64, expected: i64 },
    #[error("the {book} books are wrong: entry {number} is missing")]
    Gap { book: Book, number: i64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an audit looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    pub entries: u64,
    pub accounts: u64,
    /// Whoever keeps it can tell later whether anything up to here was changed.
    pub head: ChainHash,
}

impl Store {
    /// Computes every balance of a book from its entries, in one view of the file,
    /// and compares.
    ///
    /// # Errors
    /// [`AuditError`]: the first thing that is wrong.
    pub async fn audit(&self, book: Book) -> Result<Audited, AuditError> {
        // One transaction, so that writers in between do not show.
        let mut view = self.readers().begin().await.map_err(failed("begin an audit"))?;
        let mut auditor = Auditor::default();
        let mut last = 0_i64;
        loop {
            let query = format!(
                "SELECT {} FROM entries e {} WHERE e.book = ?1 AND e.number > ?2
                 ORDER BY e.number LIMIT ?3",
                row::ENTRY,
                row::JOINS
            );
            let rows = sqlx::query(sqlx::AssertSqlSafe(query))
                .bind(book.as_str())
                .bind(last)
                .bind(PAGE)
                .fetch_all(&mut *view)
                .await
                .map_err(failed("read entries"))?;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                let number: i64 = super::column(row, "entries", "number")?;
                if number != last + 1 {
                    return Err(AuditError::Gap { book, number: last + 1 });
                }
                last = number;
                let (entry, hash) = (row::entry(row)?, row::hash(row)?);
                auditor.read(&entry, hash).map_err(|fault| AuditError::Fault { book, fault })?;
            }
        }
        let rows =
            sqlx::query("SELECT name, posted, held_out, held_in FROM accounts WHERE book = ?1")
                .bind(book.as_str())
                .fetch_all(&mut *view)
                .await
                .map_err(failed("read balances"))?;
        let balances: Vec<(Account, Balance)> = rows
            .iter()
            .map(|row| Ok((row::account(row, "name")?, row::balance(row)?)))
            .collect::<Result<_, StoreError>>()?;
        auditor
            .compare(balances.iter().map(|(account, balance)| (account, balance)))
            .map_err(|fault| AuditError::Fault { book, fault })?;
        compare_holds(&mut view, book).await?;
        compare_escrows(&mut view, book).await?;
        count_deposits(&mut view, book).await?;
        compare_tokens(&mut view, book).await?;
        let accounts = balances.len() as u64;
        Ok(Audited { entries: auditor.entries(), accounts, head: auditor.head() })
    }
}

/// Compares what is stored of each hold with the entry that ended it, in SQL:
/// the auditor above knows open holds only.
async fn compare_holds(
    view: &mut sqlx::Transaction<'_, sqlx::Sqlite>,
    book: Book,
) -> Result<(), AuditError> {
    let row = sqlx::query(
        "SELECT hex(h.id) AS id, COALESCE(s.state, 'missing') AS found,
             COALESCE(CASE e.action WHEN 'post_hold' THEN 'posted' WHEN 'void_hold' THEN 'voided'
                 WHEN 'expire_hold' THEN 'expired' END, 'open') AS expected
         FROM entries h
         LEFT JOIN holds s ON s.book = h.book AND s.id = h.id
         LEFT JOIN (SELECT hold, action FROM entries WHERE book = ?1 AND hold IS NOT NULL) e
             ON e.hold = h.id
         WHERE h.book = ?1 AND h.action = 'hold' AND found <> expected LIMIT 1",
    )
    .bind(book.as_str())
    .fetch_optional(&mut **view)
    .await
    .map_err(failed("compare holds"))?;
    let Some(row) = row else { return Ok(()) };
    let text = |name| row.try_get::<String, _>(name).map_err(failed("read a hold"));
    let (hold, found, expected) = (text("id")?.to_lowercase(), text("found")?, text("expected")?);
    let expected = match expected.as_str() {
        "posted" => "posted",
        "voided" => "voided",
        "expired" => "expired",
        _ => "open",
    };
    Err(AuditError::Hold { book, hold, found, expected })
}

/// Compares escrows with what their jobs say: one that has ended holds nothing, and
/// of others so much is held as their open rounds are paid.
async fn compare_escrows(
    view: &mut sqlx::Transaction<'_, sqlx::Sqlite>,
    book: Book,
) -> Result<(), AuditError> {
    let row = sqlx::query(
        "SELECT a.name AS name, j.ended_ms IS NOT NULL AS ended FROM jobs j
         JOIN accounts a ON a.book = j.book AND a.name = 'escrow:job_' || printf('%016x', j.id)
         WHERE j.book = ?1 AND CASE WHEN j.ended_ms IS NOT NULL
             THEN a.posted <> 0 OR a.held_out <> 0
             ELSE a.held_out <> (SELECT COALESCE(SUM(h.amount), 0) FROM pay_holds h
                 WHERE h.job = j.id AND h.payer = 'job') END LIMIT 1",
    )
    .bind(book.as_str())
    .fetch_optional(&mut **view)
    .await
    .map_err(failed("compare escrows"))?;
    let Some(row) = row else { return Ok(()) };
    let account = row.try_get("name").map_err(failed("read an escrow"))?;
    let rule = match row.try_get("ended").map_err(failed("read an escrow"))? {
        true => "its job has ended, and it is not empty",
        false => "what is held of it is not what its open rounds are paid",
    };
    Err(AuditError::Escrow { book, account, rule })
}

/// Compares how many deposits in tokens there are, of both books, with how many there were:
/// SQLite keeps the last number that it gave, also where what had it is gone.
async fn count_deposits(
    view: &mut sqlx::Transaction<'_, sqlx::Sqlite>,
    book: Book,
) -> Result<(), AuditError> {
    let (found, expected): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT COUNT(*) FROM token_deposits), COALESCE(
             (SELECT seq FROM sqlite_sequence WHERE name = 'token_deposits'),
             (SELECT max(number) FROM token_deposits), 0)",
    )
    .fetch_one(&mut **view)
    .await
    .map_err(failed("count deposits"))?;
    if found == expected { Ok(()) } else { Err(AuditError::DepositsGone { book, found, expected }) }
}

/// Compares deposits that were paid in tokens with their entries: each is one of what the
/// tokens were worth at the rate that was in force.
async fn compare_tokens(
    view: &mut sqlx::Transaction<'_, sqlx::Sqlite>,
    book: Book,
) -> Result<(), AuditError> {
    let rows = sqlx::query(
        "SELECT lower(hex(t.entry)) AS entry, t.micro_tokens AS tokens, r.nano_usd AS rate,
             t.rate AS from_ms, e.amount AS amount, COALESCE(e.reason, '') AS reason,
             t.rate IS (SELECT max(from_ms) FROM token_rates WHERE from_ms <= e.at_ms) AS in_force
         FROM token_deposits t LEFT JOIN token_rates r ON r.from_ms = t.rate
         LEFT JOIN entries e ON e.book = t.book AND e.id = t.entry WHERE t.book = ?1",
    )
    .bind(book.as_str())
    .fetch_all(&mut **view)
    .await
    .map_err(failed("compare deposits"))?;
    for row in &rows {
        let number = |name| row.try_get::<Option<i64>, _>(name).map_err(failed("read a deposit"));
        let text = |name| row.try_get::<String, _>(name).map_err(failed("read a deposit"));
        let from = UnixMs(number("from_ms")?.unwrap_or(0));
        let rate = number("rate")?.map(|nano_usd| TokenRate { from, nano_usd });
        let tokens = MicroTokens(number("tokens")?.unwrap_or(0));
        let rule = if text("reason")? != "deposit" {
            "it has no entry"
        } else if rate.is_none() {
            "its rate is gone"
        } else if rate.and_then(|rate| rate.worth(tokens)) != number("amount")?.map(NanoUsd) {
            "it is not what its tokens were worth"
        } else if number("in_force")? != Some(1) {
            "its rate was not in force"
        } else {
            continue;
        };
        return Err(AuditError::Deposit { book, entry: text("entry")?, rule });
    }
    Ok(())
}
