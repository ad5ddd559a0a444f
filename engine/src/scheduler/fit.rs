//! Who may have a task at all, and how soon it would be done.

use crate::active::Job;
use crate::event::Millis;
use crate::session::Session;
use crate::stage::Demand;
use crate::world::World;
use raven_protocol::NumericClass;

/// Why a session cannot have a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unfit {
    Kernel,
    Memory,
    Refused,
    /// It was shown as many slices of the weights as it may be.
    Slices,
    /// It would fit if its other leases ended.
    Busy,
}

/// Whether `session` may work for `job` on tasks of that kind at all.
pub(super) fn may_work(
    job: &Job,
    session: &Session,
    stage: u32,
    key: Option<u32>,
) -> Result<(), Unfit> {
    match session.profile.numeric {
        NumericClass::Cpu { kernel } if kernel == job.plan.kernel => {}
        NumericClass::Cpu { .. } => return Err(Unfit::Kernel),
    }
    if session.refused.contains(&(job.id, stage, key)) {
        return Err(Unfit::Refused);
    }
    Ok(())
}

/// Whether the blobs and values of `demand` fit beside what running leases pin.
pub(super) fn fits(world: &World, session: &Session, demand: &Demand) -> Result<(), Unfit> {
    if demand.memory_bytes() > session.profile.memory_bytes {
        return Err(Unfit::Memory);
    }
    let pinned = world.pinned(session);
    match session.holdings.to_evict(demand, &pinned, session.profile.memory_bytes) {
        Some(_) => Ok(()),
        None => Err(Unfit::Busy),
    }
}

/// Milliseconds until a task of `flops` that reads `missing` more bytes would be committed.
pub(super) fn finish_ms(
    world: &World,
    session: &Session,
    flops: u64,
    missing: u64,
    now: Millis,
) -> f64 {
    world.queue_ms(session, now)
        + session.link.transfer_ms(missing)
        + session.speed.task_ms(flops)
        + session.link.round_trip_ms()
}
