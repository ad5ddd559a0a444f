//! The trial of one task: who has committed to what, and what that needs.

use crate::active::Job;
use crate::event::{Beneficiary, Millis, NetworkPrefix, Oddness, PayloadId, SiteId};
use crate::money::PicoUsd;
use crate::session::Session;
use crate::stage::Task;
use crate::verify::panel::Panel;
use crate::verify::trust::Identity;
use crate::verify::{Purpose, Verification, draw, hits};
use crate::world::World;
use raven_protocol::{Backend, LeaseId, ResultDigest, SessionId, TaskId};
use std::collections::{BTreeMap, BTreeSet};

/// Commitments to one task after which nobody else is asked, but the referee: who commits,
/// answers for projections and leaves before its result is asked for makes nobody surer,
/// and what it answered is kept.
const CLAIMS_MAX: usize = 8;

/// Whoever computes, as far as belief in the result depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) identity: Identity,
    pub(crate) site: Option<SiteId>,
    pub(crate) beneficiary: Beneficiary,
    pub(crate) prefix: NetworkPrefix,
    /// Whether equal work gives equal bits: a result of a GPU does not.
    pub(crate) exact: bool,
    /// The coordinator's own node: it is not doubted.
    pub(crate) operator: bool,
}

impl Who {
    pub(crate) fn of(session: &Session) -> Self {
        let profile = &session.profile;
        Who {
            identity: session.identity(),
            site: profile.site,
            beneficiary: profile.beneficiary,
            prefix: profile.prefix,
            exact: profile.numeric.backend() == Backend::Cpu,
            operator: profile.operator,
        }
    }

    /// Whether both may be the same person or the same house: one does not
    /// confirm the other. Loopback is where a proxy that names nobody is.
    pub(crate) fn is_near(&self, other: &Who) -> bool {
        self.identity.contributor == other.identity.contributor
            || (self.prefix == other.prefix && !self.prefix.is_loopback())
    }
}

/// A commitment under one lease. It stays when its session has gone: who
/// leaves after the work was done is paid for it if others agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) lease: LeaseId,
    pub(crate) session: SessionId,
    pub(crate) who: Who,
    pub(crate) rate: PicoUsd,
    pub(crate) digest: ResultDigest,
    /// Whether the referee found it so.
    pub(crate) doubtful: bool,
}

impl Claim {
    pub(crate) fn of(
        session: &Session,
        lease: LeaseId,
        digest: ResultDigest,
        rate: PicoUsd,
    ) -> Self {
        Claim { lease, session: session.id, who: Who::of(session), rate, digest, doubtful: false }
    }
}

/// What a result needs besides itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Contributors that must come to it.
    pub(crate) claims: u32,
    pub(crate) also: Also,
}

/// Who must have been among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Also {
    /// Nobody in particular.
    Nobody,
    /// A vetted identity or the referee.
    Vetted,
    /// A vetted identity besides the one in question, or the referee.
    OtherVetted,
    /// The referee.
    Referee,
}

/// How far the referee is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Judging {
    #[default]
    NotAsked,
    /// It computes.
    Asked,
    /// It came to this result, which the shell holds.
    Ruled { digest: ResultDigest, payload: PayloadId, bytes: u64 },
}

/// A payload that the shell holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Revealed {
    pub(crate) payload: PayloadId,
    pub(crate) bytes: u64,
    /// The lease under which it came.
    pub(crate) lease: LeaseId,
    pub(crate) odd: Oddness,
}

/// The state of a trial.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trial {
    /// In the order of commitment.
    pub(crate) claims: Vec<Claim>,
    /// Payloads that arrived, by digest.
    pub(crate) payloads: BTreeMap<ResultDigest, Revealed>,
    pub(crate) judging: Judging,
    /// The comparison of results that have no bits to be compared by.
    pub(crate) panel: Panel,
    /// Leases that ended after their payload was asked for and before it came.
    pub(crate) withheld: BTreeSet<LeaseId>,
    /// When somebody else was first needed: who takes part and leaves again does
    /// not begin the wait anew.
    pub(crate) short_since: Option<Millis>,
}

impl Trial {
    /// Results that can be compared, in order.
    pub(crate) fn digests(&self) -> Vec<ResultDigest> {
        let exact = self.claims.iter().filter(|claim| claim.who.exact);
        let mut digests: Vec<ResultDigest> = exact.map(|claim| claim.digest).collect();
        digests.sort_unstable();
        digests.dedup();
        digests
    }

    /// Whether comparable results differ.
    pub(crate) fn is_disputed(&self) -> bool {
        let mut exact = self.claims.iter().filter(|claim| claim.who.exact);
        let first = exact.next().map(|claim| claim.digest);
        exact.any(|claim| Some(claim.digest) != first)
    }

    /// Whether a result has no bits that could be compared.
    pub(crate) fn is_inexact(&self) -> bool {
        self.claims.iter().any(|claim| !claim.who.exact)
    }

    /// The payload of a claim, with the digest under which it came.
    pub(crate) fn payload_of(&self, claim: &Claim) -> Option<(ResultDigest, Revealed)> {
        self.payloads.get(&claim.digest).map(|&revealed| (claim.digest, revealed))
    }

    /// A result that was shown: a processor's, if there is one.
    pub(crate) fn shown(&self) -> Option<(ResultDigest, Revealed)> {
        let exact = self.claims.iter().filter(|claim| claim.who.exact);
        let others = self.claims.iter().filter(|claim| !claim.who.exact);
        exact.chain(others).find_map(|claim| self.payload_of(claim))
    }

    /// Everything that it holds of the shell's memory.
    pub(crate) fn held(&self) -> Vec<PayloadId> {
        let ruled = match self.judging {
            Judging::Ruled { payload, .. } => Some(payload),
            Judging::NotAsked | Judging::Asked => None,
        };
        let projections = self.panel.projections();
        let payloads = self.payloads.values().map(|revealed| revealed.payload);
        payloads.chain(ruled).chain(projections).collect()
    }
}

impl World {
    /// What a result of `task` by `who` needs.
    pub(crate) fn rule(&self, job: &Job, task: TaskId, who: &Who) -> Rule {
        let rule = |claims, also| Rule { claims, also };
        if who.operator {
            return rule(1, Also::Nobody);
        }
        let trust = self.trust.of(&who.identity);
        let is_vetted = trust.is_vetted(&self.config);
        let is_drawn = || {
            let drawn = draw(&self.config, task, Purpose::Check, job.ledger.attempt().into());
            let one_in = trust.check_one_in(&self.config);
            // A lie about much of a round does more.
            hits(drawn, if job.is_weighty(task) { one_in.div_ceil(2) } else { one_in })
        };
        match (job.plan.verification, who.exact) {
            (Verification::None, _) => rule(1, Also::Nobody),
            (Verification::Triple, _) => rule(3, Also::Vetted),
            // What the referee computes of new GPUs is what bounds are learnt from.
            (Verification::Adaptive, false) if !is_vetted => rule(1, Also::Referee),
            // Whoever only ever agreed with others is computed here before it is vetted.
            (Verification::Adaptive, true) if trust.lacks_referee(&self.config) => {
                rule(1, Also::Referee)
            }
            (Verification::Adaptive, true) if !is_vetted => rule(2, Also::Vetted),
            (Verification::Adaptive, _) if is_drawn() => rule(2, Also::OtherVetted),
            (Verification::Adaptive, _) => rule(1, Also::Nobody),
        }
    }

    /// Whether `rule`, which is that of `whose`, is met by those who agree.
    pub(crate) fn is_met(&self, rule: Rule, whose: &Claim, agreeing: &[&Claim]) -> bool {
        let apart = agreeing.iter().enumerate().filter(|(at, claim)| {
            agreeing[..*at].iter().all(|before| !before.who.is_near(&claim.who))
        });
        let is_vetted = |claim: &&Claim| {
            claim.who.operator || self.trust.of(&claim.who.identity).is_vetted(&self.config)
        };
        let also = match rule.also {
            Also::Nobody => true,
            Also::Vetted => agreeing.iter().any(is_vetted),
            Also::OtherVetted => agreeing
                .iter()
                .any(|claim| is_vetted(claim) && claim.who.identity != whose.who.identity),
            Also::Referee => false,
        };
        also && apart.count() as u32 >= rule.claims
    }

    /// Contributors that those who compute `task` in time want to agree. Whoever
    /// is faster than its own check must not escape it, nor leave it unpaid.
    pub(crate) fn claims_awaited(&self, job: &Job, task: &Task) -> u32 {
        let leases = task.leases.iter().filter_map(|&id| self.leases.get(id));
        let in_time = leases.filter(|lease| {
            lease.is_open() && !lease.is_relief && !self.overdue.contains(&lease.id)
        });
        let whose = in_time.filter_map(|lease| self.sessions.get(&lease.session)).map(Who::of);
        whose.map(|who| self.rule(job, task.id, &who).claims).max().unwrap_or(0)
    }

    /// Those who compute `task` now.
    pub(crate) fn computing<'a>(&'a self, task: &'a Task) -> impl Iterator<Item = Who> + 'a {
        let leases = task.leases.iter().filter_map(|&id| self.leases.get(id));
        let open = leases.filter(|lease| lease.is_open());
        open.filter_map(|lease| self.sessions.get(&lease.session)).map(Who::of)
    }

    /// Claims by which a result of `task` may be believed: of a GPU that has gone
    /// without showing its result nothing can be said.
    fn standing<'a>(&'a self, task: &'a Task) -> impl Iterator<Item = &'a Claim> {
        let is_standing = |claim: &&Claim| claim.who.exact || self.is_heard(&task.trial, claim);
        task.trial.claims.iter().filter(is_standing)
    }

    /// Contributors that must come to the same result of `task`, going by those
    /// who compute it or did so.
    pub(crate) fn claims_needed(&self, job: &Job, task: &Task) -> u32 {
        let claimed = self.standing(task).map(|claim| claim.who);
        let everybody = claimed.chain(self.computing(task));
        everybody.map(|who| self.rule(job, task.id, &who).claims).min().unwrap_or(1)
    }

    /// How many more contributors should compute `task`, which has begun.
    pub(crate) fn partners_wanted(&self, job: &Job, task: &Task) -> u32 {
        let trial = &task.trial;
        if trial.judging != Judging::NotAsked || trial.is_disputed() || trial.panel.differ {
            return 0;
        }
        let computing = self.computing(task).count();
        let needed = self.claims_needed(job, task);
        let wanted = needed.saturating_sub((self.standing(task).count() + computing) as u32);
        // Whoever committed may have left without sending its result.
        let may_arrive = || task.leases.iter().any(|&id| self.leases.get(id).is_some());
        let is_lost = computing == 0
            && !trial.claims.is_empty()
            && trial.payloads.is_empty()
            && !may_arrive();
        wanted.max(u32::from(is_lost))
    }

    /// Whether `session` may be one more who computes `task`: apart from the
    /// others, and comparable with them.
    pub(crate) fn may_join(&self, task: &Task, session: &Session) -> bool {
        let who = Who::of(session);
        let trial = &task.trial;
        if trial.claims.len() >= CLAIMS_MAX {
            return false;
        }
        // What a processor that has gone did not show is nothing to compare a GPU's with.
        let is_comparable = who.exact && !trial.is_inexact()
            || trial.claims.iter().all(|claim| self.is_heard(trial, claim));
        let mut others = trial.claims.iter().map(|claim| claim.who);
        is_comparable
            && !others.any(|other| other.is_near(&who))
            && !task.leases.iter().filter_map(|&id| self.leases.get(id)).any(|lease| {
                let other = self.sessions.get(&lease.session);
                other.is_some_and(|other| Who::of(other).is_near(&who))
            })
    }
}
