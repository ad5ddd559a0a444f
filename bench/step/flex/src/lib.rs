//! Training steps of the benchmark's two networks on burn-flex with burn's autodiff: forward,
//! backward, a plain SGD update. Weights, images and labels stay in the module's memory.

use burn_autodiff::Autodiff;
use burn_backend::backend::AutodiffBackend;
use burn_backend::ops::{ActivationOps, ConvOptions, FloatTensorOps, ModuleOps};
use burn_backend::tensor::FloatTensor;
use burn_backend::{Scalar, TensorData};
use burn_flex::{Flex, FlexDevice};
use std::cell::RefCell;

type B = Autodiff<Flex>;
type F = FloatTensor<B>;

const BATCH: usize = 64;
const CLASSES: usize = 10;
const LEARNING_RATE: f32 = 0.01;

#[derive(Clone, Copy)]
enum Case {
    Mlp,
    Cnn,
}

struct Network {
    case: Case,
    /// Weights and biases by turns.
    params: Vec<F>,
    images: F,
    /// One row of zeros and a one for each image.
    labels: F,
}

thread_local! {
    static NETWORK: RefCell<Option<Network>> = const { RefCell::new(None) };
}

/// Numbers in -0.5..0.5, the same on every run.
fn noise(state: &mut u32) -> f32 {
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    (*state >> 8) as f32 / (1 << 24) as f32 - 0.5
}

fn tensor(values: Vec<f32>, dims: &[usize]) -> F {
    let data = TensorData::new(values, dims.to_vec());
    B::from_inner(Flex::float_from_data(data, &FlexDevice))
}

fn random(dims: &[usize], scale: f32, state: &mut u32) -> F {
    let length = dims.iter().product();
    tensor((0..length).map(|_| scale * noise(state)).collect(), dims)
}

impl Network {
    fn new(case: Case) -> Self {
        let mut state = 7;
        let (layers, input): (&[(&[usize], usize)], &[usize]) = match case {
            Case::Mlp => (&[(&[784, 256], 784), (&[256, 128], 256), (&[128, 10], 128)], &[BATCH, 784]),
            Case::Cnn => (
                &[
                    (&[16, 1, 5, 5], 25),
                    (&[32, 16, 5, 5], 400),
                    (&[1568, 128], 1568),
                    (&[128, 10], 128),
                ],
                &[BATCH, 1, 28, 28],
            ),
        };
        let mut params = Vec::new();
        for &(dims, fan_in) in layers {
            let scale = 2.0 * (3.0 / fan_in as f32).sqrt();
            let bias = if dims.len() == 4 { vec![dims[0]] } else { vec![1, dims[1]] };
            for (dims, scale) in [(dims.to_vec(), scale), (bias, 0.0)] {
                params.push(B::float_set_require_grad(random(&dims, scale, &mut state), true));
            }
        }
        let hot = |at: usize| f32::from(u8::from(at % CLASSES == (at / CLASSES) % CLASSES));
        Network {
            case,
            params,
            images: random(input, 1.0, &mut state),
            labels: tensor((0..BATCH * CLASSES).map(hot).collect(), &[BATCH, CLASSES]),
        }
    }

    fn dense(&self, x: F, layer: usize) -> F {
        let [weight, bias] = [2 * layer, 2 * layer + 1].map(|at| self.params[at].clone());
        B::float_add(B::float_matmul(x, weight), bias)
    }

    /// A convolution to the same size, ReLU, and the maxima of 2 by 2 tiles.
    fn convolve(&self, x: F, layer: usize) -> F {
        let [weight, bias] = [2 * layer, 2 * layer + 1].map(|at| self.params[at].clone());
        let y = B::conv2d(x, weight, Some(bias), ConvOptions::new([1, 1], [2, 2], [1, 1], 1));
        B::max_pool2d(B::relu(y), [2, 2], [2, 2], [0, 0], [1, 1], false)
    }

    fn logits(&self) -> F {
        let x = self.images.clone();
        match self.case {
            Case::Mlp => {
                let hidden = (0..2).fold(x, |x, layer| B::relu(self.dense(x, layer)));
                self.dense(hidden, 2)
            }
            Case::Cnn => {
                let images = (0..2).fold(x, |x, layer| self.convolve(x, layer));
                let flat = B::float_reshape(images, [BATCH, 1568].into());
                self.dense(B::relu(self.dense(flat, 2)), 3)
            }
        }
    }

    fn step(&mut self) -> f32 {
        let picked = B::float_mul(B::log_softmax(self.logits(), 1), self.labels.clone());
        let loss = B::float_mul_scalar(B::float_sum(picked), Scalar::from(-1.0 / BATCH as f32));
        let value = first(B::inner(loss.clone()));
        let gradients = B::backward(loss);
        for param in &mut self.params {
            let Some(gradient) = B::grad(param, &gradients) else { continue };
            let change = Flex::float_mul_scalar(gradient, Scalar::from(LEARNING_RATE));
            let next = Flex::float_sub(B::inner(param.clone()), change);
            *param = B::float_set_require_grad(B::from_inner(next), true);
        }
        value
    }
}

fn first(tensor: FloatTensor<Flex>) -> f32 {
    tensor.into_data().as_slice::<f32>().ok().and_then(|values| values.first().copied()).unwrap_or(f32::NAN)
}

/// The seed that burn asks for: no number that is drawn from it is used here.
#[cfg(target_arch = "wasm32")]
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(
    dest: *mut u8,
    len: usize,
) -> Result<(), getrandom::Error> {
    // SAFETY: the caller hands over `len` bytes to be written.
    unsafe { std::ptr::write_bytes(dest, 7, len) };
    Ok(())
}

/// Makes the network: 0 the multilayer perceptron, 1 the convolutional one.
#[unsafe(no_mangle)]
pub extern "C" fn prepare(case: u32) {
    let case = if case == 0 { Case::Mlp } else { Case::Cnn };
    NETWORK.with(|network| *network.borrow_mut() = Some(Network::new(case)));
}

/// One training step; its mean loss.
#[unsafe(no_mangle)]
pub extern "C" fn step() -> f32 {
    NETWORK.with(|network| network.borrow_mut().as_mut().map_or(f32::NAN, Network::step))
}
