//! Where a task's inputs come from, checked once when the task begins.

use crate::buffer::Buffer;
use crate::cache::{Blob, Cache};
use crate::error::TaskError;
use crate::plan::Plan;
use crate::received::Received;
use crate::tensor::{Element, Tensor, dims_of};
use raven_graph::{DType, InputSpec, Shape, TensorType};
use raven_protocol::{Binding, Frame, ShardRef, TaskSpec};
use std::rc::Rc;

/// What one graph input reads in each run.
#[derive(Debug)]
enum Source {
    /// The same tensor every time.
    Fixed(Tensor),
    /// Slice `i` of `[runs, ..]`.
    PerRun(Tensor),
    /// Rows of a column, by the numbers in row `i` of `numbers [runs, n]`.
    Rows { column: usize, numbers: Tensor },
    /// 1 where a number in row `i` is not negative.
    RowMask { numbers: Tensor },
}

/// One column across the task's shards, in the order of their first rows.
#[derive(Debug)]
struct Column {
    name: String,
    parts: Vec<Tensor>,
}

/// All sources of one task.
#[derive(Debug)]
pub struct Bindings {
    /// In the order of the graph's inputs.
    sources: Vec<(TensorType, Source)>,
    shards: Vec<ShardRef>,
    columns: Vec<Column>,
    /// Keeps the cache from forgetting what the columns read.
    _held: Vec<Rc<Blob>>,
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

/// Gathers what the bindings name while checking it.
struct Binder<'a> {
    frame: &'a Frame<'a>,
    received: &'a Received<'a>,
    cache: &'a mut Cache,
    runs: u32,
    shards: Vec<ShardRef>,
    shard_blobs: Vec<Rc<Blob>>,
    held: Vec<Rc<Blob>>,
    columns: Vec<Column>,
    /// Attachments that several bindings share are decoded once.
    numbers: Vec<(String, Tensor)>,
}

impl Bindings {
    /// Resolves every binding of `spec` against the frame's attachments and the cache.
    ///
    /// # Errors
    /// What is missing, unknown, unbound, of another type, or out of range.
    pub fn resolve(
        spec: &TaskSpec,
        plan: &Plan,
        (frame, received): (&Frame<'_>, &Received<'_>),
        cache: &mut Cache,
    ) -> Result<Self, TaskError> {
        for binding in &spec.bindings {
            if plan.graph().input(binding.input()).is_none() {
                let name = binding.input().to_owned();
                return Err(TaskError::Unknown { field: "spec.bindings.input", name });
            }
        }
        let mut binder = Binder {
            frame,
            received,
            cache,
            runs: spec.program.runs(),
            shards: spec.shards.clone(),
            shard_blobs: Vec::new(),
            held: Vec::new(),
            columns: Vec::new(),
            numbers: Vec::new(),
        };
        binder.hold_shards()?;
        let mut sources = Vec::with_capacity(plan.graph().inputs().len());
        for input in plan.graph().inputs() {
            let binding = spec.bindings.iter().find(|binding| binding.input() == input.name);
            let binding =
                binding.ok_or_else(|| TaskError::Unbound { input: input.name.clone() })?;
            sources.push((input.ty.clone(), binder.source(binding, input)?));
        }
        let mut held = binder.held;
        held.extend(binder.shard_blobs);
        Ok(Bindings { sources, shards: binder.shards, columns: binder.columns, _held: held })
    }

    /// The inputs of run `run`, in the order of the graph's inputs. Inputs
    /// that `carried` holds are taken from there.
    pub fn inputs<'a>(
        &'a self,
        run: u32,
        carried: &'a mut [Option<Tensor>],
    ) -> impl Iterator<Item = Tensor> + 'a {
        let sources = self.sources.iter().zip(carried);
        sources.map(move |((ty, source), carried)| {
            carried.take().unwrap_or_else(|| self.read(ty, source, run))
        })
    }

    fn read(&self, ty: &TensorType, source: &Source, run: u32) -> Tensor {
        match source {
            Source::Fixed(tensor) => tensor.clone(),
            Source::PerRun(tensor) => tensor.item(run as usize, &dims_of(&ty.shape)),
            Source::Rows { column, numbers } => {
                self.rows(ty, &self.columns[*column].parts, row_numbers(numbers, run))
            }
            Source::RowMask { numbers } => {
                let mask =
                    row_numbers(numbers, run).iter().map(|&row| f32::from(u8::from(row >= 0)));
                let mut elements = Buffer::empty(numbers.dims()[1]);
                elements.extend(mask);
                Tensor::of(&dims_of(&ty.shape), elements)
            }
        }
    }

    fn rows(&self, ty: &TensorType, parts: &[Tensor], numbers: &[i32]) -> Tensor {
        match ty.dtype {
            DType::F32 => self.rows_of::<f32>(ty, parts, numbers),
            DType::I32 => self.rows_of::<i32>(ty, parts, numbers),
            DType::U8 => self.rows_of::<u8>(ty, parts, numbers),
            DType::Bool => self.rows_of::<bool>(ty, parts, numbers),
        }
    }

    fn rows_of<T: Element>(&self, ty: &TensorType, parts: &[Tensor], numbers: &[i32]) -> Tensor {
        let dims = dims_of(&ty.shape);
        let width: usize = dims[1..].iter().product();
        let mut elements = Buffer::empty(numbers.len() * width);
        for &number in numbers {
            match locate(&self.shards, number) {
                Some((shard, row)) => {
                    let rows = parts[shard].elements::<T>();
                    elements.extend_from_slice(&rows[row * width..(row + 1) * width]);
                }
                None => elements.extend(std::iter::repeat_n(T::default(), width)),
            }
        }
        Tensor::of(&dims, elements)
    }
}

/// Row `run` of `numbers [runs, n]`.
fn row_numbers(numbers: &Tensor, run: u32) -> &[i32] {
    let width = numbers.dims()[1];
    &numbers.elements::<i32>()[run as usize * width..(run as usize + 1) * width]
}

/// Which shard holds a row, and where; `None` for padding. Shards are sorted.
fn locate(shards: &[ShardRef], number: i32) -> Option<(usize, usize)> {
    let number = u32::try_from(number).ok()?;
    let after = shards.partition_point(|shard| shard.first_row <= number);
    let at = after.checked_sub(1)?;
    let row = number - shards[at].first_row;
    (row < shards[at].rows).then_some((at, row as usize))
}

/// `[extent, ..shape]`.
fn stacked(extent: u32, shape: &[u32]) -> Shape {
    Shape([&[extent], shape].concat())
}

impl Binder<'_> {
    fn hold_shards(&mut self) -> Result<(), TaskError> {
        for shard in &self.shards {
            let blob = self.cache.blob(shard.blob).ok_or_else(|| TaskError::Missing {
                field: "spec.shards.blob",
                id: shard.blob.to_string(),
            })?;
            self.shard_blobs.push(blob);
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
                let found = held.tensor(tensor).cloned().ok_or_else(|| TaskError::Unknown {
                    field: "spec.bindings.tensor",
                    name: tensor.clone(),
                })?;
                expect_type("spec.bindings.tensor", tensor, &input.ty, &found.ty())?;
                self.held.push(held);
                Ok(Source::Fixed(found))
            }
            Binding::Attached { tensor, .. } => {
                Ok(Source::Fixed(self.attached(tensor, &input.ty)?))
            }
            Binding::PerRun { tensor, .. } => {
                let shape = stacked(self.runs, input.ty.shape.dims());
                let expected = TensorType { dtype: input.ty.dtype, shape };
                Ok(Source::PerRun(self.attached(tensor, &expected)?))
            }
            Binding::Rows { column, rows, .. } => self.rows(column, rows, input),
            Binding::RowMask { rows, .. } => {
                let [count] = input.ty.shape.dims() else {
                    let expected = TensorType::new(DType::F32, [self.runs]);
                    return Err(type_error("graph input", &input.name, &expected, &input.ty));
                };
                let expected = TensorType::new(DType::F32, [*count]);
                expect_type("graph input", &input.name, &expected, &input.ty)?;
                Ok(Source::RowMask { numbers: self.numbers(rows, *count)? })
            }
        }
    }

    fn attached(&self, name: &str, expected: &TensorType) -> Result<Tensor, TaskError> {
        let view = self
            .frame
            .tensor(name)
            .ok_or_else(|| TaskError::Unknown { field: "task.tensors", name: name.to_owned() })?;
        expect_type("task.tensors", name, expected, &view.ty())?;
        Ok(Tensor::received(expected, self.received.part(&view)))
    }

    /// The attached `i32 [runs, count]` of row numbers.
    fn numbers(&mut self, name: &str, count: u32) -> Result<Tensor, TaskError> {
        let expected = TensorType::new(DType::I32, [self.runs, count]);
        if let Some((_, numbers)) = self.numbers.iter().find(|(held, _)| held == name) {
            expect_type("task.tensors", name, &expected, &numbers.ty())?;
            return Ok(numbers.clone());
        }
        let numbers = self.attached(name, &expected)?;
        for &row in numbers.elements::<i32>() {
            if row >= 0 && locate(&self.shards, row).is_none() {
                return Err(TaskError::Row { field: "task.tensors.rows", row });
            }
        }
        self.numbers.push((name.to_owned(), numbers.clone()));
        Ok(numbers)
    }

    fn rows(&mut self, column: &str, rows: &str, input: &InputSpec) -> Result<Source, TaskError> {
        let Some((&count, row_shape)) = input.ty.shape.dims().split_first() else {
            let expected = TensorType::new(input.ty.dtype, [self.runs]);
            return Err(type_error("graph input", &input.name, &expected, &input.ty));
        };
        let numbers = self.numbers(rows, count)?;
        let mut parts = Vec::with_capacity(self.shards.len());
        for (shard, blob) in self.shards.iter().zip(&self.shard_blobs) {
            let part = blob.tensor(column).ok_or_else(|| TaskError::Unknown {
                field: "spec.bindings.column",
                name: column.to_owned(),
            })?;
            let shape = stacked(shard.rows, row_shape);
            let expected = TensorType { dtype: input.ty.dtype, shape };
            expect_type("spec.bindings.column", column, &expected, &part.ty())?;
            parts.push(part.clone());
        }
        let known = self.columns.iter().position(|known| known.name == column);
        let column = known.unwrap_or_else(|| {
            self.columns.push(Column { name: column.to_owned(), parts });
            self.columns.len() - 1
        });
        Ok(Source::Rows { column, numbers })
    }
}
