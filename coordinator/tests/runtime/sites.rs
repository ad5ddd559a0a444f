//! Work that comes through a partner's site, over real sockets: whose ticket it is, when
//! the site earns by it, and how fast its switches work.

use crate::support::contributor::{Contributor, Habits};
use crate::support::data::{Rows, job};
use crate::support::socket::{Socket, consent, hello, receipt};
use crate::support::{Coordinator, OWN_ORIGIN, SITE_KEY};
use ed25519_dalek::SigningKey;
use raven_coordinator::certificate::issue::key_of;
use raven_coordinator::runtime::session::network_prefix;
use raven_coordinator::store::{
    Book, ProofKind, SiteCaps, SiteChange, SiteChanged, SiteRow, day_of,
};
use raven_coordinator::ticket::{
    FIRST_USE_MS, HELD_MS, KEYS_MAX, RENEWED_MS, Seat, TICKET_MS, TicketError,
};
use raven_coordinator::time::UnixMs;
use raven_coordinator::work_token::{TokenError, check};
use raven_engine::ledger::Account;
use raven_engine::{Category, CategorySet, ContributorId, NetworkPrefix, SiteId, Verification};
use raven_protocol::{FromContributor, GoodbyeReason, JobId, ToContributor};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
const ROWS: Rows = Rows { train: 600, test: 150 };
const ID: JobId = JobId(1);
const PAGE: &str = "http://news.test";

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

/// Somebody who comes with a ticket, up to its consent.
async fn come(coordinator: &Coordinator, number: u8, ticket: &str) -> Socket {
    let own = Some(OWN_ORIGIN);
    let mut socket = Socket::connect_from(coordinator.address, own).await.expect("connects");
    let mut hello = hello(&key(number), coordinator.runtime.kernel());
    hello.ticket = Some(ticket.to_owned());
    socket.send(&FromContributor::Hello(hello)).await;
    socket
}

/// The same with its consent: its session and grant.
async fn open(coordinator: &Coordinator, number: u8, ticket: &str) -> (Socket, String) {
    let mut socket = come(coordinator, number, ticket).await;
    let mut hello = hello(&key(number), coordinator.runtime.kernel());
    hello.ticket = Some(ticket.to_owned());
    let (_, nonce) = socket.welcome().await;
    socket.send(&consent(&receipt(&hello, &nonce, Some(SITE_KEY)), &key(number))).await;
    match socket.receive().await.0 {
        ToContributor::Ready { grant } => (socket, grant),
        other => panic!("not ready but {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_the_first_keys_that_comes_with_it() {
    let coordinator = Coordinator::start(|_| {}).await;
    let ticket = coordinator.ticket();
    let (_tab, _) = open(&coordinator, 1, &ticket).await;
    // Another tab, or the GPU: the same key.
    let (_other_tab, _) = open(&coordinator, 1, &ticket).await;
    come(&coordinator, 2, &ticket)
        .await
        .refused(GoodbyeReason::BadTicket, "another session key")
        .await;
    // It is still so after a restart, for reconnects too.
    let coordinator = coordinator.restart(|_| {}).await;
    open(&coordinator, 1, &ticket).await;
    come(&coordinator, 2, &ticket)
        .await
        .refused(GoodbyeReason::BadTicket, "another session key")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_keys_at_the_same_moment_do_not_share_a_ticket() {
    let coordinator = Coordinator::start(|_| {}).await;
    let ticket = coordinator.ticket();
    // Both hellos are welcome: nobody has consented yet.
    let mut late = come(&coordinator, 2, &ticket).await;
    let (_, nonce) = late.welcome().await;
    open(&coordinator, 1, &ticket).await;
    let mut hello = hello(&key(2), coordinator.runtime.kernel());
    hello.ticket = Some(ticket.clone());
    late.send(&consent(&receipt(&hello, &nonce, Some(SITE_KEY)), &key(2))).await;
    late.refused(GoodbyeReason::BadTicket, "another session key").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_first_used_soon_and_earns_in_the_network_that_it_was_given_to() {
    let coordinator = Coordinator::start(|_| {}).await;
    let (me, here) = (ContributorId([1; 32]), network_prefix([192, 0, 2, 1].into()));
    let issue = |ago: i64| {
        let seat = Seat { prefix: here, origin: Some(PAGE) };
        coordinator.tickets.issue(coordinator.site, &seat, UnixMs(UnixMs::now().0 - ago))
    };
    let verify = async |ticket: &str, prefix: &NetworkPrefix| {
        coordinator.tickets.verify(ticket, &me, prefix).await
    };
    let good = verify(&issue(0), &here).await.expect("good");
    assert_eq!((good.site, good.origin.as_deref()), (coordinator.site, Some(PAGE)));
    let elsewhere = network_prefix([198, 51, 100, 1].into());
    let passed_on = verify(&issue(0), &elsewhere).await.expect("good all the same");
    assert!(passed_on.ticket.is_elsewhere && !good.ticket.is_elsewhere);
    assert!(matches!(verify(&issue(FIRST_USE_MS), &here).await, Err(TicketError::Expired)));
    // This machine's own addresses are one network.
    let seat = Seat { prefix: network_prefix([127, 0, 0, 1].into()), origin: None };
    let local = coordinator.tickets.issue(coordinator.site, &seat, UnixMs::now());
    let v6 = network_prefix("::1".parse().expect("an address"));
    assert_eq!(verify(&local, &v6).await.expect("good").origin, None);
    // Whoever has it may come back for two hours, from anywhere.
    let seat = Seat { prefix: network_prefix([127, 0, 0, 1].into()), origin: Some(PAGE) };
    let earlier = UnixMs(UnixMs::now().0 - FIRST_USE_MS + 60_000);
    let mine = coordinator.tickets.issue(coordinator.site, &seat, earlier);
    open(&coordinator, 1, &mine).await;
    let holder = ContributorId(key(1).verifying_key().to_bytes());
    assert!(coordinator.tickets.verify(&mine, &holder, &elsewhere).await.is_ok());
    let old = UnixMs(UnixMs::now().0 - TICKET_MS);
    let expired = coordinator.tickets.issue(coordinator.site, &seat, old);
    assert!(matches!(verify(&expired, &here).await, Err(TicketError::Expired)));
}

async fn posted(coordinator: &Coordinator, account: Account) -> i64 {
    coordinator.store.balance(Book::Test, account).await.expect("readable").posted
}

/// Trains a job by one contributor who comes with that ticket; what site and reserve got.
async fn train(coordinator: &Coordinator, ticket: Option<String>) -> (i64, i64) {
    let account = Account::Site(coordinator.site);
    let before = (posted(coordinator, account).await, posted(coordinator, Account::Reserve).await);
    let contributor = Contributor::start_through(coordinator.address, 1, Habits::default(), ticket);
    let spec = raven_coordinator::job::JobSpec {
        verification: Verification::None,
        ..job("replica", 60, 600, 300)
    };
    let id = JobId(ID.0 + u64::try_from(before.0 + before.1).expect("positive"));
    coordinator.add_job(id, &ROWS, &spec).await;
    coordinator.finished(id, PATIENCE).await;
    contributor.kill();
    coordinator.store.audit(Book::Test).await.expect("the auditor agrees");
    let after = (posted(coordinator, account).await, posted(coordinator, Account::Reserve).await);
    (after.0 - before.0, after.1 - before.1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_earns_by_work_through_a_proven_origin_and_by_no_other() {
    let coordinator = Coordinator::start(|_| {}).await;
    let (site, now) = (coordinator.site, UnixMs::now());
    let (earned, reserve) = train(&coordinator, Some(coordinator.ticket())).await;
    assert_eq!(earned, 0, "nothing is proven yet");
    assert!(reserve > 0);
    // No ticket: through no site, whatever `Origin` a script makes up.
    coordinator.store.origin_proven(site, PAGE, ProofKind::Dns, now).await.expect("noted");
    let (earned, reserve) = train(&coordinator, None).await;
    assert!(earned == 0 && reserve > 0, "{earned} {reserve}");
    let (earned, reserve) = train(&coordinator, Some(coordinator.ticket())).await;
    assert!(earned > 0 && reserve == 0, "{earned} {reserve}");
    // A page that does not tell its origin counts where all of the site's are proven.
    let seat = Seat { prefix: network_prefix([127, 0, 0, 1].into()), origin: None };
    let hidden = || coordinator.tickets.issue(site, &seat, UnixMs::now());
    let (earned, _) = train(&coordinator, Some(hidden())).await;
    assert!(earned > 0);
    let origins = Some(vec![PAGE.to_owned(), "http://other.test".to_owned()]);
    let change = SiteChange { origins, ..SiteChange::default() };
    assert_eq!(
        coordinator.store.change_site(coordinator.owner, site, &change).await.expect("done"),
        SiteChanged::Done
    );
    let (earned, reserve) = train(&coordinator, Some(hidden())).await;
    assert!(earned == 0 && reserve > 0, "{earned} {reserve}");
    // What the console is told: all of it was work, part of it earned.
    let day = day_of(UnixMs::now());
    let days = coordinator.store.site_days(site, day - 1, day).await.expect("read");
    let tasks = |outcome: &str| -> u64 {
        days.values().filter_map(|day| day.work.get(outcome)).map(|work| work.tasks).sum()
    };
    assert!(tasks("earned") > 0 && tasks("unproven") > 0, "{days:?}");
    let (yes, worked) =
        days.values().fold((0, 0), |sum, day| (sum.0 + day.yes, sum.1 + day.worked));
    assert_eq!((yes, worked), (1, 1), "one key: {days:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_by_another_network_than_its_ticket_computes_and_its_site_does_not_earn() {
    let coordinator = Coordinator::start(|_| {}).await;
    let (site, now) = (coordinator.site, UnixMs::now());
    coordinator.store.origin_proven(site, PAGE, ProofKind::Dns, now).await.expect("noted");
    let seat = Seat { prefix: network_prefix([192, 0, 2, 1].into()), origin: Some(PAGE) };
    let ticket = coordinator.tickets.issue(site, &seat, now);
    let (earned, reserve) = train(&coordinator, Some(ticket.clone())).await;
    assert!(earned == 0 && reserve > 0, "{earned} {reserve}");
    // The key has the ticket now; that does not make it another one.
    let (earned, reserve) = train(&coordinator, Some(ticket)).await;
    assert!(earned == 0 && reserve > 0, "{earned} {reserve}");
    let day = day_of(UnixMs::now());
    let days = coordinator.store.site_days(site, day - 1, day).await.expect("read");
    assert!(days.values().all(|day| day.work.keys().eq(["network"])), "{days:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_taken_out_of_the_list_is_out_for_renewed_tickets_too() {
    let coordinator =
        Coordinator::start(|config| config.site_look = Duration::from_millis(50)).await;
    let (owner, id) = (coordinator.owner, coordinator.site);
    let here = network_prefix([127, 0, 0, 1].into());
    let (now, seat) = (UnixMs::now(), Seat { prefix: here, origin: Some(PAGE) });
    let old = coordinator.tickets.issue(id, &seat, UnixMs(now.0 - 2 * TICKET_MS));
    let site = async || coordinator.store.site(id).await.expect("read").expect("a site");
    // A visitor who has read for hours keeps its page's origin.
    let renewed = coordinator.tickets.renew(&old, &site().await, now).await.expect("renewed");
    let me = ContributorId(key(1).verifying_key().to_bytes());
    let found = coordinator.tickets.verify(&renewed, &me, &here).await.expect("good");
    assert_eq!(found.origin.as_deref(), Some(PAGE));
    let (visitor, _) = open(&coordinator, 1, &renewed).await;
    let origins = Some(vec!["http://other.test".to_owned()]);
    let change = SiteChange { origins, ..SiteChange::default() };
    assert_eq!(
        coordinator.store.change_site(owner, id, &change).await.expect("done"),
        SiteChanged::Done
    );
    visitor.refused(GoodbyeReason::BadTicket, "not the site's").await;
    let again = coordinator.tickets.renew(&renewed, &site().await, UnixMs::now()).await;
    assert!(matches!(again, Err(TicketError::Revoked)), "{again:?}");
}

/// The site's own row, and a ticket that was issued so long ago.
async fn issued(coordinator: &Coordinator, ago: i64) -> (SiteRow, String) {
    let site = coordinator.store.site(coordinator.site).await.expect("read").expect("a site");
    let seat = Seat { prefix: network_prefix([127, 0, 0, 1].into()), origin: Some(PAGE) };
    let ticket = coordinator.tickets.issue(site.id, &seat, UnixMs(UnixMs::now().0 - ago));
    (site, ticket)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_ticket_is_good_for_a_few_keys_however_often_it_is_renewed() {
    let coordinator = Coordinator::start(|_| {}).await;
    let (site, first) = issued(&coordinator, FIRST_USE_MS + 1).await;
    let renew = async |ticket: &str| {
        coordinator.tickets.renew(ticket, &site, UnixMs::now()).await.expect("renewed")
    };
    // A visitor who read for long, stops, and says yes again has another key on the same page.
    let mut ticket = first.clone();
    for number in 1..=KEYS_MAX {
        ticket = renew(&ticket).await;
        open(&coordinator, u8::try_from(number).expect("few"), &ticket).await;
    }
    for ticket in [&renew(&first).await, &renew(&ticket).await, &ticket] {
        come(&coordinator, 99, ticket).await.refused(GoodbyeReason::BadTicket, "another").await;
    }
    open(&coordinator, 1, &renew(&ticket).await).await;
    // One that nobody has renewed is one key's.
    let (_, ticket) = issued(&coordinator, 0).await;
    open(&coordinator, 1, &ticket).await;
    come(&coordinator, 2, &ticket).await.refused(GoodbyeReason::BadTicket, "another").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_day_tickets_are_renewed_for_those_who_had_one_and_nobody_else() {
    let coordinator = Coordinator::start(|_| {}).await;
    let (site, ticket) = issued(&coordinator, RENEWED_MS + 1).await;
    let renew =
        async |ticket: &str, now: UnixMs| coordinator.tickets.renew(ticket, &site, now).await;
    let now = UnixMs::now();
    let refused = renew(&ticket, now).await;
    assert!(matches!(refused, Err(TicketError::Expired)), "nobody has come with it: {refused:?}");
    // Nor by renewing what was renewed in time.
    let soon = UnixMs(now.0 - FIRST_USE_MS / 2);
    let (_, ticket) = issued(&coordinator, RENEWED_MS + 1_000).await;
    let renewed = renew(&ticket, UnixMs(soon.0 - RENEWED_MS / 2)).await.expect("renewed");
    assert!(matches!(renew(&renewed, now).await, Err(TicketError::Expired)));
    // A page that has been open for days goes on with its key, and with no other.
    let (_, ticket) = issued(&coordinator, RENEWED_MS - 60_000).await;
    let renewed = renew(&ticket, now).await.expect("renewed");
    open(&coordinator, 1, &renewed).await;
    let later = UnixMs(now.0 + 120_000);
    let renewed = renew(&renewed, later).await.expect("renewed for whoever had it");
    open(&coordinator, 1, &renewed).await;
    come(&coordinator, 2, &renewed).await.refused(GoodbyeReason::BadTicket, "another").await;
    // Until it has not come for long.
    coordinator.store.forget_tickets(UnixMs(now.0 - HELD_MS)).await.expect("forgotten");
    assert!(renew(&renewed, later).await.is_ok());
    coordinator.store.forget_tickets(UnixMs(UnixMs::now().0 + 1)).await.expect("forgotten");
    assert!(matches!(renew(&renewed, later).await, Err(TicketError::Expired)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_is_passed_on_to_another_network_stays_so_when_it_is_renewed() {
    let coordinator = Coordinator::start(|_| {}).await;
    let seat = Seat { prefix: network_prefix([192, 0, 2, 1].into()), origin: Some(PAGE) };
    let (site, now) = (coordinator.site, UnixMs::now());
    let ticket = coordinator.tickets.issue(site, &seat, now);
    let site = coordinator.store.site(site).await.expect("read").expect("a site");
    let renewed = coordinator.tickets.renew(&ticket, &site, now).await.expect("renewed");
    let there = network_prefix([198, 51, 100, 1].into());
    let me = ContributorId([1; 32]);
    let found = coordinator.tickets.verify(&renewed, &me, &there).await.expect("good");
    assert!(found.ticket.is_elsewhere);
    let found = coordinator.tickets.verify(&renewed, &me, &seat.prefix).await.expect("good");
    assert!(!found.ticket.is_elsewhere);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_with_a_forged_origin_earns_no_site_anything() {
    let coordinator = Coordinator::start(|_| {}).await;
    let now = UnixMs::now();
    coordinator
        .store
        .origin_proven(coordinator.site, PAGE, ProofKind::Dns, now)
        .await
        .expect("noted");
    // The partner's own origin opens no socket; the coordinator's needs a ticket.
    assert!(Socket::connect_from(coordinator.address, Some(PAGE)).await.is_err());
    let mut socket =
        Socket::connect_from(coordinator.address, Some(OWN_ORIGIN)).await.expect("connects");
    let kernel = coordinator.runtime.kernel();
    socket.send(&FromContributor::Hello(hello(&key(3), kernel))).await;
    socket.refused(GoodbyeReason::BadTicket, "hello.ticket").await;
    for made_up in ["", "x", "a.b.c.d.e.f.g", &coordinator.ticket().replace('0', "1")] {
        let socket = come(&coordinator, 3, made_up).await;
        socket.refused(GoodbyeReason::BadTicket, "hello.ticket").await;
    }
    // A ticket that another visitor has used already.
    let ticket = coordinator.ticket();
    open(&coordinator, 1, &ticket).await;
    come(&coordinator, 3, &ticket).await.refused(GoodbyeReason::BadTicket, "hello.ticket").await;
    let (earned, reserve) = train(&coordinator, None).await;
    assert!(earned == 0 && reserve > 0, "{earned} {reserve}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_site_has_no_session_any_more() {
    let coordinator =
        Coordinator::start(|config| config.site_look = Duration::from_millis(50)).await;
    let (visitor, _) = open(&coordinator, 1, &coordinator.ticket()).await;
    let mut direct = Socket::connect(coordinator.address).await;
    direct.open(&key(2), coordinator.runtime.kernel()).await;
    let change = SiteChange { paused: Some(true), ..SiteChange::default() };
    let (owner, site) = (coordinator.owner, coordinator.site);
    assert_eq!(
        coordinator.store.change_site(owner, site, &change).await.expect("done"),
        SiteChanged::Done
    );
    visitor.refused(GoodbyeReason::BadTicket, "paused").await;
    let ticket = coordinator.ticket();
    come(&coordinator, 1, &ticket).await.refused(GoodbyeReason::BadTicket, "paused").await;
    // Who came through no site stays.
    assert_eq!(coordinator.store.site_online(site).await.expect("read"), (0, 0));
    direct.send(&FromContributor::Pause { detail: "later".into() }).await;
    let change = SiteChange { paused: Some(false), ..SiteChange::default() };
    assert_eq!(
        coordinator.store.change_site(owner, site, &change).await.expect("done"),
        SiteChanged::Done
    );
    let (visitor, _) = open(&coordinator, 1, &coordinator.ticket()).await;
    assert_eq!(coordinator.store.site_online(site).await.expect("read"), (1, 1));
    let origins = Some(vec!["http://other.test".to_owned()]);
    let change = SiteChange { origins, ..SiteChange::default() };
    assert_eq!(
        coordinator.store.change_site(owner, site, &change).await.expect("done"),
        SiteChanged::Done
    );
    visitor.refused(GoodbyeReason::BadTicket, "not the site's").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_site_refuses_reaches_sessions_that_are_open() {
    let coordinator =
        Coordinator::start(|config| config.site_look = Duration::from_millis(50)).await;
    let contributor = Contributor::start_through(
        coordinator.address,
        1,
        Habits { slow: Duration::from_millis(20), ..Habits::default() },
        Some(coordinator.ticket()),
    );
    let mut spec = job("replica", 40, 96, 16);
    (spec.verification, spec.category) = (Verification::None, Category::Finance);
    coordinator.add_job(ID, &ROWS, &spec).await;
    while coordinator.row(ID).await.step < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refuses = Some(CategorySet::EMPTY.with(Category::Finance));
    let change = SiteChange { refuses, ..SiteChange::default() };
    let (owner, site) = (coordinator.owner, coordinator.site);
    assert_eq!(
        coordinator.store.change_site(owner, site, &change).await.expect("done"),
        SiteChanged::Done
    );
    tokio::time::sleep(Duration::from_millis(600)).await;
    let commits = contributor.commits();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(contributor.commits(), commits, "it gets no task of the job any more");
    let live = coordinator.runtime.job_live(ID).expect("it waits");
    let reason = live.reason.expect("a reason");
    assert!(reason.contains("refuses jobs of category finance"), "{reason}");
    let change = SiteChange { refuses: Some(CategorySet::EMPTY), ..SiteChange::default() };
    assert_eq!(
        coordinator.store.change_site(owner, site, &change).await.expect("done"),
        SiteChanged::Done
    );
    while contributor.commits() == commits {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_work_token_says_what_was_verified_on_this_site() {
    let coordinator = Coordinator::start(|_| {}).await;
    train(&coordinator, Some(coordinator.ticket())).await;
    let (_visit, grant) = open(&coordinator, 1, &coordinator.ticket()).await;
    let session = coordinator.runtime.session_of(&grant).expect("open");
    let done = coordinator.store.work_of_session(session).await.expect("read").expect("a site");
    assert_eq!((done.site, done.visit_flops), (coordinator.site, 0));
    assert!(coordinator.row(ID).await.flops > 0);
    assert_eq!(done.total_flops, 0, "it was work that nobody checked");
    // Whoever came through no site has no token.
    let mut direct = Socket::connect(coordinator.address).await;
    let (other, ..) = direct.open(&key(2), coordinator.runtime.kernel()).await;
    assert_eq!(coordinator.store.work_of_session(other).await.expect("read"), None);
    let signatory = key_of(&coordinator.store).expect("a key").signatory();
    let nonsense = check("wt1.00.11", SiteId(7), &signatory, UnixMs::now());
    assert_eq!(nonsense, Err(TokenError::Malformed));
}

#[test]
fn caps_have_defaults_that_a_school_does_not_reach() {
    let caps = SiteCaps::default();
    assert!(caps.sessions_per_network_max >= 32 && caps.new_keys_per_network_max >= 60);
    assert!(caps.network_share_percent <= 100);
}
