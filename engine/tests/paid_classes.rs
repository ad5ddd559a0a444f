//! At which rate work is paid: as what its session says it is, as far as its page and
//! what it delivers bear that out.

mod support;

use raven_engine::money::PicoUsd;
use raven_engine::rates::{Bonus, Least};
use raven_engine::{Millis, Rates, SessionProfile, SiteId, Trust, Verification};
use raven_protocol::{DeviceClass, NumericClass, Numerics};
use std::collections::BTreeSet;
use support::{KERNEL, Rig, truth};

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
