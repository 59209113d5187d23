//! One clock keeps the deadlines of all who wait.

use super::*;

const LATE: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(20);

/// A queue whose lock is held.
fn held() -> (Arc<Queue>, Place) {
    let free = |_| std::future::ready(Taken::Held(hold(None, &Arc::default()))).boxed();
    let (queue, _) = queue(io(), Box::new(free));
    let (place, _) = granted(&queue);
    (queue, place)
}

fn wait(queue: &Arc<Queue>, time: Duration) -> Acquire {
    match ask(queue, Mode::Exclusive, until(time)) {
        Ok(Admission::Waiting(acquire)) => acquire,
        _ => panic!("the lock is held"),
    }
}

/// Until the I/O thread has run whatever it was given before.
fn let_the_clock_run(queue: &Queue) {
    let (ran, runs) = mpsc::channel();
    let last = async move {
        let _ = ran.send(());
    };
    queue.io.spawn(last, |_| {});
    let ran = runs.recv_timeout(Duration::from_secs(10));
    assert!(ran.is_ok(), "the I/O thread stands still");
}

fn is_told_busy_soon(acquire: Acquire) -> bool {
    let (answer, answered) = mpsc::channel();
    thread::spawn(move || answer.send(block_on(acquire).err()));
    let error = answered.recv_timeout(Duration::from_secs(10));
    matches!(error, Ok(Some(Error::Busy(_))))
}

#[test]
fn the_clock_is_woken_for_an_earlier_deadline() {
    let (queue, _place) = held();
    let _late = wait(&queue, LATE);
    let_the_clock_run(&queue);
    assert!(is_told_busy_soon(wait(&queue, SOON)));
}

#[test]
fn the_clock_goes_on_to_the_next_deadline() {
    let (queue, _place) = held();
    let later = wait(&queue, 2 * SOON);
    assert!(is_told_busy_soon(wait(&queue, SOON)));
    assert!(is_told_busy_soon(later));
}

#[test]
fn a_deadline_goes_with_its_wait() {
    let (queue, place) = held();
    let waits: Vec<_> = (0..100).map(|_| wait(&queue, LATE)).collect();
    assert_eq!(queue.deadlines.count(), 100);
    let mut waits = waits.into_iter();
    let first = waits.next();
    drop(waits);
    assert_eq!(queue.deadlines.count(), 1);
    drop(place);
    let got = first.map(block_on);
    assert!(matches!(got, Some(Ok(_))), "it is the next in line");
    assert_eq!(queue.deadlines.count(), 0);
}

#[test]
fn the_clock_ends_after_the_last_deadline_and_another_starts() {
    let (queue, _place) = held();
    for _ in 0..2 {
        assert!(is_told_busy_soon(wait(&queue, SOON)));
        let_the_clock_run(&queue);
        assert!(!queue.deadlines.is_running());
    }
}
