//! The suite on the kernels as a native library: within tolerance of NumPy.
//! Bits may differ from the module's: a native build uses what the CPU has.

use raven_conformance::reseed::reseeded;
use raven_conformance::{suite::Suite, training, verdict};
use raven_graph::DType;
use raven_protocol::{Frame, FrameLimits, FromContributor};
use raven_worker::Kernel;
use std::path::Path;

fn suite() -> Suite {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/conformance");
    Suite::read(&dir).expect("scripts/lib/conformance.sh writes the suite before it runs this test")
}

#[test]
#[ignore = "needs the suite: run scripts/lib/conformance.sh"]
fn native_kernels_agree_with_numpy() {
    let suite = suite();
    let mut wrong = Vec::new();
    for case in &suite.cases {
        let mut kernel = Kernel::new(1 << 30);
        for &frame in &case.setup {
            let answer = kernel.accept(suite.span(frame)).expect("graphs and shards are valid");
            assert!(answer.is_none(), "{}", case.name);
        }
        let result = kernel.execute(suite.span(case.task)).expect("the frame is a task");
        if let Err(reason) = verdict::check(&suite, case, &result) {
            wrong.push(format!("{}: {reason}", case.name));
        }
    }
    println!("native: {} cases", suite.cases.len());
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        suite.cases.len(),
        wrong.join("\n")
    );
}

/// Bits that are all NaN, or that do not depend on the operands, would be equal anywhere.
#[test]
fn training_steps_are_finite_and_follow_their_operands() {
    let tasks = training::all().expect("the models are lowered");
    assert_eq!(tasks.len(), 9, "three models, three tasks each");
    for training::Training { name, setup, task, draws } in tasks {
        let mut kernel = Kernel::new(1 << 28);
        for frame in &setup {
            kernel.accept(frame).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let mut results: Vec<Vec<Vec<u8>>> = Vec::new();
        for seed in 1..=3 {
            let result = kernel.execute(&reseeded(&task, seed, Some(&draws))).expect("a task");
            let frame = Frame::decode(&result, &FrameLimits::TO_COORDINATOR).expect("a frame");
            let message = FromContributor::from_header(frame.header()).expect("a message");
            assert!(matches!(message, FromContributor::Result { .. }), "{name}: {message:?}");
            for tensor in frame.tensors() {
                assert_eq!(tensor.dtype, DType::F32, "{name}");
                let values = tensor.data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
                let (finite, nonzero) =
                    values.fold((true, false), |(f, n), x| (f && x.is_finite(), n || x != 0.0));
                // Only a regression counts no hits.
                assert!(finite && (nonzero || tensor.name == "correct"), "{name} {}", tensor.name);
            }
            results.push(frame.tensors().map(|tensor| tensor.data.to_vec()).collect());
        }
        for (at, first) in results[0].iter().enumerate().filter(|(_, first)| first.len() > 4) {
            assert!(*first != results[1][at] && *first != results[2][at], "{name}: output {at}");
        }
    }
}
