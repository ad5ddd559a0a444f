//! At which rate work is paid: as what its session says it is, as far as its page and
//! what it delivers bear that out.

mod support;

use raven_engine::money::PicoUsd;
use raven_engine::rates::{Bonus, Least};
use raven_engine::{Check, Event, Millis, Rates, SessionProfile, SiteId, Trust, Verification};
use raven_protocol::{DeviceClass, NumericClass, Numerics, RefuseReason};
use std::collections::BTreeSet;
use support::{KERNEL, Rig, referee_finds, truth};

const CPU: NumericClass = NumericClass::Cpu { kernel: KERNEL };
const GPU: NumericClass = NumericClass::Gpu { kernel: KERNEL };

/// A GPU's bonus and bounds, so that everything can be told apart by its rate.
const BOUNDED: Rates = Rates {
    bonus: Bonus { gpu_thousandths: 100, stay_thousandths: 0, stay_minutes: 0 },
    least: Least { desktop_mflops: 1_000, server_mflops: 8_000, gpu_mflops: 16_000 },
    ..Rates::FLAT
};

fn profile(device: DeviceClass, numeric: NumericClass) -> SessionProfile {
    SessionProfile { device, ..Rig::profile(1, Trust::default(), numeric) }
}

/// Rates at which a session is paid that takes `ms` for each task of 15 Gflop.
fn paid(rates: Rates, profile: SessionProfile, ms: Millis) -> BTreeSet<u64> {
    let is_gpu = profile.numeric == GPU;
    let numerics = if is_gpu { Numerics::Relaxed } else { Numerics::Strict };
    let mut rig = Rig::paying(numerics, Verification::None, rates);
    rig.open_profile(1, profile);
    while rig.credits.len() < 12 {
        let tasks = rig.take_tasks(1);
        assert!(!tasks.is_empty(), "{:?}", rig.state());
        for (task, lease, _) in tasks {
            rig.now += ms;
            rig.digests.insert(lease, truth(task));
            rig.commit(1, lease, truth(task));
            if is_gpu {
                rig.project(1, lease, true);
            }
            let digests = rig.digests.clone();
            rig.reveal_all(|lease| digests[&lease]);
        }
    }
    rig.credits.iter().map(|credit| credit.rate.0).collect()
}

fn at(rate: u64) -> BTreeSet<u64> {
    [rate].into()
}

#[test]
fn a_visitor_of_a_page_is_paid_as_a_desktop_at_most() {
    let mut visitor = profile(DeviceClass::Server, CPU);
    assert_eq!(paid(Rates::FLAT, visitor.clone(), 1_000), at(20_000));
    visitor.site = Some(SiteId(7));
    assert_eq!(paid(Rates::FLAT, visitor.clone(), 1_000), at(16_000));
    let phone = SessionProfile { device: DeviceClass::Phone, ..visitor.clone() };
    assert_eq!(paid(Rates::FLAT, phone, 1_000), at(12_000), "and as no more than it says");
    // Where a lower class is the dearer one, saying more is worth nothing either.
    let odd = Rates { desktop: PicoUsd(30_000), ..Rates::FLAT };
    assert_eq!(paid(odd, visitor, 1_000), at(20_000));
}

#[test]
fn a_class_is_paid_by_whoever_delivers_as_much() {
    let server = profile(DeviceClass::Server, CPU);
    // 15 Gflop/s, 5 and 0.5.
    assert_eq!(paid(BOUNDED, server.clone(), 1_000), at(20_000));
    assert_eq!(paid(BOUNDED, server.clone(), 3_000), at(16_000));
    assert_eq!(paid(BOUNDED, server.clone(), 30_000), at(12_000));
    assert_eq!(paid(Rates::FLAT, server.clone(), 30_000), at(20_000), "without bounds");
    // Workers, speed and share that are only said make nobody a server.
    let boaster =
        SessionProfile { workers: 64, flops_per_s: u64::MAX, share: 0.05, ..server.clone() };
    assert_eq!(paid(BOUNDED, boaster, 3_000), at(16_000));
    // A desktop that gives a tenth of itself is one all the same.
    let desktop = profile(DeviceClass::Desktop, CPU);
    assert_eq!(paid(BOUNDED, desktop.clone(), 30_000), at(12_000));
    let sparing = SessionProfile { share: 0.1, ..desktop };
    assert_eq!(paid(BOUNDED, sparing, 30_000), at(16_000));
}

#[test]
fn a_gpus_bonus_is_for_what_delivers_as_one() {
    let gpu = profile(DeviceClass::Desktop, GPU);
    // 30 Gflop/s, and what a processor does that says it is a GPU.
    assert_eq!(paid(BOUNDED, gpu.clone(), 500), at(17_600));
    assert_eq!(paid(BOUNDED, gpu, 2_000), at(16_000));
    assert_eq!(paid(BOUNDED, profile(DeviceClass::Desktop, CPU), 500), at(16_000));
}

/// A contributor computes at that speed, and says what it came to.
fn computes(rig: &mut Rig, mflops_per_s: u64) {
    for (task, lease, flops) in rig.take_tasks(1) {
        rig.now += flops / 1_000 / mflops_per_s;
        rig.digests.insert(lease, truth(task));
        rig.commit(1, lease, truth(task));
        if rig.projects.iter().any(|&(_, asked, _)| asked == lease) {
            rig.project(1, lease, true);
        }
        let digests = rig.digests.clone();
        rig.reveal_all(|lease| digests[&lease]);
        while !rig.referee.is_empty() {
            referee_finds(rig, 7);
        }
    }
}

fn rates(rig: &Rig) -> BTreeSet<u64> {
    rig.credits.iter().map(|credit| credit.rate.0).collect()
}

#[test]
fn time_for_which_the_coordinator_is_waited_for_makes_nobody_slower() {
    let mut rig = Rig::paying(Numerics::Strict, Verification::None, BOUNDED);
    rig.open_profile(1, profile(DeviceClass::Server, CPU));
    while rig.credits.len() < 12 {
        let mut tasks = rig.take_tasks(1);
        let (task, lease, _) = tasks.remove(0);
        rig.now += 1_000;
        rig.digests.insert(lease, truth(task));
        rig.commit(1, lease, truth(task));
        let session = Rig::session(1);
        rig.tell(Event::Arrived { session, lease, check: Check::Form });
        // What it has said of all others in the meantime is read after that.
        rig.now += 10_000;
        rig.reveal(1, lease, true);
        tasks.extend(rig.take_tasks(1));
        for (task, lease, _) in tasks {
            rig.digests.insert(lease, truth(task));
            rig.commit(1, lease, truth(task));
            rig.reveal(1, lease, true);
        }
    }
    assert_eq!(rates(&rig), at(20_000));
}

#[test]
fn a_share_that_is_raised_says_nothing_of_what_was_done_before() {
    let mut rig = Rig::paying(Numerics::Strict, Verification::None, BOUNDED);
    let desktop = profile(DeviceClass::Desktop, CPU);
    rig.open_profile(1, SessionProfile { share: 0.1, ..desktop });
    computes(&mut rig, 500);
    rig.tell(Event::PaceChanged { session: Rig::session(1), share: 1.0, workers: 1 });
    while rig.credits.len() < 12 {
        computes(&mut rig, 5_000);
    }
    assert_eq!(rates(&rig), at(16_000));
}

#[test]
fn what_is_committed_to_and_not_answered_for_makes_nobody_a_gpu() {
    for is_handed_back in [false, true] {
        let mut rig = Rig::paying(Numerics::Relaxed, Verification::Adaptive, BOUNDED);
        let trust = Trust::Agreed { results: 1_000, refereed: 5 };
        let gpu = SessionProfile { trust, ..profile(DeviceClass::Desktop, GPU) };
        rig.open_profile(1, gpu);
        for (task, lease, _) in rig.take_tasks(1) {
            rig.commit(1, lease, truth(task));
            if is_handed_back {
                let (session, reason) = (Rig::session(1), RefuseReason::Stopping);
                rig.tell(Event::Refused { session, lease, reason });
            }
        }
        rig.now += 30_000;
        rig.tell(Event::Tick);
        while rig.credits.len() < 4 {
            rig.projects.clear();
            computes(&mut rig, 12_000);
            rig.now += 1_000;
            rig.tell(Event::Tick);
            assert!(rig.now < 200_000, "{:?}", rig.state());
        }
        assert_eq!(rates(&rig), at(16_000), "handed back: {is_handed_back}");
    }
}

#[test]
fn time_for_what_others_had_done_before_makes_nobody_slower() {
    let mut rig = Rig::paying_parts(Verification::None, BOUNDED, &[15_000_000_000; 2]);
    rig.open_profile(1, profile(DeviceClass::Server, CPU));
    let [(_, outrun, _), (task, lease, _)] = rig.take_tasks(1)[..] else { panic!("two tasks") };
    rig.now += 9_000;
    rig.open(2);
    let [(copied, copy, _)] = rig.take_tasks(2)[..] else { panic!("the first is late") };
    rig.digests.extend([(copy, truth(copied)), (lease, truth(task))]);
    rig.commit(2, copy, truth(copied));
    rig.reveal(2, copy, true);
    assert!(rig.cancels.contains(&(Rig::session(1), outrun)));
    rig.now += 1_000;
    rig.commit(1, lease, truth(task));
    rig.reveal(1, lease, true);
    rig.credits.retain(|credit| credit.session == Rig::session(1));
    assert_eq!(rates(&rig), at(20_000));
}

#[test]
fn a_tiny_task_beside_a_large_one_makes_nobody_faster() {
    let flops = [16_000_000_000, 1_000_000];
    let mut rig = Rig::paying_parts(Verification::None, BOUNDED, &flops);
    rig.open_profile(1, SessionProfile { workers: 2, ..profile(DeviceClass::Server, CPU) });
    while rig.credits.len() < 8 {
        let mut tasks = rig.take_tasks(1);
        // The large one takes longer than a server's would, and the tiny one is shown first.
        rig.now += 2_100;
        tasks.sort_by_key(|&(.., flops)| flops);
        assert_eq!(tasks.len(), 2);
        for (task, lease, _) in tasks {
            rig.digests.insert(lease, truth(task));
            rig.commit(1, lease, truth(task));
            rig.reveal(1, lease, true);
        }
    }
    rig.credits.retain(|credit| credit.flops == flops[0]);
    assert_eq!(rates(&rig), at(16_000));
}
