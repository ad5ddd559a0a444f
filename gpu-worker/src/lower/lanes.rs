//! The body of a product for devices whose invocations are lanes.

use super::gemm::{Loader, Tile};
use crate::shader::fill;
use std::fmt::Write as _;

/// Where an operand's tile holds position `o` (an expression) at step `kk`.
fn place(side: &str, extent: u32, tile: Tile, along_k: bool, o: &str) -> String {
    // Rows are read by all lanes at once, so either order does; columns must be neighbours.
    if side == "a" && along_k {
        format!("({o}) * {}u + kk", tile.depth)
    } else {
        format!("kk * {extent}u + {o}")
    }
}

/// One operand's share: what is prepared before the loop, and the loop's loads.
fn loads(tile: Tile, side: &str, along_k: bool) -> (String, String) {
    let (extent, first) = if side == "a" { (tile.rows, "row") } else { (tile.columns, "column") };
    let (count, depth) = (tile.invocations(), tile.depth);
    let (mut before, mut text) = (String::new(), String::new());
    if along_k {
        let at = place(side, extent, tile, along_k, "o");
        let _ = write!(
            text,
            "        {{\n        let kk = lane % {depth}u;\n        let at = locate_{side}(k0 + kk);\n        \
             for (var o = lane / {depth}u; o < {extent}u; o += {}u) {{\n            \
             tile_{side}[{at}] = fetch_{side}(prepare_{side}(batch, {first} + o), at);\n        }}\n        }}\n",
            count / depth
        );
        return (before, text);
    }
    // Each invocation stays with its positions, so what they need is found out once.
    let rows_at_once = (count / extent).max(1);
    let (start, lane) = if extent < count {
        (format!("lane / {extent}u"), format!("lane % {extent}u"))
    } else {
        ("0u".to_owned(), "lane".to_owned())
    };
    let _ =
        writeln!(text, "        for (var kk = {start}; kk < {depth}u; kk += {rows_at_once}u) {{");
    let _ = writeln!(text, "            let at = locate_{side}(k0 + kk);");
    for slot in 0..(extent / count).max(1) {
        let o = format!("{lane} + {}u", slot * count);
        let _ =
            writeln!(before, "    let {side}_from{slot} = prepare_{side}(batch, {first} + {o});");
        let at = place(side, extent, tile, along_k, &o);
        let _ =
            writeln!(text, "            tile_{side}[{at}] = fetch_{side}({side}_from{slot}, at);");
    }
    text.push_str("        }\n");
    (before, text)
}

/// The shader's body; rows of the result lie `row_step` (an expression) apart.
pub fn body(template: &str, tile: Tile, [a, b]: &[Loader; 2], row_step: &str) -> String {
    let Tile { rows, columns, depth, own, .. } = tile;
    let across = columns / own;
    let (before_a, loads_a) = loads(tile, "a", a.along_k);
    let (before_b, loads_b) = loads(tile, "b", b.along_k);
    let (mut accumulators, mut products, mut names) = (String::new(), String::new(), Vec::new());
    for i in 0..own {
        let at = place("a", rows, tile, a.along_k, &format!("ty * {own}u + {i}u"));
        let _ = writeln!(products, "            let a{i} = tile_a[{at}];");
        let _ = writeln!(
            products,
            "            let b{i} = tile_b[kk * {columns}u + tx + {}u];",
            i * across
        );
    }
    for i in 0..own {
        for j in 0..own {
            let _ = writeln!(accumulators, "    var c{i}_{j} = 0.0;");
            let _ = writeln!(products, "            c{i}_{j} += a{i} * b{j};");
            names.push(format!("c{i}_{j}"));
        }
    }
    fill(
        template,
        &[
            ("BM", rows.to_string()),
            ("BN", columns.to_string()),
            ("BK", depth.to_string()),
            ("TX", across.to_string()),
            ("OWN", own.to_string()),
            ("A_WORDS", (rows * depth).to_string()),
            ("B_WORDS", (columns * depth).to_string()),
            ("PREPARED", before_a + &before_b),
            ("ACCUMULATORS", accumulators),
            ("LOADS", loads_a + &loads_b),
            ("PRODUCTS", products),
            ("SUMS", (own * own).to_string()),
            ("SUM_NAMES", names.join(", ")),
            ("ROW_STEP", row_step.to_owned()),
        ],
    )
}
