//! The examples match their headers: one seed prints one run, the picture's counts equal the summary's, and
//! the same service agrees over real sockets.
#![cfg(unix)]

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
};

fn example(name: &str) -> Command {
    // Cargo puts the examples next to the directory of the tests: target/debug/{deps,examples}.
    let tests = env::current_exe().expect("a test knows its own path");
    let target = tests.parent().and_then(Path::parent).expect("it lies in target/debug/deps");
    let path = target.join("examples").join(name);
    assert!(path.exists(), "{} was not built: run `cargo build --examples`", path.display());
    Command::new(path)
}

fn output(name: &str, args: &[&str]) -> Output {
    example(name).args(args).stdin(Stdio::null()).output().expect("the example runs")
}

/// Runs the example, and returns its output. The run must succeed.
#[track_caller]
fn simulate(args: &[&str]) -> String {
    let output = output("simulate", args);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*complaint), (Some(0), ""), "simulate {args:?}");
    String::from_utf8(output.stdout).expect("it prints text")
}

/// Returns the value of a line of the summary.
#[track_caller]
fn value<'a>(summary: &'a str, name: &str) -> &'a str {
    let mut lines = summary.lines().filter_map(|line| line.strip_prefix(name));
    lines.next().unwrap_or_else(|| panic!("a line `{name}`: {summary}")).trim()
}

/// Checks the answer to bad input: exit code 2, and one line that names the program and the mistake.
#[track_caller]
fn assert_refused(name: &str, args: &[&str], says: &str) {
    let output = output(name, args);
    let line = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{name} {args:?}: {line}");
    assert_eq!(line.lines().count(), 1, "{name} {args:?}: {line}");
    assert!(
        line.starts_with(&format!("{name}: ")) && line.contains(says),
        "{name} {args:?} says {says:?}: {line}"
    );
    assert!(output.stdout.is_empty(), "{name} {args:?}");
}

#[test]
fn one_seed_prints_one_run_in_each_process_and_another_seed_another() {
    let seven = simulate(&["--nodes", "12", "--seed", "7", "--time", "8"]);
    let digest = value(&seven, "digest: ");
    assert_eq!(digest.len(), 16, "{digest}");
    assert!(digest.chars().all(|digit| digit.is_ascii_hexdigit()), "{digest}");
    assert_eq!(simulate(&["--time", "8", "--seed", "7", "--nodes", "12"]), seven);
    let eight = simulate(&["--nodes", "12", "--seed", "8", "--time", "8"]);
    assert_ne!(value(&eight, "digest: "), digest);
    let more_nodes = simulate(&["--nodes", "13", "--seed", "7", "--time", "8"]);
    assert_ne!(value(&more_nodes, "digest: "), digest);
}

#[test]
fn all_agree_after_the_faults_of_many_seeds_some_of_which_have_every_kind_of_trouble() {
    let mut seen = [0_u64; 7];
    for seed in 0..40_u64 {
        let summary = simulate(&["--nodes", "9", "--seed", &seed.to_string(), "--time", "6"]);
        assert!(value(&summary, "converged").contains("s after the faults had ended"), "{summary}");
        for (seen, name) in seen.iter_mut().zip(FAULTS) {
            *seen += value(&summary, name).parse::<u64>().expect("a number");
        }
    }
    assert!(seen.iter().all(|seen| *seen > 0), "{FAULTS:?}: {seen:?}");
}

/// A directory of its own, which is removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = env::temp_dir().join(format!("sim-examples-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for temporary files can be made");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The system cleans up the rest.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Reads a number from an attribute of the picture.
#[track_caller]
fn attribute<'a>(picture: &'a str, name: &str) -> &'a str {
    let begin = format!(" data-{name}=\"");
    let at = picture.find(&begin).unwrap_or_else(|| panic!("an attribute{begin}")) + begin.len();
    picture[at..].split('"').next().expect("split gives at least one part")
}

#[test]
fn the_picture_counts_what_the_summary_counts() {
    let folder = Folder::new("counts");
    let path = folder.0.join("run.svg");
    let path = path.to_str().expect("the path is text");
    for (nodes, seed) in [("5", "7"), ("5", "3"), ("50", "7"), ("20", "11"), ("2", "5")] {
        let arguments = ["--nodes", nodes, "--seed", seed];
        let summary = simulate(&[&arguments[..], &["--picture", path]].concat());
        assert_eq!(simulate(&arguments), summary, "to be drawn changes nothing");
        let picture = fs::read_to_string(path).expect("it was written");
        for name in ["nodes", "seed", "messages", "bytes", "facts"].iter().chain(&FAULTS) {
            let counted = attribute(&picture, &name.replace(' ', "-"));
            assert_eq!(counted, value(&summary, name), "{name} of {nodes} nodes, seed {seed}");
            let told = [format!("{counted} {name}"), format!("{name} {counted}")];
            assert!(told.iter().any(|told| picture.contains(told)), "{told:?} is not in the picture");
        }
        assert_eq!(attribute(&picture, "digest"), value(&summary, "digest: "));
        assert_eq!(attribute(&picture, "left-out"), "0");
        assert_strokes(&picture);
        assert_marks(&picture);
    }
}

/// Checks that the picture has as many strokes as it claims. If it leaves some out, it must say how many of
/// how many it has.
fn assert_strokes(picture: &str) {
    let strokes = picture
        .lines()
        .filter(|line| line.starts_with("<path class=\"message ") || line.starts_with("<path class=\"late "));
    let strokes: usize = strokes.map(|line| line.matches('M').count()).sum();
    let (drawn, all) = (attribute(picture, "messages-drawn"), attribute(picture, "messages"));
    assert_eq!(strokes.to_string(), drawn);
    assert_eq!(picture.contains(&format!("(drawn: {drawn} of {all})")), drawn != all);
}

/// Checks for one cross for each crash and one triangle for each restart. The legend has one of each kind.
fn assert_marks(picture: &str) {
    let count = |class: &str| picture.matches(&format!("<path class=\"{class}\"")).count();
    let told = |name: &str| attribute(picture, name).parse::<usize>().expect("a number");
    assert_eq!(count("crash") + count("power-off") - 2, told("crashes"));
    assert_eq!(count("restart") - 1, told("restarts"));
    assert_eq!(count("wall") - 1, told("wall-steps"));
    let bars = picture.matches("<rect class=\"bar-partition\"").count();
    assert_eq!(bars, told("partitions"));
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    assert_refused("simulate", &["--nodes", "1"], "--nodes: `1` is not a number from 2 to 1000");
    assert_refused("simulate", &["--nodes", "1001"], "from 2 to 1000");
    assert_refused("simulate", &["--seed"], "--seed needs a value");
    assert_refused("simulate", &["--seed", "-1"], "`-1`");
    assert_refused("simulate", &["--time", "0"], "from 1 to 600");
    assert_refused("simulate", &["--nodes", "201", "--picture", "/missing/x.svg"], "at most 200 nodes");
    assert_refused("simulate", &["--frob"], "there is no option `--frob`");
    assert_refused("gossip", &[], "gossip LISTEN_ADDRESS");
    assert_refused("gossip", &["nowhere"], "`nowhere` is not an address");
    assert_refused("gossip", &["127.0.0.1:0", "localhost:1"], "`localhost:1`");
    assert_refused("gossip", &["127.0.0.1:0", "--fact", ""], "a fact is not empty");
    assert_refused("gossip", &["127.0.0.1:0", "--fact", "two\nlines"], "a fact is one line");
    assert_refused("gossip", &["127.0.0.1:0", "--fact", &"x".repeat(513)], "at most 512 bytes");
    assert_refused("gossip", &["127.0.0.1:0", "--seconds", "soon"], "`soon`");
    assert_refused("gossip", &["--frob"], "there is no option `--frob`");
}

#[test]
fn help_lists_the_options() {
    for (name, option) in [("simulate", "--picture FILE.svg"), ("gossip", "--fact TEXT")] {
        let output = output(name, &["--help"]);
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains(option), "{name}");
    }
}

#[test]
fn a_picture_that_cannot_be_written_is_told() {
    let folder = Folder::new("unwritable");
    let path = folder.0.join("missing/run.svg");
    let path = path.to_str().expect("the path is text");
    let output = output("simulate", &["--nodes", "2", "--time", "1", "--picture", path]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), complaint.lines().count()), (Some(1), 1), "{complaint}");
    assert!(complaint.contains(path), "{complaint}");
}

/// A node on real sockets, which is killed and reaped when it is dropped.
struct Node {
    child: Child,
    address: String,
    lines: BufReader<ChildStdout>,
}

impl Node {
    /// Starts a node on a free port. It ends by itself if the test hangs.
    fn start(peers: &[&Node], facts: &[&str]) -> Node {
        let mut command = example("gossip");
        command.args(["127.0.0.1:0", "--seconds", "60"]).args(peers.iter().map(|peer| &peer.address));
        facts.iter().for_each(|fact| _ = command.args(["--fact", fact]));
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the example starts");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut node = Node { child, address: String::new(), lines };
        node.address = node.wait_for("listening on ");
        node
    }

    /// Reads the node's lines until one has this beginning. Returns the rest of that line.
    #[track_caller]
    fn wait_for(&mut self, beginning: &str) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            let count = self.lines.read_line(&mut line).expect("stdout is text");
            assert_ne!(count, 0, "it ended without `{beginning}`: {seen}");
            if let Some(rest) = line.strip_prefix(beginning) {
                return rest.trim_end().to_owned();
            }
            seen.push_str(&line);
        }
    }

    fn type_in(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("stdin is piped");
        writeln!(stdin, "{line}").expect("the node reads what is typed");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail only if the process is gone already, which the test has noticed otherwise.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn three_real_nodes_in_a_row_agree_also_with_one_that_begins_again() {
    let mut first = Node::start(&[], &["a"]);
    let mut second = Node::start(&[&first], &["b"]);
    let mut third = Node::start(&[&second], &["c"]);
    for node in [&mut first, &mut second, &mut third] {
        assert_eq!(node.wait_for("3 known: "), "a; b; c");
    }
    third.type_in("d");
    for node in [&mut first, &mut second, &mut third] {
        assert_eq!(node.wait_for("4 known: "), "a; b; c; d");
    }
    // One node is gone with its facts. The others pass theirs to any new node.
    drop(first);
    second.type_in("e");
    assert_eq!(third.wait_for("5 known: "), "a; b; c; d; e");
    let mut again = Node::start(&[&third], &[]);
    assert_eq!(again.wait_for("5 known: "), "a; b; c; d; e");
}

/// The lines of the summary that count the faults of nodes.
const FAULTS: [&str; 7] =
    ["crashes", "restarts", "partitions", "one-way cuts", "holds", "pauses", "wall steps"];
