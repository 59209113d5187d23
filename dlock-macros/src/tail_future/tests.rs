use syn::parse_quote;

use super::*;

fn kind(output: &ReturnType) -> String {
    match future_type(output) {
        None => "none".to_owned(),
        Some(FutureType::Within) => "within".to_owned(),
        Some(FutureType::Whole(ty)) => format!("whole {}", ty.to_token_stream()),
    }
}

#[test]
fn futures_are_known_by_their_names() {
    assert_eq!(
        kind(&parse_quote!(-> impl Future<Output = u8> + Send)),
        "whole u8"
    );
    assert_eq!(
        kind(
            &parse_quote!(-> ::core::pin::Pin<Box<dyn ::core::future::Future<Output = ()> + Send + 'a>>)
        ),
        "whole ()"
    );
    assert_eq!(
        kind(&parse_quote!(-> BoxFuture<'static, Result<A, B>>)),
        "whole Result < A , B >"
    );
    assert_eq!(
        kind(&parse_quote!(-> impl std::future::IntoFuture)),
        "whole "
    );
    assert_eq!(
        kind(&parse_quote!(-> Result<impl Future<Output = ()>, E>)),
        "within"
    );
    assert_eq!(kind(&parse_quote!(-> (u8, BoxFuture<'a, u8>))), "within");
    assert_eq!(
        kind(&parse_quote!(-> Box<dyn Fn() -> BoxFuture<'static, u8>>)),
        "none"
    );
    assert_eq!(kind(&parse_quote!(-> Result<u8, FutureError>)), "none");
    assert_eq!(kind(&parse_quote!()), "none");
}

fn spliced(body: TokenStream) -> Option<String> {
    let tail = TailFuture::find(body)?;
    Some(
        tail.splice(
            |Parts {
                 bindings,
                 body,
                 this,
                 capture,
             }| quote!([#bindings] [#body] [#this] [#capture]),
        )
        .to_string(),
    )
}

#[test]
fn the_async_block_is_found_inside_its_box() {
    let expected = Some(quote!(Box::pin(async move { [] [a().await] [] [move] })).to_string());
    assert_eq!(
        spliced(quote!(Box::pin(async move { a().await }))),
        expected
    );
    assert!(spliced(quote!(async { a().await }.boxed())).is_some());
    assert!(spliced(quote! { fn inner() {} return Box::pin(async move {}) }).is_some());
}

#[test]
fn what_runs_before_the_async_block_prevents_the_splice() {
    assert_eq!(spliced(quote!(let x = f(); async move { x })), None);
    assert_eq!(spliced(quote!(self.inner())), None);
    assert_eq!(spliced(quote!(async move { 1 }.map(f))), None);
    assert_eq!(
        spliced(quote!(if a {
            Box::pin(async {})
        } else {
            Box::pin(async {})
        })),
        None
    );
    assert_eq!(spliced(quote!(async move { id. })), None);
}

#[test]
fn the_bindings_of_async_trait_come_before_the_lock() {
    let out = spliced(quote! {
        Box::pin(async move {
            if let ::core::option::Option::Some(__ret) = ::core::option::Option::None::<u8> {
                #[allow(unreachable_code)]
                return __ret;
            }
            let mut __self = self;
            let x = x;
            let (a, b) = { let __arg1 = __arg1; __arg1 };
            let __ret: u8 = { let y = x; y };
            #[allow(unreachable_code)]
            __ret
        })
    })
    .unwrap();
    let (bindings, rest) = out.split_once("] [").unwrap();
    assert!(
        bindings.contains("(a , b)") && !bindings.contains("__ret : u8"),
        "{bindings}"
    );
    assert!(
        rest.starts_with("let __ret : u8") && rest.contains("[__self]"),
        "{rest}"
    );
}

#[test]
fn the_users_own_first_statement_is_under_the_lock() {
    let out = spliced(quote!(async move {
        let this = other;
        let y = g();
        y
    }))
    .unwrap();
    assert!(out.contains("[] [let this = other"), "{out}");
}

#[test]
fn a_body_that_only_drives_an_async_block_is_entered() {
    let driven = |body| TailFuture::find_driven(body).is_some();
    assert!(driven(quote!(task::block_on(async { work().await }))));
    assert!(driven(quote! {
        async fn main() {}
        return task::block_on(async { main().await });
    }));
    assert!(driven(quote!(
        <actix::System>::new().block_on(async move { work().await })
    )));
    // Here something else would run without the lock.
    assert!(!driven(quote!(self.prepared().block_on(async {}))));
    assert!(!driven(quote!(runtime(prepare()).block_on(async {}))));
    assert!(!driven(quote!(prepare(); block_on(async {}))));
    assert!(!driven(quote!(block_on(work()))));
    assert!(!driven(quote!(Ok(block_on(async {})))));
}
