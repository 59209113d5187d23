#[db_locked(key = "inline/{id}")]
#[track_caller]
fn inline(id: u8) -> Result<impl Display, Error> {
    work(id)
}

#[db_locked(on_error = panic)]
#[track_caller]
fn never() -> ! {
    work()
}
