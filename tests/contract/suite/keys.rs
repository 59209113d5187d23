//! Texts and the locks that they name.

use dlock::{Config, Error};

use crate::names;
use crate::place::Family;
use crate::site::Site;

pub(crate) fn distinct_texts_are_distinct_locks(site: &Site) {
    let long = "k".repeat(1023);
    let keys = [
        "a", "A", "b", "á", "a\u{301}", "ä", "a ", " a", "a  ", "a\t", "ß", "ss", "🔒", "🔓", "e",
        "é",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([
        format!("{long}a"),
        format!("{long}A"),
        format!("{long} "),
        long,
    ])
    .map(|key| site.key(&key));
    let keys: Vec<String> = keys.collect();
    let (one, other) = (site.locker(), site.locker());
    for held in &keys {
        let guard = one.lock(&**held).try_acquire_blocking().unwrap();
        let guard = guard.expect("free");
        for key in &keys {
            let tried = other.lock(&**key).try_acquire_blocking().unwrap();
            assert_eq!(
                tried.is_none(),
                key == held,
                "{key:?} while {held:?} is held"
            );
            // Not dropped: the first locker comes to this key next, and a drop does not wait for the server.
            if let Some(tried) = tried {
                tried.release_blocking().expect("held to the end");
            }
        }
        guard.release_blocking().expect("held to the end");
    }
    // All of them at once, in one process.
    let all = keys
        .iter()
        .map(|key| one.lock(&**key).try_acquire_blocking());
    let all: Vec<_> = all.map(|guard| guard.unwrap().expect("free")).collect();
    assert_eq!(all.len(), keys.len());
}

pub(crate) fn invalid_texts_are_refused(site: &Site) {
    let locker = site.locker();
    for text in [
        String::new(),
        "k".repeat(1025),
        "é".repeat(513),
        "a\0b".into(),
        "\0".into(),
    ] {
        let lock = locker.lock(&*text);
        let refused = [
            lock.acquire_blocking().map(drop),
            lock.try_acquire_blocking().map(drop),
            lock.clone().shared().acquire_blocking().map(drop),
            lock.clone().timeout(1).acquire_blocking().map(drop),
            lock.run_blocking(|| panic!("the body does not run")),
            crate::site::run(lock.run(async { panic!("the body does not run") })),
        ];
        for error in refused.map(Result::unwrap_err) {
            let Error::InvalidKey(invalid) = &error else {
                panic!("an invalid key, not: {error}");
            };
            assert!(text.starts_with(&invalid.key));
            assert!(error.to_string().len() < 500, "{error}");
        }
    }
    // What was refused is no holder: the locker still takes locks, and shuts down without waiting for anything.
    drop(site.lock(&locker, "valid").acquire_blocking().unwrap());
    let report = locker.shutdown_blocking(crate::site::SOON);
    assert_eq!(report.cut, 0);
}

pub(crate) fn locks_have_their_documented_names(site: &Site) {
    let locker = site.locker();
    for key in ["report/nightly", "Été 🔒 Ä", &"0".repeat(1024)] {
        let name = site.name(key);
        let guard = site.lock(&locker, key).acquire_blocking().unwrap();
        assert_eq!(site.admin().holders(&name).len(), 1, "{key:?} is {name}");
        assert!(!site.admin().try_lock(&name));
        guard.release_blocking().expect("held to the end");
        // The other way round: a program in another language holds it.
        assert!(site.admin().try_lock(&name));
        let tried = site.lock(&locker, key).try_acquire_blocking();
        assert!(tried.unwrap().is_none());
        site.admin().unlock(&name);
    }
}

pub(crate) fn the_default_namespace_is_the_documented_one(site: &Site) {
    let namespace = match site.family() {
        Family::Postgres => "",
        Family::MySql => xtask::servers::DATABASE,
    };
    let locker = site.locker_of(site.config_without_namespace());
    // No other behaviour uses this namespace, and no other run has this key.
    let key = site.key_in(namespace, site.tag());
    let guard = locker.lock(&*key).acquire_blocking().unwrap();
    let name = names::on_server(site.family(), namespace, &key);
    assert_eq!(site.admin().holders(&name).len(), 1);
    guard.release_blocking().expect("held to the end");
}

pub(crate) fn b5_namespaces_keep_programs_apart(site: &Site) {
    let spaces = ["one", "two", "One", "one "].map(|end| format!("{}{end}", site.tag()));
    let config = |space: &String| -> Config { site.config().namespace(&**space) };
    let guards: Vec<_> = spaces
        .iter()
        .map(|space| {
            let locker = site.locker_of(config(space));
            let key = site.key_in(space, "same");
            let guard = locker.lock(key).try_acquire_blocking().unwrap();
            guard.expect("each namespace has a lock of this name")
        })
        .collect();
    let again = site.locker_of(config(&spaces[0]));
    let tried = again.lock("same").try_acquire_blocking().unwrap();
    assert!(tried.is_none(), "the same namespace is the same lock");
    drop(guards);
}
