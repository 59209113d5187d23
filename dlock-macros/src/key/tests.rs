use proptest::prelude::*;
use syn::parse_quote;

use super::*;

fn expanded(literal: LitStr) -> String {
    Template::parse(literal)
        .map_err(|error| error.to_string())
        .unwrap()
        .tokens(None)
        .to_string()
}

fn refused(literal: LitStr) -> String {
    Template::parse(literal)
        .map(|template| template.tokens(None).to_string())
        .unwrap_err()
        .to_string()
}

#[test]
fn a_literal_without_dots_is_handed_over_untouched() {
    assert_eq!(expanded(parse_quote!("report")), r#""report""#);
    assert_eq!(expanded(parse_quote!("a/{x}/{y:>4}")), r#""a/{x}/{y:>4}""#);
    assert_eq!(expanded(parse_quote!(r"raw\{x}")), r#"r"raw\{x}""#);
    assert_eq!(expanded(parse_quote!("{{x}}")), r#""{{x}}""#);
}

#[test]
fn dotted_captures_become_named_arguments() {
    assert_eq!(
        expanded(parse_quote!("u/{user.id}/{x}")),
        r#""u/{__dlock_1}/{x}" , __dlock_1 = user . id"#
    );
    assert_eq!(
        expanded(parse_quote!("{self.pos.1:02}{{}}")),
        r#""{__dlock_0:02}{{}}" , __dlock_0 = self . pos . 1"#
    );
    assert_eq!(
        expanded(parse_quote!("{user.type}")),
        r#""{__dlock_0}" , __dlock_0 = user . r#type"#
    );
}

#[test]
fn self_follows_its_new_name() {
    let template = Template::parse(parse_quote!("{self}/{self.id}/{x}")).unwrap();
    let this = Ident::new("__self", Span::call_site());
    assert_eq!(
        template.tokens(Some(&this)).to_string(),
        r#""{__dlock_0}/{__dlock_2}/{x}" , __dlock_0 = __self , __dlock_2 = __self . id"#
    );
}

#[test]
fn captures_of_nothing_are_refused() {
    assert!(refused(parse_quote!("a/{}")).contains("`{}` captures nothing"));
    assert!(refused(parse_quote!("a/{:?}")).contains("`{:?}` captures nothing"));
    assert!(refused(parse_quote!("a/{0}")).contains("`{0}` counts arguments"));
    assert!(refused(parse_quote!("a/{user.id()}")).contains("`key = format!(…)`"));
    assert!(refused(parse_quote!("a/{ids[0]}")).contains("`key = format!(…)`"));
    assert!(refused(parse_quote!("a/{user..id}")).contains("`key = format!(…)`"));
    assert!(refused(parse_quote!("")).contains("the key is empty"));
    assert!(refused(parse_quote!("a\0b")).contains("NUL"));
    assert!(refused(LitStr::new(&"x".repeat(1025), Span::call_site())).contains("1025 bytes"));
}

#[test]
fn unbalanced_braces_are_left_to_rustc() {
    for text in ["a/{x", "a/x}", "{", "}", "{a{b}}"] {
        let literal = LitStr::new(text, Span::call_site());
        assert_eq!(
            expanded(literal.clone()),
            quote!(#literal).to_string(),
            "{text}"
        );
    }
}

proptest! {
    #[test]
    fn no_template_panics(text in "[{}:.a-z0-9_#\" é]{0,24}") {
        if let Ok(template) = Template::parse(LitStr::new(&text, Span::call_site())) {
            let _ = template.tokens(None).to_string();
        }
    }

    #[test]
    fn pieces_put_together_are_the_template(parts in prop::collection::vec("[a-z/]{1,4}|\\{\\{|\\}\\}|\\{[a-z]{1,3}(\\.[a-z]{1,3}|\\.[0-9]){0,2}(:>4)?\\}", 0..8)) {
        let text = parts.concat();
        let again: String = pieces(&text).unwrap().unwrap().iter().map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Capture { path, format } => format!("{{{}{format}}}", path.join(".")),
        }).collect();
        prop_assert_eq!(again, text);
    }
}
