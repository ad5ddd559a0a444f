//! A POST that is sent again under its `Idempotency-Key`: one effect, one answer.

use crate::server::{Answer, Server, job};
use serde_json::{Value, json};

const NAME: &str = "0b9a7c1e-5f0e-4f55-9d0f-0d6a6f3f2f10";

fn site() -> Value {
    json!({"name": "a", "origins": ["https://a.example"]})
}

fn replayed(answer: &Answer) -> bool {
    answer.header("idempotency-replayed") == "true"
}

#[test]
fn two_clients_with_one_key_have_one_job() {
    let server = Server::start();
    let mut document = job(&server.small_dataset());
    // Drawn by the coordinator: a second job would have another one.
    document["seed"] = Value::Null;
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let post = || scope.spawn(|| server.post_once("/v1/jobs", &document, NAME));
        let posts: Vec<_> = (0..6).map(|_| post()).collect();
        posts.into_iter().map(|post| post.join().expect("answers")).collect()
    });
    for answer in &answers {
        assert_eq!(answer.status, 202, "{}", answer.text());
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.body, answers[0].body, "the same answer, byte for byte");
    }
    assert_eq!(answers.iter().filter(|answer| replayed(answer)).count(), 5);
    assert_eq!(server.get("/v1/jobs").json()["jobs"].as_array().map(Vec::len), Some(1));
    assert_eq!(server.network.jobs.lock().expect("no panic").len(), 1);
}

#[test]
fn a_key_is_for_one_request() {
    let server = Server::start();
    let dataset = server.small_dataset();
    assert_eq!(server.post_once("/v1/jobs", &job(&dataset), NAME).status, 202);
    let mut other = job(&dataset);
    other["seed"] = json!(8);
    let problem = server.post_once("/v1/jobs", &other, NAME).problem(422);
    assert_eq!(problem["type"], "urn:raven:problem:idempotency-key");
    assert_eq!(problem["field"], "Idempotency-Key");
    server.post_once("/v1/sites", &site(), NAME).problem(422);
    // Another API key's names are its own.
    use raven_coordinator::keys::{ApiKey, KeyMode};
    let stranger = ApiKey::generate(KeyMode::Test);
    server.runtime.block_on(server.app.store.add_key(&stranger)).expect("stored");
    let mut server = server;
    server.key = stranger.reveal().to_owned();
    assert_eq!(server.post_once("/v1/sites", &site(), NAME).status, 201);
}

#[test]
fn a_refusal_is_not_an_effect() {
    let server = Server::start();
    let mut document = job(&server.small_dataset());
    document["training"]["epochs"] = json!(0);
    server.post_once("/v1/jobs", &document, NAME).problem(422);
    document["training"]["epochs"] = json!(1);
    let answer = server.post_once("/v1/jobs", &document, NAME);
    assert_eq!((answer.status, replayed(&answer)), (202, false));
}

#[test]
fn every_post_can_be_sent_again_also_to_the_next_process() {
    let server = Server::start();
    let parts: Vec<(&str, Vec<u8>)> = [(
        "spec",
        json!({"name": "small", "format": "idx", "target": "classes", "classes": 4})
            .to_string()
            .into_bytes(),
    )]
    .into_iter()
    .chain(crate::server::files::small_idx())
    .collect();
    let upload = |server: &Server, boundary| server.upload_named(&parts, boundary, Some("upload"));
    let uploaded = upload(&server, "one-boundary");
    assert_eq!(uploaded.status, 201, "{}", uploaded.text());
    let dataset = uploaded.json()["id"].as_str().expect("an id").to_owned();
    let posted = server.post_once("/v1/jobs", &job(&dataset), "job");
    let path = format!("/v1/jobs/{}/cancel", posted.json()["id"].as_str().expect("an id"));
    let cancelled = server.post_once(&path, &json!(null), "cancel");
    assert_eq!(cancelled.status, 202, "{}", cancelled.text());
    let registered = server.post_once("/v1/sites", &site(), "site");
    assert_eq!(registered.status, 201);

    let server = server.restart();
    let again = [
        (upload(&server, "another-boundary"), uploaded),
        (server.post_once("/v1/jobs", &job(&dataset), "job"), posted),
        (server.post_once(&path, &json!(null), "cancel"), cancelled),
        (server.post_once("/v1/sites", &site(), "site"), registered),
    ];
    for (again, first) in &again {
        assert!(replayed(again), "{}", again.text());
        assert_eq!((again.status, &again.body), (first.status, &first.body));
    }
    let count = |path: &str, list: &str| server.get(path).json()[list].as_array().map(Vec::len);
    assert_eq!(count("/v1/datasets", "datasets"), Some(1));
    assert_eq!(count("/v1/jobs", "jobs"), Some(1));
    let sites = server.runtime.block_on(server.app.store.site_count(server.owner));
    assert_eq!(sites.expect("counted"), 1);
    let mut other = parts.clone();
    other[1].1.push(0);
    server.upload_named(&other, "one-boundary", Some("upload")).problem(422);
}

#[test]
fn an_answer_is_kept_for_a_day() {
    let server = Server::start();
    let first = server.post_once("/v1/sites", &site(), NAME);
    let age = |ms: i64| {
        let path = server.folder.path().join("raven.sqlite");
        server.runtime.block_on(async move {
            use sqlx::{ConnectOptions, Executor};
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
            let mut connection = options.connect().await.expect("connects");
            let sql = format!("UPDATE idempotency SET created_ms = created_ms - {ms}");
            connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.expect("runs");
        });
    };
    age(24 * 3600 * 1000 - 60_000);
    assert_eq!(server.post_once("/v1/sites", &site(), NAME).body, first.body);
    age(60_000);
    let second = server.post_once("/v1/sites", &site(), NAME);
    assert_eq!((second.status, replayed(&second)), (201, false));
    assert_ne!(second.json()["id"], first.json()["id"]);
}

#[test]
fn keys_are_short_and_printable() {
    let server = Server::start();
    let long = "k".repeat(256);
    for name in [long.as_str(), ""] {
        let problem = server.post_once("/v1/sites", &site(), name).problem(400);
        assert_eq!(problem["field"], "Idempotency-Key", "{problem}");
    }
    assert_eq!(server.post_once("/v1/sites", &site(), &"k".repeat(255)).status, 201);
}
