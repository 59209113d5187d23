//! The key: a text with captures, or an expression.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, Ident, Index, Lit, LitStr};

use crate::diagnostics::Problems;
use crate::function::{rename_self, self_value};

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

/// The longest key, in bytes.
const LONGEST: usize = 1024;

/// The names that `r#` cannot stand before.
const NEVER_RAW: [&str; 5] = ["self", "Self", "super", "crate", "_"];

/// What the user gave as `key` or `keys`.
pub(crate) enum Keys {
    One(Key),
    All(Vec<Key>),
}

/// One key.
pub(crate) enum Key {
    Template(Template),
    Expression(Expr),
}

/// A text with captures: `"settle/{account.id}"`.
pub(crate) struct Template {
    literal: LitStr,
    /// `None` when the braces do not match: then rustc's own message about the literal is the best one.
    pieces: Option<Vec<Piece>>,
}

/// A part of a template.
#[derive(Debug, PartialEq)]
enum Piece {
    /// Text as it stands in the literal: braces are still doubled.
    Text(String),
    /// `{self.pos.1:02}` is the path `self`, `pos`, `1` and the format `:02`.
    Capture { path: Vec<String>, format: String },
}

impl Keys {
    /// Reads `["a/{x}", expression, …]`, to the end whatever is wrong.
    pub(crate) fn parse_list(value: Expr) -> Result<Self, Error> {
        let list = match value {
            Expr::Array(list) => list,
            Expr::Group(group) => return Keys::parse_list(*group.expr),
            other => {
                return Err(Error::new_spanned(
                    other,
                    "`keys` takes a list: write `keys = [\"a/{x}\", \"b/{y}\"]`, or `key = …` for one key",
                ));
            }
        };
        if list.elems.is_empty() {
            return Err(Error::new_spanned(
                list,
                "`keys` is empty: a lock needs at least one key",
            ));
        }
        let mut problems = Problems::default();
        let mut keys: Vec<Key> = Vec::new();
        for value in list.elems {
            match Key::parse(value) {
                Ok(Key::Template(template)) if keys.iter().any(|key| key.is(&template)) => {
                    problems.at(
                        template.literal.span(),
                        format_args!(
                            "the key {:?} is in the list twice",
                            template.literal.value()
                        ),
                    );
                }
                Ok(key) => keys.push(key),
                Err(error) => problems.push(error),
            }
        }
        problems.into_result().map(|()| Keys::All(keys))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Key> {
        match self {
            Keys::One(key) => std::slice::from_ref(key).iter(),
            Keys::All(keys) => keys.iter(),
        }
    }
}

impl Key {
    pub(crate) fn parse(value: Expr) -> Result<Self, Error> {
        match value {
            Expr::Lit(ExprLit {
                lit: Lit::Str(literal),
                ..
            }) => Template::parse(literal).map(Key::Template),
            Expr::Group(group) => Key::parse(*group.expr),
            other => Ok(Key::Expression(other)),
        }
    }

    /// Where the key speaks of `self`, if it does.
    pub(crate) fn mention_of_self(&self) -> Option<Span> {
        match self {
            Key::Template(template) => {
                let is_self = |piece: &Piece| matches!(piece, Piece::Capture { path, .. } if path[0] == "self");
                let pieces = template.pieces.as_ref()?;
                pieces.iter().any(is_self).then(|| template.literal.span())
            }
            Key::Expression(value) => self_value(&quote!(#value)),
        }
    }

    fn is(&self, template: &Template) -> bool {
        matches!(self, Key::Template(own) if own.literal.value() == template.literal.value())
    }

    /// An expression of what `Entry::new` takes. `this` is what `self` is called where the tokens will stand.
    pub(crate) fn tokens(&self, private: &TokenStream, this: Option<&Ident>) -> TokenStream {
        match self {
            Key::Template(template) => {
                let arguments = template.tokens(this);
                quote!(#private::key(::core::format_args!(#arguments)))
            }
            Key::Expression(value) => {
                let site = Span::mixed_site().located_at(value.span());
                let value = rename_self(quote!(#value), this);
                quote_spanned!(site=> #private::key(::core::format_args!("{}", #value)))
            }
        }
    }
}

impl Template {
    fn parse(literal: LitStr) -> Result<Self, Error> {
        let text = literal.value();
        let refuse = |problem: String| Err(Error::new(literal.span(), problem));
        if text.is_empty() {
            return refuse(
                "the key is empty: give the lock a name, such as `key = \"report\"`".to_owned(),
            );
        }
        if text.contains('\0') {
            return refuse("the key contains a NUL character, which no server stores".to_owned());
        }
        let pieces = match pieces(&text) {
            Ok(pieces) => pieces,
            Err(problem) => return refuse(problem),
        };
        let fixed: usize = pieces.iter().flatten().map(Piece::fixed_length).sum();
        if fixed > LONGEST {
            return refuse(format!(
                "the key is {fixed} bytes long: a key has at most {LONGEST}"
            ));
        }
        Ok(Template { literal, pieces })
    }

    /// Input: `"a/{x}"`, output: the same literal token, since rustc reports errors inside it best.
    /// Input: `"a/{x.id:02}"`, output: `"a/{__dlock_0:02}", __dlock_0 = x.id`.
    fn tokens(&self, this: Option<&Ident>) -> TokenStream {
        let literal = &self.literal;
        let must_rewrite = |piece: &Piece| match piece {
            Piece::Text(_) => false,
            // async-trait, when it stands below, renames `self` in tokens and cannot see into a literal.
            Piece::Capture { path, .. } => path.len() > 1 || path[0] == "self",
        };
        let Some(pieces) = self
            .pieces
            .as_ref()
            .filter(|pieces| pieces.iter().any(must_rewrite))
        else {
            return quote!(#literal);
        };
        let span = literal.span();
        let mut text = String::new();
        let mut values = TokenStream::new();
        for (index, piece) in pieces.iter().enumerate() {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Capture { path, format } if must_rewrite(piece) => {
                    let name = format_ident!(
                        "__dlock_{index}",
                        span = Span::mixed_site().located_at(span)
                    );
                    let value = rename_self(path_tokens(path, span), this);
                    text.extend(["{", &name.to_string(), format, "}"]);
                    values.extend(quote!(, #name = #value));
                }
                Piece::Capture { path, format } => {
                    text.extend(["{", &path[0], format, "}"]);
                }
            }
        }
        let literal = LitStr::new(&text, span);
        quote!(#literal #values)
    }
}

impl Piece {
    /// The bytes that this piece has whatever the values are.
    fn fixed_length(&self) -> usize {
        match self {
            Piece::Text(text) => text.replace("{{", "{").replace("}}", "}").len(),
            Piece::Capture { .. } => 0,
        }
    }
}

/// Splits a template. `Ok(None)`: the braces do not match.
fn pieces(text: &str) -> Result<Option<Vec<Piece>>, String> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        plain.push_str(&rest[..at]);
        let braces = &rest[at..];
        if braces.starts_with("{{") || braces.starts_with("}}") {
            plain.push_str(&braces[..2]);
            rest = &braces[2..];
            continue;
        }
        let Some((inner, behind)) = braces
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
        else {
            return Ok(None);
        };
        if inner.contains('{') {
            return Ok(None);
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(capture(inner)?);
        rest = behind;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(Some(pieces))
}

/// Reads what stands between two braces.
fn capture(inner: &str) -> Result<Piece, String> {
    let (name, format) = inner.split_at(inner.find(':').unwrap_or(inner.len()));
    let name = name.trim();
    if name.is_empty() {
        return Err(format!(
            "`{{{inner}}}` captures nothing: name a parameter or a field of one, such as `{{id}}` or `{{user.id}}`"
        ));
    }
    let path: Vec<String> = name
        .split('.')
        .map(|segment| segment.trim().to_owned())
        .collect();
    if path[0].bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "`{{{inner}}}` counts arguments, and a key has none: name a parameter, such as `{{id}}` or `{{user.id}}`"
        ));
    }
    if !path
        .iter()
        .all(|segment| is_name(segment) || is_index(segment))
    {
        return Err(format!(
            "`{{{inner}}}` is neither a parameter nor a field of one: for other expressions write `key = format!(…)`"
        ));
    }
    Ok(Piece::Capture {
        path,
        format: format.to_owned(),
    })
}

fn is_name(segment: &str) -> bool {
    let raw = segment.strip_prefix("r#");
    if raw.is_some_and(|raw| NEVER_RAW.contains(&raw)) {
        return false;
    }
    let segment = raw.unwrap_or(segment);
    // Whether every letter is allowed in a name is for the lexer to say, keywords included.
    segment
        .chars()
        .next()
        .is_some_and(|c| c.is_alphabetic() || c == '_')
        && segment.chars().all(|c| c.is_alphanumeric() || c == '_')
        && syn::parse_str::<TokenStream>(segment).is_ok()
}

fn is_index(segment: &str) -> bool {
    segment
        .parse::<u32>()
        .is_ok_and(|index| index.to_string() == segment)
}

/// `self`, `pos`, `1` as the expression `self.pos.1`, with the hygiene of the literal.
fn path_tokens(path: &[String], span: Span) -> TokenStream {
    let mut tokens = TokenStream::new();
    for (depth, segment) in path.iter().enumerate() {
        if depth > 0 {
            tokens.extend(quote_spanned!(span=> .));
        }
        if let Ok(index) = segment.parse::<u32>() {
            let index = Index { index, span };
            tokens.extend(quote!(#index));
        } else {
            let name = name_token(segment, depth == 0, span);
            tokens.extend(quote!(#name));
        }
    }
    tokens
}

/// A field called `type` is `r#type` in Rust; people write `{user.type}`.
fn name_token(segment: &str, is_first: bool, span: Span) -> Ident {
    if let Some(raw) = segment.strip_prefix("r#") {
        return Ident::new_raw(raw, span);
    }
    let is_keyword = syn::parse_str::<Ident>(segment).is_err();
    if is_keyword && !is_first && !NEVER_RAW.contains(&segment) {
        Ident::new_raw(segment, span)
    } else {
        Ident::new(segment, span)
    }
}
