//! Four f64 lanes: a register where the processor has one of that width, an array elsewhere.

/// Lanes of a [`Four`].
pub(crate) const LANES: usize = 4;

/// Four numbers.
pub(crate) trait Four: Copy {
    /// Four zeros.
    fn zero() -> Self;
    /// One number in every lane.
    fn splat(x: f64) -> Self;
    /// Four neighbours.
    fn load(x: &[f64; LANES]) -> Self;
    /// Four neighbours, widened.
    fn widen(x: &[f32; LANES]) -> Self;
    /// `self + a * b`, in one rounding or two.
    fn plus_product(self, a: Self, b: Self) -> Self;
    /// Writes the lanes in order.
    fn store(self, to: &mut [f64; LANES]);
    /// All lanes together.
    #[inline(always)]
    fn sum(self) -> f64 {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes);
        (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
    }
}

/// For every target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable([f64; LANES]);

impl Four for Portable {
    #[inline(always)]
    fn zero() -> Self {
        Portable([0.0; LANES])
    }

    #[inline(always)]
    fn splat(x: f64) -> Self {
        Portable([x; LANES])
    }

    #[inline(always)]
    fn load(x: &[f64; LANES]) -> Self {
        Portable(*x)
    }

    #[inline(always)]
    fn widen(x: &[f32; LANES]) -> Self {
        Portable(x.map(f64::from))
    }

    #[inline(always)]
    fn plus_product(self, a: Self, b: Self) -> Self {
        Portable(std::array::from_fn(|lane| self.0[lane] + a.0[lane] * b.0[lane]))
    }

    #[inline(always)]
    fn store(self, to: &mut [f64; LANES]) {
        *to = self.0;
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Four, LANES};
    use std::arch::x86_64::{
        __m256d, _mm_loadu_ps, _mm256_cvtps_pd, _mm256_fmadd_pd, _mm256_loadu_pd, _mm256_set1_pd,
        _mm256_setzero_pd, _mm256_storeu_pd,
    };

    /// One register. Only functions that are compiled for AVX2 and FMA may use it, which whoever
    /// names the type sees to.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Avx2(__m256d);

    impl Four for Avx2 {
        #[inline(always)]
        fn zero() -> Self {
            // SAFETY: the type's users run where the instruction exists.
            Avx2(unsafe { _mm256_setzero_pd() })
        }

        #[inline(always)]
        fn splat(x: f64) -> Self {
            // SAFETY: as above.
            Avx2(unsafe { _mm256_set1_pd(x) })
        }

        #[inline(always)]
        fn load(x: &[f64; LANES]) -> Self {
            // SAFETY: as above, and the reference is valid for 32 bytes of any alignment.
            Avx2(unsafe { _mm256_loadu_pd(x.as_ptr()) })
        }

        #[inline(always)]
        fn widen(x: &[f32; LANES]) -> Self {
            // SAFETY: as above, and the reference is valid for 16 bytes of any alignment.
            Avx2(unsafe { _mm256_cvtps_pd(_mm_loadu_ps(x.as_ptr())) })
        }

        #[inline(always)]
        fn plus_product(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            Avx2(unsafe { _mm256_fmadd_pd(a.0, b.0, self.0) })
        }

        #[inline(always)]
        fn store(self, to: &mut [f64; LANES]) {
            // SAFETY: as above, and the reference is valid for 32 bytes of any alignment.
            unsafe { _mm256_storeu_pd(to.as_mut_ptr(), self.0) };
        }
    }
}
