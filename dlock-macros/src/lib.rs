//! The `#[db_locked]` attribute of dlock. Use it through the crate `dlock`, which re-exports it.
//!
//! The way of one expansion: `args` reads what stands in the parentheses, `function` what the
//! attribute stands on, and `impl_block` a whole block of functions; `expand` decides where the lock
//! goes, refuses what cannot be locked, and writes the new body, with `key`, `duration`, `tail_future`
//! and `driven_future` for the parts that have rules of their own. `diagnostics` collects the problems,
//! so that all of them are reported at once.

mod args;
mod diagnostics;
mod driven_future;
mod duration;
mod expand;
mod function;
#[cfg(test)]
mod fuzz;
mod impl_block;
mod key;
mod tail_future;

use proc_macro::TokenStream;

#[doc = include_str!("db_locked.md")]
#[proc_macro_attribute]
pub fn db_locked(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(args.into(), item.into()).into()
}
