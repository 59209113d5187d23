unsafe fn r#move(from: u8) -> io::Result<u8> {
    let __dlock_entry = ::dlock::__private::Entry::new(
        ::core::concat!(::core::module_path!(), "::move"),
    );
    let __dlock_error = match ::dlock::__private::call(
        __dlock_entry,
        move || -> io::Result<u8> { Ok(from) },
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
    <io::Result<u8> as ::dlock::__private::FromLockError>::from_lock_error(__dlock_error)
}
