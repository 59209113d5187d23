//! Many requests at once.

use super::*;

#[test]
fn a_burst_of_requests_does_not_look_like_a_server_that_has_stopped_answering() {
    run(async {
        let script = Script::new();
        let limits = Limits {
            limit: Duration::from_millis(1500),
            heartbeat: Duration::from_millis(250),
            ..LIMITS
        };
        let locks = locks(&script, limits).await;
        let first = held(locks.clone().take(errand_for(0, None)).await);
        // The connection carries one statement at a time: two seconds of work, and an answer is due in half a second.
        Script::set(&script.try_lock, async || {
            tokio::time::sleep(Duration::from_millis(4)).await;
            Ok(true)
        });
        let burst: Vec<_> = (1..=500)
            .map(|key| tokio::spawn(locks.clone().take(errand_for(key, None))))
            .collect();
        for taking in burst {
            let hold = held(taking.await.expect("no panic"));
            assert_eq!(hold.vitality.lost(), None);
            std::mem::forget(hold);
        }
        assert_eq!(first.vitality.lost(), None);
        assert_eq!(give_back(first).await, Ok(()));
    });
}
