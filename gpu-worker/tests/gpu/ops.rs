//! Every op on the device against the CPU kernels.

use crate::cases;
use crate::common::*;

const BUDGET: u64 = 512 << 20;

#[test]
fn every_op_agrees_with_the_cpu_within_its_bounds() {
    // The shaders of software adapters, then those of hardware.
    for lanes in [true, false] {
        all_cases(lanes);
    }
}

fn all_cases(lanes: bool) {
    let Some(mut gpu) = gpu(BUDGET) else { return };
    gpu.gpu_mut().set_lanes(lanes);
    let mut failed = Vec::new();
    let only = std::env::var("RAVEN_GPU_CASES").unwrap_or_default();
    let mut cases = cases::all();
    cases.retain(|(name, ..)| name.contains(&only));
    let count = cases.len();
    for (name, graph, inputs, bounds) in cases {
        let start = std::time::Instant::now();
        let mut cpu = cpu(BUDGET);
        let frame = graph_frame(&graph);
        cpu.accept(&frame).expect("the CPU takes the graph");
        gpu.accept(&frame).unwrap_or_else(|error| panic!("{name}: {error}"));
        let task = whole_task(1, &graph, &inputs);
        let expected = result(&cpu.execute(&task).expect("a task"));
        let found = gpu.execute(&task).expect("a task");
        let outcome = std::panic::catch_unwind(|| {
            expect_close(&name, &expected, &result(&found), bounds);
        });
        println!("{name}: {} ms", start.elapsed().as_millis());
        if outcome.is_err() {
            failed.push(name);
        }
    }
    println!("{count} cases on {}", gpu.gpu().name());
    assert!(failed.is_empty(), "{} of {count}: {failed:#?}", failed.len());
}
