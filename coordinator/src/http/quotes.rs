//! `/v1/quotes`: what a job would come to, from the same document; `/v1/rates`.

use super::auth::Owner;
use super::body::JsonBody;
use super::idempotency::{Once, Turn};
use super::jobs::{Prepared, prepare, takes};
use super::{App, Problem};
use crate::job::{JobSpec, Quote, Speeds, calculations, quote};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use raven_engine::Rates;
use raven_engine::ledger::pay;
use raven_engine::money::FLOPS_PER_CALCULATION;
use raven_engine::rates::CLASSES;
use raven_protocol::{Backend, Numerics};
use serde_json::{Value, json};

pub fn routes() -> Router<App> {
    Router::new().route("/v1/quotes", post(create)).route("/v1/rates", get(rates))
}

/// Who could work on a job now: on a strict one processors, on a relaxed one of a
/// contributor's processor and GPU the faster, since the other stands back.
fn speeds(app: &App, numerics: Numerics) -> Speeds {
    let snapshot = app.network.snapshot();
    let nodes = snapshot.nodes.iter().filter(|node| node.takes_tasks);
    let (gpus, cpus): (Vec<_>, Vec<_>) =
        nodes.partition(|node| node.numeric.backend() == Backend::Gpu);
    let mut flops_per_s: Vec<u64> = cpus.iter().map(|node| node.flops_per_s).collect();
    if numerics == Numerics::Relaxed {
        for gpu in gpus {
            let own = cpus.iter().position(|cpu| cpu.contributor == gpu.contributor);
            match own {
                Some(at) => flops_per_s[at] = flops_per_s[at].max(gpu.flops_per_s),
                None => flops_per_s.push(gpu.flops_per_s),
            }
        }
    }
    Speeds {
        flops_per_s,
        jobs_running: snapshot.jobs.values().filter(|job| !job.phase.is_end()).count() as u64,
    }
}

/// Quotes a job under the present network.
pub fn of(app: &App, prepared: &Prepared) -> Quote {
    let Prepared { spec, context, facts, adaptive } = prepared;
    quote(spec, context, facts, &speeds(app, spec.numerics), *adaptive)
}

fn by_class(rates: &Rates) -> Value {
    let by_class = CLASSES
        .map(|device| json!({ "device": device, "pico_usd_per_calculation": rates.of(device) }));
    json!(by_class)
}

/// What the work of new jobs is paid at; anyone may know.
async fn rates(State(app): State<App>) -> Json<Value> {
    let rates = &app.settings.rates;
    Json(json!({
        "flops_per_calculation": FLOPS_PER_CALCULATION,
        "rates": by_class(rates),
        "bonus": rates.bonus,
        "least": rates.least,
        "highest_pico_usd": rates.highest(),
        "margin_percent": {
            "master_node": pay::MASTER_PERCENT as u64,
            "partner": pay::PARTNER_PERCENT as u64,
            "fee": pay::FEE_PERCENT as u64,
        },
    }))
}

async fn create(
    State(app): State<App>,
    owner: Owner,
    once: Once,
    JsonBody(spec, digest): JsonBody<JobSpec>,
) -> Result<Response, Problem> {
    let claim = match once.begin(&app, owner, digest).await? {
        Turn::Answered(answer) => return Ok(answer),
        Turn::Mine(claim) => claim,
    };
    let prepared = prepare(&app, owner, spec).await?;
    let answer = answer(&app, &prepared, &of(&app, &prepared));
    claim.keep(&app, StatusCode::OK, &answer).await?;
    Ok(Json(answer).into_response())
}

fn answer(app: &App, prepared: &Prepared, quote: &Quote) -> Value {
    let snapshot = app.network.snapshot();
    let (time, reason) = match quote.time {
        Some(time) => (json!({ "least_s": time.least_s, "most_s": time.most_s }), Value::Null),
        None if snapshot.contributors == 0 => (Value::Null, "no contributor is online".into()),
        None => (Value::Null, "no contributor online takes tasks now".into()),
    };
    let by_mode = quote.by_mode.iter().filter(|(mode, ..)| takes(app, *mode)).map(
        |(mode, allowance, price)| {
            json!({
                "verification": mode,
                "allowance_thousandths": allowance,
                "most_nano_usd": price,
            })
        },
    );
    let by_mode: Vec<Value> = by_mode.collect();
    let measured = snapshot.nodes.iter().filter(|node| node.measured).count();
    json!({
        "flops": { "least": quote.flops_least, "planned": quote.flops_planned },
        "calculations": {
            "least": calculations(quote.flops_least),
            "planned": calculations(quote.flops_planned),
        },
        "price": {
            "least_nano_usd": quote.price_least,
            "most_nano_usd": quote.price_most,
            "least_budget_nano_usd": quote.budget_least,
            "rates": by_class(&prepared.facts.rates),
            "bonus": prepared.facts.rates.bonus,
            "by_verification": by_mode,
        },
        "verification": prepared.spec.verification,
        "allowance": { "executions_thousandths": quote.allowance },
        "time": time,
        "time_reason": reason,
        "contributors_online": snapshot.contributors,
        "sessions_measured": measured,
        "parameters": prepared.facts.parameters,
        "rounds": prepared.facts.steps,
    })
}
