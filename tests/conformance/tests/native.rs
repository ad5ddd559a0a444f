//! The suite on the kernels as a native library: within tolerance of NumPy.
//! Bits may differ from the module's: a native build uses what the CPU has.

use raven_conformance::{suite::Suite, verdict};
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
