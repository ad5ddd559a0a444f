//! Which rows a micro-batch reads: seeded, shard-local shuffling.
//!
//! Rows are permuted within each shard and cut into micro-batches, so that a
//! micro-batch reads one shard; what remains of a shard is pooled with its
//! neighbours' remains. The micro-batches of all shards are then permuted, and
//! consecutive ones make a batch. Within a batch they are ordered by shard, so
//! that an aligned run of them tends to stay within one. Every row is read
//! exactly once an epoch. All of it is a function of the plan and its seed.

use crate::plan::SyncSgd;
use raven_graph::philox::{derive_seed, permutation};
use raven_protocol::Seed;

/// Stream tags: the draws of an epoch are independent of each other and of
/// everything else that is derived from a job's seed.
const TAG_ROWS: u32 = 0x524f_5753;
const TAG_BATCHES: u32 = 0x4241_5443;

/// Sizes of a job's epochs and rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Rows per micro-batch that are real; the rest is padding.
    pub rows_per_micro_batch: u32,
    /// Micro-batches of a whole batch.
    pub micro_batches_per_batch: u32,
    /// Micro-batches of an epoch.
    pub micro_batches_per_epoch: u32,
    /// Rounds of an epoch: optimizer steps; the last may be smaller.
    pub rounds_per_epoch: u32,
    /// Rounds of the job.
    pub total_rounds: u32,
}

/// Why a plan's rows cannot be laid out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("plan.{field}: must be at least 1")]
    Zero { field: &'static str },
    #[error("plan.{field}: {found} exceeds the limit of {limit}")]
    Limit { field: &'static str, found: u64, limit: u64 },
    #[error(
        "plan.batch: {batch} rows cannot be cut evenly into micro-batches of at most {micro_batch}"
    )]
    Uneven { batch: u32, micro_batch: u32 },
    #[error("plan.shards[{index}]: starts at row {found}, row {expected} comes next")]
    ShardGap { index: usize, found: u32, expected: u64 },
    #[error("plan.shards: hold {found} rows, the job trains on {expected}")]
    ShardsShort { found: u64, expected: u32 },
}

fn positive(field: &'static str, value: u32) -> Result<(), LayoutError> {
    if value == 0 { Err(LayoutError::Zero { field }) } else { Ok(()) }
}

impl Layout {
    /// Lays out `plan`'s rows.
    ///
    /// # Errors
    /// [`LayoutError`] names the field that does not fit.
    pub fn of(plan: &SyncSgd) -> Result<Self, LayoutError> {
        positive("train_rows", plan.train_rows)?;
        positive("batch", plan.batch)?;
        positive("micro_batch", plan.micro_batch)?;
        positive("epochs", plan.epochs)?;
        if plan.train_rows > i32::MAX as u32 {
            let (found, limit) = (u64::from(plan.train_rows), i32::MAX as u64);
            return Err(LayoutError::Limit { field: "train_rows", found, limit });
        }
        check_shards(plan)?;
        let micro_batches_per_batch = plan.batch.div_ceil(plan.micro_batch);
        if !plan.batch.is_multiple_of(micro_batches_per_batch) {
            return Err(LayoutError::Uneven { batch: plan.batch, micro_batch: plan.micro_batch });
        }
        let rows_per_micro_batch = plan.batch / micro_batches_per_batch;
        let rounds_per_epoch = plan.train_rows.div_ceil(plan.batch);
        let total_rounds =
            rounds_per_epoch.checked_mul(plan.epochs).ok_or_else(|| LayoutError::Limit {
                field: "epochs",
                found: u64::from(plan.epochs),
                limit: u64::from(u32::MAX / rounds_per_epoch),
            })?;
        Ok(Layout {
            rows_per_micro_batch,
            micro_batches_per_batch,
            micro_batches_per_epoch: plan.train_rows.div_ceil(rows_per_micro_batch),
            rounds_per_epoch,
            total_rounds,
        })
    }

    /// The epoch that `round` belongs to.
    pub fn epoch_of(&self, round: u32) -> u32 {
        round / self.rounds_per_epoch
    }

    /// Micro-batches of the smallest batch: that of an epoch's last round.
    pub fn micro_batches_least(&self) -> u32 {
        self.micro_batches(self.rounds_per_epoch - 1)
    }

    /// Micro-batches of `round`'s batch, at least 1.
    pub fn micro_batches(&self, round: u32) -> u32 {
        let done = (round % self.rounds_per_epoch) * self.micro_batches_per_batch;
        (self.micro_batches_per_epoch - done).min(self.micro_batches_per_batch)
    }
}

fn check_shards(plan: &SyncSgd) -> Result<(), LayoutError> {
    let mut rows = 0u64;
    for (index, shard) in plan.shards.iter().enumerate() {
        if u64::from(shard.first_row) != rows {
            let (found, expected) = (shard.first_row, rows);
            return Err(LayoutError::ShardGap { index, found, expected });
        }
        positive("shards.rows", shard.rows)?;
        rows += u64::from(shard.rows);
    }
    if rows < u64::from(plan.train_rows) {
        return Err(LayoutError::ShardsShort { found: rows, expected: plan.train_rows });
    }
    Ok(())
}

/// One micro-batch of an epoch: a slice of [`EpochOrder::rows`].
#[derive(Clone, Copy, Debug)]
struct Cut {
    first: u32,
    count: u32,
    /// First and last shard that its rows are of.
    shards: (u32, u32),
}

/// The order of one epoch's rows, built once and then read for all its rounds.
#[derive(Clone, Debug)]
pub struct EpochOrder {
    layout: Layout,
    epoch: u32,
    micro_batch: u32,
    rows: Vec<u32>,
    /// In the order of the epoch's batches, by shard within each.
    cuts: Vec<Cut>,
    /// First row of each shard that holds training rows.
    shard_starts: Vec<u32>,
}

impl EpochOrder {
    /// Shuffles `epoch` of `plan` under the job's seed. Takes time and memory
    /// in proportion to the training rows.
    ///
    /// # Errors
    /// [`LayoutError`] where the plan cannot be laid out.
    pub fn new(plan: &SyncSgd, seed: Seed, epoch: u32) -> Result<Self, LayoutError> {
        let layout = Layout::of(plan)?;
        let size = layout.rows_per_micro_batch;
        let epoch_seed = derive_seed(seed.0, [epoch, TAG_ROWS, 0, 0]);
        let mut rows = Vec::with_capacity(plan.train_rows as usize);
        let mut cuts = Vec::with_capacity(layout.micro_batches_per_epoch as usize);
        let mut pool: Vec<(u32, u32)> = Vec::new();
        let mut shard_starts = Vec::with_capacity(plan.shards.len());
        for (index, shard) in plan.shards.iter().enumerate() {
            let end = (shard.first_row + shard.rows).min(plan.train_rows);
            if shard.first_row >= end {
                break;
            }
            let index = index as u32;
            shard_starts.push(shard.first_row);
            let order = permutation(epoch_seed, index, end - shard.first_row);
            let whole = order.len() - order.len() % size as usize;
            for chunk in order[..whole].chunks_exact(size as usize) {
                cuts.push(Cut { first: rows.len() as u32, count: size, shards: (index, index) });
                rows.extend(chunk.iter().map(|row| shard.first_row + row));
            }
            pool.extend(order[whole..].iter().map(|row| (index, shard.first_row + row)));
        }
        for chunk in pool.chunks(size as usize) {
            let shards = (chunk[0].0, chunk[chunk.len() - 1].0);
            cuts.push(Cut { first: rows.len() as u32, count: chunk.len() as u32, shards });
            rows.extend(chunk.iter().map(|&(_, row)| row));
        }
        let batch_seed = derive_seed(seed.0, [epoch, TAG_BATCHES, 0, 0]);
        let order = permutation(batch_seed, 0, cuts.len() as u32);
        let mut cuts: Vec<Cut> = order.into_iter().map(|i| cuts[i as usize]).collect();
        for batch in cuts.chunks_mut(layout.micro_batches_per_batch as usize) {
            batch.sort_by_key(|cut| (cut.shards, cut.first));
        }
        Ok(EpochOrder { layout, epoch, micro_batch: plan.micro_batch, rows, cuts, shard_starts })
    }

    /// The epoch whose order this is.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The job's sizes.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    fn cut(&self, round: u32, micro_batch: u32) -> Cut {
        assert_eq!(self.layout.epoch_of(round), self.epoch, "round {round} is of another epoch");
        assert!(micro_batch < self.layout.micro_batches(round), "micro-batch {micro_batch}");
        let batch = (round % self.layout.rounds_per_epoch) * self.layout.micro_batches_per_batch;
        self.cuts[(batch + micro_batch) as usize]
    }

    /// Rows of `micro_batch` of `round`, padded with -1 to the plan's `micro_batch`.
    ///
    /// # Panics
    /// Where `round` is not of this epoch or `micro_batch` not of its batch.
    pub fn rows(&self, round: u32, micro_batch: u32) -> Vec<i32> {
        let rows = self.real_rows(round, micro_batch);
        let mut padded: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        padded.resize(self.micro_batch as usize, -1);
        padded
    }

    /// The same without padding.
    ///
    /// # Panics
    /// As [`EpochOrder::rows`].
    pub fn real_rows(&self, round: u32, micro_batch: u32) -> &[u32] {
        let cut = self.cut(round, micro_batch);
        &self.rows[cut.first as usize..(cut.first + cut.count) as usize]
    }

    /// Indices of the shards that `micro_batch` of `round` reads, ascending.
    ///
    /// # Panics
    /// As [`EpochOrder::rows`].
    pub fn shards_of(&self, round: u32, micro_batch: u32) -> Vec<u32> {
        let cut = self.cut(round, micro_batch);
        let (first, last) = cut.shards;
        if first == last {
            return vec![first];
        }
        // A pooled micro-batch holds its shards' rows in ascending runs.
        let rows = self.real_rows(round, micro_batch);
        let shard_of = |row: u32| self.shard_starts.partition_point(|&s| s <= row) as u32 - 1;
        let mut shards: Vec<u32> = rows.iter().map(|&row| shard_of(row)).collect();
        shards.dedup();
        shards
    }
}

/// [`EpochOrder::rows`] for a single look; builds the whole epoch's order each
/// time, so keep an [`EpochOrder`] to read more than one micro-batch.
///
/// # Errors
/// [`LayoutError`] where the plan cannot be laid out.
///
/// # Panics
/// Where `micro_batch` is not of `round`'s batch.
pub fn micro_batch_rows(
    plan: &SyncSgd,
    seed: Seed,
    round: u32,
    micro_batch: u32,
) -> Result<Vec<i32>, LayoutError> {
    let epoch = Layout::of(plan)?.epoch_of(round);
    Ok(EpochOrder::new(plan, seed, epoch)?.rows(round, micro_batch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Placement;
    use raven_graph::schedule::Schedule;
    use raven_protocol::{BlobId, GraphId, ShardRef};

    fn plan(train_rows: u32, batch: u32, micro_batch: u32, shard_rows: &[u32]) -> SyncSgd {
        let mut first_row = 0;
        let shards = shard_rows.iter().enumerate().map(|(i, &rows)| {
            first_row += rows;
            let blob = BlobId([i as u8; 32]);
            ShardRef { blob, first_row: first_row - rows, rows, bytes: u64::from(rows) * 10 }
        });
        SyncSgd {
            train_rows,
            batch,
            micro_batch,
            epochs: 3,
            schedule: Schedule::constant(0.1),
            early_stopping: None,
            divergence: None,
            shards: shards.collect(),
            weights_bytes: 1,
            groups: 1,
            placement: Placement::Replica {
                graph: GraphId([0; 32]),
                flops: 1,
                bytes_peak: 1,
                result_bytes: 1,
            },
        }
    }

    #[test]
    fn every_row_is_read_once_an_epoch_from_as_few_shards_as_can_be() {
        let cases: [(u32, u32, u32, &[u32]); 6] = [
            (1000, 64, 16, &[300, 300, 300, 300]),
            (997, 100, 64, &[500, 500]),
            (10, 64, 16, &[10]),
            (50, 7, 3, &[1; 50]),
            (64, 64, 64, &[64]),
            (129, 1, 1, &[100, 29, 7]),
        ];
        for (train_rows, batch, micro_batch, shards) in cases {
            let case = format!("{train_rows} rows, batch {batch} of {micro_batch}");
            let Ok(layout) = Layout::of(&plan(train_rows, batch, micro_batch, shards)) else {
                // 7 rows cannot be cut evenly into micro-batches of at most 3.
                assert_eq!((batch, micro_batch), (7, 3));
                continue;
            };
            let plan = plan(train_rows, batch, micro_batch, shards);
            for epoch in 0..plan.epochs {
                let order = EpochOrder::new(&plan, Seed(7), epoch).expect("laid out");
                let mut seen = Vec::new();
                let mut pooled = 0;
                for in_epoch in 0..layout.rounds_per_epoch {
                    let round = epoch * layout.rounds_per_epoch + in_epoch;
                    let mut rows_in_batch = 0;
                    for micro in 0..layout.micro_batches(round) {
                        let rows = order.rows(round, micro);
                        assert_eq!(rows.len(), micro_batch as usize, "{case}");
                        let real: Vec<u32> =
                            rows.iter().filter(|&&row| row >= 0).map(|&row| row as u32).collect();
                        assert!(!real.is_empty(), "{case}");
                        rows_in_batch += real.len() as u32;
                        let shards = order.shards_of(round, micro);
                        pooled += usize::from(shards.len() > 1);
                        for &row in &real {
                            let of = plan.shards.iter().position(|shard| {
                                (shard.first_row..shard.first_row + shard.rows).contains(&row)
                            });
                            assert!(shards.contains(&(of.expect("a shard holds it") as u32)));
                        }
                        seen.extend(real);
                    }
                    assert!(rows_in_batch <= batch, "{case}");
                }
                assert!(pooled <= plan.shards.len(), "{case}: {pooled} pooled");
                seen.sort_unstable();
                assert_eq!(seen, (0..train_rows).collect::<Vec<_>>(), "{case}");
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_repeat() {
        let plan = plan(1000, 100, 50, &[400, 600]);
        let first = |seed, epoch| EpochOrder::new(&plan, Seed(seed), epoch).expect("laid out").rows;
        assert_eq!(first(1, 0), first(1, 0));
        assert_ne!(first(1, 0), first(1, 1));
        assert_ne!(first(1, 0), first(2, 0));
        let direct = micro_batch_rows(&plan, Seed(1), 13, 1).expect("laid out");
        let order = EpochOrder::new(&plan, Seed(1), 1).expect("laid out");
        assert_eq!(direct, order.rows(13, 1));
    }

    #[test]
    fn a_batch_mixes_shards_and_lists_them_in_order() {
        let plan = plan(8000, 800, 50, &[2000; 4]);
        let order = EpochOrder::new(&plan, Seed(3), 0).expect("laid out");
        for round in 0..order.layout().rounds_per_epoch {
            let shards: Vec<u32> = (0..16).map(|micro| order.shards_of(round, micro)[0]).collect();
            assert!(shards.is_sorted(), "{shards:?}");
            assert!(shards[0] != shards[15], "round {round} reads one shard only");
        }
    }

    #[test]
    fn plans_that_do_not_fit_are_refused_by_field() {
        let refused = |plan: SyncSgd| Layout::of(&plan).expect_err("refused").to_string();
        assert_eq!(refused(plan(0, 1, 1, &[1])), "plan.train_rows: must be at least 1");
        assert_eq!(refused(plan(5, 0, 1, &[5])), "plan.batch: must be at least 1");
        assert!(refused(plan(5, 7, 3, &[5])).starts_with("plan.batch: 7 rows"));
        assert!(refused(plan(5, 1, 1, &[4])).starts_with("plan.shards: hold 4 rows"));
        let mut gap = plan(5, 1, 1, &[3, 2]);
        gap.shards[1].first_row = 4;
        assert!(refused(gap).starts_with("plan.shards[1]: starts at row 4"));
    }
}
