//! What went wrong in other attributes of this kind: each of these compiles, and runs under the lock.

use std::pin::Pin;

use dlock::db_locked;

use crate::support::{Done, Probe, async_everywhere, everywhere};

#[derive(Debug, PartialEq)]
enum Shadow {
    Result,
    Ok,
}

/// Names of the body do not reach the return type, nor what the attribute writes.
#[db_locked(key = "shadow")]
fn shadowed(probe: Probe) -> Result<u8, dlock::Error> {
    use Shadow::{Ok, Result};
    probe.note("body");
    assert_eq!([Ok, Result], [Shadow::Ok, Shadow::Result]);
    std::result::Result::Ok(1)
}

#[db_locked(key = "shadow")]
async fn shadowed_async(probe: Probe) -> Result<u8, dlock::Error> {
    use Shadow::{Ok, Result};
    probe.note("body");
    assert_eq!([Ok, Result], [Shadow::Ok, Shadow::Result]);
    std::result::Result::Ok(1)
}

/// The attribute writes absolute paths: modules of the user's with the same names are others.
#[allow(dead_code)]
mod absolute {
    mod core {}
    mod std {}
    mod dlock {}
    struct Some;
    struct Option;

    #[::dlock::db_locked(key = "absolute", timeout = 1)]
    pub(super) async fn locked(probe: crate::support::Probe) -> Result<(), ::dlock::Error> {
        probe.note("body");
        Ok(())
    }
}

/// Inner attributes of the body are the function's.
#[db_locked(key = "inner")]
async fn inner(probe: Probe) -> Done {
    #![allow(unused_variables)]
    let unused = 1;
    probe.note("body");
    Ok(())
}

/// A function that returns an async block, with an item beside it.
#[db_locked(key = "block")]
fn block(probe: Probe) -> Pin<Box<dyn Future<Output = Done<u8>> + Send>> {
    fn one() -> u8 {
        1
    }
    Box::pin(async move {
        probe.note("body");
        Ok(one())
    })
}

/// Types are inferred as they are without the attribute.
#[db_locked(key = "inferred")]
async fn inferred(probe: Probe) -> Done<Vec<u8>> {
    probe.note("body");
    let mut list = Vec::new();
    if list.is_empty() {
        return Ok(Vec::new());
    }
    list.push(1);
    Ok(list.into_iter().collect())
}

#[db_locked(key = "inferred")]
fn coerced(probe: Probe) -> Result<Box<dyn std::fmt::Display>, dlock::Error> {
    probe.note("body");
    Ok(Box::new(1))
}

#[test]
fn other_attributes_stumbled_here() {
    everywhere("shadow", |probe| assert_eq!(shadowed(probe).unwrap(), 1));
    async_everywhere("shadow", |probe| async {
        assert_eq!(shadowed_async(probe).await.unwrap(), 1);
    });
    async_everywhere("absolute", |probe| async {
        absolute::locked(probe).await.unwrap();
    });
    async_everywhere("inner", |probe| async { inner(probe).await.unwrap() });
    async_everywhere("block", |probe| async {
        assert_eq!(block(probe).await.unwrap(), 1);
    });
    async_everywhere("inferred", |probe| async {
        assert!(inferred(probe).await.unwrap().is_empty());
    });
    everywhere("inferred", |probe| {
        assert_eq!(coerced(probe).unwrap().to_string(), "1");
    });
}

macro_rules! make {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($probe:ident) $body:block) => {
        $(#[$meta])*
        $vis fn $name($probe: Probe) -> Done $body
    };
}

make! {
    #[db_locked(key = "made")]
    /// Documented.
    pub(crate) fn made_of_fragments(probe) { probe.note("body"); Ok(()) }
}

macro_rules! keyed {
    ($ty:ty, $key:literal, $timeout:expr, $on_lost:ident) => {
        #[db_locked(key = $key, timeout = $timeout, on_lost = $on_lost, fencing = false)]
        impl $ty {
            async fn made(&self, probe: Probe) -> Done {
                probe.note("body");
                Ok(())
            }
        }
    };
}

struct Made;

keyed!(Made, "made", "3s", cancel);

#[test]
fn what_a_macro_makes_is_locked_too() {
    everywhere("made", |probe| made_of_fragments(probe).unwrap());
    async_everywhere("made", |probe| async { Made.made(probe).await.unwrap() });
}
