use super::*;

fn refused(item: TokenStream) -> String {
    Function::parse(item).err().expect("a refusal").to_string()
}

#[test]
fn the_head_is_kept_to_the_token() {
    let item = quote! {
        #[doc = "text"] #[inline] pub(in crate::a) unsafe extern "C" fn f<'a, const N: usize>(mut x: &'a [u8; N], _: impl Fn(), (a, b): (u8, u8)) -> &'a u8 where [(); N]: Sized { x }
    };
    let function = Function::parse(item.clone()).unwrap();
    assert_eq!(function.with_body(quote!(x)).to_string(), item.to_string());
}

#[test]
fn inner_attributes_become_outer_ones() {
    let function = Function::parse(quote!(
        #[inline]
        fn f() {
            #![allow(dead_code)]
            #![doc = "d"]
            g()
        }
    ))
    .unwrap();
    let body = function.body.stream();
    assert_eq!(
        function.with_body(body).to_string(),
        quote!(
            #[inline]
            #[allow(dead_code)]
            #[doc = "d"]
            fn f() {
                g()
            }
        )
        .to_string()
    );
}

#[test]
fn items_that_are_not_functions_are_told_what_to_do() {
    assert!(
        refused(quote!(
            pub struct S;
        ))
        .contains("goes on a function")
    );
    assert!(
        refused(quote!(
            #[doc = "x"]
            mod m {
                fn f() {}
            }
        ))
        .contains("each function of the module")
    );
    assert!(
        refused(quote!(
            pub(crate) trait T {
                fn f(&self) {}
            }
        ))
        .contains("implementations")
    );
    assert!(
        refused(quote!(
            const X: u8 = 1;
        ))
        .contains("goes on a function")
    );
    assert!(refused(quote!(|x| x)).contains("closure"));
    assert!(refused(quote!(move || 1)).contains("closure"));
    assert!(
        refused(quote!(
            fn f(&self);
        ))
        .contains("no body to lock")
    );
    assert!(refused(quote!()).contains("goes on a function"));
}

#[test]
fn a_body_that_does_not_parse_is_no_concern_of_ours() {
    assert!(Function::parse(quote!(fn f() -> u8 { Ok(id.) })).is_ok());
}

#[test]
fn moved_parameters_are_those_that_are_not_shared_references() {
    let names = |item| {
        let names = Function::parse(item).unwrap().moved_parameters();
        names.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        names(quote!(
            fn f(&self, a: u8, (b, c): P, d: &u8, e: &mut u8, _: u8) {}
        )),
        ["a", "b", "c", "e"]
    );
    assert_eq!(
        names(quote!(
            fn f(self: Box<Self>) {}
        )),
        ["self"]
    );
    assert_eq!(
        names(quote!(
            fn f(self: &Self) {}
        )),
        [""; 0]
    );
    assert_eq!(
        names(quote!(
            fn f(&mut self) {}
        )),
        ["self"]
    );
}
