//! Four f32 lanes: one register in the module, an array elsewhere. Each lane
//! rounds as a scalar does, so both give the same bits.

/// Lanes of a register.
pub const LANES: usize = 4;

#[cfg(target_arch = "wasm32")]
mod lanes {
    use core::arch::wasm32::{
        f32x4_add, f32x4_mul, f32x4_splat, i32x4_shuffle, v128, v128_load, v128_store,
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
    }
}

pub use lanes::F32x4;
