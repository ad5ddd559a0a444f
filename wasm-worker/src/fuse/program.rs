//! What a group computes, as instructions over tiles.

use crate::ops::loops::Loops;
use raven_graph::{BinaryFn, CompareFn, UnaryFn};

/// Elements of a tile at most: 8 KiB, so that a few of them stay in a first-level cache while
/// each instruction has work for longer than it takes to be looked up.
pub const TILE: usize = 2048;

/// Tiles that a program may hold at once beside its result's.
pub const TILES_MAX: usize = 8;

/// Where an instruction finds numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Read {
    /// A tile of numbers. Tile 0 is that of the result.
    Tile(usize),
    /// An operand's elements at the same places.
    Same(usize),
    /// An operand's only element.
    Single(usize),
    /// A number that the graph states.
    Number(f32),
}

impl Read {
    /// Whether it is one number for all places.
    pub fn is_one(self) -> bool {
        matches!(self, Read::Single(_) | Read::Number(_))
    }
}

/// A sum or difference with a product.
#[derive(Clone, Copy, Debug)]
pub enum ScaledFn {
    /// `a + x factor`
    More,
    /// `a - x factor`
    Less,
    /// `x factor - a`
    From,
}

/// What is done to a whole tile.
#[derive(Clone, Debug)]
pub enum Action {
    /// Takes elements of an operand, as numbers.
    Load(Load),
    Unary(UnaryFn, Read),
    Binary(BinaryFn, Read, Read),
    /// Of `a`, `x` and the factor, which is one number.
    Scaled(ScaledFn, Read, Read, Read),
    /// The first where a mask is true, else the second.
    Select(usize, Read, Read),
    /// 1 where a mask is true, else 0.
    FromMask(usize),
}

/// What yields a tile of truth values.
#[derive(Clone, Debug)]
pub enum MaskAction {
    /// Takes elements of an operand.
    Load(Load),
    Compare(CompareFn, Read, Read),
    NotZero(Read),
}

/// Elements of an operand in the order of the result.
#[derive(Clone, Debug)]
pub struct Load {
    pub operand: usize,
    pub loops: Box<Loops<1>>,
    /// After as many elements they repeat, and tiles begin where they do: what was loaded stays.
    pub period: Option<usize>,
}

/// One instruction and the tile that it writes. That tile may be one that it reads, place by
/// place.
#[derive(Clone, Debug)]
pub enum Instruction {
    Number(usize, Action),
    Mask(usize, MaskAction),
}

impl Instruction {
    /// Calls `visit` with each place of numbers that is read.
    pub fn for_each_read(&mut self, mut visit: impl FnMut(&mut Read)) {
        match self {
            Instruction::Number(_, Action::Unary(_, x))
            | Instruction::Mask(_, MaskAction::NotZero(x)) => visit(x),
            Instruction::Number(_, Action::Binary(_, a, b) | Action::Select(_, a, b))
            | Instruction::Mask(_, MaskAction::Compare(_, a, b)) => {
                visit(a);
                visit(b);
            }
            Instruction::Number(_, Action::Scaled(_, a, x, factor)) => {
                visit(a);
                visit(x);
                visit(factor);
            }
            Instruction::Number(_, Action::Load(_) | Action::FromMask(_))
            | Instruction::Mask(_, MaskAction::Load(_)) => {}
        }
    }

    /// The mask that is read.
    pub fn mask(&mut self) -> Option<&mut usize> {
        match self {
            Instruction::Number(_, Action::Select(mask, ..) | Action::FromMask(mask)) => Some(mask),
            Instruction::Number(..) | Instruction::Mask(..) => None,
        }
    }

    /// What is loaded.
    pub fn load(&mut self) -> Option<&mut Load> {
        match self {
            Instruction::Number(_, Action::Load(load))
            | Instruction::Mask(_, MaskAction::Load(load)) => Some(load),
            Instruction::Number(..) | Instruction::Mask(..) => None,
        }
    }
}

/// Instructions whose last one writes the result's tile.
#[derive(Clone, Debug)]
pub struct Program {
    pub code: Vec<Instruction>,
    /// Tiles of numbers, the result's among them.
    pub numbers: usize,
    /// Tiles of truth values.
    pub masks: usize,
    /// Elements that are computed at once.
    pub tile: usize,
}

impl Program {
    /// Bytes of the tiles that are not the result's.
    pub fn scratch_bytes(&self) -> u64 {
        (4 * self.tile * (self.numbers - 1 + self.masks)) as u64
    }
}
