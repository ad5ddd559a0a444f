//! What one network may earn a site, and which of it goes to the reserve.

use crate::server::{Server, job, record};
use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::runtime::SessionRecord;
use raven_coordinator::sites::new_site;
use raven_coordinator::store::{
    Book, ProofKind, SiteCaps, SiteChange, SiteChanged, StoreError, day_of, parse_site,
};
use raven_coordinator::ticket::UsedTicket;
use raven_coordinator::time::UnixMs;
use raven_engine::ledger::{Account, Action, Entry, EntryId, Reason, RequesterId, Transfer};
use raven_engine::money::{NanoUsd, PicoUsd};
use raven_engine::{
    Beneficiary, ContributorId, Credit, NetworkPrefix, Payer, Proof, Record, SiteId, Void,
};
use raven_protocol::{
    Backend, Device, DeviceClass, JobId, KernelId, NumericClass, ResultDigest, SessionId, TaskId,
};
use serde_json::json;
use sqlx::ConnectOptions as _;
use std::collections::BTreeMap;

const PAGE: &str = "https://n.example";
/// 0.004 USD at the rate of a desktop.
const FLOPS: u64 = 12_500_000_000_000;

fn site(server: &Server) -> SiteId {
    let site = server.post("/v1/sites", &json!({"name": "News", "origins": [PAGE]})).json();
    let id = parse_site(site["id"].as_str().expect("an id")).expect("an id");
    let proven = server.app.store.origin_proven(id, PAGE, ProofKind::File, UnixMs::now());
    server.runtime.block_on(proven).expect("noted");
    id
}

/// A job that can pay for little: for the rest the operator comes up.
fn posted_with_its_price(server: &Server) -> JobId {
    let posted = server.post("/v1/jobs", &job(&server.small_dataset())).json();
    posted["id"].as_str().expect("an id").parse().expect("an id")
}

fn posted(server: &Server) -> JobId {
    let id = posted_with_its_price(server);
    let paid = json!({ "amount_nano_usd": 900_000_000_000_i64 });
    assert_eq!(server.post(&format!("/v1/jobs/{id}/top-up"), &paid).status, 200);
    id
}

/// Networks by number; 0 is this machine's own.
fn prefix(network: u8) -> NetworkPrefix {
    let mut prefix = [0; 16];
    if network > 0 {
        prefix[..2].copy_from_slice(&[0x20, network]);
    }
    NetworkPrefix(prefix)
}

fn open(
    server: &Server,
    site: SiteId,
    session: u64,
    who: u8,
    network: u8,
) -> Result<(), StoreError> {
    open_on(server, site, session, who, network, PAGE)
}

fn open_on(
    server: &Server,
    site: SiteId,
    session: u64,
    who: u8,
    network: u8,
    page: &str,
) -> Result<(), StoreError> {
    let device = Device { class: DeviceClass::Desktop, cores: 1, memory_bytes: 1, flops_per_s: 1 };
    let record = SessionRecord {
        session: SessionId(session),
        contributor: ContributorId([who; 32]),
        site: Some(site),
        origin: Some(page.into()),
        ticket: Some(UsedTicket { number: session, keys_max: 1, is_elsewhere: false }),
        prefix: prefix(network),
        device,
        numeric: NumericClass::Cpu { kernel: KernelId([7; 32]) },
        share: 1.0,
        workers: 1,
        refuses: raven_engine::CategorySet::EMPTY,
        view: None,
        receipt: "{}".into(),
        signature: String::new(),
    };
    server.runtime.block_on(server.app.store.session_opened(&record))
}

fn work(server: &Server, site: SiteId, job: JobId, round: u32, sessions: &[(u64, u8)]) {
    work_for(server, site, job, round, sessions, Beneficiary::Contributor);
}

fn work_for(
    server: &Server,
    site: SiteId,
    job: JobId,
    round: u32,
    sessions: &[(u64, u8)],
    beneficiary: Beneficiary,
) {
    let credits = credits(site, job, round, sessions, beneficiary);
    let record = Record { credits, ..record(job, round + 1) };
    server.runtime.block_on(server.app.store.persist(&record)).expect("persisted");
}

fn credits(
    site: SiteId,
    job: JobId,
    round: u32,
    sessions: &[(u64, u8)],
    beneficiary: Beneficiary,
) -> Vec<Credit> {
    let credits = sessions.iter().enumerate().map(|(part, &(session, who))| Credit {
        backend: Backend::Cpu,
        task: TaskId { job, round, stage: 0, part: part as u32 },
        contributor: ContributorId([who; 32]),
        session: SessionId(session),
        site: Some(site),
        beneficiary,
        flops: FLOPS,
        rate: PicoUsd(16_000),
        digest: ResultDigest([9; 32]),
        proof: Proof::Single,
        attempt: 0,
        payer: Payer::Job,
    });
    credits.collect()
}

/// Results by what they came to for the site.
fn outcomes(server: &Server, site: SiteId) -> BTreeMap<String, u64> {
    let day = day_of(UnixMs::now());
    let days = server.runtime.block_on(server.app.store.site_days(site, day - 1, day));
    let mut sums = BTreeMap::new();
    for (outcome, work) in days.expect("read").into_values().flat_map(|day| day.work) {
        *sums.entry(outcome).or_default() += work.tasks;
    }
    sums
}

fn counts<const N: usize>(pairs: [(&str, u64); N]) -> BTreeMap<String, u64> {
    pairs.map(|(name, count)| (name.to_owned(), count)).into()
}

#[test]
fn what_is_left_to_a_site_that_does_not_earn_is_the_reserves() {
    let server = Server::start();
    let (site, job) = (site(&server), posted_with_its_price(&server));
    open(&server, site, 1, 1, 1).expect("opened");
    open_on(&server, site, 2, 2, 1, "https://other.example").expect("opened");
    let held = |account: Account| {
        let balance = server.app.store.balance(Book::Test, account);
        server.runtime.block_on(balance).expect("readable").held_in
    };
    // So much work is beyond the quote: it carries no margin.
    let earning = 4_000_000;
    let (own, other) = (ContributorId([1; 32]), ContributorId([2; 32]));
    work_for(&server, site, job, 0, &[(1, 1), (2, 2)], Beneficiary::Site);
    assert_eq!(held(Account::Site(site)), earning);
    assert_eq!(held(Account::Reserve), earning);
    assert_eq!((held(Account::Contributor(own)), held(Account::Contributor(other))), (0, 0));
    // A key that keeps what it earns is paid all the same.
    work(&server, site, job, 1, &[(2, 2)]);
    assert_eq!(held(Account::Contributor(other)), earning);
    assert_eq!(held(Account::Reserve), earning);
    // What is voided or stated again is read from the credits.
    let task = TaskId { job, round: 0, stage: 0, part: 0 };
    let void = Void { task, attempt: 0, contributor: own };
    let record = Record { voids: vec![void], ..record(job, 3) };
    server.runtime.block_on(server.app.store.persist(&record)).expect("persisted");
    assert_eq!(held(Account::Site(site)), 0);
    assert_eq!(held(Account::Reserve), earning);
    assert_eq!(held(Account::Contributor(other)), earning);
    server.runtime.block_on(server.app.store.audit(Book::Test)).expect("the auditor agrees");
}

#[test]
fn work_without_a_margin_is_not_shown_as_what_earned_the_site_its_share() {
    let server = Server::start();
    let (site, job) = (site(&server), posted(&server));
    // The job holds the margin of some such results, and no more than that.
    let caps = SiteCaps { network_share_percent: 60, ..SiteCaps::default() };
    server.app.store.set_site_caps(caps);
    open(&server, site, 1, 1, 1).expect("opened");
    open(&server, site, 2, 2, 2).expect("opened");
    work(&server, site, job, 0, &[(1, 1), (2, 2)]);
    let earned = || {
        let balance = server.app.store.balance(Book::Test, Account::Site(site));
        server.runtime.block_on(balance).expect("readable").held_in
    };
    // 3 % of 0.004 USD each.
    assert_eq!((outcomes(&server, site), earned()), (counts([("earned", 2)]), 240_000));
    // What the job does not pay, whatever the reason.
    let small = posted_with_its_price(&server);
    work(&server, site, small, 0, &[(1, 1), (2, 2)]);
    let beyond = counts([("earned", 2), ("operator_pays", 2)]);
    assert_eq!((outcomes(&server, site), earned()), (beyond.clone(), 240_000));
    // It makes no room for the network's work, and takes none: both earn in turn.
    work(&server, site, job, 1, &[(1, 1), (2, 2)]);
    let both = counts([("earned", 4), ("operator_pays", 2)]);
    assert_eq!((outcomes(&server, site), earned()), (both, 480_000));
    // What is void is taken from where it was counted.
    let task = TaskId { job: small, round: 0, stage: 0, part: 0 };
    let void = Void { task, attempt: 0, contributor: ContributorId([1; 32]) };
    let record = Record { voids: vec![void], ..record(small, 2) };
    server.runtime.block_on(server.app.store.persist(&record)).expect("persisted");
    assert_eq!(outcomes(&server, site), counts([("earned", 4), ("operator_pays", 1)]));
}

#[test]
fn sessions_of_one_network_beyond_the_cap_earn_the_site_nothing() {
    let server = Server::start();
    let (site, job) = (site(&server), posted(&server));
    let caps = SiteCaps { sessions_per_network_max: 2, ..SiteCaps::default() };
    server.app.store.set_site_caps(caps);
    for session in 1..=4 {
        open(&server, site, session, session as u8, 1).expect("opened");
    }
    // Another network has a cap of its own, this machine's has none.
    open(&server, site, 5, 5, 2).expect("opened");
    for session in 6..=9 {
        open(&server, site, session, session as u8, 0).expect("opened");
    }
    work(&server, site, job, 0, &[(1, 1), (3, 3), (4, 4), (5, 5), (9, 9)]);
    assert_eq!(outcomes(&server, site), counts([("earned", 3), ("network_sessions", 2)]));
    // Whoever left makes room.
    server.runtime.block_on(server.app.store.session_closed(SessionId(1), None)).expect("closed");
    server.runtime.block_on(server.app.store.session_closed(SessionId(2), None)).expect("closed");
    server.runtime.block_on(server.app.store.session_closed(SessionId(3), None)).expect("closed");
    open(&server, site, 10, 10, 1).expect("opened");
    work(&server, site, job, 1, &[(10, 10)]);
    assert_eq!(outcomes(&server, site), counts([("earned", 4), ("network_sessions", 2)]));
}

#[test]
fn new_keys_of_one_network_beyond_the_cap_earn_the_site_nothing() {
    let server = Server::start();
    let (site, job) = (site(&server), posted(&server));
    let caps = SiteCaps { new_keys_per_network_max: 2, ..SiteCaps::default() };
    server.app.store.set_site_caps(caps);
    for session in 1..=4 {
        open(&server, site, session, session as u8, 1).expect("opened");
    }
    // The same key again is no new one.
    open(&server, site, 5, 1, 1).expect("opened");
    work(&server, site, job, 0, &[(1, 1), (2, 2), (3, 3), (4, 4)]);
    assert_eq!(outcomes(&server, site), counts([("earned", 2), ("network_keys", 2)]));
}

#[test]
fn one_network_does_not_earn_a_site_more_than_its_part() {
    let server = Server::start();
    let (site, job) = (site(&server), posted(&server));
    for (session, network) in [(1, 1), (2, 2), (3, 3), (4, 0)] {
        open(&server, site, session, session as u8, network).expect("opened");
    }
    // Below 0.01 USD a day nobody is looked at.
    for round in 0..2 {
        work(&server, site, job, round, &[(1, 1)]);
    }
    assert_eq!(outcomes(&server, site), counts([("earned", 2)]));
    work(&server, site, job, 2, &[(1, 1), (1, 1)]);
    assert_eq!(outcomes(&server, site), counts([("earned", 2), ("network_share", 2)]));
    // With work of others there is room for half of all.
    work(&server, site, job, 3, &[(2, 2), (2, 2), (3, 3), (3, 3), (1, 1), (1, 1), (1, 1)]);
    assert_eq!(outcomes(&server, site), counts([("earned", 8), ("network_share", 3)]));
    // This machine's own network is not one.
    for round in 4..8 {
        work(&server, site, job, round, &[(4, 4), (4, 4)]);
    }
    assert_eq!(outcomes(&server, site), counts([("earned", 16), ("network_share", 3)]));
    // What is withheld is the site's share alone: the work is credited all the same.
    let contributors = server.runtime.block_on(server.app.store.job_contributors(job));
    assert_eq!(contributors.expect("read").len(), 4);
}

/// Jobs are paid with play money here: a page on this machine needs no proof to earn
/// that, and a site of a live key earns none of it.
#[test]
fn play_money_is_earned_on_this_machine_and_never_by_live_keys() {
    let server = Server::start();
    let job = posted(&server);
    let live = ApiKey::generate(KeyMode::Live);
    let live = server.runtime.block_on(server.app.store.add_key(&live)).expect("a key");
    for (at, (owner, outcome)) in
        [(server.owner, "earned"), (live, "other_money")].into_iter().enumerate()
    {
        let row = new_site("Trial", &["http://n.localhost:1".into()], Book::Test).expect("a site");
        let added = server.app.store.add_site(owner, &row, 9, None);
        server.runtime.block_on(added).expect("added");
        let (session, who) = (20 + at as u64, 20 + at as u8);
        open_on(&server, row.id, session, who, 1, "http://n.localhost:1").expect("opened");
        work(&server, row.id, job, at as u32, &[(session, who)]);
        assert_eq!(outcomes(&server, row.id), counts([(outcome, 1)]));
    }
}

#[test]
fn an_origin_that_was_taken_out_of_the_list_or_has_lapsed_earns_nothing() {
    let server = Server::start();
    let (site, job) = (site(&server), posted(&server));
    open(&server, site, 1, 1, 1).expect("opened");
    work(&server, site, job, 0, &[(1, 1)]);
    let store = &server.app.store;
    let change = |origin: &str| {
        let origins = Some(vec![origin.to_owned()]);
        let change = SiteChange { origins, ..SiteChange::default() };
        server.runtime.block_on(store.change_site(server.owner, site, &change)).expect("changed")
    };
    assert_eq!(change("https://m.example"), SiteChanged::Done);
    work(&server, site, job, 1, &[(1, 1)]);
    assert_eq!(outcomes(&server, site), counts([("earned", 1), ("unproven", 1)]));
    assert_eq!(change(PAGE), SiteChanged::Done, "what was proven is so still");
    work(&server, site, job, 2, &[(1, 1)]);
    assert_eq!(outcomes(&server, site), counts([("earned", 2), ("unproven", 1)]));
    for _ in 0..3 {
        let missed = store.origin_missed(site, PAGE, UnixMs::now());
        server.runtime.block_on(missed).expect("noted");
    }
    work(&server, site, job, 3, &[(1, 1)]);
    assert_eq!(outcomes(&server, site), counts([("earned", 2), ("unproven", 2)]));
}

#[test]
fn a_ticket_of_another_key_opens_no_session() {
    let server = Server::start();
    let site = site(&server);
    open(&server, site, 1, 1, 1).expect("opened");
    let store = &server.app.store;
    let holders = || server.runtime.block_on(store.ticket_holders(1)).expect("read");
    assert_eq!(holders(), [ContributorId([1; 32])]);
    server.runtime.block_on(store.forget_tickets(UnixMs(UnixMs::now().0 + 1))).expect("forgotten");
    assert_eq!(holders(), []);
}

/// Jobs of a live key are real money: nothing counts as proven by itself, and sites of
/// test keys earn none.
#[test]
fn real_money_needs_a_proof_and_a_live_key() {
    let server = Server::start();
    let job = posted(&server);
    let live = ApiKey::generate(KeyMode::Live);
    let live = server.runtime.block_on(server.app.store.add_key(&live)).expect("a key");
    // As if a live key had posted it.
    server.runtime.block_on(make_live(&server, job));
    let local = "http://n.localhost:1";
    let cases = [
        (server.owner, local, false, "other_money"),
        (live, local, false, "unproven"),
        (live, PAGE, false, "unproven"),
        (live, PAGE, true, "earned"),
    ];
    for (at, (owner, page, is_proven, outcome)) in cases.into_iter().enumerate() {
        let row = new_site("Site", &[page.into()], Book::Test).expect("a site");
        let store = &server.app.store;
        server.runtime.block_on(store.add_site(owner, &row, 9, None)).expect("added");
        if is_proven {
            let proven = store.origin_proven(row.id, page, ProofKind::Dns, UnixMs::now());
            server.runtime.block_on(proven).expect("noted");
        }
        let (session, who) = (40 + at as u64, 40 + at as u8);
        open_on(&server, row.id, session, who, 1, page).expect("opened");
        work(&server, row.id, job, at as u32, &[(session, who)]);
        assert_eq!(outcomes(&server, row.id), counts([(outcome, 1)]), "case {at}");
    }
}

/// Changes a job's book in the store's file, with as much on its escrow.
/// The job's escrow is real money then.
async fn make_live(server: &Server, job: JobId) {
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(server.folder.path().join("raven.sqlite"));
    let mut connection = options.connect().await.expect("connects");
    let sql = "UPDATE jobs SET book = 'live' WHERE id = ?1";
    let id = i64::from_le_bytes(job.0.to_le_bytes());
    sqlx::query(sql).bind(id).execute(&mut connection).await.expect("changed");
    let (owner, escrow) = (Account::Requester(RequesterId(99)), Account::Escrow(job));
    let moved = [(Account::External, owner, Reason::Deposit), (owner, escrow, Reason::Escrow)];
    let entries = moved.map(|(debit, credit, reason)| {
        let transfer = Transfer { debit, credit, amount: NanoUsd(1_000_000_000_000), reason };
        let id = EntryId::of("made live", &[reason.as_str().as_bytes()]);
        Entry { id, at: 1, action: Action::Post(transfer) }
    });
    server.app.store.enter(Book::Live, &entries).await.expect("entered");
}

#[test]
fn what_is_void_is_no_verified_work_any_more() {
    let server = Server::start();
    let (site, job) = (site(&server), posted(&server));
    for session in [1, 2] {
        open(&server, site, session, session as u8, session as u8).expect("opened");
    }
    work(&server, site, job, 0, &[(1, 1), (2, 2)]);
    assert_eq!(outcomes(&server, site), counts([("earned", 2)]));
    let task = TaskId { job, round: 0, stage: 0, part: 0 };
    let void = Void { task, attempt: 0, contributor: ContributorId([1; 32]) };
    let done = |session| {
        let work = server.runtime.block_on(server.app.store.work_of_session(SessionId(session)));
        work.expect("read").expect("a visitor").total_flops
    };
    // Once, however often it is said.
    for _ in 0..2 {
        let voids = Record { voids: vec![void], ..record(job, 1) };
        server.runtime.block_on(server.app.store.persist(&voids)).expect("persisted");
        assert_eq!(outcomes(&server, site), counts([("earned", 1)]));
        assert_eq!([done(1), done(2)], [0, 0], "nothing is settled yet");
        let people = server.runtime.block_on(server.app.store.job_contributors(job));
        assert_eq!(people.expect("read"), [(ContributorId([2; 32]), 1)]);
    }
    // Nor does it fill the part that its network may have of the day.
    for round in 1..4 {
        work(&server, site, job, round, &[(1, 1)]);
    }
    assert_eq!(outcomes(&server, site), counts([("earned", 3), ("network_share", 1)]));
    let voids = (1..4).map(|round| Void { task: TaskId { round, ..task }, ..void }).collect();
    let voids = Record { voids, ..record(job, 4) };
    server.runtime.block_on(server.app.store.persist(&voids)).expect("persisted");
    assert_eq!(outcomes(&server, site), counts([("earned", 1), ("network_share", 0)]));
}

/// What a visitor's token would say of its work: of open sessions, and of all.
fn told(server: &Server, session: u64) -> (u64, u64) {
    let work = server.runtime.block_on(server.app.store.work_of_session(SessionId(session)));
    let work = work.expect("read").expect("a visitor");
    (work.visit_flops, work.total_flops)
}

#[test]
fn a_work_token_says_nothing_of_what_is_one_contributors_word_until_it_is_settled() {
    let server = Server::start();
    let (site, job) = (site(&server), posted(&server));
    open(&server, site, 1, 1, 1).expect("opened");
    open(&server, site, 2, 1, 2).expect("opened");
    open(&server, site, 3, 3, 3).expect("opened");
    let persist = |record: Record| {
        server.runtime.block_on(server.app.store.persist(&record)).expect("persisted");
    };
    let proven = |round: u32, proof: Proof, sessions: &[(u64, u8)]| {
        let credits = credits(site, job, round, sessions, Beneficiary::Contributor).into_iter();
        let credits = credits.map(|credit| Credit { proof, ..credit }).collect();
        persist(Record { credits, ..record(job, round + 1) });
    };
    // A liar's word: nobody else has looked at it.
    proven(0, Proof::Single, &[(1, 1), (3, 3)]);
    assert_eq!(told(&server, 1), (0, 0));
    proven(1, Proof::Agreed, &[(1, 1), (2, 1)]);
    assert_eq!(told(&server, 1), (2 * FLOPS, 2 * FLOPS));
    proven(2, Proof::Refereed, &[(1, 1)]);
    assert_eq!(told(&server, 2), (3 * FLOPS, 3 * FLOPS), "whichever of its sessions asks");
    // What a job does not check is not verified, however long ago.
    proven(3, Proof::Unchecked, &[(1, 1)]);
    assert_eq!(told(&server, 1), (3 * FLOPS, 3 * FLOPS));
    // The lie is proven, and what was not checked is undone: neither was told.
    let task = |round| TaskId { job, round, stage: 0, part: 0 };
    let void = |round| Void { task: task(round), attempt: 0, contributor: ContributorId([1; 32]) };
    persist(Record { voids: vec![void(0), void(3)], ..record(job, 4) });
    assert_eq!(told(&server, 1), (3 * FLOPS, 3 * FLOPS));
    assert_eq!(told(&server, 3), (0, 0));
    // A checkpoint settles what is open.
    proven(4, Proof::Single, &[(1, 1)]);
    persist(Record { checkpoint: true, ..record(job, 5) });
    assert_eq!(told(&server, 1), (4 * FLOPS, 4 * FLOPS));
    assert_eq!(told(&server, 3), (FLOPS, FLOPS));
    let closed = server.app.store.session_closed(SessionId(1), None);
    server.runtime.block_on(closed).expect("closed");
    assert_eq!(told(&server, 2), (FLOPS, 4 * FLOPS));
}

#[test]
fn a_site_that_is_paused_or_revoked_earns_nothing_more_from_that_moment_on() {
    let server = Server::start();
    let (site, job) = (site(&server), posted(&server));
    let store = &server.app.store;
    open(&server, site, 1, 1, 1).expect("opened");
    work(&server, site, job, 0, &[(1, 1)]);
    let pause = |paused| {
        let change = SiteChange { paused: Some(paused), ..SiteChange::default() };
        server.runtime.block_on(store.change_site(server.owner, site, &change)).expect("changed")
    };
    assert_eq!(pause(true), SiteChanged::Done);
    work(&server, site, job, 1, &[(1, 1)]);
    assert_eq!(outcomes(&server, site), counts([("earned", 1), ("site_closed", 1)]));
    assert_eq!(pause(false), SiteChanged::Done);
    work(&server, site, job, 2, &[(1, 1)]);
    assert_eq!(outcomes(&server, site), counts([("earned", 2), ("site_closed", 1)]));
    // Its sessions are still open: they are looked at every ten seconds.
    assert!(server.runtime.block_on(store.revoke_site(site)).expect("revoked"));
    work_for(&server, site, job, 3, &[(1, 1)], Beneficiary::Site);
    assert_eq!(outcomes(&server, site), counts([("earned", 2), ("site_closed", 2)]));
    let reserve = store.balance(Book::Test, Account::Reserve);
    assert!(
        server.runtime.block_on(reserve).expect("read").held_in > 0,
        "with what was left to it"
    );
    server.runtime.block_on(store.audit(Book::Test)).expect("books");
}
