//! Questions that wait until the referee's desk has room for them.

use crate::effect::{Effect, Work};
use crate::engine::Engine;
use crate::verify::referee::{Case, Origin};
use raven_protocol::{JobId, ResultOutcome};

impl Engine {
    /// The referee has answered, or cannot.
    pub(crate) fn case_left(&mut self, case: &Case) {
        self.out.extend(self.docket.pop_front());
        self.note_left(case);
    }

    fn note_left(&mut self, case: &Case) {
        self.world.cases = self.cases.len();
        for claim in &case.claims {
            self.world.note_judged(claim.who.identity.contributor, false);
        }
    }

    /// A round is over for the shell, and with it the operands of its parts: what the desk
    /// had no room for is never put on it. That a part was done says that it can be, and
    /// what is not the referee's result of it is false, whoever looks at it again: only a
    /// file of evidence is lacking then.
    pub(crate) fn withdraw_parts(&mut self, id: JobId) {
        let is_withdrawn = |question: &Effect| matches!(question, Effect::Referee { job, work: Work::Part { .. }, .. } if *job == id);
        let docket = std::mem::take(&mut self.docket);
        let (withdrawn, kept): (Vec<Effect>, Vec<Effect>) =
            docket.into_iter().partition(is_withdrawn);
        self.docket = kept.into();
        let mut cases: Vec<Case> = Vec::new();
        for question in withdrawn {
            let Effect::Referee { effect, .. } = question else { continue };
            let (Some(pending), Some(case)) =
                (self.pending.remove(&effect), self.cases.remove(&effect))
            else {
                continue;
            };
            self.release_payloads(pending.payloads);
            self.note_left(&case);
            self.close_case(id, &case);
            if let Some(job) = self.world.jobs.get_mut(&id) {
                job.effects -= 1;
            }
            cases.push(case);
        }
        for case in cases.iter().filter(|case| case.origin == Origin::Late) {
            for liar in &case.claims {
                self.came_to(liar.into(), ResultOutcome::Wrong);
                self.prove_lie(liar, case.task);
            }
        }
    }
}
