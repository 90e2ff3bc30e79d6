//! N: why a stream ended. A reason that was noted when the close began is told, however the stream leaves.

use reactor::{ConnectOptions, Phase};

use super::prelude::*;

pub(super) const ROWS: &[Row] = &[
    row("N18r", "a handler's error is told, however its stream leaves the runtime", &[], refused),
    row("N18r2", "a close of the service is not told where the runtime cut it", &[], closed),
];

/// How a stream that closes leaves the runtime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// The stop's grace is over.
    Stop,
    /// The close stands still for too long.
    TimeOut,
    /// The service aborts it.
    Abort,
    /// The peer resets the connection.
    Reset,
}

const WAYS: [Way; 4] = [Way::Stop, Way::TimeOut, Way::Abort, Way::Reset];

/// What the server does when a request arrives.
#[derive(Clone, Copy)]
struct Answer {
    /// It queues more than the peer takes.
    sends: bool,
    closes: bool,
    refuses: bool,
}

/// A server that has answered, and a client that reads nothing and does not close.
struct Case {
    /// The client's rig is first, because it outlives the server's.
    rigs: Vec<Rig>,
    client: ServiceId<Probe>,
    server: ServiceId<Probe>,
    at_client: Id<Stream>,
    at_server: Id<Stream>,
}

impl Case {
    fn new(fixture: &mut Fixture<'_>, answer: Answer, close: Duration) -> Result<Case, Stop> {
        let item = vec![7; if answer.sends { sized(fixture, 8 << 20, 200_000) } else { 0 }];
        let mut rigs = vec![Rig::new(fixture)?, Rig::new(fixture)?];
        let client = rigs[0].add(Probe::quiet())?;
        let server = rigs[1].add(Probe::acting(move |cx, id, what| {
            let (Some(id), What::Got(_)) = (id, what) else { return Ok(()) };
            cx.send(id, &item[..]);
            if answer.closes {
                cx.close(id);
            }
            if answer.refuses { Err(REFUSAL.into()) } else { Ok(()) }
        }))?;
        let mut options = StreamOptions::default();
        (options.close, options.cap) = (close, usize::MAX);
        let mut narrow = ListenOptions::default();
        narrow.socket.send_buffer = Some(1);
        let (_, address) =
            rigs[1].listen_with(server, &narrow, move || Stream::new(Bytes).options(options.clone()))?;
        let ours = Stream::new(Bytes).half_open(true);
        let at_client = rigs[0].connect_with(client, &address, &ConnectOptions::default(), ours)?;
        rig::until(&mut rigs, "both ends are open", |rigs| {
            rigs[0].get(client).open.len() == 1 && rigs[1].get(server).open.len() == 1
        })?;
        let at_server = rigs[1].get(server).open[0];
        rigs[0].with(client, |_, cx| {
            cx.pause(at_client);
            cx.send(at_client, b"request");
        });
        // It may arrive in pieces, of which the server answers the first.
        rig::until(&mut rigs, "the request has arrived", |rigs| rigs[1].get(server).received(at_server) > 0)?;
        Ok(Case { rigs, client, server, at_client, at_server })
    }

    /// Has the stream leave, and returns the reason that the service was told.
    fn leave(&mut self, way: Way, sends: bool) -> Result<Closed, Stop> {
        let (client, server) = (self.client, self.server);
        let (at_client, at_server) = (self.at_client, self.at_server);
        match way {
            Way::Stop | Way::TimeOut => (),
            Way::Abort => self.rigs[1].with(server, |_, cx| cx.abort(at_server)),
            Way::Reset => self.rigs[0].with(client, |_, cx| cx.abort(at_client)),
        }
        if way != Way::Stop {
            rig::until(&mut self.rigs, "the stream has closed", |rigs| {
                rigs[1].get(server).closed.len() == 1
            })?;
        }
        self.rigs[1].stop(SHORT);
        let receipt = self.rigs[1].run()?;
        let (_, stream, why) = self.rigs[1].get_mut(server).closed.remove(0);
        check!((stream.unsent() > 0) == sends, "{way:?} left {} bytes", stream.unsent());
        // The reason that is told changes no count.
        let cut = u64::from(way == Way::Stop);
        check!(receipt.cut == cut, "{way:?} cut {} resources", receipt.cut);
        check!((receipt.bytes_dropped > 0) == sends, "{way:?} dropped {} bytes", receipt.bytes_dropped);
        Ok(why)
    }
}

fn refused(fixture: &mut Fixture<'_>) -> Outcome {
    for way in WAYS {
        for (sends, closes) in [(false, false), (true, false), (false, true), (true, true)] {
            let close = if way == Way::TimeOut { SHORT } else { LONG };
            let mut case = Case::new(fixture, Answer { sends, closes, refuses: true }, close)?;
            let why = case.leave(way, sends)?;
            let is_told = matches!(&why, Closed::Refused(failure) if failure.to_string() == REFUSAL);
            check!(is_told, "{way:?}, sends {sends}, closes {closes}: the service was told {why:?}");
        }
    }
    Ok(())
}

fn closed(fixture: &mut Fixture<'_>) -> Outcome {
    for way in WAYS {
        let close = if way == Way::TimeOut { SHORT } else { LONG };
        let mut case = Case::new(fixture, Answer { sends: true, closes: true, refuses: false }, close)?;
        let why = case.leave(way, true)?;
        let is_told = match way {
            Way::Stop => matches!(why, Closed::Stopped),
            Way::TimeOut => matches!(why, Closed::TimedOut(Phase::Close)),
            Way::Abort => matches!(why, Closed::Aborted),
            // What cannot leave any more is counted, and the close is over.
            Way::Reset => matches!(why, Closed::Done | Closed::Failed(_)),
        };
        check!(is_told, "{way:?}: the service was told {why:?}");
    }
    Ok(())
}

const REFUSAL: &str = "a refusal of the suite";
/// A close that no row waits for.
const LONG: Duration = Duration::from_secs(60);
