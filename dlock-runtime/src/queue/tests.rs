//! The line, before a strategy whose answers a test writes.

mod deadlines;
mod schedule;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::task::{Context, Wake, Waker};
use std::thread;

use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::*;
use crate::backend::{Grant, Progress, Trouble, Untold};
use crate::clock::Moment;
use crate::error::{Holder, Unsupported};
use crate::hold::Vitality;
use crate::park::block_on;

type Takes = Box<dyn Fn(Arc<Errand>) -> BoxFuture<'static, Taken> + Send + Sync>;

struct Scripted {
    takes: Takes,
    touched: Arc<AtomicBool>,
}

impl Backend for Scripted {
    fn server_key(&self, key: &Key) -> ServerKey {
        ServerKey::Name(key.text().clone())
    }

    fn shared_mode(&self) -> Result<(), Unsupported> {
        Ok(())
    }

    fn take(self: Arc<Self>, errand: Arc<Errand>) -> BoxFuture<'static, Taken> {
        (self.takes)(errand)
    }

    fn admits_reader<'a>(&'a self, _: &'a ServerKey) -> BoxFuture<'a, bool> {
        std::future::ready(true).boxed()
    }

    fn holder<'a>(&'a self, _: &'a ServerKey) -> BoxFuture<'a, Result<Option<Holder>, Untold>> {
        std::future::ready(Ok(None)).boxed()
    }

    fn close(&self, _: &str) {
        self.touched.store(true, Ordering::Relaxed);
    }
}

/// A lock that notes when anything is done to it.
struct Touchy(Arc<AtomicBool>);

impl Grant for Touchy {
    fn give_back(self: Box<Self>) -> GivenBack {
        GivenBack::Now(Ok(()))
    }
}

impl Drop for Touchy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A lock whose session is closed once it is free.
struct Closing(Arc<Vitality>);

impl Grant for Closing {
    fn give_back(self: Box<Self>) -> GivenBack {
        GivenBack::Later(
            async move {
                self.0.lose("no longer needed");
                Ok(())
            }
            .boxed(),
        )
    }
}

fn hold(valid_until: Option<Moment>, touched: &Arc<AtomicBool>) -> Hold {
    Hold {
        vitality: Vitality::new(valid_until),
        grant: Box::new(Touchy(touched.clone())),
    }
}

fn queue(io: Arc<Io>, takes: Takes) -> (Arc<Queue>, Arc<AtomicBool>) {
    handing_over(0, io, takes)
}

fn handing_over(times: u32, io: Arc<Io>, takes: Takes) -> (Arc<Queue>, Arc<AtomicBool>) {
    let touched = Arc::new(AtomicBool::new(false));
    let backend = Scripted {
        takes,
        touched: touched.clone(),
    };
    let queue = Queue::new(Arc::new(backend), io, hand_over(times), None);
    (queue, touched)
}

/// How often a lock is handed over in the tests of that; in the others never.
fn hand_over(times: u32) -> HandOver {
    HandOver {
        times,
        time: Duration::from_secs(60),
    }
}

fn io() -> Arc<Io> {
    Io::get().unwrap_or_else(|error| panic!("{error}"))
}

fn ask(queue: &Arc<Queue>, mode: Mode, patience: Patience) -> Result<Admission, Error> {
    queue.join(&Request {
        want: Want::plain(mode),
        patience,
        ..request(&Key::new("key").expect("a good key"), &name())
    })
}

fn request<'a>(key: &'a Key, name: &'a ServerKey) -> Request<'a> {
    Request {
        key,
        name,
        want: Want::plain(Mode::Exclusive),
        patience: Patience::Forever,
        name_holder: false,
        turn: None,
        body: None,
        within: None,
        partial: false,
        origin: Origin::default(),
        parks: false,
    }
}

fn until(time: Duration) -> Patience {
    let asked = Instant::now();
    Patience::Until {
        asked,
        deadline: asked + time,
    }
}

fn caller(id: u64) -> Caller {
    Caller {
        id,
        body: None,
        origin: Origin::default(),
    }
}

fn name() -> ServerKey {
    ServerKey::Name("key".into())
}

#[test]
fn a_lock_that_nobody_waits_for_keeps_no_room_for_a_line() {
    let free = |_| std::future::ready(Taken::Held(hold(None, &Arc::default()))).boxed();
    let (queue, _) = queue(io(), Box::new(free));
    let (place, _) = granted(&queue);
    assert_eq!(queue.table().entries[&name()].line.capacity(), 0);
    drop(place);
}

#[test]
fn a_forked_child_leaves_the_connections_of_its_parent_alone() {
    let never = Box::new(|_| std::future::pending().boxed());
    let (queue, touched) = queue(Arc::new(Io::forked()), never);
    let held = Entry::held("k".into(), hold(None, &touched), Mode::Exclusive, caller(1));
    queue.table().entries.insert(name(), held);
    let place = Place::new(&queue, &name(), 1);
    drop(place);
    assert!(!touched.load(Ordering::Relaxed), "the lock was given back");
    drop(queue);
    assert!(!touched.load(Ordering::Relaxed), "the goodbye was sent");
}

#[test]
fn whoever_hears_of_a_loss_may_use_the_queue_at_once() {
    struct Uses(Arc<Queue>);
    impl Wake for Uses {
        fn wake(self: Arc<Self>) {
            self.0.held();
        }
    }
    let (queue, touched) = queue(io(), Box::new(|_| std::future::pending().boxed()));
    let run_out = hold(Some(Moment::from_nanos(0)), &touched);
    let mut bell = Box::pin(run_out.vitality.bell());
    let waker = Waker::from(Arc::new(Uses(queue.clone())));
    assert!(
        bell.as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    let held = Entry::held("k".into(), run_out, Mode::Shared, caller(1));
    queue.table().entries.insert(name(), held);
    let (joined, joins) = mpsc::channel();
    thread::spawn(move || {
        let second = ask(&queue, Mode::Shared, Patience::Forever);
        let _ = joined.send(matches!(second, Ok(Admission::Waiting(_))));
    });
    assert_eq!(joins.recv_timeout(Duration::from_secs(5)), Ok(true));
}

#[test]
fn one_try_behind_a_wait_that_is_called_off_is_a_try_of_its_own() {
    let busy = Arc::new(AtomicBool::new(true));
    let (reported, reports) = mpsc::channel();
    let (join, joined) = oneshot::channel::<()>();
    let joined = joined.shared();
    let free_when_called_off = Box::new(move |errand: Arc<Errand>| {
        let (busy, reported, joined) = (busy.clone(), reported.clone(), joined.clone());
        async move {
            if busy.swap(false, Ordering::Relaxed) {
                errand.report(Progress::Busy);
                let _ = reported.send(());
                errand.called_off().await;
                let _ = joined.await;
                // The answer to the one who has gone.
                errand.report(Progress::Busy);
                time::sleep(Duration::from_millis(50)).await;
                return Taken::CalledOff;
            }
            Taken::Held(hold(None, &Arc::default()))
        }
        .boxed()
    });
    let (queue, _) = queue(io(), free_when_called_off);
    let first = ask(&queue, Mode::Exclusive, Patience::Forever);
    reports.recv().expect("a report");
    drop(first);
    let answer_by = Instant::now() + Duration::from_secs(5);
    let second = ask(&queue, Mode::Exclusive, Patience::OneTry { answer_by });
    let Ok(Admission::Waiting(acquire)) = second else {
        panic!("nobody holds the lock, and it is not taken yet");
    };
    drop(join);
    if let Err(error) = block_on(acquire) {
        panic!("{error}");
    }
}

#[test]
fn a_session_that_is_closed_after_the_release_was_not_lost() {
    let closing = |_| {
        let vitality = Vitality::new(None);
        let grant = Box::new(Closing(vitality.clone()));
        std::future::ready(Taken::Held(Hold { vitality, grant })).boxed()
    };
    let (queue, _) = queue(io(), Box::new(closing));
    let (place, _) = granted(&queue);
    assert!(block_on(place.leave()).is_ok());
}

#[test]
fn whoever_waited_for_others_is_told_busy_also_when_the_next_errand_is_new() {
    let free = AtomicBool::new(true);
    let once = move |_| {
        if free.swap(false, Ordering::Relaxed) {
            std::future::ready(Taken::Held(hold(None, &Arc::default()))).boxed()
        } else {
            std::future::pending().boxed()
        }
    };
    let (queue, _) = queue(io(), Box::new(once));
    let (place, _) = granted(&queue);
    let deadline = until(Duration::from_millis(100));
    let Ok(Admission::Waiting(second)) = ask(&queue, Mode::Exclusive, deadline) else {
        panic!("the lock is held");
    };
    drop(place);
    assert!(matches!(block_on(second), Err(Error::Busy(_))));
}

/// No server is asked for it: it may be out of reach.
#[test]
fn busy_says_when_this_process_has_lost_the_lock() {
    let free = |_| std::future::ready(Taken::Held(hold(None, &Arc::default()))).boxed();
    let (queue, _) = queue(io(), Box::new(free));
    let (place, vitality) = granted(&queue);
    for lost in [false, true] {
        if lost {
            vitality.lose("cut off");
        }
        let answer_by = Instant::now() + Duration::from_secs(5);
        for patience in [
            Patience::OneTry { answer_by },
            until(Duration::from_millis(20)),
        ] {
            let error = match ask(&queue, Mode::Exclusive, patience) {
                Ok(Admission::Waiting(acquire)) => block_on(acquire).err(),
                Ok(Admission::Granted(..)) => None,
                Err(error) => Some(error),
            };
            let Some(Error::Busy(busy)) = &error else {
                panic!("busy, not: {error:?}");
            };
            let holder = busy.holder.as_ref().expect("this very process");
            assert_eq!((holder.this_process, holder.lost), (true, lost));
            let message = holder.to_string();
            assert_eq!(message.contains("lost meanwhile"), lost, "{message}");
        }
    }
    drop(place);
}

fn granted(queue: &Arc<Queue>) -> (Place, Arc<Vitality>) {
    match ask(queue, Mode::Exclusive, Patience::Forever) {
        Ok(Admission::Waiting(acquire)) => {
            block_on(acquire).unwrap_or_else(|error| panic!("{error}"))
        }
        Ok(Admission::Granted(place, vitality)) => (place, vitality),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_lock_is_handed_over_so_often_and_then_goes_back_to_the_server() {
    let (errands, sent) = mpsc::channel();
    let (queue, _) = handing_over(
        3,
        io(),
        Box::new(move |_| {
            let _ = errands.send(());
            let hold = hold(None, &Arc::default());
            std::future::ready(Taken::Held(hold)).boxed()
        }),
    );
    let waits: Vec<Acquire> = (0..6)
        .map(|_| match ask(&queue, Mode::Exclusive, Patience::Forever) {
            Ok(Admission::Waiting(acquire)) => acquire,
            _ => panic!("the scripted backend takes nothing on the spot"),
        })
        .collect();
    let mut fetched = Vec::new();
    for acquire in waits {
        let (place, _) = block_on(acquire).expect("its turn");
        fetched.push(sent.try_iter().count());
        assert!(block_on(place.leave()).is_ok());
    }
    // The first comes from the server, three follow without it, and the fifth comes from the server again.
    assert_eq!(fetched, [1, 0, 0, 0, 1, 0]);
}

#[test]
fn a_lock_that_is_lost_is_not_handed_over() {
    let (lost, losses) = mpsc::channel();
    let (queue, _) = handing_over(
        3,
        io(),
        Box::new(move |_| {
            let hold = hold(None, &Arc::default());
            let _ = lost.send(hold.vitality.clone());
            std::future::ready(Taken::Held(hold)).boxed()
        }),
    );
    let mut waits = (0..2).map(|_| match ask(&queue, Mode::Exclusive, Patience::Forever) {
        Ok(Admission::Waiting(acquire)) => acquire,
        _ => panic!("the scripted backend takes nothing on the spot"),
    });
    let (first, second) = (waits.next(), waits.next());
    let (place, _) = block_on(first.expect("one")).expect("its turn");
    losses.recv().expect("the first hold").lose("killed");
    assert!(block_on(place.leave()).is_err());
    let (place, vitality) = block_on(second.expect("two")).expect("its turn");
    assert!(vitality.stands(), "it comes from the server");
    assert!(block_on(place.leave()).is_ok());
}

/// Says that the lock is busy, and then nothing more.
struct Mute;

impl Backend for Mute {
    fn server_key(&self, key: &Key) -> ServerKey {
        ServerKey::Name(key.text().clone())
    }

    fn shared_mode(&self) -> Result<(), Unsupported> {
        Ok(())
    }

    fn take(self: Arc<Self>, errand: Arc<Errand>) -> BoxFuture<'static, Taken> {
        async move {
            errand.report(Progress::Busy);
            errand.called_off().await;
            Taken::CalledOff
        }
        .boxed()
    }

    fn admits_reader<'a>(&'a self, _: &'a ServerKey) -> BoxFuture<'a, bool> {
        std::future::ready(false).boxed()
    }

    fn holder<'a>(&'a self, _: &'a ServerKey) -> BoxFuture<'a, Result<Option<Holder>, Untold>> {
        let trouble = Trouble {
            reason: "the connection is lost".into(),
            source: None,
        };
        std::future::ready(Err(Untold::Trouble(trouble))).boxed()
    }

    fn close(&self, _: &str) {}
}

#[test]
fn whoever_the_server_told_busy_is_not_told_of_an_outage_for_want_of_a_name() {
    let queue = Queue::new(Arc::new(Mute), io(), hand_over(0), None);
    let answer_by = Instant::now() + Duration::from_secs(60);
    let tried = queue.join(&Request {
        name_holder: true,
        patience: Patience::OneTry { answer_by },
        ..request(&Key::new("key").expect("a good key"), &name())
    });
    let Ok(Admission::Waiting(acquire)) = tried else {
        panic!("nobody knows of the lock yet");
    };
    assert!(matches!(block_on(acquire), Err(Error::Busy(_))));
}

/// Answers one question at a time, and none of them fast.
#[derive(Default)]
struct Slow(tokio::sync::Mutex<()>);

impl Backend for Slow {
    fn server_key(&self, key: &Key) -> ServerKey {
        ServerKey::Name(key.text().clone())
    }

    fn shared_mode(&self) -> Result<(), Unsupported> {
        Ok(())
    }

    fn take(self: Arc<Self>, errand: Arc<Errand>) -> BoxFuture<'static, Taken> {
        async move {
            errand.report(Progress::Busy);
            errand.called_off().await;
            Taken::CalledOff
        }
        .boxed()
    }

    fn admits_reader<'a>(&'a self, _: &'a ServerKey) -> BoxFuture<'a, bool> {
        std::future::ready(false).boxed()
    }

    fn holder<'a>(&'a self, _: &'a ServerKey) -> BoxFuture<'a, Result<Option<Holder>, Untold>> {
        async {
            let _turn = self.0.lock().await;
            time::sleep(Duration::from_millis(20)).await;
            Ok(Some(Holder::default()))
        }
        .boxed()
    }

    fn close(&self, _: &str) {}
}

/// The answers to all of them would take ten seconds, and a caller waits one.
#[test]
fn many_who_give_up_at_once_are_all_told_busy() {
    let queue = Queue::new(Arc::new(Slow::default()), io(), hand_over(0), None);
    let asked = Instant::now();
    let deadline = asked + Duration::from_millis(50);
    let waits: Vec<Acquire> = (0..500)
        .map(|number| {
            let key = Key::new(format!("key {number}")).expect("a good key");
            let joined = queue.join(&Request {
                name_holder: true,
                patience: Patience::Until { asked, deadline },
                ..request(&key, &queue.backend.server_key(&key))
            });
            match joined {
                Ok(Admission::Waiting(acquire)) => acquire,
                _ => panic!("the scripted backend takes nothing on the spot"),
            }
        })
        .collect();
    for acquire in waits {
        let refused = block_on(acquire).err().expect("nobody gets the lock");
        assert!(refused.is_busy(), "{refused}");
    }
}
