//! Histories that are made up: the checker must reject each that breaks a property, and accept its honest twin.

mod forge;

use forge::{Forge, SECOND, VALIDITY, failure};
use torture::checker::Property;
use torture::clock::MILLISECOND;
use torture::fault::Fault;
use torture::history::{FailureKind, Mode};

/// One holder after another, each released.
fn honest() -> Forge {
    let mut forge = Forge::new(2);
    forge.hold(0, 1, 0, Mode::Exclusive, 10, 20);
    forge.hold(1, 1, 0, Mode::Exclusive, 21, 30);
    forge.hold(0, 2, 0, Mode::Shared, 31, 40);
    forge.hold(1, 2, 0, Mode::Shared, 33, 39);
    forge.hold(1, 3, 1, Mode::Exclusive, 33, 39);
    forge
}

#[test]
fn an_honest_history_is_accepted() {
    honest().is_accepted();
}

#[test]
fn a_history_without_a_beginning_proves_nothing() {
    assert!(torture::checker::check(&torture::history::History::default()).is_err());
}

#[test]
fn two_exclusive_holders_are_rejected() {
    let mut forge = honest();
    forge.hold(0, 3, 1, Mode::Exclusive, 38, 50);
    forge.breaks(Property::Exclusion);
}

#[test]
fn a_hold_inside_another_is_rejected() {
    let mut forge = Forge::new(2);
    forge.hold(0, 1, 0, Mode::Exclusive, 10, 100);
    forge.hold(1, 1, 0, Mode::Exclusive, 20, 30);
    forge.breaks(Property::Exclusion);
}

#[test]
fn two_exclusive_holders_of_one_process_are_rejected() {
    let mut forge = honest();
    forge.hold(1, 9, 1, Mode::Exclusive, 36, 37);
    forge.breaks(Property::Exclusion);
}

#[test]
fn one_of_several_keys_is_enough_to_overlap() {
    let mut forge = Forge::new(3);
    forge.hold_all(0, 1, &[0, 2], Mode::Exclusive, 10, 20);
    forge.hold(1, 1, 2, Mode::Exclusive, 15, 25);
    forge.breaks(Property::Exclusion);
}

#[test]
fn a_step_that_began_after_the_lock_went_to_another_is_rejected() {
    let mut forge = Forge::new(1);
    forge.acquired(0, 1, 0, Mode::Exclusive, 10);
    forge.hold(1, 1, 0, Mode::Exclusive, 5000, 5010);
    forge.step(0, 1, 6000, true);
    forge.breaks(Property::Exclusion);
}

#[test]
fn a_step_that_began_before_and_went_on_is_accepted() {
    let mut forge = Forge::new(1);
    forge.acquired(0, 1, 0, Mode::Exclusive, 10);
    forge.step(0, 1, 11, true);
    forge.hold(1, 1, 0, Mode::Exclusive, 5000, 5010);
    // The process was stopped in the middle of its step, and finds out at the next look.
    forge.step(0, 1, 6000, false);
    forge.told(0, 1, 6001);
    forge.spoiled(0, 1, 6002);
    forge.is_accepted();
}

/// A holder that was stopped behind its look, while somebody else got in.
fn stopped(others: u64) -> Forge {
    let mut forge = Forge::new(1);
    forge.fault(0, Fault::LongPause, Some(0), 20, 6020);
    forge.acquired(0, 1, 0, Mode::Exclusive, 10);
    forge.hold(1, 1, 0, Mode::Exclusive, others, others + 5);
    forge.step(0, 1, 6021, false);
    forge.spoiled(0, 1, 6022);
    forge
}

#[test]
fn a_hold_counts_while_its_last_look_is_valid() {
    stopped(10 + VALIDITY - 1).breaks(Property::Exclusion);
    stopped(10 + VALIDITY + 1).is_accepted();
}

#[test]
fn a_validity_ends_with_the_release() {
    let mut forge = Forge::new(1);
    forge.acquired(0, 1, 0, Mode::Exclusive, 10);
    forge.dropped(0, 1, 20, 3000);
    forge.hold(1, 1, 0, Mode::Exclusive, 21, 25);
    forge.is_accepted();
}

#[test]
fn a_loss_may_be_on_its_way_to_its_holder_but_not_for_long() {
    let told = |told: u64| {
        let mut forge = Forge::new(1);
        forge.acquired(0, 1, 0, Mode::Exclusive, 10);
        forge.hold(1, 1, 0, Mode::Exclusive, 1000, 1010);
        forge.told(0, 1, told);
        forge.spoiled(0, 1, told + 1);
        forge
    };
    told(1490).is_accepted();
    told(1510).breaks(Property::Exclusion);
}

#[test]
fn a_release_that_vouches_for_too_much_is_rejected() {
    let mut forge = Forge::new(1);
    forge.acquired(0, 1, 0, Mode::Exclusive, 10);
    forge.hold(1, 1, 0, Mode::Exclusive, 5000, 5010);
    forge.released(0, 1, 6000, 6001);
    forge.breaks(Property::Exclusion);
}

#[test]
fn a_lock_that_was_lost_and_is_held_again_is_rejected() {
    let mut forge = Forge::new(1);
    forge.acquired(0, 1, 0, Mode::Exclusive, 10);
    forge.told(0, 1, 20);
    forge.step(0, 1, 30, true);
    forge.breaks(Property::Exclusion);
}

#[test]
fn a_release_without_an_error_after_a_loss_is_rejected() {
    let mut forge = Forge::new(1);
    forge.acquired(0, 1, 0, Mode::Exclusive, 10);
    forge.step(0, 1, 20, false);
    forge.released(0, 1, 30, 31);
    forge.breaks(Property::Exclusion);
}

#[test]
fn a_lost_hold_that_is_handed_over_is_rejected() {
    let mut forge = Forge::new(1);
    forge.fault(0, Fault::LongStall, Some(0), 20, 8000);
    forge.acquired(0, 1, 0, Mode::Exclusive, 10);
    forge.told(0, 1, 2700);
    forge.spoiled(0, 1, 2701);
    forge.granted_dead(0, 2, 0, 5000);
    forge.breaks(Property::Exclusion);
}

#[test]
fn a_lost_hold_that_is_handed_over_at_once_is_rejected() {
    let handed = |releasing: bool| {
        let mut forge = Forge::new(1);
        forge.fault(0, Fault::LongStall, Some(0), 20, 8000);
        forge.acquired(0, 1, 0, Mode::Exclusive, 10);
        forge.told(0, 1, 1300);
        if releasing {
            forge.releasing(0, 1, 1301);
        }
        forge.spoiled(0, 1, 1303);
        forge.granted_dead(0, 2, 0, 1302);
        forge
    };
    handed(true).breaks(Property::Exclusion);
    // It may have been granted before anything was lost.
    handed(false).is_accepted();
}

#[test]
fn an_overlap_after_the_server_ended_the_session_is_stated_and_not_counted() {
    let mut forge = Forge::new(1);
    forge.fault(0, Fault::EndSession, Some(0), 20, 21);
    forge.acquired(0, 1, 0, Mode::Exclusive, 10);
    forge.hold(1, 1, 0, Mode::Exclusive, 22, 40);
    forge.step(0, 1, 300, true);
    forge.told(0, 1, 301);
    forge.spoiled(0, 1, 302);
    let figures = forge.is_accepted().figures;
    assert_eq!(figures.overlaps, 1);
    assert_eq!(figures.longest_overlap, 18 * MILLISECOND);
}

#[test]
fn an_end_of_the_session_excuses_nothing_for_long() {
    let mut forge = Forge::new(1);
    forge.fault(0, Fault::EndSession, Some(0), 20, 21);
    forge.acquired(0, 1, 0, Mode::Exclusive, 10);
    forge.hold(1, 1, 0, Mode::Exclusive, 22, 9000);
    forge.step(0, 1, 8000, true);
    forge.breaks(Property::Exclusion);
}

/// Process 0 asks for two keys, and has them when process 1 has one of them since 22.
fn a_part_that_is_lost(keys: &[u16], asked: u64, acquired: u64) -> Forge {
    let mut forge = Forge::new(2);
    forge.fault(0, Fault::EndSession, Some(0), 20, 21);
    forge.hold(1, 1, 0, Mode::Exclusive, 22, 900);
    forge.asked_all(0, 1, keys.to_vec(), Mode::Exclusive, asked, None);
    forge.granted(0, 1, acquired);
    forge.step(0, 1, acquired + 10, true);
    forge.told(0, 1, acquired + 11);
    forge.spoiled(0, 1, acquired + 12);
    forge
}

#[test]
fn the_first_of_several_keys_may_be_lost_while_the_second_is_waited_for() {
    let figures = a_part_that_is_lost(&[0, 1], 10, 30).is_accepted().figures;
    assert_eq!(figures.overlaps, 1);
    assert_eq!(
        a_part_that_is_lost(&[0, 1], 10, 700)
            .is_accepted()
            .figures
            .overlaps,
        1
    );
    // They were not asked for when the session ended.
    a_part_that_is_lost(&[0, 1], 23, 30).breaks(Property::Exclusion);
}

#[test]
fn a_grant_may_be_on_its_way_when_the_server_ends_the_session_but_not_for_long() {
    let figures = a_part_that_is_lost(&[0], 10, 30).is_accepted().figures;
    assert_eq!(figures.overlaps, 1);
    a_part_that_is_lost(&[0], 10, 700).breaks(Property::Exclusion);
    a_part_that_is_lost(&[0], 23, 30).breaks(Property::Exclusion);
}

#[test]
fn an_end_of_another_session_excuses_nothing() {
    let mut forge = Forge::new(1);
    forge.fault(0, Fault::EndSession, Some(1), 20, 21);
    forge.hold(0, 1, 0, Mode::Exclusive, 10, 50);
    forge.hold(1, 1, 0, Mode::Exclusive, 30, 40);
    forge.breaks(Property::Exclusion);
}

/// A hold that goes on for a moment after another began, on whatever side of a fault.
fn overlap(forge: &mut Forge, fault: Fault) {
    forge.fault(0, fault, None, 20, 2000);
    forge.acquired(0, 1, 0, Mode::Exclusive, 10);
    forge.step(0, 1, 1900, true);
    forge.hold(1, 1, 0, Mode::Exclusive, 1850, 1950);
}

#[test]
fn a_failover_ends_sessions_and_no_lease() {
    let mut sessions = Forge::new(1);
    overlap(&mut sessions, Fault::Failover);
    assert_eq!(sessions.is_accepted().figures.overlaps, 1);
    let mut leases = Forge::new(1).of_leases();
    overlap(&mut leases, Fault::Failover);
    leases.breaks(Property::Exclusion);
}

#[test]
fn no_wrong_clock_no_writer_and_no_lost_node_excuses_two_holders() {
    for fault in [
        Fault::ClockJump,
        Fault::ShortWrite,
        Fault::LongWrite,
        Fault::FrozenStandby,
        Fault::FrozenNode,
        Fault::KilledNode,
        Fault::QuorumLoss,
    ] {
        for mut forge in [Forge::new(1), Forge::new(1).of_leases()] {
            overlap(&mut forge, fault);
            forge.breaks(Property::Exclusion);
        }
    }
}

#[test]
fn silence_excuses_nothing() {
    let mut forge = Forge::new(1);
    forge.fault(0, Fault::LongStall, Some(0), 20, 6000);
    forge.acquired(0, 1, 0, Mode::Exclusive, 10);
    forge.step(0, 1, 3200, true);
    forge.hold(1, 1, 0, Mode::Exclusive, 3100, 3300);
    forge.breaks(Property::Exclusion);
}

#[test]
fn a_reader_beside_a_writer_is_rejected() {
    let mut forge = honest();
    forge.hold(0, 3, 0, Mode::Exclusive, 36, 38);
    forge.breaks(Property::ReadersAndWriters);
}

#[test]
fn a_writer_beside_a_reader_is_rejected() {
    let mut forge = honest();
    forge.hold(0, 3, 1, Mode::Shared, 34, 35);
    forge.breaks(Property::ReadersAndWriters);
}

#[test]
fn growing_tokens_are_accepted() {
    let mut forge = Forge::new(1);
    forge.hold_with(0, 1, 0, 7, 10, 20);
    forge.hold_with(1, 1, 0, 8, 30, 40);
    forge.hold_with(0, 2, 0, 12, 50, 60);
    forge.is_accepted();
}

#[test]
fn a_token_that_comes_twice_is_rejected() {
    let mut forge = Forge::new(1);
    forge.hold_with(0, 1, 0, 7, 10, 20);
    forge.hold_with(1, 1, 0, 7, 30, 40);
    forge.breaks(Property::Tokens);
}

#[test]
fn a_token_that_goes_back_is_rejected() {
    let mut forge = Forge::new(1);
    forge.hold_with(0, 1, 0, 7, 10, 20);
    forge.hold_with(1, 1, 0, 9, 30, 40);
    forge.hold_with(0, 2, 0, 8, 50, 60);
    forge.breaks(Property::Tokens);
}

#[test]
fn tokens_of_different_keys_have_nothing_to_do_with_each_other() {
    let mut forge = Forge::new(2);
    forge.hold_with(0, 1, 0, 7, 10, 20);
    forge.hold_with(0, 2, 1, 3, 30, 40);
    forge.is_accepted();
}

#[test]
fn a_key_that_is_taken_soon_after_a_fault_is_accepted() {
    let mut forge = Forge::new(1);
    forge.fault(0, Fault::Crash, None, 100, 200);
    forge.hold(0, 1, 0, Mode::Exclusive, 3000, 3010);
    forge.ends(60_000);
    forge.is_accepted();
}

#[test]
fn a_key_that_is_never_taken_again_is_rejected() {
    let mut forge = Forge::new(1);
    forge.hold(0, 1, 0, Mode::Exclusive, 10, 20);
    forge.fault(0, Fault::Kill, Some(1), 100, 200);
    forge.asked(0, 2, 0, Mode::Exclusive, 300, None);
    forge.failed(0, 2, 59_000, failure(FailureKind::ShutDown));
    forge.stops(0, 58_000);
    forge.ends(60_000);
    forge.breaks(Property::Recovery);
}

#[test]
fn a_key_that_is_taken_too_late_is_rejected() {
    let mut forge = Forge::new(1);
    forge.fault(0, Fault::Kill, Some(1), 100, 200);
    forge.asked(0, 1, 0, Mode::Exclusive, 300, None);
    forge.granted(0, 1, 40_000);
    forge.released(0, 1, 40_010, 40_011);
    forge.ends(60_000);
    forge.breaks(Property::Recovery);
}

#[test]
fn a_key_that_nobody_asks_for_is_not_missed() {
    let mut forge = Forge::new(1);
    forge.fault(0, Fault::Kill, Some(1), 100, 200);
    forge.ends(60_000);
    forge.is_accepted();
}

#[test]
fn locks_that_are_left_are_rejected() {
    let mut forge = honest();
    forge.left("advisory locks", 0);
    forge.is_accepted();
    forge.left("sessions", 1);
    forge.breaks(Property::Remains);
}

#[test]
fn threads_that_are_left_are_rejected() {
    let mut forge = honest();
    forge.ended(0, 100, 0, 1);
    forge.breaks(Property::Remains);
}

#[test]
fn locks_that_had_to_be_cut_off_are_rejected() {
    let mut forge = honest();
    forge.ended(0, 100, 1, 0);
    forge.breaks(Property::Remains);
}

#[test]
fn a_panic_is_rejected() {
    let mut forge = honest();
    forge.panicked(0, 50);
    forge.breaks(Property::Answers);
}

#[test]
fn a_death_that_nobody_meant_is_rejected() {
    let mut forge = honest();
    forge.died(0, 100, true);
    forge.is_accepted();
    forge.died(1, 100, false);
    forge.breaks(Property::Answers);
}

#[test]
fn busy_while_nobody_can_be_asked_is_rejected() {
    let mut forge = Forge::new(1);
    forge.fault(0, Fault::LongFreeze, None, 100, 9000);
    forge.asked(0, 1, 0, Mode::Exclusive, 6000, Some(50));
    forge.failed(0, 1, 6060, failure(FailureKind::Busy));
    forge.breaks(Property::Answers);
}

#[test]
fn busy_because_of_this_very_process_is_accepted() {
    let mut forge = Forge::new(1);
    forge.fault(0, Fault::LongFreeze, None, 100, 9000);
    forge.acquired(0, 1, 0, Mode::Exclusive, 50);
    forge.asked(0, 2, 0, Mode::Exclusive, 6000, Some(50));
    forge.failed(0, 2, 6060, failure(FailureKind::Busy));
    forge.step(0, 1, 6100, false);
    forge.spoiled(0, 1, 6101);
    forge.is_accepted();
}

#[test]
fn an_error_of_no_known_kind_is_rejected() {
    let mut forge = honest();
    forge.asked(0, 7, 0, Mode::Exclusive, 50, Some(50));
    forge.failed(0, 7, 60, failure(FailureKind::Other));
    forge.breaks(Property::Answers);
}

#[test]
fn a_refusal_needs_a_server_that_is_full() {
    let mut forge = honest();
    forge.fault(0, Fault::TableFull, None, 45, 80);
    forge.asked(0, 7, 0, Mode::Exclusive, 50, Some(50));
    forge.failed(0, 7, 60, failure(FailureKind::Refused));
    forge.is_accepted();
    let late = 90 + 2 * SECOND;
    forge.asked(0, 8, 0, Mode::Exclusive, late, Some(50));
    forge.failed(0, 8, late + 10, failure(FailureKind::Refused));
    forge.breaks(Property::Answers);
}

#[test]
fn a_shut_down_that_nobody_asked_for_is_rejected() {
    let mut forge = honest();
    forge.asked(0, 7, 0, Mode::Exclusive, 50, Some(50));
    forge.failed(0, 7, 60, failure(FailureKind::ShutDown));
    forge.breaks(Property::Answers);
}

#[test]
fn a_wait_that_outlasts_its_deadline_is_rejected() {
    let mut forge = honest();
    forge.asked(0, 7, 0, Mode::Exclusive, 50, Some(100));
    forge.failed(0, 7, 30_000, failure(FailureKind::Busy));
    forge.breaks(Property::Answers);
}

#[test]
fn the_time_in_which_the_process_was_stopped_does_not_count() {
    let mut forge = honest();
    forge.fault(0, Fault::LongPause, Some(0), 60, 29_000);
    forge.asked(0, 7, 0, Mode::Exclusive, 50, Some(100));
    forge.failed(0, 7, 30_000, failure(FailureKind::Busy));
    forge.is_accepted();
}

#[test]
fn a_release_that_is_not_answered_is_rejected() {
    let mut forge = honest();
    forge.acquired(0, 7, 0, Mode::Exclusive, 50);
    forge.releasing(0, 7, 60);
    forge.ends(60_000);
    forge.breaks(Property::Answers);
}

#[test]
fn a_request_that_is_never_answered_is_rejected() {
    let mut forge = honest();
    forge.asked(0, 7, 0, Mode::Exclusive, 50, None);
    forge.ended(0, 200, 0, 0);
    forge.breaks(Property::Answers);
}

#[test]
fn a_killed_process_need_not_answer() {
    let mut forge = honest();
    forge.asked(0, 7, 0, Mode::Exclusive, 50, Some(10));
    forge.died(0, 60, true);
    forge.is_accepted();
}
