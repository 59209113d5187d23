//! A body of another type than the function's: the message is about the user's own lines.

use dlock::{Error, db_locked};

#[db_locked]
fn sync() -> Result<u8, Error> {
    "text"
}

#[db_locked]
async fn is_async() -> Result<u8, Error> {
    Ok("text")
}

#[db_locked]
async fn returns_early(early: bool) -> Result<u8, Error> {
    if early {
        return "text";
    }
    Ok(1)
}

fn main() {}
