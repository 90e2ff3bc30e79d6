//! What the compiler says of the commonest mistakes: each message names the service and what it lacks.
//!
//! A case is a program in `mistakes/` that must not compile, beside the very text of the complaint. After a
//! change that is meant: `TRYBUILD=overwrite cargo test -p io-reactor-mistakes`, then read the difference.

use std::process::Command;

/// The compiler whose words the texts are; another one says and draws the same differently.
const COMPILER: &str = "rustc 1.95.";

#[test]
fn each_mistake_is_told_where_it_was_made() {
    let output = Command::new("rustc").arg("--version").output().expect("cargo found a compiler");
    let compiler = String::from_utf8_lossy(&output.stdout);
    if !compiler.starts_with(COMPILER) {
        println!("skipped: the texts are those of {COMPILER}x, and this is {compiler}");
        return;
    }
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/mistakes/*.rs");
}
