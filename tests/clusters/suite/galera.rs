//! Galera: its named locks belong to one node.

use dlock::{Hazard, Locker};
use xtask::servers::Galera;

use crate::{refusal, watchful};

#[test]
fn a_node_is_refused_and_two_nodes_do_not_exclude() {
    let cluster = Galera::start().unwrap();
    for node in 0..3 {
        let told = refusal(&cluster.url(node));
        assert!(told.contains("Galera"), "{told}");
        assert!(told.contains("strategy=lease"), "{told}");
        assert!(told.contains("allow=galera"), "{told}");
    }
    // Why: allowed, both nodes grant the same lock.
    let [one, other] = [0, 1].map(|node| {
        let config = watchful(&cluster.url(node)).allow(Hazard::Galera);
        Locker::connect_blocking(config).unwrap()
    });
    assert_eq!(one.capabilities().found, [Hazard::Galera]);
    let _one = one.lock("k").acquire_blocking().unwrap();
    assert!(other.lock("k").try_acquire_blocking().unwrap().is_some());
}
