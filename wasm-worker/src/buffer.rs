//! Memory that comes back: the elements of a value that dies are kept for the
//! next value of about that size, so that a graph that runs again takes no new
//! memory.
//!
//! What is kept and what is in use are bounded together by [`limit`]: the kernel
//! sets aside what the running task's values take at most, and beside that what
//! its budget leaves. So a run finds its own memory again however tight the
//! budget is. What a buffer in use has to spare must be left by the budget, since
//! no plan knows of it. What has lain longest goes first. Each thread keeps its
//! own; the module has one.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// A buffer serves values that leave at most this part of them to spare: 1 / 8.
/// A graph that runs again asks for the same sizes, so that most are exact.
const SPARE_PART: usize = 8;
/// Buffers kept of one type at most, so that looking through them stays cheap.
const KEPT_MAX: usize = 256;

/// Elements beside the count of who holds them: both are one allocation's worth, and come back
/// together.
#[derive(Debug)]
struct Stored<T> {
    elements: Vec<T>,
    /// What is counted while they are in use. `None` where the elements came from outside: they
    /// are not kept, since nobody may ever ask for their size.
    counted: Option<InUse>,
}

/// Bytes of buffers in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct InUse {
    /// What was asked for.
    values: u64,
    /// Room beyond that.
    spare: u64,
}

impl InUse {
    fn of<T>(elements: &Vec<T>, count: usize) -> Self {
        let values = (count * size_of::<T>()) as u64;
        InUse { values, spare: bytes_of(elements).saturating_sub(values) }
    }
}

#[derive(Debug)]
struct Kept<T> {
    stored: Rc<Stored<T>>,
    /// When it came back, by the shelves' own count.
    since: u64,
}

/// What is kept of one type, what has lain longest first.
#[derive(Debug)]
pub struct Shelf<T>(Vec<Kept<T>>);

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Shelf(Vec::new())
    }
}

/// A shelf of whatever type.
trait AnyShelf {
    /// Since when the first buffer lies there.
    fn oldest(&self) -> Option<u64>;
    /// Lets the first buffer go; returns its bytes.
    fn forget_oldest(&mut self) -> u64;
}

impl<T> AnyShelf for Shelf<T> {
    fn oldest(&self) -> Option<u64> {
        self.0.first().map(|kept| kept.since)
    }

    fn forget_oldest(&mut self) -> u64 {
        if self.0.is_empty() { 0 } else { bytes_of(&self.0.remove(0).stored.elements) }
    }
}

/// What is kept, by type.
#[derive(Debug, Default)]
pub struct Shelves {
    f32: Shelf<f32>,
    i32: Shelf<i32>,
    u8: Shelf<u8>,
    bool: Shelf<bool>,
    usize: Shelf<usize>,
    rows: Shelf<[f32; 4]>,
    /// Bytes on all shelves.
    bytes: u64,
    /// Bytes of all buffers in use.
    in_use: InUse,
    limit: Limit,
    /// Buffers that came back so far.
    returns: u64,
}

/// How many bytes buffers may take, kept or in use.
#[derive(Clone, Copy, Debug, Default)]
struct Limit {
    /// Set aside for values.
    reserved: u64,
    /// For whatever else is worth keeping.
    free: u64,
}

impl Limit {
    fn whole(self) -> u64 {
        self.reserved.saturating_add(self.free)
    }
}

thread_local! {
    static KEPT: RefCell<Shelves> = RefCell::default();
}

/// A type whose buffers are kept.
pub trait Pooled: Copy + Default + 'static {
    /// Its shelf.
    fn shelf(shelves: &mut Shelves) -> &mut Shelf<Self>;
}

macro_rules! pooled {
    ($($type:ty: $shelf:ident),*) => {
        $(impl Pooled for $type {
            fn shelf(shelves: &mut Shelves) -> &mut Shelf<Self> {
                &mut shelves.$shelf
            }
        })*

        impl Shelves {
            fn all(&mut self) -> impl Iterator<Item = &mut dyn AnyShelf> {
                let all: [&mut dyn AnyShelf; _] = [$(&mut self.$shelf),*];
                all.into_iter()
            }
        }
    };
}

pooled!(f32: f32, i32: i32, u8: u8, bool: bool, usize: usize, [f32; 4]: rows);

fn bytes_of<T>(elements: &Vec<T>) -> u64 {
    (elements.capacity() * size_of::<T>()) as u64
}

impl Shelves {
    /// The smallest kept buffer with room for `count`, of equal ones the last that came back. It
    /// holds whatever it held before.
    fn find<T: Pooled>(&mut self, count: usize) -> Option<Rc<Stored<T>>> {
        // No plan knows of what a buffer has to spare: there must be room for it anyway.
        let free = self.limit.free.saturating_sub(self.in_use.spare) / size_of::<T>() as u64;
        let spare_max = free.min((count / SPARE_PART) as u64) as usize;
        let fits = count..=count.saturating_add(spare_max);
        let Shelf(shelf) = T::shelf(self);
        let places = shelf.iter().enumerate().rev();
        let places = places.map(|(at, kept)| (at, kept.stored.elements.capacity()));
        let (at, _) =
            places.filter(|(_, room)| fits.contains(room)).min_by_key(|(_, room)| *room)?;
        let Kept { stored, .. } = shelf.remove(at);
        self.bytes -= bytes_of(&stored.elements);
        Some(stored)
    }

    /// Bytes of all buffers, kept or in use.
    fn taken(&self) -> u64 {
        self.bytes + self.in_use.values + self.in_use.spare
    }

    /// Lets go what has lain longest until `coming` bytes have room.
    fn make_room(&mut self, coming: u64) {
        while self.taken() + coming > self.limit.whole() {
            let oldest = self.all().filter_map(|shelf| Some((shelf.oldest()?, shelf)));
            let Some((_, shelf)) = oldest.min_by_key(|(since, _)| *since) else { return };
            let bytes = shelf.forget_oldest();
            self.bytes -= bytes;
        }
    }

    fn begin_use(&mut self, counted: InUse) {
        self.in_use.values += counted.values;
        self.in_use.spare += counted.spare;
    }

    /// Keeps elements that nobody needs any more, where the limit allows that at all.
    fn put_back<T: Pooled>(&mut self, stored: Rc<Stored<T>>, counted: InUse) {
        self.in_use.values = self.in_use.values.saturating_sub(counted.values);
        self.in_use.spare = self.in_use.spare.saturating_sub(counted.spare);
        let bytes = bytes_of(&stored.elements);
        if bytes == 0 || bytes + self.taken() - self.bytes > self.limit.whole() {
            return;
        }
        self.make_room(bytes);
        if T::shelf(self).0.len() >= KEPT_MAX {
            let forgotten = T::shelf(self).forget_oldest();
            self.bytes -= forgotten;
        }
        self.returns += 1;
        let since = self.returns;
        T::shelf(self).0.push(Kept { stored, since });
        self.bytes += bytes;
    }
}

/// From now on buffers take at most `reserved` bytes for values that are planned, and `free` bytes
/// beside them; what is kept beyond that goes at once.
pub fn limit(free: u64, reserved: u64) {
    KEPT.with_borrow_mut(|shelves| {
        shelves.limit = Limit { reserved, free };
        shelves.make_room(0);
    });
}

/// Elements that several may hold, to be read; they are kept when nobody holds them any more.
#[derive(Clone, Debug)]
pub struct Shared<T: Pooled>(Rc<Stored<T>>);

impl<T: Pooled> Shared<T> {
    /// Whether nobody else holds the elements.
    pub fn is_unique(&self) -> bool {
        Rc::strong_count(&self.0) == 1
    }

    /// The elements, to be written: a copy where somebody else holds them.
    pub fn into_buffer(self) -> Buffer<T> {
        if self.is_unique() { Buffer(self) } else { Buffer::copy_of(&self) }
    }
}

impl<T: Pooled> Deref for Shared<T> {
    type Target = Vec<T>;
    fn deref(&self) -> &Vec<T> {
        &self.0.elements
    }
}

impl<T: Pooled> Drop for Shared<T> {
    fn drop(&mut self) {
        let Some(counted) = self.0.counted.filter(|_| self.is_unique()) else { return };
        // The second hold outlives this one, so that what is kept is never freed in between.
        let stored = self.0.clone();
        // While the thread ends, its shelves are gone and the elements go too.
        let _ = KEPT.try_with(|shelves| shelves.borrow_mut().put_back(stored, counted));
    }
}

/// Elements that one alone holds, to be written.
#[derive(Debug)]
pub struct Buffer<T: Pooled>(Shared<T>);

impl<T: Pooled> Buffer<T> {
    /// Room for `count` elements, kept or new.
    fn take(count: usize) -> Self {
        KEPT.with_borrow_mut(|shelves| {
            let stored = shelves.find(count).unwrap_or_else(|| {
                shelves.make_room((count * size_of::<T>()) as u64);
                Rc::new(Stored { elements: Vec::with_capacity(count), counted: None })
            });
            let mut buffer = Buffer(Shared(stored));
            let counted = InUse::of(&buffer, count);
            shelves.begin_use(counted);
            buffer.stored().counted = Some(counted);
            buffer
        })
    }

    fn stored(&mut self) -> &mut Stored<T> {
        Rc::get_mut(&mut self.0.0).expect("one alone holds a buffer")
    }

    /// No elements, with room for `count`.
    pub fn empty(count: usize) -> Self {
        let mut buffer = Self::take(count);
        buffer.clear();
        buffer
    }

    /// `count` elements of any value, for who writes all of them.
    pub fn stale(count: usize) -> Self {
        let mut buffer = Self::take(count);
        buffer.resize(count, T::default());
        buffer
    }

    /// `count` times one value.
    pub fn filled(count: usize, value: T) -> Self {
        let mut elements = Self::empty(count);
        elements.resize(count, value);
        elements
    }

    /// A copy.
    pub fn copy_of(elements: &[T]) -> Self {
        let mut copy = Self::empty(elements.len());
        copy.extend_from_slice(elements);
        copy
    }

    /// The elements as others may hold them.
    pub fn into_shared(self) -> Shared<T> {
        self.0
    }

    /// The elements, to be handed to others. What comes back of them is [`Buffer::returned`].
    pub fn into_vec(mut self) -> Vec<T> {
        std::mem::take(&mut self.stored().elements)
    }

    /// Elements in the place of those that [`Buffer::into_vec`] gave away, of as many bytes.
    pub fn returned(elements: Vec<T>) -> Self {
        let counted = InUse::of(&elements, elements.len());
        KEPT.with_borrow_mut(|shelves| shelves.begin_use(counted));
        Buffer(Shared(Rc::new(Stored { elements, counted: Some(counted) })))
    }
}

/// Elements from outside: they are not kept.
impl<T: Pooled> From<Vec<T>> for Buffer<T> {
    fn from(elements: Vec<T>) -> Self {
        Buffer(Shared(Rc::new(Stored { elements, counted: None })))
    }
}

impl<T: Pooled> Deref for Buffer<T> {
    type Target = Vec<T>;
    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T: Pooled> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.stored().elements
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes on the shelves, of values in use, and to spare.
    fn bytes() -> [u64; 3] {
        KEPT.with_borrow(|shelves| [shelves.bytes, shelves.in_use.values, shelves.in_use.spare])
    }

    #[test]
    fn a_buffer_comes_back_to_values_of_about_its_size() {
        limit(1 << 20, 0);
        let first = Buffer::filled(1000, 1f32);
        let address = first.as_ptr();
        drop(first);
        assert_eq!(bytes(), [4000, 0, 0]);
        assert_ne!(Buffer::<f32>::stale(800).as_ptr(), address, "it is too large");
        let again = Buffer::<f32>::filled(900, 2.0);
        assert_eq!((again.as_ptr(), again.len()), (address, 900));
        assert!(again.iter().all(|&x| x == 2.0));
        drop(again);
        let whole = Buffer::<f32>::stale(1000);
        assert_eq!((whole.as_ptr(), whole.len()), (address, 1000));
        limit(0, 0);
    }

    #[test]
    fn what_is_shared_comes_back_once_nobody_holds_it() {
        limit(1000, 0);
        let shared = Buffer::filled(100, 1u8).into_shared();
        let other = shared.clone();
        assert!(!shared.is_unique());
        drop(shared);
        assert_eq!(bytes(), [0, 100, 0]);
        let address = other.as_ptr();
        let own = other.into_buffer();
        assert_eq!(own.as_ptr(), address, "nobody else holds it");
        drop(own);
        assert_eq!(bytes(), [100, 0, 0]);
        limit(0, 0);
    }

    #[test]
    fn no_more_is_kept_than_the_limit() {
        limit(1000, 0);
        drop(Buffer::filled(100, 0f32));
        drop([Buffer::filled(200, 0u8), Buffer::filled(200, 1u8)]);
        assert_eq!(bytes(), [800, 0, 0]);
        limit(500, 0);
        assert_eq!(bytes(), [400, 0, 0], "what came first goes first, whatever its type");
        drop(Buffer::filled(1001, 0u8));
        assert_eq!(bytes(), [0, 0, 0], "it took the place of the others, and has none itself");
        limit(0, 0);
    }

    #[test]
    fn what_is_kept_leaves_room_for_what_is_in_use() {
        limit(0, 1000);
        drop([Buffer::filled(300, 0u8), Buffer::filled(400, 0u8)]);
        assert_eq!(bytes(), [700, 0, 0], "it is reserved for values, of whatever time");
        let larger = Buffer::filled(600, 0u8);
        assert_eq!(bytes(), [400, 600, 0], "what has lain longest made room");
        let exact = Buffer::<u8>::stale(400);
        assert_eq!(bytes(), [0, 1000, 0]);
        drop(larger);
        drop(exact);
        assert_eq!(bytes(), [1000, 0, 0]);
        limit(0, 0);
    }

    #[test]
    fn what_a_buffer_has_to_spare_must_be_free() {
        limit(300, 4000);
        drop(Buffer::filled(1000, 0f32));
        let smaller = Buffer::<f32>::stale(950);
        assert_eq!(bytes(), [0, 3800, 200]);
        drop(smaller);
        let smaller = Buffer::<f32>::stale(900);
        assert_eq!(bytes(), [0, 3600, 0], "400 bytes are too much");
        drop(smaller);
        limit(1000, 4000);
        drop(Buffer::filled(1000, 0f32));
        let smaller = Buffer::filled(900, 0f32);
        assert_eq!(bytes()[1..], [3600, 400]);
        let given = smaller.into_vec();
        assert_eq!(bytes()[1..], [0, 0]);
        let smaller = Buffer::returned(given);
        assert_eq!(bytes()[1..], [3600, 400]);
        drop(smaller);
        assert_eq!(bytes()[1..], [0, 0]);
        limit(0, 0);
    }

    #[test]
    fn what_has_lain_longest_makes_room() {
        limit(1200, 0);
        let [a, b] = [0, 1].map(|x| Buffer::filled(400, x as u8));
        let c = Buffer::filled(100, 0i32);
        let kept_addresses = [b.as_ptr() as usize, c.as_ptr() as usize];
        drop(a);
        drop(b);
        drop(c);
        limit(1000, 0);
        assert_eq!(bytes(), [800, 0, 0]);
        let (b, c) = (Buffer::<u8>::stale(400), Buffer::<i32>::stale(100));
        assert_eq!([b.as_ptr() as usize, c.as_ptr() as usize], kept_addresses);
        assert_eq!(bytes(), [0, 800, 0]);
        limit(0, 0);
    }

    #[test]
    fn the_shelf_of_one_type_stays_short() {
        limit(1 << 20, 0);
        drop((0..KEPT_MAX + 10).map(|_| Buffer::filled(4, 0u8)).collect::<Vec<_>>());
        assert_eq!(bytes(), [4 * KEPT_MAX as u64, 0, 0]);
        limit(0, 0);
    }

    #[test]
    fn what_came_from_outside_is_not_kept() {
        limit(1 << 20, 0);
        drop(Buffer::from(vec![0f32; 100]));
        assert_eq!(bytes(), [0, 0, 0]);
        limit(0, 0);
    }
}
