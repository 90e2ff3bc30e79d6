//! The resource behind signals: a registration with the process, or a stand-in of a virtual world.

use std::{fmt, io};

use super::{Signal, SignalSet};
use crate::{
    engine::{Ready, Source, Transport},
    error::Error,
    resource::{Io, Pollable},
    sys::signals::Registration,
};

/// The event of a signal's arrival.
///
/// [`Signals`](super::Signals) has an example.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Arrived {
    /// The signal.
    pub signal: Signal,
    /// How often its handler ran since the last event, at least once. Signals that the kernel merged before
    /// that count as one.
    pub times: u32,
}

/// Signals as a resource, whose event is [`Arrived`].
///
/// [`Context::signals`](crate::Context::signals) adds one. At most 64 can exist in a process. Dropping it
/// restores the previous dispositions, as the [module's documentation](crate::signals) describes.
///
/// ```
/// use reactor::{
///     Context, Handle, Id, Result, Service,
///     signals::{Arrived, Signal, Signals},
/// };
///
/// /// Counts the requests to reload the configuration.
/// struct Reloads(u32);
///
/// impl Service for Reloads {
///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
///         cx.signals([Signal::HUP])?;
/// #       cx.stop(std::time::Duration::ZERO);
///         Ok(())
///     }
/// }
///
/// impl Handle<Signals> for Reloads {
///     fn handle(&mut self, _: &mut Context<Self>, _: Id<Signals>, event: Arrived) -> Result {
///         // Several requests may arrive as one event, which is enough to reload once.
///         assert_eq!(event.signal, Signal::HUP);
///         self.0 += 1;
///         Ok(())
///     }
/// }
/// # reactor::run(Reloads(0))?;
/// # Ok::<(), reactor::Error>(())
/// ```
pub struct Signals {
    set: SignalSet,
    held: SignalsBacking,
}

enum SignalsBacking {
    Process(Registration),
    /// In a virtual world. Each read returns one pending kind as one complete record of [`Signals::record`].
    StandIn(Transport),
}

impl Signals {
    /// Waits for signals of the process from now on, before there is a runtime. So no signal can end the
    /// process in the meantime.
    ///
    /// # Errors
    /// [`Error::Misuse`] for an empty set. [`Error::Os`] if 64 of these exist in the process, if descriptors
    /// ran out, or for a signal that the system does not have.
    pub fn of_process(signals: impl IntoIterator<Item = Signal>) -> Result<Signals, Error> {
        let set = not_empty(signals)?;
        let registration =
            Registration::new(set.0).map_err(|error| Error::os("signals", format!("{set:?}"), error))?;
        Ok(Signals { set, held: SignalsBacking::Process(registration) })
    }

    pub(crate) fn stand_in(set: SignalSet, transport: Transport) -> Signals {
        Signals { set, held: SignalsBacking::StandIn(transport) }
    }

    /// Returns the signals that it waits for.
    pub fn set(&self) -> SignalSet {
        self.set
    }

    /// Encodes a pending signal as a virtual world's source writes it: its number and its count, both with
    /// the lowest byte first.
    pub fn record(signal: Signal, times: u32) -> [u8; 8] {
        let mut record = [0; 8];
        record[..4].copy_from_slice(&signal.0.to_le_bytes());
        record[4..].copy_from_slice(&times.to_le_bytes());
        record
    }
}

/// Returns the set, or an error if it is empty.
pub(crate) fn not_empty(signals: impl IntoIterator<Item = Signal>) -> Result<SignalSet, Error> {
    let set = SignalSet::from_iter(signals);
    if set.is_empty() {
        return Err(Error::Misuse { operation: "signals", why: "no signal is named" });
    }
    Ok(set)
}

impl Pollable for Signals {
    type Event<'a> = Arrived;

    fn source(&self) -> Source<'_> {
        match &self.held {
            SignalsBacking::Process(registration) => Source::of(registration.pipe()),
            SignalsBacking::StandIn(transport) => transport.source(),
        }
    }

    fn step(&mut self, _: Ready, io: &mut Io<'_>, buffer: &mut [u8]) -> io::Result<Option<Arrived>> {
        let SignalsBacking::Process(registration) = &self.held else {
            let (record, _) =
                buffer.split_first_chunk_mut::<8>().expect("the lent buffer is larger than this");
            if io.read(self.source(), record)? < record.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            return Ok(Some(read_record(*record)));
        };
        let mut pending = registration.take();
        if pending.is_none() {
            // Empty the pipe only now. A signal that arrives from here on, while this resource is paused,
            // must wake it again.
            match io.read(self.source(), buffer) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => pending = registration.take(),
            }
            if pending.is_some() {
                registration.wake();
            }
        }
        if pending.is_some() {
            io.may_have_more();
        }
        Ok(pending.map(|(number, times)| Arrived { signal: Signal(number), times }))
    }
}

/// Decodes a record of [`Signals::record`].
fn read_record(record: [u8; 8]) -> Arrived {
    let [a, b, c, d, times @ ..] = record;
    Arrived { signal: Signal(u32::from_le_bytes([a, b, c, d])), times: u32::from_le_bytes(times) }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signals").field(&self.set).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::engine::Candidates;

    #[test]
    fn a_stand_in_whose_record_is_cut_short_fails() {
        let record = Signals::record(Signal::HUP, 3);
        for length in 0..=record.len() {
            let (reader, mut writer) = io::pipe().expect("a pipe");
            writer.write_all(&record[..length]).expect("room");
            drop(writer);
            let mut signals = Signals::stand_in(SignalSet::from_iter([Signal::HUP]), Transport::new(reader));
            let mut engine = Candidates::default().open(None).expect("there is one");
            let told = signals.step(Ready::default(), &mut Io::new(&mut *engine, true), &mut [0; 64]);
            let whole = Some(Arrived { signal: Signal::HUP, times: 3 });
            let expected = if length == record.len() { Ok(whole) } else { Err(io::ErrorKind::UnexpectedEof) };
            assert_eq!(told.map_err(|error| error.kind()), expected, "{length} bytes");
        }
    }
}
