//! Digests that results and blobs are known by.

use crate::frame::TensorView;
use crate::ids::{BlobId, ResultDigest, TaskId};
use crate::task::Encoding;

const RESULT_DOMAIN: &[u8] = b"raven result 1";
const BLOB_DOMAIN: &[u8] = b"raven blob 1";

fn field(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

fn tensor(hasher: &mut blake3::Hasher, view: &TensorView<'_>) {
    field(hasher, view.name.as_bytes());
    field(hasher, view.dtype.name().as_bytes());
    hasher.update(&(view.shape.rank() as u64).to_le_bytes());
    for &extent in view.shape.dims() {
        hasher.update(&extent.to_le_bytes());
    }
    field(hasher, view.data);
}

/// The commitment to a task's outputs: blake3 over domain, task id and, per
/// output in the spec's order, encoding, name, element type, shape and bytes.
/// Every field is preceded by its length, so no two lists collide.
pub fn result_digest<'a>(
    task: TaskId,
    outputs: impl IntoIterator<Item = (Encoding, TensorView<'a>)>,
) -> ResultDigest {
    let mut hasher = blake3::Hasher::new();
    field(&mut hasher, RESULT_DOMAIN);
    field(&mut hasher, task.to_string().as_bytes());
    for (encoding, view) in outputs {
        let encoding = match encoding {
            Encoding::Raw => b"raw",
        };
        field(&mut hasher, encoding);
        tensor(&mut hasher, &view);
    }
    ResultDigest(*hasher.finalize().as_bytes())
}

/// The content id of a blob: blake3 over domain and its tensors in order.
pub fn blob_id<'a>(tensors: impl IntoIterator<Item = TensorView<'a>>) -> BlobId {
    let mut hasher = blake3::Hasher::new();
    field(&mut hasher, BLOB_DOMAIN);
    for view in tensors {
        tensor(&mut hasher, &view);
    }
    BlobId(*hasher.finalize().as_bytes())
}
