#[db_locked(key = "nightly", init = dlock::Config::from_env(), on_busy = |error| exit(75), on_error = self::give_up)]
#[tokio::main]
async fn main() -> ExitCode {
    work().await
}
