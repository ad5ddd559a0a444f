//! Posting jobs, and documents that are refused.

use crate::server::{Server, job};
use raven_engine::{Algorithm, Category, Placement, StagePlan};
use raven_protocol::Seed;
use serde_json::{Value, json};

#[test]
fn a_job_is_lowered_stored_and_handed_over() {
    let server = Server::start();
    let dataset = server.small_dataset();
    let answer = server.post("/v1/jobs", &job(&dataset));
    assert_eq!(answer.status, 202, "{}", answer.text());
    let shown = answer.json();
    assert_eq!(shown["state"], "queued");
    assert_eq!(shown["seed"], "0x0000000000000007");
    // 3 x 1 x 3 x 3 + 3, then 3 x 4 x 4 x 4 + 4.
    assert_eq!(shown["parameters"], 27 + 3 + 192 + 4);
    assert_eq!((&shown["epochs"], &shown["rounds"]), (&json!(2), &json!(10)));
    assert_eq!(shown["placement"], "replica");
    let id = shown["id"].as_str().expect("an id");
    assert_eq!(server.get(&format!("/v1/jobs/{id}")).json(), shown);
    assert_eq!(server.get("/v1/jobs").json()["jobs"][0], shown);
    let jobs = server.network.jobs.lock().expect("no panic");
    let context = &jobs[0];
    assert_eq!(context.plan.job.to_string(), id);
    assert_eq!(context.plan.seed, Seed(7));
    assert_eq!(context.train.rows, 10);
    assert_eq!(context.params.len(), 4);
    assert_eq!(context.slots.len(), 8, "Adam has two slots for each parameter");
    assert_eq!((context.data.train_rows, context.data.test_rows), (100, 20));
    let names: Vec<&str> = context.train.outputs.iter().map(|o| o.name.as_str()).collect();
    for name in context.train.gradients.iter().chain([&context.train.loss_sum]) {
        assert!(names.contains(&name.as_str()), "{name} in {names:?}");
    }
    for name in context.step.next.iter().chain([&context.step.grad_norm]) {
        assert!(context.step.graph.output_type(name).is_some(), "{name}");
    }
    for input in context.step.graph.inputs() {
        let scalars = [Some(&context.step.count), Some(&context.step.learning_rate)];
        let scalar =
            scalars.contains(&Some(&input.name)) || context.step.step.as_ref() == Some(&input.name);
        let tensors = context.params.iter().chain(&context.slots);
        let known = tensors.map(|spec| &spec.name).chain(&context.step.gradients);
        assert!(scalar || known.clone().any(|name| *name == input.name), "{}", input.name);
    }
    let Algorithm::SyncSgd(plan) = &context.plan.algorithm;
    assert!(matches!(plan.placement, Placement::Replica { flops, .. } if flops > 10_000));
}

#[test]
fn a_category_is_stored_shown_and_told_to_the_engine() {
    let server = Server::start();
    let dataset = server.small_dataset();
    for category in [Category::Vision, Category::Finance] {
        let mut document = job(&dataset);
        document["category"] = json!(category.as_str());
        let answer = server.post("/v1/jobs", &document);
        assert_eq!(answer.status, 202, "{}", answer.text());
        let id = answer.json()["id"].as_str().expect("an id").to_owned();
        assert_eq!(server.get(&format!("/v1/jobs/{id}")).json()["category"], category.as_str());
        let jobs = server.network.jobs.lock().expect("no panic");
        assert_eq!(jobs.last().expect("handed over").plan.category, category);
    }
    let answer = server.post("/v1/jobs", &job(&dataset));
    assert_eq!(answer.json()["category"], "other", "by default");
}

#[test]
fn the_same_document_comes_to_the_same_graphs() {
    let server = Server::start();
    let dataset = server.small_dataset();
    for _ in 0..2 {
        assert_eq!(server.post("/v1/jobs", &job(&dataset)).status, 202);
    }
    let jobs = server.network.jobs.lock().expect("no panic");
    assert_ne!(jobs[0].job(), jobs[1].job());
    assert_eq!(jobs[0].train.graph.id(), jobs[1].train.graph.id());
    assert_eq!(jobs[0].step.graph.id(), jobs[1].step.graph.id());
}

#[test]
fn master_placement_shows_no_contributor_more_than_half() {
    let server = Server::start();
    let mut document = job(&server.small_dataset());
    document["placement"] = json!("master");
    document["model"]["layers"] = json!([
        {"type": "flatten"}, {"type": "dense", "units": 32, "activation": "relu"},
        {"type": "dense", "units": 4}]);
    let answer = server.post("/v1/jobs", &document);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let jobs = server.network.jobs.lock().expect("no panic");
    let (context, Algorithm::SyncSgd(plan)) = (&jobs[0], &jobs[0].plan.algorithm);
    let Placement::Master { stages, slices, slices_held_max } = &plan.placement else {
        panic!("not master: {:?}", plan.placement);
    };
    assert!(2 * slices_held_max <= *slices);
    assert_eq!(context.train.rows, 20, "one run covers the batch");
    assert_eq!(context.evaluate.rows, 10);
    let cut = context.cut.as_ref().expect("a cut");
    assert_eq!(cut.stages.len(), stages.len());
    let pushed = stages.iter().filter_map(|stage| match stage {
        StagePlan::Pushed { parts } => Some(parts),
        StagePlan::Local => None,
    });
    let slices_seen: Vec<Option<u32>> =
        pushed.flat_map(|parts| parts.iter().map(|part| part.slice)).collect();
    assert!(slices_seen.iter().flatten().all(|slice| slice < slices), "{slices_seen:?}");
    assert!(slices_seen.iter().flatten().count() >= 8, "{slices_seen:?}");
}

/// Documents that are refused: the change, the field and the limit, where it is one.
#[test]
fn documents_are_refused_by_field_and_limit() {
    let server = Server::start();
    let dataset = server.small_dataset();
    let document = |path: &str, value: Value| {
        let mut document = job(&dataset);
        let (parent, name) = path.rsplit_once('/').expect("a path");
        document.pointer_mut(parent).unwrap_or_else(|| panic!("{path}"))[name] = value;
        document
    };
    let flat = |layers: Value| document("/model/layers", layers);
    let dense = |units: u64| {
        flat(json!([{"type": "flatten"}, {"type": "dense", "units": units},
        {"type": "dense", "units": 4}]))
    };
    let extra = |at: &str, name: &str| {
        let mut document = job(&dataset);
        document.pointer_mut(at).expect("there")[name] = json!(1);
        document
    };
    let cases: Vec<(Value, &str, bool)> = vec![
        // The model does not fit its data.
        (
            flat(json!([{"type": "flatten"}, {"type": "dense", "units": 5}])),
            "model.layers[1].units",
            false,
        ),
        (flat(json!([{"type": "dense", "units": 4}])), "model.layers[0].units", false),
        (
            flat(json!([{"type": "conv2d", "filters": 2, "kernel": 99}])),
            "model.layers[0].kernel",
            false,
        ),
        (
            document(
                "/model",
                json!({"input_shape": [3, 8, 8], "loss": "cross_entropy",
            "layers": [{"type": "flatten"}, {"type": "dense", "units": 4}]}),
            ),
            "model.input_shape",
            false,
        ),
        (document("/model/loss", json!("mse")), "model.loss", false),
        (
            flat(
                json!([{"type": "flatten"}, {"type": "dense", "units": 4, "activation": "softmax"}]),
            ),
            "model.layers[1].activation",
            false,
        ),
        (flat(json!([])), "model.layers", false),
        (flat(json!([{"type": "flatten"}, {"type": "dropout", "rate": 0.5}])), "", false),
        (flat(json!(vec![json!({"type": "flatten"}); 1025])), "model.layers", true),
        // It is larger than allowed, up to what would not fit any integer.
        (dense(1_000_000_000), "model.layers[1].units", true),
        (dense(4_294_967_295), "model.layers[1].units", true),
        (dense(1_000_000_000_000), "model.layers[1].units", true),
        (
            document("/model/input_shape", json!([vec![1; 39], vec![64]].concat())),
            "model.input_shape",
            true,
        ),
        (document("/model/input_shape", json!([1_000_000, 1_000_000])), "model.input_shape", true),
        (dense(200_000), "", true),
        (dense(0), "model.layers[1].units", false),
        (
            flat(json!([{"type": "dropout", "rate": 1.0}, {"type": "flatten"},
            {"type": "dense", "units": 4}])),
            "model.layers[0].rate",
            false,
        ),
        (
            flat(json!([{"type": "flatten"}, {"type": "dense", "units": 150_000},
            {"type": "dense", "units": 4}])),
            "optimizer",
            true,
        ),
        // Numbers outside of their domain.
        (document("/name", json!("")), "name", false),
        (document("/category", json!("weapons")), "category", false),
        (document("/dataset", json!("ds_0000000000000001")), "dataset", false),
        (document("/dataset", json!("nonsense")), "dataset", false),
        (document("/training/epochs", json!(0)), "training.epochs", false),
        (document("/training/batch", json!(101)), "training.batch", false),
        (document("/training/batch", json!(0)), "training.batch", false),
        (document("/training/micro_batch", json!(7)), "training.micro_batch", false),
        (document("/training/micro_batch", json!(0)), "training.micro_batch", false),
        (
            document("/training/schedule/learning_rate", json!(-1)),
            "training.schedule.learning_rate",
            false,
        ),
        (document("/optimizer", json!({"kind": "adam", "beta1": 1.0})), "optimizer.beta1", false),
        (extra("/training", "weight_decay"), "-", false),
        // Fields and forms that are not known.
        (extra("", "colour"), "colour", false),
        (extra("/training", "colour"), "training.colour", false),
        (extra("/model/layers/0", "colour"), "model.layers[0]", false),
        (flat(json!([{"type": "magic"}])), "model.layers[0].type", false),
        (document("/seed", json!(-1)), "seed", false),
        (document("/seed", json!("7")), "seed", false),
        (document("/training/epochs", json!("two")), "training.epochs", false),
        (document("/training/epochs", json!(4_294_967_296u64)), "training.epochs", false),
    ];
    let mut refused = 0;
    for (document, field, has_limit) in cases {
        let answer = server.post("/v1/jobs", &document);
        if field == "-" {
            // Not a mistake: it shows that the table tells good from bad.
            assert_eq!(answer.status, 202, "{}", answer.text());
            continue;
        }
        let problem = answer.problem(422);
        let found = problem["field"].as_str().unwrap_or_default();
        assert!(field.is_empty() && !found.is_empty() || found == field, "{field}: {problem}");
        if has_limit {
            let (limit, found) = (&problem["limit"], &problem["found"]);
            assert!(limit.as_u64() < found.as_u64() && limit.is_u64(), "{problem}");
        }
        refused += 1;
    }
    assert_eq!(server.network.jobs.lock().expect("no panic").len(), 1);
    println!("{refused} documents refused");
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn bodies_that_are_no_documents() {
    let server = Server::start();
    let post = |body: &[u8]| server.post_bytes("/v1/jobs", "application/json", body);
    post(b"").problem(400);
    post(b"{\"name\": ").problem(400);
    post(b"\xff\xfe").problem(400);
    post(b"{} trailing").problem(422);
    post(b"[]").problem(422);
    post(&b"[".repeat(200_000)).problem(422);
    let nested = format!("{{\"model\": {}", "[".repeat(100_000));
    post(nested.as_bytes()).problem(422);
    assert_eq!(post(&vec![b' '; (1 << 20) + 1]).problem(413)["limit"], 1 << 20);
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn keys_are_needed_and_own_what_they_made() {
    let server = Server::start();
    let dataset = server.small_dataset();
    let posted = server.post("/v1/jobs", &job(&dataset)).json();
    let id = posted["id"].as_str().expect("an id");
    let wrong_checksum = format!("{}a", &server.key[..server.key.len() - 1]);
    let wrong_checksum = if wrong_checksum == server.key {
        server.key.replace("rk_test_", "rk_live_")
    } else {
        wrong_checksum
    };
    use raven_coordinator::keys::{ApiKey, KeyMode};
    let other = ApiKey::generate(KeyMode::Live);
    let paths = [
        "/v1/jobs",
        "/v1/datasets",
        &format!("/v1/jobs/{id}"),
        &format!("/v1/jobs/{id}/events"),
        &format!("/v1/jobs/{id}/model"),
    ];
    for path in paths {
        for token in [
            "",
            "Bearer ",
            "Bearer rk_test_x",
            "Basic abc",
            &format!("Bearer {wrong_checksum}"),
            &format!("Bearer {}", other.reveal()),
        ] {
            let answer = server.get_with(path, &[("authorization", token)]);
            answer.problem(401);
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
        server.get_with(path, &[]).problem(401);
    }
    // Another key sees nothing of it.
    server.runtime.block_on(server.app.store.add_key(&other)).expect("stored");
    let bearer = format!("Bearer {}", other.reveal());
    let theirs = |path: &str| server.get_with(path, &[("authorization", &bearer)]);
    theirs(&format!("/v1/jobs/{id}")).problem(404);
    theirs(&format!("/v1/datasets/{dataset}")).problem(404);
    assert_eq!(theirs("/v1/jobs").json(), json!({"jobs": []}));
    // A revoked key is none.
    let own = ApiKey::parse(&server.key).expect("a key");
    assert!(server.runtime.block_on(server.app.store.revoke_key(&own)).expect("revoked"));
    server.get("/v1/jobs").problem(401);
}

#[test]
fn cancelling_ends_a_job_once_and_open_jobs_are_bounded() {
    let server = Server::start();
    let dataset = server.small_dataset();
    let post = || server.post("/v1/jobs", &job(&dataset));
    let id = post().json()["id"].as_str().expect("an id").to_owned();
    assert_eq!((post().status, post().status), (202, 202));
    let problem = post().problem(429);
    assert_eq!((&problem["limit"], &problem["found"]), (&json!(3), &json!(3)));
    let cancelled = server.post(&format!("/v1/jobs/{id}/cancel"), &json!(null));
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (202, &json!("cancelled")));
    server.post(&format!("/v1/jobs/{id}/cancel"), &json!(null)).problem(409);
    assert_eq!(post().status, 202);
    server.post("/v1/jobs/job_0000000000000001/cancel", &json!(null)).problem(404);
    server.post("/v1/jobs/nonsense/cancel", &json!(null)).problem(404);
    // No checkpoint was made.
    server.get(&format!("/v1/jobs/{id}/model")).problem(409);
}
