//! Whatever the setters of a configuration are given, it is refused or keeps the documented rules.

use std::time::Duration;

use proptest::prelude::*;

use super::{assert_helpful, config};
use crate::config::Config;

/// Durations of every magnitude, many of them near a limit.
fn duration() -> impl Strategy<Value = Duration> {
    let near = prop::sample::select(vec![
        0_u64, 10, 99, 100, 999, 3_000, 5_000, 10_000, 30_000, 3_600_000, 86_400_000,
    ]);
    prop_oneof![
        4 => (near, 0..3_u64).prop_map(|(base, plus)| Duration::from_millis((base + plus).saturating_sub(1))),
        2 => (1..100_000_u64).prop_map(Duration::from_secs),
        1 => (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanoseconds)| Duration::new(seconds, nanoseconds)),
        1 => Just(Duration::MAX),
    ]
}

const DSNS: &[&str] = &[
    "memory:",
    #[cfg(feature = "postgres")]
    "postgres://u@h/db",
    #[cfg(feature = "postgres")]
    "postgres://u@h/db?keepalives_idle=32767&keepalives_interval=32767&keepalives_count=127&tcp_user_timeout=30000",
    #[cfg(feature = "mysql")]
    "mysql://u@h/db",
];

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_configuration_is_refused_or_keeps_the_rules(
        dsn in prop::sample::select(DSNS),
        limit in prop::option::of(duration()),
        heartbeat in prop::option::of(duration()),
        connect_timeout in prop::option::of(duration()),
        hand_over in prop::option::of((any::<u32>(), duration())),
        waiters in prop_oneof![0..1003_usize, any::<usize>()],
    ) {
        let mut settings = Config::from_dsn(dsn).expect("a good DSN").max_waiters(waiters);
        if let Some(limit) = limit {
            settings = settings.limit(limit);
        }
        if let Some(heartbeat) = heartbeat {
            settings = settings.heartbeat(heartbeat);
        }
        if let Some(timeout) = connect_timeout {
            settings = settings.connect_timeout(timeout);
        }
        if let Some((times, time)) = hand_over {
            settings = settings.hand_over(times, time);
        }
        if let Err(error) = settings.endpoint() {
            return assert_helpful(&error.to_string()).map_err(TestCaseError::fail);
        }
        let (limit, heartbeat) = (settings.get_limit(), settings.get_heartbeat());
        prop_assert!((3..=86_400).contains(&limit.as_secs()) && limit.subsec_nanos() == 0);
        prop_assert!(heartbeat >= Duration::from_millis(100) && heartbeat * 2 < limit);
        prop_assert!((1..=1000).contains(&settings.get_max_waiters()));
    }
}
