//! Contributors whose page freezes: who waits for them, and how often.

use raven_engine::JobPhase;
use raven_protocol::JobId;
use raven_sim::faults::SECOND;
use raven_sim::plans::Replica;
use raven_sim::shell::Story;
use raven_sim::{NodeSpec, Scenario};

#[test]
fn whoever_is_frozen_holds_up_a_job_ever_less_often() {
    let frozen = NodeSpec { freezes_at: Some(3 * SECOND), ..NodeSpec::PLAIN };
    let took = |nodes: Vec<NodeSpec>| {
        let sizes = Replica { rows: 4_096, batch: 256, epochs: 48, ..Replica::default() };
        let mut scenario = Scenario::new(4);
        scenario.nodes = nodes;
        scenario.jobs = vec![(0, sizes.plan(1, 42, 0), Story::default())];
        scenario.until_us = 100_000 * SECOND;
        let outcome = scenario.run();
        let job = &outcome.jobs[&JobId(1)];
        assert_eq!(job.state.phase(), JobPhase::Completed);
        println!("{} s, {} copies", job.took_us / SECOND, outcome.stats.copies);
        job.took_us
    };
    let alone = took(vec![NodeSpec::PLAIN; 3]);
    let beside = took([[NodeSpec::PLAIN; 3], [frozen; 3]].concat());
    // Twice as often each, it would be a sixth.
    assert!(beside < alone + alone / 10, "{beside} us, {alone} us without them");
}
