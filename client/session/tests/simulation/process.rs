//! Processes: they can be stopped for a while and killed.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::task::JoinHandle;

/// Something that runs until it ends or is killed.
pub(crate) struct Process {
    task: JoinHandle<()>,
    stop: Stop,
}

/// Stops and resumes tasks.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<Mutex<(bool, Vec<Waker>)>>);

impl Process {
    pub(crate) fn start(main: impl Future<Output = ()> + Send + 'static) -> Self {
        let stop = Stop::default();
        let task = tokio::spawn(Stoppable { stop: stop.clone(), main: Box::pin(main) });
        Self { task, stop }
    }

    /// When this returns, its task is dropped.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Stops or resumes it.
    pub(crate) fn stop(&self, stop: bool) {
        let mut state = self.stop.0.lock().expect("a thread panicked while it held the lock");
        state.0 = stop;
        let wakers = if stop { Vec::new() } else { std::mem::take(&mut state.1) };
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

struct Stoppable<F> {
    stop: Stop,
    main: Pin<Box<F>>,
}

impl<F: Future<Output = ()>> Future for Stoppable<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.stop.0.lock().expect("a thread panicked while it held the lock");
        if state.0 {
            state.1.push(context.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        self.main.as_mut().poll(context)
    }
}
