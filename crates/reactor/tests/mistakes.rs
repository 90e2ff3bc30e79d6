//! What the compiler says of the commonest mistakes: each message names the service and what it lacks.
//!
//! A case is a program in `mistakes/` that must not compile, beside the very text of the complaint. After a
//! change that is meant: `TRYBUILD=overwrite cargo test -p io-reactor --test mistakes`, then read the difference.

/// The texts are those of one compiler; another one words and draws them differently.
#[test]
fn each_mistake_is_told_where_it_was_made() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/mistakes/*.rs");
}
