//! Times the check of a product, for `scripts/bench freivalds`.
//!
//! `cargo run --release -p raven-proof --example freivalds` reads lines
//! `prepare M K N LAYOUT` (LAYOUT is `ab`, `atb` or `abt`) and `run PROBES MS`, and answers each
//! with one line of JSON: `null`, or the milliseconds of one check, of as many as take MS.

use raven_graph::philox::{key, philox4x32, unit_f32};
use raven_proof::{Operand, Product, Verdict, check_product};
use std::error::Error;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

struct Case {
    extents: [usize; 3],
    transposed: [bool; 2],
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

fn numbers(count: usize, stream: u32) -> Vec<f32> {
    let number = |i| unit_f32(philox4x32([i, stream, 0, 0], key(7))[0]) - 0.5;
    (0..count as u32).map(number).collect()
}

fn turned(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|at| x[at % rows * columns + at / rows]).collect()
}

impl Case {
    fn prepare(extents: [usize; 3], layout: &str) -> Case {
        let [m, k, n] = extents;
        let (a, b) = (numbers(m * k, 0), numbers(k * n, 1));
        let mut c = vec![0f32; m * n];
        for (row, sums) in c.chunks_exact_mut(n).enumerate() {
            for (step, right) in b.chunks_exact(n).enumerate() {
                let left = a[row * k + step];
                sums.iter_mut().zip(right).for_each(|(sum, x)| *sum += left * x);
            }
        }
        let transposed = [layout == "atb", layout == "abt"];
        let a = if transposed[0] { turned(&a, m, k) } else { a };
        let b = if transposed[1] { turned(&b, k, n) } else { b };
        Case { extents, transposed, a, b, c }
    }

    fn check(&self, probes: u32, seed: u64) -> Result<(), Box<dyn Error>> {
        let [m, k, n] = self.extents;
        let a = Operand { elements: &self.a, transposed: self.transposed[0] };
        let b = Operand { elements: &self.b, transposed: self.transposed[1] };
        match check_product(&Product { m, k, n, a, b, c: &self.c }, probes, seed)? {
            Verdict::Consistent => Ok(()),
            verdict => Err(format!("an honest product is called {verdict:?}").into()),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut case = None;
    let mut seed = 0;
    let mut answers = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), &case) {
            (["prepare", m, k, n, layout], _) => {
                case = Some(Case::prepare([m.parse()?, k.parse()?, n.parse()?], layout));
                writeln!(answers, "null")?;
            }
            (["run", probes, ms], Some(case)) => {
                let (probes, least) = (probes.parse()?, Duration::from_millis(ms.parse()?));
                let began = Instant::now();
                let first = seed;
                while began.elapsed() < least {
                    case.check(probes, seed)?;
                    seed += 1;
                }
                let each = began.elapsed().as_secs_f64() * 1e3 / (seed - first) as f64;
                writeln!(answers, "{each}")?;
            }
            _ => return Err(format!("not understood: {line}").into()),
        }
        answers.flush()?;
    }
    Ok(())
}
