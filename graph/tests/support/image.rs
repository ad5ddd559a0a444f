//! Convolution and pooling as plain loops over every window and tap.

use super::{Data, Tensor, indices};
use raven_graph::{Conv2dAttrs, Pool2dAttrs};

fn windows(input: usize, kernel: usize, stride: u32, dilation: u32, low: u32, high: u32) -> usize {
    let covered = dilation as usize * (kernel - 1) + 1;
    (input + (low + high) as usize - covered) / stride as usize + 1
}

/// The image coordinate of a window's tap, or `None` in the padding.
fn tap(
    window: usize,
    tap: usize,
    stride: u32,
    dilation: u32,
    low: u32,
    extent: usize,
) -> Option<usize> {
    let padded = window * stride as usize + tap * dilation as usize;
    padded.checked_sub(low as usize).filter(|&i| i < extent)
}

fn conv_dims(a: &Conv2dAttrs, image: [usize; 2], kernel: [usize; 2]) -> [usize; 2] {
    let [top, bottom, left, right] = a.padding;
    [
        windows(image[0], kernel[0], a.stride[0], a.dilation[0], top, bottom),
        windows(image[1], kernel[1], a.stride[1], a.dilation[1], left, right),
    ]
}

/// Calls `visit(x index, weight index, y index)` for every product of the convolution.
fn products(
    a: &Conv2dAttrs,
    x: [usize; 4],
    weight: [usize; 4],
    mut visit: impl FnMut([usize; 4], [usize; 4], [usize; 4]),
) {
    let [n, _, h, w] = x;
    let [o, per_group, kh, kw] = weight;
    let [oh, ow] = conv_dims(a, [h, w], [kh, kw]);
    let filters = o / a.groups as usize;
    for at in indices(&[n, o, oh, ow, per_group, kh, kw]) {
        let &[b, f, r, c, i, dr, dc] = at.as_slice() else { panic!("seven indices") };
        let row = tap(r, dr, a.stride[0], a.dilation[0], a.padding[0], h);
        let column = tap(c, dc, a.stride[1], a.dilation[1], a.padding[2], w);
        if let (Some(row), Some(column)) = (row, column) {
            let channel = f / filters * per_group + i;
            visit([b, channel, row, column], [f, i, dr, dc], [b, f, r, c]);
        }
    }
}

fn four(dims: &[usize]) -> [usize; 4] {
    dims.try_into().expect("four axes")
}

/// Sums `a[i] * b[j]` into `result[k]` over all products.
struct Sum {
    result: Tensor,
}

impl Sum {
    fn new(dims: [usize; 4]) -> Self {
        Sum { result: Tensor::f(&dims, vec![0.0; dims.iter().product()]) }
    }

    fn add(&mut self, at: [usize; 4], v: f64) {
        let place = self.result.at(&at);
        let Data::F(sums) = &mut self.result.data else { panic!("floats") };
        sums[place] += v;
    }
}

fn get(t: &Tensor, at: [usize; 4]) -> f64 {
    t.floats()[t.at(&at)]
}

pub fn conv2d(a: &Conv2dAttrs, x: &Tensor, weight: &Tensor) -> Tensor {
    let (xd, wd) = (four(&x.dims), four(&weight.dims));
    let [oh, ow] = conv_dims(a, [xd[2], xd[3]], [wd[2], wd[3]]);
    let mut sum = Sum::new([xd[0], wd[0], oh, ow]);
    products(a, xd, wd, |i, j, k| sum.add(k, get(x, i) * get(weight, j)));
    sum.result
}

pub fn conv2d_input_grad(
    a: &Conv2dAttrs,
    input: [usize; 2],
    weight: &Tensor,
    dy: &Tensor,
) -> Tensor {
    let wd = four(&weight.dims);
    let xd = [dy.dims[0], wd[1] * a.groups as usize, input[0], input[1]];
    let mut sum = Sum::new(xd);
    products(a, xd, wd, |i, j, k| sum.add(i, get(weight, j) * get(dy, k)));
    sum.result
}

pub fn conv2d_weight_grad(a: &Conv2dAttrs, kernel: [usize; 2], x: &Tensor, dy: &Tensor) -> Tensor {
    let xd = four(&x.dims);
    let wd = [dy.dims[1], xd[1] / a.groups as usize, kernel[0], kernel[1]];
    let mut sum = Sum::new(wd);
    products(a, xd, wd, |i, j, k| sum.add(j, get(x, i) * get(dy, k)));
    sum.result
}

fn pool_dims(a: &Pool2dAttrs, h: usize, w: usize) -> [usize; 2] {
    let [top, bottom, left, right] = a.padding;
    [
        windows(h, a.kernel[0] as usize, a.stride[0], 1, top, bottom),
        windows(w, a.kernel[1] as usize, a.stride[1], 1, left, right),
    ]
}

/// The image elements of one window, in row-major order.
fn window(a: &Pool2dAttrs, h: usize, w: usize, at: [usize; 4]) -> Vec<[usize; 4]> {
    let taps = indices(&a.kernel.map(|d| d as usize));
    taps.filter_map(|t| {
        let row = tap(at[2], t[0], a.stride[0], 1, a.padding[0], h)?;
        let column = tap(at[3], t[1], a.stride[1], 1, a.padding[2], w)?;
        Some([at[0], at[1], row, column])
    })
    .collect()
}

fn pooled(a: &Pool2dAttrs, x: &[usize]) -> Vec<[usize; 4]> {
    let [oh, ow] = pool_dims(a, x[2], x[3]);
    indices(&[x[0], x[1], oh, ow]).map(|at| four(&at)).collect()
}

fn first_maximum(a: &Pool2dAttrs, x: &Tensor, at: [usize; 4]) -> [usize; 4] {
    let elements = window(a, x.dims[2], x.dims[3], at);
    let better = |best: [usize; 4], e: [usize; 4]| if get(x, e) > get(x, best) { e } else { best };
    elements.into_iter().reduce(better).expect("no window is all padding")
}

pub fn max_pool2d(a: &Pool2dAttrs, x: &Tensor) -> Tensor {
    let [oh, ow] = pool_dims(a, x.dims[2], x.dims[3]);
    let maxima = pooled(a, &x.dims).into_iter().map(|at| get(x, first_maximum(a, x, at)));
    Tensor::f(&[x.dims[0], x.dims[1], oh, ow], maxima.collect())
}

pub fn max_pool2d_grad(a: &Pool2dAttrs, x: &Tensor, dy: &Tensor) -> Tensor {
    let mut sum = Sum::new(four(&x.dims));
    for at in pooled(a, &x.dims) {
        sum.add(first_maximum(a, x, at), get(dy, at));
    }
    sum.result
}

pub fn avg_pool2d(a: &Pool2dAttrs, x: &Tensor) -> Tensor {
    let [oh, ow] = pool_dims(a, x.dims[2], x.dims[3]);
    let area = f64::from(a.kernel[0] * a.kernel[1]);
    let mean = |at| {
        let elements = window(a, x.dims[2], x.dims[3], at);
        elements.into_iter().map(|e| get(x, e)).sum::<f64>() / area
    };
    Tensor::f(&[x.dims[0], x.dims[1], oh, ow], pooled(a, &x.dims).into_iter().map(mean).collect())
}

pub fn avg_pool2d_grad(a: &Pool2dAttrs, input: [usize; 2], dy: &Tensor) -> Tensor {
    let dims = [dy.dims[0], dy.dims[1], input[0], input[1]];
    let area = f64::from(a.kernel[0] * a.kernel[1]);
    let mut sum = Sum::new(dims);
    for at in pooled(a, &dims) {
        for e in window(a, input[0], input[1], at) {
            sum.add(e, get(dy, at) / area);
        }
    }
    sum.result
}
