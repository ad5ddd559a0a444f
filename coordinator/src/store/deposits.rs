//! Money that came in: an entry of the books and, where it came in tokens, how many
//! and at which rate.

use super::books::{self, Book};
use super::token_rates;
use super::{KeyId, Store, StoreError, column, failed, requester};
use crate::settlement::{DEPOSIT_MAX, SettlementError, Tender};
use crate::time::UnixMs;
use crate::token::{MicroTokens, PaidTokens, TokenRate};
use raven_engine::ledger::{Account, Action, Added, Entry, EntryId, Reason, Refusal, Transfer};
use raven_engine::money::NanoUsd;
use sqlx::Transaction;
use sqlx::sqlite::{Sqlite, SqliteRow};

type Tx = Transaction<'static, Sqlite>;

/// The columns that [`read`] reads, of a query that joins `t` and `r` to entries `e`.
pub(super) const TOKENS: &str =
    "t.micro_tokens AS paid_tokens, r.from_ms AS paid_from_ms, r.nano_usd AS paid_nano_usd";
/// Those joins.
pub(super) const JOINS: &str = "LEFT JOIN token_deposits t ON t.book = e.book AND t.entry = e.id
    LEFT JOIN token_rates r ON r.from_ms = t.rate";

/// What a deposit was paid in, where it was tokens.
pub(super) fn read(row: &SqliteRow) -> Result<Option<PaidTokens>, StoreError> {
    let tokens: Option<i64> = column(row, "token_deposits", "paid_tokens")?;
    let Some(tokens) = tokens.map(MicroTokens) else { return Ok(None) };
    // The auditor says it where the rate is gone; whoever looks at the statement still can.
    let from: Option<i64> = column(row, "token_rates", "paid_from_ms")?;
    let Some(from) = from.map(UnixMs) else { return Ok(None) };
    let rate = TokenRate { from, nano_usd: column(row, "token_rates", "paid_nano_usd")? };
    Ok(Some(PaidTokens { tokens, rate }))
}

fn id_of(payment: &str) -> EntryId {
    EntryId::of("deposit", &[payment.as_bytes()])
}

impl Store {
    /// Enters a payment that came in from outside. The same payment is entered once, and
    /// in tokens at the rate of the first time.
    ///
    /// # Errors
    /// [`SettlementError`]: also where the payment was entered for another amount or owner,
    /// or in the other kind of money; the books are as before.
    pub async fn deposit(
        &self,
        owner: KeyId,
        amount: impl Into<Tender>,
        payment: &str,
    ) -> Result<Added, SettlementError> {
        self.deposit_by(UnixMs::now, owner, amount, payment).await
    }

    /// The same by another clock.
    ///
    /// # Errors
    /// Those of [`Store::deposit`].
    pub async fn deposit_by(
        &self,
        clock: impl FnOnce() -> UnixMs,
        owner: KeyId,
        amount: impl Into<Tender>,
        payment: &str,
    ) -> Result<Added, SettlementError> {
        let (book, id) = (self.book_of(owner).await?, id_of(payment));
        let mut transaction = self.begin().await?;
        let mut at = clock();
        let known = find(&mut transaction, book, id).await?;
        let (amount, new) = match (amount.into(), known) {
            (Tender::Usd(amount), None) => (amount, None),
            (Tender::Tokens(tokens), Some(paid)) if paid.tokens == tokens => {
                (worth(paid.rate, tokens)?, None)
            }
            (Tender::Usd(_) | Tender::Tokens(_), Some(_)) => {
                return Err(Refusal::IdReused { id }.into());
            }
            (Tender::Tokens(_), None) if book == Book::Test => {
                return Err(SettlementError::PlayMoney);
            }
            (Tender::Tokens(tokens), None) => {
                let rate = token_rates::newest(&mut transaction).await?;
                let rate = rate.ok_or(SettlementError::NoTokenRate)?;
                at = token_rates::not_before(Some(rate.from.0), at)?;
                (worth(rate, tokens)?, Some(PaidTokens { tokens, rate }))
            }
        };
        let (debit, credit) = (Account::External, requester(owner));
        let transfer = Transfer { debit, credit, amount, reason: Reason::Deposit };
        let entry = Entry { id, at: at.0, action: Action::Post(transfer) };
        let added = books::enter(&mut transaction, book, &[entry]).await?;
        let added = added.first().copied().unwrap_or(Added::Before);
        if let Some(paid) = new {
            // A payment that was entered in dollars is another one, also where both come to
            // the same amount.
            if added == Added::Before {
                return Err(Refusal::IdReused { id }.into());
            }
            note(&mut transaction, book, id, paid).await?;
        }
        transaction.commit().await.map_err(failed("commit a deposit"))?;
        Ok(added)
    }

    /// What a payment came to that was entered in tokens.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn paid_tokens(
        &self,
        book: Book,
        payment: &str,
    ) -> Result<Option<PaidTokens>, StoreError> {
        let mut view = self.readers().begin().await.map_err(failed("look for a deposit"))?;
        find(&mut view, book, id_of(payment)).await
    }
}

/// What tokens come to in the books.
fn worth(rate: TokenRate, found: MicroTokens) -> Result<NanoUsd, SettlementError> {
    if found.0 < 1 {
        return Err(SettlementError::Tokens { found });
    }
    match rate.worth(found) {
        Some(NanoUsd(0)) => Err(SettlementError::TokensWorthNothing { found }),
        Some(amount) if amount <= DEPOSIT_MAX => Ok(amount),
        Some(_) | None => Err(SettlementError::TokensWorthTooMuch { found }),
    }
}

async fn find(
    transaction: &mut Tx,
    book: Book,
    id: EntryId,
) -> Result<Option<PaidTokens>, StoreError> {
    let query = format!(
        "SELECT {TOKENS} FROM token_deposits t JOIN token_rates r ON r.from_ms = t.rate
         WHERE t.book = ?1 AND t.entry = ?2"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(book.as_str())
        .bind(&id.0[..])
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed("look for a deposit"))?;
    row.as_ref().map_or(Ok(None), read)
}

async fn note(
    transaction: &mut Tx,
    book: Book,
    id: EntryId,
    paid: PaidTokens,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO token_deposits (book, entry, micro_tokens, rate) VALUES (?1, ?2, ?3, ?4)",
    )
    .bind(book.as_str())
    .bind(&id.0[..])
    .bind(paid.tokens.0)
    .bind(paid.rate.from.0)
    .execute(&mut **transaction)
    .await
    .map_err(failed("note what a deposit was paid in"))?;
    Ok(())
}
