//! The `#[db_locked]` attribute.

mod args;
mod diagnostics;
mod duration;
mod expand;
mod function;
mod key;
mod tail_future;

use proc_macro::TokenStream;

/// Runs the body of a function under a lock.
#[proc_macro_attribute]
pub fn db_locked(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(args.into(), item.into()).into()
}
