//! The function that bears the attribute: its tokens as they came, and what must be known about it.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::parse::{ParseStream, Parser};
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, Error, FnArg, Pat, ReceiverKind, ReturnType, Signature, Type, Visibility};

#[cfg(test)]
mod tests;

/// A function with a body.
pub(crate) struct Function {
    /// The outer attributes, then the inner ones of the body turned into outer ones.
    attributes: TokenStream,
    /// Visibility and signature, untouched: what syn does not know of the language survives.
    head: TokenStream,
    /// The same head, understood.
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) signature: Signature,
    /// The body with its braces, not parsed: a half-typed body gets rustc's errors and none of ours.
    pub(crate) body: Group,
}

/// What stands behind `->`.
pub(crate) struct Returned {
    /// The type, `impl Trait` written as `_` so that it can stand in a body.
    pub(crate) ty: TokenStream,
    /// Where errors about the type belong.
    pub(crate) span: Span,
    /// Whether it is `!`.
    pub(crate) is_never: bool,
}

impl Function {
    pub(crate) fn parse(item: TokenStream) -> Result<Self, Error> {
        let mut trees: Vec<TokenTree> = ungroup(item).into_iter().collect();
        refuse_other_items(&trees)?;
        let body = match trees.pop().map(brace_group) {
            Some(Ok(body)) => body,
            Some(Err(last)) => {
                trees.push(last);
                let (_, signature) = parse_head(trees.into_iter().collect())?;
                return Err(Error::new_spanned(signature, NO_BODY));
            }
            None => return Err(Error::new(Span::call_site(), NOT_A_FUNCTION)),
        };
        let (attrs, signature) = parse_head(trees.iter().cloned().collect())?;
        // Each outer attribute is two trees: `#` and its brackets. Doc comments arrive in that form too.
        let head: TokenStream = trees
            .split_off((attrs.len() * 2).min(trees.len()))
            .into_iter()
            .collect();
        let mut attributes: TokenStream = trees.into_iter().collect();
        let (lifted, body) = lift_inner_attributes(&body);
        attributes.extend(lifted);
        Ok(Function {
            attributes,
            head,
            attrs,
            signature,
            body,
        })
    }

    /// The function with another body.
    pub(crate) fn with_body(&self, body: TokenStream) -> TokenStream {
        let (attributes, head) = (&self.attributes, &self.head);
        let mut block = Group::new(Delimiter::Brace, body);
        block.set_span(self.body.span());
        quote!(#attributes #head #block)
    }

    pub(crate) fn is_async(&self) -> bool {
        self.signature.asyncness.is_some()
    }

    /// Whether the caller's place is seen inside: it would not be in a closure.
    pub(crate) fn tracks_its_caller(&self) -> bool {
        self.attrs
            .iter()
            .any(|attribute| attribute.path().is_ident("track_caller"))
    }

    pub(crate) fn returned(&self) -> Returned {
        match &self.signature.output {
            ReturnType::Default => {
                let span = self.signature.ident.span();
                let site = Span::mixed_site().located_at(span);
                Returned {
                    ty: quote_spanned!(site=> ()),
                    span,
                    is_never: false,
                }
            }
            ReturnType::Type(_, ty) => Returned::of(ty),
        }
    }

    /// Whether the name alone does not say which function this is: it has a receiver, or speaks of `Self`.
    pub(crate) fn belongs_to_a_type(&self) -> bool {
        self.signature.receiver().is_some()
            || mentions(&self.head, "Self")
            || mentions(&self.body.stream(), "Self")
    }

    /// The names of the parameters that the body takes away from whoever runs after it.
    pub(crate) fn moved_parameters(&self) -> Vec<Ident> {
        let mut names = Vec::new();
        for input in &self.signature.inputs {
            match input {
                FnArg::Receiver(receiver) => {
                    let is_shared = match &receiver.kind {
                        ReceiverKind::Reference(_, _, mutability) => mutability.is_none(),
                        ReceiverKind::Typed(_, ty) => is_shared_reference(ty),
                        _ => false,
                    };
                    if !is_shared {
                        names.push(Ident::from(receiver.self_token));
                    }
                }
                FnArg::Typed(parameter) if is_shared_reference(&parameter.ty) => {}
                FnArg::Typed(parameter) => names.extend(names_of(&parameter.pat)),
            }
        }
        names
    }
}

impl Returned {
    pub(crate) fn of(ty: &Type) -> Self {
        let span = syn::spanned::Spanned::span(ty);
        let is_never = matches!(ty, Type::Never(_));
        let mut erased = ty.clone();
        EraseImplTrait.visit_type_mut(&mut erased);
        Returned {
            ty: erased.into_token_stream(),
            span,
            is_never,
        }
    }

    /// A type that only the compiler knows.
    pub(crate) fn unknown(span: Span) -> Self {
        Returned {
            ty: quote!(_),
            span,
            is_never: false,
        }
    }
}

/// The names that a pattern binds.
pub(crate) fn names_of(pattern: &Pat) -> Vec<Ident> {
    struct Names(Vec<Ident>);
    impl VisitMut for Names {
        fn visit_pat_ident_mut(&mut self, pattern: &mut syn::PatIdent) {
            self.0.push(pattern.ident.clone());
            visit_mut::visit_pat_ident_mut(self, pattern);
        }
    }
    let mut names = Names(Vec::new());
    names.visit_pat_mut(&mut pattern.clone());
    names.0
}

/// Calls `self` by another name: async-trait moves the receiver into a variable of its own.
pub(crate) fn rename_self(tokens: TokenStream, this: Option<&Ident>) -> TokenStream {
    let Some(this) = this else { return tokens };
    let mut trees = tokens.into_iter().peekable();
    let mut renamed = TokenStream::new();
    while let Some(tree) = trees.next() {
        renamed.extend([match tree {
            // `self::path` is a module, not the receiver.
            TokenTree::Ident(ident)
                if ident == "self" && !trees.peek().is_some_and(|next| is_punct(next, ':')) =>
            {
                let mut name = this.clone();
                name.set_span(this.span().located_at(ident.span()));
                TokenTree::Ident(name)
            }
            TokenTree::Group(group) => {
                let mut inner =
                    Group::new(group.delimiter(), rename_self(group.stream(), Some(this)));
                inner.set_span(group.span());
                TokenTree::Group(inner)
            }
            other => other,
        }]);
    }
    renamed
}

/// Where the tokens speak of the receiver, if they do: `self::path` is a module.
pub(crate) fn self_value(tokens: &TokenStream) -> Option<Span> {
    let mut trees = tokens.clone().into_iter().peekable();
    while let Some(tree) = trees.next() {
        let found = match &tree {
            TokenTree::Ident(ident) if ident == "self" => {
                let is_path = trees.peek().is_some_and(|next| is_punct(next, ':'));
                (!is_path).then(|| ident.span())
            }
            TokenTree::Group(group) => self_value(&group.stream()),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Whether the identifier occurs anywhere in the tokens.
pub(crate) fn mentions(tokens: &TokenStream, name: &str) -> bool {
    tokens.clone().into_iter().any(|tree| match tree {
        TokenTree::Ident(ident) => ident == name,
        TokenTree::Group(group) => mentions(&group.stream(), name),
        _ => false,
    })
}

pub(crate) fn is_punct(tree: &TokenTree, punct: char) -> bool {
    matches!(tree, TokenTree::Punct(found) if found.as_char() == punct)
}

const NOT_A_FUNCTION: &str =
    "#[db_locked] goes on a function or a method that has a body, or on an impl block";

const NO_BODY: &str =
    "there is no body to lock here: put #[db_locked] on the functions that implement this one";

/// The items that are not functions, by their keyword, and what to do in their place.
const OTHER_ITEMS: [(&str, &str); 11] = [
    (
        "trait",
        "put #[db_locked] on the methods of the implementations, or on a method here that has a body",
    ),
    ("mod", "put #[db_locked] on each function of the module"),
    ("struct", NOT_A_FUNCTION),
    ("enum", NOT_A_FUNCTION),
    ("union", NOT_A_FUNCTION),
    ("type", NOT_A_FUNCTION),
    ("static", NOT_A_FUNCTION),
    ("use", NOT_A_FUNCTION),
    ("macro_rules", NOT_A_FUNCTION),
    (
        "let",
        "a closure cannot bear #[db_locked]: make it a function",
    ),
    (
        "move",
        "a closure cannot bear #[db_locked]: make it a function",
    ),
];

/// Points at the keyword of an item that is not a function.
fn refuse_other_items(trees: &[TokenTree]) -> Result<(), Error> {
    let is_fn = |tree: &TokenTree| matches!(tree, TokenTree::Ident(ident) if ident == "fn");
    for tree in trees {
        match tree {
            tree if is_fn(tree) => return Ok(()),
            TokenTree::Ident(ident) => {
                if let Some((_, remedy)) = OTHER_ITEMS.iter().find(|(keyword, _)| ident == keyword)
                {
                    return Err(Error::new(ident.span(), remedy));
                }
            }
            TokenTree::Punct(punct) if punct.as_char() == '|' => {
                return Err(Error::new(
                    punct.span(),
                    "a closure cannot bear #[db_locked]: make it a function",
                ));
            }
            _ => {}
        }
    }
    let item: TokenStream = trees.iter().cloned().collect();
    Err(Error::new_spanned(item, NOT_A_FUNCTION))
}

fn parse_head(head: TokenStream) -> Result<(Vec<Attribute>, Signature), Error> {
    let parser = |input: ParseStream| {
        let attrs = input.call(Attribute::parse_outer)?;
        input.parse::<Visibility>()?;
        let signature = input.parse()?;
        // A trait method without a body ends here.
        input.parse::<Option<syn::Token![;]>>()?;
        Ok((attrs, signature))
    };
    parser.parse2(head)
}

/// Turns `#![allow(…)]` at the start of a body into `#[allow(…)]`: once the body is a closure, only the function can bear it.
fn lift_inner_attributes(body: &Group) -> (TokenStream, Group) {
    let mut trees = body.stream().into_iter().peekable();
    let mut lifted = TokenStream::new();
    let mut rest = TokenStream::new();
    while let Some(tree) = trees.next() {
        let is_inner = is_punct(&tree, '#') && trees.peek().is_some_and(|next| is_punct(next, '!'));
        if !is_inner {
            rest.extend([tree]);
            break;
        }
        let bang = trees.next();
        match trees.next() {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Bracket => {
                lifted.extend([tree, TokenTree::Group(group)]);
            }
            other => rest.extend([Some(tree), bang, other].into_iter().flatten()),
        }
    }
    rest.extend(trees);
    let mut without = Group::new(Delimiter::Brace, rest);
    without.set_span(body.span());
    (lifted, without)
}

/// Takes away the invisible parentheses that a `macro_rules!` fragment puts around an item.
pub(crate) fn ungroup(tokens: TokenStream) -> TokenStream {
    let mut trees = tokens.clone().into_iter();
    match (trees.next(), trees.next()) {
        (Some(TokenTree::Group(group)), None) if group.delimiter() == Delimiter::None => {
            ungroup(group.stream())
        }
        _ => tokens,
    }
}

/// The braces of a body; a `$body:block` fragment has invisible parentheses around them.
fn brace_group(tree: TokenTree) -> Result<Group, TokenTree> {
    let inner = ungroup(tree.clone().into()).into_iter().next();
    match inner {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => Ok(group),
        _ => Err(tree),
    }
}

fn is_shared_reference(ty: &Type) -> bool {
    match ty {
        Type::Reference(reference) => reference.mutability.is_none(),
        Type::Group(group) => is_shared_reference(&group.elem),
        Type::Paren(paren) => is_shared_reference(&paren.elem),
        _ => false,
    }
}

struct EraseImplTrait;

impl VisitMut for EraseImplTrait {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        if matches!(ty, Type::ImplTrait(_)) {
            *ty = syn::parse_quote_spanned!(syn::spanned::Spanned::span(ty)=> _);
        } else {
            visit_mut::visit_type_mut(self, ty);
        }
    }
}
