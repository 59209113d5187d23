impl Job for Service {
    fn run<'life0, 'async_trait>(
        &'life0 self,
        __arg1: (u8, u8),
        name: String,
    ) -> ::core::pin::Pin<
        Box<
            dyn ::core::future::Future<
                Output = Result<(), Error>,
            > + ::core::marker::Send + 'async_trait,
        >,
    >
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            if let ::core::option::Option::Some(__ret) = ::core::option::Option::None::<
                Result<(), Error>,
            > {
                #[allow(unreachable_code)] return __ret;
            }
            let __self = self;
            let (a, b) = {
                let __arg1 = __arg1;
                __arg1
            };
            let name = name;
            let __dlock_entry = ::dlock::__private::Entry::new(
                    ::dlock::__private::key(
                        ::core::format_args!(
                            "{__dlock_0}/{a}/{name}", __dlock_0 = __self.id
                        ),
                    ),
                )
                .timeout(__self.timeout);
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
                {
                    let __ret: Result<(), Error> = { __self.go(a, b, name).await };
                    #[allow(unreachable_code)] __ret
                }
            };
            let __dlock_error = match ::dlock::__private::run(
                    __dlock_entry,
                    __dlock_body,
                )
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
        })
    }
}
