//! The isolation of a planted deadlock names the kind of fault that causes it, and no other.

mod desk;

use std::{env, process::Command, time::Duration};

use sim::{ISOLATE, Kind, PLAN, Plan, hunt, isolate};

fn plans() -> impl Iterator<Item = Plan> {
    (0..60).map(|seed| Plan::draw(seed, 4, Duration::from_secs(3)))
}

fn with_the_bug(plan: &Plan) -> Result<(), String> {
    desk::play(plan, true)
}

#[test]
fn the_kind_of_fault_that_makes_a_deadlock_is_named_and_no_other() {
    let failure = hunt(plans(), with_the_bug).expect_err("the bug is there");
    assert!(failure.plan.faults.kinds().count() > 5, "the hunt alone does not say which it is: {failure}");
    let found = isolate(&failure, 150, with_the_bug);
    assert_eq!(found.kinds(), [Kind::SlowJob], "{found}");
    assert_eq!(found.without_faults(), None);
    // The printed plan can be played.
    let text = found.to_string();
    let plan = text.split('\'').nth(1).expect("the plan is quoted");
    let plan: Plan = plan.parse().expect("it is one");
    assert_eq!(plan.faults.kinds().collect::<Vec<_>>(), [Kind::SlowJob]);
    assert!(with_the_bug(&plan).is_err());
    // The bug is the cause: without it, neither this plan nor any other fails.
    assert_eq!(desk::play(&plan, false), Ok(()));
    hunt(plans(), |plan| desk::play(plan, false)).expect("without the bug nothing fails");
}

/// Returns the output of `the_hunt_of_a_child` with these variables.
fn hunted(variables: &[(&str, &str)]) -> String {
    let test = env::current_exe().expect("a test knows its own path");
    let mut child = Command::new(test);
    child.args(["--exact", "the_hunt_of_a_child", "--ignored", "--nocapture"]).env(CHILD, "1");
    child.env_remove(PLAN).env_remove(ISOLATE).envs(variables.iter().copied());
    let output = child.output().expect("it runs");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
#[ignore = "the part of a child; the tests that follow run it"]
fn the_hunt_of_a_child() {
    if env::var_os(CHILD).is_some() {
        let mut count = 0;
        let hunted = hunt(plans(), |plan| {
            count += 1;
            with_the_bug(plan)
        });
        println!("{count} plays");
        println!("{}", hunted.map_or_else(|failure| failure.to_string(), |()| "nothing found".to_owned()));
    }
}

#[test]
fn a_failure_prints_what_replays_it_and_that_replays_it() {
    let said = hunted(&[]);
    let line = said.lines().find(|line| line.starts_with("replay with SIM_PLAN='")).expect("it is printed");
    let plan = line.split('\'').nth(1).expect("it is quoted");
    assert!(said.contains("SIM_ISOLATE=400 says which kinds of fault alone suffice"), "{said}");
    let again = hunted(&[(PLAN, plan)]);
    assert!(again.contains("\n1 plays\n") && again.contains(line), "{again}");
    let calm = hunted(&[(PLAN, "SEED=1 NODES=2 TIME_MS=100 faults: none")]);
    assert!(calm.contains("\n1 plays\nnothing found\n"), "{calm}");
}

#[test]
fn a_variable_asks_for_the_kinds() {
    let said = hunted(&[(ISOLATE, "100")]);
    assert!(said.contains("\nSlowJob suffices alone: 0 answers") && said.contains(" runs)"), "{said}");
}

#[test]
fn a_variable_that_says_nothing_is_refused_by_its_name() {
    let said = hunted(&[(PLAN, "SEED=1")]);
    assert!(said.contains("SIM_PLAN=`SEED=1`: it has no ` faults: `"), "{said}");
    let said = hunted(&[(ISOLATE, "yes")]);
    assert!(said.contains("SIM_ISOLATE=`yes`: "), "{said}");
}

const CHILD: &str = "SIM_TEST_CHILD";
