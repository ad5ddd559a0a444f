//! Lies that are values of the task itself: an input handed back, or the state
//! of an earlier step.

use super::finding::{Difference, Manner};
use super::{Materials, RefereeError, execute, result_frame};
use crate::runtime::executor::Kernel;
use axum::body::Bytes;
use raven_graph::{Shape, TensorType};
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, Frame, FrameLimits, Program, TaskMessage, TensorPart, ToContributor,
};

/// Steps of a scan that are computed once more to find a stale one: a scan cannot be begun in its
/// middle, so each candidate starts anew. With this all of 16 steps are looked at, of longer scans
/// the last but one, which is not counted here, and the first ones.
const STEPS_AGAIN_MAX: u32 = 128;

/// Adds what the task's own values say about how the output was made up.
///
/// # Errors
/// [`RefereeError`], of frames that cannot be read any more.
pub(super) fn explain(
    kernel: &mut Kernel,
    materials: &Materials,
    claimed: &Bytes,
    mut difference: Difference,
) -> Result<Difference, RefereeError> {
    let claimed = result_frame(claimed)?;
    let claimed = claimed.tensor(&difference.output).map(|view| (view.ty(), view.data));
    let Some((ty, data)) = claimed else { return Ok(difference) };
    // All zeros may well be what some input is; that it is zeros says more.
    if difference.manner == Manner::Zeros {
        return Ok(difference);
    }
    let copied = copied_input(materials, &ty, data)?;
    let carried = carry_input(materials, &difference.output);
    let stale = match &copied {
        Some(input) if Some(input.as_str()) == carried => Some(0),
        _ => earlier_step(kernel, materials, &difference.output, data)?,
    };
    if let Some(step) = stale {
        difference.manner = Manner::StaleStep { step };
    } else if let Some(input) = copied {
        difference.manner = Manner::CopiedInput { input };
    }
    Ok(difference)
}

/// The input that takes over this output in the next step of a scan.
fn carry_input<'a>(materials: &'a Materials, output: &str) -> Option<&'a str> {
    match &materials.spec().program {
        Program::Scan { carry, .. } => {
            carry.iter().find(|carry| carry.output == output).map(|carry| carry.input.as_str())
        }
        Program::Map { .. } => None,
    }
}

/// The input that was bound to these very bytes.
fn copied_input(
    materials: &Materials,
    ty: &TensorType,
    data: &[u8],
) -> Result<Option<String>, RefereeError> {
    for binding in &materials.spec().bindings {
        let (frame, tensor) = match binding {
            Binding::Attached { tensor, .. } => (Some(materials.task()), tensor),
            Binding::Blob { blob, tensor, .. } => (materials.blob_frame(*blob), tensor),
            Binding::PerRun { .. } | Binding::Rows { .. } | Binding::RowMask { .. } => continue,
        };
        let Some(frame) = frame else { continue };
        let frame = Frame::decode(frame, &FrameLimits::TO_CONTRIBUTOR)?;
        if frame.tensor(tensor).is_some_and(|view| view.ty() == *ty && view.data == data) {
            return Ok(Some(binding.input().to_owned()));
        }
    }
    Ok(None)
}

/// The number of steps, fewer than the task's, after which a scan's output has these bytes.
fn earlier_step(
    kernel: &mut Kernel,
    materials: &Materials,
    output: &str,
    data: &[u8],
) -> Result<Option<u32>, RefereeError> {
    let Program::Scan { steps, .. } = materials.spec().program else { return Ok(None) };
    // The last step left out is the likeliest, and then the first ones.
    let last = steps.checked_sub(1).filter(|&last| last > 0);
    let candidates = last.into_iter().chain(1..steps.saturating_sub(1));
    let mut again = 0u32;
    for step in candidates {
        if Some(step) != last {
            again = again.saturating_add(step);
        }
        if again > STEPS_AGAIN_MAX {
            break;
        }
        // What is proven stays proven where this does not run, say because a tensor is bound
        // as a whole too.
        let Ok(result) = execute(kernel, &shortened(materials, step)?) else { return Ok(None) };
        if result_frame(&result)?.tensor(output).is_some_and(|view| view.data == data) {
            return Ok(Some(step));
        }
    }
    Ok(None)
}

/// The task with its first steps only, and of what is attached per step as much.
fn shortened(materials: &Materials, steps: u32) -> Result<Vec<u8>, RefereeError> {
    let mut message: TaskMessage = materials.message().clone();
    let runs = message.spec.program.runs();
    if let Program::Scan { steps: all, .. } = &mut message.spec.program {
        *all = steps;
    }
    let per_run: Vec<&str> = materials.spec().bindings.iter().filter_map(per_run_tensor).collect();
    let frame = Frame::decode(materials.task(), &FrameLimits::TO_CONTRIBUTOR)?;
    let parts: Vec<TensorPart<'_>> = frame
        .tensors()
        .map(|view| match view.shape.dims() {
            [first, rest @ ..] if *first == runs && per_run.contains(&view.name) => {
                let dims = [&[steps], rest].concat();
                let bytes = view.data.len() / runs as usize * steps as usize;
                let ty = TensorType { dtype: view.dtype, shape: Shape(dims) };
                TensorPart { name: view.name.to_owned(), ty, data: &view.data[..bytes] }
            }
            _ => TensorPart { name: view.name.to_owned(), ty: view.ty(), data: view.data },
        })
        .collect();
    Ok(encode(&ToContributor::Task(Box::new(message)), &parts))
}

/// The attached tensor of which each run reads its own slice.
fn per_run_tensor(binding: &Binding) -> Option<&str> {
    match binding {
        Binding::PerRun { tensor, .. } => Some(tensor),
        Binding::Rows { rows, .. } | Binding::RowMask { rows, .. } => Some(rows),
        Binding::Blob { .. } | Binding::Attached { .. } => None,
    }
}
