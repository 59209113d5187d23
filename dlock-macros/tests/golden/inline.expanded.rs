#[track_caller]
fn inline(id: u8) -> Result<impl Display, Error> {
    let __dlock_entry = ::dlock::__private::Entry::new(
        ::dlock::__private::key(::core::format_args!("inline/{id}")),
    );
    let __dlock_error = match match ::dlock::__private::enter(__dlock_entry) {
        ::core::result::Result::Ok(__dlock_held) => {
            #[allow(clippy::let_unit_value, clippy::let_and_return)]
            let __dlock_out: Result<_, Error> = { work(id) };
            ::dlock::__private::leave(__dlock_held, __dlock_out)
        }
        ::core::result::Result::Err(__dlock_error) => {
            ::dlock::__private::Outcome::NotRun(__dlock_error)
        }
    } {
        ::dlock::__private::Outcome::Ran(__dlock_out) => return __dlock_out,
        ::dlock::__private::Outcome::Lost(
            ::core::option::Option::Some(__dlock_out),
            _,
        ) if {
            #[allow(unused_imports)]
            use ::dlock::__private::NotFailed as _;
            ::dlock::__private::Failed(&__dlock_out).failed()
        } => return __dlock_out,
        ::dlock::__private::Outcome::Lost(_, __dlock_error)
        | ::dlock::__private::Outcome::NotRun(__dlock_error) => __dlock_error,
    };
    <Result<
        _,
        Error,
    > as ::dlock::__private::FromLockError>::from_lock_error(__dlock_error)
}
#[track_caller]
fn never() -> ! {
    let __dlock_entry = ::dlock::__private::Entry::new(
        ::core::concat!(::core::module_path!(), "::never"),
    );
    match ::dlock::__private::enter(__dlock_entry) {
        ::core::result::Result::Ok(__dlock_held) => work(),
        ::core::result::Result::Err(__dlock_error) => {
            ::dlock::__private::panic(__dlock_error)
        }
    }
}
