//! Properties of key templates over many inputs; see `crate::fuzz`.

use std::fmt::Write;
use std::process::Command;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use syn::parse::{ParseStream, Parser};
use syn::{Token, parse::Parse};

use super::*;
use crate::fuzz::config;

/// What a template is made of, and what breaks one apart.
const PIECES: &[&str] = &[
    "{",
    "}",
    "{{",
    "}}",
    "{x}",
    "{self}",
    "{self.id}",
    "{user.pos.1:02}",
    "{r#type}",
    "{user.type}",
    "{}",
    "{0}",
    "{:?}",
    "{x:}",
    "{x:?}",
    "{x:>4}",
    "{ x }",
    "{größe}",
    "{_}",
    "{Self}",
    "{crate}",
    "{user.}",
    "{.x}",
    "{x.01}",
    "{x.4294967296}",
    "{r#self}",
    "{x:w$}",
    "{user..id}",
    "{x[0]}",
    ":",
    ".",
    "#",
    "r#",
    "_",
    "$",
    "\"",
    "\\",
    "'",
    "\0",
    "\n",
    "\u{202e}",
    "é",
    "🔒",
    "e\u{301}",
    "a",
    "x",
    "0",
    "9",
    " ",
    "/",
    "settle/",
];

fn soup() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        10 => prop::sample::select(PIECES).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => (1..1100_usize).prop_map(|length| "k".repeat(length)),
    ];
    prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

/// Templates that mean something in a method of `User`, in the program below.
fn meaningful() -> impl Strategy<Value = String> {
    let text = prop::sample::select(vec![
        "settle/", "{{", "}}", "\\n", " ", "é🔒", "\"", "'; --", "{{x}}", "\u{202e}", "$1", "%s",
        "",
    ]);
    let path = prop::sample::select(vec![
        "x",
        "user.id",
        "user.pos.1",
        "user.type",
        "user.r#type",
        "self.id",
        "self.pos.0",
        "user.name.id",
        "type_",
        "größe",
        "type",
        "self.self_",
    ]);
    let format = prop::sample::select(vec![
        "", ":", ":?", ":>4", ":02", ":<8", ":^+9", ":#x", ":X", ":#010b", ":e", ":🔒>4", ":'^3",
        ":w$", ":>w$", ":>1w$", ":.w$?", " ", ":#?", ":-<w$.w$",
    ]);
    let capture = (path, format)
        .prop_map(|(path, format)| format!("{{{path}{}}}", format.replace("1w", "w")));
    let piece = prop_oneof![text.prop_map(str::to_owned), capture];
    prop::collection::vec(piece, 1..6)
        .prop_map(|pieces| pieces.concat())
        .prop_filter("not empty", |text| !text.is_empty())
}

/// The tokens of a template: a literal, and the named values behind it.
struct Arguments {
    literal: LitStr,
    values: Vec<(Ident, Expr)>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream) -> Result<Self, Error> {
        let literal = input.parse()?;
        let mut values = Vec::new();
        while input.parse::<Option<Token![,]>>()?.is_some() {
            let name = input.parse()?;
            input.parse::<Token![=]>()?;
            values.push((name, input.parse()?));
        }
        Ok(Arguments { literal, values })
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_template_is_refused_or_becomes_a_literal_with_its_values(text in soup()) {
        let template = match Template::parse(LitStr::new(&text, Span::call_site())) {
            Ok(template) => template,
            Err(error) => {
                let message = error.to_string();
                prop_assert!(["name a parameter", "give the lock a name", "no server stores", "at most 1024", "write `key"].iter().any(|rule| message.contains(rule)), "{}", message);
                return Ok(());
            }
        };
        let tokens = template.tokens(None);
        let Arguments { literal, values } = Arguments::parse.parse2(tokens.clone()).map_err(|error| TestCaseError::fail(format!("{error}: {tokens}")))?;
        let written = literal.value();
        if template.pieces.is_none() {
            prop_assert!(values.is_empty() && written == text);
            return Ok(());
        }
        for (name, value) in &values {
            let name = name.to_string();
            prop_assert!(name.starts_with("__dlock_"));
            prop_assert_eq!(written.matches(&format!("{{{name}}}")).count() + written.matches(&format!("{{{name}:")).count(), 1, "{}", tokens);
            prop_assert!(matches!(value, Expr::Path(_) | Expr::Field(_)), "{}", tokens);
        }
        // What is in the braces is a name now: nothing for `format_args!` to evaluate, count or not know.
        for piece in pieces(&written).map_err(TestCaseError::fail)?.unwrap_or_default() {
            if let Piece::Capture { path, .. } = piece {
                prop_assert_eq!(path.len(), 1, "{}", tokens);
                prop_assert_ne!(&path[0], "self", "{}", tokens);
            }
        }
        let fixed: String = template.pieces.iter().flatten().filter_map(|piece| match piece { Piece::Text(text) => Some(text.as_str()), Piece::Capture { .. } => None }).collect();
        let again: String = pieces(&written).map_err(TestCaseError::fail)?.into_iter().flatten().filter_map(|piece| match piece { Piece::Text(text) => Some(text), Piece::Capture { .. } => None }).collect();
        prop_assert_eq!(fixed, again, "the text changed: {}", tokens);
    }
}

/// The compiler itself is the judge of what `format_args!` takes: a program with many templates.
#[test]
fn the_compiler_takes_every_template_that_means_something() {
    let config = config();
    let count = (config.cases / 10).min(20_000);
    let mut runner = TestRunner::new(config);
    let strategy = meaningful();
    let mut program = String::from(
        "#![allow(warnings)]
         pub struct Name { id: i64 }
         pub struct User { id: i64, r#type: i64, pos: (i64, i64), name: Name, self_: i64 }
         fn take(_: core::fmt::Arguments<'_>) {}
         impl User {\n",
    );
    for number in 0..count {
        if number % 50 == 0 {
            let end = if number == 0 { "" } else { "}\n" };
            writeln!(
                program,
                "{end}fn method_{number}(&self, user: &User, x: i64, type_: i64, größe: i64, r#type: i64, w: usize) {{"
            ).expect("memory");
        }
        let text = strategy
            .new_tree(&mut runner)
            .expect("a template")
            .current();
        let template = Template::parse(LitStr::new(&text, Span::call_site()))
            .unwrap_or_else(|error| panic!("{text:?} was refused: {error}"));
        writeln!(program, "take(format_args!({}));", template.tokens(None)).expect("memory");
    }
    program.push_str("}}\n");

    let folder = std::env::temp_dir().join(format!("dlock-templates-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a directory");
    let source = folder.join("templates.rs");
    std::fs::write(&source, program).expect("a file");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let done = Command::new(rustc)
        .args([
            "--edition=2021",
            "--crate-type=lib",
            "--emit=metadata",
            "--out-dir",
        ])
        .arg(&folder)
        .arg(&source)
        .output()
        .expect("the compiler runs");
    std::fs::remove_dir_all(&folder).expect("the directory is ours");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}
