//! The locker of the process.

use dlock::Error;
use futures_util::FutureExt;

use crate::site::{Site, run};

/// `init`, a second `init`, `scope`, `shutdown`, and none of them: in a process of its own, since others would see it.
pub(crate) fn the_locker_of_the_process_is_installed_once(site: &Site) {
    let mut worker = site.worker();
    let key = site.key("global");
    assert_eq!(worker.ask(&format!("globals {key}")), "checked");
}

/// This process never calls `init`, so that only the scope can be the locker's source.
pub(crate) fn a_scope_lasts_as_long_as_its_future_is_polled(site: &Site) {
    let (outer, inner) = (site.locker(), site.locker());
    let is_none = || matches!(dlock::locker(), Err(Error::NotInitialized));
    run(async {
        assert!(is_none());
        let key = site.key("scope");
        let mut scoped = Box::pin(outer.scope(async {
            let guard = dlock::locker()?.lock(&*key).acquire().await?;
            tokio::task::yield_now().await;
            let others = inner.scope(async { dlock::locker()?.lock(&*key).try_acquire().await });
            assert!(others.await?.is_none(), "the inner scope counts");
            let mine = dlock::locker()?.lock(&*key).timeout(0).acquire().await;
            assert!(mine.is_err_and(|error| error.is_busy()));
            guard.release().await
        }));
        // Between the polls it is no longer in scope.
        assert!((&mut scoped).now_or_never().is_none());
        assert!(is_none());
        scoped.await.expect("held to the end");
        assert!(is_none());
    });
    outer.scope_sync(|| assert!(!is_none()));
    assert!(is_none());
}
