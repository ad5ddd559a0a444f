//! Models: lowering, what is refused, gradients of whole networks, and an
//! optimizer that learns.

mod support;

use raven_graph::model::{DataSpec, Target, lower};
use raven_graph::{DType, Limits, LoweredModel, ModelError, ModelSpec, Op, Shape, TensorType};
use support::{Bindings, Draw, Tensor, finite, run, samples};

fn spec(json: &str) -> ModelSpec {
    serde_json::from_str(json).expect("a model")
}

fn data(dtype: DType, shape: &[u32], target: Target) -> DataSpec {
    DataSpec { features: TensorType::new(dtype, shape), scale: 1.0, target }
}

const CLASSES: Target = Target::Classes { count: 3 };

fn mlp() -> ModelSpec {
    spec(
        r#"{"layers": [
            {"type": "dense", "units": 6, "activation": "relu"},
            {"type": "dense", "units": 5, "activation": "tanh", "bias": false},
            {"type": "dense", "units": 3}
        ], "loss": "cross_entropy"}"#,
    )
}

fn cnn() -> ModelSpec {
    spec(
        r#"{"layers": [
            {"type": "conv2d", "filters": 2, "kernel": 3, "padding": "same", "activation": "relu"},
            {"type": "max_pool2d", "size": 2},
            {"type": "conv2d", "filters": 3, "kernel": [2, 3], "stride": [1, 2]},
            {"type": "activation", "function": "sigmoid"},
            {"type": "avg_pool2d", "size": 2, "stride": 1},
            {"type": "flatten"},
            {"type": "dropout", "rate": 0.3},
            {"type": "dense", "units": 3}
        ], "loss": "cross_entropy"}"#,
    )
}

fn lowered(model: &ModelSpec, data: &DataSpec, rows: u32) -> LoweredModel {
    lower(model, data, rows, &Limits::default()).expect("a model that fits its data")
}

/// Parameters as the init graph draws them, with samples, labels and weights.
fn bound(model: &LoweredModel, rows: usize) -> Bindings {
    let mut bindings = samples::bindings(&model.train, 3);
    bindings.extend(run(&model.init, &Bindings::new(), Draw { seed: 5, micro_batch: 0 }));
    let mut weights = vec![1.0; rows];
    weights[rows - 1] = 0.0;
    bindings.insert("w".into(), Tensor::f(&[rows], weights));
    bindings
}

#[test]
fn gradients_of_an_mlp() {
    let model = lowered(&mlp(), &data(DType::F32, &[4], CLASSES), 5);
    let names: Vec<&str> = model.params.iter().map(|param| param.name.as_str()).collect();
    assert_eq!(names, ["0.weight", "0.bias", "1.weight", "2.weight", "2.bias"]);
    finite::check(&model.train, &bound(&model, 5), 1);
}

#[test]
fn gradients_of_a_cnn() {
    let model = lowered(&cnn(), &data(DType::F32, &[8, 10], CLASSES), 3);
    let shapes: Vec<&Shape> = model.params.iter().map(|param| &param.shape).collect();
    let expected: [&[u32]; 6] = [&[2, 1, 3, 3], &[2], &[3, 2, 2, 3], &[3], &[6, 3], &[3]];
    assert_eq!(shapes, expected.map(Shape::from).iter().collect::<Vec<_>>());
    finite::check(&model.train, &bound(&model, 3), 1);
}

#[test]
fn gradients_of_a_regression() {
    let mut model = mlp();
    model.loss = raven_graph::model::Loss::Mse;
    let model = lowered(&model, &data(DType::F32, &[4], Target::Values { width: 3 }), 5);
    finite::check(&model.train, &bound(&model, 5), 1);
}

#[test]
fn padding_rows_count_for_nothing() {
    let model = lowered(&mlp(), &data(DType::F32, &[4], CLASSES), 5);
    let bindings = bound(&model, 5);
    let outputs = run(&model.train, &bindings, Draw::default());
    assert_eq!(outputs["count"].floats(), [4.0]);
    let mut other = bindings.clone();
    let x = other["x"].floats().iter().enumerate();
    let x = x.map(|(i, &v)| if i >= 16 { 9.0 } else { v }).collect();
    other.insert("x".into(), Tensor::f(&[5, 4], x));
    let same = run(&model.train, &other, Draw::default());
    assert_eq!(outputs, same);
    assert_eq!(outputs["loss"], run(&model.evaluate, &bindings, Draw::default())["loss"]);
}

#[test]
fn correct_counts_the_largest_logit() {
    let model = lowered(&mlp(), &data(DType::F32, &[4], CLASSES), 5);
    let mut bindings = bound(&model, 5);
    let logits = run(&model.predict, &bindings, Draw::default())["logits"].clone();
    let best: Vec<i64> = logits.floats().chunks(3).map(|row| largest(row) as i64).collect();
    let mut labels = best.clone();
    labels[1] = (labels[1] + 1) % 3;
    bindings.insert("y".into(), Tensor::i(&[5], labels));
    let outputs = run(&model.evaluate, &bindings, Draw::default());
    // Of five rows one is wrong and one is padding.
    assert_eq!(outputs["correct"].floats(), [3.0]);
}

fn largest(row: &[f64]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

#[test]
fn pixels_are_cast_and_scaled_in_the_graph() {
    let pixels = DataSpec { scale: 1.0 / 255.0, ..data(DType::U8, &[2, 2], CLASSES) };
    let model = spec(
        r#"{"layers": [{"type": "flatten"}, {"type": "dense", "units": 3}], "loss": "cross_entropy"}"#,
    );
    let model = lowered(&model, &pixels, 1);
    let mut bindings = bound(&model, 1);
    bindings.insert("0".into(), Tensor::f(&[], vec![0.0]));
    let white = Tensor { dtype: DType::U8, ..Tensor::i(&[1, 2, 2], vec![255; 4]) };
    bindings.insert("x".into(), white);
    let weight = bindings["1.weight"].floats().to_vec();
    let logits = run(&model.predict, &bindings, Draw::default())["logits"].clone();
    for (class, logit) in logits.floats().iter().enumerate() {
        let sum: f64 = (0..4).map(|row| weight[row * 3 + class]).sum();
        assert!((logit - sum).abs() < 1e-6);
    }
}

#[test]
fn initial_weights_follow_their_activation() {
    let model = lowered(&mlp(), &data(DType::F32, &[4], CLASSES), 5);
    let draw = |seed| run(&model.init, &Bindings::new(), Draw { seed, micro_batch: 0 });
    let weights = draw(5);
    let limits = [("0.weight", 6.0 / 4.0), ("1.weight", 6.0 / 11.0), ("2.weight", 6.0 / 8.0)];
    for (name, square) in limits {
        let limit = f64::sqrt(square);
        let values = weights[name].floats();
        assert!(values.iter().all(|v| v.abs() <= limit), "{name}");
        assert!(values.iter().any(|v| v.abs() > limit / 2.0), "{name}");
    }
    assert_eq!(weights["0.bias"].floats(), [0.0; 6]);
    assert_ne!(weights, draw(6));
}

#[test]
fn train_graphs_are_lean() {
    let model = lowered(&cnn(), &data(DType::F32, &[8, 10], CLASSES), 3);
    let nodes = &model.train.graph().nodes;
    let count = |name| nodes.iter().filter(|node| node.op.name() == name).count();
    // One convolution has an input gradient: the first one's input is data.
    assert_eq!(
        [count("conv2d"), count("conv2d_weight_grad"), count("conv2d_input_grad")],
        [2, 2, 1]
    );
    assert_eq!([count("matmul"), count("max_pool2d_grad"), count("random")], [3, 1, 1]);
    assert!(nodes.iter().enumerate().all(|(index, node)| {
        model.train.is_live(raven_graph::NodeId(index as u32))
            || matches!(node.op, Op::Input { .. })
    }));
}

/// Max-pooling right after a convolution is done before bias and rectifier.
#[test]
fn pooling_moves_before_bias_and_rectifier() {
    let build = |layers: &str| {
        let json = format!(
            r#"{{"layers": [{layers}, {{"type": "flatten"}}, {{"type": "dense", "units": 3}}],
                "loss": "cross_entropy"}}"#
        );
        lowered(&spec(&json), &data(DType::F32, &[8, 10], CLASSES), 3)
    };
    let conv = |rest: &str| format!(r#"{{"type": "conv2d", "filters": 2, "kernel": 3{rest}}}"#);
    let pool = r#"{"type": "max_pool2d", "size": 2}"#;
    let early = build(&format!(r#"{}, {pool}"#, conv(r#", "activation": "relu""#)));
    // An activation layer of its own keeps the written order.
    let late = build(&format!(
        r#"{}, {{"type": "activation", "function": "relu"}}, {pool}"#,
        conv(r#", "activation": "tanh""#)
    ));
    let relu_of = |model: &LoweredModel| {
        let nodes = &model.predict.graph().nodes;
        let relu = nodes.iter().position(|node| matches!(node.op, Op::Unary { .. }));
        model.predict.types()[relu.expect("an activation")].shape.elements()
    };
    assert_eq!((relu_of(&early), relu_of(&late)), (Some(3 * 2 * 3 * 4), Some(3 * 2 * 6 * 8)));
    // Equal to the order as written, forward and backward.
    let bindings = bound(&early, 3);
    finite::check(&early.train, &bindings, 1);
    let by_hand = {
        let mut b = raven_graph::GraphBuilder::new(&Limits::default());
        let mut build = || {
            let x = b.input("x", DType::F32, [3, 8, 10])?;
            let x = b.reshape(x, [3, 1, 8, 10])?;
            let weight = b.input("0.weight", DType::F32, [2, 1, 3, 3])?;
            let bias = b.input("0.bias", DType::F32, [2])?;
            let attrs = raven_graph::Conv2dAttrs {
                stride: [1, 1],
                padding: [0; 4],
                dilation: [1, 1],
                groups: 1,
            };
            let y = b.conv2d(x, weight, attrs)?;
            let bias = b.reshape(bias, [2, 1, 1])?;
            let y = b.add(y, bias)?;
            let y = b.unary(raven_graph::UnaryFn::Relu, y)?;
            let (kernel, stride) = ([2, 2], [2, 2]);
            let y =
                b.max_pool2d(y, raven_graph::Pool2dAttrs { kernel, stride, padding: [0; 4] })?;
            let y = b.reshape(y, [3, 24])?;
            let weight = b.input("3.weight", DType::F32, [24, 3])?;
            let bias = b.input("3.bias", DType::F32, [3])?;
            let y = b.matmul(y, weight, false, false)?;
            let y = b.add(y, bias)?;
            b.output("logits", y);
            Ok::<_, raven_graph::GraphError>(())
        };
        build().expect("a graph");
        b.finish().expect("a graph")
    };
    let expected = run(&by_hand, &bindings, Draw::default());
    assert_eq!(expected, run(&early.predict, &bindings, Draw::default()));
}

/// The two networks whose cost is known: 64.5 Mflop and 1.12 Gflop a step of 64
/// images, multiplications and additions alone.
#[test]
fn costs_of_known_networks() {
    let images = DataSpec {
        scale: 1.0 / 255.0,
        ..data(DType::U8, &[28, 28], Target::Classes { count: 10 })
    };
    let mlp = spec(
        r#"{"layers": [{"type": "flatten"},
            {"type": "dense", "units": 256, "activation": "relu"},
            {"type": "dense", "units": 128, "activation": "relu"},
            {"type": "dense", "units": 10}], "loss": "cross_entropy"}"#,
    );
    let cnn = spec(
        r#"{"layers": [
            {"type": "conv2d", "filters": 16, "kernel": 5, "activation": "relu", "padding": "same"},
            {"type": "max_pool2d", "size": 2},
            {"type": "conv2d", "filters": 32, "kernel": 5, "activation": "relu", "padding": "same"},
            {"type": "max_pool2d", "size": 2}, {"type": "flatten"},
            {"type": "dense", "units": 128, "activation": "relu"},
            {"type": "dense", "units": 10}], "loss": "cross_entropy"}"#,
    );
    let flops = |model: &ModelSpec| lowered(model, &images, 64).train.cost().flops as f64 / 1e6;
    let (mlp, cnn) = (flops(&mlp), flops(&cnn));
    println!("mlp {mlp} Mflop, cnn {cnn} Mflop");
    assert!((64.45..66.0).contains(&mlp), "{mlp} Mflop");
    assert!((1120.0..1150.0).contains(&cnn), "{cnn} Mflop");
}

/// One refusal: the model, its data, and a check of the error.
type Refusal = (&'static str, DataSpec, fn(&ModelError) -> bool, &'static str);

#[test]
fn models_that_do_not_fit() {
    let flat = || data(DType::F32, &[4], CLASSES);
    let image = || data(DType::F32, &[4, 4], CLASSES);
    let table: [Refusal; 18] = [
        (r#"[]"#, flat(), |e| matches!(e, ModelError::NoLayers), "layers"),
        (
            r#"[{"type": "dense", "units": 10}]"#,
            flat(),
            |e| matches!(e, ModelError::Target { .. }),
            "layers[0].units",
        ),
        (
            r#"[{"type": "flatten"}, {"type": "dense", "units": 4, "activation": "relu"}, {"type": "dropout", "rate": 0.5}]"#,
            flat(),
            |e| matches!(e, ModelError::Target { .. }),
            "layers[1].units",
        ),
        (
            r#"[{"type": "dense", "units": 3}]"#,
            image(),
            |e| matches!(e, ModelError::SampleShape { .. }),
            "layers[0].units",
        ),
        (
            r#"[{"type": "flatten"}, {"type": "conv2d", "filters": 2, "kernel": 3}]"#,
            image(),
            |e| matches!(e, ModelError::SampleShape { .. }),
            "layers[1].kernel",
        ),
        (
            r#"[{"type": "conv2d", "filters": 2, "kernel": 5}]"#,
            image(),
            |e| matches!(e, ModelError::Layer { .. }),
            "layers[0].kernel",
        ),
        (
            r#"[{"type": "conv2d", "filters": 2, "kernel": 3, "stride": 0}]"#,
            image(),
            |e| matches!(e, ModelError::Field { .. }),
            "layers[0].stride",
        ),
        (
            r#"[{"type": "max_pool2d", "size": 9}]"#,
            image(),
            |e| matches!(e, ModelError::Layer { .. }),
            "layers[0].size",
        ),
        (
            r#"[{"type": "dense", "units": 0}]"#,
            flat(),
            |e| matches!(e, ModelError::Field { .. }),
            "layers[0].units",
        ),
        (
            r#"[{"type": "dropout", "rate": 1.0}, {"type": "dense", "units": 3}]"#,
            flat(),
            |e| matches!(e, ModelError::Field { .. }),
            "layers[0].rate",
        ),
        (
            r#"[{"type": "dense", "units": 3, "activation": "softmax"}]"#,
            flat(),
            |e| matches!(e, ModelError::SoftmaxTwice { .. }),
            "layers[0].activation",
        ),
        (
            r#"[{"type": "dense", "units": 3}]"#,
            data(DType::F32, &[4], Target::Values { width: 3 }),
            |e| matches!(e, ModelError::Loss { .. }),
            "loss",
        ),
        (
            r#"[{"type": "dense", "units": 3}]"#,
            data(DType::I32, &[4], CLASSES),
            |e| matches!(e, ModelError::SampleType { .. }),
            "data.features.dtype",
        ),
        (
            r#"[{"type": "dense", "units": 200000000}, {"type": "dense", "units": 3}]"#,
            flat(),
            |e| matches!(e, ModelError::Layer { .. }),
            "layers[0].units",
        ),
        (
            r#"[{"type": "dense", "units": 4000000000}, {"type": "dense", "units": 3}]"#,
            flat(),
            |e| matches!(e, ModelError::Limit { limit: 268_435_456, found: 4_000_000_000, .. }),
            "layers[0].units",
        ),
        (
            r#"[{"type": "dense", "units": 1000000000000}, {"type": "dense", "units": 3}]"#,
            flat(),
            |e| matches!(e, ModelError::Limit { name: "elements_max", .. }),
            "layers[0].units: 1000000000000, limit elements_max = 268435456",
        ),
        (
            r#"[{"type": "conv2d", "filters": 1000000000000, "kernel": 3}]"#,
            image(),
            |e| matches!(e, ModelError::Limit { name: "elements_max", .. }),
            "layers[0].filters",
        ),
        (
            r#"[{"type": "conv2d", "filters": 2, "kernel": [3, 18446744073709551615]}]"#,
            image(),
            |e| matches!(e, ModelError::Limit { found: u64::MAX, .. }),
            "layers[0].kernel",
        ),
    ];
    for (layers, data, expected, field) in table {
        let model = spec(&format!(r#"{{"layers": {layers}, "loss": "cross_entropy"}}"#));
        let error = lower(&model, &data, 2, &Limits::default()).expect_err(layers);
        assert!(expected(&error), "{layers}: {error:?}");
        assert!(error.to_string().starts_with(field), "{layers}: {error}");
    }
}

#[test]
fn declared_input_shapes_must_hold_the_data() {
    let mut model = cnn();
    model.input_shape = Some(vec![1, 8, 10]);
    let flat = data(DType::F32, &[80], CLASSES);
    lowered(&model, &flat, 2);
    model.input_shape = Some(vec![1, 8, 9]);
    let error = lower(&model, &flat, 2, &Limits::default());
    assert!(matches!(error, Err(ModelError::InputShape { .. })));
    // The right number of elements, and more axes or elements than any tensor may have.
    let refused = |shape: Vec<u64>| {
        let model = ModelSpec { input_shape: Some(shape), ..model.clone() };
        lower(&model, &flat, 2, &Limits::default()).expect_err("refused")
    };
    let limit =
        |name, limit, found| ModelError::Limit { field: "input_shape".into(), name, limit, found };
    let rank = |rank: usize| [vec![1; rank - 1], vec![80]].concat();
    assert_eq!(refused(rank(40)), limit("rank_max - 1", 7, 40));
    assert_eq!(refused(rank(8)), limit("rank_max - 1", 7, 8));
    assert!(matches!(refused(rank(7)), ModelError::SampleShape { .. }), "a convolution takes 3");
    let elements = |found| limit("elements_max", 1 << 28, found);
    assert_eq!(refused(vec![1_000_000, 1_000_000]), elements(1_000_000_000_000));
    assert_eq!(refused(vec![u64::MAX, u64::MAX]), elements(u64::MAX));
    assert_eq!(refused(vec![0, u64::MAX]), elements(u64::MAX));
    assert!(matches!(refused(vec![0, 80]), ModelError::InputShape { .. }));
}

#[test]
fn json_with_unknown_fields_is_refused() {
    for layer in [
        r#"{"type": "dense", "units": 3, "unit": 4}"#,
        r#"{"type": "flatten", "axis": 1}"#,
        r#"{"type": "lambda", "code": "x"}"#,
        r#"{"type": "dense"}"#,
        r#"{"type": "conv2d", "filters": 1, "kernel": [1, 2, 3]}"#,
        r#"{"type": "dense", "units": -1}"#,
    ] {
        let json = format!(r#"{{"layers": [{layer}], "loss": "mse"}}"#);
        assert!(serde_json::from_str::<ModelSpec>(&json).is_err(), "{layer}");
    }
    let text = serde_json::to_string(&cnn()).expect("JSON");
    assert_eq!(spec(&text), cnn());
}
