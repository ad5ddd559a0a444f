//! How fast a device is, found out in at most 300 ms.

use crate::device::{Gpu, Pipeline, Waiting};
use crate::lower::Lower;
use crate::lower::gemm::{self, Extents, Store, Stored};
use crate::pool::View;
use crate::record::{Commands, RunContext};
use crate::shader::{Launch, ValueId};
use crate::signal::Signal;
use std::rc::Rc;

/// Milliseconds of the whole measurement at most.
const TOTAL_MS_MAX: f64 = 300.0;
/// Milliseconds that the last round aims at: long beside the way there and back.
const ROUND_MS: f64 = 60.0;
/// Products that a slow device and a fast one are measured with.
const SMALL: u32 = 256;
const LARGE: u32 = 1024;
/// A small product that is done faster than this says little.
const TOO_FAST_MS: f64 = 3.0;
/// Products in one round at most.
const REPEATS_MAX: f64 = 256.0;

/// What the next round runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Compiles the shader and wakes the device.
    Warm,
    /// A first estimate.
    First,
    /// The figure that counts.
    Last,
    Done,
}

/// A measurement in rounds: the caller submits, waits, and reads its clock.
#[derive(Debug)]
pub struct Probe {
    size: u32,
    repeats: u32,
    round: Round,
    spent_ms: f64,
    flops_per_s: f64,
}

impl Default for Probe {
    fn default() -> Self {
        Probe { size: SMALL, repeats: 1, round: Round::Warm, spent_ms: 0.0, flops_per_s: 0.0 }
    }
}

impl Probe {
    /// Submits the next round; resolves to whether the device did it. `None` at the end.
    pub fn submit(&mut self, gpu: &mut Gpu) -> Option<Waiting<bool>> {
        (self.round != Round::Done).then(|| products(gpu, self.size, self.repeats))
    }

    /// The round that was submitted last took so long.
    pub fn took(&mut self, ms: f64) {
        // Clocks of pages are coarse on purpose.
        let ms = ms.max(0.1);
        self.spent_ms += ms;
        let flops = 2.0 * f64::from(self.size).powi(3) * f64::from(self.repeats);
        let warm = self.round == Round::Warm;
        if !warm {
            self.flops_per_s = flops / ms * 1000.0;
        }
        self.round = match self.round {
            Round::Warm => Round::First,
            Round::First
                if ms < TOO_FAST_MS && self.size == SMALL && self.spent_ms < TOTAL_MS_MAX / 2.0 =>
            {
                self.size = LARGE;
                Round::Warm
            }
            Round::First => {
                let left = (TOTAL_MS_MAX - self.spent_ms).min(ROUND_MS);
                self.repeats = (left / ms).clamp(1.0, REPEATS_MAX) as u32;
                Round::Last
            }
            Round::Last | Round::Done => Round::Done,
        };
        // A round is never begun that would take too long by the last one. How long
        // compiling took says nothing of the next round, which is a short one.
        if !warm && self.spent_ms + ms > TOTAL_MS_MAX {
            self.round = Round::Done;
        }
    }

    /// Operations per second of the last round.
    pub fn flops_per_s(&self) -> u64 {
        self.flops_per_s as u64
    }
}

/// The launches of one square product.
fn square(size: u32, lanes: bool) -> (Lower, [ValueId; 3]) {
    let mut cx = Lower::new(lanes);
    let [a, b, out] = [0; 3].map(|_: u32| cx.value(size * size));
    let extents = Extents { batches: 1, m: size, n: size, k: size };
    gemm::product(&mut cx, "matmul", extents, out, Store::Rows, |shader| {
        let stored = |value, along_k| Stored { value, along_k, lead: &[] };
        [
            gemm::stored(shader, "a", stored(a, true), extents),
            gemm::stored(shader, "b", stored(b, false), extents),
        ]
    });
    (cx, [a, b, out])
}

fn products(gpu: &mut Gpu, size: u32, repeats: u32) -> Waiting<bool> {
    const READ: u64 = 16;
    let (cx, [.., out]) = square(size, gpu.is_software());
    let (views, readback, params, commands) = gpu.guarded(|gpu| {
        let views: Vec<View> = cx
            .words
            .iter()
            .map(|words| gpu.take(4 * u64::from(*words)).view(4 * u64::from(*words)))
            .collect();
        let launches: Vec<(&Launch, Rc<Pipeline>)> =
            cx.launches.iter().map(|launch| (launch, gpu.pipeline(launch))).collect();
        let mut commands = Commands::default();
        let context = RunContext { seed: 0, run: 0 };
        for _ in 0..repeats {
            for (launch, pipeline) in &launches {
                // A few hundred commands: far below what could be refused.
                let _ = commands
                    .launch(gpu, (launch, pipeline), context, |id| views[id.index()].clone());
            }
        }
        let readback = gpu.take_readback(READ);
        let to = View { buffer: readback.clone(), offset: 0, bytes: READ };
        let _ = commands.copy(views[out.index()].clone(), to);
        let params = gpu.params(commands.param_bytes());
        (views, readback, params, commands)
    });
    let mapped: Signal<bool> = Signal::default();
    let done = mapped.clone();
    gpu.guarded(|gpu| {
        commands.submit(gpu, &params);
        let read = wgpu::MapMode::Read;
        readback.raw().map_async(read, ..READ, move |result| done.send(result.is_ok()));
    });
    // The queue runs in order: whoever takes these buffers next comes after.
    gpu.give(views.into_iter().map(|view| view.buffer), u64::MAX);
    let checks = gpu.take_checks();
    Box::pin(async move {
        let done = checks.await.is_none() && mapped.await;
        if done {
            readback.raw().unmap();
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(mut ms_of: impl FnMut(u32, u32) -> f64) -> (f64, u32, u64) {
        let mut probe = Probe::default();
        let (mut spent, mut count) = (0.0, 0);
        while probe.round != Round::Done {
            let ms = ms_of(probe.size, probe.repeats);
            spent += ms;
            count += 1;
            probe.took(ms);
        }
        (spent, count, probe.flops_per_s())
    }

    #[test]
    fn a_measurement_ends_in_time_on_slow_and_fast_devices() {
        for gflops in [0.2, 1.0, 5.0, 100.0, 20_000.0] {
            let (spent, count, found) = rounds(|size, repeats| {
                0.2 + 2.0 * f64::from(size).powi(3) * f64::from(repeats) / gflops / 1e6
            });
            assert!(spent <= 350.0, "{gflops} Gflop/s: {spent} ms in {count} rounds");
            let ratio = found as f64 / (gflops * 1e9);
            assert!((0.5..=1.0).contains(&ratio), "{gflops} Gflop/s: measured {ratio} of it");
        }
    }
}
