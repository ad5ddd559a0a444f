//! How SQLite reads what grows for ever: by an index, whatever it makes of its statistics.

use super::{Store, account_links, contributors, desk, funnel, gifts, partners, repeated, wallets};
use sqlx::Row as _;

/// Tables that no query of these may walk through.
const GROWING: [&str; 9] = ["e", "f", "c", "a", "s", "n", "d", "due", "sessions"];

async fn plan(store: &Store, sql: &'static str) -> Vec<String> {
    let explain = format!("EXPLAIN QUERY PLAN {sql}");
    let rows = sqlx::query(sqlx::AssertSqlSafe(explain)).fetch_all(store.readers()).await;
    rows.expect("explained").iter().map(|row| row.get::<String, _>("detail")).collect()
}

#[tokio::test]
async fn nothing_walks_through_the_ledger() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("raven.sqlite")).await.expect("opened");
    let queries = [
        contributors::OWN_DAYS,
        funnel::EARNINGS[0],
        funnel::EARNINGS[1],
        funnel::VISITORS,
        funnel::WORK_OF_SESSION,
        desk::OPEN_WORK,
        desk::LINES_OF,
        repeated::OPEN_WORDS,
        partners::WAYS,
        partners::NETWORKS_OF_DAY,
        partners::TOTALS_OF_DAY,
        partners::ADD_WORKED,
        wallets::TO_COLLECT,
        wallets::DUE,
        account_links::TO_FORWARD,
        gifts::TO_GIVE,
    ];
    for sql in queries {
        let plan = plan(&store, sql).await;
        for name in GROWING {
            let walks = plan.iter().any(|step| {
                step == &format!("SCAN {name}") || step.starts_with(&format!("SCAN {name} "))
            });
            assert!(!walks, "{name}: {plan:#?}\n{sql}");
        }
    }
    // The days alone, and not all that the account has ever had.
    for sql in [contributors::OWN_DAYS, funnel::EARNINGS[0], funnel::EARNINGS[1]] {
        let plan = plan(&store, sql).await;
        let by_number = plan.iter().find(|step| step.starts_with("SEARCH e "));
        assert!(by_number.is_some_and(|step| step.contains("AND number>?")), "{plan:#?}");
        assert!(plan.iter().any(|step| step.contains("entries_by_time")), "{plan:#?}");
    }
    // Of a year's sessions the entries of the index alone.
    let visitors = plan(&store, funnel::VISITORS).await;
    let covered = "SEARCH sessions USING COVERING INDEX sessions_by_site ";
    assert!(visitors.iter().any(|step| step.starts_with(covered)), "{visitors:#?}");
    // Each of the accounts alone, and not all lines of the job for each of them.
    let lines = plan(&store, desk::LINES_OF).await;
    assert!(lines.iter().any(|step| step.contains("(job=? AND account=?)")), "{lines:#?}");
    // Open rounds first: there are few, and a job's credits are many.
    for sql in [desk::OPEN_WORK, repeated::OPEN_WORDS] {
        let plan = plan(&store, sql).await;
        let first = plan.first().expect("a step");
        assert!(first.starts_with("SEARCH r ") || first.starts_with("SEARCH open "), "{plan:#?}");
        assert!(plan[1].contains("job=? AND round=?"), "{plan:#?}");
    }
}
