#[tokio::main]
async fn main() -> ExitCode {
    let __dlock_entry = ::dlock::__private::Entry::new(
            ::dlock::__private::key(::core::format_args!("nightly")),
        )
        .init(dlock::Config::from_env());
    let __dlock_body = async move {
        #[allow(
            unreachable_code,
            clippy::diverging_sub_expression,
            clippy::empty_loop,
            clippy::let_unit_value,
            clippy::needless_return
        )]
        if false {
            let __dlock_returned: ExitCode = loop {};
            return __dlock_returned;
        }
        { work().await }
    };
    let __dlock_error = match ::dlock::__private::run(__dlock_entry, __dlock_body).await
    {
        ::dlock::__private::Outcome::Ran(__dlock_out) => return __dlock_out,
        ::dlock::__private::Outcome::Lost(
            ::core::option::Option::Some(__dlock_out),
            _,
        ) if {
            #[allow(unused_imports)]
            use ::dlock::__private::NotFailed as _;
            ::dlock::__private::Failed(&__dlock_out).failed()
        } => return __dlock_out,
        ::dlock::__private::Outcome::NotRun(__dlock_error) if __dlock_error.is_busy() => {
            return ::dlock::__private::handle(|error| exit(75), __dlock_error);
        }
        ::dlock::__private::Outcome::Lost(_, __dlock_error)
        | ::dlock::__private::Outcome::NotRun(__dlock_error) => __dlock_error,
    };
    ::dlock::__private::handle(self::give_up, __dlock_error)
}
