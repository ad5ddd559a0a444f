//! What the frame's card asks before it is shown and tells once it was, and the lists by
//! which a site takes some kinds of jobs and no others.

use crate::server::Server;
use raven_coordinator::runtime::JobLive;
use raven_coordinator::runtime::session::network_prefix;
use raven_coordinator::store::parse_site;
use raven_coordinator::ticket::{Seat, TICKET_MS};
use raven_coordinator::time::UnixMs;
use raven_engine::{Category, JobPhase};
use raven_protocol::JobId;
use serde_json::{Value, json};

const PAGE: &str = "https://n.example";

/// Registers a site; answers its id and key.
fn register(server: &Server) -> (String, String) {
    let site = server.post("/v1/sites", &json!({"name": "News", "origins": [PAGE]})).json();
    let text = |field: &str| site[field].as_str().expect("text").to_owned();
    (text("id"), text("site_key"))
}

fn change(server: &Server, id: &str, change: &Value) -> Value {
    let answer = server.ask(&server.key, "PATCH", &format!("/v1/sites/{id}"), change);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn add(server: &Server, number: u64, category: Category, requester: &str, phase: JobPhase) {
    let live = JobLive {
        category,
        requester: requester.into(),
        phase,
        reason: None,
        contributors: 0,
        images_per_s: 0.0,
        train_ms: 0,
    };
    server.network.live.lock().expect("no panic").insert(JobId(number), live);
}

fn now(server: &Server, key: &str) -> Value {
    let answer = server.get_with(&format!("/embed/now?site={key}"), &[]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), "public, max-age=5");
    answer.json()
}

#[test]
fn what_would_run_now_is_told_by_category_and_pseudonym_before_anybody_agrees() {
    let server = Server::start();
    let (id, key) = register(&server);
    let all = json!(["vision", "language", "tabular", "science", "finance", "other"]);
    let told = now(&server, &key);
    let view = told["view"].as_str().expect("a view").to_owned();
    assert_eq!(told, json!({"categories": all, "work": [], "more": 0, "view": view}));
    add(&server, 1, Category::Tabular, "Jade Kite", JobPhase::WaitingForContributors);
    add(&server, 2, Category::Vision, "Amber Heron", JobPhase::Running);
    // The same owner's, of the same kind.
    add(&server, 3, Category::Vision, "Amber Heron", JobPhase::Evaluating);
    // Nobody will be asked to compute these.
    add(&server, 4, Category::Finance, "Bold Tern", JobPhase::Paused);
    add(&server, 5, Category::Finance, "Calm Wren", JobPhase::Completed);
    let work = json!([
        {"category": "vision", "requester": "Amber Heron"},
        {"category": "tabular", "requester": "Jade Kite"},
    ]);
    let told = now(&server, &key);
    assert_eq!(told["work"], work);
    assert!(told["view"] != view, "who agrees now has seen something else");
    // What the site does not take is not named.
    change(&server, &id, &json!({"refused_categories": ["vision"]}));
    let told = now(&server, &key);
    assert_eq!(told["work"], json!([work[1]]));
    assert_eq!(told["categories"], json!(["language", "tabular", "science", "finance", "other"]));
    change(&server, &id, &json!({"allowed_categories": ["vision", "science"]}));
    let told = now(&server, &key);
    assert_eq!((&told["work"], &told["categories"]), (&json!([]), &json!(["science"])));
    // However many there are, a few are named.
    for number in 10..30 {
        add(&server, number, Category::Science, &format!("Owner {number}"), JobPhase::Running);
    }
    let told = now(&server, &key);
    let named = told["work"].as_array().expect("a list").len();
    assert_eq!((named, &told["more"]), (2, &json!(18)));
    // A site without a frame has nothing to tell.
    change(&server, &id, &json!({"paused": true}));
    for key in [key.as_str(), "pk_test_x", ""] {
        server.get_with(&format!("/embed/now?site={key}"), &[]).problem(404);
    }
}

#[test]
fn a_list_of_allowed_categories_is_set_taken_away_and_never_empty() {
    let server = Server::start();
    let (id, _) = register(&server);
    let path = format!("/v1/sites/{id}");
    assert_eq!(server.get(&path).json()["allowed_categories"], Value::Null);
    let site = change(&server, &id, &json!({"allowed_categories": ["science", "vision"]}));
    assert_eq!(site["allowed_categories"], json!(["vision", "science"]));
    // What is absent stays.
    let site = change(&server, &id, &json!({"refused_categories": ["vision"]}));
    assert_eq!(site["allowed_categories"], json!(["vision", "science"]));
    let problem =
        server.ask(&server.key, "PATCH", &path, &json!({"allowed_categories": []})).problem(422);
    assert_eq!((&problem["field"], &problem["limit"]), (&json!("allowed_categories"), &json!(1)));
    let problem = server.ask(&server.key, "PATCH", &path, &json!({"allowed_categories": ["war"]}));
    assert_eq!(problem.problem(422)["field"], "allowed_categories[0]");
    let site = change(&server, &id, &json!({"allowed_categories": null}));
    assert_eq!(site["allowed_categories"], Value::Null);
    assert_eq!(site["refused_categories"], json!(["vision"]));
}

#[test]
fn a_site_that_would_take_no_kind_of_jobs_is_refused_and_can_be_paused() {
    let server = Server::start();
    let (id, key) = register(&server);
    let path = format!("/v1/sites/{id}");
    let all = json!(["vision", "language", "tabular", "science", "finance", "other"]);
    let refused = |change: Value, field: &str| {
        let problem = server.ask(&server.key, "PATCH", &path, &change).problem(422);
        assert_eq!(problem["field"], field, "{change}");
        assert!(problem["detail"].as_str().is_some_and(|it| it.contains("paused")), "{problem}");
    };
    refused(json!({"refused_categories": all}), "refused_categories");
    refused(
        json!({"allowed_categories": ["vision"], "refused_categories": ["vision"], "origins": ["https://m.example"]}),
        "refused_categories",
    );
    change(&server, &id, &json!({"allowed_categories": ["science", "vision"]}));
    // Each by itself leaves something; what there is already counts too.
    change(&server, &id, &json!({"refused_categories": ["vision"]}));
    refused(json!({"allowed_categories": ["vision"]}), "allowed_categories");
    refused(json!({"refused_categories": ["vision", "science"]}), "refused_categories");
    let site = server.get(&path).json();
    assert_eq!(site["allowed_categories"], json!(["vision", "science"]), "nothing has changed");
    assert_eq!(site["refused_categories"], json!(["vision"]));
    assert_eq!(site["origins"][0]["origin"], PAGE);
    assert_eq!(now(&server, &key)["categories"], json!(["science"]));
    assert_eq!(change(&server, &id, &json!({"paused": true}))["state"], "paused");
}

#[test]
fn a_card_that_came_into_view_is_counted_once_for_each_frame_that_was_served() {
    let server = Server::start();
    let (id, key) = register(&server);
    let site = parse_site(&id).expect("an id");
    let prefix = network_prefix([192, 0, 2, 1].into());
    let issue = |origin: Option<&str>, ago: i64| {
        let seat = Seat { prefix, origin };
        server.app.tickets.issue(site, &seat, UnixMs(UnixMs::now().0 - ago))
    };
    let tell = |ticket: &str| server.send("POST", "/embed/shown", &[], ticket.as_bytes());
    let frame = format!("/embed/frame.html?site={key}");
    let page = server.get_with(&frame, &[("referer", "https://n.example/today")]).text();
    let ticket = page.split("content=\"").nth(1).and_then(|rest| rest.split('"').next());
    let ticket = ticket.expect("a ticket");
    for _ in 0..3 {
        assert_eq!(tell(ticket).status, 204);
    }
    assert_eq!(tell(&issue(Some(PAGE), 0)).status, 204);
    // A page that does not tell its origin is no view, and its card is not counted either.
    assert_eq!(tell(&issue(None, 0)).status, 204);
    // A frame that asks for ticket after ticket was viewed once.
    let mut renewed = ticket.to_owned();
    for _ in 0..3 {
        let page = server.get_with(&frame, &[("raven-ticket", &renewed)]).text();
        renewed = page
            .split("content=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .map(str::to_owned)
            .expect("a ticket");
        assert_eq!(tell(&renewed).status, 204);
        let stripped = renewed.replace(".renewed", "");
        assert_ne!(stripped, renewed);
        assert_eq!(tell(&stripped).problem(403)["field"], "ticket");
    }
    let forged = ticket.replace('.', "x");
    let expired = issue(Some(PAGE), TICKET_MS);
    let elsewhere = issue(Some("https://other.example"), 0);
    for bad in ["", "nonsense", forged.as_str(), expired.as_str(), elsewhere.as_str()] {
        assert_eq!(tell(bad).problem(403)["field"], "ticket", "{bad}");
    }
    assert_eq!(server.send("POST", "/embed/shown", &[], &[0xff; 300]).status, 403);
    let day = &server.get(&format!("/v1/sites/{id}")).json()["days"][0];
    assert_eq!((&day["views"], &day["shown"], &day["yes"]), (&json!(1), &json!(2), &json!(0)));
    let csv = server.get(&format!("/v1/sites/{id}/earnings.csv")).text();
    assert!(
        csv.lines().next().is_some_and(|line| line.ends_with("views,blocked,shown,yes,worked"))
    );
    assert!(csv.lines().last().is_some_and(|line| line.ends_with(",1,0,2,0,0")), "{csv}");
}
