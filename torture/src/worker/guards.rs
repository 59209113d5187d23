//! Locks that are held as guards.

use std::thread;

use dlock::{Guard, Lock};
use tokio::time::{sleep, timeout};

use super::choice::{Plan, key};
use super::errand::{Errand, Look};
use crate::history::Mode;

/// The lock of a plan.
pub(super) fn lock(errand: &Errand<'_>, plan: &Plan) -> Lock {
    let locker = &errand.shop.locker;
    let lock = match plan.keys.as_slice() {
        [one] => locker.lock(key(*one)),
        several => locker.lock_all(several.iter().map(|number| key(*number))),
    };
    let lock = lock.timeout(plan.timeout());
    match plan.mode {
        Mode::Exclusive => lock,
        Mode::Shared => lock.shared(),
    }
}

/// Takes a guard, works under it and releases it.
pub(super) async fn hold(errand: &Errand<'_>, plan: &Plan) {
    match lock(errand, plan).acquire().await {
        Ok(guard) => {
            work(errand, plan, &guard).await;
            errand.releasing();
            errand.released(&guard.release().await);
        }
        Err(error) => errand.failed(&error),
    }
}

/// Takes a guard, works under it and drops it.
pub(super) async fn drop_guard(errand: &Errand<'_>, plan: &Plan) {
    match lock(errand, plan).acquire().await {
        Ok(guard) => {
            work(errand, plan, &guard).await;
            errand.releasing();
            drop(guard);
            errand.dropped();
        }
        Err(error) => errand.failed(&error),
    }
}

/// Waits for a guard and goes away; what is granted in that moment is dropped with it.
pub(super) async fn drop_wait(errand: &Errand<'_>, plan: &Plan) {
    let lock = lock(errand, plan);
    match timeout(plan.gone_after, lock.acquire()).await {
        Ok(Ok(guard)) => {
            work(errand, plan, &guard).await;
            errand.releasing();
            drop(guard);
            errand.dropped();
        }
        Ok(Err(error)) => errand.failed(&error),
        Err(_) => errand.dropped(),
    }
}

fn look(guard: &Guard) -> Look {
    Look {
        held: guard.is_held(),
        validity: guard.validity(),
    }
}

async fn work(errand: &Errand<'_>, plan: &Plan, guard: &Guard) {
    if !errand.acquired(guard.fencing_token(), || look(guard)) {
        return;
    }
    for pause in errand.pauses(plan) {
        tokio::select! {
            biased;
            _ = guard.lost() => {
                errand.told();
                return;
            }
            () = sleep(pause) => {}
        }
        if !errand.step(|| look(guard)) {
            return;
        }
    }
}

/// Takes a guard on a plain thread, works under it and releases it.
pub(super) fn hold_blocking(errand: &Errand<'_>, plan: &Plan) {
    match lock(errand, plan).acquire_blocking() {
        Ok(guard) => {
            if errand.acquired(guard.fencing_token(), || look(&guard)) {
                for pause in errand.pauses(plan) {
                    thread::sleep(pause);
                    if !errand.step(|| look(&guard)) {
                        break;
                    }
                }
            }
            errand.releasing();
            errand.released(&guard.release_blocking());
        }
        Err(error) => errand.failed(&error),
    }
}
