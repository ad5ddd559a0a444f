//! Random histories of a job through the store, compared line by line with the same pay
//! kept in memory.

use crate::server::{Server, job, record};
use raven_coordinator::runtime::SessionRecord;
use raven_coordinator::store::{Book, parse_site};
use raven_coordinator::ticket::UsedTicket;
use raven_engine::ledger::{Account, JobPay, RoundKey, Voided, Work};
use raven_engine::money::{Charge, Flops, NanoUsd, PicoUsd};
use raven_engine::{
    Cause, ContributorId, Credit, JobPhase, JobState, Metrics, NetworkPrefix, Payer, Proof, Record,
    SetBack, SiteId, Void,
};
use raven_protocol::{
    Backend, BlobId, Device, DeviceClass, JobId, KernelId, NumericClass, ResultDigest, SessionId,
    TaskId,
};
use serde_json::json;
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use std::path::Path;

/// A small generator: the test is about histories, not about chance.
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn account(credit: &Credit) -> (Account, Account) {
    let partner = credit.site.map_or(Account::Reserve, Account::Site);
    (Account::Contributor(credit.contributor), partner)
}

pub fn work(credit: &Credit) -> Work {
    let (earner, partner) = account(credit);
    Work {
        task: (credit.task.stage, credit.task.part),
        contributor: credit.contributor,
        earner,
        partner,
        charge: Charge::of(Flops(credit.flops), credit.rate),
        payer: credit.payer,
    }
}

/// Two sites that earn, each with a session of its number from 1.
pub fn with_sites(server: &Server) -> [SiteId; 2] {
    [1, 2].map(|session| {
        let page = format!("http://site-{session}.localhost");
        let site = server.post("/v1/sites", &json!({"name": "News", "origins": [page]})).json();
        let site = parse_site(site["id"].as_str().expect("an id")).expect("an id");
        let device =
            Device { class: DeviceClass::Desktop, cores: 1, memory_bytes: 1, flops_per_s: 1 };
        let record = SessionRecord {
            session: SessionId(session),
            contributor: ContributorId([9; 32]),
            site: Some(site),
            origin: Some(page),
            ticket: Some(UsedTicket { number: session, keys_max: 1, is_elsewhere: false }),
            prefix: NetworkPrefix([0; 16]),
            device,
            numeric: NumericClass::Cpu { kernel: KernelId([7; 32]) },
            share: 1.0,
            workers: 1,
            refuses: raven_engine::CategorySet::EMPTY,
            view: None,
            receipt: "{}".into(),
            signature: String::new(),
        };
        server.runtime.block_on(server.app.store.session_opened(&record)).expect("stored");
        site
    })
}

pub fn random_credit(
    rng: &mut Rng,
    sites: &[SiteId; 2],
    (job, key): (JobId, RoundKey),
    part: u32,
    who: u8,
) -> Credit {
    // Every third came through no site.
    let through = usize::from(who % 3).checked_sub(1);
    Credit {
        backend: Backend::Cpu,
        task: TaskId { job, round: key.round, stage: 0, part },
        contributor: ContributorId([who; 32]),
        session: SessionId(u64::from(who % 3)),
        site: through.map(|number| sites[number]),
        beneficiary: raven_engine::Beneficiary::Contributor,
        flops: 1 + rng.below(3_000_000_000),
        rate: PicoUsd([12_000, 16_000, 20_000][rng.below(3) as usize]),
        digest: ResultDigest([9; 32]),
        proof: Proof::Single,
        attempt: key.attempt,
        payer: if rng.below(4) == 0 { Payer::Operator } else { Payer::Job },
    }
}

/// A job with little money, so that the operator comes to pay for some of it.
pub fn with_job(server: &Server, amount: i64) -> JobId {
    let mut document = job(&server.small_dataset());
    document["budget"] = json!({ "nano_usd": amount });
    let answer = server.post("/v1/jobs", &document).json();
    answer["id"].as_str().expect("an id").parse().expect("an id")
}

fn persist(server: &Server, record: &Record) {
    server.runtime.block_on(server.app.store.persist(record)).expect("persisted");
}

/// Lines as they are stored: payer, reason, account, exact sum, nano-USD paid or held.
pub type Lines = Vec<(String, String, String, String, i64)>;

fn stored(server: &Server, job: JobId) -> Lines {
    server.runtime.block_on(lines_in(server.app.store.folder(), job))
}

pub async fn lines_in(folder: &Path, job: JobId) -> Lines {
    let file = folder.join("raven.sqlite");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).read_only(true);
    let mut connection = options.connect().await.expect("connects");
    let rows = sqlx::query("SELECT * FROM pay_lines WHERE job = ?1")
        .bind(job.0.cast_signed())
        .fetch_all(&mut connection)
        .await
        .expect("read");
    connection.close().await.expect("closed");
    let mut lines: Lines = rows
        .iter()
        .map(|row| {
            let text = |name: &str| row.get::<String, _>(name);
            let exact = text("exact");
            (text("payer"), text("reason"), text("account"), exact, row.get("paid"))
        })
        .collect();
    lines.sort();
    lines
}

pub fn in_memory(pay: &JobPay) -> Lines {
    let mut lines: Lines = pay
        .lines
        .iter()
        .map(|(line, owed)| {
            let payer = if line.is_jobs { "job" } else { "operator" };
            let (reason, account) = (line.reason.as_str(), line.account.to_string());
            (payer.into(), reason.into(), account, owed.exact.0.to_string(), owed.paid)
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn a_history_through_the_store_is_the_same_in_memory() {
    let (mut beyond, mut voided, mut topped, mut setbacks) = (0, 0, 0, 0);
    for seed in 0..12 {
        let server = Server::start();
        let mut rng = Rng(seed);
        let amount = 500 + i64::try_from(rng.below(3_000)).expect("small");
        let id = with_job(&server, amount);
        let sites = with_sites(&server);
        let mut pay = JobPay::new(id, NanoUsd(amount));
        let held = server.runtime.block_on(server.app.store.job(server.owner, id));
        pay.escrow = held.expect("read").expect("a job").escrow;
        let mut open: Vec<(RoundKey, Credit)> = Vec::new();
        let (mut round, mut kept, mut attempt) = (0, 0, 0);
        let mut own = (0, 0, Charge::from_units(0));
        for _ in 0..30 {
            if rng.below(8) == 0 {
                // Its loss diverged: it goes on from its last checkpoint.
                attempt += 1;
                setbacks += 1;
                let set_back = Some(SetBack { number: attempt, diverged_at: round, loss: 9.0 });
                persist(&server, &Record { set_back, ..record(id, kept) });
                round = kept;
            }
            let key = RoundKey { attempt, round };
            let credits: Vec<Credit> = (0..1 + rng.below(6) as u32)
                .map(|part| {
                    let who = 1 + rng.below(5) as u8;
                    random_credit(&mut rng, &sites, (id, key), part, who)
                })
                .collect();
            let liar = &open.get(rng.below(1 + 2 * open.len() as u64) as usize).copied();
            let voids: Vec<Void> = liar
                .iter()
                .map(|(key, credit)| Void {
                    task: credit.task,
                    attempt: key.attempt,
                    contributor: credit.contributor,
                })
                .collect();
            let checkpoint = rng.below(6) == 0;
            persist(
                &server,
                &Record {
                    train: Some(Metrics { loss_sum: 1.0, correct: 1.0, count: 2.0 }),
                    weights: Some(BlobId([round as u8; 32])),
                    credits: credits.clone(),
                    voids: voids.clone(),
                    checkpoint,
                    ..record(id, round + 1)
                },
            );
            // The same in memory.
            pay.verified(key, credits.iter().map(work).collect(), 1).expect("entered");
            let entered = pay.open[&key].work.iter();
            for (work, credit) in entered.zip(&credits) {
                beyond += usize::from(work.payer != credit.payer);
                if work.payer == Payer::Job {
                    own.0 += 1;
                    own.1 += credit.flops;
                    own.2 = own.2.plus(work.charge).expect("small");
                }
            }
            open.extend(credits.iter().map(|credit| (key, *credit)));
            voided += voids.len();
            let lies: Vec<Voided> = voids
                .iter()
                .map(|void| Voided {
                    key: RoundKey { attempt: void.attempt, round: void.task.round },
                    task: (void.task.stage, void.task.part),
                    contributor: void.contributor,
                })
                .collect();
            pay.void(&lies, 1).expect("voided");
            open.retain(|(key, credit)| {
                let it = (credit.task, key.attempt, credit.contributor);
                !voids.iter().any(|void| (void.task, void.attempt, void.contributor) == it)
            });
            if checkpoint {
                pay.mature(RoundKey { attempt: u32::MAX, round: u32::MAX }, 1);
                open.clear();
                kept = round + 1;
            }
            if rng.below(8) == 0 {
                let more = NanoUsd(1 + i64::try_from(rng.below(800)).expect("small"));
                let paid = server.app.store.top_up(server.owner, id, more, |_| None);
                pay.escrow = server.runtime.block_on(paid).expect("paid");
                topped += 1;
            }
            assert_eq!(stored(&server, id), in_memory(&pay), "seed {seed}, round {round}");
            let row = server.runtime.block_on(server.app.store.job(server.owner, id));
            let row = row.expect("read").expect("a job");
            assert_eq!((row.charged, row.escrow), (pay.charged, pay.escrow), "seed {seed}");
            // What the operator came to pay is no part of the job's own account.
            assert_eq!((row.tasks, row.flops, row.charge), own, "seed {seed}, round {round}");
            assert!(pay.charged.is_within(pay.escrow));
            server.runtime.block_on(server.app.store.audit(Book::Test)).expect("audited");
            round += 1;
        }
        let state = JobState::Cancelled { cause: Cause::Owner };
        persist(&server, &Record { phase: JobPhase::Cancelled, state, ..record(id, round) });
        pay.mature(RoundKey { attempt: u32::MAX, round: u32::MAX }, 1);
        pay.close(1).expect("closed");
        assert_eq!(stored(&server, id), in_memory(&pay), "seed {seed} at its end");
        server.runtime.block_on(server.app.store.audit(Book::Test)).expect("audited");
        let left =
            server.runtime.block_on(server.app.store.balance(Book::Test, Account::Escrow(id)));
        assert_eq!(left.expect("read").posted, 0);
    }
    assert!(
        beyond > 10 && voided > 10 && topped > 10 && setbacks > 10,
        "{beyond} {voided} {topped} {setbacks}"
    );
}

#[test]
fn very_many_rounds_mature_in_slices_and_come_to_the_same() {
    let server = Server::start();
    let id = with_job(&server, 1_000);
    let sites = with_sites(&server);
    let paid = server.app.store.top_up(server.owner, id, NanoUsd(10_000_000), |_| None);
    server.runtime.block_on(paid).expect("paid");
    let mut rng = Rng(7);
    let mut earned = 0_i128;
    let mut lie = None;
    for round in 0..700 {
        let key = RoundKey { attempt: 0, round };
        let credit =
            Credit { payer: Payer::Job, ..random_credit(&mut rng, &sites, (id, key), 0, 1) };
        if round == 100 {
            lie = Some(credit);
        } else {
            earned += i128::from(credit.flops) * i128::from(credit.rate.0);
        }
        persist(
            &server,
            &Record {
                train: Some(Metrics { loss_sum: 1.0, correct: 1.0, count: 2.0 }),
                weights: Some(BlobId([round as u8; 32])),
                credits: vec![credit],
                ..record(id, round + 1)
            },
        );
    }
    let lie = lie.expect("a lie");
    let void = Void { task: lie.task, attempt: 0, contributor: lie.contributor };
    // A lie that is found in the last moment is void before anything matures.
    let last = Record { checkpoint: true, voids: vec![void], ..record(id, 700) };
    persist(&server, &last);
    persist(&server, &last);
    let account = Account::Contributor(ContributorId([1; 32]));
    let balance = server.runtime.block_on(server.app.store.balance(Book::Test, account));
    let balance = balance.expect("read");
    let whole = i64::try_from(earned / Charge::PER_NANO_USD).expect("small");
    assert_eq!((balance.posted, balance.held_in), (whole, 0));
    server.runtime.block_on(server.app.store.audit(Book::Test)).expect("audited");
}

/// A slice that matured before its record failed: the order of rounds is that of the pay
/// in memory, also where the job went back, so that what is void later is stated alike.
#[test]
fn slices_mature_in_the_order_of_the_pay() {
    let server = Server::start();
    let id = with_job(&server, 1_000);
    let paid = server.app.store.top_up(server.owner, id, NanoUsd(10_000_000), |_| None);
    let sites = with_sites(&server);
    let mut pay = JobPay::new(id, server.runtime.block_on(paid).expect("paid"));
    let mut rng = Rng(11);
    let mut lie = None;
    for (attempt, rounds) in [(0, 0..300), (1, 100..300)] {
        if attempt == 1 {
            let set_back = Some(SetBack { number: 1, diverged_at: 300, loss: 9.0 });
            persist(&server, &Record { set_back, ..record(id, 100) });
        }
        for round in rounds {
            let key = RoundKey { attempt, round };
            let credit =
                Credit { payer: Payer::Job, ..random_credit(&mut rng, &sites, (id, key), 0, 1) };
            if key == (RoundKey { attempt: 0, round: 260 }) {
                lie = Some(credit);
            }
            pay.verified(key, vec![work(&credit)], 1).expect("entered");
            persist(
                &server,
                &Record {
                    train: Some(Metrics { loss_sum: 1.0, correct: 1.0, count: 2.0 }),
                    weights: Some(BlobId([round as u8; 32])),
                    credits: vec![credit],
                    ..record(id, round + 1)
                },
            );
        }
    }
    // No running job is queued again: its record is refused, after a slice has matured.
    let refused = Record {
        checkpoint: true,
        phase: JobPhase::Queued,
        state: JobState::Queued,
        ..record(id, 300)
    };
    server.runtime.block_on(server.app.store.persist(&refused)).expect_err("refused");
    pay.mature(RoundKey { attempt: 0, round: 255 }, 1);
    let lie = lie.expect("a lie");
    let void = Void { task: lie.task, attempt: 0, contributor: lie.contributor };
    persist(&server, &Record { voids: vec![void], ..record(id, 300) });
    let key = RoundKey { attempt: 0, round: 260 };
    let voided = Voided { key, task: (0, 0), contributor: lie.contributor };
    pay.void(&[voided], 1).expect("voided");
    assert_eq!(stored(&server, id), in_memory(&pay));
    let held: i64 = pay.open.values().flat_map(|round| &round.holds).map(|it| it.amount).sum();
    let escrow = server.runtime.block_on(server.app.store.balance(Book::Test, Account::Escrow(id)));
    assert_eq!(escrow.expect("read").held_out, held, "the same rounds are open");
    server.runtime.block_on(server.app.store.audit(Book::Test)).expect("audited");
}

fn set_phase(server: &Server, job: JobId, phase: &'static str) {
    let file = server.app.store.folder().join("raven.sqlite");
    server.runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
        let mut connection = options.connect().await.expect("connects");
        let update = sqlx::query("UPDATE jobs SET phase = ?2 WHERE id = ?1");
        let update = update.bind(job.0.cast_signed()).bind(phase);
        update.execute(&mut connection).await.expect("written");
    });
}

/// Nobody's pay waits for a top-up, and no pause is a transaction of very many lines.
#[test]
fn a_pause_without_a_checkpoint_matures_in_slices_as_well() {
    let server = Server::start();
    let id = with_job(&server, 1_000);
    let paid = server.app.store.top_up(server.owner, id, NanoUsd(10_000_000), |_| None);
    let sites = with_sites(&server);
    let mut pay = JobPay::new(id, server.runtime.block_on(paid).expect("paid"));
    let mut rng = Rng(13);
    for round in 0..300 {
        let key = RoundKey { attempt: 0, round };
        let credit =
            Credit { payer: Payer::Job, ..random_credit(&mut rng, &sites, (id, key), 0, 1) };
        pay.verified(key, vec![work(&credit)], 1).expect("entered");
        persist(
            &server,
            &Record {
                train: Some(Metrics { loss_sum: 1.0, correct: 1.0, count: 2.0 }),
                weights: Some(BlobId([round as u8; 32])),
                credits: vec![credit],
                ..record(id, round + 1)
            },
        );
    }
    let state = JobState::Paused { missing: NanoUsd(1) };
    let pause = Record { phase: JobPhase::Paused, state, ..record(id, 300) };
    // The record is refused where its job cannot be read, after a slice has matured.
    set_phase(&server, id, "unknown");
    server.runtime.block_on(server.app.store.persist(&pause)).expect_err("refused");
    set_phase(&server, id, "running");
    let escrow = || {
        let left = server.app.store.balance(Book::Test, Account::Escrow(id));
        server.runtime.block_on(left).expect("read").held_out
    };
    pay.mature(RoundKey { attempt: 0, round: 255 }, 1);
    let held: i64 = pay.open.values().flat_map(|round| &round.holds).map(|it| it.amount).sum();
    assert_eq!(escrow(), held, "a slice has matured");
    persist(&server, &pause);
    assert_eq!(escrow(), 0);
    server.runtime.block_on(server.app.store.audit(Book::Test)).expect("audited");
}
