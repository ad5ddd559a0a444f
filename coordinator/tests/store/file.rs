//! The store's file: the next process, another process, and a newer version's.

use crate::records::{persist, round, with_job};
use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::store::StoreError;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _};
use std::path::Path;

/// Writes a file as a program wrote it that knew the first `schema` migrations, with what
/// `rows` adds to it.
pub async fn write_older(path: &Path, schema: usize, rows: &str) {
    let options =
        SqliteConnectOptions::new().filename(path).create_if_missing(true).foreign_keys(false);
    let mut old = options.connect().await.expect("a file");
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let files = std::fs::read_dir(migrations).expect("a folder");
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    let mut sql: Vec<String> =
        files[..schema].iter().map(|file| std::fs::read_to_string(file).expect("read")).collect();
    sql.push(rows.into());
    sql.push(format!("PRAGMA user_version = {schema}"));
    for sql in sql {
        old.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.expect("written");
    }
    old.close().await.expect("closed");
}

#[test]
fn another_process_may_write_in_between() {
    let (server, job) = with_job();
    let path = server.folder.path().join("raven.sqlite");
    let writing = server.runtime.spawn(async move {
        let store = raven_coordinator::store::Store::open(&path).await.expect("opens");
        for _ in 0..50 {
            store.add_key(&ApiKey::generate(KeyMode::Test)).await.expect("stored");
        }
    });
    (1..=50).for_each(|step| persist(&server, &round(job, step)));
    server.runtime.block_on(writing).expect("no panic");
}

#[test]
fn everything_is_there_in_the_next_process() {
    let (server, job) = with_job();
    (1..=5).for_each(|step| persist(&server, &round(job, step)));
    let store = &server.app.store;
    let path = server.folder.path().join("raven.sqlite");
    server.runtime.block_on(async {
        store.close().await;
        let store = raven_coordinator::store::Store::open(&path).await.expect("opens");
        store.begin_process().await.expect("begins");
        let open = store.open_jobs().await.expect("listed");
        assert_eq!((open.len(), open[0].id, open[0].step), (1, job, 5));
        let kernel = open[0].kernel;
        let (context, point) =
            raven_coordinator::job::resume(&store, &open[0], kernel).await.expect("goes on");
        assert_eq!(point.expect("a point").step, 5);
        let before = server.network.jobs.lock().expect("no panic")[0].plan.clone();
        assert_eq!(context.plan, before, "the same plan as before");
        let other = raven_protocol::KernelId([8; 32]);
        let error = raven_coordinator::job::resume(&store, &open[0], other).await;
        assert!(error.expect_err("refused").to_string().contains("kernel"));
    });
}

#[test]
fn a_file_of_a_newer_version_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("raven.sqlite");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = raven_coordinator::store::Store::open(&path).await.expect("a new file");
        store.close().await;
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
        let mut newer = options.connect().await.expect("connects");
        newer.execute("PRAGMA user_version = 1000").await.expect("changed");
        newer.close().await.expect("closed");
        let error = raven_coordinator::store::Store::open(&path).await.expect_err("refused");
        assert!(matches!(error, StoreError::NewerSchema { found: 1000, .. }), "{error}");
        let mut after = options.connect().await.expect("connects");
        let row = after.fetch_one("PRAGMA user_version").await.expect("read");
        assert_eq!(row.get::<i64, _>(0), 1000);
    });
}
