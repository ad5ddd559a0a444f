//! Books that forget whatever was not durable: what a history is made of.

pub mod run;

use raven_engine::ledger::pay::{Held, Line, OpenRound, Owed};
use raven_engine::ledger::{
    Account, Action, Added, Auditor, Batch, Books as _, ChainHash, Entry, EntryId, Exact, JobPay,
    MemoryBooks, Refusal, RoundKey, Transfer, Work,
};
use raven_engine::money::NanoUsd;
use raven_graph::philox::{key, philox4x32};
use raven_protocol::JobId;
use run::State;

/// Draws of one history.
pub struct Dice {
    pub seed: u64,
    pub drawn: u32,
}

impl Dice {
    pub fn below(&mut self, bound: u32) -> u32 {
        self.drawn += 1;
        philox4x32([self.drawn, 0, 0, 0], key(self.seed))[0] % bound
    }

    pub fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }

    /// From 1 to about `most`, each order of magnitude as often.
    pub fn of_any_size(&mut self, most: u64) -> u64 {
        let bits = 1 + self.below(64 - most.leading_zeros());
        let drawn = u64::from(self.below(u32::MAX)) << 32 | u64::from(self.below(u32::MAX));
        (drawn >> (64 - bits)).clamp(1, most)
    }
}

/// The pay of a job as rows of a store, from which it is made anew.
#[derive(Clone)]
pub struct Rows {
    job: JobId,
    escrow: NanoUsd,
    charged: Exact,
    statements: u32,
    is_closed: bool,
    lines: Vec<(Line, Owed)>,
    rounds: Vec<(RoundKey, Vec<Work>)>,
    holds: Vec<(RoundKey, Held)>,
}

impl Rows {
    pub fn of(pay: &JobPay) -> Self {
        let open = || pay.open.iter();
        let holds = |(key, round): (&RoundKey, &OpenRound)| {
            let key = *key;
            round.holds.clone().into_iter().map(move |held| (key, held))
        };
        let rows = Rows {
            job: pay.job,
            escrow: pay.escrow,
            charged: pay.charged,
            statements: pay.statements,
            is_closed: pay.is_closed,
            lines: pay.lines.iter().map(|(line, owed)| (*line, *owed)).collect(),
            rounds: open().map(|(key, round)| (*key, round.work.clone())).collect(),
            holds: open().flat_map(holds).collect(),
        };
        assert_eq!(rows.load(), JobPay { last: None, ..pay.clone() });
        rows
    }

    pub fn load(&self) -> JobPay {
        let mut pay = JobPay::new(self.job, self.escrow);
        (pay.charged, pay.statements) = (self.charged, self.statements);
        pay.is_closed = self.is_closed;
        pay.lines = self.lines.iter().copied().collect();
        for (key, work) in &self.rounds {
            pay.open.insert(*key, OpenRound { work: work.clone(), holds: Vec::new() });
        }
        for (key, held) in &self.holds {
            pay.open.entry(*key).or_default().holds.push(*held);
        }
        pay
    }
}

/// What is stored in one transaction: entries, and a job as it is after them.
struct Group {
    entries: Vec<(Entry, ChainHash)>,
    job: Option<(Rows, State)>,
}

/// The books, the auditor that reads along, and what of both is written.
#[derive(Default)]
pub struct Desk {
    pub books: MemoryBooks,
    auditor: Auditor,
    pub at: i64,
    pub entries: u64,
    log: Vec<Group>,
    /// Groups that are durable whatever happens.
    synced: usize,
}

impl Desk {
    pub fn enter(
        &mut self,
        entries: &[Entry],
        job: Option<(Rows, State)>,
    ) -> Result<usize, Refusal> {
        let mut batch = Batch::new(&self.books);
        let mut new = 0;
        for entry in entries {
            new += usize::from(batch.add(*entry)? == Added::New);
        }
        let changes = batch.finish();
        for (entry, hash) in &changes.entries {
            self.auditor.read(entry, *hash).expect("the books took it");
        }
        self.entries += changes.entries.len() as u64;
        self.log.push(Group { entries: changes.entries.clone(), job });
        self.books.apply(changes);
        self.compare();
        Ok(new)
    }

    fn compare(&self) {
        self.auditor.compare(self.books.accounts()).expect("the auditor's balances");
    }

    /// Everything up to here is durable, and may have been acknowledged.
    pub fn sync(&mut self) {
        self.synced = self.log.len();
    }

    /// The process dies and is started again: of the groups that were not synced the first
    /// few are there, the others never were. Answers the job as it is stored.
    pub fn crash(&mut self, dice: &mut Dice) -> (JobPay, State) {
        let open = (self.log.len() - self.synced) as u32;
        self.log.truncate(self.synced + dice.below(open + 1) as usize);
        (self.books, self.auditor) = (MemoryBooks::default(), Auditor::default());
        for group in &self.log {
            let mut batch = Batch::new(&self.books);
            for (entry, hash) in &group.entries {
                assert_eq!(batch.add(*entry), Ok(Added::New), "it was entered before");
                self.auditor.read(entry, *hash).expect("the chain is the same");
            }
            self.books.apply(batch.finish());
        }
        self.compare();
        self.sync();
        // Whoever does not know how far it came repeats the last of them, to no effect.
        let last = self.log.iter().rev().find(|group| !group.entries.is_empty());
        let again: Vec<Entry> =
            last.into_iter().flat_map(|group| group.entries.iter().map(|it| it.0)).collect();
        let head = self.books.head();
        assert_eq!(self.enter(&again, None), Ok(0), "nothing is entered twice");
        assert_eq!(self.books.head(), head);
        let stored = self.log.iter().rev().find_map(|group| group.job.as_ref());
        let (rows, state) = stored.expect("a job's first group is durable before its work");
        (rows.load(), state.clone())
    }

    pub fn post(
        &mut self,
        name: &str,
        transfer: Transfer,
        job: Option<(Rows, State)>,
    ) -> Result<usize, Refusal> {
        self.at += 1;
        let id = EntryId::of(name, &[&self.at.to_le_bytes()]);
        self.enter(&[Entry { id, at: self.at, action: Action::Post(transfer) }], job)
    }

    pub fn posted(&self, account: Account) -> i64 {
        self.books.balance(&account).posted
    }
}
