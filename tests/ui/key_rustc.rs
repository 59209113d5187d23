//! Keys whose mistakes rustc explains best, at the key.

use dlock::{Error, db_locked};

struct User {
    id: u8,
}

#[db_locked(key = "a/{name}")]
fn unknown(id: u8) -> Result<(), Error> {
    Ok(())
}

#[db_locked(key = "a/{user.name}")]
async fn unknown_field(user: User) -> Result<(), Error> {
    Ok(())
}

#[db_locked(key = "a/{user}")]
fn not_display(user: User) -> Result<(), Error> {
    Ok(())
}

#[db_locked(key = user)]
fn not_display_either(user: User) -> Result<(), Error> {
    Ok(())
}

#[db_locked(key = "a/{id")]
fn unbalanced(id: u8) -> Result<(), Error> {
    Ok(())
}

fn main() {}
