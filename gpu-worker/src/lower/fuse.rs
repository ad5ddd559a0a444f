//! Element-wise chains and views as one generated shader each.

use super::chain::reading;
use super::role::{elements, owner};
use super::{Arg, Lower, element};
use crate::error::Unsupported;
use crate::shader::{Shader, ValueId, Word, fill, offset, snippet, steps};
use raven_graph::{BinaryFn, CompareFn, DType, Distribution, NodeId, Op, UnaryFn, ValidGraph};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;

const FUNCTIONS: &str = include_str!("../wgsl/elementwise.wgsl");
const PHILOX: &str = include_str!("../wgsl/philox.wgsl");

const LANES: u32 = 256;

/// Generates the shader of one stored expression.
struct Chain<'a> {
    graph: &'a ValidGraph,
    stored: &'a [bool],
    values: &'a [Option<ValueId>],
    shader: Shader,
    lines: String,
    functions: BTreeSet<&'static str>,
    /// Per node, the variable that holds its element.
    known: HashMap<u32, String>,
    /// Bits of the constants that have a variable.
    literals: HashSet<u32>,
    names: u32,
    width: u32,
    flops: u64,
}

/// Launches the chain that ends at `id` and is written to `out`.
///
/// # Errors
/// [`Unsupported::Chain`]: `role::stored` has left it too long.
pub fn launch(
    cx: &mut Lower,
    graph: &ValidGraph,
    stored: &[bool],
    values: &[Option<ValueId>],
    id: NodeId,
    out: ValueId,
) -> Result<(), Unsupported> {
    let words = elements(graph, id);
    for width in [4, 1] {
        if words.is_multiple_of(width)
            && let Some(launch) = chain(graph, stored, values, id, out, width)
        {
            cx.push(launch);
            return Ok(());
        }
    }
    let op = graph.graph().nodes[id.index()].op.name();
    Err(Unsupported::Chain { node: id.0, op })
}

fn vector(element: &'static str, width: u32) -> &'static str {
    match (element, width) {
        (element, 1) => element,
        ("f32", _) => "vec4<f32>",
        ("i32", _) => "vec4<i32>",
        _ => "vec4<u32>",
    }
}

fn chain(
    graph: &ValidGraph,
    stored: &[bool],
    values: &[Option<ValueId>],
    id: NodeId,
    out: ValueId,
    width: u32,
) -> Option<crate::shader::Launch> {
    let dtype = graph.ty(id).dtype;
    let shader = Shader::new("elementwise", LANES, out, vector(element(dtype), width));
    let mut chain = Chain {
        graph,
        stored,
        values,
        shader,
        lines: String::new(),
        functions: BTreeSet::new(),
        known: HashMap::new(),
        literals: HashSet::new(),
        names: 0,
        width,
        flops: 0,
    };
    let count = elements(graph, id) / width;
    chain.shader.field("count", count);
    let result = chain.compute(id)?;
    let result = if dtype == DType::Bool {
        format!("select({0}(0u), {0}(1u), {result})", vector("u32", width))
    } else {
        result
    };
    let entry = if width == 4 { "entry4" } else { "entry1" };
    let body = format!("{}{}    out[i] = {result};\n}}\n", snippet(FUNCTIONS, entry), chain.lines);
    let Chain { mut shader, functions, flops, .. } = chain;
    let kinds = [
        ("F", vector("f32", width)),
        ("U", vector("u32", width)),
        ("I", vector("i32", width)),
        ("B", if width == 4 { "vec4<bool>" } else { "bool" }),
    ];
    let kinds: Vec<(&str, String)> = kinds.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
    for function in functions {
        let text = if function == "philox" { PHILOX } else { snippet(FUNCTIONS, function) };
        shader.code(&fill(text, &kinds));
    }
    shader.code(&body);
    if !shader.fits() {
        return None;
    }
    let flops = u64::from(elements(graph, id)) * (flops + 4);
    Some(shader.launch(u64::from(count.div_ceil(LANES)), flops))
}

impl Chain<'_> {
    fn name(&mut self) -> String {
        self.names += 1;
        format!("v{}", self.names)
    }

    fn kind(&self, dtype: DType) -> &'static str {
        vector(element(dtype), self.width)
    }

    /// The variable that holds `id`'s element, computed here.
    fn compute(&mut self, id: NodeId) -> Option<String> {
        if let Some(known) = self.known.get(&id.0) {
            return Some(known.clone());
        }
        self.flops += 4;
        let expression = self.expression(id)?;
        let name = self.name();
        let _ = writeln!(self.lines, "    let {name} = {expression};");
        self.known.insert(id.0, name.clone());
        Some(name)
    }

    fn call(&mut self, function: &'static str) {
        for needed in [
            ("greater", "is_nan"),
            ("smaller", "is_nan"),
            ("power", "is_nan"),
            ("power", "special"),
            ("to_i32", "is_nan"),
            ("to_u8", "is_nan"),
        ] {
            if needed.0 == function {
                self.functions.insert(needed.1);
            }
        }
        self.functions.insert(function);
    }

    fn expression(&mut self, id: NodeId) -> Option<String> {
        let graph = self.graph;
        let node = &graph.graph().nodes[id.index()];
        Some(match &node.op {
            Op::Constant { dtype, value, .. } => self.literal(*dtype, *value),
            Op::Random { distribution, stream, .. } => self.random(*distribution, *stream),
            Op::Unary { function } => {
                let x = self.operand(id, 0)?;
                self.unary(*function, &x)
            }
            Op::Binary { function } => {
                let (a, b) = (self.operand(id, 0)?, self.operand(id, 1)?);
                self.binary(*function, graph.ty(id).dtype, &a, &b)
            }
            Op::Compare { function } => {
                let (a, b) = (self.operand(id, 0)?, self.operand(id, 1)?);
                let operator = match function {
                    CompareFn::Eq => "==",
                    CompareFn::Lt => "<",
                    CompareFn::Le => "<=",
                    CompareFn::Gt => ">",
                    CompareFn::Ge => ">=",
                };
                format!("{a} {operator} {b}")
            }
            Op::Select => {
                let [c, a, b] = [self.operand(id, 0)?, self.operand(id, 1)?, self.operand(id, 2)?];
                format!("select({b}, {a}, {c})")
            }
            Op::Cast { dtype } => {
                let x = self.operand(id, 0)?;
                self.cast(graph.ty(node.inputs[0]).dtype, *dtype, &x)
            }
            // A view of a constant is the constant.
            Op::Broadcast { .. } | Op::Permute { .. } | Op::Slice { .. }
                if self.constant(node.inputs[0]).is_some() =>
            {
                let (dtype, value) = self.constant(node.inputs[0])?;
                self.literal(dtype, value)
            }
            Op::Broadcast { .. } => self.operand(id, 0)?,
            Op::Permute { .. } | Op::Slice { .. } => self.view(id, 0)?,
            Op::Pad { low, value, .. } => self.pad(id, low, *value)?,
            Op::OneHot { depth } => self.one_hot(id, *depth)?,
            _ => return None,
        })
    }

    /// The value of a constant that is not stored.
    fn constant(&self, id: NodeId) -> Option<(DType, f32)> {
        let from = owner(self.graph, id);
        match &self.graph.graph().nodes[from.index()].op {
            Op::Constant { value, .. } => Some((self.graph.ty(id).dtype, *value)),
            _ => None,
        }
    }

    /// A constant's value. It comes from a variable: an expression of literals alone
    /// is evaluated when the shader is created, which refuses it where the result
    /// is infinite, no number, or beyond an integer.
    fn literal(&mut self, dtype: DType, value: f32) -> String {
        let bits = match dtype {
            DType::F32 => value.to_bits(),
            DType::I32 => value as i32 as u32,
            DType::U8 => u32::from(value as u8),
            DType::Bool => u32::from(value != 0.0),
        };
        let name = format!("k{bits:x}");
        if self.literals.insert(bits) {
            let _ = writeln!(self.lines, "    var {name} = {bits:#x}u;");
        }
        let kind = self.kind(dtype);
        match dtype {
            DType::F32 => format!("{kind}(bitcast<f32>({name}))"),
            DType::I32 => format!("{kind}(bitcast<i32>({name}))"),
            DType::U8 => format!("{kind}({name})"),
            DType::Bool if self.width == 4 => format!("vec4<bool>({name} != 0u)"),
            DType::Bool => format!("({name} != 0u)"),
        }
    }

    fn random(&mut self, distribution: Distribution, stream: u32) -> String {
        self.functions.insert("philox");
        self.shader.word("run", Word::Run);
        self.shader.word("seed_low", Word::SeedLow);
        self.shader.word("seed_high", Word::SeedHigh);
        self.flops += 100;
        let stream = self.shader.field(&format!("stream{stream}"), stream);
        let function = match distribution {
            Distribution::Uniform => "uniform4",
            Distribution::Normal => "normal4",
        };
        let lane = if self.width == 4 { "" } else { "[at & 3u]" };
        format!("{function}(at >> 2u, {stream}){lane}")
    }

    fn unary(&mut self, function: UnaryFn, x: &str) -> String {
        let f = self.kind(DType::F32);
        match function {
            UnaryFn::Neg => format!("-{x}"),
            UnaryFn::Abs => format!("abs({x})"),
            UnaryFn::Sign => format!("sign({x})"),
            UnaryFn::Exp => format!("exp({x})"),
            UnaryFn::Log => format!("log({x})"),
            UnaryFn::Sqrt => format!("sqrt({x})"),
            UnaryFn::Recip => format!("{f}(1.0) / {x}"),
            UnaryFn::Tanh => {
                self.call("tanh_");
                format!("tanh_({x})")
            }
            UnaryFn::Sigmoid => format!("{f}(1.0) / ({f}(1.0) + exp(-{x}))"),
            UnaryFn::Relu => format!("max({x}, {f}(0.0))"),
            UnaryFn::Floor => format!("floor({x})"),
        }
    }

    fn binary(&mut self, function: BinaryFn, dtype: DType, a: &str, b: &str) -> String {
        let named = match (function, dtype) {
            (BinaryFn::Add, _) => return format!("{a} + {b}"),
            (BinaryFn::Sub, _) => return format!("{a} - {b}"),
            (BinaryFn::Mul, _) => return format!("{a} * {b}"),
            (BinaryFn::Div, _) => return format!("{a} / {b}"),
            (BinaryFn::Max, DType::I32) => return format!("max({a}, {b})"),
            (BinaryFn::Min, DType::I32) => return format!("min({a}, {b})"),
            (BinaryFn::Max, _) => "greater",
            (BinaryFn::Min, _) => "smaller",
            (BinaryFn::Pow, _) => "power",
        };
        self.call(named);
        format!("{named}({a}, {b})")
    }

    fn cast(&mut self, from: DType, to: DType, x: &str) -> String {
        let kind = self.kind(to);
        match (from, to) {
            (DType::F32, DType::I32) => {
                self.call("to_i32");
                format!("to_i32({x})")
            }
            (DType::F32, DType::U8) => {
                self.call("to_u8");
                format!("to_u8({x})")
            }
            // NaN is no zero; "unequal" may say it is.
            (DType::F32, DType::Bool) => {
                format!("!({x} == {}(0.0))", self.kind(DType::F32))
            }
            (DType::I32, DType::Bool) => format!("{x} != {}(0)", self.kind(DType::I32)),
            (DType::U8, DType::Bool) => format!("{x} != {}(0u)", self.kind(DType::U8)),
            (DType::I32, DType::U8) => {
                let i = self.kind(DType::I32);
                format!("{kind}(clamp({x}, {i}(0), {i}(255)))")
            }
            (DType::Bool, _) => format!("select({kind}(0), {kind}(1), {x})"),
            _ => format!("{kind}({x})"),
        }
    }

    /// Operand `at` of `id`, broadcast to its shape.
    fn operand(&mut self, id: NodeId, at: usize) -> Option<String> {
        let graph = self.graph;
        let operand = graph.graph().nodes[id.index()].inputs[at];
        let dtype = graph.ty(operand).dtype;
        let from = owner(graph, operand);
        if !self.stored[from.index()] {
            if let Some((dtype, value)) = self.constant(operand) {
                return Some(self.literal(dtype, value));
            }
            let found = self.compute(from)?;
            return Some(self.convert(graph.ty(from).dtype, dtype, found));
        }
        self.view(id, at)
    }

    /// An alias may give words another type: bools and bytes as integers.
    fn convert(&self, from: DType, to: DType, found: String) -> String {
        match (from, to) {
            (from, to) if from == to => found,
            (DType::Bool, _) => format!("select({0}(0), {0}(1), {found})", self.kind(to)),
            _ => format!("{}({found})", self.kind(to)),
        }
    }

    /// Reads operand `at` of `id` where `id` finds it. `None` where four neighbours
    /// are not one vector.
    fn view(&mut self, id: NodeId, at: usize) -> Option<String> {
        let (axes, start) = reading(self.graph, id, at);
        let graph = self.graph;
        let operand = graph.graph().nodes[id.index()].inputs[at];
        let dtype = graph.ty(operand).dtype;
        let value = self.values[owner(graph, operand).index()]?;
        let loaded = self.load(value, dtype, &axes, start, elements(graph, id))?;
        let name = self.name();
        let _ = writeln!(self.lines, "    let {name} = {loaded};");
        Some(name)
    }

    fn load(
        &mut self,
        value: ValueId,
        dtype: DType,
        axes: &[(u32, u32)],
        start: u32,
        elements: u32,
    ) -> Option<String> {
        let (kind, scalar) = (self.kind(dtype), element(dtype));
        let wide = self.width == 4;
        let typed = |text: String, wide: bool| match (dtype, wide) {
            (DType::Bool, true) => format!("({text} != vec4<u32>(0u))"),
            (DType::Bool, false) => format!("({text} != 0u)"),
            _ => text,
        };
        let splat = |text: String| match (dtype, wide) {
            (DType::Bool, true) => format!("vec4<bool>({text} != 0u)"),
            (_, true) => format!("{kind}({text})"),
            (_, false) => typed(text, false),
        };
        if axes.iter().all(|(_, step)| *step == 0) {
            let source = self.shader.read(value, scalar);
            return Some(splat(format!("{source}[{start}u]")));
        }
        if start == 0 && axes == [(elements, 1)] {
            let source = self.shader.read(value, kind);
            return Some(typed(format!("{source}[i]"), wide));
        }
        let name = self.name();
        let begin = self.shader.field(&format!("{name}b"), start);
        if !wide {
            let (lines, offset) = offset(&mut self.shader, &name, "at", &begin, axes);
            self.lines.push_str(&lines);
            let source = self.shader.read(value, scalar);
            return Some(typed(format!("{source}[{offset}]"), false));
        }
        let ((inner, step), outer) = axes.split_last()?;
        let aligned =
            start.is_multiple_of(4) && outer.iter().all(|(_, step)| step.is_multiple_of(4));
        if !inner.is_multiple_of(4) || !(*step == 0 || *step == 1 && aligned) {
            return None;
        }
        let (lines, offset) = offset(&mut self.shader, &name, "at", &begin, axes);
        self.lines.push_str(&lines);
        if *step == 0 {
            let source = self.shader.read(value, scalar);
            return Some(splat(format!("{source}[{offset}]")));
        }
        let source = self.shader.read(value, kind);
        Some(typed(format!("{source}[({offset}) >> 2u]"), true))
    }

    /// `x` at `low` within the result, `value` elsewhere.
    fn pad(&mut self, id: NodeId, low: &[u32], value: f32) -> Option<String> {
        if self.width == 4 {
            return None;
        }
        let graph = self.graph;
        let operand = graph.graph().nodes[id.index()].inputs[0];
        let source = self.values[owner(graph, operand).index()]?;
        let source = self.shader.read(source, "f32");
        let (from, to) = (graph.ty(operand).shape.dims(), graph.ty(id).shape.dims());
        let own = steps(from);
        let name = self.name();
        let mut lines =
            format!("    var {name}r = at;\n    var {name}o = 0u;\n    var {name}in = true;\n");
        for axis in (0..to.len()).rev() {
            let mut field =
                |kind: &str, value| self.shader.field(&format!("{name}{kind}{axis}"), value);
            let (extent, low, width, step) = (
                field("e", to[axis]),
                field("l", low[axis]),
                field("w", from[axis]),
                field("s", own[axis]),
            );
            // Left of the operand the difference wraps around and is too large as well.
            let _ = write!(
                lines,
                "    let {name}c{axis} = {name}r % {extent} - {low};\n    {name}r /= {extent};\n    \
                 {name}in = {name}in && {name}c{axis} < {width};\n    {name}o += {name}c{axis} * {step};\n"
            );
        }
        let fill = self.literal(DType::F32, value);
        let _ = write!(
            lines,
            "    var {name}x = {fill};\n    if ({name}in) {{ {name}x = {source}[{name}o]; }}\n"
        );
        self.lines.push_str(&lines);
        Some(format!("{name}x"))
    }

    /// 1 where the position along the last axis is the index.
    fn one_hot(&mut self, id: NodeId, depth: u32) -> Option<String> {
        if self.width == 4 {
            return None;
        }
        let operand = self.graph.graph().nodes[id.index()].inputs[0];
        let index = self.values[owner(self.graph, operand).index()]?;
        let index = self.shader.read(index, "i32");
        let name = self.name();
        let depth = self.shader.field(&format!("{name}d"), depth);
        Some(format!("select(0.0, 1.0, u32({index}[at / {depth}]) == at % {depth})"))
    }
}

/// Operands of a kernel as it sees them: the owner's words under the operand's type.
pub fn args<'a>(
    graph: &'a ValidGraph,
    values: &[Option<ValueId>],
    inputs: &[NodeId],
) -> Vec<Arg<'a>> {
    let arg = |id: &NodeId| {
        let ty = graph.ty(*id);
        let value = values[owner(graph, *id).index()].expect("kernels read stored values");
        Arg { value, dims: ty.shape.dims(), dtype: ty.dtype }
    };
    inputs.iter().map(arg).collect()
}
