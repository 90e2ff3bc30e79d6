//! Children of a process that ignores SIGCHLD. A separate binary, because the disposition belongs to the
//! process.
#![cfg(unix)]
#![allow(unsafe_code)]

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, ExitStatus},
};

use reactor::{
    Bytes, Closed, Context, Event, Handle, Id, Result, Runtime, RuntimeOptions, Service, Stream,
    engine::Candidates,
    process::{Process, SpawnOptions, Standard},
};

/// Starts one child that exits at once, and one that exits when its input ends.
#[derive(Default)]
struct Nursery {
    said: Vec<u8>,
    told: Vec<String>,
}

impl Service for Nursery {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let mut options = SpawnOptions::default();
        (options.stderr, options.group) = (Standard::Null, true);
        for script in ["exit 3", "read line; echo it ran; exit 4"] {
            let mut command = Command::new("/bin/sh");
            let child = cx.spawn(command.args(["-c", script]), &options)?;
            cx.add(child.process)?;
            cx.add(Stream::new(Bytes).through(child.stdout.ok_or("it is piped")?))?;
            let input = Stream::new(Bytes).role::<Input>().through(child.stdin.ok_or("it is piped")?);
            let input = cx.add(input)?;
            cx.send(input, b"line\n");
            cx.close(input);
        }
        Ok(())
    }
}

struct Input;

impl Handle<Process> for Nursery {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Process>, status: ExitStatus) -> Result {
        self.told.push(format!("{status}"));
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Process>, process: Process, why: Closed) {
        let error = process.kill().expect_err("it has ended");
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
        self.told.push(why.to_string());
    }
}

impl Handle<Stream> for Nursery {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            self.said.extend_from_slice(bytes);
        }
        Ok(())
    }
}

impl Handle<Stream<Bytes, (), Input>> for Nursery {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream<Bytes, (), Input>>, _: Event<Bytes>) -> Result {
        Ok(())
    }
}

#[test]
fn a_child_whose_status_nobody_knows_ends_with_words_and_has_run() {
    // SAFETY: the call installs no handler, and only changes the disposition.
    assert_ne!(unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) }, libc::SIG_ERR);
    for engine in Candidates::default().names() {
        // Try several times, because the first child may or may not have exited by the time of the check.
        for _ in 0..8 {
            let mut options = RuntimeOptions::default();
            options.engine = Some(engine.to_owned());
            let mut runtime = Runtime::with_options(options).expect("it opens");
            let id = runtime.add(Nursery::default()).expect("both start");
            let receipt = runtime.run();
            assert!(receipt.is_ok(), "{engine}: {receipt:?}");
            let nursery = runtime.service(id).expect("it is there");
            assert_eq!(nursery.said, b"it ran\n", "{engine}");
            assert_eq!(nursery.told.len(), 2, "{engine}: {:?}", nursery.told);
            let in_words = |told: &String| told.contains("nobody knows how: SIGCHLD is ignored");
            assert!(nursery.told.iter().all(in_words), "{engine}: {:?}", nursery.told);
        }
    }
    // A program that cannot be executed is an error, whether the standard library forks or spawns.
    let mut runtime = Runtime::new().expect("there is an engine");
    let id = runtime.add(Nowhere::default()).expect("it starts");
    runtime.run().expect("the engine is whole");
    let refused = &runtime.service(id).expect("it is there").0;
    assert!(
        refused.len() == 2 && refused.iter().all(|text| text.starts_with("spawn /no/such: ")),
        "{refused:?}"
    );
}

/// Starts programs that do not exist, with a `pre_exec` function and without.
#[derive(Default)]
struct Nowhere(Vec<String>);

impl Service for Nowhere {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let mut plain = Command::new("/no/such");
        let mut forked = Command::new("/no/such");
        // SAFETY: the function that is called between fork and exec does nothing.
        unsafe { forked.pre_exec(|| Ok(())) };
        for command in [&mut plain, &mut forked] {
            let refused = cx.spawn(command, &SpawnOptions::default()).expect_err("there is no such program");
            self.0.push(refused.to_string());
        }
        Ok(())
    }
}
