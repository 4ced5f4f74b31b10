//! A value that a callback delivers and a task awaits: how wgpu's callbacks become futures.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// A value that a callback delivers and a task awaits.
pub(super) struct Signal<T>(Arc<Mutex<(Option<T>, Option<Waker>)>>);

impl<T> Clone for Signal<T> {
    fn clone(&self) -> Self {
        Signal(self.0.clone())
    }
}

impl<T> Default for Signal<T> {
    fn default() -> Self {
        Signal(Arc::new(Mutex::new((None, None))))
    }
}

impl<T> Signal<T> {
    pub fn send(&self, value: T) {
        let mut state = self.0.lock().expect("no panic while it is held");
        state.0 = Some(value);
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    pub fn is_ready(&self) -> bool {
        self.0.lock().expect("no panic while it is held").0.is_some()
    }

    /// Waits until the value is there, and leaves it there.
    pub async fn ready(&self) {
        std::future::poll_fn(|context| {
            let mut state = self.0.lock().expect("no panic while it is held");
            match state.0 {
                Some(_) => Poll::Ready(()),
                None => {
                    state.1 = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
    }
}

impl<T> Future for Signal<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut state = self.0.lock().expect("no panic while it is held");
        match state.0.take() {
            Some(value) => Poll::Ready(value),
            None => {
                state.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_sent_from_another_thread_wakes_the_one_who_waits() {
        let signal = Signal::default();
        let sender = signal.clone();
        let thread = std::thread::spawn(move || sender.send(7));
        assert_eq!(pollster::block_on(signal), 7);
        thread.join().unwrap();
    }
}
