//! The same scripts on every engine: the events of a service differ only where they may.
//!
//! `DIFFERENTIAL_SEED=5 cargo test -p io-reactor-conformance --test differential`
//! repeats the script of that seed.

use conformance::{
    canary::{Flaw, broken},
    differential::{Difference, Entry, Script, Trace},
};
use reactor::engine::{Candidates, Engine};
use sim::{Kind, World, WorldOptions};

/// An engine to compare: its name, and the function that makes it for the script of a seed.
type Contender = (&'static str, fn(u64) -> Box<dyn Engine>);

/// The engines with their own world, one line each. The system's engines are the library's candidates.
const VIRTUAL: &[Contender] = &[("sim", roomy), ("sim, harsh", harsh), ("sim, with faults", with_faults)];

fn roomy(seed: u64) -> Box<dyn Engine> {
    Box::new(World::new(seed).engine())
}

fn harsh(seed: u64) -> Box<dyn Engine> {
    Box::new(conformance::harsh(seed).engine())
}

/// Makes an engine of a world whose faults all conform to the engine contract.
fn with_faults(seed: u64) -> Box<dyn Engine> {
    let mut options = WorldOptions::default();
    for kind in
        [Kind::TinyRead, Kind::PartialSend, Kind::LateSend, Kind::LateInput, Kind::Reorder, Kind::Spike]
    {
        options.faults = options.faults.with(kind, 100_000);
    }
    Box::new(World::with_options(seed, options).engine())
}

const REFERENCE: &str = "epoll";
const LINKS: usize = 8;

fn open(name: &str) -> Box<dyn Engine> {
    Candidates::default().open(Some(name)).expect("it opens on this platform")
}

/// Returns the engine with which all others are compared: `REFERENCE` if it exists here, else the first.
fn reference() -> &'static str {
    let names: Vec<&str> = Candidates::default().names().collect();
    names.iter().find(|name| **name == REFERENCE).unwrap_or(&names[0])
}

/// Fails with the first event that differs, after it has printed all events of this resource and the command
/// to repeat the run.
#[track_caller]
fn assert_same(name: &str, script: &Script, reference: &Trace, other: &Trace) {
    let Err(difference) = reference.compare(other) else { return };
    println!("{}", script.words(&difference.resource));
    for (engine, trace) in [(self::reference(), reference), (name, other)] {
        println!("{engine} told of {}:", difference.resource);
        trace.of(&difference.resource).for_each(|entry| println!("    {entry}"));
    }
    let seed = difference.seed;
    panic!(
        "{name}: {difference}\nDIFFERENTIAL_SEED={seed} cargo test -p io-reactor-conformance --test differential"
    );
}

/// Plays the scripts on all engines, and prints how many events were compared.
fn compare_all(seeds: impl Iterator<Item = u64>) {
    let seeds: Vec<u64> = match std::env::var("DIFFERENTIAL_SEED") {
        Ok(seed) => vec![seed.parse().expect("DIFFERENTIAL_SEED is a number")],
        Err(_) => seeds.collect(),
    };
    let reference = reference();
    let (mut scripts, mut events) = (0, 0);
    for seed in seeds {
        println!("DIFFERENTIAL_SEED={seed}");
        let script = Script::draw(seed, LINKS);
        let expected = script.play(open(reference));
        assert!(expected.len() > 2 * LINKS, "seed {seed}: only {} events", expected.len());
        for name in Candidates::default().names() {
            assert_same(name, &script, &expected, &script.play(open(name)));
        }
        for (name, make) in VIRTUAL {
            assert_same(name, &script, &expected, &script.play(make(seed)));
        }
        (scripts, events) = (scripts + 1, events + expected.len());
    }
    let others: Vec<&str> =
        Candidates::default().names().chain(VIRTUAL.iter().map(|(name, _)| *name)).collect();
    println!("{scripts} scripts, {events} events of {reference}, told as well by: {}", others.join("; "));
}

#[test]
fn every_engine_tells_the_same() {
    compare_all(0..8);
}

#[test]
#[ignore = "slow: the slow tests of .ci/run have it"]
fn every_engine_tells_the_same_over_many_scripts() {
    compare_all(1_000..1_300);
}

#[test]
fn what_may_differ_does_differ() {
    let traces = |make: fn(u64) -> Box<dyn Engine>| {
        (0..4).map(move |seed| Script::draw(seed, LINKS).play(make(seed))).collect::<Vec<_>>()
    };
    let (real, harsh) = (traces(|_| open(reference())), traces(harsh));
    let sum = |traces: &[Trace]| traces.iter().map(Trace::pieces).sum::<usize>();
    let (few, many) = (sum(&real), sum(&harsh));
    assert!(many > 10 * few, "{} has {few} pieces, the harsh world {many}", reference());
}

/// Returns the first difference over some seeds between the reference and an engine with this flaw.
fn found(flaw: Flaw, make: fn(u64) -> Box<dyn Engine>) -> Box<Difference> {
    let found = (0..10).find_map(|seed| {
        let script = Script::draw(seed, LINKS);
        let canary = script.play(broken(make(seed), flaw, seed));
        script.play(open(reference())).compare(&canary).err()
    });
    let difference = found.unwrap_or_else(|| panic!("{flaw:?} is not found"));
    println!("{flaw:?}: {difference}");
    difference
}

#[test]
fn a_broken_engine_is_found_out() {
    for flaw in [Flaw::LosesEvents(20), Flaw::LosesEvents(200)] {
        let difference = found(flaw, roomy);
        let text = difference.to_string();
        for word in [format!("seed {}", difference.seed), reference().to_owned(), "sim".to_owned()] {
            assert!(text.contains(&word), "{word}: {text}");
        }
    }
}

#[test]
fn a_changed_byte_is_named_by_its_place() {
    let told = &found(Flaw::ChangesBytes(200), roomy).told[1].1;
    assert!(
        matches!(told, Some(Entry::Wrong(how)) if how.contains("is not the one that was sent")),
        "{told:?}"
    );
}

#[test]
#[ignore = "slow, since what is lost is waited for: the slow tests of .ci/run have it"]
fn a_broken_engine_of_the_system_is_found_out() {
    found(Flaw::LosesEvents(50), |_| open(reference()));
}
