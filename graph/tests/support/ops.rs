//! Every op but the image ones, from its documentation.

use super::{Bindings, Data, Draw, Tensor, dims, image, indices};
use raven_graph::philox::{unit_f32, word_at};
use raven_graph::{BinaryFn, CompareFn, DType, Distribution, Op, ReduceFn, UnaryFn};

pub fn run(op: &Op, x: &[&Tensor], bindings: &Bindings, draw: Draw) -> Tensor {
    match op {
        Op::Input { name, .. } => bindings[name].clone(),
        Op::Constant { dtype, shape, value } => {
            let shape = dims(shape);
            let count = shape.iter().product();
            let data = match dtype {
                DType::F32 => Data::F(vec![f64::from(*value); count]),
                _ => Data::I(vec![*value as i64; count]),
            };
            Tensor { dtype: *dtype, dims: shape, data }
        }
        Op::Random { distribution, shape, stream } => {
            let shape = dims(shape);
            let count: usize = shape.iter().product();
            let element = |e| random(*distribution, *stream, e, draw);
            Tensor::f(&shape, (0..count as u64).map(element).collect())
        }
        Op::Unary { function } => {
            let data = x[0].floats().iter().map(|&v| unary(*function, v)).collect();
            Tensor::f(&x[0].dims, data)
        }
        Op::Binary { function } => binary(*function, x[0], x[1]),
        Op::Compare { function } => compare(*function, x[0], x[1]),
        Op::Select => select(x[0], x[1], x[2]),
        Op::Cast { dtype } => cast(x[0], *dtype),
        Op::Broadcast { shape } => x[0].pick(dims(shape), |at| x[0].at(at)),
        Op::Reduce { function, axes, keep_dims } => reduce(*function, axes, *keep_dims, x[0]),
        Op::ArgMax { axis } => arg_max(*axis as usize, x[0]),
        Op::MatMul { transpose_lhs, transpose_rhs } => {
            matmul(*transpose_lhs, *transpose_rhs, x[0], x[1])
        }
        Op::Reshape { shape } => x[0].with_dims(dims(shape)),
        Op::Permute { axes } => {
            let shape = axes.iter().map(|&a| x[0].dims[a as usize]).collect();
            x[0].pick(shape, |at| {
                let mut from = vec![0; at.len()];
                axes.iter().zip(at).for_each(|(&axis, &i)| from[axis as usize] = i);
                x[0].at(&from)
            })
        }
        Op::Slice { starts, ends } => {
            let shape = starts.iter().zip(ends).map(|(s, e)| (e - s) as usize).collect();
            x[0].pick(shape, |at| {
                let from: Vec<usize> =
                    at.iter().zip(starts).map(|(i, &s)| i + s as usize).collect();
                x[0].at(&from)
            })
        }
        Op::Pad { low, high, value } => pad(low, high, *value, x[0]),
        Op::Concat { axis } => concat(*axis as usize, x),
        Op::Gather { axis } => gather(*axis as usize, x[0], x[1]),
        Op::ScatterAdd { axis, size } => scatter_add(*axis as usize, *size as usize, x[0], x[1]),
        Op::OneHot { depth } => one_hot(*depth as usize, x[0]),
        Op::Softmax { axis } => softmax(*axis as usize, x[0], |v| v),
        Op::LogSoftmax { axis } => softmax(*axis as usize, x[0], f64::ln),
        Op::CrossEntropy => cross_entropy(x[0], x[1]),
        Op::CrossEntropyGrad => cross_entropy_grad(x[0], x[1], x[2]),
        Op::Conv2d(attrs) => image::conv2d(attrs, x[0], x[1]),
        Op::Conv2dInputGrad { attrs, input } => {
            image::conv2d_input_grad(attrs, input.map(|d| d as usize), x[0], x[1])
        }
        Op::Conv2dWeightGrad { attrs, kernel } => {
            image::conv2d_weight_grad(attrs, kernel.map(|d| d as usize), x[0], x[1])
        }
        Op::MaxPool2d(attrs) => image::max_pool2d(attrs, x[0]),
        Op::MaxPool2dGrad(attrs) => image::max_pool2d_grad(attrs, x[0], x[1]),
        Op::AvgPool2d(attrs) => image::avg_pool2d(attrs, x[0]),
        Op::AvgPool2dGrad { attrs, input } => {
            image::avg_pool2d_grad(attrs, input.map(|d| d as usize), x[0])
        }
    }
}

fn random(distribution: Distribution, stream: u32, element: u64, draw: Draw) -> f64 {
    let unit = |e| f64::from(unit_f32(word_at(draw.seed, draw.micro_batch, stream, e)));
    match distribution {
        Distribution::Uniform => unit(element),
        Distribution::Normal => {
            let pair = element / 2 * 2;
            // Half a step of the uniform keeps the logarithm finite.
            let radius = (-2.0 * (unit(pair) + 0.5f64.powi(25)).ln()).sqrt();
            let angle = std::f64::consts::TAU * unit(pair + 1);
            if element.is_multiple_of(2) { radius * angle.cos() } else { radius * angle.sin() }
        }
    }
}

fn unary(function: UnaryFn, v: f64) -> f64 {
    match function {
        UnaryFn::Neg => -v,
        UnaryFn::Abs => v.abs(),
        UnaryFn::Sign if v > 0.0 => 1.0,
        UnaryFn::Sign if v < 0.0 => -1.0,
        UnaryFn::Sign => 0.0,
        UnaryFn::Exp => v.exp(),
        UnaryFn::Log => v.ln(),
        UnaryFn::Sqrt => v.sqrt(),
        UnaryFn::Recip => 1.0 / v,
        UnaryFn::Tanh => v.tanh(),
        UnaryFn::Sigmoid => 1.0 / (1.0 + (-v).exp()),
        UnaryFn::Relu => v.max(0.0),
        UnaryFn::Floor => v.floor(),
    }
}

fn broadcast_dims(a: &[usize], b: &[usize]) -> Vec<usize> {
    let rank = a.len().max(b.len());
    let extent =
        |d: &[usize], axis: usize| (axis + d.len()).checked_sub(rank).map_or(1, |place| d[place]);
    (0..rank).map(|axis| extent(a, axis).max(extent(b, axis))).collect()
}

fn binary(function: BinaryFn, a: &Tensor, b: &Tensor) -> Tensor {
    let shape = broadcast_dims(&a.dims, &b.dims);
    let pairs = indices(&shape).map(|at| (a.at(&at), b.at(&at)));
    match (&a.data, &b.data) {
        (Data::F(x), Data::F(y)) => {
            let apply = |v: f64, w: f64| match function {
                BinaryFn::Add => v + w,
                BinaryFn::Sub => v - w,
                BinaryFn::Mul => v * w,
                BinaryFn::Div => v / w,
                BinaryFn::Max | BinaryFn::Min if v.is_nan() || w.is_nan() => f64::NAN,
                BinaryFn::Max => v.max(w),
                BinaryFn::Min => v.min(w),
                BinaryFn::Pow => v.powf(w),
            };
            Tensor::f(&shape, pairs.map(|(i, j)| apply(x[i], y[j])).collect())
        }
        (Data::I(x), Data::I(y)) => {
            let apply = |v: i64, w: i64| match function {
                BinaryFn::Add => v + w,
                BinaryFn::Sub => v - w,
                BinaryFn::Mul => v * w,
                BinaryFn::Max => v.max(w),
                BinaryFn::Min => v.min(w),
                BinaryFn::Div | BinaryFn::Pow => panic!("refused by inference"),
            };
            Tensor::i(&shape, pairs.map(|(i, j)| i64::from(apply(x[i], y[j]) as i32)).collect())
        }
        _ => panic!("refused by inference"),
    }
}

/// Any element as f64, which holds every i32 exactly.
fn as_f64(x: &Tensor) -> Vec<f64> {
    match &x.data {
        Data::F(data) => data.clone(),
        Data::I(data) => data.iter().map(|&v| v as f64).collect(),
    }
}

fn compare(function: CompareFn, a: &Tensor, b: &Tensor) -> Tensor {
    let dims = broadcast_dims(&a.dims, &b.dims);
    let (x, y) = (as_f64(a), as_f64(b));
    let apply = |v: f64, w: f64| match function {
        CompareFn::Eq => v == w,
        CompareFn::Lt => v < w,
        CompareFn::Le => v <= w,
        CompareFn::Gt => v > w,
        CompareFn::Ge => v >= w,
    };
    let data = indices(&dims).map(|at| i64::from(apply(x[a.at(&at)], y[b.at(&at)]))).collect();
    Tensor { dtype: DType::Bool, dims, data: Data::I(data) }
}

fn select(condition: &Tensor, a: &Tensor, b: &Tensor) -> Tensor {
    let shape = broadcast_dims(&condition.dims, &broadcast_dims(&a.dims, &b.dims));
    let flags = condition.integers();
    let (x, y) = (as_f64(a), as_f64(b));
    let chosen = indices(&shape)
        .map(|at| if flags[condition.at(&at)] != 0 { x[a.at(&at)] } else { y[b.at(&at)] });
    match a.dtype {
        DType::F32 => Tensor::f(&shape, chosen.collect()),
        dtype => {
            let data = Data::I(chosen.map(|v| v as i64).collect());
            Tensor { dtype, dims: shape.clone(), data }
        }
    }
}

fn cast(x: &Tensor, dtype: DType) -> Tensor {
    let values = as_f64(x);
    let to = |low: f64, high: f64| {
        let clamp = |v: &f64| if v.is_nan() { 0 } else { v.trunc().clamp(low, high) as i64 };
        Data::I(values.iter().map(clamp).collect())
    };
    let data = match dtype {
        DType::F32 => Data::F(values),
        DType::I32 => to(f64::from(i32::MIN), f64::from(i32::MAX)),
        DType::U8 => to(0.0, 255.0),
        DType::Bool => Data::I(values.iter().map(|&v| i64::from(v != 0.0)).collect()),
    };
    Tensor { dtype, dims: x.dims.clone(), data }
}

fn reduce(function: ReduceFn, axes: &[u32], keep_dims: bool, x: &Tensor) -> Tensor {
    let reduced = |axis: usize| axes.contains(&(axis as u32));
    let kept: Vec<usize> =
        x.dims.iter().enumerate().map(|(a, &d)| if reduced(a) { 1 } else { d }).collect();
    let start = match function {
        ReduceFn::Sum | ReduceFn::Mean => 0.0,
        ReduceFn::Max => f64::NEG_INFINITY,
        ReduceFn::Min => f64::INFINITY,
    };
    let mut result = Tensor::f(&kept, vec![start; kept.iter().product()]);
    let places: Vec<usize> = indices(&x.dims).map(|at| result.at(&at)).collect();
    let Data::F(sums) = &mut result.data else { panic!("floats") };
    for (&place, &v) in places.iter().zip(x.floats()) {
        let slot = &mut sums[place];
        *slot = match function {
            ReduceFn::Sum | ReduceFn::Mean => *slot + v,
            ReduceFn::Max => slot.max(v),
            ReduceFn::Min => slot.min(v),
        };
    }
    if function == ReduceFn::Mean {
        let count = (x.len() / sums.len()) as f64;
        sums.iter_mut().for_each(|v| *v /= count);
    }
    if keep_dims {
        return result;
    }
    let left = x.dims.iter().enumerate().filter(|(a, _)| !reduced(*a)).map(|(_, &d)| d).collect();
    result.with_dims(left)
}

fn arg_max(axis: usize, x: &Tensor) -> Tensor {
    let mut outer = x.dims.clone();
    let extent = outer.remove(axis);
    let values = x.floats();
    let best = indices(&outer).map(|at| {
        let value = |i: usize| {
            let mut from = at.clone();
            from.insert(axis, i);
            values[x.at(&from)]
        };
        (1..extent).fold(0, |best, i| if value(i) > value(best) { i } else { best }) as i64
    });
    Tensor::i(&outer, best.collect())
}

fn matmul(transpose_lhs: bool, transpose_rhs: bool, a: &Tensor, b: &Tensor) -> Tensor {
    let matrix = |t: &Tensor, flip: bool| {
        let rank = t.dims.len();
        let (rows, columns) = (t.dims[rank - 2], t.dims[rank - 1]);
        if flip { (columns, rows) } else { (rows, columns) }
    };
    let ((m, inner), (_, n)) = (matrix(a, transpose_lhs), matrix(b, transpose_rhs));
    let mut shape = broadcast_dims(&a.dims[..a.dims.len() - 2], &b.dims[..b.dims.len() - 2]);
    shape.extend([m, n]);
    let read = |t: &Tensor, lead: &[usize], row: usize, column: usize, flip: bool| {
        let (row, column) = if flip { (column, row) } else { (row, column) };
        let lead = &lead[lead.len() + 2 - t.dims.len()..];
        t.floats()[t.at(&[lead, &[row, column]].concat())]
    };
    let sums = indices(&shape).map(|at| {
        let (lead, place) = at.split_at(at.len() - 2);
        let product = |k: usize| {
            read(a, lead, place[0], k, transpose_lhs) * read(b, lead, k, place[1], transpose_rhs)
        };
        (0..inner).map(product).sum()
    });
    Tensor::f(&shape, sums.collect())
}

fn pad(low: &[u32], high: &[u32], value: f32, x: &Tensor) -> Tensor {
    let shape: Vec<usize> = (x.dims.iter().zip(low).zip(high))
        .map(|((&d, &l), &h)| d + l as usize + h as usize)
        .collect();
    let values = x.floats();
    let data = indices(&shape).map(|at| {
        let from: Option<Vec<usize>> = (at.iter().zip(low).zip(&x.dims))
            .map(|((&i, &l), &d)| i.checked_sub(l as usize).filter(|&i| i < d))
            .collect();
        from.map_or(f64::from(value), |from| values[x.at(&from)])
    });
    Tensor::f(&shape, data.collect())
}

fn concat(axis: usize, parts: &[&Tensor]) -> Tensor {
    let mut shape = parts[0].dims.clone();
    shape[axis] = parts.iter().map(|part| part.dims[axis]).sum();
    let flat: Vec<Vec<f64>> = parts.iter().map(|part| as_f64(part)).collect();
    let joined = indices(&shape).map(|mut at| {
        let mut part = 0;
        while at[axis] >= parts[part].dims[axis] {
            at[axis] -= parts[part].dims[axis];
            part += 1;
        }
        flat[part][parts[part].at(&at)]
    });
    match parts[0].dtype {
        DType::F32 => Tensor::f(&shape, joined.collect()),
        dtype => {
            let data = Data::I(joined.map(|v| v as i64).collect());
            Tensor { dtype, dims: shape.clone(), data }
        }
    }
}

fn gather(axis: usize, x: &Tensor, index: &Tensor) -> Tensor {
    let rank = index.dims.len();
    let shape = [&x.dims[..axis], &index.dims, &x.dims[axis + 1..]].concat();
    let values = as_f64(x);
    let picked = indices(&shape).map(|at| {
        let i = index.integers()[index.at(&at[axis..axis + rank])];
        if i < 0 || i >= x.dims[axis] as i64 {
            return 0.0;
        }
        let from = [&at[..axis], &[i as usize], &at[axis + rank..]].concat();
        values[x.at(&from)]
    });
    match x.dtype {
        DType::F32 => Tensor::f(&shape, picked.collect()),
        dtype => {
            let data = Data::I(picked.map(|v| v as i64).collect());
            Tensor { dtype, dims: shape.clone(), data }
        }
    }
}

fn scatter_add(axis: usize, size: usize, updates: &Tensor, index: &Tensor) -> Tensor {
    let rank = index.dims.len();
    let shape = [&updates.dims[..axis], &[size], &updates.dims[axis + rank..]].concat();
    let mut result = Tensor::f(&shape, vec![0.0; shape.iter().product()]);
    for (at, &v) in indices(&updates.dims).zip(updates.floats()) {
        let i = index.integers()[index.at(&at[axis..axis + rank])];
        if i >= 0 && i < size as i64 {
            let to = result.at(&[&at[..axis], &[i as usize], &at[axis + rank..]].concat());
            let Data::F(sums) = &mut result.data else { panic!("floats") };
            sums[to] += v;
        }
    }
    result
}

fn one_hot(depth: usize, index: &Tensor) -> Tensor {
    let shape = [&index.dims[..], &[depth]].concat();
    let hot = |&i: &i64| -> Vec<f64> {
        (0..depth as i64).map(|d| if d == i { 1.0 } else { 0.0 }).collect()
    };
    Tensor::f(&shape, index.integers().iter().flat_map(hot).collect())
}

fn softmax(axis: usize, x: &Tensor, finish: impl Fn(f64) -> f64) -> Tensor {
    let values = x.floats();
    let data = indices(&x.dims).map(|at| {
        let value = |i: usize| {
            let mut from = at.clone();
            from[axis] = i;
            values[x.at(&from)]
        };
        let largest = (0..x.dims[axis]).map(value).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = (0..x.dims[axis]).map(|i| (value(i) - largest).exp()).sum();
        finish((value(at[axis]) - largest).exp() / total)
    });
    Tensor::f(&x.dims, data.collect())
}

fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Tensor {
    let log = softmax(1, logits, f64::ln);
    let classes = logits.dims[1] as i64;
    let loss = |(row, &label): (usize, &i64)| {
        if (0..classes).contains(&label) {
            -log.floats()[row * logits.dims[1] + label as usize]
        } else {
            0.0
        }
    };
    Tensor::f(&labels.dims, labels.integers().iter().enumerate().map(loss).collect())
}

fn cross_entropy_grad(logits: &Tensor, labels: &Tensor, dloss: &Tensor) -> Tensor {
    let p = softmax(1, logits, |v| v);
    let classes = logits.dims[1];
    let data = indices(&logits.dims).map(|at| {
        let label = labels.integers()[at[0]];
        if label < 0 || label >= classes as i64 {
            return 0.0;
        }
        let hot = if label == at[1] as i64 { 1.0 } else { 0.0 };
        dloss.floats()[at[0]] * (p.floats()[at[0] * classes + at[1]] - hot)
    });
    Tensor::f(&logits.dims, data.collect())
}
