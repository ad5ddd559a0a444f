//! What jobs that have ended say of the next one's price, and what of their work is no
//! work after all.

mod server;

use raven_engine::allowance::TASKS_ENOUGH;
use raven_engine::{
    Beneficiary, Cause, CompletedReason, ContributorId, Credit, JobPhase, JobState, Metrics, Payer,
    Proof, Record, Void, rates,
};
use raven_protocol::{Backend, BlobId, DeviceClass, JobId, ResultDigest, SessionId, TaskId};
use serde_json::{Value, json};
use server::{Server, job, record};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

fn persist(server: &Server, record: &Record) {
    server.runtime.block_on(server.app.store.persist(record)).expect("persisted");
}

/// A round of two tasks of a thousand flops, done by the contributors 1 and 2.
fn round(job: JobId, step: u32) -> Record {
    let credit = |part: u32, who: u8| Credit {
        task: TaskId { job, round: step - 1, stage: 0, part },
        contributor: ContributorId([who; 32]),
        session: SessionId(who.into()),
        site: None,
        beneficiary: Beneficiary::default(),
        flops: 1_000,
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
    let per_round = round(id, 1).credits.len() as i64;
    let expected = ("adaptive".to_owned(), 3 * per_round, 3 * per_round + 2);
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
    assert_eq!(TASKS_ENOUGH, 10_000);
    run(&server, "INSERT INTO executions VALUES ('adaptive', 9999, 19998)");
    assert_eq!(allowance(&server, &document), 1_300, "too little is known");
    run(&server, "UPDATE executions SET tasks = 10000, executions = 20000");
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
