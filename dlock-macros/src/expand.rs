//! From the attribute and its item to the item that runs under the lock.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::quote;
use syn::Expr;
use syn::ext::IdentExt;

use crate::args::{Args, OnBusy, OnError, OnLost};
use crate::diagnostics::Problems;
use crate::driven_future::{DrivenFuture, NotAlone};
use crate::function::{Function, Returned, is_punct, mentions, names_of};
use crate::impl_block::ImplBlock;
use crate::key::{Key, Keys};
use crate::tail_future::{FutureType, TailFuture, future_type};

mod emit;
#[cfg(test)]
mod tests;

/// Where the lock goes.
enum Plan {
    /// Around the body, as a closure.
    Sync,
    /// Around the body, in its place: inside a closure, the caller's place could not be seen.
    Inline,
    /// Around the body, as a future.
    Async,
    /// Into the `async` block that the body consists of.
    Tail(TailFuture, Returned),
    /// Into the `async` block that a runtime's attribute has left.
    Driven(DrivenFuture),
}

/// Expands the attribute. Whatever is wrong, the item is still there afterwards.
pub(crate) fn expand(args: TokenStream, item: TokenStream) -> TokenStream {
    let mut problems = Problems::default();
    let args = Args::parse(args, &mut problems);
    if let Some(skip) = args.skip {
        problems.at(
            skip,
            "`skip` is for a method of an impl block that bears #[db_locked]: here, leave the attribute out",
        );
    }
    let item = match ImplBlock::parse(item.clone()) {
        Some(Ok(block)) => block.lock(&args, &mut problems),
        Some(Err(error)) => {
            problems.push(error);
            item
        }
        None => {
            refuse_init(&args, &item, &mut problems);
            function(&args, item, None, &mut problems)
        }
    };
    problems.with_item(item)
}

/// Locks one function, or returns it as it came. With an `owner` it is a method of an attributed impl block: the
/// owner is the text that tells its methods from those of other types.
pub(crate) fn function(
    args: &Args,
    item: TokenStream,
    owner: Option<&str>,
    problems: &mut Problems,
) -> TokenStream {
    let function = match Function::parse(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            problems.push(error);
            return item;
        }
    };
    if problems.is_empty() && args.keys.is_none() && owner.is_none() && function.belongs_to_a_type()
    {
        problems.at(function.signature.ident.span(), needs_a_key(&function));
    }
    refuse(args, &function, owner, problems);
    let plan = plan(&function, problems);
    if let (Some(OnLost::Cancel(span)), Some(Plan::Sync | Plan::Inline)) = (&args.on_lost, &plan) {
        problems.at(
            *span,
            format_args!(
                "`{}` is not async, and a thread cannot be stopped from outside: leave `on_lost` out, and call \
                 dlock::check()? in the body where it may stop",
                function.signature.ident.unraw()
            ),
        );
    }
    match plan {
        Some(plan) if problems.is_empty() => emit::lock(args, &function, owner, plan),
        _ => item,
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

/// `init` starts dlock once, so it has one place.
fn refuse_init(args: &Args, item: &TokenStream, problems: &mut Problems) {
    let Some((span, _)) = &args.init else { return };
    let is_main =
        Function::parse(item.clone()).is_ok_and(|function| function.signature.ident == "main");
    if !is_main {
        problems.at(
            *span,
            "`init` belongs on `main`: elsewhere call dlock::init(…) when the program starts",
        );
    }
}

/// Whether an attribute is ours, or would become ours.
pub(crate) fn is_ours(attribute: &syn::Attribute) -> bool {
    let path = attribute.path();
    let conditional = || match &attribute.meta {
        syn::Meta::List(list) if path.is_ident("cfg_attr") => mentions(&list.tokens, "db_locked"),
        _ => false,
    };
    path.segments
        .last()
        .is_some_and(|segment| segment.ident == "db_locked")
        || conditional()
}

/// Refuses what cannot be locked, or not in this way.
fn refuse(args: &Args, function: &Function, owner: Option<&str>, problems: &mut Problems) {
    let signature = &function.signature;
    if let Some(constness) = &signature.constness {
        let remedy = match owner {
            Some(_) => "remove `const`, or leave the method out with #[db_locked(skip)]",
            None => "remove `const`",
        };
        problems.at(
            constness.span,
            format_args!("a `const fn` can run in the compiler, where there is no lock: {remedy}"),
        );
    }
    for attribute in function.attrs.iter().filter(|attribute| is_ours(attribute)) {
        problems.over(
            attribute,
            "a function takes one #[db_locked]: for several locks list their keys in it, `keys = [\"…\", \"…\"]`",
        );
    }
    if let (Some(abi), OnError::Panic(span)) = (&signature.abi, &args.on_error)
        && !abi.name.as_ref().is_some_and(|name| {
            matches!(name.value().as_str(), "Rust" | "C-unwind" | "system-unwind")
        })
    {
        problems.at(*span, "a panic cannot leave this function, it would abort the process: give `on_error` a function that returns a value");
    }
    refuse_unreturnable(args, function, problems);
    if signature.receiver().is_none() {
        let mentions = args
            .keys
            .iter()
            .flat_map(Keys::iter)
            .find_map(Key::mention_of_self);
        if let Some(span) = mentions {
            problems.at(
                span,
                format_args!(
                    "`{}` has no `self` that the key could name: give it a key of its own",
                    signature.ident.unraw()
                ),
            );
        }
    }
    refuse_moved_parameters("on_busy", args.on_busy.handler(), function, problems);
    refuse_moved_parameters("on_error", args.on_error.handler(), function, problems);
}

/// `!` has no values, and rustc would only say that naming the type is experimental.
fn refuse_unreturnable(args: &Args, function: &Function, problems: &mut Problems) {
    let output = &function.signature.output;
    if !function.returned().is_never {
        return;
    }
    if matches!(args.on_error, OnError::Return) {
        problems.over(
            output,
            "a function that never returns cannot return a lock's failure: give `on_error = panic`, or `on_error = handler` \
             with a function that ends the process",
        );
    }
    if matches!(args.on_busy, OnBusy::Skip) {
        problems.over(
            output,
            "a function that never returns cannot skip its body: give `on_busy` a function that ends the process",
        );
    }
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
    match DrivenFuture::find(&body) {
        Some(Ok(driven)) => return Some(Plan::Driven(driven)),
        Some(Err(NotAlone)) => {
            problems.at(
                Span::call_site(),
                "an attribute above has already turned the async body into `block_on`, and a lock around that could not stop \
                 the body: put #[db_locked] above it",
            );
            return None;
        }
        None => {}
    }
    if let Some(tail) = TailFuture::find_driven(body.clone()) {
        return Some(Plan::Tail(tail, function.returned()));
    }
    match future_type(&signature.output) {
        None if function.tracks_its_caller() => Some(Plan::Inline),
        None => Some(Plan::Sync),
        Some(FutureType::Whole(output)) => {
            if let Some(tail) = TailFuture::find(body) {
                let returned = match &output {
                    Some(output) => Returned::of(output),
                    None => Returned::unknown(function.returned().span),
                };
                return Some(Plan::Tail(tail, returned));
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
