//! What the coordinator says that cards show, and how whoever agreed reads it back.

use crate::server::{ORIGIN, Server};
use ed25519_dalek::{Signer, SigningKey};
use raven_coordinator::http::upkeep;
use raven_coordinator::runtime::session::{Raise, hex};
use raven_coordinator::runtime::{JobLive, SessionRecord};
use raven_coordinator::store::VIEWS_PER_SITE_MAX;
use raven_coordinator::time::UnixMs;
use raven_coordinator::view::view_id;
use raven_engine::{Category, CategorySet, ContributorId, JobPhase, NetworkPrefix};
use raven_protocol::{Device, DeviceClass, JobId, KernelId, NumericClass, SessionId, ViewId};
use serde_json::{Value, json};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn public(key: &SigningKey) -> String {
    hex(key.verifying_key().as_bytes())
}

/// What a key reads by its signature.
fn read(server: &Server, key: &SigningKey, path: &str) -> crate::server::Answer {
    let asked = server.post("/v1/contributors/challenge", &json!({ "key": public(key) }));
    let nonce = asked.json()["nonce"].as_str().expect("a nonce").to_owned();
    let text = format!("raven contributor 1\n{ORIGIN}\n{}\n{nonce}", public(key));
    let signature = hex(&key.sign(text.as_bytes()).to_bytes());
    let header = format!("Raven-Key {}.{nonce}.{signature}", public(key));
    server.get_with(path, &[("authorization", &header)])
}

fn site_key(server: &Server) -> String {
    let spec = json!({"name": "News", "origins": ["https://n.example"]});
    server.post("/v1/sites", &spec).json()["site_key"].as_str().expect("a key").to_owned()
}

fn rows(server: &Server, sql: &'static str) -> Vec<sqlx::sqlite::SqliteRow> {
    let file = server.folder.path().join("raven.sqlite");
    server.runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(file);
        let pool = SqlitePool::connect_with(options).await.expect("a file");
        let rows = sqlx::query(sql).fetch_all(&pool).await.expect("answers");
        pool.close().await;
        rows
    })
}

/// What the card of a site is told now.
fn told(server: &Server, site: &str) -> Value {
    server.get_with(&format!("/embed/now?site={site}"), &[]).json()
}

/// The view that it gets with that.
fn given(server: &Server, site: &str) -> ViewId {
    told(server, site)["view"].as_str().expect("a view").parse().expect("a name")
}

/// What the page of a card says in such a tag.
fn meta(frame: &str, name: &str) -> String {
    let tag = format!("<meta name=\"raven-{name}\" content=\"");
    let (_, rest) = frame.split_once(&tag).expect("a tag");
    rest.split_once('"').expect("its end").0.to_owned()
}

/// Jobs of so many owners wait.
fn wait(server: &Server, owners: u64) {
    for number in 0..owners {
        let live = JobLive {
            category: Category::Vision,
            requester: format!("Owner {number}"),
            phase: JobPhase::Running,
            reason: None,
            contributors: 0,
            images_per_s: 0.0,
            train_ms: 0,
        };
        server.network.live.lock().expect("no panic").insert(JobId(number + 1), live);
    }
}

/// Opens a session that names `view`.
fn open(server: &Server, number: u64, key: &SigningKey, view: ViewId) -> String {
    let receipt = json!({
        "text_version": "1", "view": view, "share": 0.25, "time_ms": 1, "nonce": "0",
        "session_key": public(key),
    });
    let receipt = receipt.to_string();
    let record = SessionRecord {
        session: SessionId(number),
        contributor: ContributorId(key.verifying_key().to_bytes()),
        site: None,
        origin: None,
        ticket: None,
        prefix: NetworkPrefix([0; 16]),
        device: Device { class: DeviceClass::Phone, cores: 1, memory_bytes: 1, flops_per_s: 1 },
        numeric: NumericClass::Cpu { kernel: KernelId([7; 32]) },
        share: 0.25,
        workers: 1,
        refuses: CategorySet::EMPTY,
        view: Some(view),
        signature: hex(&key.sign(receipt.as_bytes()).to_bytes()),
        receipt: receipt.clone(),
    };
    server.runtime.block_on(server.app.store.session_opened(&record)).expect("stored");
    let raise = Raise { counter: 3, share: 0.5, receipt: "more".into(), signature: "00".into() };
    let line = record.allocation().paced(0.5, 1, CategorySet::EMPTY, None);
    let added = server.app.store.add_allocation(&line, Some(&raise));
    server.runtime.block_on(added).expect("stored");
    receipt
}

#[test]
fn whoever_agreed_reads_back_what_it_has_seen_and_signed() {
    let server = Server::start();
    let (site, ann) = (site_key(&server), key(1));
    wait(&server, 5);
    let mut card = self::told(&server, &site);
    let view = given(&server, &site);
    let receipt = open(&server, 5, &ann, view);
    let session = SessionId(5).to_string();
    let path = format!("/v1/contributors/{}/consents/{session}", public(&ann));
    let answer = read(&server, &ann, &path);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.json();
    assert_eq!((&told["session"], &told["key"]), (&json!(session), &json!(public(&ann))));
    assert_eq!(told["receipts"][0]["receipt"], receipt);
    let signature = told["receipts"][0]["signature"].as_str().expect("a signature");
    assert_eq!(signature, hex(&ann.sign(receipt.as_bytes()).to_bytes()));
    let more = &told["receipts"][1];
    assert_eq!((&more["counter"], &more["receipt"]), (&json!(3), &json!("more")));
    // What was shown is known by its content, and says all that the card said and nothing else:
    // what its page was filled with, and what it was told that waits.
    assert_eq!(told["view"]["id"], json!(view));
    let document = told["view"]["document"].as_str().expect("a document");
    assert_eq!(view_id(document), view);
    let shown: Value = serde_json::from_str(document).expect("JSON");
    let frame = server.get_with(&format!("/embed/frame.html?site={site}"), &[]).text();
    card.as_object_mut().expect("an object").remove("view");
    assert_eq!((card["work"].as_array().map(Vec::len), &card["more"]), (Some(2), &json!(3)));
    let page = [meta(&frame, "visit-mb"), meta(&frame, "gpu")];
    let text_version = server.app.embed.consent_text_version();
    let expected = json!({
        "text_version": text_version, "visit_mb": page[0], "gpu": page[1], "queue": card,
    });
    assert_eq!(shown, expected);

    // Nobody else's, and no session that there is not.
    let ben = key(2);
    let of_ben = format!("/v1/contributors/{}/consents/{session}", public(&ben));
    assert_eq!(read(&server, &ben, &of_ben).problem(404)["field"], "session");
    assert_eq!(read(&server, &ben, &path).status, 403);
    assert_eq!(server.get(&path).status, 401);
    for odd in ["ses_0000000000000006", "5", "ses_"] {
        let path = format!("/v1/contributors/{}/consents/{odd}", public(&ann));
        assert_eq!(read(&server, &ann, &path).problem(404)["field"], "session", "{odd}");
    }
}

#[test]
fn a_view_is_kept_once_before_a_card_gets_it() {
    let server = Server::start();
    let site = site_key(&server);
    let count = || rows(&server, "SELECT id FROM card_views").len();
    assert_eq!(count(), 0);
    let frame = server.get_with(&format!("/embed/frame.html?site={site}"), &[]).text();
    assert_eq!(count(), 1, "that of every card");
    let base: ViewId = meta(&frame, "view").parse().expect("a name");
    let view = given(&server, &site);
    assert!(view != base);
    for _ in 0..3 {
        assert_eq!(given(&server, &site), view);
        server.get_with(&format!("/embed/frame.html?site={site}"), &[]);
    }
    assert_eq!(count(), 2);
    // Those that nobody has agreed to go, once they cannot be named any more.
    open(&server, 5, &key(1), view);
    let days = |days: i64| UnixMs(UnixMs::now().0 + days * 86_400_000);
    server.runtime.block_on(upkeep::sweep(&server.app, days(2))).expect("swept");
    assert_eq!(count(), 2);
    server.runtime.block_on(upkeep::sweep(&server.app, days(4))).expect("swept");
    assert_eq!(count(), 1);
    // And are given anew.
    server.get_with(&format!("/embed/frame.html?site={site}"), &[]);
    assert_eq!(count(), 2);
}

#[test]
fn a_site_has_room_for_so_many_views_and_its_oldest_make_room_for_the_next() {
    let server = Server::start();
    let site = site_key(&server);
    let first = given(&server, &site);
    assert_eq!(VIEWS_PER_SITE_MAX, 1_000);
    // As many were given before. A session has named the oldest, and another site has the next.
    rows(
        &server,
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         INSERT INTO card_views (id, document, given_ms, named)
         SELECT unhex(printf('%064x', i)), '', i, i = 1 FROM n",
    );
    rows(
        &server,
        "INSERT INTO card_views_of_sites (site, view, given_ms)
         SELECT (SELECT site FROM card_views_of_sites), id, given_ms FROM card_views
         WHERE given_ms <= 1000 UNION ALL SELECT 0, id, given_ms FROM card_views WHERE given_ms = 2",
    );
    let oldest = || -> Vec<i64> {
        let rows = rows(&server, "SELECT given_ms FROM card_views ORDER BY given_ms LIMIT 3");
        rows.iter().map(|row| row.get(0)).collect()
    };
    let of_site = || rows(&server, "SELECT 1 FROM card_views_of_sites WHERE site != 0").len();
    assert_eq!((of_site(), given(&server, &site)), (1001, first), "what is there is given on");
    // What waits changes.
    wait(&server, 1);
    let second = given(&server, &site);
    assert!(second != first);
    assert_eq!((of_site(), oldest()), (1000, vec![1, 2, 3]), "both are still somebody's");
    wait(&server, 2);
    let third = given(&server, &site);
    assert_eq!((of_site(), oldest()), (1000, vec![1, 2, 4]));
    for (number, view) in [first, second, third].into_iter().enumerate() {
        open(&server, number as u64 + 1, &key(1), view);
    }
    let frame = server.get_with(&format!("/embed/frame.html?site={site}"), &[]);
    assert!(frame.status == 200 && frame.text().contains("raven-view"));
    assert_eq!(of_site(), 1000, "what every card shows is no site's");
    // After three days nothing is left but what was named.
    let later = UnixMs(UnixMs::now().0 + 4 * 86_400_000);
    server.runtime.block_on(upkeep::sweep(&server.app, later)).expect("swept");
    assert_eq!(rows(&server, "SELECT 1 FROM card_views_of_sites").len(), 0);
    assert_eq!(rows(&server, "SELECT 1 FROM card_views").len(), 4);
}
