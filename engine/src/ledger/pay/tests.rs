use super::*;
use crate::allowance::Allowance;
use crate::effect::Payer;
use crate::event::SiteId;
use crate::ledger::account::RequesterId;
use crate::ledger::audit::Auditor;
use crate::ledger::books::{Added, Batch, Books, MemoryBooks, Refusal};
use crate::money::{Charge, FLOPS_PER_CALCULATION, Flops};
use crate::rates;
use crate::verify::Verification;
use raven_protocol::DeviceClass;

const JOB: JobId = JobId(7);
const REQUESTER: Account = Account::Requester(RequesterId(1));
const ESCROW: Account = Account::Escrow(JOB);

fn person(n: u8) -> ContributorId {
    ContributorId([n; 32])
}

fn site(n: u64) -> Account {
    Account::Site(SiteId(n))
}

fn key(round: u32) -> RoundKey {
    RoundKey { attempt: 0, round }
}

fn charge(calculations: u64, device: DeviceClass) -> Charge {
    Charge::of(Flops(calculations * FLOPS_PER_CALCULATION), rates::rate(device))
}

fn work(who: u8, partner: Account, charge: Charge) -> Work {
    let contributor = person(who);
    let earner = Account::Contributor(contributor);
    let task = (0, who.into());
    Work { task, contributor, earner, partner, charge, payer: Payer::Job }
}

/// Books, and the auditor that reads along.
#[derive(Default)]
struct Desk {
    books: MemoryBooks,
    auditor: Auditor,
}

impl Desk {
    fn with_escrow(amount: NanoUsd) -> Self {
        let mut desk = Desk::default();
        let transfer = |debit, credit, reason| Transfer { debit, credit, amount, reason };
        let deposit = transfer(Account::External, REQUESTER, Reason::Deposit);
        let escrow = transfer(REQUESTER, ESCROW, Reason::Escrow);
        for (name, transfer) in [("deposit", deposit), ("escrow", escrow)] {
            let id = EntryId::of(name, &[]);
            let entries = vec![Entry { id, at: 0, action: Action::Post(transfer) }];
            desk.enter(Paid { entries, ..Paid::default() });
        }
        desk
    }

    /// Enters what must not be refused; entries that were new.
    fn enter(&mut self, paid: Paid) -> usize {
        let entries = paid.entries;
        let mut batch = Batch::new(&self.books);
        let added = entries.iter().map(|entry| batch.add(*entry).expect("an entry of pay"));
        let new = added.filter(|added| *added == Added::New).count();
        let changes = batch.finish();
        for (entry, hash) in &changes.entries {
            self.auditor.read(entry, *hash).expect("an honest entry");
        }
        self.books.apply(changes);
        self.auditor.compare(self.books.accounts()).expect("balances");
        new
    }

    fn posted(&self, account: Account) -> i64 {
        self.books.balance(&account).posted
    }

    fn pending(&self, account: Account) -> i64 {
        self.books.balance(&account).held_in
    }
}

/// The worked example of `engine/LEDGER.md`.
#[test]
fn the_worked_example() {
    let (ann, ben, cleo, node) = (1, 2, 3, 4);
    let (site_a, site_b) = (site(0xa), site(0xb));
    let planned = Charge::of(Flops(40 * FLOPS_PER_CALCULATION), rates::HIGHEST);
    let quoted = quote(planned, Allowance::usual(Verification::Triple)).expect("small");
    assert_eq!(quoted, NanoUsd(3_520));
    let mut desk = Desk::with_escrow(quoted);
    let desktop = charge(10, DeviceClass::Desktop);
    let phone = charge(10, DeviceClass::Phone);
    let server = charge(10, DeviceClass::Server);
    let mut round = Vec::new();
    for task in 0..4 {
        round.push(work(ann, site_a, desktop));
        if task < 2 {
            round.push(work(ben, site_b, desktop));
        } else {
            // Cleo has no key of her own: what she earns is the site's.
            round.push(Work { earner: site_a, ..work(cleo, site_a, phone) });
        }
        round.push(work(node, Account::Reserve, server));
    }
    let mut pay = JobPay::new(JOB, NanoUsd(i64::MAX));
    desk.enter(pay.verified(key(0), round, 1).expect("in range"));
    assert_eq!(desk.pending(Account::Contributor(person(ann))), 640);
    assert_eq!(desk.pending(site_b), 9);
    desk.enter(pay.mature(key(0), 2));
    desk.enter(pay.close(3).expect("nothing open"));
    let balances = [
        (Account::Contributor(person(ann)), 640),
        (Account::Contributor(person(ben)), 320),
        (Account::Contributor(person(node)), 800),
        (site_a, 240 + 26),
        (site_b, 10),
        (Account::Reserve, 24),
        (Account::MasterNode, 100),
        (Account::ProtocolFee, 40),
        (ESCROW, 3_520 - 2_200),
    ];
    for (account, amount) in balances {
        assert_eq!(desk.posted(account), amount, "{account}");
    }
}

#[test]
fn a_visit_of_ninety_seconds_earns_its_millionths_and_its_site_three_percent_of_them() {
    // 10 calculations a second in rounds of two seconds each.
    let mut desk = Desk::with_escrow(NanoUsd(20_000));
    let mut pay = JobPay::new(JOB, NanoUsd(i64::MAX));
    for round in 0..45 {
        let work = vec![work(1, site(1), charge(20, DeviceClass::Desktop))];
        desk.enter(pay.verified(key(round), work, 1).expect("in range"));
    }
    assert_eq!(desk.pending(Account::Contributor(person(1))), 14_400);
    assert_eq!(desk.pending(site(1)), 432);
    assert_eq!(desk.pending(Account::MasterNode), 720);
    assert_eq!(desk.pending(Account::ProtocolFee), 288);
}

#[test]
fn parts_of_a_nano_usd_are_carried_on_and_not_lost() {
    let mut desk = Desk::with_escrow(NanoUsd(1_000));
    let mut pay = JobPay::new(JOB, NanoUsd(i64::MAX));
    // Each round is worth 0.16 nano-USD to its contributor.
    let tiny = Charge::of(Flops(FLOPS_PER_CALCULATION / 100), rates::rate(DeviceClass::Desktop));
    for round in 0..100 {
        desk.enter(pay.verified(key(round), vec![work(1, site(1), tiny)], 1).expect("in range"));
    }
    assert_eq!(desk.pending(Account::Contributor(person(1))), 16);
    // 0.48: less than a nano-USD is nothing, and the share as a whole rounds down.
    desk.enter(pay.mature(key(99), 1));
    desk.enter(pay.close(1).expect("nothing open"));
    assert_eq!((desk.posted(site(1)), desk.pending(site(1))), (0, 0));
}

/// What `who` did in a round of these tests.
fn done(round: u32, who: u8) -> Voided {
    Voided { key: key(round), task: (0, who.into()), contributor: person(who) }
}

#[test]
fn a_proven_lie_voids_what_is_named_and_nobody_elses_pay() {
    let mut desk = Desk::with_escrow(NanoUsd(10_000));
    let mut pay = JobPay::new(JOB, NanoUsd(i64::MAX));
    let desktop = charge(10, DeviceClass::Desktop);
    for round in 0..4 {
        let both = vec![work(1, site(1), desktop), work(2, site(2), desktop)];
        desk.enter(pay.verified(key(round), both, 1).expect("in range"));
    }
    desk.enter(pay.mature(key(0), 2));
    let lies = [done(0, 2), done(1, 2), done(3, 2)];
    desk.enter(pay.void(&lies, 3).expect("in range"));
    let liar = Account::Contributor(person(2));
    // What has matured is the liar's, and so is what nobody called a lie.
    assert_eq!((desk.posted(liar), desk.pending(liar)), (160, 160));
    assert_eq!(desk.pending(Account::Contributor(person(1))), 480);
    // What is void already is voided no second time.
    assert_eq!(pay.void(&lies, 3), Ok(Paid::default()));
    assert_eq!(pay.close(4), Err(PayError::Open { key: key(1) }));
    desk.enter(pay.mature(key(3), 4));
    desk.enter(pay.close(5).expect("nothing open"));
    assert_eq!(pay.close(5), Err(PayError::Closed));
    assert_eq!(desk.posted(Account::Contributor(person(1))), 640);
    assert_eq!(desk.posted(liar), 320);
    assert_eq!(desk.posted(Account::MasterNode), 48);
    assert_eq!(desk.posted(site(1)), 19);
    assert_eq!(desk.posted(site(2)), 9);
    assert_eq!(desk.books.balance(&ESCROW).held_out, 0);
}

#[test]
fn parts_that_a_voided_round_carried_on_are_stated_anew() {
    let mut desk = Desk::with_escrow(NanoUsd(10_000));
    let mut pay = JobPay::new(JOB, NanoUsd(i64::MAX));
    // 5.33 nano-USD each.
    let third = Charge::of(Flops(FLOPS_PER_CALCULATION / 3), rates::rate(DeviceClass::Desktop));
    for round in 0..3 {
        let all = (1..=3).map(|who| work(who, site(who.into()), third)).collect();
        desk.enter(pay.verified(key(round), all, 1).expect("in range"));
    }
    assert_eq!(desk.pending(Account::Contributor(person(3))), 15);
    desk.enter(pay.void(&[done(0, 3), done(1, 3)], 3).expect("in range"));
    assert_eq!(desk.pending(Account::Contributor(person(3))), 5);
    desk.enter(pay.mature(key(2), 4));
    desk.enter(pay.close(4).expect("nothing open"));
    // Seven executions are 37.33.
    let earned: i64 = (1..=3).map(|who| desk.posted(Account::Contributor(person(who)))).sum();
    assert_eq!(earned, 37);
}

#[test]
fn work_beyond_the_allowance_is_the_operators_cost_and_carries_no_margin() {
    let mut desk = Desk::with_escrow(NanoUsd(1_000));
    let mut pay = JobPay::new(JOB, NanoUsd(i64::MAX));
    let desktop = charge(10, DeviceClass::Desktop);
    let beyond = Work { payer: Payer::Operator, ..work(1, site(1), desktop) };
    desk.enter(pay.verified(key(0), vec![beyond], 1).expect("in range"));
    desk.enter(pay.mature(key(0), 2));
    assert_eq!(desk.posted(Account::Operator), -160);
    assert_eq!(desk.posted(Account::Contributor(person(1))), 160);
    assert_eq!(desk.posted(ESCROW), 1_000);
    assert_eq!(desk.posted(site(1)), 0);
}

#[test]
fn what_is_entered_again_after_a_crash_changes_nothing() {
    let mut desk = Desk::with_escrow(NanoUsd(10_000));
    let mut pay = JobPay::new(JOB, NanoUsd(i64::MAX));
    let before = pay.clone();
    let round = vec![work(1, site(1), charge(10, DeviceClass::Desktop))];
    let entries = pay.verified(key(0), round.clone(), 1).expect("in range");
    assert_eq!(desk.enter(entries.clone()), entries.entries.len());
    let head = desk.books.head();
    // The process ends before it has noted that, and does it again later.
    let mut pay = before;
    let again = pay.verified(key(0), round.clone(), 99).expect("in range");
    assert_eq!(desk.enter(again), 0);
    assert_eq!(desk.books.head(), head);
    assert_eq!(pay.verified(key(0), round, 1), Err(PayError::Repeated { key: key(0) }));
}

#[test]
fn rounds_are_entered_and_mature_in_order() {
    let mut pay = JobPay::new(JOB, NanoUsd(i64::MAX));
    let round = || vec![work(1, site(1), charge(10, DeviceClass::Desktop))];
    pay.verified(key(3), round(), 1).expect("in range");
    pay.verified(key(4), round(), 1).expect("in range");
    assert_eq!(pay.verified(key(2), round(), 1), Err(PayError::Order { key: key(2) }));
    let redone = RoundKey { attempt: 1, round: 2 };
    pay.verified(redone, round(), 1).expect("a later attempt");
    assert_eq!(pay.mature(key(4), 1).entries.len(), 8);
    assert_eq!(pay.oldest_open(), Some(redone));
    assert_eq!(pay.close(1), Err(PayError::Open { key: redone }));
    pay.mature(redone, 1);
    pay.close(1).expect("nothing open");
    assert_eq!(pay.verified(key(9), round(), 1), Err(PayError::Closed));
}

#[test]
fn charges_beyond_the_books_are_refused_and_change_nothing() {
    let mut pay = JobPay::new(JOB, NanoUsd(i64::MAX));
    let before = pay.clone();
    for units in [i128::MAX / 50, i128::MAX / 200, i128::from(i64::MAX) * 60_000_000_000] {
        let huge = work(1, site(1), Charge::from_units(units));
        assert_eq!(pay.verified(key(0), vec![huge], 1), Err(PayError::Overflow));
        assert_eq!(pay, before);
    }
    assert_eq!(quote(Charge::from_units(i128::MAX / 50), Allowance(1_300)), None);
    assert_eq!(quote(Charge::nano_usd(u64::MAX), Allowance(1_300)), None);
}

#[test]
fn the_price_never_exceeds_what_the_job_holds() {
    // Two executions and their margin, to the nano-USD: 2 * 160 * 1.1.
    let held = NanoUsd(352);
    let mut desk = Desk::with_escrow(held);
    let mut pay = JobPay::new(JOB, held);
    let desktop = charge(10, DeviceClass::Desktop);
    let round = (1..=3).map(|who| work(who, site(1), desktop)).collect();
    desk.enter(pay.verified(key(0), round, 1).expect("in range"));
    assert_eq!(desk.books.balance(&Account::Operator).held_out, 160);
    // What a lie was charged can be charged for something else.
    desk.enter(pay.void(&[done(0, 1)], 2).expect("in range"));
    desk.enter(pay.verified(key(1), vec![work(4, site(1), desktop)], 3).expect("in range"));
    desk.enter(pay.mature(key(1), 3));
    desk.enter(pay.close(3).expect("nothing open"));
    assert_eq!(desk.posted(ESCROW), 352 - 2 * (160 + 8) - 9 - 6);
    assert_eq!(desk.posted(Account::Operator), -160);
}

#[test]
fn no_hold_no_pay() {
    let mut pay = JobPay::new(JOB, NanoUsd(i64::MAX));
    let desk = Desk::with_escrow(NanoUsd(100));
    let work = vec![work(1, site(1), charge(10, DeviceClass::Desktop))];
    let entries = pay.verified(key(0), work, 1).expect("in range");
    let mut batch = Batch::new(&desk.books);
    let refusal = entries.entries.iter().find_map(|entry| batch.add(*entry).err());
    assert!(matches!(refusal, Some(Refusal::Funds { account: ESCROW, .. })));
}
