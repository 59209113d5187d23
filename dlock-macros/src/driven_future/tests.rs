use quote::quote;

use super::*;

fn spliced(body: &TokenStream) -> Option<Result<String, NotAlone>> {
    let found = DrivenFuture::find(body)?;
    Some(found.map(|driven| driven.splice(|block| quote!([#block])).to_string()))
}

#[test]
fn the_lock_goes_into_the_future_that_tokio_drives() {
    let rest = quote! {
        let body = { if false { let _: &dyn Future<Output = ()> = &body; } body };
        #[allow(clippy::expect_used)]
        { return tokio::runtime::Builder::new_multi_thread().build().expect("x").block_on(body); }
    };
    let found = spliced(&quote!(let body = async { work().await }; #rest));
    let expected = quote!(let body = async { [{ work().await }] }; #rest);
    assert_eq!(found.unwrap().unwrap(), expected.to_string());
    let test = quote! {
        let body = async move { work().await };
        tokio::pin!(body);
        let body: ::core::pin::Pin<&mut dyn Future<Output = ()>> = body;
        { return rt.block_on(body); }
    };
    assert!(matches!(spliced(&test), Some(Ok(_))));
}

#[test]
fn a_driven_future_that_something_was_done_to_is_not_taken_apart() {
    let wrapped = quote!(let body = async { work().await }.instrument(span); rt.block_on(body));
    assert!(matches!(spliced(&wrapped), Some(Err(NotAlone))));
}

#[test]
fn what_the_user_drives_is_the_users() {
    assert!(spliced(&quote!(let body = async { 1 }; spawn(body))).is_none());
    assert!(spliced(&quote!(runtime.block_on(async { 1 }))).is_none());
    assert!(spliced(&quote!(let x = 1; x)).is_none());
}
