//! What a plan may hold, and what one invocation may take on.

use raven_gpu::{Plan, Target, Unsupported};
use raven_graph::{
    Conv2dAttrs, DType, GraphBuilder, Limits, NodeId, Op, Pool2dAttrs, ReduceFn, ValidGraph,
};
use std::rc::Rc;

/// The plan of a graph whose one output `build` makes, on a device of either kind.
fn planned(lanes: bool, build: impl Fn(&mut GraphBuilder) -> NodeId) -> Result<Plan, Unsupported> {
    let mut b = GraphBuilder::new(&Limits::default());
    let y = build(&mut b);
    b.output("y", y);
    let graph: ValidGraph = b.finish().expect("a graph");
    Plan::new(graph, Target { binding_bytes_max: 128 << 20, lanes })
}

fn f32s(b: &mut GraphBuilder, name: &str, dims: &[u32]) -> NodeId {
    b.input(name, DType::F32, dims).expect("valid")
}

#[test]
fn the_operands_of_joins_share_one_shader() {
    let join = |b: &mut GraphBuilder, count: usize| {
        let x = f32s(b, "x", &[1]);
        b.concat(&vec![x; count], 0).expect("valid")
    };
    let plan = planned(false, |b| join(b, 4096)).expect("supported");
    let launches = plan.launches();
    assert_eq!(launches.len(), 4096);
    assert!(launches.iter().all(|launch| Rc::ptr_eq(&launch.source, &launches[0].source)));
    assert!(plan.held_bytes() < 2 << 20, "{} bytes", plan.held_bytes());
    let many = planned(false, |b| {
        let parts: Vec<NodeId> = (0..9)
            .map(|at| {
                let x = f32s(b, &format!("x{at}"), &[1]);
                b.concat(&vec![x; 4096], 0).expect("valid")
            })
            .collect();
        b.concat(&parts, 0).expect("valid")
    });
    assert!(matches!(many, Err(Unsupported::Size { field: "launches", found: 36_873, .. })));
}

type Build = fn(&mut GraphBuilder) -> NodeId;

fn pool(b: &mut GraphBuilder, extent: u32, kernel: u32) -> NodeId {
    let attrs = Pool2dAttrs { kernel: [kernel; 2], stride: [1; 2], padding: [0; 4] };
    let x = f32s(b, "x", &[1, 1, extent, extent]);
    b.avg_pool2d(x, attrs).expect("valid")
}

fn pool_grad(b: &mut GraphBuilder, kernel: u32) -> NodeId {
    let attrs = Pool2dAttrs { kernel: [kernel; 2], stride: [1; 2], padding: [0; 4] };
    let x = f32s(b, "x", &[1, 1, 64, 64]);
    let dy = f32s(b, "dy", &[1, 1, 65 - kernel, 65 - kernel]);
    b.push(Op::MaxPool2dGrad(attrs), &[x, dy]).expect("valid")
}

fn scatter(b: &mut GraphBuilder, indices: u32) -> NodeId {
    let updates = f32s(b, "x", &[indices, 4]);
    let index = b.input("i", DType::I32, [indices]).expect("valid");
    b.scatter_add(updates, index, 0, 10).expect("valid")
}

fn conv(b: &mut GraphBuilder, kernel: u32) -> NodeId {
    let attrs = Conv2dAttrs { stride: [1, 1], padding: [0; 4], dilation: [1, 1], groups: 1 };
    let x = f32s(b, "x", &[1, 1, 256, 256]);
    let w = f32s(b, "w", &[1, 1, kernel, kernel]);
    b.conv2d(x, w, attrs).expect("valid")
}

#[test]
fn one_invocation_never_takes_on_more_than_a_dispatch_may() {
    let too_long: [(&str, Build); 6] = [
        ("arg_max", |b| {
            let x = f32s(b, "x", &[1 << 24]);
            b.arg_max(x, 0).expect("valid")
        }),
        ("softmax", |b| {
            let x = f32s(b, "x", &[1, 1 << 24]);
            b.softmax(x, 1).expect("valid")
        }),
        ("avg_pool2d", |b| pool(b, 1024, 1024)),
        ("max_pool2d_grad", |b| pool_grad(b, 32)),
        ("scatter_add", |b| scatter(b, 1 << 20)),
        ("conv2d", |b| conv(b, 200)),
    ];
    for lanes in [false, true] {
        for (name, build) in too_long {
            match planned(lanes, build) {
                Err(Unsupported::Steps { op, found, limit, .. }) => {
                    assert!(op == name && found > limit, "{op}: {found}");
                }
                other => panic!("{name}: {:?}", other.map(|plan| plan.launches().len())),
            }
        }
    }
}

#[test]
fn long_sums_and_usual_extents_are_supported() {
    let fine: [(&str, Build); 10] = [
        ("arg_max", |b| {
            let x = f32s(b, "x", &[8, 128_256]);
            b.arg_max(x, 1).expect("valid")
        }),
        ("softmax", |b| {
            let x = f32s(b, "x", &[8, 128_256]);
            b.softmax(x, 1).expect("valid")
        }),
        ("avg_pool2d", |b| pool(b, 224, 224)),
        ("max_pool2d_grad", |b| pool_grad(b, 16)),
        ("scatter_add", |b| scatter(b, 64 * 1024)),
        ("conv2d", |b| conv(b, 100)),
        ("sum", |b| {
            let x = f32s(b, "x", &[1 << 25]);
            b.reduce(ReduceFn::Sum, x, &[0], false).expect("valid")
        }),
        ("long product", |b| {
            let (x, y) = (f32s(b, "x", &[1, 1 << 25]), f32s(b, "y", &[1 << 25, 1]));
            b.matmul(x, y, false, false).expect("valid")
        }),
        // The weight's gradient of a first layer: eight hundred thousand pixels.
        ("conv2d_weight_grad", |b| {
            let (stride, padding) = ([2, 2], [3, 3, 3, 3]);
            let attrs = Conv2dAttrs { stride, padding, dilation: [1, 1], groups: 1 };
            let x = f32s(b, "x", &[32, 3, 224, 224]);
            let dy = f32s(b, "dy", &[32, 64, 112, 112]);
            b.push(Op::Conv2dWeightGrad { attrs, kernel: [7, 7] }, &[x, dy]).expect("valid")
        }),
        // That of a wide layer: its own size leaves room for few parts.
        ("wide conv2d_weight_grad", |b| {
            let (stride, padding) = ([1, 1], [1; 4]);
            let attrs = Conv2dAttrs { stride, padding, dilation: [1, 1], groups: 1 };
            let x = f32s(b, "x", &[64, 640, 28, 28]);
            let dy = f32s(b, "dy", &[64, 512, 28, 28]);
            b.push(Op::Conv2dWeightGrad { attrs, kernel: [3, 3] }, &[x, dy]).expect("valid")
        }),
    ];
    for lanes in [false, true] {
        for (name, build) in fine {
            let plan = planned(lanes, build);
            assert!(plan.is_ok(), "{name}: {:?}", plan.err());
        }
    }
}

#[test]
fn looking_through_indices_is_weighed_with_its_barriers() {
    let plan = planned(false, |b| scatter(b, 6400)).expect("supported");
    // Ten rows of one block each, looked through by 64 lanes.
    assert!(plan.launches()[0].flops >= 10 * 6400 * 16, "{}", plan.launches()[0].flops);
}
