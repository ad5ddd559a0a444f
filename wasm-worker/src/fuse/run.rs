//! Runs a program tile by tile.

use super::program::{Action, Instruction, Load, MaskAction, Program, Read, ScaledFn, TILES_MAX};
use crate::buffer::{Buffer, Pooled};
use crate::ops::elementwise::{maximum, minimum, relu, sigmoid, sign};
use crate::tensor::Tensor;
use raven_graph::{BinaryFn, CompareFn, DType, UnaryFn};

/// A program at work: its operands, and its tiles beside the result's.
#[derive(Debug)]
pub struct Tiles<'a> {
    program: &'a Program,
    operands: &'a [Tensor],
    /// The first one stands for the result's and is not there, nor is the one that is written.
    numbers: [Option<Buffer<f32>>; TILES_MAX + 1],
    /// All bits of an element are set where it is true.
    masks: [Option<Buffer<i32>>; TILES_MAX],
    /// Per tile of numbers and of masks, how many elements are loaded there that repeat. Such a
    /// tile is written by one instruction alone.
    loaded: [[usize; TILES_MAX + 1]; 2],
}

const HAS_TILES: &str = "a program reads and writes tiles that it has";

/// What is in a tile that is not being written.
fn there<T: Pooled>(tile: &Option<Buffer<T>>) -> &Buffer<T> {
    tile.as_ref().expect(HAS_TILES)
}

/// What an instruction reads of one operand.
enum Numbers<'a> {
    /// The tile that is written.
    Itself,
    Slice(&'a [f32]),
    One(f32),
}

use Numbers::{Itself, One, Slice};

/// What an instruction may read.
struct Sources<'a> {
    tiles: &'a Tiles<'a>,
    /// The result's tile, where it is not the one that is written.
    out: &'a [f32],
    /// Elements of the operand after the last tensor.
    passing: &'a [f32],
    /// Number of the tile that is written, where it is one of numbers.
    target: Option<usize>,
    /// The tile's place in the result.
    at: usize,
    len: usize,
}

impl<'a> Sources<'a> {
    fn read(&self, read: Read) -> Numbers<'a> {
        match read {
            Read::Tile(tile) if self.target == Some(tile) => Itself,
            Read::Tile(0) => Slice(&self.out[..self.len]),
            Read::Tile(tile) => Slice(&there(&self.tiles.numbers[tile])[..self.len]),
            Read::Same(operand) if operand == self.tiles.operands.len() => Slice(self.passing),
            Read::Same(operand) => {
                Slice(&self.tiles.operands[operand].elements()[self.at..self.at + self.len])
            }
            Read::Single(operand) => One(self.tiles.operands[operand].elements()[0]),
            Read::Number(number) => One(number),
        }
    }

    fn mask(&self, mask: usize) -> &'a [i32] {
        &there(&self.tiles.masks[mask])[..self.len]
    }

    fn load(&self, load: &Load, to: &mut [f32]) {
        let operand = &self.tiles.operands[load.operand];
        let (loops, at) = (&load.loops, self.at);
        match operand.dtype() {
            DType::F32 => loops.read_part(operand.elements(), at, to, |x: f32| x),
            DType::I32 => loops.read_part(operand.elements(), at, to, |x: i32| x as f32),
            DType::U8 => loops.read_part(operand.elements(), at, to, |x: u8| f32::from(x)),
            DType::Bool => {
                loops.read_part(operand.elements(), at, to, |x: bool| f32::from(u8::from(x)));
            }
        }
    }

    fn compute(&self, action: &Action, to: &mut [f32]) {
        match action {
            Action::Load(load) => self.load(load, to),
            Action::Unary(function, x) => unary(*function, to, self.read(*x)),
            Action::Binary(function, a, b) => binary(*function, to, self.read(*a), self.read(*b)),
            Action::Scaled(function, a, x, factor) => {
                let (a, x, One(factor)) = (self.read(*a), self.read(*x), self.read(*factor)) else {
                    unreachable!("a factor is one number");
                };
                match function {
                    ScaledFn::More => zip(to, a, x, |a, x| a + x * factor),
                    ScaledFn::Less => zip(to, a, x, |a, x| a - x * factor),
                    ScaledFn::From => zip(to, a, x, |a, x| x * factor - a),
                }
            }
            Action::Select(mask, a, b) => {
                select(to, self.mask(*mask), self.read(*a), self.read(*b));
            }
            Action::FromMask(mask) => {
                let mask = self.mask(*mask).iter();
                to.iter_mut().zip(mask).for_each(|(to, &mask)| *to = (mask & 1) as f32);
            }
        }
    }

    fn compare(&self, action: &MaskAction, to: &mut [i32]) {
        match action {
            MaskAction::Load(load) => {
                let operand = self.tiles.operands[load.operand].elements();
                load.loops.read_part(operand, self.at, to, mask_of);
            }
            MaskAction::Compare(function, a, b) => {
                let (a, b) = (self.read(*a), self.read(*b));
                match function {
                    CompareFn::Eq => test(to, a, b, |a, b| a == b),
                    CompareFn::Lt => test(to, a, b, |a, b| a < b),
                    CompareFn::Le => test(to, a, b, |a, b| a <= b),
                    CompareFn::Gt => test(to, a, b, |a, b| a > b),
                    CompareFn::Ge => test(to, a, b, |a, b| a >= b),
                }
            }
            MaskAction::NotZero(x) => test(to, self.read(*x), One(0.0), |x, zero| x != zero),
        }
    }
}

fn mask_of(truth: bool) -> i32 {
    -i32::from(truth)
}

fn map(to: &mut [f32], x: Numbers<'_>, f: impl Fn(f32) -> f32) {
    match x {
        Itself => to.iter_mut().for_each(|to| *to = f(*to)),
        Slice(x) => to.iter_mut().zip(x).for_each(|(to, &x)| *to = f(x)),
        One(x) => to.fill(f(x)),
    }
}

fn zip(to: &mut [f32], a: Numbers<'_>, b: Numbers<'_>, f: impl Fn(f32, f32) -> f32) {
    match (a, b) {
        (Itself, Itself) => to.iter_mut().for_each(|to| *to = f(*to, *to)),
        (Itself, Slice(b)) => to.iter_mut().zip(b).for_each(|(to, &b)| *to = f(*to, b)),
        (Slice(a), Itself) => to.iter_mut().zip(a).for_each(|(to, &a)| *to = f(a, *to)),
        (Itself, One(b)) => to.iter_mut().for_each(|to| *to = f(*to, b)),
        (One(a), Itself) => to.iter_mut().for_each(|to| *to = f(a, *to)),
        (Slice(a), Slice(b)) => {
            let pairs = a.iter().zip(b);
            to.iter_mut().zip(pairs).for_each(|(to, (&a, &b))| *to = f(a, b));
        }
        (Slice(a), One(b)) => to.iter_mut().zip(a).for_each(|(to, &a)| *to = f(a, b)),
        (One(a), Slice(b)) => to.iter_mut().zip(b).for_each(|(to, &b)| *to = f(a, b)),
        (One(a), One(b)) => to.fill(f(a, b)),
    }
}

fn test(to: &mut [i32], a: Numbers<'_>, b: Numbers<'_>, f: impl Fn(f32, f32) -> bool) {
    match (a, b) {
        (Slice(a), Slice(b)) => {
            let pairs = a.iter().zip(b);
            to.iter_mut().zip(pairs).for_each(|(to, (&a, &b))| *to = mask_of(f(a, b)));
        }
        (Slice(a), One(b)) => to.iter_mut().zip(a).for_each(|(to, &a)| *to = mask_of(f(a, b))),
        (One(a), Slice(b)) => to.iter_mut().zip(b).for_each(|(to, &b)| *to = mask_of(f(a, b))),
        (One(a), One(b)) => to.fill(mask_of(f(a, b))),
        (Itself, _) | (_, Itself) => unreachable!("a mask is no number"),
    }
}

fn unary(function: UnaryFn, to: &mut [f32], x: Numbers<'_>) {
    match function {
        UnaryFn::Neg => map(to, x, |x| -x),
        UnaryFn::Abs => map(to, x, f32::abs),
        UnaryFn::Sign => map(to, x, sign),
        UnaryFn::Sqrt => map(to, x, f32::sqrt),
        UnaryFn::Recip => map(to, x, |x| 1.0 / x),
        UnaryFn::Sigmoid => map(to, x, sigmoid),
        UnaryFn::Relu => map(to, x, relu),
        UnaryFn::Floor => map(to, x, f32::floor),
        UnaryFn::Exp | UnaryFn::Log | UnaryFn::Tanh => unreachable!("these are in no group"),
    }
}

fn binary(function: BinaryFn, to: &mut [f32], a: Numbers<'_>, b: Numbers<'_>) {
    match function {
        BinaryFn::Add => zip(to, a, b, |a, b| a + b),
        BinaryFn::Sub => zip(to, a, b, |a, b| a - b),
        BinaryFn::Mul => zip(to, a, b, |a, b| a * b),
        BinaryFn::Div => zip(to, a, b, |a, b| a / b),
        BinaryFn::Max => zip(to, a, b, maximum),
        BinaryFn::Min => zip(to, a, b, minimum),
        BinaryFn::Pow => zip(to, a, b, libm::powf),
    }
}

/// `a` where the mask is set, else `b`, by its bits.
fn select(to: &mut [f32], mask: &[i32], a: Numbers<'_>, b: Numbers<'_>) {
    fn pick(mask: i32, a: f32, b: f32) -> f32 {
        let mask = mask as u32;
        f32::from_bits((a.to_bits() & mask) | (b.to_bits() & !mask))
    }
    fn each(to: &mut [f32], mask: &[i32], f: impl Fn(f32, i32) -> f32) {
        to.iter_mut().zip(mask).for_each(|(to, &mask)| *to = f(*to, mask));
    }
    fn each_with(to: &mut [f32], mask: &[i32], x: &[f32], f: impl Fn(f32, i32, f32) -> f32) {
        let pairs = mask.iter().zip(x);
        to.iter_mut().zip(pairs).for_each(|(to, (&mask, &x))| *to = f(*to, mask, x));
    }
    match (a, b) {
        (Itself, Itself) => {}
        (Itself, One(b)) => each(to, mask, |to, mask| pick(mask, to, b)),
        (One(a), Itself) => each(to, mask, |to, mask| pick(mask, a, to)),
        (One(a), One(b)) => each(to, mask, |_, mask| pick(mask, a, b)),
        (Itself, Slice(b)) => each_with(to, mask, b, |to, mask, b| pick(mask, to, b)),
        (Slice(a), Itself) => each_with(to, mask, a, |to, mask, a| pick(mask, a, to)),
        (Slice(a), One(b)) => each_with(to, mask, a, |_, mask, a| pick(mask, a, b)),
        (One(a), Slice(b)) => each_with(to, mask, b, |_, mask, b| pick(mask, a, b)),
        (Slice(a), Slice(b)) => {
            let values = mask.iter().zip(a.iter().zip(b));
            let places = to.iter_mut().zip(values);
            places.for_each(|(to, (&mask, (&a, &b)))| *to = pick(mask, a, b));
        }
    }
}

impl<'a> Tiles<'a> {
    /// Tiles for `program` over `operands`.
    pub fn new(program: &'a Program, operands: &'a [Tensor], elements: usize) -> Self {
        let tile = program.tile.min(elements);
        Tiles {
            program,
            operands,
            numbers: std::array::from_fn(|at| {
                (1..program.numbers).contains(&at).then(|| Buffer::stale(tile))
            }),
            masks: std::array::from_fn(|at| (at < program.masks).then(|| Buffer::stale(tile))),
            loaded: Default::default(),
        }
    }

    /// Computes the elements of `out`, which begins at place `at` of the result. The operand
    /// after the last tensor is `passing`: those of its elements that are at the same places.
    pub fn run(&mut self, at: usize, out: &mut [f32], passing: &[f32]) {
        let tile = self.program.tile;
        let mut passing = passing.chunks(tile);
        for (index, out) in out.chunks_mut(tile).enumerate() {
            self.tile(at + index * tile, out, passing.next().unwrap_or(&[]));
        }
    }

    fn tile(&mut self, at: usize, out: &mut [f32], passing: &[f32]) {
        let len = out.len();
        let program = self.program;
        for instruction in &program.code {
            if self.is_loaded(instruction, at, len) {
                continue;
            }
            match instruction {
                Instruction::Number(0, action) => {
                    let sources =
                        Sources { tiles: self, out: &[], passing, target: Some(0), at, len };
                    sources.compute(action, out);
                }
                Instruction::Number(tile, action) => {
                    let mut to = self.numbers[*tile].take().expect(HAS_TILES);
                    let sources =
                        Sources { tiles: self, out, passing, target: Some(*tile), at, len };
                    sources.compute(action, &mut to[..len]);
                    self.numbers[*tile] = Some(to);
                }
                Instruction::Mask(tile, action) => {
                    let mut to = self.masks[*tile].take().expect(HAS_TILES);
                    let sources = Sources { tiles: self, out, passing, target: None, at, len };
                    sources.compare(action, &mut to[..len]);
                    self.masks[*tile] = Some(to);
                }
            }
        }
    }

    /// Whether the elements that an instruction loads are there since an earlier tile. If not,
    /// they are from now on.
    fn is_loaded(&mut self, instruction: &Instruction, at: usize, len: usize) -> bool {
        let (load, loaded) = match instruction {
            Instruction::Number(tile, Action::Load(load)) => (load, &mut self.loaded[0][*tile]),
            Instruction::Mask(tile, MaskAction::Load(load)) => (load, &mut self.loaded[1][*tile]),
            Instruction::Number(..) | Instruction::Mask(..) => return false,
        };
        let Some(period) = load.period else { return false };
        let begins = at.is_multiple_of(period);
        if begins && len <= *loaded {
            return true;
        }
        *loaded = if begins { len } else { 0 };
        false
    }
}
