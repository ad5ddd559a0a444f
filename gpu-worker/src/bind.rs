//! Where a task's inputs come from, checked once when the task begins.
//!
//! What the task's own frame carries goes to the device as one buffer, the
//! task's data: attachments, row tables and masks, each part where it can be bound.

use crate::cache::{Blob, Cache};
use crate::device::Fault;
use crate::error::TaskError;
use crate::plan::Plan;
use crate::pool::View;
use crate::signal::Shared;
use raven_graph::{DType, InputSpec, Shape, TensorType};
use raven_protocol::{Binding, Frame, ShardRef, TaskSpec, TensorView};
use std::collections::HashMap;
use std::rc::Rc;

/// Where a part of a buffer may begin, so that it can be bound.
const ALIGNMENT: u64 = 256;
/// Stands for the row of a shard where a row of zeros is wanted.
const NO_ROW: u32 = u32::MAX;

/// A part of the task's data.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// A multiple of 256.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
}

/// Rows of one shard that one run reads.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Number of the shard; `None` where only rows of zeros are wanted.
    pub shard: Option<usize>,
    /// Pairs of (row of the input, row of the shard).
    pub pairs: Part,
    /// Number of pairs.
    pub count: u32,
}

/// Per run, its tables; bindings that name the same rows share them.
pub type Tables = Rc<[Vec<Table>]>;

/// What one graph input reads in each run.
#[derive(Debug)]
pub enum Source {
    /// The same words of a blob every time.
    Blob(View),
    /// The same bytes of a blob every time, to be unpacked once.
    Packed(View),
    /// The same attachment every time.
    Attached(Part),
    /// Run `i` reads part `i`.
    PerRun(Vec<Part>),
    /// Rows of a column, by the tables of the run.
    Rows { column: usize, tables: Tables, width: u32 },
}

/// One column across the task's shards, in the order of their first rows.
#[derive(Debug)]
pub struct Column {
    name: String,
    /// The type of one row.
    row: TensorType,
    /// Where it lies in each shard.
    pub parts: Vec<View>,
    /// Its elements are packed as bytes.
    pub packed: bool,
}

/// What bounds a task's data.
#[derive(Clone, Copy, Debug)]
pub struct DataLimits {
    /// Bytes of all of it.
    pub bytes_max: u64,
    /// Bytes of one binding.
    pub binding_bytes_max: u64,
}

/// The task's data in the making.
#[derive(Debug)]
struct Data {
    bytes: Vec<u8>,
    limits: DataLimits,
}

impl Data {
    /// Makes room for a part of `bytes` at the end, before anything of it is made.
    fn place(&mut self, bytes: u64) -> Result<Part, TaskError> {
        let offset = (self.bytes.len() as u64).next_multiple_of(ALIGNMENT);
        let bytes = bytes.next_multiple_of(4);
        let DataLimits { bytes_max, binding_bytes_max } = self.limits;
        for (found, limit) in [(bytes, binding_bytes_max), (offset + bytes, bytes_max)] {
            if found > limit {
                return Err(TaskError::Limit { field: "task.tensors", found, limit });
            }
        }
        self.bytes.resize(offset as usize, 0);
        Ok(Part { offset, bytes })
    }

    /// Words as they are.
    fn push(&mut self, part: &[u8]) -> Result<Part, TaskError> {
        let placed = self.place(part.len() as u64)?;
        self.bytes.extend_from_slice(part);
        self.bytes.resize((placed.offset + placed.bytes) as usize, 0);
        Ok(placed)
    }

    /// Elements as the device stores them: bytes and bools as one word each.
    fn push_elements(&mut self, dtype: DType, part: &[u8]) -> Result<Part, TaskError> {
        if !is_packed(dtype) {
            return self.push(part);
        }
        let placed = self.place(4 * part.len() as u64)?;
        self.bytes.extend(part.iter().flat_map(|byte| [*byte, 0, 0, 0]));
        Ok(placed)
    }
}

/// All sources of one task.
#[derive(Debug)]
pub struct Bindings {
    /// In the order of the graph's inputs.
    pub sources: Vec<Source>,
    /// Columns that rows are read from.
    pub columns: Vec<Column>,
    /// What the task's frame carries, laid out for the device.
    pub data: Vec<u8>,
    /// Keeps the cache from forgetting what the task reads.
    held: Vec<Rc<Blob>>,
}

fn type_error(
    field: &'static str,
    name: &str,
    expected: &TensorType,
    found: &TensorType,
) -> TaskError {
    TaskError::Type {
        field,
        name: name.to_owned(),
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

fn expect_type(
    field: &'static str,
    name: &str,
    expected: &TensorType,
    found: &TensorType,
) -> Result<(), TaskError> {
    if found == expected { Ok(()) } else { Err(type_error(field, name, expected, found)) }
}

fn is_packed(dtype: DType) -> bool {
    matches!(dtype, DType::U8 | DType::Bool)
}

/// Gathers what the bindings name while checking it.
struct Binder<'a> {
    frame: &'a Frame<'a>,
    cache: &'a mut Cache,
    runs: u32,
    shards: Vec<ShardRef>,
    held: Vec<Rc<Blob>>,
    columns: Vec<Column>,
    data: Data,
    /// Attachments, row numbers and their tables that several bindings share are
    /// read and laid out once, by the tensor's name.
    attached: HashMap<String, Part>,
    numbers: HashMap<String, Rc<[i32]>>,
    tables: HashMap<String, Tables>,
}

impl Bindings {
    /// Resolves every binding of `spec` against the frame's attachments and the
    /// cache; the task's data keeps to `limits`.
    ///
    /// # Errors
    /// What is missing, unknown, unbound, of another type, or out of range.
    pub fn resolve(
        spec: &TaskSpec,
        plan: &Plan,
        frame: &Frame<'_>,
        cache: &mut Cache,
        limits: DataLimits,
    ) -> Result<Self, TaskError> {
        for binding in &spec.bindings {
            if plan.graph().input(binding.input()).is_none() {
                let name = binding.input().to_owned();
                return Err(TaskError::Unknown { field: "spec.bindings.input", name });
            }
        }
        let mut binder = Binder {
            frame,
            cache,
            runs: spec.program.runs(),
            shards: spec.shards.clone(),
            held: Vec::new(),
            columns: Vec::new(),
            data: Data { bytes: Vec::new(), limits },
            attached: HashMap::new(),
            numbers: HashMap::new(),
            tables: HashMap::new(),
        };
        binder.hold_shards()?;
        let mut sources = Vec::with_capacity(plan.graph().inputs().len());
        for input in plan.graph().inputs() {
            let binding = spec.bindings.iter().find(|binding| binding.input() == input.name);
            let binding =
                binding.ok_or_else(|| TaskError::Unbound { input: input.name.clone() })?;
            sources.push(binder.source(binding, input)?);
        }
        let Binder { held, columns, data, .. } = binder;
        Ok(Bindings { sources, columns, data: data.bytes, held })
    }

    /// Of the blobs that are read, those whose upload nobody has confirmed yet.
    pub fn uploads(&self) -> Vec<Shared<Option<Fault>>> {
        let uploads = self.held.iter().map(|blob| blob.upload_fault());
        uploads.filter(|upload| upload.now() != Some(None)).collect()
    }
}

/// Which shard holds a row, and where; `None` for padding. Shards are sorted.
fn locate(shards: &[ShardRef], number: i32) -> Option<(usize, u32)> {
    let number = u32::try_from(number).ok()?;
    let after = shards.partition_point(|shard| shard.first_row <= number);
    let at = after.checked_sub(1)?;
    let row = number - shards[at].first_row;
    (row < shards[at].rows).then_some((at, row))
}

/// `[extent, ..shape]`.
fn stacked(extent: u32, shape: &[u32]) -> Shape {
    Shape([&[extent], shape].concat())
}

impl<'a> Binder<'a> {
    /// The first entries of `held` are the shards, in order.
    fn hold_shards(&mut self) -> Result<(), TaskError> {
        for shard in &self.shards {
            let blob = self.cache.blob(shard.blob).ok_or_else(|| TaskError::Missing {
                field: "spec.shards.blob",
                id: shard.blob.to_string(),
            })?;
            self.held.push(blob);
        }
        Ok(())
    }

    fn source(&mut self, binding: &Binding, input: &InputSpec) -> Result<Source, TaskError> {
        match binding {
            Binding::Blob { blob, tensor, .. } => {
                let held = self.cache.blob(*blob).ok_or_else(|| TaskError::Missing {
                    field: "spec.bindings.blob",
                    id: blob.to_string(),
                })?;
                let (ty, view) = held.tensor(tensor).ok_or_else(|| TaskError::Unknown {
                    field: "spec.bindings.tensor",
                    name: tensor.clone(),
                })?;
                expect_type("spec.bindings.tensor", tensor, &input.ty, ty)?;
                let packed = is_packed(ty.dtype);
                let view = view.clone();
                self.held.push(held);
                Ok(if packed { Source::Packed(view) } else { Source::Blob(view) })
            }
            Binding::Attached { tensor, .. } => self.attached(tensor, &input.ty),
            Binding::PerRun { tensor, .. } => self.per_run(tensor, &input.ty),
            Binding::Rows { column, rows, .. } => self.rows(column, rows, input),
            Binding::RowMask { rows, .. } => self.row_mask(rows, input),
        }
    }

    fn view(&self, name: &str, expected: &TensorType) -> Result<TensorView<'a>, TaskError> {
        let view = self
            .frame
            .tensor(name)
            .ok_or_else(|| TaskError::Unknown { field: "task.tensors", name: name.to_owned() })?;
        expect_type("task.tensors", name, expected, &view.ty())?;
        Ok(view)
    }

    fn attached(&mut self, name: &str, ty: &TensorType) -> Result<Source, TaskError> {
        let view = self.view(name, ty)?;
        if let Some(part) = self.attached.get(name) {
            return Ok(Source::Attached(*part));
        }
        let part = self.data.push_elements(ty.dtype, view.data)?;
        self.attached.insert(name.to_owned(), part);
        Ok(Source::Attached(part))
    }

    fn per_run(&mut self, name: &str, ty: &TensorType) -> Result<Source, TaskError> {
        let shape = stacked(self.runs, ty.shape.dims());
        let view = self.view(name, &TensorType { dtype: ty.dtype, shape })?;
        let parts = view.data.chunks_exact(view.data.len() / self.runs as usize);
        let parts: Result<_, _> =
            parts.map(|part| self.data.push_elements(ty.dtype, part)).collect();
        Ok(Source::PerRun(parts?))
    }

    /// The attached `i32 [runs, count]` of row numbers.
    fn numbers(&mut self, name: &str, count: u32) -> Result<Rc<[i32]>, TaskError> {
        let expected = TensorType::new(DType::I32, [self.runs, count]);
        let bytes = self.view(name, &expected)?.data.chunks_exact(4);
        if let Some(known) = self.numbers.get(name) {
            return Ok(known.clone());
        }
        let numbers: Rc<[i32]> =
            bytes.map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let lost = |row: &&i32| **row >= 0 && locate(&self.shards, **row).is_none();
        if let Some(row) = numbers.iter().find(lost) {
            return Err(TaskError::Row { field: "task.tensors.rows", row: *row });
        }
        self.numbers.insert(name.to_owned(), numbers.clone());
        Ok(numbers)
    }

    fn row_mask(&mut self, rows: &str, input: &InputSpec) -> Result<Source, TaskError> {
        let [count] = input.ty.shape.dims() else {
            let expected = TensorType::new(DType::F32, [self.runs]);
            return Err(type_error("graph input", &input.name, &expected, &input.ty));
        };
        let expected = TensorType::new(DType::F32, [*count]);
        expect_type("graph input", &input.name, &expected, &input.ty)?;
        let numbers = self.numbers(rows, *count)?;
        let mut parts = Vec::with_capacity(self.runs as usize);
        for run in numbers.chunks_exact(*count as usize) {
            let mask = run.iter().map(|&row| f32::from(u8::from(row >= 0)));
            let mask: Vec<u8> = mask.flat_map(f32::to_le_bytes).collect();
            parts.push(self.data.push(&mask)?);
        }
        Ok(Source::PerRun(parts))
    }

    /// Per run, which rows of which shards fill an input of `count` rows.
    fn tables(&mut self, name: &str, count: u32) -> Result<Tables, TaskError> {
        // Looked at first, since another input may have another number of rows.
        let numbers = self.numbers(name, count)?;
        if let Some(tables) = self.tables.get(name) {
            return Ok(tables.clone());
        }
        let runs = numbers.chunks_exact(count as usize);
        let tables: Result<Tables, _> = runs.map(|run| self.tables_of_run(run)).collect();
        let tables = tables?;
        self.tables.insert(name.to_owned(), tables.clone());
        Ok(tables)
    }

    fn tables_of_run(&mut self, run: &[i32]) -> Result<Vec<Table>, TaskError> {
        // Rows of zeros come with those of a shard that is read anyway, if there is one.
        let any = run.iter().find_map(|number| locate(&self.shards, *number));
        let any = any.map(|(shard, _)| shard);
        let mut pairs: Vec<(Option<usize>, u32, u32)> = Vec::with_capacity(run.len());
        for (row, number) in run.iter().enumerate() {
            let found = locate(&self.shards, *number);
            let (shard, from) = found.map_or((any, NO_ROW), |(shard, from)| (Some(shard), from));
            pairs.push((shard, row as u32, from));
        }
        pairs.sort_unstable();
        let mut tables = Vec::new();
        for pairs in pairs.chunk_by(|a, b| a.0 == b.0) {
            let bytes = pairs.iter().flat_map(|(_, row, from)| [*row, *from]);
            let bytes: Vec<u8> = bytes.flat_map(u32::to_le_bytes).collect();
            let part = self.data.push(&bytes)?;
            let count = pairs.len() as u32;
            tables.push(Table { shard: pairs[0].0, pairs: part, count });
        }
        Ok(tables)
    }

    fn rows(&mut self, column: &str, rows: &str, input: &InputSpec) -> Result<Source, TaskError> {
        let Some((&count, row_shape)) = input.ty.shape.dims().split_first() else {
            let expected = TensorType::new(input.ty.dtype, [self.runs]);
            return Err(type_error("graph input", &input.name, &expected, &input.ty));
        };
        let tables = self.tables(rows, count)?;
        let row = TensorType::new(input.ty.dtype, row_shape);
        let width = row_shape.iter().product();
        let known = self.columns.iter().position(|known| known.name == column && known.row == row);
        let column = match known {
            Some(known) => known,
            None => {
                let parts = self.column_parts(column, &row)?;
                let packed = is_packed(row.dtype);
                self.columns.push(Column { name: column.to_owned(), row, parts, packed });
                self.columns.len() - 1
            }
        };
        Ok(Source::Rows { column, tables, width })
    }

    /// Where the column lies in each shard.
    fn column_parts(&self, column: &str, row: &TensorType) -> Result<Vec<View>, TaskError> {
        let limit = self.data.limits.binding_bytes_max;
        let mut parts = Vec::with_capacity(self.shards.len());
        for (shard, blob) in self.shards.iter().zip(&self.held) {
            let (ty, view) = blob.tensor(column).ok_or_else(|| TaskError::Unknown {
                field: "spec.bindings.column",
                name: column.to_owned(),
            })?;
            let shape = stacked(shard.rows, row.shape.dims());
            let expected = TensorType { dtype: row.dtype, shape };
            expect_type("spec.bindings.column", column, &expected, ty)?;
            let found = view.bytes;
            if found > limit {
                return Err(TaskError::Limit { field: "spec.bindings.column", found, limit });
            }
            parts.push(view.clone());
        }
        Ok(parts)
    }
}
