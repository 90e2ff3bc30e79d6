//! Blocking work outside the loop.

mod common;

use std::{sync::mpsc, time::Duration};

use common::{Probe, for_each_engine, until};
use reactor::{Bytes, Refused, Runtime};

#[test]
fn results_come_as_messages_from_other_threads() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let service = runtime.add(Probe::<Bytes>::quiet()).expect("it starts");
        let here = std::thread::current().id();
        runtime.with(service, |_, cx| {
            for n in 0..100_u64 {
                cx.offload(move || if std::thread::current().id() == here { 0 } else { n + 1 })
                    .map_err(|_| "full")
                    .expect("room");
            }
        });
        // The runtime waits for the jobs, and ends by itself after the last one.
        let receipt = runtime.run().expect("it ends");
        let mut messages = runtime.service(service).expect("it is there").messages.clone();
        messages.sort();
        assert_eq!(messages, (1..=100).collect::<Vec<u64>>());
        assert_eq!((receipt.jobs_running, receipt.jobs_dropped), (0, 0));
    });
}

#[test]
fn a_job_whose_result_came_runs_no_more() {
    // The thread that sent the result may not have counted it yet. That is rare, so try often.
    for _ in 0..2_000 {
        let mut runtime = Runtime::new().expect("an engine");
        let service = runtime.add(Probe::<Bytes>::quiet()).expect("it starts");
        runtime.with(service, |_, cx| assert!(cx.offload(|| 1_u64).is_ok()));
        let receipt = runtime.run().expect("it ends");
        assert_eq!(runtime.service(service).expect("it is there").messages, [1]);
        assert_eq!((receipt.jobs_running, receipt.jobs_dropped), (0, 0));
    }
}

#[test]
fn the_limit_of_jobs_gives_the_job_back() {
    for_each_engine(|engine| {
        let mut runtime = engine.with(|limits| (limits.jobs, limits.job_threads) = (2, 1));
        let service = runtime.add(Probe::<Bytes>::quiet()).expect("it starts");
        let (release, held) = mpsc::channel::<()>();
        runtime.with(service, |_, cx| {
            let wait = move || held.recv().map_or(1_u64, |()| 0);
            assert!(cx.offload(wait).is_ok(), "limit - 1");
            assert!(cx.offload(|| 2_u64).is_ok(), "limit");
            match cx.offload(|| 3_u64) {
                Err(Refused::Full(job)) => assert_eq!(job(), 3, "the very job came back"),
                _ => panic!("limit + 1"),
            }
        });
        drop(release);
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").messages == [1, 2]);
        runtime.with(service, |_, cx| assert!(cx.offload(|| 4_u64).is_ok(), "room again"));
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").messages.contains(&4));
    });
}

#[test]
fn a_panic_of_a_job_is_a_fault() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let service = runtime.add(Probe::<Bytes>::quiet()).expect("it starts");
        runtime.with(service, |_, cx| {
            let job = || -> u64 { std::panic::resume_unwind(Box::new("the job's own")) };
            assert!(cx.offload(job).is_ok());
        });
        let receipt = runtime.run().expect("it ends by itself");
        assert!(receipt.services[0].first_faults[0].contains("the job's own"));
        assert_eq!(runtime.service(service).expect("it lives").faults.len(), 1);
    });
}

#[test]
fn without_threads_a_job_is_refused_and_counted() {
    for_each_engine(|engine| {
        let mut runtime = engine.with(|limits| limits.job_threads = 0);
        let service = runtime.add(Probe::<Bytes>::quiet()).expect("it starts");
        let taken = runtime.with(service, |_, cx| cx.offload(|| 1_u64).is_ok()).expect("it lives");
        let receipt = runtime.run().expect("it ends by itself");
        assert!(!taken || receipt.services[0].faults == 1, "an answer or a fault");
    });
}

#[test]
fn a_stop_does_not_wait_for_a_job_and_the_receipt_names_it() {
    for_each_engine(|engine| {
        let mut runtime = engine.with(|limits| limits.job_threads = 1);
        let service = runtime.add(Probe::<Bytes>::quiet()).expect("it starts");
        let (release, held) = mpsc::channel::<()>();
        let (began, begins) = mpsc::channel();
        runtime.with(service, |_, cx| {
            let wait = move || {
                began.send(()).expect("the test listens");
                held.recv().map_or(1_u64, |()| 0)
            };
            assert!(cx.offload(wait).is_ok());
            assert!(cx.offload(|| 2_u64).is_ok());
        });
        begins.recv().expect("it begins");
        runtime.with(service, |_, cx| cx.stop(Duration::ZERO));
        let receipt = runtime.run().expect("it stops");
        assert_eq!((receipt.jobs_running, receipt.jobs_dropped), (1, 1));
        assert!(runtime.service(service).expect("it lives").messages.is_empty());
        drop(release);
    });
}
