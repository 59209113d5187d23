//! From the attribute and its function to the function that runs under the lock.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Expr, ExprReference, Token};

use crate::args::{Args, OnBusy, OnError, Timeout};
use crate::diagnostics::Problems;
use crate::duration;
use crate::function::{Function, Returned, is_punct, names_of, rename_self};
use crate::tail_future::{FutureType, Parts, TailFuture, drives_a_future, future_type};

#[cfg(test)]
mod tests;

/// Where the lock goes.
enum Plan {
    /// Around the body, as a closure.
    Sync,
    /// Around the body, as a future.
    Async,
    /// Into the `async` block that the body consists of.
    Tail(TailFuture, Option<Box<syn::Type>>),
}

/// Expands the attribute. Whatever is wrong, the item is still there afterwards.
pub(crate) fn expand(args: TokenStream, item: TokenStream) -> TokenStream {
    let mut problems = Problems::default();
    let args = Args::parse(args, &mut problems);
    let function = match Function::parse(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            problems.push(error);
            return problems.with_item(item);
        }
    };
    if problems.is_empty() && args.key.is_none() && function.belongs_to_a_type() {
        problems.at(function.signature.ident.span(), needs_a_key(&function));
    }
    refuse(&args, &function, &mut problems);
    let plan = plan(&function, &mut problems);
    match plan {
        Some(plan) if problems.is_empty() => lock(&args, &function, plan),
        _ => problems.with_item(item),
    }
}

fn needs_a_key(function: &Function) -> String {
    let name = function.signature.ident.unraw();
    format!(
        "a method needs a key: its type is not visible here, so `{name}` of another type would share the lock; \
         write #[db_locked(key = \"…/{name}\")] to share one lock among all values of the type, \
         or capture what tells them apart, such as #[db_locked(key = \"…/{{self.id}}\")]"
    )
}

/// Refuses what cannot be locked, or not in this way.
fn refuse(args: &Args, function: &Function, problems: &mut Problems) {
    let signature = &function.signature;
    if let Some(constness) = &signature.constness {
        problems.at(
            constness.span,
            "a `const fn` can run in the compiler, where there is no lock: remove `const`",
        );
    }
    for attribute in &function.attrs {
        if attribute
            .path()
            .segments
            .last()
            .is_some_and(|segment| segment.ident == "db_locked")
        {
            problems.over(
                attribute,
                "a function takes one #[db_locked]: put the second lock on a function that this one calls",
            );
        }
    }
    if let Some((span, _)) = &args.init
        && signature.ident != "main"
    {
        problems.at(
            *span,
            "`init` belongs on `main`: elsewhere call dlock::init(…) when the program starts",
        );
    }
    if let (Some(abi), OnError::Panic(span)) = (&signature.abi, &args.on_error)
        && !abi.name.as_ref().is_some_and(|name| {
            matches!(name.value().as_str(), "Rust" | "C-unwind" | "system-unwind")
        })
    {
        problems.at(*span, "a panic cannot leave this function, it would abort the process: give `on_error` a function that returns a value");
    }
    refuse_moved_parameters("on_busy", args.on_busy.handler(), function, problems);
    refuse_moved_parameters("on_error", args.on_error.handler(), function, problems);
}

/// A handler runs after the body has taken the parameters, and rustc's message would be about code that the user did not write.
fn refuse_moved_parameters(
    argument: &str,
    handler: Option<&Expr>,
    function: &Function,
    problems: &mut Problems,
) {
    let Some(handler) = handler else { return };
    let own: Vec<Ident> = match handler {
        Expr::Closure(closure) => closure.inputs.iter().flat_map(names_of).collect(),
        _ => Vec::new(),
    };
    let moved: Vec<Ident> = function
        .moved_parameters()
        .into_iter()
        .filter(|name| !own.contains(name))
        .collect();
    for (name, span) in names_used(&quote!(#handler), &moved) {
        problems.at(
            span,
            format_args!(
                "`{argument}` receives the error alone: the body has taken the parameter `{name}`; \
                 the error knows the key (`error.key()`)"
            ),
        );
    }
}

/// Where the tokens name one of the variables: not as a field, a method or a part of a path.
fn names_used(tokens: &TokenStream, names: &[Ident]) -> Vec<(Ident, Span)> {
    let mut used = Vec::new();
    let trees: Vec<TokenTree> = tokens.clone().into_iter().collect();
    for (index, tree) in trees.iter().enumerate() {
        match tree {
            TokenTree::Ident(ident) => {
                let before = index.checked_sub(1).and_then(|before| trees.get(before));
                let is_member =
                    before.is_some_and(|tree| is_punct(tree, '.') || is_punct(tree, ':'));
                let is_path = trees.get(index + 1).is_some_and(|tree| is_punct(tree, ':'));
                if let Some(name) = names.iter().find(|name| *name == ident)
                    && !is_member
                    && !is_path
                {
                    used.push((name.clone(), ident.span()));
                }
            }
            TokenTree::Group(group) => used.extend(names_used(&group.stream(), names)),
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                let captured = |name: &&Ident| {
                    [format!("{{{name}}}"), format!("{{{name}:")]
                        .iter()
                        .any(|part| text.contains(part))
                };
                used.extend(
                    names
                        .iter()
                        .find(captured)
                        .map(|name| (name.clone(), literal.span())),
                );
            }
            TokenTree::Punct(_) => {}
        }
    }
    used
}

fn plan(function: &Function, problems: &mut Problems) -> Option<Plan> {
    let signature = &function.signature;
    if function.is_async() {
        return Some(Plan::Async);
    }
    let body = function.body.stream();
    if drives_a_future(&body) {
        problems.at(
            Span::call_site(),
            "an attribute above has already turned the async body into `block_on`, and a lock around that could not stop \
             the body: put #[db_locked] above #[tokio::main] or #[tokio::test]",
        );
        return None;
    }
    match future_type(&signature.output) {
        None => Some(Plan::Sync),
        Some(FutureType::Whole(output)) => {
            if let Some(tail) = TailFuture::find(body) {
                return Some(Plan::Tail(tail, output));
            }
            problems.over(
                &signature.output,
                "this function returns a future, and only its construction would run under the lock: make it an `async fn`, \
                 or let its body be one `async move { … }` or `Box::pin(async move { … })`, with everything inside",
            );
            None
        }
        Some(FutureType::Within) => {
            problems.over(
                &signature.output,
                "there is a future inside the returned value, and it would run without the lock: make this an `async fn` \
                 that awaits it, or put #[db_locked] on the function that makes the future",
            );
            None
        }
    }
}

/// Everything the emitted code is made of.
struct Emitter<'a> {
    args: &'a Args,
    function: &'a Function,
    private: TokenStream,
    returned: Returned,
    /// What `self` is called where the code will stand.
    this: Option<Ident>,
}

fn lock(args: &Args, function: &Function, plan: Plan) -> TokenStream {
    let mut emitter = Emitter {
        args,
        function,
        private: args.private(Span::mixed_site()),
        returned: function.returned(),
        this: None,
    };
    let body = &function.body;
    let locked = match plan {
        Plan::Sync => emitter.sync_body(body),
        Plan::Async => emitter.async_body(&as_ours(body), &quote!(move)),
        Plan::Tail(tail, output) => {
            emitter.returned = match &output {
                Some(output) => Returned::of(output),
                None => Returned {
                    ty: quote!(_),
                    span: emitter.returned.span,
                    is_never: false,
                },
            };
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
        let key = match &args.key {
            Some(key) => key.tokens(private, self.this.as_ref()),
            None => self.default_key(),
        };
        let mut entry = quote!(#private::Entry::new(#key));
        if args.shared {
            entry.extend(quote!(.shared()));
        }
        match &args.timeout {
            Some(Timeout::Literal(duration)) => {
                let duration = duration::tokens(*duration);
                entry.extend(quote!(.timeout(#duration)));
            }
            Some(Timeout::Expression(value)) => {
                entry.extend(self.setting("timeout", value));
            }
            None => {}
        }
        if let Some(locker) = &args.locker {
            entry.extend(self.setting("locker", &borrowed(locker)));
        }
        if let Some((_, source)) = &args.init {
            entry.extend(self.setting("init", source));
        }
        entry
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
        let path = format!("::{}", self.function.signature.ident.unraw());
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
