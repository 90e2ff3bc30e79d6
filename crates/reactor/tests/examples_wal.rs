//! The example `wal` behaves as its header describes, also behind a torn tail.

mod programs;

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
};

use programs::{assert_refused, example};

/// A directory of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = env::temp_dir().join(format!("wal-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary directory");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs the example with this input, and returns its output.
fn append(path: &Path, input: &str) -> String {
    let mut command = example("wal");
    let mut child =
        command.arg(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("it prints text")
}

#[test]
fn it_continues_behind_the_whole_records() {
    let folder = Folder::new("continues");
    let path = folder.0.join("log");
    assert_eq!(append(&path, "one\ntwo\n"), "0 records\n0 is safe\n1 is safe\n");
    let whole = fs::read(&path).expect("it wrote");
    assert_eq!(append(&path, ""), "2 records\n");
    // The tail is torn: the second record is not whole.
    fs::write(&path, &whole[..whole.len() - 1]).expect("it can be cut");
    assert_eq!(append(&path, "again\n"), "1 records\n1 is safe\n");
    assert_eq!(append(&path, ""), "2 records\n");
}

#[test]
fn it_refuses_wrong_arguments() {
    assert_refused("wal", &[], "write `wal FILE`");
    assert_refused("wal", &["one", "two"], "write `wal FILE`");
}

#[test]
fn a_log_that_cannot_be_opened_is_a_failure() {
    let folder = Folder::new("failure");
    let output = programs::output("wal", &[folder.0.join("missing/log")]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("the log has failed: open "), "{output:?}");
}
