//! The auditor itself: what it must catch, it catches.

use raven_engine::{
    Beneficiary, Cause, ContributorId, Credit, Effect, EffectId, EngineConfig, Event, JobPhase,
    JobState, Outbound, Payer, PayloadId, Proof, Record, rates,
};
use raven_protocol::{Backend, BlobId, JobId, LeaseId, ResultDigest, SessionId, TaskId};
use raven_sim::auditor::Auditor;
use raven_sim::kernel::mix;
use raven_sim::plans::Replica;
use raven_sim::shell::Shell;

const JOB: JobId = JobId(1);

fn auditor() -> (Auditor, Shell) {
    let mut auditor = Auditor::new(EngineConfig::default());
    let mut shell = Shell::default();
    let plan = Replica::default().plan(1, 7, 0);
    shell.kernel.add(plan.clone());
    auditor.event(&Event::JobAdded { plan: Box::new(plan), resume: None, terms: Box::default() });
    (auditor, shell)
}

fn record(credits: Vec<Credit>) -> Effect {
    let record = Record {
        job: JOB,
        phase: JobPhase::Cancelled,
        state: JobState::Cancelled { cause: Cause::Owner },
        step: 0,
        epoch: 0,
        weights: None,
        checkpoint: false,
        best: false,
        train: None,
        evaluation: None,
        learning_rate: None,
        contributors: credits.len() as u32,
        credits,
        voids: Vec::new(),
        rolled_back: false,
        set_back: None,
        rounds_paid: 0,
        accepted: Vec::new(),
        earlier: None,
    };
    Effect::Persist { effect: EffectId(1), record: Box::new(record) }
}

#[test]
#[should_panic(expected = "a record pays what was accepted")]
fn pay_without_work_is_caught() {
    let (mut auditor, mut shell) = auditor();
    let credit = Credit {
        task: TaskId { job: JOB, round: 0, stage: 0, part: 0 },
        contributor: ContributorId([1; 32]),
        session: SessionId(1),
        site: None,
        beneficiary: Beneficiary::default(),
        flops: 1,
        rate: rates::LOWEST,
        backend: Backend::Cpu,
        digest: ResultDigest([2; 32]),
        proof: Proof::Unchecked,
        attempt: 0,
        payer: Payer::Job,
    };
    auditor.effect(&record(vec![credit]), &mut shell);
}

#[test]
#[should_panic(expected = "was released twice")]
fn a_payload_that_is_released_twice_is_caught() {
    let (mut auditor, mut shell) = auditor();
    let payload = PayloadId(1);
    auditor.event(&Event::Revealed {
        odd: raven_engine::Oddness::Plain,
        agrees: true,
        session: SessionId(1),
        lease: LeaseId(1),
        digest: ResultDigest([0; 32]),
        payload,
        bytes: 1,
    });
    let release = Effect::ReleasePayloads { payloads: vec![payload] };
    auditor.effect(&release, &mut shell);
    auditor.effect(&release, &mut shell);
}

#[test]
#[should_panic(expected = "which is closed")]
fn a_message_to_nobody_is_caught() {
    let (mut auditor, mut shell) = auditor();
    let message = Outbound::Reveal { lease: LeaseId(1) };
    auditor.effect(&Effect::Send { session: SessionId(1), message }, &mut shell);
}

#[test]
#[should_panic(expected = "reads a released state")]
fn an_evaluation_of_nothing_is_caught() {
    let (mut auditor, mut shell) = auditor();
    let state = BlobId([3; 32]);
    auditor.effect(&Effect::Evaluate { effect: EffectId(1), job: JOB, state }, &mut shell);
}

#[test]
fn results_combine_in_one_order_only() {
    assert_ne!(mix(1, 2), mix(2, 1));
    assert_ne!(mix(mix(1, 2), 3), mix(1, mix(2, 3)));
}
