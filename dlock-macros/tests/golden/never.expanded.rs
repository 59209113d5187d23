fn lead() -> ! {
    let __dlock_entry = ::dlock::__private::Entry::new(
        ::dlock::__private::key(::core::format_args!("leader")),
    );
    let __dlock_error = match ::dlock::__private::call(
        __dlock_entry,
        move || -> ! {
            loop {
                work();
            }
        },
    ) {
        ::dlock::__private::Outcome::Ran(__dlock_out) => __dlock_out,
        ::dlock::__private::Outcome::Lost(_, __dlock_error)
        | ::dlock::__private::Outcome::NotRun(__dlock_error) => __dlock_error,
    };
    ::dlock::__private::panic(__dlock_error)
}
