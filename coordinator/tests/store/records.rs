//! Records are durable, idempotent and final.

use crate::server::{Server, job, record};
use axum::response::IntoResponse as _;
use raven_coordinator::http::Problem;
use raven_coordinator::runtime::JobLive;
use raven_coordinator::store::{Book, Clock, NewJob, Removal, StoreError};
use raven_coordinator::time::UnixMs;
use raven_engine::ledger::Account;
use raven_engine::money::PicoUsd;
use raven_engine::{
    Beneficiary, Category, Cause, CompletedReason, ContributorId, Credit, JobPhase, JobState,
    Metrics, Patience, Payer, Proof, Record, SetBack, SiteId, Void,
};
use raven_protocol::{Backend, BlobId, JobId, ResultDigest, SessionId, TaskId};
use serde_json::json;
use sqlx::ConnectOptions as _;

fn blob(number: u8) -> BlobId {
    BlobId([number; 32])
}

fn credit(job: JobId, round: u32, part: u32, who: u8) -> Credit {
    Credit {
        backend: Backend::Cpu,
        task: TaskId { job, round, stage: 0, part },
        contributor: ContributorId([who; 32]),
        session: SessionId(u64::MAX - u64::from(who)),
        site: Some(SiteId(u64::MAX)),
        beneficiary: Beneficiary::default(),
        flops: 1000,
        rate: PicoUsd(16_000),
        digest: ResultDigest([9; 32]),
        proof: Proof::Single,
        attempt: 0,
        payer: Payer::Job,
    }
}

fn metrics(loss_sum: f32, count: f32) -> Metrics {
    Metrics { loss_sum, correct: count / 2.0, count }
}

pub fn round(job: JobId, step: u32) -> Record {
    Record {
        train: Some(metrics(40.0 / step as f32, 20.0)),
        learning_rate: Some(0.01),
        weights: Some(blob(step as u8)),
        credits: vec![credit(job, step - 1, 0, 1), credit(job, step - 1, 1, 2)],
        contributors: 2,
        epoch: (step - 1) / 5,
        checkpoint: step.is_multiple_of(5),
        ..record(job, step)
    }
}

#[test]
fn a_setback_undoes_rounds_once_and_what_follows_is_charged() {
    let (server, job) = with_job();
    for step in 1..=7 {
        persist(&server, &round(job, step));
    }
    let shown = || server.get(&format!("/v1/jobs/{job}")).json();
    let before = shown()["cost"]["flops"].as_u64().expect("a number");
    let flops_of_round: u64 = round(job, 1).credits.iter().map(|credit| credit.flops).sum();
    assert_eq!(before, 7 * flops_of_round);
    // Step 8 diverged: its work is credited with the way back to step 5.
    let set_back = SetBack { number: 1, diverged_at: 8, loss: f32::NAN };
    let credits = round(job, 8).credits;
    let back = Record { set_back: Some(set_back), credits, ..record(job, 5) };
    persist(&server, &back);
    persist(&server, &back);
    let after = shown();
    assert_eq!((&after["round"], &after["setbacks"]), (&json!(5), &json!(1)));
    assert_eq!(after["rollbacks"], 0);
    assert_eq!(after["cost"]["flops"], 8 * flops_of_round);
    let store = &server.app.store;
    let point = server.runtime.block_on(store.resume_point(job, None)).expect("a store");
    let point = point.expect("a checkpoint");
    assert_eq!((point.step, point.setbacks, point.credited_rounds), (5, vec![5], 5));
    // What is done instead is other work.
    let credits = round(job, 6).credits.into_iter().map(|credit| Credit { attempt: 1, ..credit });
    persist(&server, &Record { credits: credits.collect(), ..round(job, 6) });
    let after = shown();
    assert_eq!((&after["round"], &after["cost"]["flops"]), (&json!(6), &json!(9 * flops_of_round)));
    let events = server.runtime.block_on(store.events_after(job, 0, 100)).expect("events");
    let setbacks: Vec<_> = events.iter().filter(|event| event.kind == "setback").collect();
    assert_eq!(setbacks.len(), 1);
    let body: serde_json::Value = serde_json::from_str(&setbacks[0].data).expect("JSON");
    assert_eq!((&body["round"], &body["undone"]), (&json!(5), &json!(2)));
    assert_eq!((&body["diverged_at"], &body["loss"]), (&json!(8), &json!(null)));
}

fn evaluation(job: JobId, step: u32, loss: f32, best: bool) -> Record {
    Record {
        evaluation: Some(metrics(loss * 20.0, 20.0)),
        weights: Some(blob(step as u8)),
        epoch: step / 5 - 1,
        checkpoint: true,
        best,
        ..record(job, step)
    }
}

pub fn persist(server: &Server, record: &Record) {
    server.runtime.block_on(server.app.store.persist(record)).expect("persisted");
}

/// A server with one job.
pub fn with_job() -> (Server, JobId) {
    let server = Server::start();
    let dataset = server.small_dataset();
    let answer = server.post("/v1/jobs", &job(&dataset));
    let id = answer.json()["id"].as_str().expect("an id").parse().expect("an id");
    (server, id)
}

#[test]
fn a_record_that_is_persisted_twice_counts_once() {
    let (server, job) = with_job();
    let store = &server.app.store;
    for step in 1..=3 {
        persist(&server, &round(job, step));
        persist(&server, &round(job, step));
    }
    // The same tasks, done again after a crash by someone else, with another digest.
    let mut again = round(job, 3);
    let digest = ResultDigest([1; 32]);
    again.credits = vec![Credit { digest, attempt: 1, ..credit(job, 2, 0, 3) }];
    persist(&server, &again);
    // It is work all the same, and paid by the operator.
    let totals = server.runtime.block_on(store.totals()).expect("totals");
    assert_eq!((totals.tasks, totals.flops), (7, 7000));
    let shown = server.get(&format!("/v1/jobs/{job}")).json();
    assert_eq!((&shown["tasks"], &shown["contributors"]), (&json!(6), &json!(3)));
    assert_eq!(shown["cost"]["flops"], 6000);
    assert_eq!(shown["cost"]["calculations"], json!(6000.0 / 50e6));
    assert_eq!(shown["round"], 3);
    assert_eq!(shown["state"], "running");
    let loss = shown["train"]["loss"].as_f64().expect("a loss");
    assert!((loss - 40.0 / 3.0 / 20.0).abs() < 1e-6);
    let events = server.runtime.block_on(store.events_after(job, 0, 100)).expect("events");
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["state", "round", "state", "round", "round"]);
    assert!(events.windows(2).all(|pair| pair[0].id < pair[1].id));
}

#[test]
fn a_proven_lie_is_void_in_the_books_and_others_are_paid() {
    let server = Server::start();
    let mut document = job(&server.small_dataset());
    document["training"]["epochs"] = json!(10_000);
    let answer = server.post("/v1/jobs", &document).json();
    assert!(answer["cost"]["escrow_nano_usd"].as_i64() > Some(200), "{answer}");
    let job: JobId = answer["id"].as_str().expect("an id").parse().expect("an id");
    let store = &server.app.store;
    let balance = |who: u8| {
        let account = Account::Contributor(ContributorId([who; 32]));
        server.runtime.block_on(store.balance(Book::Test, account)).expect("readable")
    };
    let charged = || {
        let row = server.runtime.block_on(store.job(server.owner, job)).expect("read");
        row.expect("a job").charged
    };
    // Worth 16 nano-USD each.
    let worthy = |step| {
        let mut record = round(job, step);
        record.credits.iter_mut().for_each(|credit| credit.flops = 50_000_000);
        record
    };
    for step in 1..=3 {
        persist(&server, &worthy(step));
    }
    let before = charged();
    assert_eq!((balance(1).held_in, balance(2).held_in), (48, 48));
    // The second contributor lied in its second round, and in the record that says so.
    let lie = |round| Void {
        task: TaskId { job, round, stage: 0, part: 1 },
        attempt: 0,
        contributor: ContributorId([2; 32]),
    };
    persist(&server, &Record { voids: vec![lie(1), lie(3)], ..worthy(4) });
    assert_eq!((balance(1).held_in, balance(2).held_in), (64, 32));
    assert_eq!(charged(), before, "two more, and two less");
    server.runtime.block_on(store.audit(Book::Test)).expect("the auditor agrees");
    // With the checkpoint it is theirs.
    persist(&server, &worthy(5));
    let of = |who| (balance(who).posted, balance(who).held_in);
    assert_eq!((of(1), of(2)), ((80, 0), (48, 0)));
    server.runtime.block_on(store.audit(Book::Test)).expect("the auditor agrees");
}

#[test]
fn rounds_that_are_undone_are_charged_once_and_lies_earn_nothing() {
    let (server, job) = with_job();
    for step in 1..=4 {
        persist(&server, &round(job, step));
    }
    // Contributor 2 lied in round 2, the third: it and the one after it are undone.
    let lie = TaskId { job, round: 2, stage: 0, part: 1 };
    let void = Void { task: lie, attempt: 0, contributor: ContributorId([2; 32]) };
    let back = Record { rolled_back: true, rounds_paid: 4, voids: vec![void], ..record(job, 2) };
    persist(&server, &back);
    let shown = server.get(&format!("/v1/jobs/{job}")).json();
    assert_eq!((&shown["round"], &shown["rollbacks"]), (&json!(2), &json!(1)));
    server.runtime.block_on(server.app.store.audit(Book::Test)).expect("the auditor agrees");
    let cost = shown["cost"].clone();
    let again = |step: u32| {
        let credits = round(job, step).credits.into_iter().map(|credit| Credit {
            attempt: 1,
            payer: Payer::Operator,
            contributor: ContributorId([1; 32]),
            ..credit
        });
        Record { credits: credits.collect(), ..round(job, step) }
    };
    persist(&server, &again(3));
    persist(&server, &again(4));
    let shown = server.get(&format!("/v1/jobs/{job}")).json();
    assert_eq!((&shown["round"], &shown["cost"]), (&json!(4), &cost), "doing it again is free");
    let proof = server.get(&format!("/v1/jobs/{job}/proof")).json();
    let expected = json!([{"proof": "single", "count": 12, "void": 1, "by_operator": 4}]);
    assert_eq!((&proof["executions"], &proof["rollbacks"]), (&expected, &json!(1)));
    // After a crash the rounds that were paid for are known, however far the job got.
    let resumed = server.runtime.block_on(server.app.store.open_jobs()).expect("jobs");
    assert_eq!(resumed.len(), 1);
}

#[test]
fn a_round_that_runs_again_with_another_cut_is_charged_once() {
    let (server, job) = with_job();
    let store = &server.app.store;
    // Two runs of four micro-batches each; a run's part is its first micro-batch.
    let cut_in_two = |step: u32| Record {
        credits: [(0, 1), (4, 2)].map(|(part, who)| credit(job, step - 1, part, who)).to_vec(),
        ..round(job, step)
    };
    for step in 1..=2 {
        persist(&server, &cut_in_two(step));
    }
    // After a crash both rounds run again, for other contributors, in eight runs.
    for step in 1..=2 {
        let credits = (0..8).map(|part| credit(job, step - 1, part, 3 + part as u8));
        let credits = credits.map(|credit| Credit { attempt: 1, ..credit }).collect();
        persist(&server, &Record { credits, ..round(job, step) });
    }
    let totals = || server.runtime.block_on(store.totals()).expect("totals");
    let flops = || server.get(&format!("/v1/jobs/{job}")).json()["cost"]["flops"].clone();
    assert_eq!((totals().tasks, flops()), (20, json!(4000)), "the operator pays for the rest");
    // So does a round whose repetition ends in the middle: its record tells of no round.
    let cancelled = JobState::Cancelled { cause: Cause::Owner };
    persist(&server, &cut_in_two(3));
    let half = [credit(job, 2, 1, 3), credit(job, 3, 0, 3)];
    let half = half.map(|credit| Credit { attempt: 1, ..credit }).to_vec();
    persist(
        &server,
        &Record { phase: JobPhase::Cancelled, state: cancelled, credits: half, ..record(job, 3) },
    );
    assert_eq!((totals().tasks, flops()), (24, json!(7000)), "round 3 is new, round 2 is not");
    let shown = server.get(&format!("/v1/jobs/{job}")).json();
    assert_eq!((&shown["tasks"], &shown["contributors"]), (&json!(7), &json!(10)));
}

#[test]
fn the_last_two_checkpoints_and_the_best_are_kept() {
    let (server, job) = with_job();
    let losses = [0.9, 0.5, 0.6, 0.7, 0.8];
    for (epoch, loss) in losses.into_iter().enumerate() {
        let last = 5 * (epoch as u32 + 1);
        (last - 4..=last).for_each(|step| persist(&server, &round(job, step)));
        persist(&server, &evaluation(job, last, loss, loss <= 0.5 || epoch == 0));
    }
    let store = &server.app.store;
    let kept = server.runtime.block_on(store.checkpoints(job)).expect("kept");
    let kept: Vec<(u32, bool)> = kept.iter().map(|row| (row.step, row.best)).collect();
    assert_eq!(kept, [(10, true), (20, false), (25, false)]);
    let point =
        server.runtime.block_on(store.resume_point(job, None)).expect("read").expect("a point");
    assert_eq!((point.step, point.weights, point.epochs_done), (25, blob(25), 5));
    assert_eq!((point.best, point.patience.stale), (Some((0.5, blob(10))), 3));
    let shown = server.get(&format!("/v1/jobs/{job}")).json();
    let rounded = |entry: &serde_json::Value| {
        (entry["epoch"].as_u64(), entry["loss"].as_f64().map(|loss| (loss * 1e4).round() / 1e4))
    };
    assert_eq!(rounded(&shown["evaluation"]), (Some(5), Some(0.8)));
    assert_eq!(rounded(&shown["best"]), (Some(2), Some(0.5)));
    assert_eq!(shown["epoch"], 5);
    let kept = server.runtime.block_on(store.referenced_blobs()).expect("listed");
    assert!([10, 20, 25].iter().all(|step| kept.contains(&blob(*step))));
    assert!(!kept.contains(&blob(15)));
}

#[test]
fn a_crash_between_an_epoch_and_its_evaluation_costs_neither() {
    let (server, job) = with_job();
    (1..=5).for_each(|step| persist(&server, &round(job, step)));
    persist(&server, &evaluation(job, 5, 0.9, true));
    (6..=10).for_each(|step| persist(&server, &round(job, step)));
    // Rounds after the checkpoint are lost with the process.
    (11..=12).for_each(|step| persist(&server, &round(job, step)));
    let store = &server.app.store;
    let point =
        server.runtime.block_on(store.resume_point(job, None)).expect("read").expect("a point");
    assert_eq!((point.step, point.epochs_done, point.patience.stale), (10, 1, 0));
    // They run again: nothing is credited or told twice, and the job stands where it is.
    let before = server.runtime.block_on(store.events_after(job, 0, 1000)).expect("events");
    persist(&server, &round(job, 11));
    let after = server.runtime.block_on(store.events_after(job, 0, 1000)).expect("events");
    assert_eq!(before, after);
    assert_eq!(server.get(&format!("/v1/jobs/{job}")).json()["round"], 11);
}

#[test]
fn sums_of_flops_go_on_past_63_bits() {
    let (server, job) = with_job();
    server.runtime.block_on(without_books(&server, job));
    let huge = i64::MAX as u64 - 1;
    for step in 1..=3 {
        let mut record = round(job, step);
        record.credits.truncate(1);
        record.credits[0].flops = huge;
        persist(&server, &record);
    }
    let totals = server.runtime.block_on(server.app.store.totals()).expect("totals");
    assert_eq!((totals.tasks, totals.flops), (3, 3 * u128::from(huge)));
    let shown = server.get(&format!("/v1/jobs/{job}")).json();
    assert_eq!((&shown["round"], &shown["cost"]["flops"]), (&json!(3), &json!(i64::MAX)));
    let row = server.runtime.block_on(server.app.store.job(server.owner, job));
    let charge = row.expect("read").expect("a job").charge.units();
    assert_eq!(charge, 3 * i128::from(huge) * 16_000);
}

/// As a job from before there were books: nothing bounds what it pays for.
async fn without_books(server: &Server, job: JobId) {
    let path = server.folder.path().join("raven.sqlite");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = options.connect().await.expect("connects");
    let query = sqlx::query("UPDATE jobs SET book = NULL WHERE id = ?1").bind(job.0.cast_signed());
    query.execute(&mut connection).await.expect("changed");
}

#[test]
fn a_job_tells_why_it_waits_and_ends_only_when_that_is_durable() {
    let (server, job) = with_job();
    persist(&server, &round(job, 1));
    let says = |phase, reason: Option<&str>| {
        let reason = reason.map(str::to_owned);
        let live = JobLive {
            category: Category::Other,
            requester: "Amber Heron".into(),
            phase,
            reason,
            contributors: 0,
            images_per_s: 0.0,
            train_ms: 0,
        };
        server.network.live.lock().expect("no panic").insert(job, live);
        let shown = server.get(&format!("/v1/jobs/{job}")).json();
        (shown["state"].clone(), shown["reason"].clone())
    };
    let waits = says(JobPhase::WaitingForContributors, Some("nobody is online"));
    assert_eq!(waits, (json!("waiting_for_contributors"), json!("nobody is online")));
    assert_eq!(says(JobPhase::Failed, Some("NaN")), (json!("running"), json!(null)));
    let state = JobState::Failed { cause: Cause::NotFinite, reason: "NaN".into() };
    persist(&server, &Record { phase: JobPhase::Failed, state, ..record(job, 1) });
    assert_eq!(says(JobPhase::Running, None), (json!("failed"), json!("NaN")));
}

#[test]
fn a_loss_without_classes_has_no_accuracy() {
    let server = Server::start();
    let rows: String = (0..40).map(|n| format!("{n},{},{}\n", n % 7, n * 2)).collect();
    let answer = server.upload(
        &json!({"name": "line", "format": "csv", "target": "values", "test_fraction": 0.2}),
        &[("table", rows.into_bytes())],
    );
    assert_eq!(answer.status, 201, "{}", answer.text());
    let mut document = job(answer.json()["id"].as_str().expect("an id"));
    document["model"] = json!({"layers": [{"type": "dense", "units": 1}], "loss": "mse"});
    document["training"]["micro_batch"] = json!(10);
    let answer = server.post("/v1/jobs", &document);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let job: JobId = answer.json()["id"].as_str().expect("an id").parse().expect("an id");
    persist(&server, &round(job, 1));
    persist(&server, &evaluation(job, 5, 0.5, true));
    let shown = server.get(&format!("/v1/jobs/{job}")).json();
    for entry in ["train", "evaluation", "best"] {
        assert!(shown[entry]["loss"].is_number(), "{shown}");
        assert!(shown[entry]["accuracy"].is_null(), "{shown}");
    }
    let events = server.runtime.block_on(server.app.store.events_after(job, 0, 100));
    for event in events.expect("events").iter().filter(|event| event.kind != "state") {
        assert!(event.data.contains("\"accuracy\":null"), "{}", event.data);
    }
    let listed = server.get("/v1/stats").json()["jobs"][0]["evaluation"].clone();
    assert_eq!(listed, json!([[1, 0.5, null]]));
}

#[test]
fn a_job_tells_when_its_first_round_began_and_when_it_ended() {
    let (server, job) = with_job();
    let times = || {
        let shown = server.get(&format!("/v1/jobs/{job}")).json();
        (shown["started_at"].clone(), shown["ended_at"].clone())
    };
    assert_eq!(times(), (json!(null), json!(null)));
    let began = |ms| Clock { started: Some(UnixMs(ms)), ..Clock::default() };
    let timed = |record: &Record, clock| {
        let store = &server.app.store;
        server.runtime.block_on(store.persist_timed(record, clock)).expect("persisted");
    };
    timed(&round(job, 1), began(1_795_336_200_125));
    // Another process begins later; the job did not.
    timed(&round(job, 2), began(1_795_336_999_000));
    assert_eq!(times(), (json!("2026-11-22T08:30:00.125Z"), json!(null)));
    let state = JobState::Cancelled { cause: Cause::Owner };
    persist(&server, &Record { phase: JobPhase::Cancelled, state, ..record(job, 2) });
    assert!(times().1.is_string());
}

#[test]
fn early_stopping_goes_on_after_a_restart_where_it_was() {
    let server = Server::start();
    let mut document = job(&server.small_dataset());
    document["training"]["early_stopping"] = json!({"patience": 1, "min_delta": 0.15});
    let answer = server.post("/v1/jobs", &document);
    let job: JobId = answer.json()["id"].as_str().expect("an id").parse().expect("an id");
    for (epoch, loss) in [1.0, 0.9, 0.8, 0.7].into_iter().enumerate() {
        persist(&server, &evaluation(job, 5 * (epoch as u32 + 1), loss, true));
    }
    let point = server.runtime.block_on(server.app.store.resume_point(job, None));
    let point = point.expect("read").expect("a point");
    // The third was a gain over the first, the fourth none over the third.
    assert_eq!(point.patience, Patience { gain: Some(0.8), stale: 1 });
    assert_eq!(point.best.map(|best| best.0), Some(0.7));
}

#[test]
fn an_end_is_final() {
    let (server, job) = with_job();
    persist(&server, &round(job, 1));
    let reason = "the loss was not a number".to_owned();
    let failed = Record {
        phase: JobPhase::Failed,
        state: JobState::Failed { cause: Cause::NotFinite, reason: reason.clone() },
        train: Some(metrics(f32::NAN, 20.0)),
        ..record(job, 2)
    };
    persist(&server, &failed);
    persist(&server, &round(job, 3));
    let completed = JobState::Completed { reason: CompletedReason::EpochsDone };
    persist(&server, &Record { phase: JobPhase::Completed, state: completed, ..record(job, 4) });
    let shown = server.get(&format!("/v1/jobs/{job}")).json();
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("failed"), &json!(reason)));
    assert_eq!(shown["round"], 2);
    assert_eq!(shown["train"], json!({"loss": null, "accuracy": 0.5}), "NaN is null");
    assert_eq!(server.runtime.block_on(server.app.store.totals()).expect("totals").tasks, 2);
    let open = server.runtime.block_on(server.app.store.open_jobs()).expect("listed");
    assert!(open.is_empty());
}

#[test]
fn a_record_of_an_unknown_job_changes_nothing() {
    let (server, _) = with_job();
    let unknown = round(JobId(1), 1);
    let error = server.runtime.block_on(server.app.store.persist(&unknown)).expect_err("refused");
    assert!(error.to_string().contains("job_0000000000000001"), "{error}");
    assert_eq!(server.runtime.block_on(server.app.store.totals()).expect("totals").tasks, 0);
}

#[test]
fn no_job_is_stored_on_a_data_set_that_is_deleted_meanwhile() {
    let (server, job) = with_job();
    let store = &server.app.store;
    server.runtime.block_on(async {
        let row = store.open_jobs().await.expect("listed").remove(0);
        store.end_job(job, Cause::Owner, None).await.expect("ended");
        let removal = store.remove_dataset(row.dataset).await.expect("removed");
        assert!(matches!(removal, Removal::Removed { .. }), "{removal:?}");
        let late = NewJob {
            id: JobId(job.0 + 1),
            owner: row.owner,
            dataset: row.dataset,
            spec: row.spec,
            facts: row.facts,
            kernel: row.kernel,
            created: row.created,
        };
        let error = store.add_job(&late, 100, None).await.expect_err("refused");
        assert!(matches!(error, StoreError::NoDataset { dataset } if dataset == row.dataset));
        let problem = Problem::from(error).into_response();
        assert_eq!(problem.status(), 422, "an answer for the requester, no defect");
    });
}

#[test]
fn curves_are_thinned_and_public_only_where_listed() {
    let (server, job) = with_job();
    (1..=1203).for_each(|step| persist(&server, &round(job, step)));
    persist(&server, &evaluation(job, 1205, 0.5, true));
    let stats = server.get_with("/v1/stats", &[("origin", "https://anyone.example")]);
    assert_eq!(stats.header("access-control-allow-origin"), "*");
    let stats = stats.json();
    assert_eq!(stats["tasks_accepted"], 2406);
    let listed = &stats["jobs"][0];
    assert_eq!(listed["name"], "demo");
    let loss = listed["loss"].as_array().expect("a curve");
    assert!((300..=501).contains(&loss.len()), "{}", loss.len());
    assert_eq!(loss[loss.len() - 1][0], 1203, "the last step is there");
    assert_eq!(listed["evaluation"][0][0], 241);
    let mut private = self::job(stats["jobs"][0]["id"].as_str().expect("an id"));
    private["listed"] = json!(false);
    private["dataset"] = server.get("/v1/datasets").json()["datasets"][0]["id"].clone();
    assert_eq!(server.post("/v1/jobs", &private).status, 202);
    // The answer is made anew about once a second.
    std::thread::sleep(std::time::Duration::from_millis(1000));
    let stats = server.get("/v1/stats").json();
    assert_eq!(stats["jobs"].as_array().map(Vec::len), Some(1));
    assert_eq!(stats["flops_done"], 2_406_000.0);
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("raven_credited_tasks_total 2406\n"), "{metrics}");
    assert!(metrics.contains("raven_jobs{phase=\"queued\"} 1\n"), "{metrics}");
    assert!(metrics.ends_with("quiet 1\n"));
}

#[test]
fn the_store_refuses_what_no_job_does() {
    // What stands where, and what cannot follow; every other step is in the table of phases.
    let (server, job) = with_job();
    let store = &server.app.store;
    let become_ = |phase, state: JobState| {
        let record = Record { phase, state, ..record(job, 1) };
        server.runtime.block_on(store.persist(&record))
    };
    persist(&server, &round(job, 1));
    let queued = become_(JobPhase::Queued, JobState::Queued).expect_err("refused");
    assert!(matches!(queued, StoreError::Transition { .. }), "{queued}");
    let initializing = become_(JobPhase::Initializing, JobState::Initializing);
    assert!(initializing.expect_err("refused").to_string().contains("running"));
    become_(JobPhase::Evaluating, JobState::Evaluating { epoch: 0 }).expect("it follows");
    become_(JobPhase::Running, JobState::Running { epoch: 0, step: 2, steps: 10 })
        .expect("so does this");
    let shown = server.get(&format!("/v1/jobs/{job}")).json();
    assert_eq!((&shown["state"], &shown["cause"]), (&json!("running"), &json!(null)));
}

#[test]
fn what_a_job_costs_is_kept_exactly() {
    let (server, job) = with_job();
    let huge = u64::MAX / 2 - 1;
    for step in 1..=2 {
        let mut record = round(job, step);
        record.credits[0].flops = huge;
        record.credits[1].rate = PicoUsd(20_000);
        persist(&server, &record);
        persist(&server, &record);
    }
    // What would cost more than the job holds is the operator's to pay, and counted there.
    let exact = 2 * 1000 * 20_000;
    let row = server.runtime.block_on(server.app.store.job(server.owner, job));
    assert_eq!(row.expect("read").expect("a job").charge.units(), exact);
    let shown = server.get(&format!("/v1/jobs/{job}")).json();
    let cost = &shown["cost"];
    assert!(cost["nano_usd"].as_u64() <= cost["escrow_nano_usd"].as_u64(), "{cost}");
    server.runtime.block_on(server.app.store.audit(Book::Test)).expect("the auditor agrees");
    persist(&server, &Record { checkpoint: true, ..round(job, 3) });
    let point = server.runtime.block_on(server.app.store.resume_point(job, None));
    let point = point.expect("read").expect("a point");
    assert_eq!(point.credited_rounds, 3);
    assert_eq!(point.spent.charge.units(), exact + 2000 * 16_000);
}
