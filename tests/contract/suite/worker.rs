//! Another process: the program `contract-worker`, told by lines what to do.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::site::SOON;

/// A process with one locker. Dropped, it is killed.
pub(crate) struct Worker {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
}

impl Worker {
    /// Starts the program, and returns when its locker is connected.
    pub(crate) fn start(dsn: &str) -> Worker {
        let mut child = Command::new(env!("CARGO_BIN_EXE_contract-worker"))
            .env("DLOCK_DSN", dsn)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the worker program");
        let orders = child.stdin.take().expect("the worker's input");
        let output = BufReader::new(child.stdout.take().expect("the worker's output"));
        let (sender, answers) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let worker = Worker {
            child,
            orders,
            answers,
        };
        assert_eq!(worker.answer(), "ready");
        worker
    }

    /// Gives an order without waiting for the answer.
    pub(crate) fn tell(&mut self, order: &str) {
        writeln!(self.orders, "{order}").expect("the worker takes orders");
    }

    /// The next answer.
    #[track_caller]
    pub(crate) fn answer(&self) -> String {
        self.answer_within(2 * SOON)
    }

    /// The next answer, which comes in time.
    #[track_caller]
    pub(crate) fn answer_within(&self, time: Duration) -> String {
        match self.answers.recv_timeout(time) {
            Ok(answer) => answer,
            Err(error) => panic!("the worker gave no answer within {time:?}: {error}"),
        }
    }

    /// Whether there is no answer yet.
    pub(crate) fn is_silent(&self) -> bool {
        self.answers.try_recv().is_err()
    }

    /// Gives an order and awaits its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, order: &str) -> String {
        self.tell(order);
        self.answer()
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("the end of the worker");
    }

    /// Stops it: it runs no step until it is continued.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("a signal to the worker");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
