//! Random graphs give the same bits with and without fusion, within the memory that was planned.

use super::{Group, groups};
use crate::ops::RunContext;
use crate::plan::{Plan, Run};
use crate::tensor::{Tensor, dims_of};
use raven_graph::philox::{key, philox4x32};
use raven_graph::{
    BinaryFn, CompareFn, Conv2dAttrs, DType, GraphBuilder, Limits, NodeId, ReduceFn, Shape,
    TensorType, UnaryFn, ValidGraph,
};

/// Numbers drawn one after the other.
struct Dice {
    seed: u64,
    drawn: u32,
}

impl Dice {
    fn word(&mut self) -> u32 {
        self.drawn += 1;
        philox4x32([self.drawn, 0, 0, 0], key(self.seed))[0]
    }

    fn below(&mut self, bound: usize) -> usize {
        self.word() as usize % bound
    }

    fn choose<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Mostly ordinary numbers, and those that only careful code treats right.
    fn number(&mut self) -> f32 {
        const ODD: [f32; 8] =
            [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-42, 3.3e38, -2.0];
        match self.below(12) {
            0 => self.choose(&ODD),
            _ => (self.word() as f32 / 65_536.0 - 32_768.0) / 8192.0,
        }
    }

    fn tensor(&mut self, ty: &TensorType) -> Tensor {
        let dims = dims_of(&ty.shape);
        let count = dims.iter().product();
        match ty.dtype {
            DType::F32 => Tensor::new::<f32>(&dims, (0..count).map(|_| self.number()).collect()),
            DType::I32 => {
                Tensor::new::<i32>(&dims, (0..count).map(|_| self.word() as i32).collect())
            }
            DType::U8 => Tensor::new::<u8>(&dims, (0..count).map(|_| self.word() as u8).collect()),
            DType::Bool => {
                Tensor::new::<bool>(&dims, (0..count).map(|_| self.word() > 1 << 31).collect())
            }
        }
    }
}

const UNARY: [UnaryFn; 11] = [
    UnaryFn::Neg,
    UnaryFn::Abs,
    UnaryFn::Sign,
    UnaryFn::Exp,
    UnaryFn::Log,
    UnaryFn::Sqrt,
    UnaryFn::Recip,
    UnaryFn::Tanh,
    UnaryFn::Sigmoid,
    UnaryFn::Relu,
    UnaryFn::Floor,
];
const BINARY: [BinaryFn; 7] = [
    BinaryFn::Add,
    BinaryFn::Sub,
    BinaryFn::Mul,
    BinaryFn::Div,
    BinaryFn::Max,
    BinaryFn::Min,
    BinaryFn::Pow,
];
const COMPARE: [CompareFn; 5] =
    [CompareFn::Eq, CompareFn::Lt, CompareFn::Le, CompareFn::Gt, CompareFn::Ge];
const DTYPES: [DType; 4] = [DType::F32, DType::I32, DType::U8, DType::Bool];

/// A graph in the making: all its nodes, to choose operands from.
struct Growing {
    b: GraphBuilder,
    nodes: Vec<NodeId>,
    dice: Dice,
}

impl Growing {
    /// The extents of a value, and some that broadcast to them.
    fn inputs(&mut self, whole: &[u32]) {
        for i in 0..self.dice.below(5) + 3 {
            let mut dims = whole[self.dice.below(3).min(whole.len())..].to_vec();
            for extent in &mut dims {
                *extent = if self.dice.below(4) == 0 { 1 } else { *extent };
            }
            let dims = if i == 0 { whole.to_vec() } else { dims };
            let dtype =
                if self.dice.below(3) == 0 { self.dice.choose(&DTYPES) } else { DType::F32 };
            let dtype = if i == 0 { DType::F32 } else { dtype };
            self.nodes.push(self.b.input(format!("{i}"), dtype, Shape(dims)).expect("an input"));
        }
    }

    /// A recent node more often than an old one, so that chains come about.
    fn operand(&mut self) -> NodeId {
        let recent = self.nodes.len().min(4);
        match self.dice.below(3) {
            0 => self.dice.choose(&self.nodes),
            _ => self.nodes[self.nodes.len() - 1 - self.dice.below(recent)],
        }
    }

    /// A node of a random op; most choices of operands are refused, which leaves all as it was.
    fn node(&mut self, whole: &[u32]) {
        let (x, y, z) = (self.operand(), self.operand(), self.operand());
        let b = &mut self.b;
        let made = match self.dice.below(13) {
            0 | 1 => b.unary(self.dice.choose(&UNARY), x),
            2..=4 => b.binary(self.dice.choose(&BINARY), x, y),
            5 => b.scale(x, 0.75),
            6 => b.compare(self.dice.choose(&COMPARE), x, y),
            7 => b.select(x, y, z),
            8 => b.cast(x, self.dice.choose(&DTYPES)),
            9 => b.broadcast(x, &Shape(whole.to_vec())),
            10 => {
                let dims = b.shape(x).dims().to_vec();
                let count: u32 = dims.iter().product();
                let other = [vec![count], [&[1], &dims[..]].concat(), whole.to_vec()];
                b.reshape(x, Shape(other[self.dice.below(3)].clone()))
            }
            11 => b.constant(DType::F32, Shape(whole.to_vec()), 1.5),
            _ => b.matmul(x, y, self.dice.below(2) == 0, self.dice.below(2) == 0),
        };
        self.nodes.extend(made.ok());
    }
}

/// A graph of random ops over values of about these extents.
fn random_graph(seed: u64, whole: &[u32]) -> ValidGraph {
    let dice = Dice { seed, drawn: 0 };
    let mut growing = Growing { b: GraphBuilder::new(&Limits::default()), nodes: vec![], dice };
    growing.inputs(whole);
    let mut tries = 0;
    while growing.nodes.len() < 24 && tries < 400 {
        growing.node(whole);
        tries += 1;
    }
    let Growing { mut b, nodes, mut dice } = growing;
    b.output("last", nodes[nodes.len() - 1]);
    for i in 0..dice.below(3) {
        b.output(format!("{i}"), nodes[dice.below(nodes.len())]);
    }
    b.finish().expect("a valid graph")
}

fn run(plan: &Plan, inputs: Vec<Tensor>) -> Vec<Vec<u8>> {
    let mut run = Run::new(plan, inputs, RunContext { seed: 1, run: 0 });
    let mut flops = 0;
    while let Some(done) = run.step(plan) {
        flops += done;
    }
    assert_eq!(flops, plan.flops(), "all operations are counted");
    run.take_outputs(plan).iter().map(Tensor::to_le_bytes).collect()
}

/// Runs a graph one node at a time and fused, with inputs that may be written over and with ones
/// that may not. Returns the groups.
fn check(graph: &ValidGraph, seed: u64) -> Vec<Group> {
    let (plan, reference) = (Plan::new(graph.clone()), Plan::unfused(graph.clone()));
    assert_eq!(plan.flops(), graph.cost().flops, "seed {seed}");
    let mut dice = Dice { seed, drawn: 1 << 16 };
    let inputs: Vec<Tensor> = graph.inputs().iter().map(|input| dice.tensor(&input.ty)).collect();
    let expected = run(&reference, inputs.clone());
    assert!(run(&plan, inputs.clone()) == expected, "seed {seed}: other bits");
    let own = inputs
        .iter()
        .zip(graph.inputs())
        .map(|(tensor, input)| Tensor::from_le_bytes(&input.ty, &tensor.to_le_bytes()));
    assert!(run(&plan, own.collect()) == expected, "seed {seed}: other bits in place");
    groups(graph)
}

#[test]
fn random_graphs_give_the_same_bits_fused() {
    let shapes: [&[u32]; 6] =
        [&[3, 5, 7], &[40, 256], &[6, 6], &[2, 16, 9, 9], &[70, 70], &[5_001]];
    let seeds = std::env::var("RAVEN_FUSE_SEEDS").unwrap_or_else(|_| "1000".into());
    let seeds: u64 = seeds.parse().expect("RAVEN_FUSE_SEEDS is a number");
    let (mut members, mut products) = (0, 0);
    for seed in 0..seeds {
        let shape = shapes[seed as usize % shapes.len()];
        let groups = check(&random_graph(seed, shape), seed);
        members += groups.iter().map(|group| group.members.len()).sum::<usize>();
        products += groups.iter().filter(|group| group.product.is_some()).count();
    }
    let enough = seeds < 1000 || (members > 2000 && products > 40);
    assert!(enough, "{members} nodes fused, {products} products");
}

/// A dense layer, its gradient's mask and the update of its weights.
fn layer(m: u32, k: u32, n: u32) -> ValidGraph {
    let mut b = GraphBuilder::new(&Limits::default());
    let input = |b: &mut GraphBuilder, name: &str, dims: &[u32]| {
        b.input(name, DType::F32, dims).expect("an input")
    };
    let (x, w) = (input(&mut b, "x", &[m, k]), input(&mut b, "w", &[k, n]));
    let (bias, dy) = (input(&mut b, "b", &[n]), input(&mut b, "dy", &[m, n]));
    let build = |b: &mut GraphBuilder| {
        let y = b.matmul(x, w, false, false)?;
        let y = b.add(y, bias)?;
        let y = b.unary(UnaryFn::Relu, y)?;
        let zero = b.scalar(0.0)?;
        let positive = b.compare(CompareFn::Gt, y, zero)?;
        let dy = b.select(positive, dy, zero)?;
        let dw = b.matmul(x, dy, true, false)?;
        let step = b.scale(dw, 0.01)?;
        let next = b.sub(w, step)?;
        let db = b.reduce(ReduceFn::Sum, dy, &[0], false)?;
        b.output("y", y);
        b.output("next.w", next);
        b.output("db", db);
        Ok::<(), raven_graph::GraphError>(())
    };
    build(&mut b).expect("a layer");
    b.finish().expect("a valid graph")
}

#[test]
fn products_are_followed_block_by_block() {
    // Blocks of rows, of columns and of the inner axis, whole and not.
    let shapes = [[1, 3, 5], [64, 784, 10], [130, 40, 520], [20, 140, 1030], [600, 7, 33]];
    for (seed, [m, k, n]) in shapes.into_iter().enumerate() {
        let groups = check(&layer(m, k, n), seed as u64);
        let products = groups.iter().filter(|group| group.product.is_some()).count();
        assert_eq!((products, groups.len()), (2, 3), "{m} x {k} x {n}: {groups:?}");
    }
}

#[test]
fn convolutions_are_followed_image_by_image() {
    for (seed, stride) in [[1, 1], [2, 3], [9, 9]].into_iter().enumerate() {
        let mut b = GraphBuilder::new(&Limits::default());
        let x = b.input("x", DType::F32, [3, 4, 12, 12]).expect("an input");
        let w = b.input("w", DType::F32, [6, 2, 3, 3]).expect("an input");
        let bias = b.input("b", DType::F32, [6]).expect("an input");
        let attrs = Conv2dAttrs { stride, padding: [1; 4], dilation: [1; 2], groups: 2 };
        let y = b.conv2d(x, w, attrs).expect("a convolution");
        let bias = b.reshape(bias, [6, 1, 1]).expect("a reshape");
        let y = b.add(y, bias).expect("a sum");
        let y = b.unary(UnaryFn::Sigmoid, y).expect("a sigmoid");
        b.output("y", y);
        let groups = check(&b.finish().expect("a valid graph"), seed as u64);
        assert!(groups.len() == 1 && groups[0].product.is_some(), "{groups:?}");
    }
}

#[test]
fn what_is_read_elsewhere_or_given_out_stays() {
    let mut b = GraphBuilder::new(&Limits::default());
    let x = b.input("x", DType::F32, [8, 8]).expect("an input");
    let twice = b.scale(x, 2.0).expect("a product");
    let kept = b.unary(UnaryFn::Neg, twice).expect("a number");
    let sum = b.add(kept, x).expect("a sum");
    let most = b.reduce(ReduceFn::Max, sum, &[0], false).expect("a maximum");
    let last = b.sub(sum, most).expect("a difference");
    b.output("kept", kept);
    b.output("last", last);
    let found = groups(&b.finish().expect("a valid graph"));
    let members: Vec<Vec<NodeId>> = found.into_iter().map(|group| group.members).collect();
    let [scale, factor] = [NodeId(1), twice];
    assert_eq!(members, [vec![scale, factor, kept]]);
}

#[test]
fn a_cast_to_what_it_is_keeps_nothing_around_it_from_fusing() {
    let mut b = GraphBuilder::new(&Limits::default());
    let x = b.input("x", DType::F32, [8, 8]).expect("an input");
    let same = b.cast(x, DType::F32).expect("a cast");
    let twice = b.scale(same, 2.0).expect("a product");
    let y = b.unary(UnaryFn::Neg, twice).expect("a number");
    b.output("y", y);
    assert_eq!(check(&b.finish().expect("a valid graph"), 3).len(), 1);
}
