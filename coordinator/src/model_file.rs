//! The trained model as a safetensors file.
//!
//! The file depends on the weights, the layers and the data's form only, never
//! on ids or times: the same training gives the same bytes and digest.

use crate::dataset::{Features, TableFacts, Target};
use crate::job::TensorSpec;
use crate::runtime::session::hex;
use raven_graph::ModelSpec;
use raven_protocol::{Frame, FrameLimits};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Why a checkpoint cannot be written as a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelFileError {
    #[error("checkpoint: {reason}")]
    NotAFrame { reason: String },
    #[error("checkpoint: parameter {name:?} is missing or has another type")]
    Parameter { name: String },
}

/// What the file says of the data that the model takes.
#[derive(Clone, Debug, Serialize)]
pub struct DataNote<'a> {
    pub features: &'a Features,
    pub scale: f32,
    pub target: Target,
    /// How rows of the table became features, where the data came as one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<&'a TableFacts>,
}

/// A model file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    pub bytes: Vec<u8>,
    /// Of the bytes, 64 lower-case hex digits.
    pub sha256: String,
}

#[derive(Serialize)]
struct Entry<'a> {
    dtype: &'static str,
    shape: &'a [u32],
    data_offsets: [u64; 2],
}

/// Writes the parameters, in their order, from the frame of a state.
///
/// # Errors
/// [`ModelFileError`] where the frame is not a state of these parameters.
pub fn write(
    frame: &[u8],
    params: &[TensorSpec],
    model: &ModelSpec,
    data: &DataNote<'_>,
) -> Result<ModelFile, ModelFileError> {
    let frame = Frame::decode(frame, &FrameLimits::TO_CONTRIBUTOR)
        .map_err(|error| ModelFileError::NotAFrame { reason: error.to_string() })?;
    let text = |value: serde_json::Result<String>| {
        value.map_err(|error| ModelFileError::NotAFrame { reason: error.to_string() })
    };
    let notes = [
        ("format", "raven-model-1".to_owned()),
        ("raven.model", text(serde_json::to_string(model))?),
        ("raven.data", text(serde_json::to_string(data))?),
    ];
    let mut header = String::from("{\"__metadata__\":{");
    for (index, (key, value)) in notes.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        header += &format!("{comma}\"{key}\":{}", text(serde_json::to_string(value))?);
    }
    header.push('}');
    let mut body = Vec::new();
    for param in params {
        let tensor = frame
            .tensor(&param.name)
            .filter(|tensor| tensor.dtype == param.ty.dtype && *tensor.shape == param.ty.shape)
            .ok_or_else(|| ModelFileError::Parameter { name: param.name.clone() })?;
        let start = body.len() as u64;
        body.extend_from_slice(tensor.data);
        let entry = Entry {
            dtype: "F32",
            shape: tensor.shape.dims(),
            data_offsets: [start, body.len() as u64],
        };
        let name = text(serde_json::to_string(&param.name))?;
        header += &format!(",{name}:{}", text(serde_json::to_string(&entry))?);
    }
    header.push('}');
    // Readers map the file into memory: the numbers begin at a multiple of 8.
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    let mut bytes = Vec::with_capacity(8 + header.len() + body.len());
    bytes.extend_from_slice(&(header.len() as u64).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&body);
    let sha256 = hex(&Sha256::digest(&bytes));
    Ok(ModelFile { bytes, sha256 })
}
