//! One job of a history, with sums that are kept apart from those of the books.

use super::{Desk, Dice, Rows};
use raven_engine::ledger::pay::quote;
use raven_engine::ledger::{
    Account, Action, Books as _, Entry, JobPay, PayError, Reason, Refusal, RequesterId, RoundKey,
    Transfer, Voided, Work,
};
use raven_engine::money::{Charge, FLOPS_PER_CALCULATION, Flops, NanoUsd, PicoUsd};
use raven_engine::rates::{BONUS_THOUSANDTHS_MAX, Bonus, CLASSES, RATE_MAX};
use raven_engine::{Allowance, ContributorId, Payer, Rates, SiteId, Tally, Verification};
use raven_protocol::JobId;
use std::collections::BTreeMap;

/// How often a history came to what it is about: otherwise it shows nothing of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reached {
    /// Executions that the escrow did not suffice for, and those beyond the mode's allowance.
    pub beyond: u64,
    pub overs: u64,
    pub top_ups: u64,
    pub crashes: u64,
    /// Crashes that something was lost by.
    pub losses: u64,
    pub voids: u64,
    /// Jobs that the operator has paid for some of.
    pub by_operator: u64,
}

impl Reached {
    pub fn add(&mut self, other: Reached) {
        self.beyond += other.beyond;
        self.overs += other.overs;
        self.top_ups += other.top_ups;
        self.crashes += other.crashes;
        self.losses += other.losses;
        self.voids += other.voids;
        self.by_operator += other.by_operator;
    }

    /// What was reached least often.
    pub fn least(&self) -> u64 {
        let all = [self.beyond, self.overs, self.top_ups, self.crashes, self.losses, self.voids];
        all.into_iter().fold(self.by_operator, u64::min)
    }
}

/// What of a job a store keeps beside its pay.
#[derive(Clone)]
pub struct State {
    /// What its owner has put in.
    given: NanoUsd,
    /// The engine's own rule of who pays, of this process.
    tally: Tally,
    next: RoundKey,
    /// Rounds that were stored: the operator pays whoever does them again.
    credited: u32,
    /// Work that counts, by round.
    counted: BTreeMap<RoundKey, Vec<Work>>,
    /// Flops of an execution, and who was to pay for it.
    executed: BTreeMap<Execution, (u64, Payer)>,
    /// The first attempt of this process.
    began: u32,
}

/// By round, task and who did it.
type Execution = (RoundKey, (u32, u32), ContributorId);

pub struct Run {
    id: JobId,
    requester: Account,
    mode: Verification,
    rates: Rates,
    rounds: u32,
    flops_of_a_round: u64,
    pay: JobPay,
    state: State,
    statements: u32,
    /// What the operator had when the job began.
    operator: i64,
    pub reached: Reached,
}

fn person(n: u32) -> ContributorId {
    ContributorId([n as u8 + 1; 32])
}

fn draw_rates(dice: &mut Dice) -> Rates {
    let mut rate = || PicoUsd(dice.of_any_size(RATE_MAX.0));
    let (phone, desktop, server) = (rate(), rate(), rate());
    let mut thousandths = || match dice.one_in(3) {
        true => 0,
        false => dice.below(BONUS_THOUSANDTHS_MAX + 1),
    };
    let (gpu_thousandths, stay_thousandths) = (thousandths(), thousandths());
    let bonus = Bonus { gpu_thousandths, stay_thousandths, stay_minutes: 10 };
    Rates { phone, desktop, server, bonus, ..Rates::FLAT }
}

impl Run {
    /// A job with a price of any size; `None` where its owner cannot pay.
    pub fn begin(desk: &mut Desk, dice: &mut Dice, number: u64) -> Option<Run> {
        let id = JobId(number + 1);
        let requester = Account::Requester(RequesterId(u64::from(dice.below(2))));
        let rounds = 1 + dice.below(6);
        let rates = draw_rates(dice);
        // From parts of a calculation to thousands.
        let flops_of_a_round = match dice.below(3) {
            0 => 1 + u64::from(dice.below(5_000_000)),
            1 => 1 + u64::from(dice.below(4_000_000_000)),
            _ => FLOPS_PER_CALCULATION * u64::from(1 + dice.below(5_000)),
        };
        let mode = Verification::ALL[dice.below(3) as usize];
        let planned = flops_of_a_round * u64::from(rounds);
        let charge = Charge::of(Flops(planned), rates.highest());
        let quoted = quote(charge, Allowance::usual(mode)).expect("small");
        // Some hold a part of it only.
        let given = match dice.one_in(3) {
            true => NanoUsd((quoted.0 / i64::from(1 + dice.below(9))).max(1)),
            false => quoted,
        };
        if !dice.one_in(10) {
            let amount = NanoUsd(given.0 + i64::from(dice.below(1_000)));
            deposit(desk, requester, amount);
        }
        let run = Run {
            id,
            requester,
            mode,
            rates,
            rounds,
            flops_of_a_round,
            pay: JobPay::new(id, given),
            state: State {
                given,
                tally: Tally::new(Allowance::usual(mode), 0),
                next: RoundKey { attempt: 0, round: 0 },
                credited: 0,
                counted: BTreeMap::new(),
                executed: BTreeMap::new(),
                began: 0,
            },
            statements: 0,
            operator: desk.posted(Account::Operator),
            reached: Reached::default(),
        };
        let (debit, credit) = (requester, Account::Escrow(id));
        let transfer = Transfer { debit, credit, amount: given, reason: Reason::Escrow };
        // No hold, no work.
        if let Err(refusal) = desk.post("escrow", transfer, run.stored()) {
            assert!(matches!(refusal, Refusal::Funds { .. }), "{refusal}");
            return None;
        }
        desk.sync();
        Some(run)
    }

    fn escrow(&self) -> Account {
        Account::Escrow(self.id)
    }

    fn stored(&self) -> Option<(Rows, State)> {
        Some((Rows::of(&self.pay), self.state.clone()))
    }

    pub fn is_trained(&self) -> bool {
        self.state.next.round >= self.rounds
    }

    /// Who does a task: as many as the mode wants, now and then one more.
    fn executions(&self, dice: &mut Dice) -> u32 {
        match self.mode {
            Verification::Triple => 3 + dice.below(3),
            Verification::Adaptive => 1 + u32::from(dice.one_in(3)) + u32::from(dice.one_in(9)),
            Verification::None => 1 + u32::from(dice.one_in(20)),
        }
    }

    /// What a round's tasks earn.
    fn draw_work(&mut self, dice: &mut Dice) -> Vec<Work> {
        let tasks = 1 + dice.below(4);
        let mut left = self.flops_of_a_round;
        let mut all = Vec::new();
        let key = self.state.next;
        for task in 0..tasks {
            let flops = if task + 1 == tasks { left } else { left / u64::from(1 + dice.below(4)) };
            left -= flops;
            let first = dice.below(6);
            self.state.tally.accept(key.round, flops);
            for replica in 0..self.executions(dice) {
                let payer = self.state.tally.charge(key.round, flops);
                let is_over = payer == Payer::Operator && !self.state.tally.is_paid(key.round);
                self.reached.overs += u64::from(is_over);
                let work = self.execution((0, task), (first + replica) % 6, flops, payer, dice);
                self.state.executed.insert((key, work.task, work.contributor), (flops, payer));
                all.push(work);
            }
        }
        all
    }

    fn execution(
        &self,
        task: (u32, u32),
        who: u32,
        flops: u64,
        payer: Payer,
        dice: &mut Dice,
    ) -> Work {
        let class = CLASSES[dice.below(3) as usize];
        let rate = self.rates.with_bonus(class, dice.one_in(2), dice.one_in(2));
        assert!(rate <= self.rates.highest() && rate >= self.rates.lowest());
        let contributor = person(who);
        let site = Account::Site(SiteId(u64::from(who / 2)));
        let has_site = who % 3 != 2;
        Work {
            task,
            contributor,
            earner: if who == 0 { site } else { Account::Contributor(contributor) },
            partner: if has_site { site } else { Account::Reserve },
            charge: Charge::of(Flops(flops), rate),
            payer,
        }
    }

    pub fn add_round(&mut self, desk: &mut Desk, dice: &mut Dice) {
        let work = self.draw_work(dice);
        let key = self.state.next;
        let entries = self.pay.verified(key, work.clone(), desk.at).expect("in range").entries;
        let repeated = self.pay.verified(key, work.clone(), desk.at);
        assert_eq!(repeated, Err(PayError::Repeated { key }));
        // What the escrow does not suffice for is the operator's, and nothing else is changed.
        let entered = self.pay.open[&key].work.clone();
        assert_eq!(entered.len(), work.len());
        for (after, before) in entered.iter().zip(&work) {
            assert!(*after == *before || *after == Work { payer: Payer::Operator, ..*before });
            self.reached.beyond += u64::from(after != before);
        }
        assert!(self.pay.charged.is_within(self.state.given), "never more than it holds");
        self.state.counted.insert(key, entered);
        self.state.next.round += 1;
        self.state.credited = self.state.credited.max(self.state.next.round);
        self.check_allowance();
        desk.enter(&entries, self.stored()).expect("the quote covers it");
        if let Some(entry) = entries.first() {
            forge(desk, entry);
        }
    }

    /// No calculation is charged more often than the mode allows, however often it is done.
    fn check_allowance(&self) {
        let own = |(&key, works): (&RoundKey, &Vec<Work>)| -> u64 {
            let own = works.iter().filter(|work| work.payer == Payer::Job);
            own.map(|work| self.state.executed[&(key, work.task, work.contributor)].0).sum()
        };
        let charged: u64 = self.state.counted.iter().map(own).sum();
        let done = self.flops_of_a_round * u64::from(self.state.credited);
        let most = Allowance::usual(self.mode).of(done);
        assert!(charged <= most, "{charged} of {most} flops");
    }

    /// Its owner puts in more.
    pub fn top_up(&mut self, desk: &mut Desk, dice: &mut Dice) {
        let amount = NanoUsd(1 + i64::from(dice.below(5_000)));
        deposit(desk, self.requester, amount);
        let (debit, credit) = (self.requester, self.escrow());
        let more = Transfer { debit, credit, amount, reason: Reason::Escrow };
        self.state.given.0 += amount.0;
        self.pay.escrow = self.state.given;
        desk.post("top_up", more, self.stored()).expect("it was just deposited");
        self.reached.top_ups += 1;
    }

    pub fn void(&mut self, desk: &mut Desk, dice: &mut Dice) {
        let liar = person(dice.below(6));
        let from = dice.below(self.state.next.round + 1);
        // Mostly everything of theirs from a round on, now and then less.
        let is_theirs = |work: &&Work| work.contributor == liar;
        let named: Vec<Voided> = self
            .state
            .counted
            .iter()
            .filter(|(key, _)| key.round >= from)
            .flat_map(|(&key, works)| {
                let of = move |work: &Work| Voided { key, task: work.task, contributor: liar };
                works.iter().filter(is_theirs).map(of)
            })
            .filter(|_| !dice.one_in(5))
            .collect();
        let is_open = |key: &RoundKey| self.pay.open.contains_key(key);
        let open: Vec<Voided> = named.iter().copied().filter(|void| is_open(&void.key)).collect();
        let entries = self.pay.void(&named, desk.at).expect("in range").entries;
        assert_eq!(open.is_empty(), entries.is_empty() && self.pay.statements == self.statements);
        self.statements = self.pay.statements;
        self.reached.voids += u64::from(!open.is_empty());
        for void in open {
            let works = self.state.counted.entry(void.key).or_default();
            works.retain(|work| (work.task, work.contributor) != (void.task, liar));
            let executed = self.state.executed.get(&(void.key, void.task, liar));
            // Of an earlier process's work the engine knows nothing.
            if let Some(&(flops, Payer::Job)) =
                executed.filter(|_| void.key.attempt >= self.state.began)
            {
                self.state.tally.take_back(flops);
            }
        }
        if dice.one_in(2) {
            self.go_back(dice);
        }
        desk.enter(&entries, self.stored()).expect("what is voided comes first");
    }

    /// It does some of the open rounds again, or none.
    fn go_back(&mut self, dice: &mut Dice) {
        self.state.next.attempt += 1;
        self.state.tally.paid_until(self.state.next.round);
        if let Some(open) = self.pay.oldest_open().filter(|_| dice.one_in(2)) {
            self.state.next.round = self.state.next.round.min(open.round);
        }
    }

    pub fn mature(&mut self, desk: &mut Desk) {
        if let Some(key) = self.pay.oldest_open() {
            let entries = self.pay.mature(key, desk.at).entries;
            desk.enter(&entries, self.stored()).expect("held");
        }
    }

    /// The process dies after any of the groups that were not synced. What is made of
    /// the stored lines goes on, with the rounds that have not matured.
    pub fn crash(&mut self, desk: &mut Desk, dice: &mut Dice) {
        let before = desk.books.head();
        (self.pay, self.state) = desk.crash(dice);
        self.reached.crashes += 1;
        self.reached.losses += u64::from(desk.books.head() != before);
        self.statements = self.pay.statements;
        self.go_back(dice);
        self.state.began = self.state.next.attempt;
        self.state.tally = Tally::new(Allowance::usual(self.mode), self.state.credited);
    }

    /// Settles the job; whether that is done, and no crash came between.
    pub fn end(&mut self, desk: &mut Desk, dice: &mut Dice) -> bool {
        while self.pay.oldest_open().is_some() {
            self.mature(desk);
            if dice.one_in(12) {
                self.crash(desk, dice);
                return false;
            }
        }
        let before: BTreeMap<Account, i64> =
            desk.books.accounts().map(|(account, balance)| (*account, balance.posted)).collect();
        let mut entries = self.pay.close(desk.at).expect("nothing open").entries;
        let closing: i64 = entries.iter().map(from_escrow).sum();
        let left = NanoUsd(desk.posted(self.escrow()) - closing);
        if left.0 > 0 {
            let (debit, credit) = (self.escrow(), self.requester);
            let transfer = Transfer { debit, credit, amount: left, reason: Reason::Release };
            let id = raven_engine::ledger::EntryId::of("release", &[&self.id.0.to_le_bytes()]);
            entries.push(Entry { id, at: desk.at, action: Action::Post(transfer) });
        }
        desk.enter(&entries, self.stored()).expect("the quote covers it");
        // Nobody is given more than one of the parts that were left of each share.
        let is_bounded =
            |account: &Account| !account.may_owe() && !matches!(account, Account::Requester(_));
        for (account, balance) in desk.books.accounts().filter(|(account, _)| is_bounded(account)) {
            let added = balance.posted - before.get(account).copied().unwrap_or_default();
            assert!(added <= 3, "{account} was given {added}");
        }
        if dice.one_in(4) {
            self.crash(desk, dice);
        }
        if self.pay.is_closed {
            desk.sync();
            self.check(desk, left);
        }
        self.pay.is_closed
    }

    /// What the books say of the job in the end.
    fn check(&mut self, desk: &Desk, left: NanoUsd) {
        assert_eq!(desk.posted(self.escrow()), 0);
        let charged = self.state.given.0 - left.0;
        let unit = 100 * Charge::PER_NANO_USD;
        let shares = [
            (Reason::Earning, 100),
            (Reason::PartnerShare, 3),
            (Reason::MasterShare, 5),
            (Reason::Fee, 2),
        ];
        let mut whole = 0;
        for (reason, percent) in shares {
            assert_eq!(self.pay.exact(reason).0, self.exact(percent), "{reason:?}");
            whole += self.exact(percent) / unit;
        }
        // Each share is its exact sum to the nano-USD, so 5/3/2 hold and earnings sum to the cost.
        assert_eq!(i128::from(charged), whole);
        assert!(charged <= self.state.given.0);
        assert!(i128::from(charged) <= self.exact(110) / unit);
        self.check_allowance();
        let planned = self.flops_of_a_round * u64::from(self.rounds);
        let most = Allowance::usual(self.mode).of(planned);
        let dearest = Charge::of(Flops(most), self.rates.highest()).units();
        assert!(self.exact(1) <= dearest, "{} of {dearest}", self.exact(1));
        // The operator pays what its executions earn, and no margin.
        let works = self.state.counted.values().flatten();
        let operators = works.filter(|work| work.payer == Payer::Operator);
        let earned: i128 = operators.map(|work| work.charge.units()).sum();
        let paid = self.operator - desk.posted(Account::Operator);
        assert_eq!(i128::from(paid), earned / Charge::PER_NANO_USD);
        self.reached.by_operator += u64::from(paid > 0);
    }

    /// Exact hundredths of a charge's unit by share, from the work that counts.
    fn exact(&self, percent: i128) -> i128 {
        let works = self.state.counted.values().flatten();
        let own = works.filter(|work| work.payer == Payer::Job);
        own.map(|work| work.charge.units() * percent).sum()
    }
}

fn from_escrow(entry: &Entry) -> i64 {
    match entry.action {
        Action::Post(Transfer { debit: Account::Escrow(_), amount, .. }) => amount.0,
        _ => 0,
    }
}

fn deposit(desk: &mut Desk, requester: Account, amount: NanoUsd) {
    let (debit, reason) = (Account::External, Reason::Deposit);
    let transfer = Transfer { debit, credit: requester, amount, reason };
    desk.post("deposit", transfer, None).expect("from outside");
}

/// The same id with another amount is refused, and the books are as before.
fn forge(desk: &mut Desk, entry: &Entry) {
    let Action::Hold { mut transfer, expires } = entry.action else { return };
    transfer.amount.0 += 1;
    let forged = Entry { action: Action::Hold { transfer, expires }, ..*entry };
    let head = desk.books.head();
    assert_eq!(desk.enter(&[forged], None), Err(Refusal::IdReused { id: entry.id }));
    assert_eq!(desk.books.head(), head);
}
