use super::*;

fn owner_of(item: TokenStream) -> String {
    ImplBlock::parse(item).unwrap().unwrap().owner
}

#[test]
fn the_owner_is_the_type_and_the_trait() {
    assert_eq!(owner_of(quote!(impl Account {})), "Account");
    assert_eq!(
        owner_of(quote!(
            impl<'a, T: Clone> a::Cache<'a, T, { 2 }> where T: Send {}
        )),
        "a::Cache<'a,T,{2}>"
    );
    assert_eq!(
        owner_of(quote!(
            unsafe impl<T> Service<T> for &'static mut dyn Job {}
        )),
        "<&'static mut dyn Job as Service<T>>"
    );
    assert_eq!(
        owner_of(quote!(impl fmt::Display for (u8, [u8; 2]) {})),
        "<(u8,[u8;2]) as fmt::Display>"
    );
}

#[test]
fn only_impl_blocks_are_impl_blocks() {
    assert!(
        ImplBlock::parse(quote!(
            fn f() -> impl Iterator {}
        ))
        .is_none()
    );
    assert!(
        ImplBlock::parse(quote!(
            #[doc = "impl"]
            pub fn f() {}
        ))
        .is_none()
    );
    assert!(
        ImplBlock::parse(quote!(
            struct S;
        ))
        .is_none()
    );
    assert!(matches!(ImplBlock::parse(quote!(impl)), Some(Err(_))));
    assert!(matches!(ImplBlock::parse(quote!(impl S;)), Some(Err(_))));
}

/// `m` is a method, `c` a call of a macro, `o` another member; each with the number of attributes of ours.
fn kinds(item: TokenStream) -> String {
    let block = ImplBlock::parse(item).unwrap().unwrap();
    let kinds = block.members.iter().map(|member| match member {
        Member::Method { own, .. } => format!("m{}", own.len()),
        Member::MacroCall { own, .. } => format!("c{}", own.len()),
        Member::Other(_) => "o".to_owned(),
    });
    kinds.collect::<Vec<_>>().join(" ")
}

#[test]
fn members_are_told_apart() {
    let block = quote! {
        impl S {
            #![allow(dead_code)]
            const F: fn() -> u8 = { fn f() -> u8 { 1 } f };
            type T = [u8; 2];
            const N: bool = !true;
            /// Documented.
            #[db_locked(skip)]
            #[inline]
            pub(crate) async unsafe fn a(&self) -> X<{ 1 + 1 }> where [(); { 2 }]: Sized { half. }
            const fn b() {}
            extern "C" fn c() {}
            make!(a, b);
            #[dlock::db_locked(skip)]
            a::make! { c }
            fn d() {}
        }
    };
    assert_eq!(kinds(block), "o o o m1 m0 m0 c0 c1 m0");
}

#[test]
fn what_is_not_locked_stays_as_it_came() {
    let block = quote! {
        #[doc = "text"]
        impl<T> Trait for S<T> {
            #![allow(dead_code)]
            const X: u8 = 1;
            #[doc = "x"] #[inline] fn f() { half. }
        }
    };
    let mut problems = Problems::default();
    problems.at(proc_macro2::Span::call_site(), "a mistake elsewhere");
    let out = ImplBlock::parse(block.clone())
        .unwrap()
        .unwrap()
        .lock(&Args::default(), &mut problems);
    assert_eq!(out.to_string(), block.to_string());
}
