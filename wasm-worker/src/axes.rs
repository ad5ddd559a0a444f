//! Lists with an entry per axis. They lie where they are held, so that a step
//! of a run needs no memory for them.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// Axes at most: eight of a graph's values, one more where values of all runs lie in one tensor.
pub const RANK_MAX: usize = 9;

/// An entry per axis, the outermost first.
#[derive(Clone, Copy)]
pub struct PerAxis<T> {
    entries: [T; RANK_MAX],
    count: usize,
}

/// Extents, or steps between neighbours.
pub type Dims = PerAxis<usize>;

impl<T: Copy + Default> PerAxis<T> {
    /// As many times one entry.
    ///
    /// # Panics
    /// Where there are more than [`RANK_MAX`]: no value of a graph has as many axes.
    pub fn filled(count: usize, entry: T) -> Self {
        let mut list = PerAxis::default();
        list.entries[..count].fill(entry);
        list.count = count;
        list
    }

    /// Adds an entry behind the others.
    ///
    /// # Panics
    /// As [`PerAxis::filled`].
    pub fn push(&mut self, entry: T) {
        self.entries[self.count] = entry;
        self.count += 1;
    }

    /// Takes the last entry away.
    pub fn pop(&mut self) -> Option<T> {
        let last = self.last().copied()?;
        self.count -= 1;
        Some(last)
    }
}

impl<T: Copy + Default> Default for PerAxis<T> {
    fn default() -> Self {
        PerAxis { entries: [T::default(); RANK_MAX], count: 0 }
    }
}

impl<T: Copy + Default> From<&[T]> for PerAxis<T> {
    fn from(entries: &[T]) -> Self {
        let mut list = PerAxis::default();
        list.entries[..entries.len()].copy_from_slice(entries);
        list.count = entries.len();
        list
    }
}

impl<T: Copy + Default> FromIterator<T> for PerAxis<T> {
    fn from_iter<I: IntoIterator<Item = T>>(entries: I) -> Self {
        let mut list = PerAxis::default();
        entries.into_iter().for_each(|entry| list.push(entry));
        list
    }
}

impl<T> Deref for PerAxis<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.entries[..self.count]
    }
}

impl<T> DerefMut for PerAxis<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.entries[..self.count]
    }
}

impl<T: fmt::Debug> fmt::Debug for PerAxis<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
