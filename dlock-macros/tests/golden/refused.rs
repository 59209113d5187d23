#[db_locked(kye = "a", timeout = "10")]
fn kept() -> u8 {
    1
}
