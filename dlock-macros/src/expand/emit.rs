//! The code that takes the place of the body.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Expr, ExprReference, Token};

use super::Plan;
use crate::args::{Args, OnBusy, OnError, OnLost};
use crate::duration::{self, Length};
use crate::function::{Function, Returned, rename_self};
use crate::key::Keys;
use crate::tail_future::Parts;

/// Writes the function with its body under the lock.
pub(super) fn lock(
    args: &Args,
    function: &Function,
    owner: Option<&str>,
    plan: Plan,
) -> TokenStream {
    let mut emitter = Emitter {
        args,
        function,
        owner,
        private: args.private(Span::mixed_site()),
        returned: function.returned(),
        this: None,
        is_async: !matches!(plan, Plan::Sync | Plan::Inline),
    };
    let body = &function.body;
    let locked = match plan {
        Plan::Sync => emitter.sync_body(body),
        Plan::Inline => emitter.inline_body(body),
        Plan::Driven(driven) => {
            driven.splice(|body| emitter.async_body(&as_ours(&body), &quote!(move)))
        }
        Plan::Async => emitter.async_body(&as_ours(body), &quote!(move)),
        Plan::Tail(tail, returned) => {
            emitter.returned = returned;
            tail.splice(
                |Parts {
                     bindings,
                     body,
                     this,
                     capture,
                 }| {
                    emitter.this = this;
                    let body = Group::new(Delimiter::Brace, body);
                    let locked = emitter.async_body(&as_ours(&body), &quote!(#capture));
                    quote!(#bindings #locked)
                },
            )
        }
    };
    function.with_body(locked)
}

/// Everything the emitted code is made of.
struct Emitter<'a> {
    args: &'a Args,
    function: &'a Function,
    /// The type and the trait of a method, as its default key names them.
    owner: Option<&'a str>,
    private: TokenStream,
    returned: Returned,
    /// What `self` is called where the code will stand.
    this: Option<Ident>,
    is_async: bool,
}

impl Emitter<'_> {
    // Input:
    //     fn f(x: X) -> R { body }
    //
    // Output:
    //     fn f(x: X) -> R {
    //         let entry = Entry::new(key)…;
    //         let error = match call(entry, move || -> R { body }) { … };
    //         R::from_lock_error(error)
    //     }
    //
    // The body is a closure so that `return` and `?` come back here, where the lock is checked and released.
    fn sync_body(&self, body: &Group) -> TokenStream {
        let (private, ty, entry) = (&self.private, &self.returned.ty, self.entry());
        let name = hidden("entry");
        let settled = self.settle(&quote!(#private::call(#name, move || -> #ty #body)));
        quote! {
            let #name = #entry;
            #settled
        }
    }

    // Input:
    //     #[track_caller] fn f(x: X) -> R { body }
    //
    // Output:
    //     #[track_caller] fn f(x: X) -> R {
    //         let entry = Entry::new(key)…;
    //         let error = match match enter(entry) {
    //             Ok(held) => { let out: R = { body }; leave(held, out) }
    //             Err(error) => NotRun(error),
    //         } { … };
    //         R::from_lock_error(error)
    //     }
    //
    // The body's value goes through a variable: as the tail of a block, its temporaries would outlive the lock in editions
    // before 2024.
    fn inline_body(&self, body: &Group) -> TokenStream {
        let (private, ty, entry) = (&self.private, &self.returned.ty, self.entry());
        let (name, held, out, error) = (
            hidden("entry"),
            hidden("held"),
            hidden("out"),
            hidden("error"),
        );
        let body = as_ours(body);
        if self.returned.is_never {
            let failure = self.failure(&error);
            let failure = match self.busy(&error) {
                Some(busy) => quote!(if #error.is_busy() { #busy } else { #failure }),
                None => failure,
            };
            return quote! {
                let #name = #entry;
                match #private::enter(#name) {
                    ::core::result::Result::Ok(#held) => #body,
                    ::core::result::Result::Err(#error) => #failure,
                }
            };
        }
        let settled = self.settle(&quote! {
            match #private::enter(#name) {
                ::core::result::Result::Ok(#held) => {
                    #[allow(clippy::let_unit_value, clippy::let_and_return)]
                    let #out: #ty = #body;
                    #private::leave(#held, #out)
                }
                ::core::result::Result::Err(#error) => #private::Outcome::NotRun(#error),
            }
        });
        quote! {
            let #name = #entry;
            #settled
        }
    }

    // Input:
    //     async fn f(x: X) -> R { body }
    //
    // Output:
    //     async fn f(x: X) -> R {
    //         let entry = Entry::new(key)…;
    //         let body = async move { body };
    //         let error = match run(entry, body).await { … };
    //         R::from_lock_error(error)
    //     }
    //
    // The body's future is built before the first await: built later, the parameters would be stored twice.
    fn async_body(&self, body: &Group, capture: &TokenStream) -> TokenStream {
        let (private, entry, typed) = (&self.private, self.entry(), self.typed_return());
        let (name, future) = (hidden("entry"), hidden("body"));
        let settled = self.settle(&quote!(#private::run(#name, #future).await));
        quote! {
            let #name = #entry;
            let #future = async #capture { #typed #body };
            #settled
        }
    }

    /// A `return` that never runs, so that a body of another type is reported at the return type that the user wrote.
    fn typed_return(&self) -> TokenStream {
        // `!` may not be written as the type of a variable, and `_` says nothing.
        if self.returned.is_never || self.returned.ty.to_string() == "_" {
            return TokenStream::new();
        }
        let site = self.return_site();
        let (ty, name) = (&self.returned.ty, Ident::new("__dlock_returned", site));
        quote_spanned! {site=>
            #[allow(unreachable_code, clippy::diverging_sub_expression, clippy::empty_loop, clippy::let_unit_value, clippy::needless_return)]
            if false {
                let #name: #ty = loop {};
                return #name;
            }
        }
    }

    /// Hygiene of ours, place of the return type: errors about it are shown there.
    fn return_site(&self) -> Span {
        Span::mixed_site().located_at(self.returned.span)
    }

    fn entry(&self) -> TokenStream {
        let (args, private) = (self.args, &self.private);
        let mut entry = match &args.keys {
            Some(Keys::One(key)) => {
                let key = key.tokens(private, self.this.as_ref());
                quote!(#private::Entry::new(#key))
            }
            Some(Keys::All(keys)) => {
                let keys = keys
                    .iter()
                    .map(|key| key.tokens(private, self.this.as_ref()));
                quote!(#private::Entry::all([#(#keys),*]))
            }
            None => {
                let key = self.default_key();
                quote!(#private::Entry::new(#key))
            }
        };
        if args.shared {
            entry.extend(quote!(.shared()));
        }
        for (name, length) in [
            ("timeout", &args.timeout),
            ("min_hold", &args.min_hold),
            ("max_hold", &args.max_hold),
            ("ttl", &args.ttl),
        ] {
            entry.extend(self.length(name, length.as_ref()));
        }
        if let Some(fencing) = args.fencing {
            entry.extend(quote!(.fencing(#fencing)));
        }
        if let Some(reentrant) = args.reentrant {
            entry.extend(quote!(.reentrant(#reentrant)));
        }
        // A synchronous body always finishes.
        if matches!(args.on_lost, Some(OnLost::Finish)) && self.is_async {
            entry.extend(quote!(.finish_when_lost()));
        }
        if let Some(scheme) = &args.scheme {
            entry.extend(self.setting("scheme", scheme));
        }
        if let Some(locker) = &args.locker {
            entry.extend(self.setting("locker", &borrowed(locker)));
        }
        if let Some((_, source)) = &args.init {
            entry.extend(self.setting("init", source));
        }
        entry
    }

    fn length(&self, name: &str, length: Option<&Length>) -> TokenStream {
        match length {
            Some(Length::Literal(duration, _)) => {
                let name = Ident::new(name, Span::mixed_site());
                let duration = duration::tokens(*duration);
                quote!(.#name(#duration))
            }
            Some(Length::Expression(value)) => self.setting(name, value),
            None => TokenStream::new(),
        }
    }

    /// `.name(value)`, with errors about the value's type shown at the value.
    fn setting(&self, name: &str, value: &Expr) -> TokenStream {
        let site = Span::mixed_site().located_at(value.span());
        let name = Ident::new(name, site);
        let value = rename_self(quote!(#value), self.this.as_ref());
        quote_spanned!(site=> .#name(#value))
    }

    /// The path of the function, as text.
    fn default_key(&self) -> TokenStream {
        let name = self.function.signature.ident.unraw();
        let path = match self.owner {
            Some(owner) => format!("::{owner}::{name}"),
            None => format!("::{name}"),
        };
        quote!(::core::concat!(::core::module_path!(), #path))
    }

    /// Takes an expression of type `Outcome<R>` and returns from the function.
    fn settle(&self, outcome: &TokenStream) -> TokenStream {
        let private = &self.private;
        let (out, error) = (hidden("out"), hidden("error"));
        let ran = self.leave(&quote!(#out));
        // The body's own error says more than that the lock was lost meanwhile.
        let own_error = (!self.returned.is_never).then(|| {
            quote! {
                #private::Outcome::Lost(::core::option::Option::Some(#out), _) if {
                    #[allow(unused_imports)]
                    use #private::NotFailed as _;
                    #private::Failed(&#out).failed()
                } => return #out,
            }
        });
        let busy = self.busy(&error).map(|value| {
            let busy = self.leave(&value);
            quote!(#private::Outcome::NotRun(#error) if #error.is_busy() => #busy,)
        });
        let failure = self.failure(&error);
        quote! {
            let #error = match #outcome {
                #private::Outcome::Ran(#out) => #ran,
                #own_error
                #busy
                #private::Outcome::Lost(_, #error) | #private::Outcome::NotRun(#error) => #error,
            };
            #failure
        }
    }

    /// Returns a value from the function. One of type `!` has never come this far, and `return` would be unreachable.
    fn leave(&self, value: &TokenStream) -> TokenStream {
        if self.returned.is_never {
            value.clone()
        } else {
            quote!(return #value)
        }
    }

    /// What is returned when others kept the lock, unless that is a failure as any other.
    fn busy(&self, error: &Ident) -> Option<TokenStream> {
        let ty = &self.returned.ty;
        match &self.args.on_busy {
            OnBusy::Error => None,
            OnBusy::Skip => {
                let site = self.return_site();
                let private = self.args.private(site);
                Some(quote_spanned!(site=> <#ty as #private::Skippable>::skipped()))
            }
            OnBusy::Handler(handler) => Some(self.handle(handler, error)),
        }
    }

    /// What is returned when the lock could not be taken, or was lost.
    fn failure(&self, error: &Ident) -> TokenStream {
        let ty = &self.returned.ty;
        match &self.args.on_error {
            OnError::Return => {
                let site = self.return_site();
                let private = self.args.private(site);
                quote_spanned!(site=> <#ty as #private::FromLockError>::from_lock_error(#error))
            }
            OnError::Panic(_) => {
                let private = &self.private;
                quote!(#private::panic(#error))
            }
            OnError::Handler(handler) => self.handle(handler, error),
        }
    }

    fn handle(&self, handler: &Expr, error: &Ident) -> TokenStream {
        let site = Span::mixed_site().located_at(handler.span());
        let private = self.args.private(site);
        let handler = rename_self(quote!(#handler), self.this.as_ref());
        quote_spanned!(site=> #private::handle(#handler, #error))
    }
}

/// `&value`, in parentheses where the value needs them.
fn borrowed(value: &Expr) -> Expr {
    Expr::Reference(ExprReference {
        attrs: Vec::new(),
        and_token: Token![&](Span::mixed_site().located_at(value.span())),
        mutability: None,
        expr: Box::new(value.clone()),
    })
}

/// The group with the place of the original, and our hygiene: lints about braces that only we need stay quiet.
fn as_ours(body: &Group) -> Group {
    let mut group = Group::new(body.delimiter(), body.stream());
    group.set_span(Span::mixed_site().located_at(body.span()));
    group
}

/// A variable that the user's code cannot see.
fn hidden(name: &str) -> Ident {
    format_ident!("__dlock_{name}", span = Span::mixed_site())
}
