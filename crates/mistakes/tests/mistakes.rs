//! The compiler's messages for the commonest mistakes. Each names the service and the missing piece.
//!
//! A case is a program in `mistakes/` that must not compile, and the exact text of the error. After an
//! intended change, run `TRYBUILD=overwrite cargo test -p io-reactor-mistakes`, and review the difference.

use std::process::Command;

/// The compiler of the expected texts. Other versions use other words and layouts.
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
