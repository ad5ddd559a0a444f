//! A small made-up data set: images whose class shows in where they are bright.

use raven_coordinator::blobs::Blobs;
use raven_coordinator::dataset::{DatasetFacts, Features, Format, Target, X_COLUMN, Y_COLUMN};
use raven_coordinator::job::JobSpec;
use raven_coordinator::store::StoredShard;
use raven_graph::philox::philox4x32;
use raven_graph::{DType, TensorType};
use raven_protocol::ShardRef;
use raven_protocol::frame::TensorPart;

pub const SIDE: u32 = 8;
pub const CLASSES: u32 = 4;
const SHARD_ROWS: u32 = 100;

/// Rows of `u8[8, 8]` images in four classes, one for each quarter of the image.
#[derive(Clone, Debug)]
pub struct Rows {
    pub train: u32,
    pub test: u32,
}

impl Rows {
    fn image(index: u32) -> (Vec<u8>, i32) {
        let class = index % CLASSES;
        let pixels = (0..SIDE * SIDE).map(|at| {
            let (row, column) = (at / SIDE, at % SIDE);
            let quarter = 2 * (row * 2 / SIDE) + column * 2 / SIDE;
            let noise = philox4x32([index, at, 0, 0], [11, 13])[0] % 160;
            (noise + if quarter == class { 90 } else { 0 }) as u8
        });
        (pixels.collect(), class as i32)
    }

    pub fn facts(&self) -> DatasetFacts {
        DatasetFacts {
            name: "quarters".into(),
            format: Format::Npy,
            train_rows: self.train,
            test_rows: self.test,
            features: Features { dtype: DType::U8, shape: vec![SIDE, SIDE] },
            target: Target::Classes { classes: CLASSES },
            scale: 1.0 / 255.0,
            license: "none needed".into(),
            source: "made up".into(),
            bytes: 0,
            table: None,
            labels: None,
            expires_at: None,
        }
    }

    pub fn store(&self, blobs: &Blobs) -> Vec<StoredShard> {
        let part = |test: bool, first: u32, rows: u32| {
            (0..rows).step_by(SHARD_ROWS as usize).map(move |from| {
                let count = SHARD_ROWS.min(rows - from);
                StoredShard { test, shard: store_shard(blobs, first + from, from, count) }
            })
        };
        part(false, 0, self.train).chain(part(true, self.train, self.test)).collect()
    }
}

fn store_shard(blobs: &Blobs, first_image: u32, first_row: u32, rows: u32) -> ShardRef {
    let images: Vec<(Vec<u8>, i32)> = (first_image..first_image + rows).map(Rows::image).collect();
    let x: Vec<u8> = images.iter().flat_map(|(pixels, _)| pixels.iter().copied()).collect();
    let y: Vec<u8> = images.iter().flat_map(|(_, class)| class.to_le_bytes()).collect();
    let parts = [
        TensorPart {
            name: X_COLUMN.into(),
            ty: TensorType::new(DType::U8, [rows, SIDE, SIDE]),
            data: &x,
        },
        TensorPart { name: Y_COLUMN.into(), ty: TensorType::new(DType::I32, [rows]), data: &y },
    ];
    let (blob, bytes) = blobs.put_tensors(&parts).expect("stored");
    ShardRef { blob, first_row, rows, bytes }
}

/// A job document; `placement` is `replica` or `master`.
pub fn job(placement: &str, epochs: u32, batch: u32, micro_batch: u32) -> JobSpec {
    let document = serde_json::json!({
        "name": "a test", "dataset": "ds_00000000000003e8", "seed": 7, "placement": placement,
        "model": {
            "layers": [
                {"type": "flatten"},
                {"type": "dense", "units": 24, "activation": "relu"},
                {"type": "dropout", "rate": 0.1},
                {"type": "dense", "units": 4}
            ],
            "loss": "cross_entropy"
        },
        "optimizer": {"kind": "adam"},
        "training": {
            "epochs": epochs, "batch": batch, "micro_batch": micro_batch,
            "schedule": {"kind": "constant", "learning_rate": 0.01}
        }
    });
    serde_json::from_value(document).expect("a job document")
}
