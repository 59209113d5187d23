//! Several locks in one statement.

use super::*;
use crate::backend::session::driver::Act;

#[test]
fn a_batch_answers_for_each_of_its_locks() {
    on_both(|server| async move {
        let (a, b) = (server.session().await, server.session().await);
        let keys: Vec<_> = (0..8).map(|_| fresh_key()).collect();
        assert!(b.try_lock(&keys[3], Mode::Exclusive).await.unwrap());
        let tried = a.all(Act::Try, &keys, Mode::Exclusive).await.unwrap();
        let tried: Vec<bool> = tried.into_iter().map(Result::unwrap).collect();
        let expected: Vec<bool> = (0..8).map(|index| index != 3).collect();
        assert_eq!(tried, expected);
        // Not held by this session, and held by nobody: neither is a release.
        let released = a.all(Act::Release, &keys, Mode::Exclusive).await.unwrap();
        let released: Vec<bool> = released.into_iter().map(Result::unwrap).collect();
        assert_eq!(released, expected);
        let released = a.all(Act::Release, &keys, Mode::Exclusive).await.unwrap();
        assert!(released.into_iter().all(|answer| !answer.unwrap()));
    });
}

#[test]
fn s4_after_an_error_inside_a_batch_every_lock_of_it_is_looked_at() {
    on_both(|server| async move {
        let (a, b) = (server.session().await, server.session().await);
        let mut keys: Vec<_> = (0..4).map(|_| fresh_key()).collect();
        // Both servers refuse a name of this length, when they come to it: the locks before it are taken by then.
        keys[2] = ServerKey::Name("x".repeat(300).into());
        let tried = a.all(Act::Try, &keys, Mode::Exclusive).await.unwrap();
        for (index, answer) in tried.iter().enumerate() {
            match answer {
                Ok(held) => assert!(*held && index != 2, "{index}"),
                Err(error) => assert!(matches!(error, DriverError::Refused { .. }) && index == 2),
            }
        }
        let released = a.all(Act::Release, &keys, Mode::Exclusive).await.unwrap();
        for index in [0, 1, 3] {
            assert!(matches!(released[index], Ok(true)));
            // Taken twice, it would still be held.
            assert!(b.try_lock(&keys[index], Mode::Exclusive).await.unwrap());
        }
    });
}
