//! Limits on what one session, one network and all strangers together may ask
//! of the coordinator, and what a contributor that comes back is taken for.

use crate::hostile::{PATIENCE, key};
use crate::support::contributor::{Contributor, Habits};
use crate::support::data::{Rows, job};
use crate::support::socket::{Socket, hello, pace};
use crate::support::{Coordinator, short_timeouts};
use raven_coordinator::runtime::RuntimeConfig;
use raven_engine::JobPhase;
use raven_protocol::{FromContributor, GoodbyeReason, JobId};
use std::time::Duration;

async fn nodes(coordinator: &Coordinator, count: usize) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while coordinator.runtime.snapshot().nodes.len() != count {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", coordinator.runtime.snapshot());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Two sessions fill the only two places, a third is told so, and whoever goes makes
/// room for the next.
async fn two_places(configure: fn(&mut RuntimeConfig), told: &str) {
    let coordinator = Coordinator::start(|config| {
        configure(config);
        config.timeouts = short_timeouts();
    })
    .await;
    let kernel = coordinator.runtime.kernel();
    let mut first = Socket::connect(coordinator.address).await;
    first.open(&key(1), kernel).await;
    let mut second = Socket::connect(coordinator.address).await;
    second.open(&key(2), kernel).await;
    let third = Socket::connect(coordinator.address).await;
    third.refused(GoodbyeReason::Full, told).await;
    drop(first);
    // Its place is free once it is known that it has gone.
    nodes(&coordinator, 1).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let mut fourth = Socket::connect(coordinator.address).await;
    fourth.open(&key(4), kernel).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_sessions_than_allowed_are_told_so() {
    two_places(|config| config.sessions_max = 2, "sessions: the limit is 2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_holds_no_more_sessions_than_its_share() {
    let told = "one network: the limit is 2";
    two_places(|config| config.sessions_per_network_max = 2, told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_wait_for_their_turn_and_consent_frees_it() {
    let coordinator = Coordinator::start(|config| {
        config.opening_max = 1;
        config.timeouts.hello = Duration::from_secs(2);
        config.timeouts.consent = Duration::from_secs(20);
    })
    .await;
    let kernel = coordinator.runtime.kernel();
    // Many that consent pass one after the other, though all come at once.
    let opened = (1..=8).map(|number| async move {
        let mut socket = Socket::connect(coordinator.address).await;
        socket.open(&key(number), kernel).await;
        socket
    });
    let opened = futures_util::future::join_all(opened).await;
    nodes(&coordinator, 8).await;
    // One that has said hello and signs nothing keeps others out, for a while.
    let mut silent = Socket::connect(coordinator.address).await;
    silent.send(&FromContributor::Hello(hello(&key(20), kernel))).await;
    silent.welcome().await;
    let kept_out = Socket::connect(coordinator.address).await;
    kept_out.refused(GoodbyeReason::Full, "without consent").await;
    drop(silent);
    let mut next = Socket::connect(coordinator.address).await;
    next.open(&key(21), kernel).await;
    drop(opened);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_changes_that_come_too_fast_the_last_counts() {
    let coordinator = Coordinator::start(|_| {}).await;
    let kernel = coordinator.runtime.kernel();
    let mut fidgety = Socket::connect(coordinator.address).await;
    let (session, ..) = fidgety.open(&key(1), kernel).await;
    let node = || {
        let snapshot = coordinator.runtime.snapshot();
        snapshot.nodes.iter().find(|node| node.session == session).map(|n| (n.share, n.state))
    };
    // An arrow key that is held down, ten sliders' worth of it, and a page that flickers.
    for number in (10..500).rev() {
        fidgety.send(&pace(f64::from(number) / 1000.0, 1)).await;
        fidgety.send(&FromContributor::Pause { detail: String::new() }).await;
        fidgety.send(&FromContributor::Resume).await;
    }
    fidgety.send(&FromContributor::Pause { detail: String::new() }).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while node() != Some((0.01, "paused")) {
        assert!(tokio::time::Instant::now() < deadline, "the last change is taken: {:?}", node());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Repetitions change nothing.
    for _ in 0..500 {
        fidgety.send(&pace(0.01, 1)).await;
    }
    fidgety.send(&FromContributor::Resume).await;
    while node() != Some((0.01, "idle")) {
        assert!(tokio::time::Instant::now() < deadline, "it is resumed: {:?}", node());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_reconnects_is_taken_under_its_old_key() {
    let coordinator = Coordinator::start(|_| {}).await;
    let kernel = coordinator.runtime.kernel();
    let mut old = Socket::connect(coordinator.address).await;
    let (old_session, _, old_nonce) = old.open(&key(1), kernel).await;
    // The coordinator has not noticed yet that the old connection is dead.
    let mut again = Socket::connect(coordinator.address).await;
    let (session, _, nonce) = again.open(&key(1), kernel).await;
    assert_ne!((session, nonce), (old_session, old_nonce));
    nodes(&coordinator, 2).await;
    drop(old);
    nodes(&coordinator, 1).await;
    drop(again);
    nodes(&coordinator, 0).await;
    // And it works: this contributor signs with one key too, before and after.
    let id = JobId(1);
    coordinator.add_job(id, &Rows { train: 200, test: 50 }, &job("replica", 2, 64, 16)).await;
    let first = Contributor::start(coordinator.address, 7, Habits::default());
    nodes(&coordinator, 1).await;
    let second = Contributor::start(coordinator.address, 7, Habits::default());
    nodes(&coordinator, 2).await;
    drop(first);
    let row = coordinator.finished(id, PATIENCE).await;
    assert_eq!(row.phase, JobPhase::Completed, "{:?}", row.reason);
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visit_moves_no_more_than_it_may_and_its_work_is_not_lost() {
    let coordinator = Coordinator::start(|_| {}).await;
    let id = JobId(1);
    coordinator.add_job(id, &Rows { train: 400, test: 50 }, &job("replica", 40, 64, 16)).await;
    for cap in [20_000, 300_000, 1_000_000] {
        let habits = Habits { traffic: Some(cap), ..Habits::default() };
        let capped = Contributor::start(coordinator.address, 7, habits);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !capped.is_gone() {
            assert!(tokio::time::Instant::now() < deadline, "{cap}: {} moved", capped.moved());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (moved, commits) = (capped.moved(), capped.commits());
        println!("cap {cap}: {moved} bytes moved, {commits} tasks done");
        assert_eq!(capped.goodbye(), Some(GoodbyeReason::TrafficCap));
        assert!(moved <= cap, "{moved} bytes moved, the cap is {cap}");
        // What it was given it could use: with a large cap most of it is moved.
        assert!(cap < 300_000 || (moved > cap / 2 && commits > 0), "{moved} of {cap} only");
    }
    // The job goes on with whoever may move more.
    assert_eq!(coordinator.row(id).await.phase, JobPhase::Running);
    let free = Contributor::start(coordinator.address, 8, Habits::default());
    let row = coordinator.finished(id, PATIENCE).await;
    assert_eq!(row.phase, JobPhase::Completed, "{:?}", row.reason);
    drop(free);
}
