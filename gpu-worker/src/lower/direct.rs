//! The body of a product for devices whose invocations are a CPU's lanes.

use super::gemm::{Extents, Shape};
use crate::shader::fill;
use std::fmt::Write as _;

const DIRECT: &str = include_str!("../wgsl/direct.wgsl");
/// Invocations of a workgroup: some of a CPU's vectors.
const INVOCATIONS: u32 = 32;
/// Workgroups that keep a CPU's cores busy.
pub const GROUPS_WANTED: u64 = 16;

/// Rows and vectors of columns of one invocation, and what an operation costs
/// with them, measured: products, and convolutions, whose columns are dear to read.
const OWN: [(u32, u32, u64, u64); 7] = [
    (8, 4, 100, 110),
    (16, 2, 120, 100),
    (8, 2, 140, 130),
    (8, 1, 165, 160),
    (4, 4, 135, 190),
    (4, 2, 165, 200),
    (4, 1, 215, 260),
];

/// An invocation's share and how a workgroup's invocations lie side by side.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    rows: u32,
    quads: u32,
    wide: u32,
}

impl Share {
    /// The share with the least padded work, spread over enough workgroups.
    pub fn choose(extents: &Extents, is_conv: bool) -> Share {
        let mut best = (u64::MAX, Share { rows: 4, quads: 1, wide: 4 });
        for (rows, quads, product, conv) in OWN {
            for wide in [32, 16, 8, 4] {
                let share = Share { rows, quads, wide };
                let weight = if is_conv { conv } else { product };
                let cost = extents.cost(&share.shape(), weight);
                if cost < best.0 {
                    best = (cost, share);
                }
            }
        }
        best.1
    }

    /// Extents of a workgroup's tile.
    pub fn shape(&self) -> Shape {
        Shape {
            rows: self.rows * (INVOCATIONS / self.wide),
            columns: self.quads * self.wide * 4,
            depth: 4,
            invocations: INVOCATIONS,
            groups_wanted: GROUPS_WANTED,
        }
    }

    /// The shader's body.
    pub fn body(&self) -> String {
        let Share { rows, quads, wide } = *self;
        let (mut accumulators, mut products, mut names) =
            (String::new(), String::new(), Vec::new());
        for block in 0..rows / 4 {
            let at = block * 4;
            let _ = writeln!(products, "        let a{block} = load_a(batch, row + {at}u, k);");
        }
        for quad in 0..quads {
            let at = quad * wide * 4;
            let _ = writeln!(products, "        let b{quad} = load_b(batch, column + {at}u, k);");
        }
        for row in 0..rows {
            for quad in 0..quads {
                names.push(format!("c{row}_{quad}"));
                let _ = writeln!(accumulators, "    var c{row}_{quad} = vec4<f32>();");
                for k in 0..4 {
                    let (block, component) = (row / 4, ["x", "y", "z", "w"][row as usize % 4]);
                    let _ = writeln!(
                        products,
                        "        c{row}_{quad} += a{block}[{k}].{component} * b{quad}[{k}];"
                    );
                }
            }
        }
        let shape = self.shape();
        fill(
            DIRECT,
            &[
                ("BM", shape.rows.to_string()),
                ("BN", shape.columns.to_string()),
                ("WIDE", wide.to_string()),
                ("OWN_ROWS", rows.to_string()),
                ("QUADS", quads.to_string()),
                ("QUAD_STEP", (wide * 4).to_string()),
                ("ACCUMULATORS", accumulators),
                ("PRODUCTS", products),
                ("SUMS", (rows * quads).to_string()),
                ("SUM_NAMES", names.join(", ")),
            ],
        )
    }
}
