//! The status file, as another program reads it: by `docs/status-file.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dlock::{InitError, Locker};
use serde_json::Value;

use crate::place::Place;
use crate::site::{SOON, Site, until};

/// A folder of one test's own.
struct Folder(PathBuf);

impl Folder {
    fn new(site: &Site) -> Folder {
        let name = format!("dlock-contract-status-{}-{}", site.place(), site.tag());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a folder for the test");
        Folder(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("status.json")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn read(file: &Path) -> Value {
    let text = fs::read_to_string(file).expect("the file is always there");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn count(file: &Path, what: &str) -> usize {
    read(file)[what].as_array().expect("a list").len()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_millis()).expect("a time")
}

fn locker(site: &Site, file: &Path) -> Locker {
    site.locker_of(site.config().status_file(file))
}

pub(crate) fn the_status_file_tells_of_waits_and_holds(site: &Site) {
    let folder = Folder::new(site);
    let file = folder.file();
    let locker = locker(site, &file);
    let begun = read(&file);
    assert_eq!(begun["pid"], std::process::id());
    assert_eq!(begun["running"], true);
    let strategy = match site.place() {
        Place::Memory => "memory",
        place if place.is_lease() => "lease",
        _ => "session",
    };
    assert_eq!(begun["strategy"], strategy);
    let program = begun["program"].as_str().expect("a text");
    assert!(program.contains(site.tag()), "{program}");
    assert!(!begun["host"].as_str().expect("a text").is_empty());
    let started = begun["started"].as_u64().expect("a time");
    let written = begun["written_at"].as_u64().expect("a time");
    assert!(started <= written && written <= now(), "{begun}");
    // This process has not run for a day.
    assert!(written - started < 24 * 3600 * 1000, "{begun}");
    assert_eq!((count(&file, "waits"), count(&file, "holds")), (0, 0));

    let key = "a \"key\"\n\u{1f512}";
    let before = now();
    let guard = site.lock(&locker, key).acquire_blocking().unwrap();
    until("the hold is told", || count(&file, "holds") == 1);
    let hold = read(&file)["holds"][0].clone();
    assert_eq!(hold["key"], key);
    assert_eq!(hold["mode"], "exclusive");
    assert_eq!(hold["token"].as_u64(), guard.fencing_token());
    let since = hold["since"].as_u64().expect("a time");
    assert!(before - 1 <= since && since <= now() + 1, "{hold}");
    let valid_until = hold["valid_until"].as_u64();
    assert_eq!(valid_until.is_some(), site.place() != Place::Memory);
    assert!(valid_until.is_none_or(|until| until > before && until < now() + 31_000));
    let lock = site.lock(&locker, key).timeout(SOON);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| lock.acquire_blocking().expect("its turn"));
        until("the wait is told", || count(&file, "waits") == 1);
        let wait = read(&file)["waits"][0].clone();
        assert_eq!(
            (&wait["key"], &wait["mode"]),
            (&key.into(), &"exclusive".into())
        );
        guard.release_blocking().expect("held to the end");
        let guard = waiting.join().expect("no panic");
        until("nobody waits", || count(&file, "waits") == 0);
        assert_eq!(count(&file, "holds"), 1);
        guard.release_blocking().expect("held to the end");
    });
    until("nothing is held", || count(&file, "holds") == 0);
    assert_eq!(read(&file)["running"], true);
}

pub(crate) fn a_shutdown_leaves_a_status_file_without_holds(site: &Site) {
    let folder = Folder::new(site);
    let file = folder.file();
    let one = locker(site, &file);
    let guard = site.lock(&one, "k").acquire_blocking().unwrap();
    until("the hold is told", || count(&file, "holds") == 1);
    assert_eq!(one.shutdown_blocking(Duration::ZERO).cut, 1);
    until("the end is told", || read(&file)["running"] == false);
    assert_eq!((count(&file, "waits"), count(&file, "holds")), (0, 0));
    drop(guard);
    // The next one may have the file; and with patience, a shutdown waits for it.
    let next = locker(site, &file);
    assert_eq!(read(&file)["running"], true);
    next.shutdown_blocking(SOON);
    assert_eq!(read(&file)["running"], false);
    // And so does the end of the last handle, some time later.
    let config = site.config().status_file(&file);
    drop(Locker::connect_blocking(config).expect("a locker"));
    until("the end is told", || read(&file)["running"] == false);
}

pub(crate) fn nobody_reads_a_part_of_a_status_file(site: &Site) {
    let folder = Folder::new(site);
    let file = folder.file();
    let locker = locker(site, &file);
    let keys: Vec<String> = (0..20)
        .map(|number| site.key(&format!("k{number}")))
        .collect();
    let done = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut times = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                let status = read(&file);
                times.insert(status["written_at"].as_u64().expect("a time"));
            }
            times.len()
        });
        for _ in 0..30 {
            let guard = locker
                .lock_all(keys.clone())
                .timeout(SOON)
                .acquire_blocking();
            thread::sleep(Duration::from_millis(10));
            guard.unwrap().release_blocking().expect("held to the end");
        }
        done.store(true, Ordering::Relaxed);
        reading.join().expect("it is whole each time")
    });
    assert!(seen > 1, "it was replaced meanwhile");
    until("the last state is written", || count(&file, "holds") == 0);
    let names: Vec<_> = fs::read_dir(&folder.0).expect("the folder").collect();
    assert_eq!(names.len(), 1, "nothing is left beside it: {names:?}");
}

pub(crate) fn a_killed_process_leaves_a_status_file_that_can_be_judged(site: &Site) {
    let folder = Folder::new(site);
    let file = folder.file();
    let option = format!("status_file={}", file.display());
    let mut worker = site.worker_with(&option);
    let key = site.key("k");
    assert_eq!(worker.ask(&format!("try {key}")), "held");
    until("the hold is told", || count(&file, "holds") == 1);
    worker.kill();
    let status = read(&file);
    assert_eq!(
        (&status["running"], count(&file, "holds")),
        (&true.into(), 1)
    );
    let pid = status["pid"].as_u64().expect("a number");
    assert_ne!(pid, u64::from(std::process::id()));
    let process = PathBuf::from(format!("/proc/{pid}"));
    assert!(!process.exists(), "whoever looks finds no such process");
    // And, from another machine, a time that passes.
    let valid_until = status["holds"][0]["valid_until"].as_u64().expect("a time");
    assert!(valid_until <= now() + 30_000, "{status}");
}

/// What the next write goes to is a pipe that nobody reads, so it never ends.
pub(crate) fn a_stalled_disk_delays_no_lock(site: &Site) {
    let folder = Folder::new(site);
    let file = folder.file();
    let locker = locker(site, &file);
    let pipe = folder
        .0
        .join(format!(".status.json.{}.tmp", std::process::id()));
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo").success());
    for _ in 0..5 {
        let guard = site.lock(&locker, "k").acquire_blocking().unwrap();
        guard.release_blocking().expect("held to the end");
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(count(&file, "holds"), 0, "as it was at the start");
    locker.shutdown_blocking(SOON);
    assert_eq!(
        read(&file)["running"],
        true,
        "nobody has waited for the end"
    );
    // Let the thread go.
    drop(fs::read(&pipe));
}

pub(crate) fn a_status_file_that_cannot_be_written_is_refused(site: &Site) {
    let folder = Folder::new(site);
    let refused = |file: &Path| {
        let config = site.config().status_file(file);
        match Locker::connect_blocking(config) {
            Err(InitError::BadConfig { problem }) => problem,
            other => panic!("refused, not: {other:?}"),
        }
    };
    let missing = folder.0.join("no folder").join("status.json");
    for file in [&missing, &folder.0] {
        let problem = refused(file);
        assert!(problem.contains(&file.display().to_string()), "{problem}");
        assert!(problem.contains("in a folder that exists"), "{problem}");
    }
    let _one = locker(site, &folder.file());
    let problem = refused(&folder.file());
    assert!(
        problem.contains("another locker of this process"),
        "{problem}"
    );
}

pub(crate) fn a_status_file_that_fails_for_a_while_is_written_afterwards(site: &Site) {
    let folder = Folder::new(site);
    let file = folder.file();
    let config = site.config().status_file(&file).redact_keys(true);
    let locker = site.locker_of(config);
    let away = folder.0.with_extension("away");
    fs::rename(&folder.0, &away).expect("the folder goes");
    let guard = site.lock(&locker, "k").acquire_blocking().unwrap();
    // The write of this change fails; the next one is another.
    thread::sleep(Duration::from_millis(300));
    fs::rename(&away, &folder.0).expect("the folder comes back");
    let second = site.lock(&locker, "beside").acquire_blocking().unwrap();
    until("both holds are told", || count(&file, "holds") == 2);
    let key = read(&file)["holds"][0]["key"].clone();
    let key = key.as_str().expect("a text");
    assert!(key.starts_with('#') && key.len() == 13, "a hash: {key}");
    for guard in [guard, second] {
        guard.release_blocking().expect("held to the end");
    }
}
