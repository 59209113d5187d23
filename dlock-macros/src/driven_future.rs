//! Functions whose async body a runtime's attribute has already turned into `block_on`.
//!
//! A lock around `block_on` could not stop the body when it is lost, so the lock goes inside: into the `async` block
//! that is driven.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};

use crate::function::is_punct;

#[cfg(test)]
mod tests;

/// A body of the form `let body = async { … }; … block_on(body) …`, as tokio's attributes leave it.
pub(crate) struct DrivenFuture {
    /// `let body = async`, with `move` where it stands.
    before: TokenStream,
    block: Group,
    behind: TokenStream,
}

/// There is more in the body than the future that is driven.
#[derive(Debug)]
pub(crate) struct NotAlone;

impl DrivenFuture {
    /// `None`: the body does not begin with a future that it drives.
    pub(crate) fn find(body: &TokenStream) -> Option<Result<Self, NotAlone>> {
        let mut trees = body.clone().into_iter();
        let [
            Some(TokenTree::Ident(first)),
            Some(TokenTree::Ident(name)),
            Some(equals),
            Some(TokenTree::Ident(word)),
        ] = [trees.next(), trees.next(), trees.next(), trees.next()]
        else {
            return None;
        };
        if first != "let" || !is_punct(&equals, '=') || word != "async" {
            return None;
        }
        let mut before: TokenStream = [first.into(), name.clone().into(), equals, word.into()]
            .into_iter()
            .collect::<Vec<TokenTree>>()
            .into_iter()
            .collect();
        let mut trees = trees.peekable();
        if let Some(TokenTree::Ident(word)) = trees.peek()
            && *word == "move"
        {
            before.extend(trees.next());
        }
        let block = trees.next();
        let behind: TokenStream = trees.collect();
        if !blocks_on(&behind, &name) {
            return None;
        }
        let ends = behind
            .clone()
            .into_iter()
            .next()
            .is_some_and(|tree| is_punct(&tree, ';'));
        match block {
            Some(TokenTree::Group(block)) if block.delimiter() == Delimiter::Brace && ends => {
                Some(Ok(DrivenFuture {
                    before,
                    block,
                    behind,
                }))
            }
            _ => Some(Err(NotAlone)),
        }
    }

    // Input:
    //     let body = async { body }; … block_on(body) …
    //
    // Output:
    //     let body = async { locked(body) }; … block_on(body) …
    pub(crate) fn splice(self, locked: impl FnOnce(Group) -> TokenStream) -> TokenStream {
        let mut tokens = self.before;
        let span = self.block.span();
        let mut block = Group::new(Delimiter::Brace, locked(self.block));
        block.set_span(span);
        tokens.extend([TokenTree::Group(block)]);
        tokens.extend(self.behind);
        tokens
    }
}

fn blocks_on(tokens: &TokenStream, name: &Ident) -> bool {
    let mut after_block_on = false;
    for tree in tokens.clone() {
        if let TokenTree::Group(group) = &tree {
            let inner = group.stream();
            if (after_block_on && *name == inner.to_string()) || blocks_on(&inner, name) {
                return true;
            }
        }
        after_block_on = matches!(&tree, TokenTree::Ident(ident) if ident == "block_on");
    }
    false
}
