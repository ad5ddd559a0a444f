//! Token buckets by key, in a table that does not grow beyond its bound.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Buckets at a time: a few megabytes. Those that are full again are forgotten.
const BUCKETS_MAX: usize = 65_536;
/// The table is looked through at most this often, however many come.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How often, and how often at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Over a long time, a second.
    pub per_s: f64,
    /// After a pause, at once.
    pub burst: f64,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Bucket { tokens: rate.burst, at: now }
    }

    fn refilled(self, rate: Rate, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.tokens + passed * rate.per_s).min(rate.burst)
    }

    /// Takes one token, or says in what time there will be one.
    fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let tokens = self.refilled(rate, now);
        if tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - tokens) / rate.per_s));
        }
        *self = Bucket { tokens: tokens - 1.0, at: now };
        Ok(())
    }
}

#[derive(Debug)]
struct Table<K> {
    buckets: HashMap<K, Bucket>,
    /// Shared by all for whom the table has no room.
    rest: Option<Bucket>,
    swept: Option<Instant>,
}

/// Allows each key its rate.
#[derive(Debug)]
pub struct Limiter<K> {
    rate: Rate,
    buckets_max: usize,
    table: Mutex<Table<K>>,
}

impl<K: Eq + Hash> Limiter<K> {
    /// A limiter of which nothing has been taken.
    pub fn new(rate: Rate) -> Self {
        let table = Table { buckets: HashMap::new(), rest: None, swept: None };
        Limiter { rate, buckets_max: BUCKETS_MAX, table: Mutex::new(table) }
    }

    /// What each key is allowed.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes one from `key`'s allowance.
    ///
    /// # Errors
    /// The time after which there is one again.
    pub fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let rate = self.rate;
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = table.buckets.get_mut(&key) {
            return bucket.take(rate, now);
        }
        if table.buckets.len() >= self.buckets_max
            && table.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_EVERY)
        {
            table.swept = Some(now);
            table.buckets.retain(|_, bucket| bucket.refilled(rate, now) < rate.burst);
        }
        if table.buckets.len() >= self.buckets_max {
            return table.rest.get_or_insert(Bucket::full(rate, now)).take(rate, now);
        }
        table.buckets.entry(key).or_insert(Bucket::full(rate, now)).take(rate, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate() {
        let limiter = Limiter::new(Rate { per_s: 2.0, burst: 3.0 });
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for _ in 0..3 {
            assert_eq!(limiter.take("a", at(0)), Ok(()));
        }
        assert_eq!(limiter.take("a", at(0)), Err(Duration::from_millis(500)));
        assert_eq!(limiter.take("b", at(0)), Ok(()), "another key's");
        assert_eq!(limiter.take("a", at(500)), Ok(()));
        assert!(limiter.take("a", at(600)).is_err());
        for _ in 0..3 {
            assert_eq!(limiter.take("a", at(60_000)), Ok(()), "full again, and no fuller");
        }
        assert!(limiter.take("a", at(60_000)).is_err());
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_quiet() {
        let mut limiter = Limiter::new(Rate { per_s: 1.0, burst: 2.0 });
        limiter.buckets_max = 4;
        let start = Instant::now();
        for key in 0..4 {
            assert_eq!(limiter.take(key, start), Ok(()));
        }
        // Everybody else shares one bucket while these are remembered.
        assert_eq!(limiter.take(4, start), Ok(()));
        assert_eq!(limiter.take(5, start), Ok(()));
        assert!(limiter.take(6, start).is_err());
        let later = start + Duration::from_secs(5);
        assert_eq!(limiter.take(7, later), Ok(()));
        assert_eq!(limiter.table.lock().expect("whole").buckets.len(), 1);
    }
}
