//! The arguments of the attribute.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Error, Expr, Ident, Path, Token};

use crate::diagnostics::{Problems, choices};
use crate::duration::Length;
use crate::key::{Key, Keys};

#[cfg(test)]
mod tests;
mod values;

pub(crate) use values::{OnBusy, OnError, OnLost};

/// The arguments there are.
const NAMES: [&str; 17] = [
    "key",
    "keys",
    "timeout",
    "mode",
    "min_hold",
    "max_hold",
    "ttl",
    "on_busy",
    "on_error",
    "on_lost",
    "fencing",
    "reentrant",
    "init",
    "locker",
    "scheme",
    "crate",
    "skip",
];

/// What stands between the parentheses of `#[db_locked(…)]`.
#[derive(Default)]
pub(crate) struct Args {
    pub(crate) keys: Option<Keys>,
    pub(crate) timeout: Option<Length>,
    pub(crate) shared: bool,
    pub(crate) min_hold: Option<Length>,
    pub(crate) max_hold: Option<Length>,
    pub(crate) ttl: Option<Length>,
    pub(crate) on_busy: OnBusy,
    pub(crate) on_error: OnError,
    pub(crate) on_lost: Option<OnLost>,
    pub(crate) fencing: Option<bool>,
    pub(crate) reentrant: Option<bool>,
    /// Where the argument is, and its value.
    pub(crate) init: Option<(Span, Expr)>,
    pub(crate) locker: Option<Expr>,
    pub(crate) scheme: Option<Expr>,
    /// Where the word is: no lock on this method of the block.
    pub(crate) skip: Option<Span>,
    pub(crate) krate: Option<Path>,
}

impl Args {
    /// Reads to the end whatever happens, so that all mistakes are reported at once.
    pub(crate) fn parse(tokens: TokenStream, problems: &mut Problems) -> Self {
        let mut args = Args::default();
        let mut seen = Vec::new();
        let parser = |input: ParseStream| {
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
        args.check_together(&seen, problems);
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
        let has_value = input.peek(Token![=]) && !input.peek(Token![==]);
        match (text.as_str(), has_value) {
            ("skip", false) => {
                self.skip = Some(name.span());
                return Ok(());
            }
            ("skip", true) => {
                return Err(Error::new(
                    name.span(),
                    "`skip` takes no value: write #[db_locked(skip)]",
                ));
            }
            ("fencing", false) => {
                self.fencing = Some(true);
                return Ok(());
            }
            (_, false) => {
                return Err(Error::new(
                    name.span(),
                    format!("`{text}` needs a value: write `{text} = …`"),
                ));
            }
            (_, true) => {}
        }
        input.parse::<Token![=]>()?;
        self.parse_value(&name, &text, input)
    }

    fn parse_value(&mut self, name: &Ident, text: &str, input: ParseStream) -> Result<(), Error> {
        let length = |input: ParseStream| Length::parse(input.parse()?).map(Some);
        match text {
            "key" => self.keys = Some(Keys::One(Key::parse(input.parse()?)?)),
            "keys" => self.keys = Some(Keys::parse_list(input.parse()?)?),
            "timeout" => self.timeout = length(input)?,
            "mode" => self.shared = values::mode(input)?,
            "min_hold" => self.min_hold = length(input)?,
            "max_hold" => self.max_hold = length(input)?,
            "ttl" => self.ttl = length(input)?,
            "on_busy" => self.on_busy = OnBusy::parse(input)?,
            "on_error" => self.on_error = OnError::parse(input)?,
            "on_lost" => self.on_lost = Some(OnLost::parse(input)?),
            "fencing" => self.fencing = Some(values::switch(text, input)?),
            "reentrant" => self.reentrant = Some(values::switch(text, input)?),
            "init" => self.init = Some((name.span(), input.parse()?)),
            "locker" => self.locker = Some(input.parse()?),
            "scheme" => self.scheme = Some(input.parse()?),
            _ => self.krate = Some(values::path_of_crate(input)?),
        }
        Ok(())
    }

    /// Refuses arguments that are right alone and wrong beside each other, and lengths that nothing can have.
    fn check_together(&self, seen: &[Ident], problems: &mut Problems) {
        let place = |wanted: &str| seen.iter().find(|name| *name == wanted).map(Ident::span);
        if let (Some(_), Some(keys)) = (place("key"), place("keys")) {
            problems.at(
                keys,
                "`key` and `keys` are given: put the one key into the list too",
            );
        }
        if let (Some(skip), true) = (self.skip, seen.len() > 1) {
            problems.at(
                skip,
                "`skip` leaves the method without a lock: it takes no other arguments",
            );
        }
        for (name, length, remedy) in [
            ("max_hold", &self.max_hold, "no body would run"),
            ("ttl", &self.ttl, "the lease would end at once"),
        ] {
            if let Some((duration, span)) = length.as_ref().and_then(Length::known)
                && duration.is_zero()
            {
                problems.at(
                    span,
                    format_args!("`{name}` must be longer than zero: {remedy}"),
                );
            }
        }
        let known = |length: &Option<Length>| length.as_ref().and_then(Length::known);
        if let (Some((least, span)), Some((most, _))) =
            (known(&self.min_hold), known(&self.max_hold))
            && least > most
        {
            problems.at(
                span,
                format_args!(
                    "`min_hold` is {least:?} and `max_hold` is {most:?}: the lock cannot be kept longer than it may be held"
                ),
            );
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
