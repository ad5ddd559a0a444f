//! Jobs to simulate.

use raven_engine::{
    Algorithm, Category, Divergence, EarlyStopping, JobPlan, PartPlan, Placement, StagePlan,
    SyncSgd, Verification,
};
use raven_graph::schedule::Schedule;
use raven_protocol::{BlobId, GraphId, JobId, KernelId, Numerics, Seed, ShardRef};

/// The kernel that everybody runs.
pub const KERNEL: KernelId = KernelId([7; 32]);

/// The kernel of those who compute on GPUs.
pub const GPU_KERNEL: KernelId = KernelId([8; 32]);

/// Sizes of a replica job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Replica {
    pub rows: u32,
    pub batch: u32,
    pub micro_batch: u32,
    pub epochs: u32,
    pub shards: u32,
    /// Of one micro-batch.
    pub flops: u64,
    pub weights_bytes: u64,
    /// Bytes of one row in a shard.
    pub row_bytes: u64,
    pub early_stopping: Option<EarlyStopping>,
    pub divergence: Option<Divergence>,
    pub numerics: Numerics,
}

impl Default for Replica {
    fn default() -> Self {
        Replica {
            rows: 2_000,
            batch: 256,
            micro_batch: 32,
            epochs: 2,
            shards: 4,
            flops: 500_000_000,
            weights_bytes: 860_000,
            row_bytes: 784,
            early_stopping: None,
            divergence: None,
            numerics: Numerics::Strict,
        }
    }
}

fn shards(plan: &Replica, tag: u8) -> Vec<ShardRef> {
    let count = plan.shards.clamp(1, plan.rows);
    let start = |i: u32| (u64::from(plan.rows) * u64::from(i) / u64::from(count)) as u32;
    (0..count)
        .map(|i| {
            let (first_row, rows) = (start(i), start(i + 1) - start(i));
            let mut id = [tag; 32];
            // Ids are content: other cuts of the data are other blobs.
            for (slot, field) in [i, plan.rows, count, plan.row_bytes as u32].iter().enumerate() {
                id[4 * slot..4 * slot + 4].copy_from_slice(&field.to_le_bytes());
            }
            let bytes = u64::from(rows) * plan.row_bytes;
            ShardRef { blob: BlobId(id), first_row, rows, bytes }
        })
        .collect()
}

fn job(id: u64, seed: u64, numerics: Numerics, algorithm: SyncSgd) -> JobPlan {
    JobPlan {
        job: JobId(id),
        category: Category::Other,
        seed: Seed(seed),
        numerics,
        verification: Verification::None,
        kernel: KERNEL,
        algorithm: Algorithm::SyncSgd(algorithm),
    }
}

impl Replica {
    /// The plan of job `id`. Jobs of the same `data` share its shards.
    pub fn plan(&self, id: u64, seed: u64, data: u8) -> JobPlan {
        let placement = Placement::Replica {
            graph: GraphId([id as u8; 32]),
            flops: self.flops,
            bytes_peak: 8 << 20,
            result_bytes: self.weights_bytes,
        };
        job(id, seed, self.numerics, self.sgd(data, placement))
    }

    fn sgd(&self, data: u8, placement: Placement) -> SyncSgd {
        SyncSgd {
            train_rows: self.rows,
            batch: self.batch,
            micro_batch: self.micro_batch,
            epochs: self.epochs,
            schedule: Schedule::constant(0.05),
            early_stopping: self.early_stopping,
            divergence: self.divergence,
            placement,
            groups: 1,
            shards: shards(self, data),
            weights_bytes: self.weights_bytes,
        }
    }

    /// The same job in master placement: each large layer's forward and
    /// backward pushed in `slices` parts, with local stages between.
    pub fn master(&self, id: u64, seed: u64, slices: u32, held_max: u32) -> JobPlan {
        let pushed = |stage: u8, sliced: bool| StagePlan::Pushed {
            parts: (0..slices)
                .map(|slice| PartPlan {
                    graph: GraphId([stage.wrapping_mul(31).wrapping_add(id as u8); 32]),
                    flops: self.flops,
                    bytes_peak: 4 << 20,
                    operand_bytes: self.weights_bytes / u64::from(slices),
                    result_bytes: 50_000,
                    slice: sliced.then_some(slice),
                })
                .collect(),
        };
        let stages = vec![
            StagePlan::Local,
            pushed(1, true),
            StagePlan::Local,
            pushed(3, true),
            pushed(4, false),
            StagePlan::Local,
        ];
        let placement = Placement::Master { stages, slices, slices_held_max: held_max };
        job(id, seed, self.numerics, self.sgd(0, placement))
    }
}
