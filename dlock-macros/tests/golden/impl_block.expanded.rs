impl<T: Item> Service for Cache<T> {
    const SIZE: usize = 1;
    type Error = Error;
    /// Fills it.
    fn fill(&self) -> Result<(), Error> {
        let __dlock_entry = ::dlock::__private::Entry::new(
                ::core::concat!(::core::module_path!(), "::<Cache<T> as Service>::fill"),
            )
            .timeout(::core::time::Duration::new(1u64, 0u32));
        let __dlock_error = match ::dlock::__private::call(
            __dlock_entry,
            move || -> Result<(), Error> { self.inner() },
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
            Error,
        > as ::dlock::__private::FromLockError>::from_lock_error(__dlock_error)
    }
    fn size(&self) -> usize {
        1
    }
    async fn refill(&self, x: u8) -> Result<(), Error> {
        let __dlock_entry = ::dlock::__private::Entry::all([
                ::dlock::__private::key(::core::format_args!("a/{x}")),
                ::dlock::__private::key(
                    ::core::format_args!("b/{__dlock_1}", __dlock_1 = self.id),
                ),
                ::dlock::__private::key(::core::format_args!("{}", NAME)),
            ])
            .min_hold(::core::time::Duration::new(1u64, 0u32))
            .max_hold(::core::time::Duration::new(60u64, 0u32))
            .ttl(::core::time::Duration::new(30u64, 0u32))
            .fencing(true)
            .reentrant(false)
            .finish_when_lost();
        let __dlock_body = async move {
            #[allow(
                unreachable_code,
                clippy::diverging_sub_expression,
                clippy::empty_loop,
                clippy::let_unit_value,
                clippy::needless_return
            )]
            if false {
                let __dlock_returned: Result<(), Error> = loop {};
                return __dlock_returned;
            }
            { self.inner().await }
        };
        let __dlock_error = match ::dlock::__private::run(__dlock_entry, __dlock_body)
            .await
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
            ::dlock::__private::Outcome::Lost(_, __dlock_error)
            | ::dlock::__private::Outcome::NotRun(__dlock_error) => __dlock_error,
        };
        <Result<
            (),
            Error,
        > as ::dlock::__private::FromLockError>::from_lock_error(__dlock_error)
    }
}
