//! `POST /v1/jobs/{id}/top-up`.

use crate::server::{Server, job, record};
use raven_coordinator::store::Book;
use raven_engine::money::NanoUsd;
use raven_engine::{Cause, JobPhase, JobState, Record};
use raven_protocol::JobId;
use serde_json::{Value, json};

const TRIAL: i64 = 1_000_000_000_000;

/// A job that holds 1,000 nano-USD.
fn posted(server: &Server) -> (String, JobId) {
    let mut document = job(&server.small_dataset());
    document["budget"] = json!({ "nano_usd": 1 });
    let job = server.post("/v1/jobs", &document).json();
    assert_eq!(job["cost"]["escrow_nano_usd"], 1);
    assert_eq!(job["when_spent"], "pause");
    let id = job["id"].as_str().expect("an id").to_owned();
    (format!("/v1/jobs/{id}/top-up"), id.parse().expect("an id"))
}

fn available(server: &Server) -> i64 {
    server.get("/v1/account").json()["balance"]["available_nano_usd"].as_i64().expect("a number")
}

#[test]
fn money_moves_once_however_often_it_is_asked_for() {
    let server = Server::start();
    let (path, id) = posted(&server);
    let wish = json!({ "amount_nano_usd": 500 });
    let first = server.post_once(&path, &wish, "one");
    assert_eq!((first.status, first.json()["escrow_nano_usd"].clone()), (200, json!(501)));
    let again = server.post_once(&path, &wish, "one");
    assert_eq!((again.status, again.json()), (200, first.json()));
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(available(&server), TRIAL - 501);
    let other = server.post_once(&path, &json!({ "amount_nano_usd": 501 }), "one");
    assert_eq!(other.problem(422)["field"], "Idempotency-Key");
    // Without a name each is one of its own.
    for escrow in [1001, 1501] {
        assert_eq!(server.post(&path, &wish).json()["escrow_nano_usd"], escrow);
    }
    let cost = server.get(&format!("/v1/jobs/{id}")).json()["cost"].clone();
    assert_eq!(
        (&cost["escrow_nano_usd"], &cost["topped_up_nano_usd"]),
        (&json!(1501), &json!(1500))
    );
    let told = server.network.topped_up.lock().expect("no panic").clone();
    assert_eq!(told, [501, 1001, 1501].map(|escrow| (id, NanoUsd(escrow))));
}

#[test]
fn amounts_that_are_none_are_refused_and_nothing_moves() {
    let server = Server::start();
    let (path, _) = posted(&server);
    for (amount, limit) in [
        (json!(0), json!(1)),
        (json!(-5), json!(1)),
        (json!(i64::MAX), json!(i64::MAX - 1)),
        (json!(u64::MAX), json!(i64::MAX - 1)),
        (json!(1.5), json!(i64::MAX - 1)),
    ] {
        let problem = server.post(&path, &json!({ "amount_nano_usd": amount })).problem(400);
        assert_eq!((&problem["field"], &problem["limit"]), (&json!("amount_nano_usd"), &limit));
    }
    for body in
        [json!({}), json!({ "amount_nano_usd": "5" }), json!({ "amount_nano_usd": 5, "x": 1 })]
    {
        server.post(&path, &body).problem(422);
    }
    let problem = server.post(&path, &json!({ "amount_nano_usd": TRIAL })).problem(402);
    assert_eq!(problem["type"], "urn:raven:problem:funds");
    assert_eq!((&problem["limit"], &problem["found"]), (&json!(TRIAL - 1), &json!(TRIAL)));
    assert_eq!(
        server
            .post("/v1/jobs/job_00000000000000ff/top-up", &json!({ "amount_nano_usd": 5 }))
            .status,
        404
    );
    assert_eq!(available(&server), TRIAL - 1);
    assert_eq!(server.network.topped_up.lock().expect("no panic").len(), 0);
}

#[test]
fn a_job_that_has_ended_takes_nothing() {
    let server = Server::start();
    let (path, id) = posted(&server);
    let ended = Record {
        phase: JobPhase::Cancelled,
        state: JobState::Cancelled { cause: Cause::Owner },
        ..record(id, 0)
    };
    server.runtime.block_on(server.app.store.persist(&ended)).expect("ended");
    let problem = server.post(&path, &json!({ "amount_nano_usd": 5 })).problem(409);
    assert_eq!(problem["field"], "state");
    assert_eq!(available(&server), TRIAL, "all of it went back");
}

#[test]
fn a_pause_is_shown_with_its_cause() {
    let server = Server::start();
    let (_, id) = posted(&server);
    let state = JobState::Paused { missing: NanoUsd(42) };
    let paused = Record { phase: JobPhase::Paused, state, ..record(id, 0) };
    server.runtime.block_on(server.app.store.persist(&paused)).expect("paused");
    let job = server.get(&format!("/v1/jobs/{id}")).json();
    assert_eq!((&job["state"], &job["cause"]), (&json!("paused"), &json!("budget")));
    let reason = job["reason"].as_str().expect("a reason");
    assert!(reason.contains("42 nano-USD"), "{reason}");
    let events = server.runtime.block_on(server.app.store.events_after(id, 0, 10)).expect("read");
    let last: Value = serde_json::from_str(&events.last().expect("an event").data).expect("JSON");
    assert_eq!((&last["state"], &last["cause"]), (&json!("paused"), &json!("budget")));
    assert_eq!(last["reason"], reason);
}

#[test]
fn a_reference_puts_money_in_once_at_any_time() {
    let server = Server::start();
    let (path, id) = posted(&server);
    let (other, _) = posted(&server);
    let wish = |amount: i64| json!({ "amount_nano_usd": amount, "reference": "invoice-7" });
    let first = server.post(&path, &wish(500)).json();
    assert_eq!((&first["escrow_nano_usd"], &first["entered_before"]), (&json!(501), &json!(false)));
    server.post(&path, &json!({ "amount_nano_usd": 20 }));
    // Nothing is left of the first answer, as after more than a day.
    let again = server.post_once(&path, &wish(500), "another-name").json();
    assert_eq!((&again["escrow_nano_usd"], &again["entered_before"]), (&json!(521), &json!(true)));
    assert_eq!(available(&server), TRIAL - 522);
    for (path, wish) in [(&path, wish(501)), (&other, wish(500))] {
        let problem = server.post(path, &wish).problem(409);
        assert_eq!(problem["type"], "urn:raven:problem:reference-used");
        assert_eq!(problem["field"], "reference");
    }
    for reference in ["", "a b", &"x".repeat(65)] {
        let wish = json!({ "amount_nano_usd": 5, "reference": reference });
        assert_eq!(server.post(&path, &wish).problem(422)["field"], "reference");
    }
    let told = server.network.topped_up.lock().expect("no panic").clone();
    assert_eq!(told, [501, 521].map(|escrow| (id, NanoUsd(escrow))), "once for each movement");
    // Of a job that has ended since it is still known, and nothing more is put in.
    let ended = Record {
        phase: JobPhase::Cancelled,
        state: JobState::Cancelled { cause: Cause::Owner },
        ..record(id, 0)
    };
    server.runtime.block_on(server.app.store.persist(&ended)).expect("ended");
    assert_eq!(server.post(&path, &wish(500)).json()["entered_before"], true);
    let more = json!({ "amount_nano_usd": 5, "reference": "invoice-8" });
    assert_eq!(server.post(&path, &more).problem(409)["field"], "state");
    assert_eq!(available(&server), TRIAL - 1);
    server.runtime.block_on(server.app.store.audit(Book::Test)).expect("books");
}
