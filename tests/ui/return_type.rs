//! Return types that cannot carry a lock's failure: the message is at the type and names the ways out.

use dlock::db_locked;

#[db_locked]
fn nothing() {}

#[db_locked]
async fn a_number() -> u8 {
    1
}

struct Response;

#[db_locked]
async fn a_type_of_the_users() -> Response {
    Response
}

#[db_locked]
fn an_option(id: u8) -> Option<u8> {
    Some(id)
}

#[derive(Debug)]
struct AppError;

#[db_locked]
fn an_error_without_from() -> Result<u8, AppError> {
    Ok(1)
}

#[db_locked]
fn a_text() -> Result<u8, String> {
    Ok(1)
}

type Alias<T> = Result<T, AppError>;

#[db_locked]
async fn behind_an_alias() -> Alias<u8> {
    Ok(1)
}

#[db_locked]
fn something_opaque() -> impl Iterator<Item = u8> {
    [1].into_iter()
}

struct Account;

#[db_locked]
impl Account {
    fn id(&self) -> u8 {
        1
    }
}

fn main() {}
