/// Settles an account.
pub fn settle(account: &Account) -> Result<(), AppError> {
    let __dlock_entry = ::dlock::__private::Entry::new(
            ::dlock::__private::key(
                ::core::format_args!("settle/{__dlock_1}", __dlock_1 = account.id),
            ),
        )
        .timeout(::core::time::Duration::new(2u64, 500000000u32));
    let __dlock_error = match ::dlock::__private::call(
        __dlock_entry,
        move || -> Result<(), AppError> { account.settle() },
    ) {
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
        (),
        AppError,
    > as ::dlock::__private::FromLockError>::from_lock_error(__dlock_error)
}
