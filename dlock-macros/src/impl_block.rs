//! An impl block that bears the attribute: every method with a body is locked.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, Error, ImplItem, ItemImpl, Meta, Signature, Visibility};

use crate::args::Args;
use crate::diagnostics::Problems;
use crate::expand;
use crate::function::ungroup;

#[cfg(test)]
mod tests;

pub(crate) struct ImplBlock {
    /// Everything before the braces.
    head: TokenStream,
    braces: Group,
    /// The inner attributes of the block.
    inner: TokenStream,
    members: Vec<Member>,
    /// What tells its methods from those of other impl blocks of the module: `Account`, `<Account as Service>`.
    owner: String,
}

/// What stands in an impl block. None of the tokens has our attribute any more.
enum Member {
    Method {
        tokens: TokenStream,
        /// The attributes of ours that stood on it.
        own: Vec<Attribute>,
    },
    /// A call of a macro, which may make methods that we cannot see.
    MacroCall {
        tokens: TokenStream,
        own: Vec<Attribute>,
    },
    /// A constant or a type.
    Other(TokenStream),
}

impl ImplBlock {
    /// `None`: the item is something else.
    pub(crate) fn parse(item: TokenStream) -> Option<Result<Self, Error>> {
        let trees: Vec<TokenTree> = ungroup(item).into_iter().collect();
        let keyword = trees.iter().find_map(|tree| match tree {
            TokenTree::Ident(word) if *word != "unsafe" && *word != "default" => Some(word),
            _ => None,
        });
        keyword
            .is_some_and(|word| word == "impl")
            .then(|| Self::parse_trees(trees))
    }

    fn parse_trees(mut trees: Vec<TokenTree>) -> Result<Self, Error> {
        let Some(TokenTree::Group(braces)) = trees.pop() else {
            return Err(Error::new_spanned(
                trees.into_iter().collect::<TokenStream>(),
                "an impl block has braces",
            ));
        };
        let head: TokenStream = trees.into_iter().collect();
        let understood: ItemImpl = syn::parse2(quote!(#head {}))?;
        let (inner, members) = members.parse2(braces.stream())?;
        Ok(ImplBlock {
            head,
            braces,
            inner,
            members,
            owner: owner(&understood),
        })
    }

    /// The block with the lock in each of its methods.
    pub(crate) fn lock(self, args: &Args, problems: &mut Problems) -> TokenStream {
        if let Some((init, _)) = &args.init {
            problems.at(
                *init,
                "`init` belongs on `main`, which is not in an impl block",
            );
        }
        let may_lock = problems.is_empty();
        let mut body = self.inner;
        for member in self.members {
            let mut found = Problems::default();
            body.extend(match member {
                Member::Other(tokens) => tokens,
                Member::MacroCall { tokens, own } => {
                    macro_call(&tokens, &own, &mut found);
                    tokens
                }
                Member::Method { tokens, own } => {
                    let locked = method(tokens.clone(), &own, args, &self.owner, &mut found);
                    if may_lock { locked } else { tokens }
                }
            });
            problems.extend(found);
        }
        let mut block = Group::new(Delimiter::Brace, body);
        block.set_span(self.braces.span());
        let head = self.head;
        quote!(#head #block)
    }
}

/// A method under the block's arguments, or its own.
fn method(
    tokens: TokenStream,
    own: &[Attribute],
    args: &Args,
    owner: &str,
    problems: &mut Problems,
) -> TokenStream {
    let Some(own) = own_args(own, problems) else {
        return expand::function(args, tokens, Some(owner), problems);
    };
    if own.skip.is_some() {
        return tokens;
    }
    if let Some((init, _)) = &own.init {
        problems.at(
            *init,
            "`init` belongs on `main`, which is not in an impl block",
        );
    }
    // Where dlock is does not depend on the method.
    let krate = own.krate.clone().or_else(|| args.krate.clone());
    expand::function(&Args { krate, ..own }, tokens, Some(owner), problems)
}

fn macro_call(tokens: &TokenStream, own: &[Attribute], problems: &mut Problems) {
    if own_args(own, problems).is_none_or(|own| own.skip.is_none()) {
        problems.over(
            tokens,
            "methods that this macro makes would not be locked: write them out, or mark the call with #[db_locked(skip)]",
        );
    }
}

/// The arguments that stand on a member itself.
fn own_args(own: &[Attribute], problems: &mut Problems) -> Option<Args> {
    let [attribute, more @ ..] = own else {
        return None;
    };
    for attribute in more {
        problems.over(
            attribute,
            "a method takes one #[db_locked]: for several locks list their keys in it, `keys = [\"…\", \"…\"]`",
        );
    }
    match &attribute.meta {
        Meta::List(list) => Some(Args::parse(list.tokens.clone(), problems)),
        Meta::Path(_) => Some(Args::default()),
        Meta::NameValue(value) => {
            problems.over(
                value,
                "write the arguments in parentheses: #[db_locked(key = \"…\")]",
            );
            None
        }
    }
}

fn members(input: ParseStream) -> Result<(TokenStream, Vec<Member>), Error> {
    let inner = input.call(Attribute::parse_inner)?;
    let mut members = Vec::new();
    while !input.is_empty() {
        members.push(member(input)?);
    }
    Ok((quote!(#(#inner)*), members))
}

fn member(input: ParseStream) -> Result<Member, Error> {
    let attributes = input.call(Attribute::parse_outer)?;
    let (own, kept): (Vec<_>, Vec<_>) = attributes.into_iter().partition(|attribute| {
        attribute
            .path()
            .segments
            .last()
            .is_some_and(|last| last.ident == "db_locked")
    });
    let kept = quote!(#(#kept)*);
    let ahead = input.fork();
    if is_function(&input.fork()) {
        // The signature may have braces of its own, in the arguments of its types; the body is left unread.
        ahead.parse::<Visibility>()?;
        ahead.parse::<Option<syn::Token![default]>>()?;
        ahead.parse::<Signature>()?;
        ahead.parse::<Option<TokenTree>>()?;
        let tokens = tokens_until(input, &ahead)?;
        return Ok(Member::Method {
            tokens: quote!(#kept #tokens),
            own,
        });
    }
    let item: ImplItem = ahead.parse()?;
    let tokens = tokens_until(input, &ahead)?;
    Ok(match item {
        ImplItem::Macro(_) => Member::MacroCall {
            tokens: quote!(#kept #tokens),
            own,
        },
        // Not ours to judge: on its own, the attribute says what it may stand on.
        _ => Member::Other(quote!(#(#own)* #kept #tokens)),
    })
}

/// The tokens from here to where a fork has come: as they are, whatever syn made of them.
fn tokens_until(input: ParseStream, ahead: ParseStream) -> Result<TokenStream, Error> {
    let mut tokens = TokenStream::new();
    while input.cursor() != ahead.cursor() && !input.is_empty() {
        tokens.extend([input.parse::<TokenTree>()?]);
    }
    Ok(tokens)
}

/// Whether `fn` comes next, behind the words that may stand before it.
fn is_function(ahead: ParseStream) -> bool {
    if ahead.parse::<Visibility>().is_err() {
        return false;
    }
    while let Ok(tree) = ahead.parse::<TokenTree>() {
        match tree {
            TokenTree::Ident(word) if word == "fn" => return true,
            TokenTree::Ident(word)
                if [
                    "default", "const", "async", "unsafe", "safe", "extern", "gen",
                ]
                .iter()
                .any(|known| word == known) => {}
            // The name of an ABI.
            TokenTree::Literal(_) => {}
            _ => return false,
        }
    }
    false
}

/// `Account`, `Cache<K>`, `<Account as Service>`.
fn owner(block: &ItemImpl) -> String {
    let ty = text(block.self_ty.to_token_stream());
    match &block.trait_ {
        Some((path, _)) => format!("<{ty} as {}>", text(path.to_token_stream())),
        None => ty,
    }
}

/// The tokens as text, the same from every compiler: keys are made of it. A space stands only where two words would
/// run together.
fn text(tokens: TokenStream) -> String {
    let mut text = String::new();
    write(tokens, &mut text);
    text
}

fn write(tokens: TokenStream, text: &mut String) {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for tree in tokens {
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                text.push_str(open);
                write(group.stream(), text);
                text.push_str(close);
            }
            TokenTree::Punct(punct) => text.push(punct.as_char()),
            word => {
                if text.ends_with(is_word) {
                    text.push(' ');
                }
                text.push_str(&word.to_string());
            }
        }
    }
}
