//! Replays the corpora: what the fuzzer once found, on any toolchain and without the fuzzer.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use targets::{TARGETS, Target};

/// Returns the inputs of a target, in the order of their names.
fn inputs(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let listed = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = listed.map(|entry| entry.expect("it is listed").path()).collect();
    files.sort();
    files
}

/// Prints the input's path if the target panics.
struct Name(PathBuf);

impl Drop for Name {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input is {}", self.0.display());
        }
    }
}

fn replay(name: &str, target: Target) {
    for path in inputs(name) {
        let data = fs::read(&path).expect("it is readable");
        let _name = Name(path);
        target(&data);
        // Half of an input reaches other places, for example the end of a stream in the middle of an item.
        target(&data[..data.len() / 2]);
    }
}

#[test]
fn each_target_reads_its_corpus() {
    for (name, target) in TARGETS {
        replay(name, *target);
    }
}

#[test]
fn each_target_reads_the_corpora_of_the_others_and_nothing() {
    for (_, target) in TARGETS {
        target(&[]);
        for (other, _) in TARGETS {
            replay(other, *target);
        }
    }
}

#[test]
fn each_target_has_a_corpus_and_a_binary() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = |folder: &str| -> BTreeSet<String> {
        let listed = fs::read_dir(root.join(folder)).expect(folder);
        let name =
            |entry: fs::DirEntry| entry.path().file_stem().map(|name| name.to_string_lossy().into_owned());
        listed.filter_map(|entry| name(entry.expect("it is listed"))).collect()
    };
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("corpus"), targets);
    for name in &targets {
        let inputs = inputs(name);
        let bytes: u64 = inputs.iter().map(|path| fs::metadata(path).expect("it is there").len()).sum();
        assert!(
            !inputs.is_empty() && inputs.len() <= FILES_MAX && bytes <= BYTES_MAX,
            "{name}: {bytes} bytes"
        );
    }
}

/// A corpus stays small enough to be read by people and replayed within a second.
const FILES_MAX: usize = 128;
const BYTES_MAX: u64 = 64 << 10;
