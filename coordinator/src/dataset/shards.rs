//! Rows to shards: blobs of about a mebibyte, each a frame with `x` and `y`.

use super::rows::{Rows, row_bytes, target_width};
use super::{DatasetError, Features, Target, X_COLUMN, Y_COLUMN};
use crate::blobs::Blobs;
use crate::store::StoredShard;
use raven_graph::{DType, TensorType};
use raven_protocol::limits::SHARDS_MAX;
use raven_protocol::{BlobId, ShardRef, TensorPart};

/// Small enough to be fetched by a phone while it computes, large enough that
/// a data set is not a flood of requests.
const SHARD_BYTES: u64 = 1 << 20;

/// Writes shards and remembers which blobs were not there before.
pub struct ShardWriter<'a> {
    blobs: &'a Blobs,
    features: Features,
    target: Target,
    rows_per_shard: u64,
    /// What was written, in order.
    pub shards: Vec<StoredShard>,
    /// Blobs that are this writer's own, to be removed if the upload fails.
    pub created: Vec<BlobId>,
}

impl<'a> ShardWriter<'a> {
    pub fn new(blobs: &'a Blobs, features: Features, target: Target) -> Self {
        let fitting = (SHARD_BYTES / row_bytes(&features, target).max(1)).max(1);
        // A power of two, so that aligned runs of micro-batches touch few shards.
        let rows_per_shard = 1 << fitting.ilog2();
        ShardWriter {
            blobs,
            features,
            target,
            rows_per_shard,
            shards: Vec::new(),
            created: Vec::new(),
        }
    }

    /// Refuses a part that takes more shards than one task may name.
    ///
    /// # Errors
    /// [`DatasetError::Limit`].
    pub fn check(&self, part: &'static str, rows: u64) -> Result<(), DatasetError> {
        let limit = self.rows_per_shard * SHARDS_MAX as u64;
        if rows > limit {
            return Err(DatasetError::Limit { part, field: "rows", limit, found: rows });
        }
        Ok(())
    }

    /// Takes the next `count` rows into shards of their own, numbered from 0.
    ///
    /// # Errors
    /// What reading and writing refuse.
    pub fn write(
        &mut self,
        source: &mut dyn Rows,
        count: u64,
        test: bool,
    ) -> Result<(), DatasetError> {
        let mut first_row = 0;
        while first_row < count {
            let rows = self.rows_per_shard.min(count - first_row);
            let (mut x, mut y) = (Vec::new(), Vec::new());
            source.read(rows, &mut x, &mut y)?;
            let shard = self.store(first_row, rows, &x, &y)?;
            self.shards.push(StoredShard { test, shard });
            first_row += rows;
        }
        Ok(())
    }

    fn store(
        &mut self,
        first_row: u64,
        rows: u64,
        x: &[u8],
        y: &[u8],
    ) -> Result<ShardRef, DatasetError> {
        // Rows were bounded to 31 bits when the file was opened.
        let (first_row, rows) = (first_row as u32, rows as u32);
        let mut x_shape = vec![rows];
        x_shape.extend(&self.features.shape);
        let y_ty = match self.target {
            Target::Classes { .. } => TensorType::new(DType::I32, [rows]),
            Target::Values { .. } => TensorType::new(DType::F32, [rows, target_width(self.target)]),
        };
        let tensors = [
            TensorPart {
                name: X_COLUMN.into(),
                ty: TensorType::new(self.features.dtype, x_shape.as_slice()),
                data: x,
            },
            TensorPart { name: Y_COLUMN.into(), ty: y_ty, data: y },
        ];
        let (blob, frame) = crate::blobs::blob_frame(&tensors);
        if !self.blobs.contains(blob) {
            self.created.push(blob);
        }
        self.blobs.put(blob, &frame)?;
        Ok(ShardRef { blob, first_row, rows, bytes: frame.len() as u64 })
    }
}
