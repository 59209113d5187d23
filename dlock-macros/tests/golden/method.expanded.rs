impl Service {
    async fn refill<T: Item>(
        &mut self,
        id: u8,
        (a, b): (T, T),
    ) -> Result<impl Iterator<Item = T>, Error> {
        let __dlock_entry = vendored::dlock::__private::Entry::new(
                vendored::dlock::__private::key(
                    ::core::format_args!("{}", format!("{}/{id}", self.tenant)),
                ),
            )
            .shared()
            .timeout(self.timeout)
            .locker(&self.locker);
        let __dlock_body = async move {
            #[allow(
                unreachable_code,
                clippy::diverging_sub_expression,
                clippy::empty_loop,
                clippy::let_unit_value,
                clippy::needless_return
            )]
            if false {
                let __dlock_returned: Result<_, Error> = loop {};
                return __dlock_returned;
            }
            { Ok([a, b].into_iter()) }
        };
        let __dlock_error = match vendored::dlock::__private::run(
                __dlock_entry,
                __dlock_body,
            )
            .await
        {
            vendored::dlock::__private::Outcome::Ran(__dlock_out) => return __dlock_out,
            vendored::dlock::__private::Outcome::Lost(
                ::core::option::Option::Some(__dlock_out),
                _,
            ) if {
                #[allow(unused_imports)]
                use vendored::dlock::__private::NotFailed as _;
                vendored::dlock::__private::Failed(&__dlock_out).failed()
            } => return __dlock_out,
            vendored::dlock::__private::Outcome::Lost(_, __dlock_error)
            | vendored::dlock::__private::Outcome::NotRun(__dlock_error) => __dlock_error,
        };
        <Result<
            _,
            Error,
        > as vendored::dlock::__private::FromLockError>::from_lock_error(__dlock_error)
    }
}
