//! Golden expansions, and the refusals that depend on the function.

use std::path::{Path, PathBuf};

use quote::{ToTokens, quote};
use syn::{Attribute, File, ImplItem, Item};

use super::*;

/// Expands every `#[db_locked]` of a file, as the compiler would.
fn expand_file(source: &str) -> String {
    let mut file: File = syn::parse_str(source).expect("a golden file is Rust");
    for item in &mut file.items {
        match item {
            Item::Fn(function) => {
                if let Some(args) = take(&mut function.attrs) {
                    *item = Item::Verbatim(expand(args, function.to_token_stream()));
                }
            }
            Item::Impl(block) => {
                if let Some(args) = take(&mut block.attrs) {
                    let expanded = expand(args, block.to_token_stream());
                    *item = syn::parse2(expanded).expect("an impl block stays one");
                    continue;
                }
                for member in &mut block.items {
                    if let ImplItem::Fn(method) = member
                        && let Some(args) = take(&mut method.attrs)
                    {
                        *member = ImplItem::Verbatim(expand(args, method.to_token_stream()));
                    }
                }
            }
            Item::Trait(item_trait) => {
                if let Some(args) = take(&mut item_trait.attrs) {
                    *item = Item::Verbatim(expand(args, item_trait.to_token_stream()));
                }
            }
            _ => {}
        }
    }
    let expanded = file.into_token_stream();
    prettyplease::unparse(&syn::parse2(expanded).expect("the expansion is Rust"))
}

fn take(attrs: &mut Vec<Attribute>) -> Option<TokenStream> {
    let at = attrs
        .iter()
        .position(|attribute| attribute.path().is_ident("db_locked"))?;
    match attrs.remove(at).meta {
        syn::Meta::List(list) => Some(list.tokens),
        _ => Some(TokenStream::new()),
    }
}

/// The expansions are compared as text. After a change that is meant, `DLOCK_BLESS=1 cargo test` writes them anew.
#[test]
fn expansions_are_as_reviewed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut inputs: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter(|path| !path.to_string_lossy().ends_with(".expanded.rs"))
        .collect();
    inputs.sort();
    assert!(
        inputs.len() >= 8,
        "the golden files are missing: {inputs:?}"
    );
    for input in inputs {
        let expanded = expand_file(&std::fs::read_to_string(&input).unwrap());
        let golden = input.with_extension("expanded.rs");
        if std::env::var_os("DLOCK_BLESS").is_some() {
            std::fs::write(&golden, &expanded).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        assert!(
            expanded == expected,
            "{} has changed:\n{expanded}",
            golden.display()
        );
    }
}

/// Expands what must be refused, and returns the messages.
fn refused(args: TokenStream, item: &TokenStream) -> Vec<String> {
    let expanded = expand(args, item.clone()).to_string();
    let rest = expanded
        .strip_prefix(&item.to_string())
        .unwrap_or_else(|| panic!("the item is gone: {expanded}"));
    rest.split("compile_error !")
        .skip(1)
        .map(|call| {
            call.trim()
                .trim_start_matches("{ \"")
                .split("\" }")
                .next()
                .unwrap_or_default()
                .replace("\\\"", "\"")
        })
        .collect()
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "called with what `quote!` makes"
)]
fn assert_refused(args: TokenStream, item: TokenStream, expected: &[&str]) {
    let found = refused(args, &item);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            found.contains(expected),
            "expected {expected:?} in: {found}"
        );
    }
}

#[test]
fn a_method_needs_a_key() {
    assert_refused(
        quote!(),
        quote!(
            fn f(&self) {}
        ),
        &["`f` of another type would share the lock"],
    );
    assert_refused(
        quote!(timeout = 1),
        quote!(
            fn f() -> Self {
                todo()
            }
        ),
        &["{self.id}"],
    );
    assert_refused(
        quote!(),
        quote!(
            fn f() {
                Self::g()
            }
        ),
        &["a method needs a key"],
    );
    // A key that is wrong is one mistake, not two.
    assert_refused(
        quote!(key = ""),
        quote!(
            fn f(&self) {}
        ),
        &["the key is empty"],
    );
}

#[test]
fn all_mistakes_of_arguments_and_function_are_reported_together() {
    assert_refused(
        quote!(tmeout = 1, init = "x"),
        quote!(
            const fn f() -> BoxFuture<'static, ()> {
                g()
            }
        ),
        &[
            "did you mean `timeout`",
            "`init` belongs on `main`",
            "remove `const`",
            "returns a future",
        ],
    );
}

#[test]
fn a_future_that_would_run_unlocked_is_refused() {
    let construction = &["only its construction would run under the lock"];
    assert_refused(
        quote!(),
        quote!(
            fn f() -> impl Future<Output = u8> {
                g()
            }
        ),
        construction,
    );
    assert_refused(
        quote!(),
        quote!(
            fn f() -> BoxFuture<'static, u8> {
                let x = g();
                Box::pin(async move { x })
            }
        ),
        construction,
    );
    assert_refused(
        quote!(),
        quote!(
            fn f() -> Pin<Box<dyn Future<Output = u8>>> {
                Box::pin(g())
            }
        ),
        construction,
    );
    assert_refused(
        quote!(),
        quote!(
            fn f() -> Option<BoxFuture<'static, u8>> {
                None
            }
        ),
        &["inside the returned value"],
    );
}

#[test]
fn a_runtimes_attribute_above_is_refused_when_it_has_done_more() {
    assert_refused(
        quote!(key = "k"),
        quote!(
            fn main() {
                let body = async { work().await }.instrument(span);
                {
                    return Builder::new().build().expect("x").block_on(body);
                }
            }
        ),
        &["put #[db_locked] above it"],
    );
}

#[test]
fn only_an_async_body_can_be_stopped() {
    assert_refused(
        quote!(key = "k", on_lost = cancel),
        quote!(
            fn f() {}
        ),
        &["a thread cannot be stopped from outside"],
    );
    for (words, item) in [
        (
            quote!(cancel),
            quote!(
                async fn f() {}
            ),
        ),
        (
            quote!(finish),
            quote!(
                async fn f() {}
            ),
        ),
        (
            quote!(finish),
            quote!(
                fn f() {}
            ),
        ),
    ] {
        let expanded = expand(quote!(key = "k", on_lost = #words), item).to_string();
        assert!(!expanded.contains("compile_error"), "{expanded}");
    }
}

#[test]
fn a_key_names_self_only_where_there_is_one() {
    for key in [quote!("a/{self.id}"), quote!("{self}"), quote!(self.key())] {
        assert_refused(
            quote!(key = #key),
            quote!(
                fn f(id: u8) {}
            ),
            &["`f` has no `self`"],
        );
    }
}

#[test]
fn skip_is_refused_where_nothing_else_would_lock() {
    assert_refused(
        quote!(skip),
        quote!(
            fn f() {}
        ),
        &["here, leave the attribute out"],
    );
}

#[test]
fn the_mistakes_of_a_whole_impl_block_are_reported_together() {
    assert_refused(
        quote!(tmeout = 1, init = "x"),
        quote!(
            impl S {
                const fn f() {}
                fn g(&self) -> impl Future<Output = ()> {
                    h()
                }
                make!();
                #[cfg_attr(test, db_locked(skip))]
                fn i() {}
            }
        ),
        &[
            "did you mean `timeout`",
            "not in an impl block",
            "remove `const`",
            "returns a future",
            "methods that this macro makes",
            "a function takes one #[db_locked]",
        ],
    );
}

#[test]
fn a_second_attribute_is_refused() {
    assert_refused(
        quote!(key = "a"),
        quote!(
            #[dlock::db_locked(key = "b")]
            fn f() {}
        ),
        &["keys = ["],
    );
}

#[test]
fn handlers_do_not_see_what_the_body_has_taken() {
    let taken = &["receives the error alone: the body has taken the parameter `id`"];
    assert_refused(
        quote!(on_error = |e| g(e, id)),
        quote!(
            async fn f(id: String) {}
        ),
        taken,
    );
    assert_refused(
        quote!(on_busy = |e| format!("{id}: {e}")),
        quote!(
            fn f(mut id: String) {}
        ),
        taken,
    );
    assert_refused(
        quote!(on_busy = |e| self.g(e), key = "k"),
        quote!(
            fn f(&mut self) {}
        ),
        &["the parameter `self`"],
    );
}

#[test]
fn handlers_may_use_the_same_words_for_other_things() {
    for handler in [
        quote!(|id| g(id)),
        quote!(|e| e.id),
        quote!(id::handler),
        quote!(|e| R { id: e }),
        quote!(|e| other.id()),
    ] {
        let expanded = expand(
            quote!(on_error = #handler),
            quote!(
                fn f(id: String, other: &O) {}
            ),
        )
        .to_string();
        assert!(!expanded.contains("compile_error"), "{handler}: {expanded}");
    }
}

#[test]
fn a_panic_may_not_leave_a_foreign_function() {
    assert_refused(
        quote!(on_error = panic),
        quote!(
            extern "C" fn f() {}
        ),
        &["would abort the process"],
    );
    assert_refused(
        quote!(on_error = panic),
        quote!(
            extern "C" fn f() {}
        ),
        &["would abort the process"],
    );
    assert!(
        !expand(
            quote!(on_error = panic),
            quote!(
                extern "C-unwind" fn f() {}
            )
        )
        .to_string()
        .contains("compile_error")
    );
}

#[test]
fn tokens_that_are_not_rust_do_not_panic() {
    for item in [
        quote!(fn),
        quote!(fn f),
        quote!({}),
        quote!(fn f() -> { }),
        quote!(#[a] #),
        quote!(pub pub fn f() {}),
    ] {
        assert!(
            expand(quote!(key = = "a"), item)
                .to_string()
                .contains("compile_error")
        );
    }
}

/// `compile_fail` only says that an example does not compile. Each of ours names the words of its message.
#[test]
fn the_docs_refusals_fail_for_the_reason_they_give() {
    let page = include_str!("../db_locked.md");
    let mut seen = 0;
    for block in page.split("```compile_fail\n").skip(1) {
        let (source, _) = block.split_once("```").expect("a block ends");
        let (_, reason) = source.split_once("// error: ").expect("a reason");
        let (reason, _) = reason.split_once('\n').expect("a line ends");
        let expanded = expand_file(source).replace("\\\"", "\"");
        assert!(expanded.contains("compile_error!"), "{source}");
        assert!(
            expanded.contains(reason),
            "{reason:?} is not in: {expanded}"
        );
        seen += 1;
    }
    assert!(seen >= 12, "only {seen} refusals in the docs");
}
