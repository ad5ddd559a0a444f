//! The chain of allocations in the store: appended in the transaction of what it
//! says, and looked at by the auditor.

use super::contributors::OWN;
use super::{
    Store, StoreError, card_views, column, failed, from_sql, hash_column, sessions, to_sql,
    u32_column, u64_column, unreadable,
};
use crate::allocation::{Allocation, AllocationHash, AllocationKind, is_signed_by, receipt_hash};
use crate::runtime::operator;
use crate::runtime::session::{Raise, hex};
use crate::time::UnixMs;
use crate::view::view_id;
use raven_engine::{CategorySet, ContributorId};
use raven_protocol::{Receipt, SessionId};
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{Row as _, Transaction};

/// Lines that are read at once.
const PAGE: i64 = 10_000;

/// What an audit of the chain looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditedAllocations {
    pub lines: u64,
    /// Whoever keeps it can tell later whether anything up to here was changed.
    pub head: String,
}

/// Why the chain does not stand up to the auditor.
#[derive(Debug, thiserror::Error)]
pub enum AllocationFault {
    #[error("the allocations are wrong: line {number} is missing")]
    Gap { number: u64 },
    #[error("the allocations are wrong: line {number} or one before it was changed")]
    Chain { number: u64 },
    #[error("the allocations are wrong: line {number} names a receipt that is not its session's")]
    Receipt { number: u64 },
    #[error(
        "the allocations are wrong: what the receipt of line {number} says was shown is missing or was changed"
    )]
    View { number: u64 },
    #[error("the allocations are wrong: the receipt of line {number} is not signed by its key")]
    Signature { number: u64 },
    #[error("the allocations are wrong: the newest line of {session} is missing")]
    Last { session: SessionId },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Appends a line within the caller's transaction, dated now.
pub(super) async fn append(
    transaction: &mut Transaction<'_, Sqlite>,
    line: &Allocation,
    now: UnixMs,
) -> Result<(), StoreError> {
    let line = Allocation { at_ms: now.0, ..*line };
    let last = sqlx::query("SELECT number, hash FROM allocations ORDER BY number DESC LIMIT 1")
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed("read the last allocation"))?;
    let (number, before) = match &last {
        Some(row) => (u64_column(row, "allocations", "number")?, hash(row)?),
        None => (0, AllocationHash::START),
    };
    let number = number + 1;
    sqlx::query(
        "INSERT INTO allocations (number, at_ms, contributor, session, kind, share_ppm, cpu, gpu,
             workers, receipt, hash, refuses)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )
    .bind(super::count_to_sql(number))
    .bind(line.at_ms)
    .bind(&line.contributor.0[..])
    .bind(to_sql(line.session.0))
    .bind(line.kind.as_str())
    .bind(i64::from(line.share_ppm))
    .bind(line.cpu)
    .bind(line.gpu)
    .bind(i64::from(line.workers))
    .bind(line.receipt.map(|receipt| receipt.to_vec()))
    .bind(&before.then(number, &line).0[..])
    .bind(i64::from(line.refuses.bits()))
    .execute(&mut **transaction)
    .await
    .map_err(failed("append an allocation"))?;
    sqlx::query("UPDATE sessions SET allocation = ?2 WHERE id = ?1")
        .bind(to_sql(line.session.0))
        .bind(super::count_to_sql(number))
        .execute(&mut **transaction)
        .await
        .map(drop)
        .map_err(failed("note a session's allocation"))
}

/// Appends the last line of a session that is over, if it has any.
pub(super) async fn end(
    transaction: &mut Transaction<'_, Sqlite>,
    session: SessionId,
    kind: AllocationKind,
    now: UnixMs,
) -> Result<(), StoreError> {
    let row = sqlx::query(
        "SELECT a.* FROM sessions s JOIN allocations a ON a.number = s.allocation WHERE s.id = ?1",
    )
    .bind(to_sql(session.0))
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed("read a session's allocation"))?;
    match row {
        Some(row) => append(transaction, &read(&row)?.over(kind), now).await,
        None => Ok(()),
    }
}

impl Store {
    /// Appends a line, and the receipt that it takes; both are durable when this returns.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_allocation(
        &self,
        line: &Allocation,
        raise: Option<&Raise>,
    ) -> Result<(), StoreError> {
        let (mut transaction, now) = (self.begin().await?, UnixMs::now());
        if let Some(raise) = raise {
            sessions::raised(&mut transaction, line.session, raise, now).await?;
        }
        append(&mut transaction, line, now).await?;
        transaction.commit().await.map_err(failed("commit an allocation"))
    }

    /// The newest lines of a contributor, newest first; those before `before` where it is given.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn allocations(
        &self,
        contributor: ContributorId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<(u64, Allocation, AllocationHash)>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM allocations WHERE contributor = ?1 AND number < ?2
             ORDER BY number DESC LIMIT ?3",
        )
        .bind(&contributor.0[..])
        .bind(before.map_or(i64::MAX, super::count_to_sql))
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await
        .map_err(failed("list allocations"))?;
        let line = |row| Ok((u64_column(row, "allocations", "number")?, read(row)?, hash(row)?));
        rows.iter().map(line).collect()
    }

    /// The newest lines of a key and whom it collects for, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn own_allocations(
        &self,
        key: ContributorId,
        limit: u32,
    ) -> Result<Vec<(u64, Allocation, AllocationHash)>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT a.* FROM {OWN} k JOIN allocations a ON a.contributor = k.key
             ORDER BY a.number DESC LIMIT ?2"
        )))
        .bind(&key.0[..])
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await
        .map_err(failed("list a contributor's allocations"))?;
        let line = |row| Ok((u64_column(row, "allocations", "number")?, read(row)?, hash(row)?));
        rows.iter().map(line).collect()
    }

    /// Computes the chain from its lines, in one view of the file, and compares it with the
    /// receipts and sessions beside it.
    ///
    /// # Errors
    /// [`AllocationFault`]: the first thing that is wrong.
    pub async fn audit_allocations(&self) -> Result<AuditedAllocations, AllocationFault> {
        let mut view = self.readers().begin().await.map_err(failed("begin an audit"))?;
        let (mut last, mut head) = (0_u64, AllocationHash::START);
        loop {
            let rows = sqlx::query(
                "SELECT a.*, s.receipt AS text, s.signature AS signature FROM allocations a
                 LEFT JOIN sessions s ON s.id = a.session AND a.kind = 'consent'
                 WHERE a.number > ?1 ORDER BY a.number LIMIT ?2",
            )
            .bind(super::count_to_sql(last))
            .bind(PAGE)
            .fetch_all(&mut *view)
            .await
            .map_err(failed("read allocations"))?;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                let number = u64_column(row, "allocations", "number")?;
                if number != last + 1 {
                    return Err(AllocationFault::Gap { number: last + 1 });
                }
                let line = read(row)?;
                head = head.then(number, &line);
                if hash(row)? != head {
                    return Err(AllocationFault::Chain { number });
                }
                match signed_for(&mut view, row, &line).await? {
                    Signed::Named => {}
                    Signed::ByNobody => return Err(AllocationFault::Signature { number }),
                    Signed::Otherwise => return Err(AllocationFault::Receipt { number }),
                }
                if !is_view_kept(&mut view, row).await? {
                    return Err(AllocationFault::View { number });
                }
                last = number;
            }
        }
        let lost = sqlx::query(
            "SELECT s.id AS id FROM sessions s LEFT JOIN allocations a ON a.number = s.allocation
             WHERE s.allocation IS NOT NULL AND a.session IS NOT s.id LIMIT 1",
        )
        .fetch_optional(&mut *view)
        .await
        .map_err(failed("compare sessions"))?;
        if let Some(row) = lost {
            let session = SessionId(from_sql(column(&row, "sessions", "id")?));
            return Err(AllocationFault::Last { session });
        }
        Ok(AuditedAllocations { lines: last, head: hex(&head.0) })
    }
}

/// What is stored of the receipt that a line names.
enum Signed {
    /// It is there, signed by the line's contributor; or the line needs none and names none.
    Named,
    /// It is there, and the contributor did not sign it.
    ByNobody,
    /// It is not there.
    Otherwise,
}

/// Looks whether the receipt that a line names is stored with its session, byte by byte as
/// its contributor has signed it.
async fn signed_for(
    view: &mut Transaction<'_, Sqlite>,
    row: &SqliteRow,
    line: &Allocation,
) -> Result<Signed, StoreError> {
    if !line.kind.is_signed() {
        return Ok(if line.receipt.is_none() { Signed::Named } else { Signed::Otherwise });
    }
    let receipts: Vec<(String, String)> = match line.kind {
        AllocationKind::Consent => {
            let text: Option<String> =
                row.try_get("text").map_err(failed("read a session's receipt"))?;
            let signature: Option<String> =
                row.try_get("signature").map_err(failed("read a session's receipt"))?;
            text.zip(signature).into_iter().collect()
        }
        _ => sqlx::query_as("SELECT receipt, signature FROM session_receipts WHERE session = ?1")
            .bind(to_sql(line.session.0))
            .fetch_all(&mut **view)
            .await
            .map_err(failed("read a session's receipts"))?,
    };
    let mut named =
        receipts.into_iter().filter(|(text, _)| Some(receipt_hash(text)) == line.receipt);
    let Some((text, signature)) = named.next() else { return Ok(Signed::Otherwise) };
    let is_signed = match text.is_empty() {
        // Nobody was asked on the operator's own machine.
        true => is_operators(view, line.contributor).await?,
        false => is_signed_by(&line.contributor, &text, &signature),
    };
    Ok(if is_signed { Signed::Named } else { Signed::ByNobody })
}

async fn is_operators(
    view: &mut Transaction<'_, Sqlite>,
    contributor: ContributorId,
) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM identities WHERE name = ?1 AND value = ?2")
        .bind(operator::IDENTITY)
        .bind(&contributor.0[..])
        .fetch_optional(&mut **view)
        .await
        .map_err(failed("look for the operator's node"))?;
    Ok(row.is_some())
}

/// Whether what a session's first receipt says was shown is there as it was.
async fn is_view_kept(
    view: &mut Transaction<'_, Sqlite>,
    row: &SqliteRow,
) -> Result<bool, StoreError> {
    let text: Option<String> = row.try_get("text").map_err(failed("read a session's receipt"))?;
    let receipt = text.and_then(|text| Receipt::from_text(&text).ok());
    let Some(id) = receipt.and_then(|receipt| receipt.view) else { return Ok(true) };
    let document = card_views::document(&mut **view, id).await?;
    Ok(document.is_some_and(|document| view_id(&document) == id))
}

fn hash(row: &SqliteRow) -> Result<AllocationHash, StoreError> {
    hash_column(row, "allocations", "hash").map(AllocationHash)
}

fn read(row: &SqliteRow) -> Result<Allocation, StoreError> {
    let table = "allocations";
    let text: &str = column(row, table, "kind")?;
    let kind = AllocationKind::ALL.into_iter().find(|kind| kind.as_str() == text);
    let receipt: Option<&[u8]> = column(row, table, "receipt")?;
    let receipt = receipt.map(<[u8; 32]>::try_from).transpose();
    Ok(Allocation {
        at_ms: column(row, table, "at_ms")?,
        contributor: ContributorId(hash_column(row, table, "contributor")?),
        session: SessionId(from_sql(column(row, table, "session")?)),
        kind: kind.ok_or_else(|| unreadable(table, "kind", text))?,
        share_ppm: u32_column(row, table, "share_ppm")?,
        cpu: column(row, table, "cpu")?,
        gpu: column(row, table, "gpu")?,
        workers: u32_column(row, table, "workers")?,
        refuses: CategorySet::from_bits(
            u8::try_from(u32_column(row, table, "refuses")?).unwrap_or(u8::MAX),
        ),
        receipt: receipt.map_err(|_| unreadable(table, "receipt", "not 32 bytes"))?,
    })
}
