//! Functions that never return, and those that track their caller.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::task::Poll;

use dlock::db_locked;

use crate::support::{
    Done, Probe, async_everywhere, everywhere, everywhere_in_order, memory, while_busy,
};

#[db_locked(key = "never", on_error = panic, on_busy = |error| panic!("busy: {error}"))]
fn never(probe: Probe) -> ! {
    probe.note("body");
    panic!("the body")
}

#[db_locked(key = "never", on_error = panic)]
async fn never_async(probe: Probe) -> ! {
    probe.note("body");
    panic!("the body")
}

#[db_locked(key = "never", timeout = 0, on_error = panic, on_busy = |error| panic!("busy: {error}"))]
#[track_caller]
fn never_inline(probe: &Probe) -> ! {
    probe.note("body");
    panic!("the body")
}

fn message(payload: &(dyn Any + Send)) -> &'static str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .unwrap_or("another panic")
}

fn panicked(run: impl FnOnce()) -> &'static str {
    message(&*catch_unwind(AssertUnwindSafe(run)).expect_err("a panic"))
}

async fn panicked_async(future: impl Future + Send) -> &'static str {
    let mut future = Box::pin(future);
    poll_fn(
        |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(_)) => Poll::Ready("no panic"),
            Err(payload) => Poll::Ready(message(&*payload)),
        },
    )
    .await
}

#[test]
fn a_function_that_never_returns_releases_when_it_unwinds() {
    everywhere("never", |probe| {
        assert_eq!(panicked(|| never(probe)), "the body");
    });
    everywhere_in_order("never", &["body, held", "dropped, free"], |probe| {
        assert_eq!(panicked(|| never_inline(&probe)), "the body");
    });
    async_everywhere("never", |probe| async {
        assert_eq!(panicked_async(never_async(probe)).await, "the body");
    });
}

#[test]
fn a_function_that_never_returns_has_its_handlers() {
    let locker = memory();
    let probe = Probe::new(&locker, "never");
    let busy = while_busy("never", || panicked(|| never_inline(&probe)));
    assert_eq!(busy, "another panic");
    probe.record().assert(&[]);
}

#[db_locked(key = "tracked")]
#[track_caller]
fn tracked(probe: &Probe, early: bool) -> Done<&'static Location<'static>> {
    probe.note("body");
    if early {
        return Ok(Location::caller());
    }
    Ok(Location::caller())
}

#[db_locked(key = "tracked")]
#[track_caller]
fn tracked_and_owned(probe: Probe) -> Done<impl Sized> {
    probe.note("body");
    Ok(())
}

#[db_locked(key = "tracked", timeout = 0, on_error = panic)]
#[track_caller]
fn tracked_unit(probe: &Probe) {
    probe.note("body");
}

#[test]
fn the_caller_is_seen_in_the_body() {
    let behind = &["body, held", "dropped, free"];
    for early in [true, false] {
        let locker = memory();
        let probe = Probe::new(&locker, "tracked");
        let here = line!() + 1;
        let seen = locker.scope_sync(|| tracked(&probe, early)).unwrap();
        assert_eq!((seen.file(), seen.line()), (file!(), here));
    }
    everywhere_in_order("tracked", behind, |probe| {
        tracked(&probe, true).unwrap();
    });
    everywhere_in_order("tracked", behind, |probe| tracked_unit(&probe));
    // The gap that the docs state: the body stays in the function, so the parameters go when the function does.
    everywhere_in_order("tracked", behind, |probe| drop(tracked_and_owned(probe)));
    let busy = while_busy("tracked", || {
        panicked(|| tracked_unit(&Probe::new(&memory(), "tracked")))
    });
    assert_eq!(busy, "another panic");
}
