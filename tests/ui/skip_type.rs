//! Return types that have no value for "skipped".

use dlock::{Error, db_locked};

#[db_locked(on_busy = skip)]
fn a_number() -> Result<u8, Error> {
    Ok(1)
}

struct Response;

#[db_locked(on_busy = skip, on_error = panic)]
async fn a_type_of_the_users() -> Response {
    Response
}

fn main() {}
