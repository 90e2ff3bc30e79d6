//! H at runtime level: child processes, their pipes and their ends. Unix only.

use std::process::{Command, ExitStatus};

use reactor::process::{Process, SpawnOptions, Standard};

use super::{
    child_fixtures::{ChildEvent, Kept, Parent, exists, silent, spoken, until_gone},
    prelude::*,
};

pub(super) const ROWS: &[Row] = &[
    row("H5r", "two hundred children that end at once are each told once", SOCKETS, many_at_once),
    row(
        "H5r2",
        "children of another library in the process lose no exit, and ours none",
        SOCKETS,
        two_libraries,
    ),
    row("H5r3", "a child that ended before it was added is told", PROC, ended_before_added),
    row("H5r4", "a child beyond the limit of resources comes back, and is no zombie", PROC, beyond_the_limit),
    row("H6r", "output may end long before its child, and outlive it", SOCKETS, exit_and_end_are_two),
    row(
        "H7r",
        "a child that does not read breaks the pipe and nothing else",
        SOCKETS,
        child_that_does_not_read,
    ),
    row("H7r2", "a flood from a child waits while it is paused, and none is lost", SOCKETS, flood),
    row("H7r3", "bytes go through a child and come back whole", SOCKETS, through_a_child),
    row("H8r", "a program that cannot be executed is an error, and leaves nothing", PROC, not_executed),
    row("H11r", "a signal goes to the whole group, and never to one that has ended", PROC, group),
    row(
        "H11r2",
        "a child is killed with its group when it is closed, and is no zombie",
        PROC,
        killed_on_close,
    ),
    row("H11r3", "children dropped with their runtime become no zombies", PROC, dropped_with_the_runtime),
    row(
        "A9r2",
        "a child has its three descriptors and no other, and dies by SIGPIPE",
        PROC,
        nothing_inherited,
    ),
];

const PROC: &[Need] = &[Need::Sockets, Need::Linux, Need::DescriptorList];

fn many_at_once(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let parent = rig.add(Parent::default())?;
    let mut options = silent();
    options.stdin = Standard::Piped;
    let count = if fixture.descriptors_max() < 1024 { 60 } else { 200 };
    for code in 0..count {
        let script = format!("read word; exit {}", code % 200);
        rig.with(parent, |parent, cx| parent.start(cx, &script, &options))?;
    }
    // No child ends before the end of its input.
    rig.settle()?;
    check!(rig.get(parent).exited() == 0, "{} ended by themselves", rig.get(parent).exited());
    rig.with(parent, |parent, cx| {
        parent.children.iter().filter_map(|child| child.input).for_each(|id| cx.close(id))
    });
    rig.until("all have closed", |rig| {
        let told = &rig.get(parent).told;
        told.iter().filter(|(_, told)| *told == ChildEvent::Gone).count() == count
    })?;
    for child in 0..count {
        let exits: Vec<_> = rig.get(parent).of(child).into_iter().filter_map(exit_code).collect();
        check!(exits == [child as i32 % 200], "child {child} ended with {exits:?}");
    }
    rig.finish()
}

fn exit_code(told: ChildEvent) -> Option<i32> {
    match told {
        ChildEvent::Exit(status) => status.code(),
        _ => None,
    }
}

fn two_libraries(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let parent = rig.add(Parent::default())?;
    let other = std::thread::spawn(|| {
        let codes = (0..50).map(|code| {
            let mut child = Command::new("/bin/sh").args(["-c", &format!("exit {code}")]).spawn()?;
            child.wait().map(|status| status.code())
        });
        codes.collect::<std::io::Result<Vec<_>>>()
    });
    for code in 0..50 {
        rig.with(parent, |parent, cx| parent.start(cx, &format!("exit {code}"), &silent()))?;
        rig.turn(Duration::ZERO)?;
    }
    rig.until("all of ours have ended", |rig| rig.get(parent).exited() == 50)?;
    let codes: Vec<_> = (0..50).flat_map(|child| rig.get(parent).of(child)).filter_map(exit_code).collect();
    check!(codes == (0..50).collect::<Vec<_>>(), "ours ended with {codes:?}");
    let theirs = other.join().map_err(|_| "the other library panicked")??;
    check!(theirs == (0..50).map(Some).collect::<Vec<_>>(), "theirs ended with {theirs:?}");
    rig.finish()
}

fn ended_before_added(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let parent = rig.add(Parent::default())?;
    rig.with(parent, |parent, cx| -> Outcome {
        let child = cx.spawn(Command::new("/bin/sh").args(["-c", "exit 5"]), &silent())?;
        let stat = format!("/proc/{}/stat", child.process.pid());
        while !std::fs::read_to_string(&stat)?.contains(") Z ") {
            std::thread::yield_now();
        }
        let pid = child.process.pid();
        let process = cx.add(child.process).map_err(|rejected| rejected.error)?;
        parent.children.push(Kept { process, pid, input: None, output: None });
        Ok(())
    })?;
    rig.until("its end is told", |rig| rig.get(parent).has(0, ChildEvent::Gone))?;
    check!(
        rig.get(parent).of(0).iter().filter_map(|told| exit_code(*told)).eq([5]),
        "{:?}",
        rig.get(parent).told
    );
    rig.finish()
}

fn beyond_the_limit(fixture: &mut Fixture<'_>) -> Outcome {
    const LIMIT: usize = 5;
    let mut rig = Rig::limited(fixture, |limits| limits.resources = LIMIT)?;
    let parent = rig.add(Parent::default())?;
    let mut options = silent();
    options.kill_on_close = true;
    let mut refused = None;
    for count in 1..=LIMIT + 1 {
        let child = rig.with(parent, |_, cx| cx.spawn(Command::new("sleep").arg("60"), &options))?;
        let pid = child.process.pid();
        match rig.with(parent, |_, cx| cx.add(child.process)) {
            Ok(process) => {
                check!(count <= LIMIT, "{count} were taken");
                let kept = Kept { process, pid, input: None, output: None };
                rig.get_mut(parent).children.push(kept);
            }
            Err(rejected) => {
                check!(count == LIMIT + 1, "number {count} was rejected: {}", rejected.error);
                check!(rejected.resource.pid() == pid && exists(pid), "it comes back, and runs");
                refused = Some(pid);
            }
        }
    }
    // The drop kills it.
    until_gone(&[refused.ok_or("none was rejected")?])?;
    let ids: Vec<_> = rig.get(parent).children.iter().map(|child| child.process).collect();
    rig.with(parent, |_, cx| ids.iter().for_each(|id| cx.close(*id)));
    let pids: Vec<_> = rig.get(parent).children.iter().map(|child| child.pid).collect();
    until_gone_while_turning(&mut rig, &pids)?;
    rig.finish()
}

fn exit_and_end_are_two(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let parent = rig.add(Parent::default())?;
    // The child closes its output and lives until its input ends.
    let first =
        rig.with(parent, |parent, cx| parent.start(cx, "echo a; exec >&-; read word; exit 1", &spoken()))?;
    rig.until("its output has ended", |rig| rig.get(parent).has(first, ChildEvent::OutputClosed))?;
    check!(rig.get(parent).exited() == 0, "its exit was told with the end of its output");
    let input = rig.get(parent).children[first].input.ok_or("it is piped")?;
    rig.with(parent, |_, cx| cx.close(input));
    rig.until("it has ended", |rig| rig.get(parent).has(first, ChildEvent::Gone))?;
    // The child ends, but its own child holds both pipes until the input ends.
    let second = rig.with(parent, |parent, cx| {
        parent.start(cx, "exec 3<&0; (read word; echo late) <&3 & exit 2", &spoken())
    })?;
    rig.until("it has ended", |rig| rig.get(parent).has(second, ChildEvent::Gone))?;
    rig.settle()?;
    check!(
        !rig.get(parent).has(second, ChildEvent::OutputEnd),
        "the end of the output was told with the exit"
    );
    let input = rig.get(parent).children[second].input.ok_or("it is piped")?;
    rig.with(parent, |_, cx| cx.close(input));
    rig.until("the output has ended", |rig| rig.get(parent).has(second, ChildEvent::OutputClosed))?;
    check!(rig.get(parent).output == b"a\nlate\n", "{:?} was said", rig.get(parent).output);
    rig.finish()
}

fn child_that_does_not_read(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let parent = rig.add(Parent::default())?;
    let child =
        rig.with(parent, |parent, cx| parent.start(cx, "exec <&-; echo gone; exec sleep 60", &spoken()))?;
    let input = rig.get(parent).children[child].input.ok_or("it is piped")?;
    rig.with(parent, |_, cx| cx.send(input, &pattern(1 << 20)));
    rig.until("the input has ended", |rig| {
        rig.get(parent).has(child, ChildEvent::InputClosed { failed: true })
    })?;
    rig.until("its word has arrived", |rig| rig.get(parent).output == b"gone\n")?;
    check!(!rig.get(parent).has(child, ChildEvent::Gone), "the child lives on");
    let process = rig.get(parent).children[child].process;
    rig.with(parent, |_, cx| cx.get(process).map(Process::kill)).ok_or("it lives")??;
    rig.until("it has ended", |rig| rig.get(parent).has(child, ChildEvent::Gone))?;
    rig.finish()
}

fn flood(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let parent = rig.add(Parent::default())?;
    let script = "exec head -c 3000000 /dev/zero";
    let child = rig.with(parent, |parent, cx| parent.start(cx, script, &spoken()))?;
    let output = rig.get(parent).children[child].output.ok_or("it is piped")?;
    rig.with(parent, |_, cx| cx.pause(output));
    rig.settle()?;
    let before = rig.counters().bytes_in;
    rig.rests()?;
    check!(rig.counters().bytes_in == before && before <= 1 << 20, "{before} bytes were read though paused");
    check!(!rig.get(parent).has(child, ChildEvent::Gone), "it waits for its reader");
    rig.with(parent, |_, cx| cx.resume(output));
    rig.until("it has ended", |rig| {
        rig.get(parent).has(child, ChildEvent::Gone) && rig.get(parent).has(child, ChildEvent::OutputClosed)
    })?;
    check!(rig.get(parent).output.len() == 3_000_000, "{} bytes came", rig.get(parent).output.len());
    rig.finish()
}

fn through_a_child(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let parent = rig.add(Parent::default())?;
    let child = rig.with(parent, |parent, cx| parent.start(cx, "exec cat", &spoken()))?;
    let input = rig.get(parent).children[child].input.ok_or("it is piped")?;
    let bytes = pattern(2 << 20);
    rig.with(parent, |_, cx| {
        cx.send(input, &bytes);
        cx.finish(input);
    });
    rig.until("all has come back", |rig| {
        rig.get(parent).has(child, ChildEvent::OutputClosed) && rig.get(parent).has(child, ChildEvent::Gone)
    })?;
    check!(rig.get(parent).output == bytes, "what came back differs");
    check!(
        rig.get(parent).has(child, ChildEvent::InputClosed { failed: false }),
        "{:?}",
        rig.get(parent).told
    );
    rig.finish()
}

fn not_executed(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let parent = rig.add(Parent::default())?;
    let before = children_of_this_process()?;
    for (program, kind) in
        [("/no/such/program", ErrorKind::NotFound), ("/etc/passwd", ErrorKind::PermissionDenied)]
    {
        let result = rig.with(parent, |_, cx| cx.spawn(&mut Command::new(program), &SpawnOptions::default()));
        let Err(error) = result else { return Err(format!("{program} was executed").into()) };
        check!(error.io().is_some_and(|error| error.kind() == kind), "{program}: {error}");
        check!(error.to_string().contains(program), "the error names the program: {error}");
    }
    let after = children_of_this_process()?;
    check!(after == before, "children were left: {after:?} after {before:?}");
    rig.finish()
}

/// Lists the children of this process, including zombies.
fn children_of_this_process() -> Result<Vec<u32>, Stop> {
    let mut all = Vec::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        let children = std::fs::read_to_string(task?.path().join("children"));
        let Ok(children) = children else {
            return Err(Stop::Skipped("needs /proc/TASK/children".to_owned()));
        };
        all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(all)
}

/// Starts a group leader, which starts another process. Returns the numbers of both.
fn family(rig: &mut Rig, parent: ServiceId<Parent>, options: &SpawnOptions) -> Result<[u32; 2], Stop> {
    let script = "sleep 60 & echo $!; wait";
    let child = rig.with(parent, |parent, cx| parent.start(cx, script, options))?;
    rig.until("it has said its child's number", |rig| rig.get(parent).output.ends_with(b"\n"))?;
    let said = std::mem::take(&mut rig.get_mut(parent).output);
    let pid = String::from_utf8_lossy(&said).trim().parse::<u32>().map_err(|error| error.to_string())?;
    Ok([rig.get(parent).children[child].pid, pid])
}

fn group(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let parent = rig.add(Parent::default())?;
    let mut options = spoken();
    options.group = true;
    let family = family(&mut rig, parent, &options)?;
    let process = rig.get(parent).children[0].process;
    rig.with(parent, |_, cx| cx.get(process).map(Process::terminate)).ok_or("it lives")??;
    rig.until("it has ended", |rig| rig.get(parent).has(0, ChildEvent::Gone))?;
    until_gone(&family)?;
    // By the time of the exit event the child is already reaped, and its number may belong to another
    // process.
    let mut options = silent();
    options.group = true;
    let child = rig.with(parent, |_, cx| cx.spawn(&mut Command::new("true"), &options))?;
    let late = rig.add(Late::default())?;
    rig.with(late, |_, cx| cx.add(child.process)).map_err(|rejected| rejected.error)?;
    rig.until("its exit was told", |rig| rig.get(late).errno.is_some())?;
    check!(rig.get(late).errno == Some(libc::ESRCH), "a signal after the exit: {:?}", rig.get(late).errno);
    rig.finish()
}

/// Sends a signal after the exit event.
#[derive(Default)]
struct Late {
    errno: Option<i32>,
}

impl Service for Late {}

impl Handle<Process> for Late {
    fn handle(&mut self, cx: &mut Context<'_, Self>, id: Id<Process>, _: ExitStatus) -> Result {
        let sent = cx.get(id).map(Process::kill).ok_or("it is there until it is closed")?;
        self.errno = Some(sent.err().and_then(|error| error.raw_os_error()).unwrap_or_default());
        Ok(())
    }
}

fn killed_on_close(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let parent = rig.add(Parent::default())?;
    let mut options = spoken();
    (options.group, options.kill_on_close) = (true, true);
    let both = family(&mut rig, parent, &options)?;
    let process = rig.get(parent).children[0].process;
    rig.with(parent, |_, cx| cx.close(process));
    until_gone_while_turning(&mut rig, &both)?;
    // With `kill_rest`, the rest of a group ends with its leader.
    let mut options = spoken();
    (options.group, options.kill_rest) = (true, true);
    let both = family(&mut rig, parent, &options)?;
    Command::new("/bin/sh").args(["-c", &format!("kill -KILL {}", both[0])]).status()?;
    until_gone_while_turning(&mut rig, &both)?;
    rig.until("the output has ended", |rig| rig.get(parent).has(1, ChildEvent::OutputClosed))?;
    rig.finish()
}

fn until_gone_while_turning(rig: &mut Rig, pids: &[u32]) -> Outcome {
    rig.until("they are gone", |_| !pids.iter().any(|pid| exists(*pid)))
}

fn dropped_with_the_runtime(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pids = Vec::new();
    for kill in [true, false] {
        let mut rig = Rig::new(fixture)?;
        let parent = rig.add(Parent::default())?;
        let mut options = silent();
        (options.kill_on_close, options.stdin) = (kill, Standard::Piped);
        for _ in 0..20 {
            // Without its input the child ends, killed or not.
            let child = rig.with(parent, |parent, cx| parent.start(cx, "read word", &options))?;
            pids.push(rig.get(parent).children[child].pid);
        }
        drop(rig);
    }
    until_gone(&pids)?;
    // The thread that waits for children ends, too, after it has closed its pipe.
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while names_of_threads()?.iter().any(|name| name.starts_with("reactor-reaper")) {
        check!(std::time::Instant::now() < end, "the thread is still there");
        std::thread::yield_now();
    }
    Ok(())
}

fn names_of_threads() -> Result<Vec<String>, Stop> {
    let tasks = std::fs::read_dir("/proc/self/task")?;
    // A thread may end during the listing.
    Ok(tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok()).collect())
}

fn nothing_inherited(fixture: &mut Fixture<'_>) -> Outcome {
    // This process may have inherited descriptors itself, and those are not ours to close.
    let given = descriptors()?;
    let mut rig = Rig::new(fixture)?;
    let (echo, address) = rig.echo()?;
    let parent = rig.add(Parent::default())?;
    let peer = std::net::TcpStream::connect(address.ip().ok_or("an IP address")?)?;
    rig.until("a connection is open", |rig| rig.get(echo).opened == 1)?;
    // A living child has a pidfd and pipes open here.
    rig.with(parent, |parent, cx| parent.start(cx, "read word", &spoken()))?;
    let script = "for fd in /proc/self/fd/*; do [ -e $fd ] && echo ${fd##*/}; done; kill -PIPE $$; exit 9";
    let ours = descriptors()?.len();
    let child = rig.with(parent, |parent, cx| parent.start(cx, script, &spoken()))?;
    rig.until("it has ended", |rig| {
        rig.get(parent).has(child, ChildEvent::Gone) && rig.get(parent).has(child, ChildEvent::OutputClosed)
    })?;
    let said = String::from_utf8_lossy(&rig.get(parent).output).into_owned();
    let mut numbers: Vec<u32> = said.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    numbers.retain(|number| *number <= 2 || !given.contains(number));
    check!(ours >= given.len() + 8, "only {ours} descriptors are open, {} were before", given.len());
    check!(numbers == [0, 1, 2], "of {ours} descriptors the child has {said:?}");
    let signal = rig.get(parent).of(child).into_iter().find_map(|told| match told {
        ChildEvent::Exit(status) => std::os::unix::process::ExitStatusExt::signal(&status),
        _ => None,
    });
    check!(signal == Some(libc::SIGPIPE), "SIGPIPE is ignored or blocked in the child: {signal:?}");
    let input = rig.get(parent).children[0].input.ok_or("it is piped")?;
    rig.with(parent, |_, cx| cx.close(input));
    drop(peer);
    rig.until("the other has ended, too", |rig| rig.get(parent).has(0, ChildEvent::Gone))?;
    rig.finish()
}

/// Lists the descriptors of this process.
fn descriptors() -> Result<Vec<u32>, Stop> {
    let listed = std::fs::read_dir("/proc/self/fd")?;
    Ok(listed.flatten().filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect())
}
