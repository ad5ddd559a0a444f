//! Who refuses a kind of job gets no task of it: neither to compute nor to check.

use raven_engine::{
    Category, CategorySet, ContributorId, JobPhase, JobPlan, RefusedCategories, Verification,
};
use raven_protocol::JobId;
use raven_sim::faults::SECOND;
use raven_sim::node::contributor;
use raven_sim::plans::Replica;
use raven_sim::shell::Story;
use raven_sim::{NodeSpec, Outcome, Scenario};
use std::collections::BTreeSet;

const VISION: JobId = JobId(1);
const FINANCE: JobId = JobId(2);

fn sizes() -> Replica {
    Replica { rows: 2_048, batch: 512, micro_batch: 32, epochs: 2, ..Replica::default() }
}

/// Six contributors, of whom the first refuses finance for itself, and the second's
/// site does; two jobs.
fn run(verification: Verification, plan: impl Fn(u64) -> JobPlan) -> Outcome {
    let finance = CategorySet::EMPTY.with(Category::Finance);
    let (by_visitor, by_site) = (finance, finance);
    let mut scenario = Scenario::new(5);
    scenario.nodes = vec![NodeSpec::PLAIN; 6];
    scenario.nodes[0].refused = RefusedCategories { by_visitor, ..Default::default() };
    scenario.nodes[1].refused = RefusedCategories { by_site, ..Default::default() };
    scenario.until_us = 20_000 * SECOND;
    scenario.jobs = [(VISION, Category::Vision), (FINANCE, Category::Finance)]
        .map(|(job, category)| {
            let plan = JobPlan { category, verification, ..plan(job.0) };
            (0, plan, Story::default())
        })
        .into();
    scenario.run()
}

/// Everybody whose result of `job` was accepted, paid or not.
fn took_part(outcome: &Outcome, job: JobId) -> BTreeSet<ContributorId> {
    let records = outcome.records[&job].iter();
    records.flat_map(|record| &record.credits).map(|credit| credit.contributor).collect()
}

#[test]
fn nobody_works_for_a_job_of_a_kind_that_it_refuses() {
    let replica = |id| sizes().plan(id, 7, 0);
    let master = |id| sizes().master(id, 7, 8, 8);
    let plans: [(&str, &dyn Fn(u64) -> JobPlan); 2] = [("replica", &replica), ("master", &master)];
    for (placement, plan) in plans {
        for verification in Verification::ALL {
            let outcome = run(verification, plan);
            let refusing = [contributor(0), contributor(1)];
            for job in [VISION, FINANCE] {
                let state = &outcome.jobs[&job].state;
                assert_eq!(state.phase(), JobPhase::Completed, "{placement} {verification:?}");
            }
            let (vision, finance) = (took_part(&outcome, VISION), took_part(&outcome, FINANCE));
            for who in refusing {
                assert!(!finance.contains(&who), "{placement} {verification:?}");
                assert!(vision.contains(&who), "{placement} {verification:?}");
            }
            assert!(finance.len() >= 3, "the others do: {placement} {verification:?}");
        }
    }
}

#[test]
fn a_job_that_everybody_refuses_waits_and_says_why() {
    let by_site = CategorySet::EMPTY.with(Category::Finance);
    let mut scenario = Scenario::new(5);
    let refused = RefusedCategories { by_site, ..Default::default() };
    scenario.nodes = vec![NodeSpec { refused, ..NodeSpec::PLAIN }; 2];
    scenario.until_us = 100 * SECOND;
    let plan = JobPlan { category: Category::Finance, ..sizes().plan(FINANCE.0, 7, 0) };
    scenario.jobs = vec![(0, plan, Story::default())];
    let outcome = scenario.run();
    let state = format!("{:?}", outcome.jobs[&FINANCE].state);
    assert!(state.contains("every contributor online refuses jobs of category finance"), "{state}");
}
