//! The contract: what every backend of dlock does on every server, through the public API alone.
//!
//! The table below is the only place that makes tests: each behaviour runs at each [`Place`]. A place that a behaviour
//! leaves out has a reason, in [`table::Scope`]. A server that is missing fails the run, and a behaviour that the table
//! does not name does not compile. `cargo xtask test -p dlock-contract` runs the suite on servers of its own.

#![deny(dead_code)]

mod admin;
mod leases;
mod names;
mod place;
mod ruled;
mod site;
mod status;
mod table;
mod worker;

mod acquiring;
mod asking;
mod cancellation;
mod connections;
mod exclusion;
mod fencing;
mod global;
mod keeping;
mod key_table;
mod keys;
mod kicking;
mod leasing;
mod listing;
mod loss;
mod observing;
mod order;
mod races;
mod release;
mod rules;
mod runtimes;
mod schemes;
mod shared;
mod shutdown;
mod unreachable;
mod validity;

use std::process::ExitCode;

table::contract! {
    exclusion {
        lockers_exclude_each_other: everywhere,
        threads_exclude_each_other: everywhere,
        threads_with_lockers_of_their_own_exclude_each_other: everywhere,
        tasks_exclude_each_other: everywhere,
        processes_exclude_each_other: processes,
    }
    acquiring {
        a_try_takes_a_free_lock: everywhere,
        a_try_at_a_busy_lock_takes_nothing: everywhere,
        a_time_out_of_zero_is_one_try: everywhere,
        a_timed_wait_ends_with_the_lock: everywhere,
        an_unlimited_wait_ends_with_the_lock: everywhere,
        a_wait_is_never_shorter_than_asked: everywhere,
        a_wait_behind_this_process_is_never_shorter_than_asked: everywhere,
        busy_names_the_program_and_the_session_that_holds: sessions,
        busy_names_this_process: everywhere,
        busy_counts_those_who_wait_in_this_process: everywhere,
        busy_counts_those_who_wait_in_other_processes: everywhere,
    }
    order {
        a_process_serves_its_requests_in_order: everywhere,
        a_release_lets_exactly_one_process_in: everywhere,
        a_release_lets_exactly_one_task_in: everywhere,
        a_released_lock_goes_to_the_process_that_waits: processes,
        a_process_in_a_loop_lets_others_in: processes,
    }
    release {
        a_dropped_guard_frees_the_lock: everywhere,
        b6_a_dropped_lock_can_be_tried_again_at_once: everywhere,
        a_released_lock_is_free_for_others_at_once: everywhere,
        b6_a_release_that_nobody_awaits_frees_the_lock: everywhere,
        a_panic_frees_the_lock: everywhere,
        b6_a_panicking_body_frees_the_lock: everywhere,
        a_guard_outlives_its_locker: everywhere,
        a_killed_process_frees_its_locks_at_once: sessions,
        a_killed_waiter_stands_in_nobodys_way: processes,
    }
    cancellation {
        a_dropped_waiter_leaves_nothing_on_the_server: everywhere,
        a_future_dropped_after_its_first_poll_leaves_nothing: everywhere,
        a_future_that_was_never_polled_does_nothing: everywhere,
        a_future_dropped_in_the_instant_of_the_grant_leaves_nothing: everywhere,
        a_future_dropped_between_grant_and_poll_leaves_nothing: processes,
        a_request_dropped_in_line_is_passed_over: everywhere,
        the_next_in_line_takes_a_dropped_wait_over: everywhere,
    }
    keeping {
        b7_a_short_body_returns_at_once_and_its_row_stays: leases,
        b7_a_waiter_learns_that_the_row_is_kept: leases,
        b7_a_shutdown_does_not_wait_for_the_row: leases,
        b7_a_cut_body_leaves_its_row: leases,
        b7_the_row_outlives_its_process: leases,
        b7_a_kick_ends_what_is_only_kept: leases,
        b7_a_readers_row_keeps_writers_out_and_readers_not: leases,
        b7_the_min_hold_of_a_nested_body_keeps_the_outer_lease: leases,
        a_lock_is_kept_for_the_min_hold_of_its_body: everywhere,
        a_body_loses_its_lock_at_the_max_hold_of_the_lock: everywhere,
        a_guard_has_no_min_hold_and_no_max_hold: everywhere,
        a_min_hold_of_more_than_a_year_is_refused: everywhere,
        b7_a_row_can_stay_for_a_year: leases,
    }
    shared {
        readers_hold_together: shared_mode,
        readers_of_two_processes_hold_together: shared_mode_of_processes,
        a_reader_keeps_writers_out: shared_mode,
        a_writer_keeps_readers_out: shared_mode,
        a_writer_waits_for_the_last_reader: shared_mode,
        a_reader_does_not_overtake_a_writer_in_line: shared_mode,
        a_writer_gets_in_between_readers_in_a_loop: shared_mode,
        a_writer_of_another_process_gets_in_among_overlapping_readers: shared_mode,
        readers_beyond_the_bound_are_let_in_when_no_writer_waits: shared_mode,
        shared_mode_is_refused_where_there_is_none: named_locks,
    }
    loss {
        a_restart_of_the_server_loses_the_holds: own_sessions,
        a_killed_server_loses_the_holds: own_sessions,
        a_killed_session_loses_its_holds: sessions,
        s5_a_killed_session_is_noticed_without_traffic: postgres,
        s5_a_release_after_the_session_was_killed_says_lost: sessions,
        a_killed_waiting_session_does_not_end_the_wait: sessions,
        several_locks_are_not_handed_out_when_one_was_lost_in_the_wait: sessions,
        a_loss_stops_a_body_that_waits_for_something_else: sessions,
        a_body_that_outran_the_loss_does_not_count: sessions,
        a_finished_body_is_dropped_before_the_lock_goes: everywhere,
        a_dropped_run_drops_the_body_before_the_lock_goes: everywhere,
    }
    unreachable {
        a_refusing_network_is_unavailable: servers,
        a_stalled_network_is_unavailable: servers,
        a_network_refused_during_the_wait_is_unavailable: servers,
        a_network_stalled_during_the_wait_is_unavailable: servers,
        a_cut_during_the_wait_does_not_end_it: sessions,
        a_frozen_server_is_unavailable: own_server,
        a_server_out_of_reach_fails_the_start: servers,
    }
    observing {
        observers_hear_of_every_hold_of_a_killed_session: sessions,
        observers_hear_of_a_loss_that_the_release_finds: sessions,
        a_lost_lease_stops_its_body_and_is_told_to_observers: leases,
        observers_hear_of_a_wait_and_its_end: processes,
        observers_hear_of_a_hand_over_as_of_a_release: sessions,
        an_unlimited_wait_tells_observers_of_the_outage: servers,
        observers_hear_how_many_connections_are_open: sessions,
        observers_hear_how_many_connections_leases_have: leases,
    }
    validity {
        a_cut_off_holder_is_told_before_others_get_in: servers,
        a_cut_off_holder_that_had_waited_is_told_before_others_get_in: servers,
        a_cut_off_body_is_stopped_before_others_get_in: servers,
        s1_a_stopped_process_wakes_up_without_the_lock: processes,
        a_hold_outlasts_the_limit: processes,
        s3_a_wait_outlasts_the_limit: processes,
        a_holder_can_ask_how_long_it_is_vouched_for: everywhere,
        nobody_gets_in_before_the_validity_is_over: servers,
    }
    runtimes {
        a_plain_thread: everywhere,
        a_current_thread_runtime: everywhere,
        a_blocking_call_in_a_current_thread_runtime: everywhere,
        a_multi_thread_runtime: everywhere,
        a_blocking_call_on_a_worker_of_a_runtime: everywhere,
        smol_runs_it: everywhere,
        a_guard_moves_between_runtimes: everywhere,
        a_runtime_dropped_while_its_task_waits_leaves_nothing: everywhere,
        a_runtime_dropped_while_its_task_holds_leaves_nothing: everywhere,
    }
    keys {
        distinct_texts_are_distinct_locks: everywhere,
        invalid_texts_are_refused: everywhere,
        locks_have_their_documented_names: sessions,
        the_default_namespace_is_the_documented_one: sessions,
        b5_namespaces_keep_programs_apart: processes,
    }
    asking {
        locked_tells_of_holders_everywhere: everywhere,
        locked_needs_no_connection_that_lives: servers,
        wait_free_waits_and_holds_nothing: everywhere,
    }
    status {
        the_status_file_tells_of_waits_and_holds: everywhere,
        a_shutdown_leaves_a_status_file_without_holds: everywhere,
        nobody_reads_a_part_of_a_status_file: everywhere,
        a_killed_process_leaves_a_status_file_that_can_be_judged: processes,
        a_stalled_disk_delays_no_lock: everywhere,
        a_status_file_that_cannot_be_written_is_refused: everywhere,
        a_status_file_that_fails_for_a_while_is_written_afterwards: everywhere,
    }
    listing {
        a_list_names_holders_and_waiters_in_order: everywhere,
        an_inspection_names_the_holder: everywhere,
        a_lease_that_is_free_tells_of_its_last_run: leases,
        the_last_run_of_one_who_died_has_no_end: leases,
        readers_are_listed_together: shared_mode,
        sentinels_are_not_listed: sessions,
        named_locks_are_listed_only_with_the_instrument: own_named_locks,
    }
    key_table {
        lists_show_the_keys_of_other_programs: own_sessions,
        a_locked_table_of_keys_delays_nobody: own_sessions,
    }
    kicking {
        b4_a_kicked_holder_is_told_and_others_get_in: servers,
        b4_a_session_kick_lists_what_else_it_would_free: sessions,
        b4_a_revoked_lease_stays_until_it_would_have_expired: leases,
        b4_a_locker_does_not_kick_itself: everywhere,
    }
    schemes {
        a_scheme_takes_the_lock_of_another_library: sessions,
        keys_that_meet_on_the_server_meet_in_the_line: sessions,
        an_integer_is_its_digits_where_a_scheme_knows_only_text: everywhere,
        a_scheme_of_ones_own_serves_a_whole_locker: sessions,
        what_a_scheme_cannot_express_is_refused_by_its_rule: sessions,
    }
    shutdown {
        b6_shutdown_sends_the_waiters_away: everywhere,
        b6_shutdown_waits_for_the_holders: everywhere,
        b6_shutdown_waits_for_releases_that_nobody_awaits: everywhere,
        s7_shutdown_cuts_who_holds_for_too_long: everywhere,
        shutdown_can_be_repeated: everywhere,
    }
    global {
        the_locker_of_the_process_is_installed_once: everywhere,
        a_scope_lasts_as_long_as_its_future_is_polled: everywhere,
    }
    leasing {
        busy_names_the_owner_of_the_lease: leases,
        the_same_owner_does_not_enter_again: leases,
        tokens_grow_with_each_holder: leases,
        a_killed_process_frees_its_leases_after_their_ttl: leases,
        a_killed_connection_costs_no_lease: server_leases,
        a_restart_of_the_server_costs_no_lease: own_leases,
        a_lease_that_is_not_renewed_is_lost_after_its_ttl: leases,
        a_lease_goes_back_at_max_hold: leases,
        a_lease_can_be_renewed_by_hand: leases,
        a_body_can_renew_and_has_a_token: leases,
        a_function_can_have_a_ttl_of_its_own: leases,
        a_waiter_is_woken_soon: woken_leases,
    }
    fencing {
        b3_tokens_grow_with_each_holder: everywhere,
        b3_a_killed_holder_counts_nothing_behind_its_successor: sessions,
        b3_a_count_that_waits_ends_with_the_deadline: sessions,
        b3_a_count_that_is_given_up_leaves_nothing: sessions,
        b3_a_fenced_lock_does_not_wait_for_those_who_wait: sessions,
        b3_a_lost_session_costs_one_fenced_lock: sessions,
        b3_dead_connections_cost_a_fenced_try_nothing: sessions,
        b3_tokens_grow_across_a_restart_of_the_server: own_sessions,
        b3_readers_have_no_token: postgres,
    }
    rules {
        s1_the_server_ends_keeper_and_waiter_of_a_silent_process: sessions,
        s3_a_body_may_build_an_index_concurrently_while_others_wait: own_postgres,
        b6_a_cancellation_comes_before_the_next_request: processes,
    }
    races {
        ten_thousand_dropped_acquisitions_leave_nothing: processes,
        grants_and_drops_that_coincide_leave_nothing: processes,
        releases_and_hand_overs_that_coincide_leave_nothing: processes,
        a_connection_that_is_lost_at_any_step_leaves_nothing: sessions,
    }
    connections {
        a_start_takes_two_connections_and_the_second_is_the_first_waiter: sessions,
        the_proof_of_a_start_takes_one_connection_and_eight_round_trips_at_most: sessions,
        the_server_says_what_its_locks_are: everywhere,
        an_account_with_one_connection_is_refused_unless_allowed: own_sessions,
        a_read_only_server_is_refused_unless_allowed: own_named_locks,
        a_hundred_held_keys_use_one_connection: servers,
        waiters_share_the_connections_they_may_have: sessions,
        s6_one_lock_too_many_is_an_error_and_no_loss: sessions,
    }
}

fn main() -> ExitCode {
    table::run(BEHAVIOURS)
}
