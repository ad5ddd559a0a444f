//! Optimizer steps against plain arithmetic, and a training that converges.

mod support;

use raven_graph::model::{DataSpec, ParamSpec, Target, lower};
use raven_graph::{
    AdamSpec, DType, GraphError, Limits, OptimizerSpec, SgdSpec, Shape, TensorType, step_graph,
};
use support::{Bindings, Draw, Tensor, run, samples};

const LR: f64 = 0.1;
const COUNT: f64 = 4.0;

fn params() -> Vec<ParamSpec> {
    let param =
        |name: &str, dims: &[u32]| ParamSpec { name: name.into(), shape: Shape::from(dims) };
    vec![param("0.weight", &[2, 3]), param("0.bias", &[3])]
}

/// Runs `steps` steps with gradients that depend on the step; returns all
/// outputs of the last and the gradient sums of each.
fn train(spec: &OptimizerSpec, steps: u32) -> (Bindings, Vec<Bindings>) {
    let step = step_graph(&params(), spec, &Limits::default()).expect("a step");
    let mut state = Bindings::new();
    for slot in &step.slots {
        let dims = support::dims(&slot.shape);
        state.insert(slot.name.clone(), Tensor::f(&dims, vec![0.0; dims.iter().product()]));
    }
    state.insert("0.weight".into(), samples::distinct(1, &[2, 3]));
    state.insert("0.bias".into(), samples::distinct(2, &[3]));
    let mut gradients = Vec::new();
    for index in 1..=steps {
        let gradient = support::bind([
            ("grad.0.weight", samples::distinct(10 + u64::from(index), &[2, 3])),
            ("grad.0.bias", samples::distinct(20 + u64::from(index), &[3])),
        ]);
        let scalar = |v: f64| Tensor::f(&[], vec![v]);
        state.extend(gradient.clone());
        state.insert("count".into(), scalar(COUNT));
        state.insert("lr".into(), scalar(LR));
        state.insert("step".into(), scalar(f64::from(index)));
        state.extend(run(&step.graph, &state, Draw::default()));
        gradients.push(gradient);
    }
    (state, gradients)
}

/// Plain arithmetic for one element of one parameter.
fn by_hand(
    name: &str,
    element: usize,
    gradients: &[Bindings],
    mut rule: impl FnMut(f64, f64, i32) -> f64,
) -> f64 {
    let seed = if name == "0.weight" { 1 } else { 2 };
    let dims: &[usize] = if name == "0.weight" { &[2, 3] } else { &[3] };
    let mut weight = samples::distinct(seed, dims).floats()[element];
    for (index, sums) in gradients.iter().enumerate() {
        let gradient = sums[&format!("grad.{name}")].floats()[element] / COUNT;
        weight = rule(weight, gradient, index as i32 + 1);
    }
    weight
}

fn compare(spec: &OptimizerSpec, rule: impl Fn() -> Box<dyn FnMut(f64, f64, i32) -> f64>) {
    let (state, gradients) = train(spec, 3);
    for (name, elements) in [("0.weight", 6), ("0.bias", 3)] {
        for element in 0..elements {
            let expected = by_hand(name, element, &gradients, rule());
            let found = state[name].floats()[element];
            // The constants of the spec are f32.
            assert!(
                (found - expected).abs() < 1e-6,
                "{spec:?} {name}[{element}]: {found} {expected}"
            );
        }
    }
}

#[test]
fn sgd() {
    compare(&OptimizerSpec::sgd(0.0), || Box::new(|w, g, _| w - LR * g));
    compare(&OptimizerSpec::sgd(0.9), || {
        let mut m = 0.0;
        Box::new(move |w, g, _| {
            m = 0.9 * m + g;
            w - LR * m
        })
    });
    let nesterov = SgdSpec { momentum: 0.9, nesterov: true, weight_decay: 0.01, clip_norm: None };
    compare(&OptimizerSpec::Sgd(nesterov), || {
        let mut m = 0.0;
        Box::new(move |w, g, _| {
            let g = g + 0.01 * w;
            m = 0.9 * m + g;
            w - LR * (g + 0.9 * m)
        })
    });
}

fn adam_rule(l2: f64, decoupled: f64) -> Box<dyn FnMut(f64, f64, i32) -> f64> {
    let (mut m, mut v) = (0.0, 0.0);
    Box::new(move |w, g, step| {
        let g = g + l2 * w;
        m = 0.9 * m + 0.1 * g;
        v = 0.999 * v + 0.001 * g * g;
        let m_hat = m / (1.0 - 0.9f64.powi(step));
        let v_hat = v / (1.0 - 0.999f64.powi(step));
        w - LR * decoupled * w - LR * m_hat / (v_hat.sqrt() + 1e-8)
    })
}

#[test]
fn adam_and_adamw() {
    compare(&OptimizerSpec::adam(), || adam_rule(0.0, 0.0));
    let decayed = AdamSpec { weight_decay: 0.037, ..AdamSpec::default() };
    compare(&OptimizerSpec::Adam(decayed), || adam_rule(0.037, 0.0));
    compare(&OptimizerSpec::AdamW(decayed), || adam_rule(0.0, 0.037));
}

#[test]
fn clipping_scales_the_whole_gradient() {
    let clip = |norm| OptimizerSpec::Sgd(SgdSpec { clip_norm: Some(norm), ..SgdSpec::default() });
    let (state, gradients) = train(&clip(0.125), 1);
    let squares = |name: &str| {
        gradients[0][name].floats().iter().map(|g| (g / COUNT) * (g / COUNT)).sum::<f64>()
    };
    let norm = (squares("grad.0.weight") + squares("grad.0.bias")).sqrt();
    assert!((state["grad_norm"].floats()[0] - norm).abs() < 1e-12);
    assert!(norm > 0.125, "{norm}");
    let moved: f64 = [("0.weight", 1, vec![2, 3]), ("0.bias", 2, vec![3])]
        .iter()
        .flat_map(|(name, seed, dims)| {
            let before = samples::distinct(*seed, dims);
            let after = state[*name].floats().to_vec();
            before
                .floats()
                .iter()
                .zip(after)
                .map(|(b, a)| ((b - a) / LR).powi(2))
                .collect::<Vec<_>>()
        })
        .sum();
    assert!((moved.sqrt() - 0.125).abs() < 1e-9);
    // A norm below the limit is left alone, bit for bit.
    let unclipped = train(&OptimizerSpec::sgd(0.0), 1).0["0.weight"].clone();
    assert_eq!(train(&clip(100.0), 1).0["0.weight"], unclipped);
}

#[test]
fn numbers_outside_their_domain_are_refused() {
    let sgd = |momentum, weight_decay, clip_norm| {
        OptimizerSpec::Sgd(SgdSpec { momentum, weight_decay, clip_norm, nesterov: false })
    };
    let adam = |beta1, beta2, epsilon| {
        OptimizerSpec::Adam(AdamSpec { beta1, beta2, epsilon, ..AdamSpec::default() })
    };
    for (spec, expected) in [
        (sgd(1.0, 0.0, None), "optimizer.momentum"),
        (sgd(f32::NAN, 0.0, None), "optimizer.momentum"),
        (sgd(0.9, -1.0, None), "optimizer.weight_decay"),
        (sgd(0.9, 0.0, Some(0.0)), "optimizer.clip_norm"),
        (adam(1.0, 0.9, 1e-8), "optimizer.beta1"),
        (adam(0.9, -0.1, 1e-8), "optimizer.beta2"),
        (adam(0.9, 0.9, 0.0), "optimizer.epsilon"),
    ] {
        let refused = step_graph(&params(), &spec, &Limits::default());
        assert!(
            matches!(refused, Err(GraphError::Parameter { field, .. }) if field == expected),
            "{spec:?}: {refused:?}"
        );
    }
}

#[test]
fn json_has_defaults_and_is_strict() {
    let parse = |text| serde_json::from_str::<OptimizerSpec>(text);
    assert_eq!(parse(r#"{"kind": "adam"}"#).ok(), Some(OptimizerSpec::adam()));
    assert_eq!(parse(r#"{"kind": "sgd", "momentum": 0.5}"#).ok(), Some(OptimizerSpec::sgd(0.5)));
    let adamw = parse(r#"{"kind": "adamw", "weight_decay": 0.01, "clip_norm": 1}"#);
    assert_eq!(adamw.ok().and_then(|spec| spec.clip_norm()), Some(1.0));
    assert!(parse(r#"{"kind": "adam", "momentum": 0.5}"#).is_err());
    assert!(parse(r#"{"kind": "lion"}"#).is_err());
}

#[test]
fn a_small_network_learns_a_separable_task() {
    let model = serde_json::from_str(
        r#"{"layers": [{"type": "dense", "units": 8, "activation": "tanh"},
            {"type": "dense", "units": 2}], "loss": "cross_entropy"}"#,
    )
    .expect("a model");
    let features = TensorType::new(DType::F32, [2]);
    let data = DataSpec { features, scale: 1.0, target: Target::Classes { count: 2 } };
    let model = lower(&model, &data, 32, &Limits::default()).expect("lowered");
    let x = samples::distinct(9, &[32, 2]);
    // Inside or outside a ring: not linearly separable.
    let inside = |at: &[f64]| i64::from(at[0] * at[0] + at[1] * at[1] < 0.5);
    let y = Tensor::i(&[32], x.floats().chunks(2).map(inside).collect());
    let step = step_graph(&model.params, &OptimizerSpec::adam(), &Limits::default()).expect("step");
    let mut state = run(&model.init, &Bindings::new(), Draw { seed: 3, micro_batch: 0 });
    for slot in &step.slots {
        let dims = support::dims(&slot.shape);
        state.insert(slot.name.clone(), Tensor::f(&dims, vec![0.0; dims.iter().product()]));
    }
    state.extend(support::bind([("x", x), ("y", y), ("w", Tensor::f(&[32], vec![1.0; 32]))]));
    state.insert("lr".into(), Tensor::f(&[], vec![0.05]));
    for index in 1..=150 {
        state.insert("step".into(), Tensor::f(&[], vec![f64::from(index)]));
        state.extend(run(&model.train, &state, Draw { seed: 1, micro_batch: index }));
        state.extend(run(&step.graph, &state, Draw::default()));
    }
    assert_eq!(state["correct"].floats(), [32.0]);
}
