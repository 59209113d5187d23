//! Keys that cannot be.

use dlock::db_locked;

#[db_locked(key = "")]
fn empty() {}

#[db_locked(key = "a/{}")]
fn captures_nothing(id: u8) {}

#[db_locked(key = "a/{0}")]
fn counts(id: u8) {}

#[db_locked(key = "a/{id()}")]
fn calls(id: fn() -> u8) {}

#[db_locked(keys = [])]
fn no_keys() {}

#[db_locked(keys = "a")]
fn no_list() {}

#[db_locked(keys = ["a/{id}", "b", "a/{id}"])]
fn twice(id: u8) {}

#[db_locked(key = "a", keys = ["b"])]
fn both(id: u8) {}

#[db_locked(key = "a/{self.id}")]
fn no_receiver(id: u8) {}

fn main() {}
