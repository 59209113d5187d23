//! The arguments of the attribute.

use std::time::Duration;

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Error, Expr, Ident, Path, Token};

use crate::diagnostics::{Problems, choices};
use crate::duration;
use crate::key::Key;

/// The arguments that this version understands.
const NAMES: [&str; 8] = [
    "key", "timeout", "mode", "on_busy", "on_error", "init", "locker", "crate",
];

/// The arguments that are planned. They are refused, since ignoring one would weaken a lock.
const LATER: [&str; 7] = [
    "keys",
    "min_hold",
    "max_hold",
    "ttl",
    "on_lost",
    "fencing",
    "reentrant",
];

/// What stands between the parentheses of `#[db_locked(…)]`.
#[derive(Default)]
pub(crate) struct Args {
    pub(crate) key: Option<Key>,
    pub(crate) timeout: Option<Timeout>,
    pub(crate) shared: bool,
    pub(crate) on_busy: OnBusy,
    pub(crate) on_error: OnError,
    /// Where the argument is, and its value.
    pub(crate) init: Option<(Span, Expr)>,
    pub(crate) locker: Option<Expr>,
    krate: Option<Path>,
}

/// How long to wait for the lock.
pub(crate) enum Timeout {
    Literal(Duration),
    Expression(Expr),
}

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

impl Args {
    /// Reads to the end whatever happens, so that all mistakes are reported at once.
    pub(crate) fn parse(tokens: TokenStream, problems: &mut Problems) -> Self {
        let mut args = Args::default();
        let parser = |input: ParseStream| {
            let mut seen = Vec::new();
            while !input.is_empty() {
                if let Err(error) = args.parse_argument(input, &mut seen, problems) {
                    problems.push(error);
                    skip_argument(input)?;
                }
                if !input.is_empty() && !input.peek(Token![,]) {
                    problems.push(input.error("expected `,` before the next argument"));
                    skip_argument(input)?;
                }
                input.parse::<Option<Token![,]>>()?;
            }
            Ok(())
        };
        if let Err(error) = parser.parse2(tokens) {
            problems.push(error);
        }
        args
    }

    /// The module that generated code calls: the only path, with `core`, that it may name. Errors about
    /// what is called there are shown at `site`.
    pub(crate) fn private(&self, site: Span) -> TokenStream {
        let krate = self
            .krate
            .as_ref()
            .map_or_else(|| quote_spanned!(site=> ::dlock), |path| quote!(#path));
        quote_spanned!(site=> #krate::__private)
    }

    fn parse_argument(
        &mut self,
        input: ParseStream,
        seen: &mut Vec<Ident>,
        problems: &mut Problems,
    ) -> Result<(), Error> {
        let name = parse_name(input)?;
        let text = name.to_string();
        if LATER.contains(&text.as_str()) {
            return Err(Error::new(
                name.span(),
                format!("`{text}` is not available in this version of dlock: leave it out"),
            ));
        }
        if !NAMES.contains(&text.as_str()) {
            return Err(Error::new(
                name.span(),
                format!("unknown argument `{text}`: {}", choices(&text, &NAMES)),
            ));
        }
        if seen.contains(&name) {
            problems.at(
                name.span(),
                format_args!("`{text}` is given twice: one of the two would be ignored"),
            );
        }
        seen.push(name.clone());
        if !input.peek(Token![=]) || input.peek(Token![==]) {
            return Err(Error::new(
                name.span(),
                format!("`{text}` needs a value: write `{text} = …`"),
            ));
        }
        input.parse::<Token![=]>()?;
        match text.as_str() {
            "key" => self.key = Some(Key::parse(input.parse()?)?),
            "timeout" => self.timeout = Some(parse_timeout(input.parse()?)?),
            "mode" => self.shared = parse_mode(input)?,
            "on_busy" => {
                self.on_busy = match word_or_handler(input)? {
                    Value::Word(word) if word == "error" => OnBusy::Error,
                    Value::Word(word) if word == "skip" => OnBusy::Skip,
                    value => OnBusy::Handler(value.into_handler("on_busy")?),
                };
            }
            "on_error" => {
                self.on_error = match word_or_handler(input)? {
                    Value::Word(word) if word == "panic" => OnError::Panic(word.span()),
                    value => OnError::Handler(value.into_handler("on_error")?),
                };
            }
            "init" => self.init = Some((name.span(), input.parse()?)),
            "locker" => self.locker = Some(input.parse()?),
            _ => self.krate = Some(parse_crate(input)?),
        }
        Ok(())
    }
}

impl OnBusy {
    pub(crate) fn handler(&self) -> Option<&Expr> {
        match self {
            OnBusy::Handler(handler) => Some(handler),
            OnBusy::Error | OnBusy::Skip => None,
        }
    }
}

impl OnError {
    pub(crate) fn handler(&self) -> Option<&Expr> {
        match self {
            OnError::Handler(handler) => Some(handler),
            OnError::Return | OnError::Panic(_) => None,
        }
    }
}

fn parse_name(input: ParseStream) -> Result<Ident, Error> {
    if input.peek(syn::LitStr) {
        let literal: syn::LitStr = input.parse()?;
        return Err(Error::new(
            literal.span(),
            format!("a value needs a name: write `key = {:?}`", literal.value()),
        ));
    }
    if !input.peek(Ident::peek_any) {
        return Err(input.error("expected an argument, such as `key = \"report\"`"));
    }
    let name = input.call(Ident::parse_any)?;
    if input.peek(syn::token::Paren) {
        return Err(Error::new(
            name.span(),
            format!("`{name}` takes its value behind `=`: write `{name} = …`"),
        ));
    }
    Ok(name)
}

fn parse_timeout(value: Expr) -> Result<Timeout, Error> {
    match duration::literal(&value) {
        Some(Ok(duration)) => Ok(Timeout::Literal(duration)),
        Some(Err(problem)) => Err(Error::new_spanned(value, problem)),
        None => Ok(Timeout::Expression(value)),
    }
}

fn parse_mode(input: ParseStream) -> Result<bool, Error> {
    const MODES: [&str; 2] = ["exclusive", "shared"];
    let value: Expr = input.parse()?;
    let word = value.to_token_stream().to_string();
    match word.as_str() {
        "exclusive" => Ok(false),
        "shared" => Ok(true),
        // `"shared"` in quotes: the list says that there are none.
        _ => Err(Error::new_spanned(
            value,
            format!(
                "`{word}` is not a mode: {}",
                choices(word.trim_matches('"'), &MODES)
            ),
        )),
    }
}

fn parse_crate(input: ParseStream) -> Result<Path, Error> {
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

/// Goes to the comma before the next `name =`, or to the end.
fn skip_argument(input: ParseStream) -> Result<(), Error> {
    while !input.is_empty() {
        if input.peek(Token![,]) {
            let ahead = input.fork();
            ahead.parse::<Token![,]>()?;
            let is_name = ahead.is_empty()
                || (ahead.peek(Ident::peek_any)
                    && (ahead.peek2(Token![=]) || ahead.peek2(Token![,])));
            if is_name {
                break;
            }
        }
        input.parse::<TokenTree>()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(tokens: TokenStream) -> Vec<String> {
        let mut problems = Problems::default();
        Args::parse(tokens, &mut problems);
        problems.messages()
    }

    #[test]
    fn every_argument_is_read() {
        let mut problems = Problems::default();
        let args = Args::parse(
            quote!(
                key = "a",
                timeout = 2.5,
                mode = shared,
                on_busy = skip,
                on_error = panic,
                init = dsn(),
                locker = &here,
                crate = a::b
            ),
            &mut problems,
        );
        assert_eq!(problems.messages(), [""; 0]);
        assert!(matches!(args.key, Some(Key::Template(_))));
        assert!(
            matches!(args.timeout, Some(Timeout::Literal(duration)) if duration == Duration::from_millis(2500))
        );
        assert!(args.shared);
        assert!(matches!(args.on_busy, OnBusy::Skip));
        assert!(matches!(args.on_error, OnError::Panic(_)));
        assert!(args.init.is_some() && args.locker.is_some());
        assert_eq!(
            args.private(Span::call_site()).to_string(),
            "a :: b :: __private"
        );
    }

    #[test]
    fn nothing_is_needed() {
        assert_eq!(messages(quote!()), [""; 0]);
        assert_eq!(messages(quote!(key = "a",)), [""; 0]);
        assert_eq!(
            messages(quote!(key = f::<A, B>(x, y), on_busy = |_| 1)),
            [""; 0]
        );
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let found = messages(quote!(
            kye = "a",
            timeout = "10",
            mode = share,
            crate = "dlock",
            ttl = 3,
            on_busy = "skip"
        ));
        let expected = [
            "unknown argument `kye`: did you mean `key`?",
            "\"10\" is ambiguous",
            "`share` is not a mode: did you mean `shared`?",
            "write `crate = dlock`",
            "`ttl` is not available in this version",
            "without quotes",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn what_is_planned_is_refused_and_not_ignored() {
        for name in LATER {
            let name = Ident::new(name, Span::call_site());
            let found = messages(quote!(key = "a", #name = [1, 2], timeout = 1));
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(
                found[0].contains("is not available in this version"),
                "{found:?}"
            );
        }
    }

    #[test]
    fn forms_that_other_attributes_have_are_corrected() {
        assert!(messages(quote!("report"))[0].contains("write `key = \"report\"`"));
        assert!(messages(quote!(timeout(10)))[0].contains("write `timeout = …`"));
        assert!(messages(quote!(key))[0].contains("`key` needs a value"));
        assert!(messages(quote!(key = "a" timeout = 1))[0].contains("expected `,`"));
        assert!(messages(quote!(key = "a", key = "b"))[0].contains("given twice"));
        assert!(messages(quote!(= 3))[0].contains("expected an argument"));
        assert_eq!(messages(quote!(key = , timeout = 1)).len(), 1);
    }

    #[test]
    fn no_list_names_an_argument_twice() {
        assert!(NAMES.iter().all(|name| !LATER.contains(name)));
    }
}
