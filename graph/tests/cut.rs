//! Cuts give what the uncut graph gives, and no contributor sees more of a
//! weight than its share.

mod support;

use raven_graph::cut::{
    Combine, Cut, HeldSlice, Part, PartInput, Pushed, Stage, ValueRef, cut_layers, cut_master,
};
use raven_graph::model::{DataSpec, Target, lower};
use raven_graph::{
    CutError, DType, GraphBuilder, Limits, LoweredModel, NodeId, TensorType, ValidGraph,
};
use std::collections::BTreeMap;
use support::{Bindings, Draw, Tensor, difference, run, samples};

fn model(layers: &str, shape: &[u32], classes: u32) -> LoweredModel {
    let json = format!(r#"{{"layers": {layers}, "loss": "cross_entropy"}}"#);
    let spec = serde_json::from_str(&json).expect("a model");
    let features = TensorType::new(DType::U8, shape);
    let target = Target::Classes { count: classes };
    let data = DataSpec { features, scale: 1.0 / 255.0, target };
    lower(&spec, &data, 4, &Limits::default()).expect("lowered")
}

fn mlp() -> LoweredModel {
    let layers = r#"[{"type": "flatten"},
        {"type": "dense", "units": 9, "activation": "relu"},
        {"type": "dropout", "rate": 0.25},
        {"type": "dense", "units": 7, "activation": "tanh"},
        {"type": "dense", "units": 3}]"#;
    model(layers, &[3, 4], 3)
}

fn cnn() -> LoweredModel {
    let layers = r#"[
        {"type": "conv2d", "filters": 4, "kernel": 3, "padding": "same", "activation": "relu"},
        {"type": "max_pool2d", "size": 2},
        {"type": "conv2d", "filters": 6, "kernel": 2, "activation": "relu"},
        {"type": "flatten"},
        {"type": "dense", "units": 5, "activation": "relu"},
        {"type": "dense", "units": 3}]"#;
    model(layers, &[6, 8], 3)
}

fn names(model: &LoweredModel) -> Vec<String> {
    model.params.iter().map(|param| param.name.clone()).collect()
}

fn bound(model: &LoweredModel) -> Bindings {
    let mut bindings = samples::bindings(&model.train, 3);
    bindings.extend(run(&model.init, &Bindings::new(), Draw { seed: 5, micro_batch: 0 }));
    let Tensor { dims, .. } = &bindings["x"];
    let pixels = Tensor { dtype: DType::U8, ..samples::labels(8, dims, 256) };
    bindings.insert("x".into(), pixels);
    bindings
}

const DRAW: Draw = Draw { seed: 21, micro_batch: 4 };

fn read(environment: &Bindings, value: &ValueRef) -> Tensor {
    let whole = &environment[&value.name];
    match value.slice {
        None => whole.clone(),
        Some(s) => whole.slice_axis(s.axis as usize, s.start as usize, s.end as usize),
    }
}

fn run_piece(graph: &ValidGraph, inputs: &[PartInput], environment: &Bindings) -> Bindings {
    let bind = |input: &PartInput| (input.name.clone(), read(environment, &input.value));
    run(graph, &inputs.iter().map(bind).collect(), DRAW)
}

fn run_pushed(pushed: &Pushed, environment: &Bindings) -> Tensor {
    let result = |part: &Part| {
        let outputs = run_piece(&part.graph, &part.inputs, environment);
        assert_eq!(outputs.len(), 1);
        outputs[&part.output].clone()
    };
    let parts = pushed.parts.iter().enumerate();
    let parts = parts.map(|(index, part)| (format!("part.{index}"), result(part))).collect();
    let combined = run(&pushed.combine_graph().expect("a graph"), &parts, DRAW);
    combined[&pushed.value].clone()
}

fn run_cut(cut: &Cut, inputs: &Bindings) -> Bindings {
    let mut environment = inputs.clone();
    for stage in &cut.stages {
        match stage {
            Stage::Local(piece) => {
                let outputs = run_piece(&piece.graph, &piece.inputs, &environment);
                environment.extend(outputs);
            }
            // Entries of one stage see the environment as it was before it.
            Stage::Pushed(entries) => {
                let values: Vec<(String, Tensor)> = entries
                    .iter()
                    .map(|entry| (entry.value.clone(), run_pushed(entry, &environment)))
                    .collect();
                environment.extend(values);
            }
        }
    }
    let output = cut.outputs.iter();
    output.map(|o| (o.name.clone(), environment[&o.value].clone())).collect()
}

fn assert_same(whole: &Bindings, cut: &Bindings) {
    assert_eq!(whole.keys().collect::<Vec<_>>(), cut.keys().collect::<Vec<_>>());
    for (name, expected) in whole {
        let error = difference(expected, &cut[name]);
        assert!(error < 1e-12, "{name}: {error}");
    }
}

fn parts(cut: &Cut) -> impl Iterator<Item = (usize, &Part)> {
    let entries = cut.stages.iter().flat_map(|stage| match stage {
        Stage::Pushed(entries) => entries.as_slice(),
        Stage::Local(_) => &[],
    });
    entries.flat_map(|entry| entry.parts.iter().enumerate())
}

#[test]
fn the_master_cut_equals_the_whole() {
    for model in [mlp(), cnn()] {
        let bindings = bound(&model);
        for graph in [&model.train, &model.evaluate, &model.predict] {
            let whole = run(graph, &bindings, DRAW);
            for count in [1, 2, 3, 8] {
                let cut = cut_master(graph, &names(&model), count).expect("a cut");
                assert_same(&whole, &run_cut(&cut, &bindings));
            }
        }
    }
}

#[test]
fn the_layer_cut_equals_the_whole() {
    for model in [mlp(), cnn()] {
        let bindings = bound(&model);
        let whole = run(&model.predict, &bindings, DRAW);
        let cut = cut_layers(&model.predict, &model.boundaries).expect("a cut");
        assert_eq!(cut.stages.len(), model.boundaries.len() - dropouts(&model));
        assert_same(&whole, &run_cut(&cut, &bindings));
        // Any ascending list of nodes is a cut, of any graph.
        let nodes = model.train.graph().nodes.len() as u32;
        let everywhere: Vec<NodeId> = (0..nodes).step_by(3).map(NodeId).collect();
        let cut = cut_layers(&model.train, &everywhere).expect("a cut");
        assert_same(&run(&model.train, &bindings, DRAW), &run_cut(&cut, &bindings));
    }
}

/// Layers that add no node to the predict graph.
fn dropouts(model: &LoweredModel) -> usize {
    model.boundaries.windows(2).filter(|pair| pair[0] == pair[1]).count()
}

#[test]
fn all_heavy_work_is_pushed() {
    let model = cnn();
    let cut = cut_master(&model.train, &names(&model), 2).expect("a cut");
    let heavy = |graph: &ValidGraph| {
        let ops = graph.graph().nodes.iter().map(|node| node.op.name());
        ops.filter(|name| *name == "matmul" || name.starts_with("conv2d")).count()
    };
    let local = cut.stages.iter().map(|stage| match stage {
        Stage::Local(piece) => heavy(&piece.graph),
        Stage::Pushed(_) => 0,
    });
    assert_eq!(local.sum::<usize>(), 0);
    let pushed: usize = parts(&cut).map(|(_, part)| heavy(&part.graph)).sum();
    assert_eq!(pushed, 2 * heavy(&model.train));
    let flops: u64 = parts(&cut).map(|(_, part)| part.graph.cost().flops).sum();
    assert!(flops as f64 > 0.85 * model.train.cost().flops as f64);
    // Four layers forward; backward, weights and inputs of a layer together.
    let entries = cut.stages.iter().filter_map(|stage| match stage {
        Stage::Pushed(entries) => Some(entries.len()),
        Stage::Local(_) => None,
    });
    assert_eq!(entries.collect::<Vec<_>>(), [1, 1, 1, 1, 2, 2, 2, 1]);
}

#[test]
fn a_part_index_holds_one_share_of_every_weight() {
    for model in [mlp(), cnn()] {
        for count in [1u32, 2, 3, 4] {
            let cut = cut_master(&model.train, &names(&model), count).expect("a cut");
            let mut held: BTreeMap<(usize, &str), &HeldSlice> = BTreeMap::new();
            for (index, part) in parts(&cut) {
                // A weight is never bound whole unless there is one part.
                for input in &part.inputs {
                    let is_param = model.params.iter().any(|p| p.name == input.value.name);
                    let slice = part.held.as_ref().map(|held| held.param.as_str());
                    assert_eq!(
                        is_param.then_some(input.value.name.as_str()),
                        slice.filter(|_| is_param)
                    );
                }
                let Some(slice) = &part.held else { continue };
                let before = held.insert((index, &slice.param), slice);
                assert!(before.is_none_or(|before| before == slice), "{before:?} {slice:?}");
            }
            for param in model.params.iter().filter(|param| param.shape.rank() > 1) {
                let share = |index: usize| {
                    let slice = held.get(&(index, param.name.as_str()));
                    slice.map_or(0, |s| {
                        assert!(
                            (s.end - s.start)
                                <= param.shape.dims()[s.axis as usize].div_ceil(count)
                        );
                        let rest = param.shape.elements().expect("small")
                            / u64::from(param.shape.dims()[s.axis as usize]);
                        rest * u64::from(s.end - s.start)
                    })
                };
                let total: u64 = (0..count as usize).map(share).sum();
                assert_eq!(Some(total), param.shape.elements(), "{} in {count}", param.name);
            }
        }
    }
}

#[test]
fn sums_are_added_by_a_fixed_tree() {
    let model = mlp();
    let cut = cut_master(&model.train, &names(&model), 5).expect("a cut");
    let again = cut_master(&model.train, &names(&model), 5).expect("a cut");
    assert_eq!(cut, again);
    let sum = cut
        .stages
        .iter()
        .filter_map(|stage| match stage {
            Stage::Pushed(entries) => entries.iter().find(|e| e.combine == Combine::Sum),
            Stage::Local(_) => None,
        })
        .find(|entry| entry.parts.len() == 5)
        .expect("an input gradient in five parts");
    let graph = sum.combine_graph().expect("a graph");
    let operands: Vec<Vec<u32>> = graph.graph().nodes[5..]
        .iter()
        .map(|node| node.inputs.iter().map(|operand| operand.0).collect())
        .collect();
    // (0 + 1), (2 + 3), then those two, then 4.
    assert_eq!(operands, [vec![0, 1], vec![2, 3], vec![5, 6], vec![7, 4]]);
}

#[test]
fn values_made_of_weights_alone_stay_local() {
    let mut b = GraphBuilder::new(&Limits::default());
    let build = |b: &mut GraphBuilder| -> Result<(), raven_graph::GraphError> {
        let x = b.input("x", DType::F32, [2, 4])?;
        let weight = b.input("w", DType::F32, [4, 4])?;
        let doubled = b.scale(weight, 2.0)?;
        let y = b.matmul(x, doubled, false, false)?;
        let z = b.matmul(y, weight, false, false)?;
        b.output("z", z);
        Ok(())
    };
    build(&mut b).expect("a graph");
    let graph = b.finish().expect("a graph");
    let cut = cut_master(&graph, &["w".into()], 2).expect("a cut");
    assert_eq!(parts(&cut).count(), 2, "only the product with the weight itself is pushed");
    let bindings = samples::bindings(&graph, 1);
    assert_same(&run(&graph, &bindings, DRAW), &run_cut(&cut, &bindings));
}

#[test]
fn refusals() {
    let model = mlp();
    assert_eq!(cut_master(&model.train, &names(&model), 0), Err(CutError::NoParts));
    let unknown = cut_master(&model.train, &["9.weight".into()], 2);
    assert_eq!(unknown, Err(CutError::UnknownParam { name: "9.weight".into() }));
    let outside = cut_layers(&model.train, &[NodeId(100_000)]);
    assert_eq!(outside, Err(CutError::Boundary { node: 100_000 }));
    let unordered = cut_layers(&model.train, &[NodeId(3), NodeId(1)]);
    assert_eq!(unordered, Err(CutError::Boundary { node: 1 }));
    let mut b = GraphBuilder::new(&Limits::default());
    let node = b.input("%3", DType::F32, [1]).expect("an input");
    b.output("y", node);
    let graph = b.finish().expect("a graph");
    assert!(matches!(cut_master(&graph, &[], 2), Err(CutError::ReservedName { .. })));
}
