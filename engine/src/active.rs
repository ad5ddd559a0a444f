//! A job that has not ended: its plan's state machine and what is out for it.

use crate::EngineConfig;
use crate::algorithm::Draft;
use crate::algorithm::sync_sgd::SyncSgdDriver;
use crate::allowance::Allowance;
use crate::effect::{Acceptance, Credit, Payer, Void};
use crate::ending::Ending;
use crate::event::{ContributorId, Metrics, Millis};
use crate::job::{JobPhase, JobState};
use crate::plan::{Algorithm, JobPlan, PartPlan, Placement, ResumePoint, StagePlan, SyncSgd};
use crate::plan_check::{PlanError, check};
use crate::sampling::{EpochOrder, Layout};
use crate::stage::{Stage, Supply, Task};
use crate::tally::Tally;
use crate::terms::{Paused, Spent, Terms};
use crate::verify::earlier::Before;
use crate::verify::ledger::{CAUTION_MAX, Entry, Ledger};
use crate::verify::outcome::Holder;
use raven_protocol::{JobId, ResultOutcome, SessionId, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A job.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) plan: Arc<JobPlan>,
    pub(crate) sgd: Arc<SyncSgd>,
    pub(crate) driver: SyncSgdDriver,
    pub(crate) layout: Layout,
    /// Whether it may run: the others are queued.
    pub(crate) active: bool,
    pub(crate) ending: Option<Ending>,
    pub(crate) terms: Terms,
    /// What its accepted work has cost, that of earlier processes included.
    pub(crate) spent: Spent,
    /// What of its work its owner pays for.
    pub(crate) tally: Tally,
    /// Whether nobody could work on it when that was last looked at.
    pub(crate) nobody: bool,
    /// Whether the coordinator's own node is called for.
    pub(crate) operator: bool,
    /// Where it waits for money.
    pub(crate) paused: Option<Paused>,
    /// Why nobody works on it, while nobody may.
    pub(crate) waiting: Option<String>,
    pub(crate) stage: Option<Stage>,
    /// The order of the epoch that is being read.
    pub(crate) order: Option<EpochOrder>,
    /// Accepted work that is not in a record yet.
    pub(crate) credits: Vec<Credit>,
    /// Accepted work in the record that is being made durable.
    pub(crate) credits_saving: Vec<Credit>,
    /// Accepted work that is void, and is not in a record yet.
    pub(crate) voids: Vec<Void>,
    /// The same in the record that is being made durable.
    pub(crate) voids_saving: Vec<Void>,
    /// Accepted results that are not in a record yet, and those that are.
    pub(crate) accepted: Vec<Acceptance>,
    pub(crate) accepted_saving: Vec<Acceptance>,
    /// What became of the open stage's results: told when it is over.
    pub(crate) outcomes: Vec<(Holder, ResultOutcome)>,
    /// A record that waited for its round to be settled when the job ended.
    pub(crate) unsaved: Option<Draft>,
    /// What it has accepted and not settled.
    pub(crate) ledger: Ledger,
    /// Effects that are not answered.
    pub(crate) effects: u32,
    /// How often the store did not take its end.
    pub(crate) saves_failed: u32,
    /// Slices of the weights that each contributor was ever shown, or is about to be.
    pub(crate) shown: BTreeMap<ContributorId, BTreeSet<u32>>,
    /// Of those, the ones that are not durable yet: nothing of them is sent before.
    pub(crate) showing: BTreeSet<(ContributorId, u32)>,
    /// Slices of the weights that its parts show, and the most memory that such a part takes.
    sliced: (BTreeSet<u32>, u64),
    /// Sessions that called a part invalid, while nobody has done it.
    pub(crate) invalid: BTreeMap<(u32, u32), BTreeSet<SessionId>>,
    /// Parts about which the referee was asked whether they can be done.
    pub(crate) inquired: BTreeSet<(u32, u32)>,
    /// Parts (or, under (0, 0), runs) that somebody has done at least once.
    pub(crate) proven: BTreeSet<(u32, u32)>,
    /// Flops leased and accepted: who has least is served first.
    pub(crate) service: u128,
    /// When a slower session last had a task although a faster one was free; at first, when the job began.
    pub(crate) turn_afforded: Millis,
    pub(crate) flops_accepted: u64,
    pub(crate) tasks_accepted: u64,
    pub(crate) train: Option<Metrics>,
    pub(crate) evaluation: Option<Metrics>,
    /// Contributors to the last durable round.
    pub(crate) contributors: u32,
}

fn sliced(placement: &Placement) -> (BTreeSet<u32>, u64) {
    let Placement::Master { stages, .. } = placement else { return (BTreeSet::new(), 0) };
    let parts = stages.iter().flat_map(StagePlan::parts);
    let showing: Vec<&PartPlan> = parts.filter(|part| part.slice.is_some()).collect();
    let bytes = showing.iter().map(|part| part.bytes_peak.saturating_add(part.operand_bytes));
    let bytes_max = bytes.max().unwrap_or(0);
    (showing.iter().filter_map(|part| part.slice).collect(), bytes_max)
}

impl Job {
    /// Takes in a plan.
    ///
    /// # Errors
    /// [`PlanError`] names the field that does not fit.
    pub(crate) fn new(
        plan: JobPlan,
        resume: Option<ResumePoint>,
        terms: Terms,
        config: &EngineConfig,
    ) -> Result<Self, PlanError> {
        let Algorithm::SyncSgd(sgd) = &plan.algorithm;
        let layout = check(sgd, config)?;
        let sgd = Arc::new(sgd.clone());
        let sliced = sliced(&sgd.placement);
        let shown = resume.as_ref().map(|resume| resume.shown.clone()).unwrap_or_default();
        let spent = resume.as_ref().map(|resume| resume.spent).unwrap_or_default();
        let credited_rounds = resume.as_ref().map_or(0, |resume| resume.credited_rounds);
        let allowance = terms.allowance.unwrap_or(Allowance::usual(plan.verification));
        let open = resume.as_ref().map(|resume| resume.open.clone()).unwrap_or_default();
        let rollbacks = resume.as_ref().map_or(0, |resume| resume.rollbacks);
        let setbacks = resume.as_ref().map_or(0, |resume| resume.setbacks.len() as u32);
        let attempt = resume.as_ref().map_or(0, |resume| resume.attempt);
        let attempts_before = attempt.saturating_sub(rollbacks.saturating_add(setbacks));
        Ok(Job {
            id: plan.job,
            plan: Arc::new(plan),
            driver: SyncSgdDriver::new(Arc::clone(&sgd), layout, resume),
            sgd,
            layout,
            active: false,
            ending: None,
            terms,
            spent,
            tally: Tally::new(allowance, credited_rounds),
            nobody: false,
            operator: false,
            paused: None,
            waiting: None,
            stage: None,
            order: None,
            credits: Vec::new(),
            credits_saving: Vec::new(),
            voids: Vec::new(),
            voids_saving: Vec::new(),
            accepted: Vec::new(),
            accepted_saving: Vec::new(),
            outcomes: Vec::new(),
            unsaved: None,
            ledger: Ledger {
                rollbacks,
                setbacks,
                attempts_before,
                before: Before::new(attempt, open),
                caution: rollbacks.min(CAUTION_MAX),
                ..Ledger::default()
            },
            effects: 0,
            saves_failed: 0,
            shown,
            showing: BTreeSet::new(),
            sliced,
            invalid: BTreeMap::new(),
            inquired: BTreeSet::new(),
            proven: BTreeSet::new(),
            service: 0,
            turn_afforded: 0,
            flops_accepted: 0,
            tasks_accepted: 0,
            train: None,
            evaluation: None,
            contributors: 0,
        })
    }

    /// Where it stands for a reader.
    pub(crate) fn state(&self) -> JobState {
        if let Some(ending) = &self.ending {
            return ending.state().clone();
        }
        if !self.active {
            return JobState::Queued;
        }
        match (&self.paused, &self.waiting) {
            (Some(paused), _) => paused.state(),
            (None, Some(reason)) => JobState::WaitingForContributors { reason: reason.clone() },
            (None, None) => self.driver.job_state(),
        }
    }

    /// The phase of that.
    pub(crate) fn phase(&self) -> JobPhase {
        match &self.ending {
            Some(ending) => ending.state().phase(),
            None if !self.active => JobPhase::Queued,
            None if self.paused.is_some() => JobPhase::Paused,
            None if self.waiting.is_some() => JobPhase::WaitingForContributors,
            None => self.driver.job_state().phase(),
        }
    }

    /// Whether a task is a quarter of its round, or more.
    pub(crate) fn is_weighty(&self, task: TaskId) -> bool {
        let stage = self.stage.as_ref().filter(|stage| stage.is_of(task));
        stage.is_some_and(|stage| match &stage.supply {
            Supply::Runs(pool) => {
                let units = stage.tasks.get(&task.part).map_or(0, Task::units);
                units.saturating_mul(4) >= pool.total()
            }
            Supply::Parts(_) => false,
        })
    }

    /// Its record is durable.
    pub(crate) fn saved(&mut self) {
        self.credits_saving.clear();
        self.voids_saving.clear();
        self.accepted_saving.clear();
        self.ledger.set_back = None;
    }

    /// Takes back what `contributor` earned with a result, and what that has cost.
    pub(crate) fn void(&mut self, entry: &mut Entry, contributor: ContributorId) {
        let (task, attempt) = (entry.task, entry.attempt);
        for member in entry.members.iter().filter(|it| it.who.identity.contributor == contributor) {
            // Once, however often it is found.
            let Some(payer) = entry.payers.remove(&member.lease) else { continue };
            self.spent.take_back(payer, entry.flops, member.rate);
            if payer == Payer::Job && self.ledger.is_own(entry) {
                self.tally.take_back(entry.flops);
            }
        }
        self.credits.retain(|credit| {
            (credit.contributor, credit.task, credit.attempt) != (contributor, task, attempt)
        });
        self.voids.push(Void { task, attempt, contributor });
    }

    /// Whether what is left of `round` from `stage` on is within the budget,
    /// whoever does it.
    pub(crate) fn affords(&self, round: u32, stage: u32) -> bool {
        let Some(budget) = self.terms.budget else { return true };
        let flops = self.flops_paid_from(round, stage);
        self.tally.is_paid(round) || !self.spent.could_exceed(budget, flops, &self.terms.rates)
    }

    /// Operations of `round` from `stage` on, as often as its mode may charge for them.
    pub(crate) fn flops_paid_from(&self, round: u32, stage: u32) -> u64 {
        let flops = self.sgd.placement.flops_from(stage, self.layout.micro_batches(round));
        self.tally.allowance().of(flops)
    }

    /// Slices that one contributor may ever be shown; `None` where none are counted.
    pub(crate) fn slices_held_max(&self) -> Option<u32> {
        match self.sgd.placement {
            Placement::Replica { .. } => None,
            Placement::Master { slices_held_max, .. } => Some(slices_held_max),
        }
    }

    /// Slices of the weights that its parts show, and the most memory that such a part takes.
    pub(crate) fn sliced(&self) -> (&BTreeSet<u32>, u64) {
        (&self.sliced.0, self.sliced.1)
    }

    /// The key under which refusals and proofs of a task are kept: runs of a
    /// round are alike, parts are not.
    pub(crate) fn part_key(&self, task: TaskId) -> Option<u32> {
        match self.sgd.placement {
            Placement::Replica { .. } => None,
            Placement::Master { .. } => Some(task.part),
        }
    }

    /// Tasks of a kind can be done by anybody or by nobody.
    pub(crate) fn kind_of(&self, task: TaskId) -> (u32, u32) {
        (task.stage, self.part_key(task).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::category::Category;
    use crate::effect::Work;
    use crate::event::{Beneficiary, NetworkPrefix};
    use crate::rates;
    use crate::verify::trial::{Claim, Who};
    use crate::verify::{Identity, Verification};
    use raven_graph::schedule::Schedule;
    use raven_protocol::{
        Backend, BlobId, DeviceClass, GraphId, KernelId, LeaseId, Numerics, ResultDigest, Seed,
        ShardRef,
    };

    const FLOPS: u64 = 50_000_000;

    fn job() -> Job {
        let shards = vec![ShardRef { blob: BlobId([9; 32]), first_row: 0, rows: 64, bytes: 64 }];
        let placement = Placement::Replica {
            graph: GraphId([3; 32]),
            flops: FLOPS,
            bytes_peak: 1 << 20,
            result_bytes: 1_000,
        };
        let plan = JobPlan {
            job: JobId(1),
            category: Category::Vision,
            seed: Seed(5),
            numerics: Numerics::Strict,
            verification: Verification::Adaptive,
            kernel: KernelId([7; 32]),
            algorithm: Algorithm::SyncSgd(SyncSgd {
                train_rows: 64,
                batch: 32,
                micro_batch: 8,
                epochs: 1,
                schedule: Schedule::constant(0.1),
                early_stopping: None,
                placement,
                groups: 1,
                divergence: None,
                shards,
                weights_bytes: 1_000,
            }),
        };
        Job::new(plan, None, Terms::default(), &EngineConfig::default()).expect("a good plan")
    }

    fn claim(who: u8) -> Claim {
        let contributor = ContributorId([who; 32]);
        let identity =
            Identity { contributor, device: DeviceClass::Desktop, backend: Backend::Cpu };
        let who = Who {
            identity,
            site: None,
            beneficiary: Beneficiary::default(),
            prefix: NetworkPrefix([who; 16]),
            exact: true,
            operator: false,
        };
        let lease = LeaseId(identity.contributor.0[0].into());
        let (rate, digest) = (rates::HIGHEST, ResultDigest([1; 32]));
        Claim { lease, session: SessionId(1), who, rate, digest, doubtful: false }
    }

    #[test]
    fn what_is_void_was_not_spent_however_often_it_is_found() {
        let mut job = job();
        let task = TaskId { job: job.id, round: 0, stage: 0, part: 0 };
        let mut entry = Entry {
            order: 1,
            task,
            work: Work::Replica { state: BlobId([2; 32]), start: 0, count: 1 },
            flops: FLOPS,
            attempt: 0,
            members: [1, 2, 3].map(claim).to_vec(),
            payers: BTreeMap::new(),
            asked: false,
            is_odd: false,
            drawn: false,
        };
        for (who, payer) in [(1, Payer::Job), (2, Payer::Job), (3, Payer::Operator)] {
            entry.payers.insert(claim(who).lease, payer);
            match payer {
                Payer::Job => job.spent.add(FLOPS, rates::HIGHEST),
                Payer::Operator => job.spent.add_operators(FLOPS, rates::HIGHEST),
            }
        }
        let both = job.spent.charge;
        for who in [2, 2, 3, 3] {
            job.void(&mut entry, ContributorId([who; 32]));
        }
        assert_eq!(job.spent.flops, FLOPS);
        assert_eq!(job.spent.charge.plus(job.spent.charge), Some(both));
        assert_eq!(job.spent.operator, Default::default());
        assert_eq!(job.voids.len(), 4, "the store voids each once");
    }
}
