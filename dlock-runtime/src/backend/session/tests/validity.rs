//! What a session is vouched for, and until when.

use super::*;

#[test]
fn a_panic_of_the_heartbeat_ends_the_session() {
    run(async {
        let script = Script::new();
        let limits = Limits {
            heartbeat: Duration::from_millis(10),
            ..LIMITS
        };
        let locks = locks(&script, limits).await;
        let hold = held(locks.take(errand(None)).await);
        Script::set(&script.check, async || panic!("in the driver"));
        let ended = tokio::time::timeout(Duration::from_secs(5), hold.vitality.ended()).await;
        assert!(ended.is_ok(), "nobody was told");
    });
}
