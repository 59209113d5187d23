#[db_locked(key = "leader", on_error = panic)]
fn lead() -> ! {
    loop {
        work();
    }
}
