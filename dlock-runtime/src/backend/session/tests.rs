//! The strategy, over a driver whose answers a test writes: what a real server says at a chosen moment cannot be
//! forced.

mod asking;
mod batch;
mod calling_off;
mod fenced;
mod load;
mod noting;
mod proof;
mod scripted;
mod validity;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::{Limits, SessionLocks};
use crate::backend::{Backend, Errand, GivenBack, Hold, Taken, Want};
use crate::hazard::Hazards;
use crate::key::{Mode, ServerKey};
use scripted::Script;

const LIMITS: Limits = Limits {
    limit: Duration::from_secs(30),
    heartbeat: Duration::from_secs(5),
    max_waiters: 8,
    max_held: None,
};

/// The shortest there are.
const SHORT: Limits = Limits {
    limit: Duration::from_secs(3),
    heartbeat: Duration::from_millis(500),
    ..LIMITS
};

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime for the test").block_on(test)
}

async fn locks(script: &Arc<Script>, limits: Limits) -> Arc<SessionLocks<scripted::Scripted>> {
    let driver = scripted::Scripted(script.clone());
    match SessionLocks::connect(driver, limits, &Hazards::default()).await {
        Ok(locks) => locks,
        Err(error) => panic!("not connected: {error:?}"),
    }
}

fn errand(patience: Option<Duration>) -> Arc<Errand> {
    errand_for(1, patience)
}

fn errand_for(key: i64, patience: Option<Duration>) -> Arc<Errand> {
    let deadline = patience.map(|patience| std::time::Instant::now() + patience);
    errand_of(key, false, deadline)
}

fn errand_of(key: i64, fenced: bool, deadline: Option<std::time::Instant>) -> Arc<Errand> {
    let want = Want {
        mode: Mode::Exclusive,
        fenced,
    };
    Errand::new(ServerKey::Number(key), want, deadline)
}

fn held(taken: Taken) -> Hold {
    match taken {
        Taken::Held(hold) => hold,
        Taken::CalledOff => panic!("called off"),
        Taken::TooMany { most } => panic!("more than {most}"),
        Taken::Refused { message, .. } => panic!("refused: {message}"),
    }
}

async fn give_back(hold: Hold) -> Result<(), Arc<str>> {
    match hold.grant.give_back() {
        GivenBack::Now(result) => result,
        GivenBack::Later(later) => later.await,
    }
}

/// Lets everything run that can run now.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}
