//! Free functions.

use std::fmt::{Debug, Display};

use dlock::db_locked;

use crate::support::{Done, Probe, async_everywhere, everywhere, memory};

#[db_locked]
fn plain(probe: Probe) -> Done {
    probe.note("body");
    Ok(())
}

#[db_locked]
async fn plain_async(probe: Probe) -> Done {
    probe.note("body");
    Ok(())
}

#[test]
fn the_default_key_is_the_path() {
    everywhere("shapes::functions::plain", |probe| plain(probe).unwrap());
    async_everywhere("shapes::functions::plain_async", |probe| async {
        plain_async(probe).await.unwrap();
    });
}

#[db_locked(key = "returns/{early}")]
fn returns(probe: Probe, early: u8) -> Done<u8> {
    probe.note("body");
    if early == 1 {
        return Ok(early);
    }
    Err(dlock::Error::NotInitialized)?;
    Ok(0)
}

#[db_locked(key = "returns/{early}")]
async fn returns_async(probe: Probe, early: u8) -> Done<u8> {
    probe.note("body");
    if early == 1 {
        return Ok(early);
    }
    Err(dlock::Error::NotInitialized)?;
    Ok(0)
}

#[test]
fn early_returns_come_back_through_the_release() {
    everywhere("returns/1", |probe| {
        assert_eq!(returns(probe, 1).unwrap(), 1);
    });
    everywhere("returns/2", |probe| assert!(returns(probe, 2).is_err()));
    async_everywhere("returns/1", |probe| async {
        assert_eq!(returns_async(probe, 1).await.unwrap(), 1);
    });
    async_everywhere("returns/2", |probe| async {
        assert!(returns_async(probe, 2).await.is_err());
    });
}

#[db_locked(key = "generic/{N}/{label}")]
fn generic<'a, T, const N: usize>(
    probe: Probe,
    list: &'a [T; N],
    label: impl Display,
    wanted: impl Fn(&T) -> bool,
) -> Done<Vec<&'a T>>
where
    T: Debug,
{
    probe.note("body");
    Ok(list.iter().filter(|item| wanted(item)).collect())
}

#[db_locked(key = "generic/{N}/{label}")]
async fn generic_async<'a, T, const N: usize>(
    probe: Probe,
    list: &'a [T; N],
    label: impl Display + Send,
    wanted: impl Fn(&T) -> bool + Send,
) -> Done<Vec<&'a T>>
where
    T: Debug + Sync,
{
    probe.note("body");
    Ok(list.iter().filter(|item| wanted(item)).collect())
}

#[test]
fn generics_lifetimes_and_impl_trait_arguments() {
    everywhere("generic/3/x", |probe| {
        assert_eq!(
            generic(probe, &[1, 2, 3], "x", |n| *n > 1).unwrap(),
            [&2, &3]
        );
    });
    async_everywhere("generic/3/x", |probe| async {
        let found = generic_async(probe, &[1, 2, 3], 'x', |n| *n > 1).await;
        assert_eq!(found.unwrap(), [&2, &3]);
    });
}

struct Pair {
    left: Probe,
    right: u32,
}

#[db_locked(key = "patterns")]
fn patterns(
    Pair { left, right }: Pair,
    (a, mut b): (u32, u32),
    [c, ..]: [u32; 2],
    _: u32,
) -> Done<u32> {
    left.note("body");
    b += a + c;
    Ok(b + right)
}

#[db_locked(key = "patterns")]
async fn patterns_async(Pair { left, right }: Pair, (a, mut b): (u32, u32), _: u32) -> Done<u32> {
    left.note("body");
    b += a;
    Ok(b + right)
}

#[test]
fn patterns_are_bound_before_the_body() {
    everywhere("patterns", |probe| {
        let pair = Pair {
            left: probe,
            right: 1,
        };
        assert_eq!(patterns(pair, (2, 3), [4, 5], 6).unwrap(), 10);
    });
    async_everywhere("patterns", |probe| async {
        let pair = Pair {
            left: probe,
            right: 1,
        };
        assert_eq!(patterns_async(pair, (2, 3), 6).await.unwrap(), 6);
    });
}

#[db_locked(key = "opaque", on_error = panic)]
fn opaque(probe: Probe) -> impl Iterator<Item = u8> {
    probe.note("body");
    [1, 2].into_iter()
}

#[db_locked(key = "opaque")]
fn opaque_within(probe: Probe) -> Result<impl Display, dlock::Error> {
    probe.note("body");
    Ok("text")
}

#[db_locked(key = "opaque")]
async fn opaque_async(probe: Probe) -> Result<impl Display + Send, dlock::Error> {
    probe.note("body");
    Ok("text")
}

#[test]
fn opaque_return_types() {
    everywhere("opaque", |probe| assert_eq!(opaque(probe).sum::<u8>(), 3));
    everywhere("opaque", |probe| {
        assert_eq!(opaque_within(probe).ok().unwrap().to_string(), "text");
    });
    async_everywhere("opaque", |probe| async {
        assert_eq!(opaque_async(probe).await.ok().unwrap().to_string(), "text");
    });
}

/// Documented.
#[inline]
#[must_use]
#[db_locked(key = "decorated", on_error = panic)]
pub(crate) extern "C-unwind" fn decorated(value: u8) -> u8 {
    #![allow(unused_variables)]
    //! Documented inside.
    let unused = 1;
    value
}

#[db_locked(key = "foreign", on_error = |_| 0)]
pub(crate) extern "C" fn foreign(value: u8) -> u8 {
    value
}

#[test]
fn decorations_stay() {
    memory().scope_sync(|| {
        assert_eq!(decorated(1), 1);
        assert_eq!(foreign(2), 2);
    });
}

#[db_locked(keys = ["several/{name}", "several/b"])]
fn several(probe: Probe, name: &str) -> Done {
    let _ = name;
    probe.note("body");
    Ok(())
}

#[test]
fn several_keys_are_held_together() {
    let locker = memory();
    let probe = Probe::new(&locker, "several/b");
    let record = probe.record();
    locker.scope_sync(|| several(probe, "a")).unwrap();
    record.assert(&["body, held", "dropped, held"]);
}
