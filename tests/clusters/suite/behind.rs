//! A node of a cluster that is behind: it has received what others wrote, and not yet carried it out.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dlock::{Config, Error, Locker, Strategy};
use xtask::servers::{DATABASE, Galera, Server, rows, value};

use crate::SOON;

/// An answer has a third of it.
const TTL: Duration = Duration::from_secs(6);

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// A locked table, for which all that comes from the other nodes has to wait, since it is carried out in its order.
struct Gate<'a> {
    node: &'a Server,
    session: String,
    holder: Option<JoinHandle<()>>,
}

impl<'a> Gate<'a> {
    /// Makes the table, on all nodes.
    fn build(cluster: &Galera) {
        let create = format!("CREATE TABLE {DATABASE}.gate (n INT PRIMARY KEY AUTO_INCREMENT)");
        rows(&cluster.node(0).admin_url(), &create).unwrap();
    }

    /// From now on `node` carries out nothing that `other` writes.
    fn close(node: &'a Server, other: &Server) -> Gate<'a> {
        let url = node.admin_url();
        let locking = format!("LOCK TABLES {DATABASE}.gate WRITE; DO SLEEP(600)");
        let holder = thread::spawn(move || {
            // Until the session is ended; its outcome is that end.
            let _ = value(&url, &locking);
        });
        let find = "SELECT id FROM information_schema.processlist WHERE state = 'User sleep'";
        let session = until(|| rows(&node.admin_url(), find).unwrap().pop());
        let session = session[0].clone().expect("its number");
        let write = format!("INSERT INTO {DATABASE}.gate VALUES ()");
        rows(&other.admin_url(), &write).unwrap();
        let held_up = "SELECT 1 FROM information_schema.processlist \
                       WHERE user = 'system user' AND state LIKE 'Waiting for table%'";
        until(|| rows(&node.admin_url(), held_up).unwrap().pop());
        Gate {
            node,
            session,
            holder: Some(holder),
        }
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        let _ = rows(&self.node.admin_url(), &format!("KILL {}", self.session));
        if let Some(holder) = self.holder.take() {
            let _ = holder.join();
        }
    }
}

/// What is there soon.
fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(start.elapsed() < SOON, "not within {SOON:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What a node answers that is asked while it is behind, and catches up then; `None`: that it cannot be asked, on a machine so
/// busy that it took too long.
fn told<T: Send>(ask: impl FnOnce() -> Result<T, Error> + Send, gate: Gate<'_>) -> Option<T> {
    thread::scope(|scope| {
        let asking = scope.spawn(ask);
        // An old answer would be there by now.
        thread::sleep(Duration::from_millis(300));
        drop(gate);
        match asking.join().expect("no panic") {
            Ok(told) => Some(told),
            Err(error) if error.is_unavailable() => None,
            Err(error) => panic!("{error}"),
        }
    })
}

#[test]
fn on_a_cluster_a_node_that_is_behind_tells_nothing_old() {
    let cluster = Galera::start().unwrap();
    Gate::build(&cluster);
    let (up, behind) = (cluster.node(0), cluster.node(1));
    let [one, other] = [up, behind].map(|node| {
        let config = Config::from_dsn(&node.url()).expect("the URL");
        let config = config.strategy(Strategy::Lease).ttl(TTL);
        Locker::connect_blocking(config.connect_timeout(PATIENCE)).expect("a locker")
    });
    let take = || {
        one.lock("k")
            .timeout(SOON)
            .acquire_blocking()
            .expect("free")
    };
    take().release_blocking().expect("held to the end");

    // Taken elsewhere.
    let gate = Gate::close(behind, up);
    let guard = take();
    if let Some(seen) = told(|| other.inspect_blocking("k"), gate) {
        assert!(seen.is_some_and(|lock| !lock.holders.is_empty()), "old");
    }
    guard.release_blocking().expect("held to the end");

    // Given back elsewhere: the row there is still the holder's, and one try gets the lock all the same.
    for shared in [false, true] {
        let guard = take();
        let gate = Gate::close(behind, up);
        guard.release_blocking().expect("held to the end");
        let lock = other.lock("k");
        let lock = if shared { lock.shared() } else { lock };
        if let Some(got) = told(|| lock.try_acquire_blocking(), gate) {
            let guard = got.expect("free");
            guard.release_blocking().expect("held to the end");
        }
    }

    // Behind for longer than an answer may take: it says so.
    let gate = Gate::close(behind, up);
    let asked = Instant::now();
    let error = other.inspect_blocking("k").expect_err("it cannot know");
    assert!(error.is_unavailable(), "{error}");
    assert!(asked.elapsed() < SOON, "after {:?}", asked.elapsed());
    drop(gate);
    let guard = other.lock("k").timeout(SOON).acquire_blocking();
    guard.expect("free").release_blocking().expect("held");
}
