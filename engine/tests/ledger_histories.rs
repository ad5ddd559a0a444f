//! Random histories of jobs, prices, replicas, lies and crashes. After every
//! batch the auditor, who shares no code with the books, computes all balances
//! anew; at the end of a job its shares are compared with exact sums that this
//! file keeps in its own way.
//!
//! `RAVEN_LEDGER_HISTORIES=N` runs N histories, `RAVEN_LEDGER_SEED=S` only that one.

use raven_engine::ledger::pay::quote;
use raven_engine::ledger::{
    Account, Action, Added, Auditor, Batch, Books, Entry, EntryId, JobPay, MemoryBooks, PayError,
    Reason, Refusal, RequesterId, RoundKey, Transfer, Voided, Work,
};
use raven_engine::money::{Charge, FLOPS_PER_CALCULATION, Flops, NanoUsd};
use raven_engine::{ContributorId, Payer, SiteId, Verification, rates};
use raven_graph::philox::{key, philox4x32};
use raven_protocol::{DeviceClass, JobId};
use std::collections::BTreeMap;

const HISTORIES: u64 = 3_000;

/// Draws of one history.
struct Dice {
    seed: u64,
    drawn: u32,
}

impl Dice {
    fn below(&mut self, bound: u32) -> u32 {
        self.drawn += 1;
        philox4x32([self.drawn, 0, 0, 0], key(self.seed))[0] % bound
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }
}

/// The books, and the auditor that reads along.
#[derive(Default)]
struct Desk {
    books: MemoryBooks,
    auditor: Auditor,
    at: i64,
    entries: u64,
}

impl Desk {
    fn enter(&mut self, entries: &[Entry]) -> Result<usize, Refusal> {
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
        self.books.apply(changes);
        self.auditor.compare(self.books.accounts()).expect("the auditor's balances");
        Ok(new)
    }

    fn post(&mut self, name: &str, transfer: Transfer) -> Result<usize, Refusal> {
        self.at += 1;
        let id = EntryId::of(name, &[&self.at.to_le_bytes()]);
        self.enter(&[Entry { id, at: self.at, action: Action::Post(transfer) }])
    }

    fn posted(&self, account: Account) -> i64 {
        self.books.balance(&account).posted
    }
}

/// One job, with sums that are kept apart from those of [`JobPay`].
struct Run {
    id: JobId,
    pay: JobPay,
    requester: Account,
    quoted: NanoUsd,
    rounds: u32,
    flops_of_a_round: u64,
    /// Flops that may still be charged.
    allowance: u64,
    next: RoundKey,
    /// Work that counts, by round.
    counted: BTreeMap<RoundKey, Vec<Work>>,
    statements: u32,
    /// What the operator had when the job began.
    operator: i64,
    reached: Reached,
}

/// How often a history came to what it is about: otherwise it shows nothing of it.
#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    /// Executions that the escrow did not suffice for.
    beyond: u64,
    top_ups: u64,
    /// Jobs that the operator has paid for some of.
    by_operator: u64,
}

impl Run {
    fn escrow(&self) -> Account {
        Account::Escrow(self.id)
    }
}

fn person(n: u32) -> ContributorId {
    ContributorId([n as u8 + 1; 32])
}

fn begin(desk: &mut Desk, dice: &mut Dice, number: u64) -> Option<Run> {
    let id = JobId(number + 1);
    let requester = Account::Requester(RequesterId(u64::from(dice.below(2))));
    let rounds = 1 + dice.below(6);
    // From parts of a calculation to thousands.
    let flops_of_a_round = match dice.below(3) {
        0 => 1 + u64::from(dice.below(5_000_000)),
        1 => 1 + u64::from(dice.below(4_000_000_000)),
        _ => FLOPS_PER_CALCULATION * u64::from(1 + dice.below(5_000)),
    };
    let mode = Verification::ALL[dice.below(3) as usize];
    let planned = flops_of_a_round * u64::from(rounds);
    let quoted =
        quote(Charge::of(Flops(planned), rates::HIGHEST), mode.allowance_percent()).expect("small");
    // Some hold a part of it only.
    let quoted = match dice.one_in(3) {
        true => NanoUsd((quoted.0 / i64::from(1 + dice.below(9))).max(1)),
        false => quoted,
    };
    let transfer = Transfer {
        debit: requester,
        credit: Account::Escrow(id),
        amount: quoted,
        reason: Reason::Escrow,
    };
    if !dice.one_in(10) {
        let debit = Account::External;
        let amount = NanoUsd(quoted.0 + i64::from(dice.below(1_000)));
        let deposit = Transfer { debit, credit: requester, amount, reason: Reason::Deposit };
        desk.post("deposit", deposit).expect("from outside");
    }
    // No hold, no work.
    if let Err(refusal) = desk.post("escrow", transfer) {
        assert!(matches!(refusal, Refusal::Funds { .. }), "{refusal}");
        return None;
    }
    Some(Run {
        id,
        pay: JobPay::new(id, quoted),
        requester,
        quoted,
        rounds,
        flops_of_a_round,
        allowance: (u128::from(planned) * u128::from(mode.allowance_percent()) / 100) as u64,
        next: RoundKey { attempt: 0, round: 0 },
        counted: BTreeMap::new(),
        statements: 0,
        operator: desk.posted(Account::Operator),
        reached: Reached::default(),
    })
}

/// What a round's tasks earn: each is done by one to three contributors.
fn draw_work(run: &mut Run, dice: &mut Dice) -> Vec<Work> {
    let tasks = 1 + dice.below(4);
    let mut left = run.flops_of_a_round;
    let mut all = Vec::new();
    for task in 0..tasks {
        let flops = if task + 1 == tasks { left } else { left / u64::from(1 + dice.below(4)) };
        left -= flops;
        let first = dice.below(6);
        for replica in 0..1 + dice.below(3) {
            let who = (first + replica) % 6;
            let device = rates::CLASSES[(who % 3) as usize];
            let contributor = person(who);
            let site = Account::Site(SiteId(u64::from(who / 2)));
            let has_site = who % 3 != 2;
            let is_allowed = flops <= run.allowance;
            if is_allowed {
                run.allowance -= flops;
            }
            all.push(Work {
                task: (0, task),
                contributor,
                earner: if who == 0 { site } else { Account::Contributor(contributor) },
                partner: if has_site { site } else { Account::Reserve },
                charge: Charge::of(Flops(flops), rates::rate(device)),
                payer: if is_allowed { Payer::Job } else { Payer::Operator },
            });
        }
    }
    all
}

fn add_round(desk: &mut Desk, run: &mut Run, dice: &mut Dice) {
    let work = draw_work(run, dice);
    let key = run.next;
    let before = run.pay.clone();
    let entries = run.pay.verified(key, work.clone(), desk.at).expect("in range").entries;
    desk.enter(&entries).expect("the quote covers it");
    if dice.one_in(4) {
        // The process dies before it has noted that, and does the round again.
        run.pay = before;
        let again = run.pay.verified(key, work.clone(), desk.at + 5).expect("in range");
        assert_eq!(desk.enter(&again.entries), Ok(0), "nothing is paid twice");
    }
    assert_eq!(run.pay.verified(key, work.clone(), desk.at), Err(PayError::Repeated { key }));
    if let Some(entry) = entries.first() {
        forge(desk, entry);
    }
    // What the escrow does not suffice for is the operator's, and nothing else is changed.
    let entered = run.pay.open[&key].work.clone();
    assert_eq!(entered.len(), work.len());
    for (after, before) in entered.iter().zip(&work) {
        assert!(*after == *before || *after == Work { payer: Payer::Operator, ..*before });
        run.reached.beyond += u64::from(after != before);
    }
    assert!(run.pay.charged.is_within(run.quoted), "never more than it holds");
    run.counted.insert(key, entered);
    run.next.round += 1;
}

/// Its owner puts in more.
fn top_up(desk: &mut Desk, run: &mut Run, dice: &mut Dice) {
    let amount = NanoUsd(1 + i64::from(dice.below(5_000)));
    let debit = Account::External;
    let deposit = Transfer { debit, credit: run.requester, amount, reason: Reason::Deposit };
    desk.post("deposit", deposit).expect("from outside");
    let (debit, credit) = (run.requester, run.escrow());
    let more = Transfer { debit, credit, amount, reason: Reason::Escrow };
    desk.post("top_up", more).expect("it was just deposited");
    run.quoted.0 += amount.0;
    run.pay.escrow = run.quoted;
    run.reached.top_ups += 1;
}

/// The same id with another amount is refused, and the books are as before.
fn forge(desk: &mut Desk, entry: &Entry) {
    let Action::Hold { mut transfer, expires } = entry.action else { return };
    transfer.amount.0 += 1;
    let forged = Entry { action: Action::Hold { transfer, expires }, ..*entry };
    let head = desk.books.head();
    assert_eq!(desk.enter(&[forged]), Err(Refusal::IdReused { id: entry.id }));
    assert_eq!(desk.books.head(), head);
}

fn void(desk: &mut Desk, run: &mut Run, dice: &mut Dice) {
    let liar = person(dice.below(6));
    let from = dice.below(run.next.round + 1);
    // Mostly everything of theirs from a round on, now and then less.
    let is_theirs = |work: &&Work| work.contributor == liar;
    let named: Vec<Voided> = run
        .counted
        .iter()
        .filter(|(key, _)| key.round >= from)
        .flat_map(|(&key, works)| {
            let of = move |work: &Work| Voided { key, task: work.task, contributor: liar };
            works.iter().filter(is_theirs).map(of)
        })
        .filter(|_| !dice.one_in(5))
        .collect();
    let is_open = |key: &RoundKey| run.pay.open.contains_key(key);
    let open: Vec<Voided> = named.iter().copied().filter(|void| is_open(&void.key)).collect();
    let entries = run.pay.void(&named, desk.at).expect("in range").entries;
    desk.enter(&entries).expect("what is voided comes first");
    assert_eq!(open.is_empty(), entries.is_empty() && run.pay.statements == run.statements);
    run.statements = run.pay.statements;
    for void in open {
        let works = run.counted.entry(void.key).or_default();
        works.retain(|work| (work.task, work.contributor) != (void.task, liar));
    }
    if dice.one_in(2) {
        run.next.attempt += 1;
    }
}

/// Exact hundredths of a charge's unit by share, from the work that counts.
fn exact(run: &Run, percent: i128) -> i128 {
    let works = run.counted.values().flatten().filter(|work| work.payer == Payer::Job);
    works.map(|work| work.charge.units() * percent).sum()
}

fn mature(desk: &mut Desk, run: &mut Run) {
    if let Some(key) = run.pay.oldest_open() {
        let entries = run.pay.mature(key, desk.at).entries;
        desk.enter(&entries).expect("held");
    }
}

fn end(desk: &mut Desk, run: &mut Run) {
    while run.pay.oldest_open().is_some() {
        mature(desk, run);
    }
    let before: BTreeMap<Account, i64> =
        desk.books.accounts().map(|(account, balance)| (*account, balance.posted)).collect();
    let entries = run.pay.close(desk.at).expect("nothing open").entries;
    desk.enter(&entries).expect("the quote covers it");
    // Nobody is given more than one of the parts that were left of each share.
    for (account, balance) in desk.books.accounts().filter(|(account, _)| !account.may_owe()) {
        let added = balance.posted - before.get(account).copied().unwrap_or_default();
        assert!(added <= 3, "{account} was given {added}");
    }
    let charged = run.quoted.0 - desk.posted(run.escrow());
    let unit = 100 * Charge::PER_NANO_USD;
    let shares = [
        (Reason::Earning, 100),
        (Reason::PartnerShare, 3),
        (Reason::MasterShare, 5),
        (Reason::Fee, 2),
    ];
    let mut whole = 0;
    for (reason, percent) in shares {
        assert_eq!(run.pay.exact(reason).0, exact(run, percent), "{reason:?}");
        whole += exact(run, percent) / unit;
    }
    // Each share is its exact sum to the nano-USD, so 5/3/2 hold and earnings sum to the cost.
    assert_eq!(i128::from(charged), whole);
    assert!(charged <= run.quoted.0);
    assert!(i128::from(charged) * 100 <= exact(run, 110) * 100 / unit);
    // The operator pays what its executions earn, and no margin.
    let works = run.counted.values().flatten().filter(|work| work.payer == Payer::Operator);
    let earned: i128 = works.map(|work| work.charge.units()).sum();
    let paid = run.operator - desk.posted(Account::Operator);
    assert_eq!(i128::from(paid), earned / Charge::PER_NANO_USD);
    run.reached.by_operator += u64::from(paid > 0);
    let amount = NanoUsd(desk.posted(run.escrow()));
    if amount.0 > 0 {
        let (debit, credit) = (run.escrow(), run.requester);
        let release = Transfer { debit, credit, amount, reason: Reason::Release };
        desk.post("release", release).expect("what is left");
    }
    assert_eq!(desk.posted(run.escrow()), 0);
}

fn history(seed: u64) -> (u64, Reached) {
    let mut dice = Dice { seed, drawn: 0 };
    let mut desk = Desk::default();
    let mut reached = Reached::default();
    for number in 0..1 + u64::from(dice.below(2)) {
        let Some(mut run) = begin(&mut desk, &mut dice, number) else { continue };
        while run.next.round < run.rounds {
            desk.at += 1;
            match dice.below(6) {
                5 => top_up(&mut desk, &mut run, &mut dice),
                0 => void(&mut desk, &mut run, &mut dice),
                1 => mature(&mut desk, &mut run),
                _ => add_round(&mut desk, &mut run, &mut dice),
            }
        }
        end(&mut desk, &mut run);
        reached.beyond += run.reached.beyond;
        reached.top_ups += run.reached.top_ups;
        reached.by_operator += run.reached.by_operator;
    }
    (desk.entries, reached)
}

#[test]
fn books_balance_in_random_histories() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("RAVEN_LEDGER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RAVEN_LEDGER_HISTORIES").unwrap_or(HISTORIES),
    };
    let count = seeds.end - seeds.start;
    let (mut entries, mut all) = (0, Reached::default());
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| history(seed));
        let Ok((added, reached)) = outcome else {
            panic!("history {seed} failed; RAVEN_LEDGER_SEED={seed} replays it");
        };
        entries += added;
        all.beyond += reached.beyond;
        all.top_ups += reached.top_ups;
        all.by_operator += reached.by_operator;
    }
    println!("{count} histories, {entries} entries, {all:?}");
    let is_reached = all.beyond > count / 20 && all.top_ups > count / 20;
    assert!(count < 100 || (is_reached && all.by_operator > count / 20), "{all:?}");
}

#[test]
fn a_phones_second_is_worth_what_the_rate_says() {
    let charge = Charge::of(Flops(FLOPS_PER_CALCULATION), rates::rate(DeviceClass::Phone));
    assert_eq!(charge, Charge::from_units(12_000 * i128::from(FLOPS_PER_CALCULATION)));
}
