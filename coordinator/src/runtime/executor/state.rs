//! The model between two rounds: parameters and optimizer slots.

use super::ExecutorError;
use super::tensor::{Tensor, tensors_of};
use crate::job::JobContext;
use axum::body::Bytes;
use raven_protocol::frame::encode;
use raven_protocol::{BlobId, TensorPart, ToContributor, blob_id};
use std::sync::{Arc, OnceLock};

/// A state, held in memory until the engine releases it.
#[derive(Debug)]
pub struct State {
    id: BlobId,
    /// Parameters, then slots, in the context's order.
    tensors: Vec<(String, Tensor)>,
    params: usize,
    weights: OnceLock<Weights>,
}

/// What contributors are sent of a state: the parameters alone.
#[derive(Clone, Debug)]
pub struct Weights {
    /// Content id of the parameters.
    pub id: BlobId,
    /// The blob frame, shared by all sessions.
    pub frame: Bytes,
}

impl State {
    /// A state from its tensors, in the order and of the types of the context.
    ///
    /// # Errors
    /// [`ExecutorError::StateMismatch`].
    pub fn new(context: &JobContext, tensors: Vec<Tensor>) -> Result<Arc<State>, ExecutorError> {
        let specs = || context.params.iter().chain(&context.slots);
        if specs().count() != tensors.len() {
            let reason = format!("{} tensors, {} expected", tensors.len(), specs().count());
            return Err(ExecutorError::StateMismatch { reason });
        }
        if let Some((spec, found)) = specs().zip(&tensors).find(|(spec, t)| spec.ty != t.ty) {
            let reason = format!("{} is {}, {} expected", spec.name, found.ty, spec.ty);
            return Err(ExecutorError::StateMismatch { reason });
        }
        let tensors: Vec<_> = specs().map(|spec| spec.name.clone()).zip(tensors).collect();
        let id = blob_id(tensors.iter().map(|(name, tensor)| tensor.view(name)));
        let params = context.params.len();
        Ok(Arc::new(State { id, tensors, params, weights: OnceLock::new() }))
    }

    /// A state from its stored frame.
    ///
    /// # Errors
    /// [`ExecutorError::Frame`] and [`ExecutorError::StateMismatch`].
    pub fn from_frame(context: &JobContext, frame: &Bytes) -> Result<Arc<State>, ExecutorError> {
        let (names, tensors): (Vec<_>, Vec<_>) = tensors_of(frame)?.into_iter().unzip();
        let expected = context.params.iter().chain(&context.slots).map(|spec| &spec.name);
        if !names.iter().eq(expected) {
            let reason = format!("its tensors are named {names:?}");
            return Err(ExecutorError::StateMismatch { reason });
        }
        State::new(context, tensors)
    }

    /// Content id of parameters and slots.
    pub fn id(&self) -> BlobId {
        self.id
    }

    /// Parameters, then slots.
    pub fn tensors(&self) -> &[(String, Tensor)] {
        &self.tensors
    }

    /// The parameters.
    pub fn params(&self) -> &[(String, Tensor)] {
        &self.tensors[..self.params]
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|(known, _)| known == name).map(|(_, tensor)| tensor)
    }

    /// The blob frame that is stored as a checkpoint.
    pub fn frame(&self) -> Bytes {
        blob_frame(self.id, &self.tensors)
    }

    /// What contributors are sent; encoded once.
    pub fn weights(&self) -> &Weights {
        self.weights.get_or_init(|| {
            let id = blob_id(self.params().iter().map(|(name, tensor)| tensor.view(name)));
            Weights { id, frame: blob_frame(id, self.params()) }
        })
    }
}

fn blob_frame(id: BlobId, tensors: &[(String, Tensor)]) -> Bytes {
    let parts: Vec<TensorPart<'_>> =
        tensors.iter().map(|(name, tensor)| tensor.part(name.clone())).collect();
    encode(&ToContributor::Blob { id }, &parts).into()
}
