//! The pay of one job as a store keeps it: its lines, the rounds that are open and what is
//! held for them. What is entered into the books is [`super::pay`]'s.

use super::books::Book;
use super::pay::Tx;
use super::{KeyId, StoreError, column, failed, hash_column, to_sql, u32_column, unreadable};
use raven_engine::ledger::pay::{Held, Line, OpenRound, Owed};
use raven_engine::ledger::{Account, Entry, EntryId, Exact, JobPay, Reason, RoundKey, Work};
use raven_engine::money::{Charge, Flops, NanoUsd, PicoUsd};
use raven_engine::{Beneficiary, ContributorId, Credit, Payer, SiteId};
use raven_protocol::JobId;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _};
use std::collections::BTreeSet;

/// Rows of one statement: SQLite binds 32,766 values at most, and a row has eight.
const ROWS_AT_ONCE: usize = 1_000;

/// What open rounds are paid for: by the few rounds that are open, not by all credits.
pub(super) const OPEN_WORK: &str = "SELECT c.attempt, c.round, c.stage, c.part, c.contributor,
         c.site, c.flops, c.rate, c.payer, c.beneficiary
     FROM pay_rounds r CROSS JOIN credits c
         ON c.job = r.job AND c.round = r.round AND c.attempt = r.attempt
     WHERE r.job = ?1 AND c.void = 0";

/// A job's lines of some accounts. By itself SQLite would read all lines of the job for each
/// of them: it knows nothing of how many there are.
pub(super) const LINES_OF: &str = "SELECT pay_lines.* FROM json_each(?2) wanted
     CROSS JOIN pay_lines INDEXED BY pay_lines_by_account
         ON job = ?1 AND account = wanted.value";

/// A job's pay, as far as it was loaded, and what of it is to be stored.
pub(super) struct Desk {
    pub(super) book: Book,
    pub(super) owner: KeyId,
    pub(super) pay: JobPay,
    /// Whether all open rounds are loaded, and not only those of this record.
    has_rounds: bool,
    pub(super) changed: BTreeSet<Line>,
    /// What is to be entered.
    pub(super) entries: Vec<Entry>,
}

impl Desk {
    /// `None` where the job has no books.
    pub(super) async fn open(
        transaction: &mut Tx<'_>,
        job: JobId,
    ) -> Result<Option<Self>, StoreError> {
        let row = sqlx::query(
            "SELECT book, owner, escrow, charged, statements FROM jobs
             WHERE id = ?1 AND book IS NOT NULL",
        )
        .bind(to_sql(job.0))
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed("read a job's escrow"))?;
        let Some(row) = row else { return Ok(None) };
        let mut pay = JobPay::new(job, NanoUsd(column(&row, "jobs", "escrow")?));
        pay.charged = exact(&row, "jobs", "charged")?;
        pay.statements = u32_column(&row, "jobs", "statements")?;
        let (book, owner) = (read_book(&row, "jobs")?, KeyId(column(&row, "jobs", "owner")?));
        Ok(Some(Desk {
            book,
            owner,
            pay,
            has_rounds: false,
            changed: BTreeSet::new(),
            entries: Vec::new(),
        }))
    }

    /// Loads the lines that `credits` add to, or all, and the open rounds where
    /// they are needed.
    pub(super) async fn load(
        &mut self,
        transaction: &mut Tx<'_>,
        credits: &[Credit],
        is_all: bool,
        with_rounds: bool,
    ) -> Result<(), StoreError> {
        if is_all {
            self.load_lines(transaction, None).await?;
        } else {
            let accounts: BTreeSet<Account> = credits
                .iter()
                .flat_map(|credit| [earner_of(credit), partner(credit.site)])
                .chain([Account::MasterNode, Account::ProtocolFee])
                .collect();
            self.load_lines(transaction, Some(&accounts)).await?;
        }
        if is_all || with_rounds {
            self.load_rounds(transaction).await?;
            self.has_rounds = true;
        }
        if is_all {
            self.load_work(transaction).await?;
        }
        Ok(())
    }

    /// Loads the lines of some accounts, or all.
    async fn load_lines(
        &mut self,
        transaction: &mut Tx<'_>,
        accounts: Option<&BTreeSet<Account>>,
    ) -> Result<(), StoreError> {
        let job = to_sql(self.pay.job.0);
        let query = match accounts {
            Some(accounts) => {
                let names: Vec<String> =
                    accounts.iter().map(|account| format!("\"{account}\"")).collect();
                sqlx::query(LINES_OF).bind(job).bind(format!("[{}]", names.join(",")))
            }
            None => sqlx::query("SELECT * FROM pay_lines WHERE job = ?1").bind(job),
        };
        let rows = query.fetch_all(&mut **transaction).await.map_err(failed("read a job's pay"))?;
        for row in &rows {
            self.pay.lines.insert(line(row, "pay_lines")?, owed(row)?);
        }
        Ok(())
    }

    async fn load_rounds(&mut self, transaction: &mut Tx<'_>) -> Result<(), StoreError> {
        let job = to_sql(self.pay.job.0);
        let rows = sqlx::query("SELECT attempt, round FROM pay_rounds WHERE job = ?1")
            .bind(job)
            .fetch_all(&mut **transaction)
            .await
            .map_err(failed("read open rounds"))?;
        for row in &rows {
            self.pay.open.insert(key(row, "pay_rounds")?, OpenRound::default());
        }
        let rows = sqlx::query("SELECT * FROM pay_holds WHERE job = ?1 ORDER BY id")
            .bind(job)
            .fetch_all(&mut **transaction)
            .await
            .map_err(failed("read holds of pay"))?;
        for row in &rows {
            let held = Held {
                id: EntryId(hash_column(row, "pay_holds", "id")?),
                line: line(row, "pay_holds")?,
                amount: column(row, "pay_holds", "amount")?,
            };
            self.pay.open.entry(key(row, "pay_holds")?).or_default().holds.push(held);
        }
        Ok(())
    }

    /// What the open rounds are paid for. Credits that are void do not count.
    async fn load_work(&mut self, transaction: &mut Tx<'_>) -> Result<(), StoreError> {
        let rows = sqlx::query(OPEN_WORK)
            .bind(to_sql(self.pay.job.0))
            .fetch_all(&mut **transaction)
            .await
            .map_err(failed("read open credits"))?;
        for row in &rows {
            let work = work_of_row(row)?;
            self.pay.open.entry(key(row, "credits")?).or_default().work.push(work);
        }
        Ok(())
    }

    /// Stores what the calls before have changed.
    pub(super) async fn store(mut self, transaction: &mut Tx<'_>) -> Result<(), StoreError> {
        self.flush(transaction).await?;
        let job = to_sql(self.pay.job.0);
        sqlx::query("UPDATE jobs SET charged = ?2, statements = ?3 WHERE id = ?1")
            .bind(job)
            .bind(self.pay.charged.0.to_string())
            .bind(i64::from(self.pay.statements))
            .execute(&mut **transaction)
            .await
            .map_err(failed("store what a job is charged"))?;
        let changed: Vec<&Line> = self.changed.iter().collect();
        for some in changed.chunks(ROWS_AT_ONCE) {
            let mut query = QueryBuilder::new(
                "INSERT INTO pay_lines (job, payer, reason, account, exact, paid) ",
            );
            query.push_values(some, |mut row, line| {
                let owed = self.pay.lines.get(line).copied().unwrap_or_default();
                row.push_bind(job)
                    .push_bind(payer(line))
                    .push_bind(line.reason.as_str())
                    .push_bind(line.account.to_string())
                    .push_bind(owed.exact.0.to_string())
                    .push_bind(owed.paid);
            });
            query.push(" ON CONFLICT DO UPDATE SET exact = excluded.exact, paid = excluded.paid");
            query.build().execute(&mut **transaction).await.map_err(failed("store pay"))?;
        }
        self.store_rounds(transaction).await
    }

    async fn store_rounds(&self, transaction: &mut Tx<'_>) -> Result<(), StoreError> {
        let job = to_sql(self.pay.job.0);
        // Where not all are loaded, none has matured or was stated anew.
        let stale: &[&str] = match self.has_rounds {
            true => {
                &["DELETE FROM pay_holds WHERE job = ?1", "DELETE FROM pay_rounds WHERE job = ?1"]
            }
            false => &[],
        };
        for sql in stale {
            sqlx::query(*sql)
                .bind(job)
                .execute(&mut **transaction)
                .await
                .map_err(failed("let go of matured rounds"))?;
        }
        let keys: Vec<&RoundKey> = self.pay.open.keys().collect();
        for some in keys.chunks(ROWS_AT_ONCE) {
            let mut query = QueryBuilder::new("INSERT INTO pay_rounds (job, attempt, round) ");
            query.push_values(some, |mut row, key| {
                row.push_bind(job)
                    .push_bind(i64::from(key.attempt))
                    .push_bind(i64::from(key.round));
            });
            let stored = query.build().execute(&mut **transaction).await;
            stored.map_err(failed("store open rounds"))?;
        }
        let open = self.pay.open.iter();
        let holds: Vec<(&RoundKey, &Held)> =
            open.flat_map(|(key, round)| round.holds.iter().map(move |held| (key, held))).collect();
        for some in holds.chunks(ROWS_AT_ONCE) {
            let mut query = QueryBuilder::new(
                "INSERT INTO pay_holds (id, job, attempt, round, payer, reason, account, amount) ",
            );
            query.push_values(some, |mut row, (key, held)| {
                row.push_bind(held.id.0.to_vec())
                    .push_bind(job)
                    .push_bind(i64::from(key.attempt))
                    .push_bind(i64::from(key.round))
                    .push_bind(payer(&held.line))
                    .push_bind(held.line.reason.as_str())
                    .push_bind(held.line.account.to_string())
                    .push_bind(held.amount);
            });
            let stored = query.build().execute(&mut **transaction).await;
            stored.map_err(failed("store holds of pay"))?;
        }
        Ok(())
    }
}

/// Whose an execution's earning is: who came through no site has nobody to leave it to.
const fn earner(
    contributor: ContributorId,
    site: Option<SiteId>,
    beneficiary: Beneficiary,
) -> Account {
    match (beneficiary, site) {
        (Beneficiary::Site, Some(site)) => Account::Site(site),
        (Beneficiary::Reserve, _) => Account::Reserve,
        (Beneficiary::Site, None) | (Beneficiary::Contributor, _) => {
            Account::Contributor(contributor)
        }
    }
}

fn earner_of(credit: &Credit) -> Account {
    earner(credit.contributor, credit.site, credit.beneficiary)
}

/// Whose the partner's share is.
fn partner(site: Option<SiteId>) -> Account {
    site.map_or(Account::Reserve, Account::Site)
}

pub(super) fn work_of(credit: &Credit) -> Work {
    Work {
        task: (credit.task.stage, credit.task.part),
        contributor: credit.contributor,
        earner: earner_of(credit),
        partner: partner(credit.site),
        charge: Charge::of(Flops(credit.flops), credit.rate),
        payer: credit.payer,
    }
}

fn work_of_row(row: &SqliteRow) -> Result<Work, StoreError> {
    let number = |name| super::u64_column(row, "credits", name);
    let contributor = ContributorId(hash_column(row, "credits", "contributor")?);
    let site: Option<i64> = column(row, "credits", "site")?;
    let site = site.map(|site| SiteId(super::from_sql(site)));
    let payer: &str = column(row, "credits", "payer")?;
    let beneficiary = match column(row, "credits", "beneficiary")? {
        "site" => Beneficiary::Site,
        "reserve" => Beneficiary::Reserve,
        "contributor" => Beneficiary::Contributor,
        other => return Err(unreadable("credits", "beneficiary", other)),
    };
    Ok(Work {
        task: (u32_column(row, "credits", "stage")?, u32_column(row, "credits", "part")?),
        contributor,
        earner: earner(contributor, site, beneficiary),
        partner: partner(site),
        charge: Charge::of(Flops(number("flops")?), PicoUsd(number("rate")?)),
        payer: if payer == "job" { Payer::Job } else { Payer::Operator },
    })
}

pub(super) fn read_book(row: &SqliteRow, table: &'static str) -> Result<Book, StoreError> {
    let text: &str = column(row, table, "book")?;
    text.parse().map_err(|error| unreadable(table, "book", error))
}

fn key(row: &SqliteRow, table: &'static str) -> Result<RoundKey, StoreError> {
    Ok(RoundKey {
        attempt: u32_column(row, table, "attempt")?,
        round: u32_column(row, table, "round")?,
    })
}

const fn payer(line: &Line) -> &'static str {
    if line.is_jobs { "job" } else { "operator" }
}

fn line(row: &SqliteRow, table: &'static str) -> Result<Line, StoreError> {
    let payer: &str = column(row, table, "payer")?;
    let text: &str = column(row, table, "reason")?;
    let reason = Reason::ALL.into_iter().find(|reason| reason.as_str() == text);
    let account: &str = column(row, table, "account")?;
    Ok(Line {
        is_jobs: payer == "job",
        reason: reason.ok_or_else(|| unreadable(table, "reason", "no reason"))?,
        account: account.parse().map_err(|error| unreadable(table, "account", error))?,
    })
}

/// An exact amount, stored as text.
pub(super) fn exact(
    row: &SqliteRow,
    table: &'static str,
    name: &'static str,
) -> Result<Exact, StoreError> {
    let text: &str = column(row, table, name)?;
    text.parse().map(Exact).map_err(|error| unreadable(table, name, error))
}

fn owed(row: &SqliteRow) -> Result<Owed, StoreError> {
    let paid = row.try_get("paid").map_err(|error| unreadable("pay_lines", "paid", error))?;
    Ok(Owed { exact: exact(row, "pay_lines", "exact")?, paid })
}
