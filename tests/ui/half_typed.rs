//! A body that is being typed: rustc's own error, and none of ours.

use dlock::{Error, db_locked};

struct User {
    id: u8,
}

#[db_locked(key = "user/{user.id}")]
async fn typing(user: &User) -> Result<u8, Error> {
    Ok(user.)
}

#[db_locked]
impl User {
    fn method(&self) -> Result<u8, Error> {
        let id = self.
    }
}

fn main() {}
