//! Four f32 lanes: one register in the module, an array elsewhere. Each lane
//! rounds as a scalar does, so both give the same bits.

/// Lanes of a register.
pub const LANES: usize = 4;

#[cfg(target_arch = "wasm32")]
mod lanes {
    use core::arch::wasm32::{
        f32x4_add, f32x4_gt, f32x4_mul, f32x4_ne, f32x4_splat, i32x4_shuffle, v128, v128_and,
        v128_andnot, v128_any_true, v128_bitselect, v128_load, v128_store,
    };

    /// Four numbers.
    #[derive(Clone, Copy, Debug)]
    pub struct F32x4(v128);

    impl F32x4 {
        /// One number in every lane.
        #[inline(always)]
        pub fn splat(x: f32) -> Self {
            F32x4(f32x4_splat(x))
        }

        /// Four neighbours.
        #[inline(always)]
        pub fn load(x: &[f32; 4]) -> Self {
            // SAFETY: the reference is valid for 16 bytes, and the load takes any alignment.
            F32x4(unsafe { v128_load(x.as_ptr().cast()) })
        }

        /// `self + a * b`, rounded after each of both.
        #[inline(always)]
        pub fn plus_product(self, a: Self, b: Self) -> Self {
            F32x4(f32x4_add(self.0, f32x4_mul(a.0, b.0)))
        }

        /// `self + other`.
        #[inline(always)]
        pub fn plus(self, other: Self) -> Self {
            F32x4(f32x4_add(self.0, other.0))
        }

        /// The lanes in order.
        #[inline(always)]
        pub fn to_array(self) -> [f32; 4] {
            let mut lanes = [0f32; 4];
            self.store(&mut lanes);
            lanes
        }

        /// Writes the lanes in order.
        #[inline(always)]
        pub fn store(self, to: &mut [f32; 4]) {
            // SAFETY: the reference is valid for 16 bytes, and the store takes any alignment.
            unsafe { v128_store(to.as_mut_ptr().cast(), self.0) };
        }

        /// Four rows of four as four columns.
        #[inline(always)]
        pub fn turn([a, b, c, d]: [Self; 4]) -> [Self; 4] {
            let (low, high) = (i32x4_shuffle::<0, 4, 1, 5>, i32x4_shuffle::<2, 6, 3, 7>);
            let (ab, cd) = (low(a.0, b.0), low(c.0, d.0));
            let (ab_high, cd_high) = (high(a.0, b.0), high(c.0, d.0));
            let (first, second) = (i32x4_shuffle::<0, 1, 4, 5>, i32x4_shuffle::<2, 3, 6, 7>);
            let columns =
                [first(ab, cd), second(ab, cd), first(ab_high, cd_high), second(ab_high, cd_high)];
            columns.map(F32x4)
        }

        /// Where `self` is greater; false where either is NaN.
        #[inline(always)]
        pub fn greater(self, other: Self) -> Mask {
            Mask(f32x4_gt(self.0, other.0))
        }

        /// Whether any lane is NaN.
        #[inline(always)]
        pub fn has_nan(self) -> bool {
            v128_any_true(f32x4_ne(self.0, self.0))
        }

        /// The lanes at even and at odd places of eight.
        #[inline(always)]
        pub fn split([a, b]: [Self; 2]) -> [Self; 2] {
            [i32x4_shuffle::<0, 2, 4, 6>(a.0, b.0), i32x4_shuffle::<1, 3, 5, 7>(a.0, b.0)]
                .map(F32x4)
        }

        /// The inverse of [`F32x4::split`].
        #[inline(always)]
        pub fn merge([even, odd]: [Self; 2]) -> [Self; 2] {
            [i32x4_shuffle::<0, 4, 1, 5>(even.0, odd.0), i32x4_shuffle::<2, 6, 3, 7>(even.0, odd.0)]
                .map(F32x4)
        }
    }

    /// A truth value per lane.
    #[derive(Clone, Copy, Debug)]
    pub struct Mask(v128);

    impl Mask {
        /// `a` where true, else `b`.
        #[inline(always)]
        pub fn pick(self, a: F32x4, b: F32x4) -> F32x4 {
            F32x4(v128_bitselect(a.0, b.0, self.0))
        }

        /// `x` where true, else 0.
        #[inline(always)]
        pub fn keep(self, x: F32x4) -> F32x4 {
            F32x4(v128_and(x.0, self.0))
        }

        /// `x` where false, else 0.
        #[inline(always)]
        pub fn drop(self, x: F32x4) -> F32x4 {
            F32x4(v128_andnot(x.0, self.0))
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod lanes {
    /// Four numbers.
    #[derive(Clone, Copy, Debug)]
    pub struct F32x4([f32; 4]);

    impl F32x4 {
        /// One number in every lane.
        #[inline(always)]
        pub fn splat(x: f32) -> Self {
            F32x4([x; 4])
        }

        /// Four neighbours.
        #[inline(always)]
        pub fn load(x: &[f32; 4]) -> Self {
            F32x4(*x)
        }

        /// `self + a * b`, rounded after each of both.
        #[inline(always)]
        pub fn plus_product(self, a: Self, b: Self) -> Self {
            F32x4(std::array::from_fn(|lane| self.0[lane] + a.0[lane] * b.0[lane]))
        }

        /// `self + other`.
        #[inline(always)]
        pub fn plus(self, other: Self) -> Self {
            F32x4(std::array::from_fn(|lane| self.0[lane] + other.0[lane]))
        }

        /// The lanes in order.
        #[inline(always)]
        pub fn to_array(self) -> [f32; 4] {
            self.0
        }

        /// Writes the lanes in order.
        #[inline(always)]
        pub fn store(self, to: &mut [f32; 4]) {
            *to = self.0;
        }

        /// Four rows of four as four columns.
        #[inline(always)]
        pub fn turn(rows: [Self; 4]) -> [Self; 4] {
            std::array::from_fn(|i| F32x4(std::array::from_fn(|j| rows[j].0[i])))
        }

        /// Where `self` is greater; false where either is NaN.
        #[inline(always)]
        pub fn greater(self, other: Self) -> Mask {
            Mask(std::array::from_fn(|lane| self.0[lane] > other.0[lane]))
        }

        /// Whether any lane is NaN.
        #[inline(always)]
        pub fn has_nan(self) -> bool {
            self.0.iter().any(|x| x.is_nan())
        }

        /// The lanes at even and at odd places of eight.
        #[inline(always)]
        pub fn split([a, b]: [Self; 2]) -> [Self; 2] {
            [0, 1].map(|odd| F32x4([a.0[odd], a.0[odd + 2], b.0[odd], b.0[odd + 2]]))
        }

        /// The inverse of [`F32x4::split`].
        #[inline(always)]
        pub fn merge([even, odd]: [Self; 2]) -> [Self; 2] {
            [0, 2].map(|at| F32x4([even.0[at], odd.0[at], even.0[at + 1], odd.0[at + 1]]))
        }
    }

    /// A truth value per lane.
    #[derive(Clone, Copy, Debug)]
    pub struct Mask([bool; 4]);

    impl Mask {
        /// `a` where true, else `b`.
        #[inline(always)]
        pub fn pick(self, a: F32x4, b: F32x4) -> F32x4 {
            F32x4(std::array::from_fn(|lane| if self.0[lane] { a.0[lane] } else { b.0[lane] }))
        }

        /// `x` where true, else 0.
        #[inline(always)]
        pub fn keep(self, x: F32x4) -> F32x4 {
            self.pick(x, F32x4([0.0; 4]))
        }

        /// `x` where false, else 0.
        #[inline(always)]
        pub fn drop(self, x: F32x4) -> F32x4 {
            self.pick(F32x4([0.0; 4]), x)
        }
    }
}

pub use lanes::F32x4;
