//! The output of the example `tail_follow` for files that grow, rotate, shrink, appear and vanish.
#![cfg(target_os = "linux")]

mod program;
mod programs;
mod scratch;

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use program::Program;
use programs::example;
use scratch::Scratch;

fn tail(paths: &[&Path]) -> Program {
    let mut command = example("tail_follow");
    command.args(paths);
    Program::start(command)
}

fn append(path: &Path, text: &str) {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.expect("it is ours").write_all(text.as_bytes()).expect("room");
}

#[test]
fn it_begins_with_the_last_ten_lines_and_shows_what_is_appended() {
    let folder = Scratch::new();
    let log = folder.path("log");
    let lines: String = (1..=25).map(|number| format!("line {number}\n")).collect();
    append(&log, &lines);
    let mut program = tail(&[&log]);
    (16..=25).for_each(|number| assert_eq!(program.line(), format!("line {number}")));
    for number in 26..30 {
        append(&log, &format!("line {number}\n"));
        assert_eq!(program.line(), format!("line {number}"));
    }
    // Append more at once than one look takes.
    let many: String = (0..20_000).map(|number| format!("line {number} of many\n")).collect();
    append(&log, &many);
    (0..20_000).for_each(|number| assert_eq!(program.line(), format!("line {number} of many")));
}

#[test]
fn fewer_than_ten_lines_and_an_unfinished_one_are_shown_whole() {
    let folder = Scratch::new();
    let log = folder.path("log");
    append(&log, "one\ntwo\nunfin");
    let mut program = tail(&[&log]);
    assert_eq!((program.line(), program.line()), ("one".to_owned(), "two".to_owned()));
    append(&log, "ished\n");
    assert_eq!(program.line(), "unfinished");
}

#[test]
fn a_rotated_file_is_finished_before_the_new_one_is_shown() {
    let folder = Scratch::new();
    let (log, old) = (folder.path("log"), folder.path("log.1"));
    append(&log, "first\n");
    let mut program = tail(&[&log]);
    assert_eq!(program.line(), "first");
    for round in 0..5 {
        let mut writer = OpenOptions::new().append(true).open(&log).expect("it is ours");
        fs::rename(&log, &old).expect("it is ours");
        // The writer has not noticed the rename yet.
        writeln!(writer, "late {round}").expect("room");
        assert_eq!(program.line(), format!("late {round}"));
        append(&log, &format!("new {round}\n"));
        assert_eq!(program.line(), format!("new {round}"));
    }
    // The example may or may not look while there is no file, but it reports each replacement.
    let mut replaced = 0;
    while replaced < 5 {
        let complaint = program.complaint();
        let is_replaced = complaint.contains("was replaced");
        assert!(is_replaced || complaint.contains("is gone"), "{complaint}");
        replaced += u32::from(is_replaced);
    }
}

#[test]
fn a_file_that_another_is_renamed_over_is_followed_by_its_name() {
    let folder = Scratch::new();
    let (log, new) = (folder.path("log"), folder.path("new"));
    append(&log, "old\n");
    let mut program = tail(&[&log]);
    assert_eq!(program.line(), "old");
    append(&new, "new\n");
    fs::rename(&new, &log).expect("it is ours");
    assert_eq!(program.line(), "new");
    append(&log, "more\n");
    assert_eq!(program.line(), "more");
}

#[test]
fn a_truncation_is_said_and_the_file_shown_from_its_begin() {
    let folder = Scratch::new();
    let log = folder.path("log");
    append(&log, "something of some length\n");
    let mut program = tail(&[&log]);
    assert_eq!(program.line(), "something of some length");
    File::create(&log).expect("it is ours");
    assert!(program.complaint().contains("was truncated"));
    append(&log, "again\n");
    assert_eq!(program.line(), "again");
}

#[test]
fn a_file_that_is_not_there_yet_is_waited_for_and_shown_whole() {
    let folder = Scratch::new();
    let log = folder.path("log");
    let mut program = tail(&[&log]);
    assert!(program.complaint().contains("is not there yet"));
    let lines: String = (1..=15).map(|number| format!("line {number}\n")).collect();
    append(&log, &lines);
    (1..=15).for_each(|number| assert_eq!(program.line(), format!("line {number}")));
}

#[test]
fn several_files_have_headers_where_the_file_changes() {
    let folder = Scratch::new();
    let (one, two) = (folder.path("one"), folder.path("two"));
    append(&one, "a\n");
    append(&two, "b\n");
    let mut program = tail(&[&one, &two]);
    let header = |path: &Path| format!("==> {} <==", path.display());
    let told: Vec<String> = (0..4).map(|_| program.line()).collect();
    assert_eq!(told, [header(&one), "a".to_owned(), header(&two), "b".to_owned()]);
    append(&two, "c\n");
    assert_eq!(program.line(), "c", "no header: it is still the same file");
    append(&one, "d\n");
    assert_eq!((program.line(), program.line()), (header(&one), "d".to_owned()));
}

#[test]
fn a_symbolic_link_is_followed_where_it_leads_and_when_it_turns() {
    let folder = Scratch::new();
    fs::create_dir(folder.path("far")).expect("it is ours");
    let (far, near, link) = (folder.path("far/log"), folder.path("near"), folder.path("link"));
    append(&far, "far\n");
    append(&near, "near\n");
    std::os::unix::fs::symlink(&far, &link).expect("it is ours");
    let mut program = tail(&[&link]);
    assert_eq!(program.line(), "far");
    append(&far, "more\n");
    assert_eq!(program.line(), "more");
    fs::rename(&far, folder.path("far/old")).expect("it is ours");
    append(&far, "new far\n");
    assert_eq!(program.line(), "new far", "the other folder is watched as well");
    std::os::unix::fs::symlink(&near, folder.path("turned")).expect("it is ours");
    fs::rename(folder.path("turned"), &link).expect("it is ours");
    assert_eq!(program.line(), "near");
}

#[test]
fn a_folder_that_vanishes_and_comes_again_is_watched_again() {
    let folder = Scratch::new();
    fs::create_dir(folder.path("inner")).expect("it is ours");
    let log = folder.path("inner/log");
    append(&log, "before\n");
    let mut program = tail(&[&log]);
    assert_eq!(program.line(), "before");
    fs::remove_dir_all(folder.path("inner")).expect("it is ours");
    assert!(program.complaint().contains("is gone"));
    fs::create_dir(folder.path("inner")).expect("it is ours");
    append(&log, "after\n");
    assert_eq!(program.line(), "after");
}

/// Returns how often the kernel has put its threads to sleep. This grows while the process is busy or polls.
fn sleeps(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let of = |path: PathBuf| {
        let status = fs::read_to_string(path.join("status")).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).expect("a number")
    };
    tasks.map(|task| of(task.expect("it runs").path())).sum()
}

#[test]
fn it_sleeps_while_nothing_happens() {
    let folder = Scratch::new();
    let log = folder.path("log");
    append(&log, "only\n");
    let mut program = tail(&[&log]);
    assert_eq!(program.line(), "only");
    append(&folder.path("other"), "of no interest\n");
    append(&log, "last\n");
    assert_eq!(program.line(), "last");
    // The example still checks once for more. Only time can show that it is idle afterwards.
    thread::sleep(Duration::from_millis(200));
    let before = sleeps(program.id());
    thread::sleep(Duration::from_millis(300));
    assert_eq!(sleeps(program.id()), before);
}

#[test]
fn it_ends_when_nobody_reads_any_more() {
    let folder = Scratch::new();
    let log = folder.path("log");
    append(&log, "one\n");
    let (mut reader, output) = std::io::pipe().expect("a pipe");
    let mut command = example("tail_follow");
    command.arg(&log);
    let mut program = Program::with_output(command, output);
    reader.read_exact(&mut [0; 4]).expect("a line");
    drop(reader);
    // A child of another test may hold our end of the pipe for a moment, and then a write succeeds.
    assert_eq!(program.wait_while(|| append(&log, "two\n")).code(), Some(0));
}

#[test]
fn it_refuses_bad_input() {
    let refused = |args: &[&str], says: &str| {
        let output = example("tail_follow").args(args).output().expect("it runs");
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), line.lines().count()), (Some(2), 1), "{line}");
        assert!(line.starts_with("tail_follow: ") && line.contains(says), "{line}");
        assert!(output.stdout.is_empty());
    };
    refused(&[], "at least one file");
    refused(&["/nowhere/at/all"], "its folder is not there");
    refused(&["/tmp/.."], "its folder is not there");
}
