//! From a wrong result to the first op that is wrong, and to how it was made up.

use super::finding::{Bits, Difference, Element, Manner};
use super::{Materials, RefereeError, result_frame};
use axum::body::Bytes;
use raven_graph::{DType, NodeId, ValidGraph};
use raven_protocol::TensorView;

/// The first wrong output of a payload whose digest differs from the result's.
///
/// # Errors
/// [`RefereeError::Payload`] where the payload has other tensors than the result, or the same.
pub(super) fn first_difference(
    materials: &Materials,
    claimed: &Bytes,
    found: &Bytes,
) -> Result<Difference, RefereeError> {
    let (claimed, found) = (result_frame(claimed)?, result_frame(found)?);
    let graph = materials.graph();
    let mut first: Option<(NodeId, TensorView<'_>, TensorView<'_>)> = None;
    let mut outputs_wrong = 0;
    for (claimed, found) in claimed.tensors().zip(found.tensors()) {
        if claimed.name != found.name || claimed.ty() != found.ty() {
            let (name, ty) = (found.name, found.ty());
            let reason = format!("{:?} {}, {name:?} {ty} comes here", claimed.name, claimed.ty());
            return Err(RefereeError::Payload { reason });
        }
        if claimed.data == found.data {
            continue;
        }
        outputs_wrong += 1;
        let node = node_of(graph, found.name)?;
        if first.as_ref().is_none_or(|(earlier, ..)| node < *earlier) {
            first = Some((node, claimed, found));
        }
    }
    let Some((node, claimed, found)) = first else {
        let reason = "its tensors are the result's under another digest".to_owned();
        return Err(RefereeError::Payload { reason });
    };
    Ok(difference(graph, node, &claimed, &found, outputs_wrong))
}

fn node_of(graph: &ValidGraph, output: &str) -> Result<NodeId, RefereeError> {
    let found = graph.outputs().iter().find(|candidate| candidate.name == output);
    let reason = || format!("the graph has no output {output:?}");
    Ok(found.ok_or_else(|| RefereeError::Payload { reason: reason() })?.node)
}

fn element(dtype: DType, bytes: &[u8]) -> Element {
    let word = || <[u8; 4]>::try_from(bytes).unwrap_or_default();
    match dtype {
        DType::F32 => Element::F32(Bits(u32::from_le_bytes(word()))),
        DType::I32 => Element::I32(i32::from_le_bytes(word())),
        DType::U8 => Element::U8(bytes[0]),
        DType::Bool => Element::Bool(bytes[0] != 0),
    }
}

/// Two tensors of one type with different bytes.
fn difference(
    graph: &ValidGraph,
    node: NodeId,
    claimed: &TensorView<'_>,
    found: &TensorView<'_>,
    outputs_wrong: u32,
) -> Difference {
    let width = found.dtype.bytes() as usize;
    let pairs = || claimed.data.chunks_exact(width).zip(found.data.chunks_exact(width));
    let wrong = || pairs().enumerate().filter(|(_, (claimed, found))| claimed != found);
    // The bytes differ, so an element does.
    let same = (0, (&[0u8; 4][..], &[0u8; 4][..]));
    let (at, (claimed_bytes, found_bytes)) = wrong().next().unwrap_or(same);
    Difference {
        output: found.name.to_owned(),
        node: node.0,
        op: graph.graph().nodes[node.index()].op.name().to_owned(),
        element: at as u64,
        claimed: element(found.dtype, claimed_bytes),
        found: element(found.dtype, found_bytes),
        elements_wrong: wrong().count() as u64,
        elements: pairs().len() as u64,
        outputs_wrong,
        manner: manner(claimed, found),
    }
}

fn numbers<'a>(view: &TensorView<'a>) -> impl Iterator<Item = f32> + Clone + use<'a> {
    view.data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

/// What the two tensors alone show; `super::stale` looks further.
fn manner(claimed: &TensorView<'_>, found: &TensorView<'_>) -> Manner {
    if found.dtype != DType::F32 {
        let zeros = claimed.data.iter().all(|&byte| byte == 0);
        return if zeros { Manner::Zeros } else { Manner::Other };
    }
    let pairs = || numbers(claimed).zip(numbers(found));
    if numbers(claimed).all(|x| x == 0.0) {
        return Manner::Zeros;
    }
    if pairs().all(|(claimed, found)| claimed == -found) {
        return Manner::SignFlipped;
    }
    match factor(pairs()) {
        Some(factor) => Manner::Scaled { factor: Bits::of(factor) },
        None => Manner::Other,
    }
}

/// The number that all of the second, times it, are the first, each rounded once or twice.
fn factor(pairs: impl Iterator<Item = (f32, f32)> + Clone) -> Option<f32> {
    let largest = |a: (f32, f32), b: (f32, f32)| if b.1.abs() > a.1.abs() { b } else { a };
    let (claimed, found) = pairs.clone().reduce(largest)?;
    let factor = f64::from(claimed) / f64::from(found);
    let is_product = |(claimed, found): (f32, f32)| {
        let (claimed, product) = (f64::from(claimed), f64::from(found) * factor);
        // A subnormal element has fewer digits than the factor is known to.
        (claimed - product).abs() <= product.abs() * 2e-7 + f64::from(f32::MIN_POSITIVE)
    };
    let known = factor.is_finite() && factor != 1.0;
    (known && pairs.clone().all(is_product)).then_some(factor as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use raven_graph::{GraphBuilder, Limits, Shape};

    fn lie(claimed: &[f32], found: &[f32]) -> Difference {
        let mut builder = GraphBuilder::new(&Limits::default());
        let x = builder.input("x", DType::F32, [2]).expect("an input");
        let y = builder.add(x, x).expect("a sum");
        builder.output("y", y);
        let graph = builder.finish().expect("a graph");
        let bytes = |x: &[f32]| x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let (claimed, found) = (bytes(claimed), bytes(found));
        let shape = Shape(vec![(found.len() / 4) as u32]);
        let view = |data| TensorView { name: "y", dtype: DType::F32, shape: &shape, data };
        difference(&graph, y, &view(&claimed), &view(&found), 1)
    }

    #[test]
    fn the_first_wrong_element_is_named() {
        let found = lie(&[1.0, 2.5, 9.0], &[1.0, 2.0, 3.0]);
        assert_eq!((found.element, found.elements_wrong, found.elements), (1, 2, 3));
        assert_eq!(
            (found.claimed, found.found),
            (Element::F32(Bits::of(2.5)), Element::F32(Bits::of(2.0)))
        );
        assert_eq!((found.node, found.op.as_str(), &found.manner), (1, "binary", &Manner::Other));
        let text = found.to_string();
        assert!(text.contains("node 1 (binary)") && text.contains("0x40200000"), "{text}");
    }

    #[test]
    fn common_lies_have_names() {
        let right = [0.1f32, -2.0, 3e-5, 0.0];
        let times = |factor: f32| right.map(|x| x * factor);
        assert_eq!(lie(&[0.0; 4], &right).manner, Manner::Zeros);
        assert_eq!(lie(&times(-1.0), &right).manner, Manner::SignFlipped);
        match lie(&times(1.1), &right).manner {
            Manner::Scaled { factor } => {
                assert!((f32::from_bits(factor.0) - 1.1).abs() < 1e-6, "{factor}");
            }
            other => panic!("{other:?}"),
        }
        let mut nearly = times(1.1);
        nearly[0] += 1e-4;
        assert_eq!(lie(&nearly, &right).manner, Manner::Other);
        // Zeros of the other sign are other bits, and nothing but zeros.
        assert_eq!(lie(&[-0.0; 4], &[0.0; 4]).manner, Manner::Zeros);
        assert_eq!(lie(&[1.0; 4], &[0.0; 4]).manner, Manner::Other);
        assert_eq!(lie(&[f32::NAN; 4], &right).manner, Manner::Other);
    }
}
