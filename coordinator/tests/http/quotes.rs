//! What a job would come to.

use crate::server::{Server, job};
use raven_coordinator::http::Settings;
use raven_coordinator::runtime::NodeSnapshot;
use raven_coordinator::time::UnixMs;
use raven_engine::ContributorId;
use raven_engine::money::PicoUsd;
use raven_engine::rates::{Bonus, Rates};
use raven_protocol::{DeviceClass, KernelId, NumericClass, SessionId};
use serde_json::{Value, json};

fn node(number: u64, flops_per_s: u64) -> NodeSnapshot {
    NodeSnapshot {
        session: SessionId(number),
        contributor: ContributorId([number as u8; 32]),
        device: DeviceClass::Desktop,
        numeric: NumericClass::Cpu { kernel: KernelId([7; 32]) },
        share: 0.5,
        workers: 1,
        flops_per_s,
        measured: true,
        takes_tasks: true,
        tasks_accepted: 1,
        state: "idle",
        joined_s_ago: 1,
    }
}

fn online(server: &Server, nodes: Vec<NodeSnapshot>) {
    *server.network.nodes.lock().expect("no panic") = nodes;
}

fn quoted(server: &Server, document: &Value) -> Value {
    let answer = server.post("/v1/quotes", document);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn a_quote_is_the_jobs_own_cost_in_integers() {
    let server = Server::start();
    let document = job(&server.small_dataset());
    let quote = quoted(&server, &document);
    let posted = server.post("/v1/jobs", &document).json();
    let flops = posted["cost"]["flops_planned"].as_u64().expect("a count");
    assert_eq!(quote["flops"], json!({"least": flops, "planned": flops}));
    assert_eq!(quote["calculations"]["planned"], flops.div_ceil(50_000_000));
    assert_eq!(quote["rounds"], posted["rounds"]);
    assert_eq!(quote["parameters"], posted["parameters"]);
    // flops x pico-USD / 50e6 / 1000 and the margin of a tenth, rounded up.
    let priced = |cost: u128| (cost * 11).div_ceil(500_000_000_000) as u64;
    let price = |rate: u128| priced(u128::from(flops) * rate);
    assert_eq!(quote["price"]["least_nano_usd"], price(12_000));
    let most = (u128::from(flops) * 130).div_ceil(100) * 20_000;
    assert_eq!(quote["price"]["most_nano_usd"], priced(most));
    assert_eq!(posted["cost"]["escrow_nano_usd"], priced(most), "what the job holds");
    let modes = quote["price"]["by_verification"].as_array().expect("modes");
    let most_of = |name: &str| {
        let mode = modes.iter().find(|mode| mode["verification"] == name).expect(name);
        mode["most_nano_usd"].clone()
    };
    assert_eq!(modes.len(), 2, "none is not taken here: {modes:?}");
    assert_eq!(most_of("adaptive"), quote["price"]["most_nano_usd"]);
    assert_eq!(most_of("triple"), price(80_000), "three, and one to spare");
    assert_eq!(quote["price"]["rates"].as_array().map(Vec::len), Some(3));
    assert_eq!(server.network.jobs.lock().expect("no panic").len(), 1, "a quote is no job");
}

#[test]
fn a_job_that_would_hold_more_than_its_owner_said_is_refused() {
    let server = Server::start();
    let mut document = job(&server.small_dataset());
    let most = quoted(&server, &document)["price"]["most_nano_usd"].as_u64().expect("an amount");
    document["hold_nano_usd_max"] = json!(most - 1);
    let problem = server.post("/v1/jobs", &document).problem(422);
    assert_eq!(problem["field"], "hold_nano_usd_max");
    assert_eq!((&problem["limit"], &problem["found"]), (&json!(most - 1), &json!(most)));
    assert!(server.network.jobs.lock().expect("no panic").is_empty());
    document["hold_nano_usd_max"] = json!(most);
    let posted = server.post("/v1/jobs", &document).json();
    assert_eq!(posted["cost"]["escrow_nano_usd"], most);
    // What it holds is its budget, where that is less.
    document["hold_nano_usd_max"] = json!(most - 1);
    document["budget"] = json!({"nano_usd": most - 1});
    let posted = server.post("/v1/jobs", &document).json();
    assert_eq!(posted["cost"]["escrow_nano_usd"], most - 1);
    for bad in [json!(-1), json!(1.5), json!("1")] {
        document["hold_nano_usd_max"] = bad;
        assert_eq!(server.post("/v1/jobs", &document).problem(422)["field"], "hold_nano_usd_max");
    }
}

#[test]
fn early_stopping_makes_the_least_less() {
    let server = Server::start();
    let mut document = job(&server.small_dataset());
    document["training"]["epochs"] = json!(10);
    document["training"]["early_stopping"] = json!({"patience": 1});
    let quote = quoted(&server, &document);
    let of = |name: &str| quote["flops"][name].as_u64().expect("a count");
    assert_eq!(of("least") * 10, of("planned") * 3, "one gain and two without");
    assert!(quote["price"]["least_nano_usd"].as_u64() < quote["price"]["most_nano_usd"].as_u64());
}

#[test]
fn time_is_that_of_those_who_are_there() {
    let server = Server::start();
    let mut document = job(&server.small_dataset());
    document["training"]["epochs"] = json!(10_000);
    let nobody = quoted(&server, &document);
    assert_eq!((&nobody["time"], &nobody["contributors_online"]), (&json!(null), &json!(0)));
    assert_eq!(nobody["time_reason"], "no contributor is online");
    let flops = nobody["flops"]["planned"].as_u64().expect("a count");
    online(&server, vec![node(1, 1_000_000)]);
    let one = quoted(&server, &document);
    assert_eq!(one["time"]["least_s"], flops.div_ceil(1_000_000));
    assert!(one["time"]["most_s"].as_u64() > one["time"]["least_s"].as_u64());
    // A batch of 20 in runs of 10 keeps two busy, the fastest ones.
    online(&server, vec![node(1, 1_000_000), node(2, 3_000_000), node(3, 2_000_000)]);
    let three = quoted(&server, &document);
    assert_eq!(three["time"]["least_s"], flops.div_ceil(5_000_000));
    assert_eq!(three["contributors_online"], 3);
    // A strict job counts processors, a relaxed one the faster of what one contributor has.
    let numeric = NumericClass::Gpu { kernel: KernelId([8; 32]) };
    let gpu = |speed| NodeSnapshot { session: SessionId(9), numeric, ..node(1, speed) };
    let least = |document: &Value| quoted(&server, document)["time"]["least_s"].clone();
    let mut strict = document.clone();
    strict["numerics"] = json!("strict");
    online(&server, vec![node(1, 1_000_000), gpu(7_000_000)]);
    assert_eq!(least(&document), flops.div_ceil(7_000_000));
    assert_eq!(least(&strict), flops.div_ceil(1_000_000));
    online(&server, vec![gpu(7_000_000)]);
    assert_eq!(least(&strict), json!(null));
    let paused = NodeSnapshot { takes_tasks: false, state: "paused", ..node(1, 1_000_000) };
    online(&server, vec![paused]);
    let none = quoted(&server, &document);
    assert_eq!(none["time_reason"], "no contributor online takes tasks now");
}

#[test]
fn a_quote_refuses_what_a_job_refuses() {
    let server = Server::start();
    let dataset = server.small_dataset();
    let cases = [
        ("/training/epochs", json!(0), "training.epochs"),
        ("/training/batch", json!(101), "training.batch"),
        ("/dataset", json!("ds_0000000000000001"), "dataset"),
        ("/name", json!(""), "name"),
    ];
    for (pointer, value, field) in cases {
        let mut document = job(&dataset);
        *document.pointer_mut(pointer).expect("there") = value;
        let quote = server.post("/v1/quotes", &document).problem(422);
        let posted = server.post("/v1/jobs", &document).problem(422);
        assert_eq!(quote, posted, "the same problem");
        assert_eq!(quote["field"], field);
    }
    let first = server.post_once("/v1/quotes", &job(&dataset), "a name");
    online(&server, vec![node(1, 1_000_000)]);
    assert_eq!(server.post_once("/v1/quotes", &job(&dataset), "a name").body, first.body);
}

#[test]
fn a_rule_for_gradients_is_checked_against_the_rounds_and_kept() {
    let server = Server::start();
    let mut document = job(&server.small_dataset());
    // 100 rows in batches of 80: 16 micro-batches, and 4 at last.
    document["training"]["batch"] = json!(80);
    document["training"]["micro_batch"] = json!(5);
    let plain = server.post("/v1/jobs", &document).json();
    assert_eq!(plain["combine"], json!({"rule": "mean"}), "by default");
    let trimmed = |groups, trim| json!({"rule": "trimmed_mean", "groups": groups, "trim": trim});
    let cases = [
        (trimmed(8, 1), "training.combine.groups", Some((4, 8))),
        (trimmed(3, 1), "training.combine.groups", None),
        (trimmed(4, 2), "training.combine.trim", Some((1, 2))),
        (json!({"rule": "clipped_mean", "groups": 4, "norm": 0}), "training.combine.norm", None),
        (json!({"rule": "mean", "groups": 4}), "training.combine", None),
    ];
    for (rule, field, limit) in cases {
        document["training"]["combine"] = rule;
        let quote = server.post("/v1/quotes", &document).problem(422);
        assert_eq!(quote, server.post("/v1/jobs", &document).problem(422), "the same problem");
        let found = quote["field"].as_str().unwrap_or_default();
        assert!(found.starts_with(field), "{quote}");
        if let Some((limit, found)) = limit {
            assert_eq!((&quote["limit"], &quote["found"]), (&json!(limit), &json!(found)));
        }
    }
    document["training"]["combine"] = trimmed(4, 1);
    let robust = server.post("/v1/jobs", &document);
    assert_eq!(robust.status, 202, "{}", robust.text());
    assert_eq!(robust.json()["combine"], trimmed(4, 1));
    document["placement"] = json!("master");
    let problem = server.post("/v1/jobs", &document).problem(422);
    assert_eq!(problem["field"], "training.combine");
}

#[test]
fn terms_are_checked_against_the_quote() {
    let server = Server::start();
    let mut document = job(&server.small_dataset());
    document["training"]["epochs"] = json!(1000);
    document["when_spent"] = json!("end");
    let quote = quoted(&server, &document);
    let (least, price) =
        (&quote["calculations"]["least"], &quote["price"]["least_budget_nano_usd"]);
    let (least, price) = (least.as_u64().expect("a count"), price.as_u64().expect("a price"));
    online(&server, vec![node(1, 1_000_000)]);
    let needed_s = quoted(&server, &document)["time"]["least_s"].as_u64().expect("a time");
    let within = |s: i64| UnixMs(UnixMs::now().0 + s * 1000).rfc3339();
    let mut post = |field: &str, value: Value| {
        let before = document.clone();
        document[field] = value;
        let answer = server.post("/v1/jobs", &document);
        document = before;
        answer
    };
    for (field, value, path) in [
        ("budget", json!({"calculations": least - 1}), "budget.calculations"),
        ("budget", json!({"nano_usd": price - 1}), "budget.nano_usd"),
        ("budget", json!({"usd": 1}), "budget.usd"),
        ("budget", json!({"nano_usd": 1.5}), "budget"),
        ("deadline", json!(within(-5)), "deadline"),
        ("deadline", json!("tomorrow"), "deadline"),
        ("fallback", json!("pray"), "fallback"),
        ("fallback_after_s", json!(2_592_001), "fallback_after_s"),
    ] {
        let problem = post(field, value.clone()).problem(422);
        let found = problem["field"].as_str().unwrap_or_default();
        assert!(found.starts_with(path) || path.starts_with(found), "{value}: {problem}");
    }
    let answer = post("budget", json!({"nano_usd": price}));
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(answer.json()["budget"], json!({"nano_usd": price}));
    let held = answer.json()["cost"]["escrow_nano_usd"].as_u64().expect("an amount");
    assert!(held <= price, "no more is held than the budget");
    // Others may come online: a deadline that those who are there cannot keep is no mistake.
    let deadline = within(needed_s as i64 / 2);
    let answer = post("deadline", json!(deadline));
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(answer.json()["deadline"], json!(deadline));
    let answer = post("fallback", json!("operator")).json();
    let terms = (&answer["fallback"], &answer["fallback_after_s"], &answer["cause"]);
    assert_eq!(terms, (&json!("operator"), &json!(300), &json!(null)));
}

#[test]
fn only_a_private_pool_leaves_results_unchecked() {
    let mut server = Server::start();
    let mut document = job(&server.small_dataset());
    document["verification"] = json!("none");
    assert_eq!(server.post("/v1/jobs", &document).problem(422)["field"], "verification");
    let problem = server.post("/v1/quotes", &document).problem(422);
    assert_eq!(problem["field"], "verification", "and quotes none of them");
    document["verification"] = json!("adaptive");
    let adaptive = document.clone();
    let modes = |server: &Server| {
        let quote = server.post("/v1/quotes", &adaptive).json();
        let modes = quote["price"]["by_verification"].as_array().expect("modes").clone();
        modes.iter().map(|mode| mode["verification"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(modes(&server), ["triple", "adaptive"]);
    let mut settings = (*server.app.settings).clone();
    settings.private_pool = true;
    server.serve_with(settings);
    assert_eq!(modes(&server), ["triple", "adaptive", "none"]);
    let quote = server.post("/v1/quotes", &document).json();
    let flops = u128::from(quote["flops"]["planned"].as_u64().expect("a count"));
    let price = (flops * 20_000 * 11).div_ceil(500_000_000_000) as u64;
    assert_eq!(quote["price"]["by_verification"][2]["most_nano_usd"], price, "one execution");
    document["verification"] = json!("none");
    assert_eq!(server.post("/v1/jobs", &document).status, 202);
}

#[test]
fn an_operator_without_a_node_is_not_called_for() {
    let mut server = Server::start();
    let mut settings = (*server.app.settings).clone();
    settings.operator = false;
    server.serve_with(settings);
    let mut document = job(&server.small_dataset());
    document["fallback"] = json!("operator");
    assert_eq!(server.post("/v1/jobs", &document).problem(422)["field"], "fallback");
    document["fallback"] = json!("cancel");
    assert_eq!(server.post("/v1/jobs", &document).status, 202);
}

#[test]
fn a_job_keeps_the_rates_that_it_was_quoted_at() {
    let mut server = Server::start();
    let document = job(&server.small_dataset());
    let shown = server.get("/v1/rates").json();
    let of = |shown: &Value| shown["rates"][1]["pico_usd_per_calculation"].clone();
    assert_eq!((of(&shown), &shown["highest_pico_usd"]), (json!(16_000), &json!(20_000)));
    assert_eq!(shown["margin_percent"], json!({"master_node": 5, "partner": 3, "fee": 2}));
    let before = server.post("/v1/jobs", &document).json();
    // The operator sets others; who was quoted before is not asked to pay them.
    let bonus = Bonus { gpu_thousandths: 200, stay_thousandths: 50, stay_minutes: 10 };
    let rates = Rates { desktop: PicoUsd(30_000), bonus, ..Rates::FLAT };
    server.serve_with(Settings { rates, ..(*server.app.settings).clone() });
    let shown = server.get("/v1/rates").json();
    assert_eq!((of(&shown), &shown["highest_pico_usd"]), (json!(30_000), &json!(37_500)));
    let stated = json!({"gpu_thousandths": 200, "stay_thousandths": 50, "stay_minutes": 10});
    assert_eq!(shown["bonus"], stated);
    let quote = quoted(&server, &document);
    assert_eq!((&quote["price"]["bonus"], of(&quote["price"])), (&stated, json!(30_000)));
    let flops = quote["flops"]["planned"].as_u64().expect("a count");
    let most = (u128::from(flops) * 130).div_ceil(100) * 37_500;
    let most = (most * 11).div_ceil(500_000_000_000) as u64;
    assert_eq!(quote["price"]["most_nano_usd"], most, "with every bonus");
    let after = server.post("/v1/jobs", &document).json();
    assert_eq!(after["cost"]["escrow_nano_usd"], most);
    for (posted, rates) in [(before, Rates::FLAT), (after, rates)] {
        let id = posted["id"].as_str().expect("an id").parse().expect("an id");
        let row = server.runtime.block_on(server.app.store.job(server.owner, id));
        assert_eq!(row.expect("read").expect("a job").facts.rates, rates);
        let jobs = server.network.jobs.lock().expect("no panic");
        let context = jobs.iter().find(|context| context.job() == id).expect("handed over");
        assert_eq!(context.terms.rates, rates);
    }
}
