//! One value handed from a callback to a future, and from a future to several.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

/// A future of a value that a callback sends; both ends are clones of each other.
#[derive(Debug)]
pub struct Signal<T>(Arc<Mutex<State<T>>>);

impl<T> Clone for Signal<T> {
    fn clone(&self) -> Self {
        Signal(self.0.clone())
    }
}

impl<T> Default for Signal<T> {
    fn default() -> Self {
        Signal(Arc::new(Mutex::new(State { value: None, waker: None })))
    }
}

impl<T> Signal<T> {
    /// Resolves the future.
    pub fn send(&self, value: T) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.value = Some(value);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

impl<T> Future for Signal<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Everybody who waits for a [`Shared`]: some may be gone, so all are woken.
#[derive(Debug, Default)]
struct Waiters(Mutex<Vec<Waker>>);

impl Wake for Waiters {
    fn wake(self: Arc<Self>) {
        let waiters = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        waiters.into_iter().for_each(Waker::wake);
    }
}

enum Source<T> {
    Pending(Pin<Box<dyn Future<Output = T>>>),
    Ready(T),
}

/// A future whose clones all resolve to the same value; any of them may be dropped.
pub struct Shared<T> {
    source: Rc<RefCell<Source<T>>>,
    waiters: Arc<Waiters>,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared { source: self.source.clone(), waiters: self.waiters.clone() }
    }
}

impl<T> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl<T: Clone> Shared<T> {
    /// Shares what `future` resolves to.
    pub fn new(future: Pin<Box<dyn Future<Output = T>>>) -> Self {
        let source = Rc::new(RefCell::new(Source::Pending(future)));
        Shared { source, waiters: Arc::default() }
    }

    /// The value, if it is there.
    pub fn now(&self) -> Option<T> {
        let mut source = self.source.borrow_mut();
        if let Source::Pending(future) = &mut *source {
            let waker = Waker::from(self.waiters.clone());
            let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) else {
                return None;
            };
            *source = Source::Ready(value);
        }
        match &*source {
            Source::Ready(value) => Some(value.clone()),
            Source::Pending(_) => None,
        }
    }
}

impl<T: Clone> Future for Shared<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let waiters = &self.waiters.0;
        waiters.lock().unwrap_or_else(PoisonError::into_inner).push(context.waker().clone());
        self.now().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_shared_value_reaches_all_who_still_wait() {
        let signal: Signal<u32> = Signal::default();
        let mut first = Shared::new(Box::pin(signal.clone()));
        let mut second = first.clone();
        let (one, two) = (Arc::new(Count::default()), Arc::new(Count::default()));
        for (shared, count) in [(&mut first, &one), (&mut second, &two)] {
            let waker = Waker::from(count.clone());
            assert!(Pin::new(shared).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        // The one who asked last goes away; the other is woken all the same.
        drop(second);
        assert_eq!(first.now(), None);
        signal.send(7);
        assert_eq!((one.0.load(Ordering::Relaxed), first.now()), (1, Some(7)));
        assert_eq!(first.clone().now(), Some(7));
    }
}
