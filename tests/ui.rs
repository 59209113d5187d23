//! What the compiler says when the attribute cannot be applied.
//!
//! The messages are those of the toolchain that the project is tested with. After a change that is meant,
//! `TRYBUILD=overwrite cargo test --test ui` writes them anew.

#[test]
fn messages_are_as_reviewed() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
