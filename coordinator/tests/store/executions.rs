//! What jobs that have ended say of the next one's price, and what of their work is no
//! work after all.

use crate::file::write_older;
use crate::server::{Server, job, record};
use raven_coordinator::store::{Book, Store};
use raven_engine::allowance::MFLOP_ENOUGH;
use raven_engine::{
    Beneficiary, Cause, CompletedReason, ContributorId, Credit, JobPhase, JobState, Metrics, Payer,
    Proof, Record, Void, rates,
};
use raven_protocol::{Backend, BlobId, DeviceClass, JobId, ResultDigest, SessionId, TaskId};
use serde_json::{Value, json};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

fn persist(server: &Server, record: &Record) {
    server.runtime.block_on(server.app.store.persist(record)).expect("persisted");
}

/// A round of two tasks of three and a half Mflop, done by the contributors 1 and 2.
fn round(job: JobId, step: u32) -> Record {
    let credit = |part: u32, who: u8| Credit {
        task: TaskId { job, round: step - 1, stage: 0, part },
        contributor: ContributorId([who; 32]),
        session: SessionId(who.into()),
        site: None,
        beneficiary: Beneficiary::default(),
        flops: 3_500_000,
        digest: ResultDigest([part as u8; 32]),
        rate: rates::rate(DeviceClass::Desktop),
        backend: Backend::Cpu,
        proof: Proof::Single,
        payer: Payer::Job,
        attempt: 0,
    };
    Record {
        train: Some(Metrics { loss_sum: 1.0, correct: 1.0, count: 2.0 }),
        weights: Some(BlobId([step as u8; 32])),
        credits: vec![credit(0, 1), credit(1, 2)],
        contributors: 2,
        ..record(job, step)
    }
}

fn posted(server: &Server, document: &Value) -> JobId {
    let answer = server.post("/v1/jobs", document).json();
    answer["id"].as_str().expect("an id").parse().expect("an id")
}

fn run(server: &Server, statement: &'static str) {
    let options = SqliteConnectOptions::new().filename(server.folder.path().join("raven.sqlite"));
    server.runtime.block_on(async {
        let mut connection = options.connect().await.expect("connects");
        sqlx::query(statement).execute(&mut connection).await.expect("runs");
    });
}

/// Mflop of tasks and of executions, by mode.
fn sums(server: &Server) -> Vec<(String, i64, i64)> {
    let options = SqliteConnectOptions::new().filename(server.folder.path().join("raven.sqlite"));
    server.runtime.block_on(async {
        let mut connection = options.connect().await.expect("connects");
        let read = sqlx::query_as("SELECT mode, tasks, executions FROM executions ORDER BY mode");
        read.fetch_all(&mut connection).await.expect("answers")
    })
}

fn allowance(server: &Server, document: &Value) -> Value {
    let quote = server.post("/v1/quotes", document).json();
    let modes = quote["price"]["by_verification"].as_array().expect("modes").clone();
    let own = modes.iter().find(|mode| mode["verification"] == quote["verification"]);
    let shown = quote["allowance"]["executions_thousandths"].clone();
    assert_eq!(own.expect("its mode")["allowance_thousandths"], shown);
    assert_eq!(own.expect("its mode")["most_nano_usd"], quote["price"]["most_nano_usd"]);
    shown
}

#[test]
fn a_job_that_ends_counts_its_tasks_and_executions_once() {
    let server = Server::start();
    let mut document = job(&server.small_dataset());
    document["training"]["epochs"] = json!(10_000);
    let id = posted(&server, &document);
    // Two tasks of each round; one of them is done by another contributor as well.
    let second = |step: u32| {
        let mut record = round(id, step);
        let twice = Credit { contributor: ContributorId([9; 32]), ..record.credits[0] };
        record.credits.push(twice);
        record
    };
    (1..=3).for_each(|step| persist(&server, &second(step)));
    assert_eq!(sums(&server), [], "it has not ended");
    let task = second(3).credits[0].task;
    let void = Void { task, attempt: 0, contributor: ContributorId([9; 32]) };
    let end = Record {
        phase: JobPhase::Completed,
        state: JobState::Completed { reason: CompletedReason::EpochsDone },
        voids: vec![void],
        ..record(id, 3)
    };
    persist(&server, &end);
    // Two of three Mflop in each round, and what is left of those that were done twice.
    let expected = ("adaptive".to_owned(), 3 * 2 * 3, 3 * 2 * 3 + 2 * 3);
    assert_eq!(sums(&server), std::slice::from_ref(&expected), "without the void one");
    persist(&server, &end);
    server.runtime.block_on(server.app.store.end_job(id, Cause::Owner, None)).expect("ended");
    assert_eq!(sums(&server), [expected], "an end is one");
    // A job of which nothing was done says nothing.
    let idle = posted(&server, &document);
    server.runtime.block_on(server.app.store.end_job(idle, Cause::Owner, None)).expect("ended");
    assert_eq!(sums(&server).len(), 1);
}

#[test]
fn a_job_of_before_its_mode_was_written_down_ends_like_any_other() {
    let server = Server::start();
    let document = job(&server.small_dataset());
    let (recorded, unknown) = (posted(&server, &document), posted(&server, &document));
    (1..=2).for_each(|step| persist(&server, &round(recorded, step)));
    persist(&server, &round(unknown, 1));
    run(&server, "UPDATE jobs SET spec = json_remove(spec, '$.verification')");
    persist(
        &server,
        &Record {
            phase: JobPhase::Completed,
            state: JobState::Completed { reason: CompletedReason::EpochsDone },
            ..record(recorded, 2)
        },
    );
    server.runtime.block_on(server.app.store.end_job(unknown, Cause::Owner, None)).expect("ended");
    for (id, state) in [(recorded, "completed"), (unknown, "cancelled")] {
        assert_eq!(server.get(&format!("/v1/jobs/{id}")).json()["state"], state);
    }
    // It was checked as jobs are that do not say how.
    assert_eq!(sums(&server), [("adaptive".to_owned(), 18, 18)]);
}

#[test]
fn what_was_measured_is_quoted_and_a_job_keeps_what_it_was_quoted() {
    let server = Server::start();
    let document = job(&server.small_dataset());
    let triple = {
        let mut document = document.clone();
        document["verification"] = json!("triple");
        document
    };
    assert_eq!(
        (allowance(&server, &document), allowance(&server, &triple)),
        (json!(1_300), json!(4_000))
    );
    let before = posted(&server, &document);
    let escrow = |id: JobId| {
        let shown = server.get(&format!("/v1/jobs/{id}")).json();
        shown["cost"]["escrow_nano_usd"].as_i64().expect("an amount")
    };
    let held = escrow(before);
    assert_eq!(MFLOP_ENOUGH, 50_000_000);
    run(
        &server,
        "INSERT INTO executions VALUES ('test', 'adaptive', 1, 49000000, 98000000),
            ('test', 'adaptive', 2, 999999, 1999998), ('live', 'adaptive', 1, 90000000, 90000000)",
    );
    assert_eq!(allowance(&server, &document), 1_300, "too little is known of this book");
    run(
        &server,
        "UPDATE executions SET tasks = 1000000, executions = 2000000
             WHERE owner = 2 AND book = 'test'",
    );
    assert_eq!(
        (allowance(&server, &document), allowance(&server, &triple)),
        (json!(2_000), json!(4_000))
    );
    let after = posted(&server, &document);
    assert_eq!(escrow(before), held, "it keeps what it was quoted at");
    let of = |id: JobId| {
        let row = server.runtime.block_on(server.app.store.job(server.owner, id)).expect("read");
        row.expect("a job").facts.allowance.expect("kept").0
    };
    assert_eq!((of(before), of(after)), (1_300, 2_000));
    // 2 to 1.3, each rounded up.
    let exact = held as f64 * 2.0 / 1.3;
    assert!((escrow(after) as f64 - exact).abs() < 2.0, "{} of {exact}", escrow(after));
    // Whatever the sums say, there are bounds.
    run(&server, "UPDATE executions SET executions = tasks");
    assert_eq!(allowance(&server, &document), 1_100);
    run(&server, "UPDATE executions SET executions = tasks * 9");
    assert_eq!(allowance(&server, &document), 3_000);
    // A job that does not say is older, and held three executions in mode `triple`.
    let old = posted(&server, &triple);
    run(&server, "UPDATE jobs SET facts = json_remove(facts, '$.allowance')");
    let row = server.runtime.block_on(server.app.store.job(server.owner, old)).expect("read");
    let row = row.expect("a job");
    assert_eq!(row.facts.allowance(row.spec.verification).0, 3_000);
}

/// Ends a job of an owner of which a round of two tasks was done, of so many Mflop each, all
/// done three times.
fn ended(server: &Server, owner: &str, document: &Value, mflop: u64) {
    let answer = server.ask(owner, "POST", "/v1/jobs", document);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let id: JobId = answer.json()["id"].as_str().expect("an id").parse().expect("an id");
    let mut record = round(id, 1);
    for credit in record.credits.clone() {
        record
            .credits
            .extend([8, 9].map(|who| Credit { contributor: ContributorId([who; 32]), ..credit }));
    }
    record.credits.iter_mut().for_each(|credit| credit.flops = mflop * 1_000_000);
    persist(server, &record);
    server.runtime.block_on(server.app.store.end_job(id, Cause::Owner, None)).expect("ended");
}

#[test]
fn no_single_job_and_no_single_account_decides_what_all_are_quoted() {
    let server = Server::start();
    let document = job(&server.small_dataset());
    // Work of less than a Mflop counts for nothing, however many tasks it is.
    ended(&server, &server.key, &document, 0);
    assert_eq!(sums(&server), []);
    // A job of a hundred times what is enough counts for a tenth of it.
    ended(&server, &server.key, &document, 50 * MFLOP_ENOUGH);
    let tenth = (MFLOP_ENOUGH / 10) as i64;
    assert_eq!(sums(&server), [("adaptive".to_owned(), tenth, 3 * tenth)]);
    // Ten of them count for a quarter.
    (0..9).for_each(|_| ended(&server, &server.key, &document, MFLOP_ENOUGH));
    let quarter = (MFLOP_ENOUGH / 4) as i64;
    assert_eq!(sums(&server), [("adaptive".to_owned(), quarter, 3 * quarter)]);
    assert_eq!(allowance(&server, &document), 1_300, "three more accounts are needed");
    run(
        &server,
        "INSERT INTO executions VALUES ('test', 'adaptive', 1000, 37500000, 37500000),
            ('live', 'adaptive', 1000, 50000000, 125000000)",
    );
    // (3 × 12.5 + 37.5) / 50.
    assert_eq!(allowance(&server, &document), 1_500);
    let live = server.runtime.block_on(server.app.store.adaptive_allowance(Book::Live));
    assert_eq!(live.expect("read").0, 2_500);
}

#[test]
fn older_executions_fade_where_there_are_many() {
    let server = Server::start();
    let document = job(&server.small_dataset());
    run(
        &server,
        "INSERT INTO executions VALUES ('test', 'adaptive', 1000, 5000000000, 5000000000),
            ('test', 'adaptive', 1001, 1, 1), ('live', 'adaptive', 1000, 7, 7)",
    );
    ended(&server, &server.key, &document, 100);
    let half = 2_500_000_000;
    let expected = [("adaptive", 7, 7), ("adaptive", 100, 300), ("adaptive", half, half)];
    let mut left = sums(&server);
    left.sort();
    assert_eq!(left, expected.map(|(mode, tasks, all)| (mode.to_owned(), tasks, all)));
}

#[test]
fn void_work_is_in_no_sum_that_is_shown() {
    let server = Server::start();
    let mut document = job(&server.small_dataset());
    document["training"]["epochs"] = json!(10_000);
    let id = posted(&server, &document);
    let store = &server.app.store;
    let shown = || {
        let work = server.runtime.block_on(store.job_work(id)).expect("read");
        let totals = server.runtime.block_on(store.totals()).expect("read");
        let [work] = work.try_into().expect("one kind of hardware");
        // What the job's owner is shown is the same, since the job pays for all of it.
        let own = server.get(&format!("/v1/jobs/{id}")).json();
        assert_eq!(
            (&own["tasks"], &own["cost"]["flops"]),
            (&json!(work.tasks), &json!(work.flops))
        );
        (work.tasks, work.flops, totals.tasks, totals.flops)
    };
    // One that is more than a calculation, so that whole ones and the rest are taken apart.
    let mut first = round(id, 1);
    first.credits.iter_mut().for_each(|credit| credit.flops = 120_000_001);
    persist(&server, &first);
    let before = shown();
    persist(&server, &round(id, 2));
    let both = shown();
    assert!(both.0 > before.0);
    let lie = |round: u32, part: u32, who: u8| Void {
        task: TaskId { job: id, round, stage: 0, part },
        attempt: 0,
        contributor: ContributorId([who; 32]),
    };
    let task = |credit: &Credit| (credit.task, credit.contributor);
    let voids = [&first, &round(id, 2)].map(|record| {
        let (task, contributor) = task(&record.credits[1]);
        Void { task, attempt: 0, contributor }
    });
    assert_eq!(voids[0], lie(0, 1, 2));
    for _ in 0..2 {
        persist(&server, &Record { voids: voids.to_vec(), ..record(id, 2) });
        let small = round(id, 2).credits[1].flops;
        let flops = 120_000_001 + small;
        let expected = (both.0 - 2, both.1 - flops, both.2 - 2, both.3 - u128::from(flops));
        assert_eq!(shown(), expected, "once");
    }
}

/// The schema of before it was counted what of a job's work is void.
const SCHEMA_BEFORE: usize = 17;

#[tokio::test]
async fn what_is_void_in_an_older_file_is_counted_when_it_is_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("raven.sqlite");
    write_older(
        &path,
        SCHEMA_BEFORE,
        "INSERT INTO jobs (id, owner, dataset, name, listed, spec, facts, kernel, phase, tasks,
                 flops, created_ms)
             VALUES (7, 1, 1, 'old', 0, '{}', '{}', x'00', 'running', 4, 40, 5),
                 (8, 1, 1, 'other', 0, '{}', '{}', x'00', 'running', 1, 10, 5);
         INSERT INTO credits (job, round, stage, part, attempt, contributor, session, flops, digest,
                 rate, backend, proof, payer, void)
             VALUES (7, 0, 0, 0, 0, x'01', 1, 11, x'00', 1, 'cpu', 'single', 'job', 1),
                 (7, 0, 0, 1, 0, x'01', 1, 12, x'00', 1, 'cpu', 'single', 'job', 1),
                 (7, 0, 0, 2, 0, x'01', 1, 13, x'00', 1, 'cpu', 'single', 'operator', 1),
                 (7, 0, 0, 3, 0, x'01', 1, 14, x'00', 1, 'cpu', 'single', 'job', 0),
                 (8, 0, 0, 0, 0, x'01', 1, 10, x'00', 1, 'cpu', 'single', 'job', 0);",
    )
    .await;
    drop(Store::open(&path).await.expect("opened"));
    let options = SqliteConnectOptions::new().filename(&path);
    let mut now = options.connect().await.expect("a file");
    let rows: Vec<(i64, i64, i64, i64)> =
        sqlx::query_as("SELECT tasks, flops, void_tasks, void_flops FROM jobs ORDER BY id")
            .fetch_all(&mut now)
            .await
            .expect("read");
    assert_eq!(rows, [(4, 40, 2, 23), (1, 10, 0, 0)]);
}
