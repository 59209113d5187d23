//! What is said when the attribute cannot be applied: every problem at once, and the item all the same.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::Error;

/// The problems found so far, reported together so that the user mends them in one go.
#[derive(Default)]
pub(crate) struct Problems(Option<Error>);

impl Problems {
    pub(crate) fn push(&mut self, error: Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            None => self.0 = Some(error),
        }
    }

    /// Adds a problem that lies at `span`.
    pub(crate) fn at(&mut self, span: Span, message: impl std::fmt::Display) {
        self.push(Error::new(span, message));
    }

    /// Adds a problem that spans all of `tokens`.
    pub(crate) fn over(&mut self, tokens: impl ToTokens, message: impl std::fmt::Display) {
        self.push(Error::new_spanned(tokens, message));
    }

    /// Takes over the problems of a part.
    pub(crate) fn extend(&mut self, others: Problems) {
        if let Some(error) = others.0 {
            self.push(error);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The item as the user wrote it, followed by the errors: without the item, every use of it
    /// would be an error too, and editors would lose sight of it.
    pub(crate) fn with_item(self, mut item: TokenStream) -> TokenStream {
        item.extend(self.0.map(Error::into_compile_error));
        item
    }

    pub(crate) fn into_result(self) -> Result<(), Error> {
        self.0.map_or(Ok(()), Err)
    }

    #[cfg(test)]
    pub(crate) fn messages(self) -> Vec<String> {
        self.0
            .into_iter()
            .flatten()
            .map(|error| error.to_string())
            .collect()
    }
}

/// What another library, or common sense, calls an argument of ours.
const SYNONYMS: [(&str, &str); 13] = [
    ("name", "key"),
    ("lock", "key"),
    ("id", "key"),
    ("wait", "timeout"),
    ("deadline", "timeout"),
    ("shared", "mode"),
    ("dsn", "init"),
    ("on_fail", "on_error"),
    ("on_loss", "on_lost"),
    ("lease", "ttl"),
    ("token", "fencing"),
    ("recursive", "reentrant"),
    ("ignore", "skip"),
];

/// The one of `known` that was probably meant by `word`.
pub(crate) fn did_you_mean<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    let synonym = SYNONYMS
        .iter()
        .find(|(other, _)| *other == word)
        .map(|(_, ours)| *ours);
    if let Some(found) = known.iter().find(|name| Some(**name) == synonym) {
        return Some(found);
    }
    let allowed = if word.len() <= 4 { 1 } else { 2 };
    known
        .iter()
        .map(|name| (distance(&word, name), *name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `` ` did you mean `timeout`?` `` or nothing, then the list of what there is.
pub(crate) fn choices(word: &str, known: &[&str]) -> String {
    let list = known
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    match did_you_mean(word, known) {
        Some(name) => format!("did you mean `{name}`? (there are {list})"),
        None => format!("there are {list}"),
    }
}

/// The number of letters to insert, remove, replace or swap with their neighbour.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, &a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &b) in right.iter().enumerate() {
            let mut best = (last[j] + usize::from(a != b))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && a == right[j - 1] && left[i - 1] == b {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["key", "timeout", "on_busy", "mode"];

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        assert_eq!(did_you_mean("timeuot", &KNOWN), Some("timeout"));
        assert_eq!(did_you_mean("Timeout", &KNOWN), Some("timeout"));
        assert_eq!(did_you_mean("kye", &KNOWN), Some("key"));
        assert_eq!(did_you_mean("onbusy", &KNOWN), Some("on_busy"));
    }

    #[test]
    fn another_librarys_word_is_recognised() {
        assert_eq!(did_you_mean("name", &KNOWN), Some("key"));
        assert_eq!(did_you_mean("wait", &KNOWN), Some("timeout"));
    }

    #[test]
    fn a_different_word_is_not_guessed() {
        assert_eq!(did_you_mean("colour", &KNOWN), None);
        assert_eq!(did_you_mean("abc", &KNOWN), None);
        assert_eq!(
            choices("colour", &["key", "mode"]),
            "there are `key`, `mode`"
        );
    }

    #[test]
    fn all_problems_are_reported_behind_the_item() {
        let mut problems = Problems::default();
        problems.at(Span::call_site(), "first");
        problems.at(Span::call_site(), "second");
        let out = problems
            .with_item(quote::quote!(
                fn kept() {}
            ))
            .to_string();
        assert!(out.starts_with("fn kept () { }"), "{out}");
        assert!(out.contains("first") && out.contains("second"), "{out}");
    }
}
