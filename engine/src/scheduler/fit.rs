//! Who may have a task at all, and how soon it would be done.

use crate::active::Job;
use crate::event::Millis;
use crate::session::Session;
use crate::stage::Demand;
use crate::world::World;
use raven_protocol::{Backend, NumericClass, Numerics};

/// Why a session cannot have a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unfit {
    /// The coordinator's own node, while the job does not call for it.
    NotCalled,
    /// Its visitor or its site refuses jobs of that kind.
    Category,
    Kernel,
    /// It computes on a GPU, and the job is strict.
    Strict,
    /// A GPU of the same contributor does relaxed work.
    OwnGpu,
    Memory,
    /// Its visit may not move as much any more.
    Traffic,
    Refused,
    /// It was shown as many slices of the weights as it may be.
    Slices,
    /// It would fit if its other leases ended.
    Busy,
}

/// Whether `session` may work for `job` on tasks of that kind at all.
pub(super) fn may_work(
    world: &World,
    job: &Job,
    session: &Session,
    stage: u32,
    key: Option<u32>,
) -> Result<(), Unfit> {
    if session.profile.operator && !job.operator {
        return Err(Unfit::NotCalled);
    }
    if session.profile.refused.contains(job.plan.category) {
        return Err(Unfit::Category);
    }
    match (session.profile.numeric, job.plan.numerics) {
        (NumericClass::Cpu { kernel }, _) if kernel == job.plan.kernel => {}
        (NumericClass::Cpu { .. }, _) => return Err(Unfit::Kernel),
        // Whichever GPU module: nobody counts on the bits of a relaxed result.
        (NumericClass::Gpu { .. }, Numerics::Relaxed) => {}
        (NumericClass::Gpu { .. }, Numerics::Strict) => return Err(Unfit::Strict),
    }
    if session.refused.contains(&(job.id, stage, key)) {
        return Err(Unfit::Refused);
    }
    if has_gpu_for(world, job, session, stage, key) {
        return Err(Unfit::OwnGpu);
    }
    Ok(())
}

/// Whether another session of the same contributor does such tasks on its GPU.
/// The weights would cross its link twice for little more speed. What the GPU
/// has refused, or may have no memory for, or cannot do now, or turned out to be
/// slower at, the CPU does.
fn has_gpu_for(world: &World, job: &Job, session: &Session, stage: u32, key: Option<u32>) -> bool {
    let is_cpu = session.profile.numeric.backend() == Backend::Cpu;
    if !is_cpu || job.plan.numerics == Numerics::Strict {
        return false;
    }
    let own = world.gpus.get(&session.profile.contributor).into_iter().flatten();
    own.filter_map(|id| world.sessions.get(id))
        .filter(|gpu| gpu.profile.memory_bytes >= session.profile.memory_bytes)
        .filter(|gpu| !gpu.profile.refused.contains(job.plan.category))
        .filter(|gpu| gpu.is_available() && gpu.strikes == 0)
        .filter(|gpu| !gpu.speed.is_measured() || gpu.flops_per_ms() >= session.flops_per_ms())
        .any(|gpu| !gpu.refused.contains(&(job.id, stage, key)))
}

/// What frames and requests add to what they carry: a sixty-fourth, and this.
const OVERHEAD_BYTES: u64 = 16 << 10;

/// Whether a visit may move what `demand` needs there and yields. What does not
/// fit is not begun: it would use up the visit for nothing.
pub(super) fn may_move(session: &Session, demand: &Demand) -> bool {
    let Some(left) = session.profile.traffic_bytes else { return true };
    let bytes = session.holdings.missing_bytes(demand).saturating_add(demand.operand_bytes);
    let bytes = bytes.saturating_add(demand.result_bytes);
    bytes.saturating_add(bytes / 64).saturating_add(OVERHEAD_BYTES) <= left
}

/// Whether the blobs and values of `demand` fit beside what running leases pin.
pub(super) fn fits(world: &World, session: &Session, demand: &Demand) -> Result<(), Unfit> {
    if demand.memory_bytes() > session.profile.memory_bytes {
        return Err(Unfit::Memory);
    }
    if !may_move(session, demand) {
        return Err(Unfit::Traffic);
    }
    let pinned = || world.pinned(session);
    match session.holdings.to_evict(demand, pinned, session.profile.memory_bytes) {
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
