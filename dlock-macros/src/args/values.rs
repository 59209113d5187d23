//! The values of arguments that have words of their own.

use proc_macro2::Span;
use quote::ToTokens;
use syn::parse::ParseStream;
use syn::{Error, Expr, ExprLit, Ident, Lit, Path};

use crate::diagnostics::choices;

/// What the function returns when others kept the lock.
#[derive(Default)]
pub(crate) enum OnBusy {
    #[default]
    Error,
    Skip,
    Handler(Expr),
}

/// Where a failure goes.
#[derive(Default)]
pub(crate) enum OnError {
    #[default]
    Return,
    Panic(Span),
    Handler(Expr),
}

/// What becomes of an async body whose lock is lost. The place is where the user says so.
pub(crate) enum OnLost {
    Cancel(Span),
    Finish,
}

impl OnBusy {
    pub(super) fn parse(input: ParseStream) -> Result<Self, Error> {
        Ok(match word_or_handler(input)? {
            Value::Word(word) if word == "error" => OnBusy::Error,
            Value::Word(word) if word == "skip" => OnBusy::Skip,
            value => OnBusy::Handler(value.into_handler("on_busy")?),
        })
    }

    pub(crate) fn handler(&self) -> Option<&Expr> {
        match self {
            OnBusy::Handler(handler) => Some(handler),
            OnBusy::Error | OnBusy::Skip => None,
        }
    }
}

impl OnError {
    pub(super) fn parse(input: ParseStream) -> Result<Self, Error> {
        Ok(match word_or_handler(input)? {
            Value::Word(word) if word == "panic" => OnError::Panic(word.span()),
            value => OnError::Handler(value.into_handler("on_error")?),
        })
    }

    pub(crate) fn handler(&self) -> Option<&Expr> {
        match self {
            OnError::Handler(handler) => Some(handler),
            OnError::Return | OnError::Panic(_) => None,
        }
    }
}

impl OnLost {
    pub(super) fn parse(input: ParseStream) -> Result<Self, Error> {
        let value: Expr = input.parse()?;
        match word(&value, "what to do on a loss", ["cancel", "finish"])? {
            "cancel" => Ok(OnLost::Cancel(syn::spanned::Spanned::span(&value))),
            _ => Ok(OnLost::Finish),
        }
    }
}

/// `exclusive` or `shared`.
pub(super) fn mode(input: ParseStream) -> Result<bool, Error> {
    let value: Expr = input.parse()?;
    Ok(word(&value, "a mode", ["exclusive", "shared"])? == "shared")
}

/// `true` or `false`.
pub(super) fn switch(argument: &str, input: ParseStream) -> Result<bool, Error> {
    let value: Expr = input.parse()?;
    match ungrouped(&value) {
        Expr::Lit(ExprLit {
            lit: Lit::Bool(switch),
            ..
        }) => Ok(switch.value),
        _ => Err(Error::new_spanned(
            value,
            format!(
                "`{argument}` is decided where the function is written: write `true` or `false`"
            ),
        )),
    }
}

pub(super) fn path_of_crate(input: ParseStream) -> Result<Path, Error> {
    if input.peek(syn::LitStr) {
        let literal: syn::LitStr = input.parse()?;
        let path = literal.value();
        return Err(Error::new(
            literal.span(),
            format!("`crate` takes a path without quotes: write `crate = {path}`"),
        ));
    }
    input.call(Path::parse_mod_style)
}

/// The one of the words that the value is.
fn word<const N: usize>(
    value: &Expr,
    kind: &str,
    words: [&'static str; N],
) -> Result<&'static str, Error> {
    let text = ungrouped(value).to_token_stream().to_string();
    words.into_iter().find(|word| *word == text).ok_or_else(|| {
        // `"shared"` in quotes: the list says that there are none.
        let choices = choices(text.trim_matches('"'), &words);
        Error::new_spanned(value, format!("`{text}` is not {kind}: {choices}"))
    })
}

/// Without the invisible parentheses of a `macro_rules!` fragment.
fn ungrouped(value: &Expr) -> &Expr {
    match value {
        Expr::Group(group) => ungrouped(&group.expr),
        value => value,
    }
}

/// A bare word, or anything else that can stand as a value.
enum Value {
    Word(Ident),
    Other(Expr),
}

fn word_or_handler(input: ParseStream) -> Result<Value, Error> {
    let value: Expr = input.parse()?;
    match &value {
        Expr::Path(path) => match path.path.get_ident() {
            Some(word) => Ok(Value::Word(word.clone())),
            None => Ok(Value::Other(value)),
        },
        _ => Ok(Value::Other(value)),
    }
}

impl Value {
    fn into_handler(self, argument: &str) -> Result<Expr, Error> {
        match self {
            Value::Word(word) => Ok(syn::parse_quote!(#word)),
            Value::Other(Expr::Lit(literal)) => Err(Error::new_spanned(
                literal,
                format!(
                    "`{argument}` takes one of its words without quotes, or a function of the error"
                ),
            )),
            Value::Other(handler) => Ok(handler),
        }
    }
}
