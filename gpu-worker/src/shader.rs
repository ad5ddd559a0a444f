//! Puts a shader together: its parameters, its bindings, its entry point.
//!
//! Every shader has one uniform block and at most eight storage buffers, the
//! last one written. Its entry point turns the grid into one running number
//! of a workgroup, so that any dispatch can be cut into shorter ones.

use std::rc::Rc;

/// Storage buffers of one shader at most: WebGPU's default limit.
pub const STORAGE_BUFFERS_MAX: usize = 8;
/// Workgroups along one axis of a grid: WebGPU's default limit.
pub const GRID_MAX: u32 = 65_535;
/// Bytes of a uniform block: seven strided operands of eight axes fit.
pub const PARAM_BYTES: u64 = 512;
/// Words of a uniform block that hold the range of workgroups.
pub const RANGE_WORDS: usize = 2;

/// A value of a plan: an input, a result, or scratch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

impl ValueId {
    /// Position in the plan's list of values.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One word of a uniform block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    /// Known when the graph is lowered.
    Fixed(u32),
    /// Number of the micro-batch or step.
    Run,
    /// Low half of the task's seed.
    SeedLow,
    /// High half of the task's seed.
    SeedHigh,
}

/// One kernel to be launched.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Family, for profiles and errors.
    pub label: &'static str,
    /// The whole shader; pipelines are cached by it.
    pub source: Rc<str>,
    /// Buffers read, in binding order.
    pub reads: Vec<ValueId>,
    /// Buffer written.
    pub write: ValueId,
    /// Parameters, after the range of workgroups.
    pub words: Vec<Word>,
    /// Workgroups of the whole launch.
    pub groups: u32,
    /// Operations, to cut long launches.
    pub flops: u64,
    /// Steps of the longest invocation: an element read, and a few operations.
    pub steps: u64,
}

/// A shader under construction.
#[derive(Debug)]
pub struct Shader {
    label: &'static str,
    invocations: u32,
    fields: Vec<(String, Word)>,
    reads: Vec<(ValueId, &'static str)>,
    write: (ValueId, &'static str),
    code: String,
    steps: u64,
}

impl Shader {
    /// A shader of `invocations` per workgroup that writes `write` as elements of `element`.
    pub fn new(
        label: &'static str,
        invocations: u32,
        write: ValueId,
        element: &'static str,
    ) -> Self {
        let write = (write, element);
        Shader {
            label,
            invocations,
            fields: Vec::new(),
            reads: Vec::new(),
            write,
            code: String::new(),
            steps: 1,
        }
    }

    /// Adds a parameter; returns how the shader names it.
    pub fn word(&mut self, name: &str, word: Word) -> String {
        if !self.fields.iter().any(|(held, _)| held == name) {
            self.fields.push((name.to_owned(), word));
        }
        format!("p.{name}")
    }

    /// Adds a number that is known now.
    pub fn field(&mut self, name: &str, value: u32) -> String {
        self.word(name, Word::Fixed(value))
    }

    /// Binds a value as an array of `element`; returns the array's name.
    pub fn read(&mut self, value: ValueId, element: &'static str) -> String {
        let known = self.reads.iter().position(|read| *read == (value, element));
        let at = known.unwrap_or_else(|| {
            self.reads.push((value, element));
            self.reads.len() - 1
        });
        format!("in{at}")
    }

    /// Binds a value in any case: templates name their operands by position.
    pub fn bind(&mut self, value: ValueId, element: &'static str) {
        self.reads.push((value, element));
    }

    /// Whether its buffers and its parameters keep to the limits.
    pub fn fits(&self) -> bool {
        self.reads.len() < STORAGE_BUFFERS_MAX
            && (self.fields.len() + RANGE_WORDS) * 4 <= PARAM_BYTES as usize
    }

    /// Adds functions and variables of the module.
    pub fn code(&mut self, text: &str) {
        self.code.push_str(text);
        self.code.push('\n');
    }

    /// Says how many steps one invocation takes, where it loops.
    pub fn steps(&mut self, steps: u64) {
        self.steps = steps.max(1);
    }

    /// Ends construction. The code must define `fn run(group: u32, lane: u32)`.
    pub fn launch(self, groups: u64, flops: u64) -> Launch {
        debug_assert!(self.fits());
        let mut text = String::from("struct Params {\n    first: u32,\n    end: u32,\n");
        for (name, _) in &self.fields {
            text.push_str(&format!("    {name}: u32,\n"));
        }
        text.push_str("}\n@group(0) @binding(0) var<uniform> p: Params;\n");
        for (at, (_, element)) in self.reads.iter().enumerate() {
            let binding = at + 1;
            text.push_str(&format!(
                "@group(0) @binding({binding}) var<storage, read> in{at}: array<{element}>;\n"
            ));
        }
        let (binding, element) = (self.reads.len() + 1, self.write.1);
        text.push_str(&format!(
            "@group(0) @binding({binding}) var<storage, read_write> out: array<{element}>;\n"
        ));
        text.push_str(&self.code);
        text.push_str(&fill(
            include_str!("wgsl/entry.wgsl"),
            &[("INVOCATIONS", self.invocations.to_string())],
        ));
        Launch {
            label: self.label,
            source: text.into(),
            reads: self.reads.iter().map(|(value, _)| *value).collect(),
            write: self.write.0,
            words: self.fields.iter().map(|(_, word)| *word).collect(),
            groups: u32::try_from(groups).unwrap_or(u32::MAX),
            flops,
            steps: self.steps,
        }
    }
}

/// Replaces `$NAME$` in a template.
pub fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut text = template.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("${name}$"), value);
    }
    text
}

/// The part of a file of snippets that follows the line `//# name`.
pub fn snippet<'a>(file: &'a str, name: &str) -> &'a str {
    let mut parts = file.split("//# ").skip(1);
    let part = parts.find(|part| part.lines().next() == Some(name));
    part.and_then(|part| part.split_once('\n')).map_or("", |(_, body)| body)
}

/// WGSL that turns the number in `index` into an offset: `axes` are extents and
/// steps, outermost first. Adds the parameters `{name}e0`, `{name}s0`, and so on.
/// The result is an expression of one variable that the returned lines define.
pub fn offset(
    shader: &mut Shader,
    name: &str,
    index: &str,
    start: &str,
    axes: &[(u32, u32)],
) -> (String, String) {
    let Some(((_, outer), inner)) = axes.split_first() else {
        return (String::new(), start.to_owned());
    };
    let outer = shader.field(&format!("{name}s0"), *outer);
    if inner.is_empty() {
        return (String::new(), format!("({start} + ({index}) * {outer})"));
    }
    let mut lines = format!("    var {name}r = {index};\n    var {name}o = {start};\n");
    for (at, (extent, step)) in inner.iter().enumerate().rev() {
        let extent = shader.field(&format!("{name}e{}", at + 1), *extent);
        let step = shader.field(&format!("{name}s{}", at + 1), *step);
        lines.push_str(&format!(
            "    {name}o += ({name}r % {extent}) * {step};\n    {name}r /= {extent};\n"
        ));
    }
    lines.push_str(&format!("    {name}o += {name}r * {outer};\n"));
    (lines, format!("{name}o"))
}

/// Joins neighbouring axes that are walked evenly and drops those of extent 1.
pub fn merged(axes: impl IntoIterator<Item = (u32, u32)>) -> Vec<(u32, u32)> {
    let mut out: Vec<(u32, u32)> = Vec::new();
    for (extent, step) in axes.into_iter().filter(|(extent, _)| *extent != 1) {
        match out.last_mut() {
            Some((outer, outer_step)) if *outer_step == step.wrapping_mul(extent) => {
                *outer *= extent;
                *outer_step = step;
            }
            _ => out.push((extent, step)),
        }
    }
    out
}

/// Steps between neighbours along each axis of a gapless tensor.
pub fn steps(dims: &[u32]) -> Vec<u32> {
    let mut steps = vec![1u32; dims.len()];
    for axis in (1..dims.len()).rev() {
        steps[axis - 1] = steps[axis].wrapping_mul(dims[axis]);
    }
    steps
}

/// Number of elements; validation has bounded it.
pub fn count(dims: &[u32]) -> u32 {
    dims.iter().product()
}
