//! The options of a DSN: `name=value&name=value`.
//!
//! Each reader takes the options it knows; what is left at the end is refused by name.

use super::bad;
use super::split::decode;
use crate::error::InitError;

/// The options that were not read yet.
pub(super) struct Query {
    options: Vec<(String, String)>,
    /// A password stands among the options: an '&' or '=' in it may have made others of its pieces, so none is shown.
    has_secret: bool,
}

impl Query {
    /// Takes the text behind the `?` apart.
    pub(super) fn parse(text: &str) -> Result<Query, InitError> {
        let pairs: Vec<&str> = text.split('&').filter(|pair| !pair.is_empty()).collect();
        let has_secret = pairs
            .iter()
            .any(|pair| pair.to_ascii_lowercase().contains("pass"));
        let mut query = Query {
            options: Vec::with_capacity(pairs.len()),
            has_secret,
        };
        for pair in pairs {
            let Some((name, value)) = pair.split_once('=') else {
                let name = query.shown(pair);
                return Err(bad(format!(
                    "option {name} of the DSN has no value: write name=value"
                )));
            };
            let name = decode(name, "name of an option")?;
            let what = if query.has_secret || !is_name(&name) {
                "value of an option".to_owned()
            } else {
                format!("value of option {name}")
            };
            let value = decode(value, &what)?;
            if query.options.iter().any(|(other, _)| *other == name) {
                let name = query.shown(&name);
                return Err(bad(format!(
                    "option {name} stands twice in the DSN: write it once"
                )));
            }
            query.options.push((name, value));
        }
        Ok(query)
    }

    /// The value of an option, under any of its names.
    pub(super) fn take(&mut self, names: &[&str]) -> Result<Option<String>, InitError> {
        let mut found: Option<(String, String)> = None;
        for name in names {
            let Some(at) = self.options.iter().position(|(other, _)| other == name) else {
                continue;
            };
            let option = self.options.remove(at);
            if let Some((other, _)) = &found {
                return Err(bad(format!(
                    "options {other} and {name} of the DSN are the same one: write it once"
                )));
            }
            found = Some(option);
        }
        Ok(found.map(|(_, value)| value))
    }

    /// As [`Query::take`], read by `read`; `allowed` says in words what it takes.
    pub(super) fn take_as<T>(
        &mut self,
        names: &[&str],
        allowed: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, InitError> {
        let Some(value) = self.take(names)? else {
            return Ok(None);
        };
        match read(&value) {
            Some(value) => Ok(Some(value)),
            None => Err(self.wrong_value(names, &value, allowed)),
        }
    }

    /// An error that names the value, the option and what is allowed.
    pub(super) fn wrong_value(&self, names: &[&str], value: &str, allowed: &str) -> InitError {
        let name = names.first().unwrap_or(&"");
        let value = self.shown(value);
        bad(format!(
            "{value} is not a value for option {name} of the DSN: write {allowed}"
        ))
    }

    /// Refuses what nobody took: `refused` holds known options with what to do in their place, `known` those that work.
    pub(super) fn finish(
        self,
        scheme: &str,
        refused: &[(&str, &str)],
        known: &[&[&str]],
    ) -> Result<(), InitError> {
        let Some((name, _)) = self.options.first() else {
            return Ok(());
        };
        if let Some((name, remedy)) = refused.iter().find(|(other, _)| other == name) {
            return Err(bad(format!(
                "option {name} of the DSN is not taken by dlock: {remedy}"
            )));
        }
        let known: Vec<&str> = known.iter().copied().flatten().copied().collect();
        Err(bad(format!(
            "unknown option {} in the DSN: {scheme} takes {}",
            self.shown(name),
            known.join(", ")
        )))
    }

    fn shown(&self, text: &str) -> String {
        if self.has_secret {
            "***".to_owned()
        } else {
            format!("{:?}", cut(text))
        }
    }
}

/// Cuts a text to what a message can show.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

fn is_name(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}
