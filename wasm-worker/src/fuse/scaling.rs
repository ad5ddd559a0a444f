//! A scaling and the sum that alone reads it as one instruction, which spares a tile: steps of
//! gradient descent and moving averages are made of these. Both round as before.

use super::program::{Action, Instruction, Read, ScaledFn};
use raven_graph::BinaryFn;

/// A product of a tile and one number: the instruction that computes it, and what of.
type Scaling = (usize, Read, Read);

/// Joins scalings and sums in code whose tiles are written once.
pub fn join(code: &mut Vec<Instruction>, tiles: usize) {
    let mut reads = vec![0; tiles];
    for instruction in code.iter_mut() {
        instruction.for_each_read(|read| {
            if let Read::Tile(tile) = *read {
                reads[tile] += 1;
            }
        });
    }
    let mut at = 0;
    while at < code.len() {
        match joined(code, &reads, at) {
            // What comes next is where this one was.
            Some((instruction, made)) => {
                code[at] = instruction;
                code.remove(made);
            }
            None => at += 1,
        }
    }
}

/// The instruction that replaces the one at `at` and the one at a place before it.
fn joined(code: &[Instruction], reads: &[u32], at: usize) -> Option<(Instruction, usize)> {
    let Instruction::Number(to, Action::Binary(function, a, b)) = code[at] else { return None };
    let difference = match function {
        BinaryFn::Add => false,
        BinaryFn::Sub => true,
        _ => return None,
    };
    let (function, other, (made, x, factor)) = match scaling(code, reads, b) {
        Some(scaling) if difference => (ScaledFn::Less, a, scaling),
        Some(scaling) => (ScaledFn::More, a, scaling),
        None if difference => (ScaledFn::From, b, scaling(code, reads, a)?),
        None => (ScaledFn::More, b, scaling(code, reads, a)?),
    };
    Some((Instruction::Number(to, Action::Scaled(function, other, x, factor)), made))
}

/// The scaling that yields what is read, where nobody else reads it.
fn scaling(code: &[Instruction], reads: &[u32], read: Read) -> Option<Scaling> {
    let Read::Tile(tile) = read else { return None };
    let yields = |made: &Instruction| matches!(made, Instruction::Number(to, _) if *to == tile);
    let made = code.iter().position(yields)?;
    let Instruction::Number(_, Action::Binary(BinaryFn::Mul, a, b)) = code[made] else {
        return None;
    };
    let (x, factor) = if b.is_one() { (a, b) } else { (b, a) };
    (factor.is_one() && reads[tile] == 1).then_some((made, x, factor))
}
