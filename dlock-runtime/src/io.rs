//! The one thread that every connection lives on.
//!
//! A socket of tokio dies with the runtime that opened it, and every `#[tokio::test]` is one; synchronous callers
//! and other executors have none. So dlock has a runtime of its own: one thread, started by the first locker and
//! stopped with the last.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::process;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use futures_util::FutureExt;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::error::{Error, InitError};

static RUNNING: Mutex<Weak<Io>> = Mutex::new(Weak::new());

/// The I/O thread; it stops when the last reference is dropped.
pub(crate) struct Io {
    runtime: Handle,
    /// A forked child has our memory but not our thread.
    pid: u32,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Io {
    /// The running I/O thread, or a new one.
    pub(crate) fn get() -> Result<Arc<Io>, InitError> {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(io) = running.upgrade().filter(|io| io.is_ours()) {
            return Ok(io);
        }
        let io = Arc::new(Io::start()?);
        *running = Arc::downgrade(&io);
        Ok(io)
    }

    /// A thread whose process was forked, as the child sees it.
    #[cfg(test)]
    pub(crate) fn forked() -> Io {
        let mut io = Io::start().unwrap_or_else(|error| panic!("{error}"));
        io.pid = !io.pid;
        io
    }

    /// A thread that a test plays: what is spawned runs when the test drives this runtime.
    #[cfg(test)]
    pub(crate) fn played(runtime: Handle) -> Io {
        Io {
            runtime,
            pid: process::id(),
            stop: None,
            thread: None,
        }
    }

    fn start() -> Result<Io, InitError> {
        let refused = |error: std::io::Error| InitError::Thread {
            reason: error.to_string(),
        };
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(refused)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("dlock-io".into())
            .spawn(move || {
                let _ = runtime.block_on(stopped);
                // Dropping the runtime drops its tasks, and with them every socket. It does not wait for a name
                // server that is being asked: whoever drops the last locker waits for this thread.
                runtime.shutdown_background();
            })
            .map_err(refused)?;
        Ok(Io {
            runtime: handle,
            pid: process::id(),
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// An error in a process that was forked after the thread was started.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_ours() {
            Ok(())
        } else {
            Err(Error::Forked)
        }
    }

    fn is_ours(&self) -> bool {
        self.pid == process::id()
    }

    /// Runs a task on the thread. When it panics, `on_panic` runs in its place.
    pub(crate) fn spawn<F>(
        &self,
        task: F,
        on_panic: impl FnOnce(Box<dyn Any + Send>) + Send + 'static,
    ) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let guarded = async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                on_panic(panic);
            }
        };
        self.runtime.spawn(guarded).abort_handle()
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else {
            return;
        };
        // The last reference may go on the I/O thread itself, and a forked child has no thread to join.
        if self.is_ours() && thread.thread().id() != thread::current().id() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_name_server_that_does_not_answer_does_not_hold_up_the_end() {
        let io = Io::start().unwrap_or_else(|error| panic!("{error}"));
        let (started, starts) = mpsc::channel();
        let (release, blocks) = mpsc::channel::<()>();
        // As looking up a name does.
        let looking_up = async move {
            let _ = tokio::task::spawn_blocking(move || {
                let _ = started.send(());
                let _ = blocks.recv();
            })
            .await;
        };
        io.spawn(looking_up, |_| {});
        starts.recv().expect("the task starts");
        let (ended, ends) = mpsc::channel();
        thread::spawn(move || {
            drop(io);
            let _ = ended.send(());
        });
        let end = ends.recv_timeout(Duration::from_secs(5));
        drop(release);
        assert_eq!(end, Ok(()));
    }
}
