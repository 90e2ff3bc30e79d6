//! Compares the pages for contributors with the repository: the scenarios with the suite, and what they name with the
//! files.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const PAGE: &str = include_str!("../SCENARIOS.md");
const CONTRIBUTING: &str = include_str!("../../../CONTRIBUTING.md");

/// A scenario of the page: a paragraph that begins with its number.
struct Scenario {
    /// The letter of its kind.
    kind: char,
    number: u32,
    /// On one line.
    text: String,
}

impl Scenario {
    fn id(&self) -> String {
        format!("{}{}", self.kind, self.number)
    }

    /// Returns the ids after `Rows:`.
    fn rows(&self) -> Vec<String> {
        let text = self.text.split_once(" Rows: ").map_or("", |(_, rest)| rest);
        quoted(text.split('.').next().unwrap_or_default()).map(str::to_owned).collect()
    }
}

/// Returns the words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Returns the letter and the number at the beginning of an id.
fn number(id: &str) -> Option<(char, u32)> {
    let kind = id.chars().next().filter(char::is_ascii_uppercase)?;
    let digits = &id[1..];
    let end = digits.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(digits.len());
    Some((kind, digits[..end].parse().ok()?))
}

fn scenarios() -> Vec<Scenario> {
    let of = |paragraph: &str| {
        let text = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        let (kind, number) = number(text.strip_prefix("**")?)?;
        Some(Scenario { kind, number, text })
    };
    PAGE.split("\n\n").filter_map(of).collect()
}

#[test]
fn each_row_stands_with_its_scenario_and_each_id_is_a_row() {
    let suite: BTreeSet<_> = conformance::rows().iter().map(|row| row.id.to_owned()).collect();
    let mut page = BTreeSet::new();
    for scenario in scenarios() {
        for row in scenario.rows() {
            let of = number(&row).expect("an id begins with a letter and a number");
            assert_eq!(of, (scenario.kind, scenario.number), "{row} stands with {}", scenario.id());
            assert!(page.insert(row.clone()), "the row {row} stands there twice");
        }
    }
    let absent: Vec<_> = suite.difference(&page).collect();
    assert!(absent.is_empty(), "SCENARIOS.md lacks the rows {absent:?}");
    let unknown: Vec<_> = page.difference(&suite).collect();
    // Other systems have fewer rows.
    assert!(unknown.is_empty() || cfg!(not(unix)), "SCENARIOS.md names {unknown:?}, which are no rows");
}

#[test]
fn each_scenario_has_rows_or_says_why_not() {
    let all = scenarios();
    assert!(all.len() >= SCENARIOS_MIN, "{} scenarios", all.len());
    for scenario in &all {
        let has_rows = !scenario.rows().is_empty();
        let says_why = scenario.text.contains(" No row: ");
        assert!(has_rows != says_why, "{}: it has rows, or says why there is none", scenario.id());
    }
    for pair in all.windows(2) {
        let (last, next) = ((pair[0].kind, pair[0].number), (pair[1].kind, pair[1].number));
        let follows = next == (last.0, last.1 + 1) || next == (char::from(last.0 as u8 + 1), 1);
        assert!(follows, "{} follows {}", pair[1].id(), pair[0].id());
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn each_file_that_is_named_exists() {
    const BEGINNINGS: [&str; 4] = ["crates/", "ci/", "docs/", "fuzz/"];
    // A command has arguments behind its path.
    let path = |word: &'static str| word.split(' ').next().unwrap_or_default();
    let is_path = |word: &&str| BEGINNINGS.iter().any(|beginning| word.starts_with(beginning));
    let named = [PAGE, CONTRIBUTING].into_iter().flat_map(quoted).map(path).filter(is_path);
    let absent: Vec<_> = named.filter(|path| !root().join(path).exists()).collect();
    assert!(absent.is_empty(), "files that do not exist are named: {absent:?}");
}

#[test]
fn each_example_is_in_the_index() {
    let (_, index) = CONTRIBUTING.split_once("## The examples").expect("the last chapter");
    let index: BTreeSet<_> = quoted(index).collect();
    let mut count = 0;
    for of in ["conformance", "reactor", "sim", "tls"] {
        let folder = root().join("crates").join(of).join("examples");
        for entry in fs::read_dir(&folder).expect("it has examples") {
            let path = entry.expect("it is listed").path();
            // A folder without a `main.rs` is part of other examples.
            if path.is_file() || path.join("main.rs").exists() {
                let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
                assert!(index.contains(name), "CONTRIBUTING.md does not list the example {name}");
                count += 1;
            }
        }
    }
    assert!(count >= EXAMPLES_MIN, "{count} examples");
}

/// The least number of scenarios, so that a page that is not understood fails.
const SCENARIOS_MIN: usize = 150;
const EXAMPLES_MIN: usize = 21;
