//! How large the slices are that a session gets, from its arrival on.

use raven_engine::{
    Beneficiary, ContributorId, Effect, Engine, EngineConfig, Event, NetworkPrefix, Outbound,
    Outcome, PayloadId, SessionProfile, Terms,
};
use raven_protocol::{BlobId, DeviceClass, LeaseId, NumericClass, ResultDigest, SessionId};
use raven_sim::plans::{KERNEL, Replica};

const SESSION: SessionId = SessionId(1);
/// Of one micro-batch: a twentieth of a second on the device, less than a result
/// is on its way, so that longer tasks pay.
const UNIT_FLOPS: u64 = 50_000_000;
const TRUE_FLOPS_PER_MS: u64 = 1_000_000;
const TASK_MS_MAX: u64 = 2_000;
/// From asking for a result to its arrival.
const RESULT_MS: u64 = 120;

/// One engine, one job of many micro-batches, one session.
struct Table {
    engine: Engine,
    now: u64,
    /// Tasks that wait at the session, with their flops.
    waiting: Vec<(LeaseId, u64)>,
    payloads: u64,
}

impl Table {
    fn new(claim: u64, share: f64, workers: u32) -> Self {
        let engine = Engine::new(EngineConfig { seed: 5, ..EngineConfig::default() });
        let mut table = Table { engine, now: 1, waiting: Vec::new(), payloads: 0 };
        let profile = SessionProfile {
            contributor: ContributorId([1; 32]),
            site: None,
            beneficiary: Beneficiary::default(),
            prefix: NetworkPrefix([0; 16]),
            device: DeviceClass::Desktop,
            numeric: NumericClass::Cpu { kernel: KERNEL },
            flops_per_s: claim,
            share,
            workers,
            memory_bytes: 1 << 30,
            traffic_bytes: None,
            refused: raven_engine::RefusedCategories::default(),
            operator: false,
            trust: raven_engine::Trust::default(),
        };
        table.tell(Event::SessionOpened { session: SESSION, profile });
        let sizes = Replica {
            rows: 131_072,
            batch: 65_536,
            micro_batch: 32,
            flops: UNIT_FLOPS,
            weights_bytes: 10_000,
            ..Replica::default()
        };
        let (plan, terms) = (Box::new(sizes.plan(1, 7, 0)), Terms::default());
        table.tell(Event::JobAdded { plan, resume: None, terms: Box::new(terms) });
        table
    }

    fn tell(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            self.engine.handle(self.now, event);
            while let Some(effect) = self.engine.poll_effect() {
                match effect {
                    Effect::InitState { effect, .. } => {
                        let outcome = Ok(Outcome::StateReady { state: BlobId([9; 32]) });
                        events.push(Event::EffectDone { effect, outcome });
                    }
                    Effect::Persist { effect, .. } => {
                        events.push(Event::EffectDone { effect, outcome: Ok(Outcome::Persisted) });
                    }
                    Effect::Send { message: Outbound::Task { lease, flops, .. }, .. } => {
                        self.waiting.push((lease, flops));
                    }
                    Effect::Send { message: Outbound::Reveal { lease }, .. } => {
                        self.now += RESULT_MS;
                        self.payloads += 1;
                        events.push(Event::Revealed {
                            odd: raven_engine::Oddness::Plain,
                            agrees: true,
                            session: SESSION,
                            lease,
                            digest: ResultDigest([3; 32]),
                            payload: PayloadId(self.payloads),
                            bytes: 10_000,
                        });
                    }
                    _ => {}
                }
            }
        }
    }

    /// Does the first task at `flops_per_ms`, and answers its flops.
    fn work(&mut self, flops_per_ms: u64) -> u64 {
        let (lease, flops) = self.waiting.remove(0);
        self.now += flops / flops_per_ms;
        self.tell(Event::Committed { session: SESSION, lease, digest: ResultDigest([3; 32]) });
        flops
    }
}

#[test]
fn the_first_slice_is_small_whatever_a_session_claims() {
    for claim in [0, 1_000_000_000, 1 << 50, u64::MAX] {
        let mut table = Table::new(claim, 1.0, 1);
        assert!(!table.waiting.is_empty(), "a session that claims {claim} gets work");
        for (_, flops) in &table.waiting {
            assert_eq!(*flops, UNIT_FLOPS, "one micro-batch, claim {claim}");
        }
        // From the first commitment on the measurement counts.
        let pipelined = table.waiting.len();
        for number in 0..20 {
            let flops = table.work(TRUE_FLOPS_PER_MS);
            let ms = flops / TRUE_FLOPS_PER_MS;
            assert!(ms <= TASK_MS_MAX, "task {number} takes {ms} ms, claim {claim}");
            // Runs are chosen anew a few times a second at most.
            if number > pipelined + 8 {
                assert!(ms > UNIT_FLOPS / TRUE_FLOPS_PER_MS, "no need for such short tasks");
            }
        }
    }
}

#[test]
fn a_new_share_changes_the_slices_by_what_each_worker_does() {
    // Two cores: half of them is one worker at full speed, all of them two.
    let mut table = Table::new(1_000_000_000, 0.5, 1);
    for _ in 0..16 {
        table.work(TRUE_FLOPS_PER_MS);
    }
    let before = table.waiting.last().map(|&(_, flops)| flops).expect("a task");
    table.tell(Event::PaceChanged { session: SESSION, share: 1.0, workers: 2 });
    for _ in 0..6 {
        let ms = table.work(TRUE_FLOPS_PER_MS) / TRUE_FLOPS_PER_MS;
        assert!(ms <= TASK_MS_MAX, "{ms} ms, though each worker is as fast as before");
    }
    // A tenth of one worker's time: a tenth of the work within two seconds, but never below one micro-batch.
    table.tell(Event::PaceChanged { session: SESSION, share: 0.25, workers: 1 });
    let queued = table.waiting.len();
    for _ in 0..queued {
        table.work(TRUE_FLOPS_PER_MS / 2);
    }
    let after = table.work(TRUE_FLOPS_PER_MS / 2);
    assert!(after < before, "{after} flops at half of the speed, {before} at full");
}
