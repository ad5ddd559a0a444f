//! Where the tiles of a program lie.

use super::program::{Instruction, Read};

/// Gives each tile of a program a place that no living tile has.
pub struct Allocator {
    code: Vec<Instruction>,
    /// Per tile: the last instruction that reads it. What stays loaded never dies.
    last: [Vec<usize>; 2],
    /// Per tile, its place.
    places: [Vec<usize>; 2],
    free: [Vec<usize>; 2],
    count: [usize; 2],
}

/// Index of what an allocator knows of tiles of numbers and of masks.
const NUMBERS: usize = 0;
const MASKS: usize = 1;

impl Allocator {
    /// For code whose tiles are each written once, tile 0 before it begins where `has_home`.
    pub fn new(mut code: Vec<Instruction>, numbers: usize, masks: usize, has_home: bool) -> Self {
        let mut last = [vec![0; numbers], vec![0; masks]];
        for (at, instruction) in code.iter_mut().enumerate() {
            instruction.for_each_read(|read| {
                if let Read::Tile(tile) = read {
                    last[NUMBERS][*tile] = at;
                }
            });
            if let Some(mask) = instruction.mask() {
                last[MASKS][*mask] = at;
            }
        }
        for instruction in &mut code {
            if instruction.stays() {
                let (kind, tile) = instruction.target();
                last[kind][tile] = usize::MAX;
            }
        }
        let places = [vec![0; numbers], vec![0; masks]];
        let free = [if has_home { vec![] } else { vec![0] }, vec![]];
        Allocator { code, last, places, free, count: [1, 0] }
    }

    /// The code with the places of its tiles, and how many of both kinds there are. The last
    /// instruction writes place 0.
    pub fn run(mut self) -> (Vec<Instruction>, usize, usize) {
        let mut code = std::mem::take(&mut self.code);
        let end = code.len() - 1;
        for (at, instruction) in code.iter_mut().enumerate() {
            instruction.for_each_read(|read| {
                if let Read::Tile(tile) = read {
                    *tile = self.release(NUMBERS, *tile, at);
                }
            });
            if let Some(mask) = instruction.mask() {
                *mask = self.release(MASKS, *mask, at);
            }
            let (kind, tile) = instruction.target();
            // What is still in the result's place by now is read by this instruction.
            let place = if at == end { 0 } else { self.place(kind, instruction.stays()) };
            self.places[kind][tile] = place;
            instruction.move_to(place);
        }
        (code, self.count[NUMBERS], self.count[MASKS])
    }

    /// The place of a tile that instruction `at` reads; after its last read it is free.
    fn release(&mut self, kind: usize, tile: usize, at: usize) -> usize {
        let place = self.places[kind][tile];
        if self.last[kind][tile] == at && !self.free[kind].contains(&place) {
            self.free[kind].push(place);
        }
        place
    }

    /// A place for a tile. What stays has one of its own: earlier instructions run again for the
    /// next tile, and would write over it.
    fn place(&mut self, kind: usize, stays: bool) -> usize {
        let reused = if stays { None } else { self.free[kind].pop() };
        reused.unwrap_or_else(|| {
            self.count[kind] += 1;
            self.count[kind] - 1
        })
    }
}

impl Instruction {
    /// The kind and number of the tile that is written.
    fn target(&self) -> (usize, usize) {
        match self {
            Instruction::Number(tile, _) => (NUMBERS, *tile),
            Instruction::Mask(tile, _) => (MASKS, *tile),
        }
    }

    fn move_to(&mut self, place: usize) {
        match self {
            Instruction::Number(tile, _) | Instruction::Mask(tile, _) => *tile = place,
        }
    }

    /// Whether what it loads stays for the next tile.
    fn stays(&mut self) -> bool {
        self.load().is_some_and(|load| load.period.is_some())
    }
}
