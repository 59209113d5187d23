impl Job for Service {
    #[db_locked(key = "{self.id}/{a}/{name}", timeout = self.timeout)]
    fn run<'life0, 'async_trait>(
        &'life0 self,
        __arg1: (u8, u8),
        name: String,
    ) -> ::core::pin::Pin<Box<dyn ::core::future::Future<Output = Result<(), Error>> + ::core::marker::Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            if let ::core::option::Option::Some(__ret) = ::core::option::Option::None::<Result<(), Error>> {
                #[allow(unreachable_code)]
                return __ret;
            }
            let __self = self;
            let (a, b) = { let __arg1 = __arg1; __arg1 };
            let name = name;
            let __ret: Result<(), Error> = { __self.go(a, b, name).await };
            #[allow(unreachable_code)]
            __ret
        })
    }
}
