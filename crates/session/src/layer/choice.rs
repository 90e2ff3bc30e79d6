//! Layers chosen at run time: one of two, or any.
//!
//! This gives plain and encrypted connections of one service the same type, and one handler.

use std::fmt;

use super::{Io, Layer, Next, Step, open_once, seal_once};
use crate::failure::Result;

/// Runs one of two layers.
///
/// A transparent layer costs nothing once it is ready, as without this type, because the session bypasses it.
///
/// ```
/// use session::{Either, Session, kit::Toy};
///
/// type MaybeSealed = Either<(), Toy>;
/// let plain: Session<MaybeSealed> = Session::new(Either::Left(()));
/// let sealed: Session<MaybeSealed> = Session::new(Either::Right(Toy::client(1)));
/// # let _ = (plain, sealed);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first layer.
    Left(A),
    /// The second layer.
    Right(B),
}

/// Calls a method of the chosen layer.
macro_rules! either {
    ($self:ident, $layer:ident => $call:expr) => {
        match $self {
            Either::Left($layer) => $call,
            Either::Right($layer) => $call,
        }
    };
}

impl<A: Layer, B: Layer> Layer for Either<A, B> {
    const TRANSPARENT: bool = A::TRANSPARENT && B::TRANSPARENT;
    const INPUT_MAX: usize = if A::INPUT_MAX > B::INPUT_MAX { A::INPUT_MAX } else { B::INPUT_MAX };

    #[inline]
    fn transparent(&self) -> bool {
        either!(self, layer => layer.transparent())
    }

    #[inline]
    fn input_max(&self) -> usize {
        either!(self, layer => Layer::input_max(layer))
    }

    fn start(&mut self, io: &mut Io<'_>) -> Result {
        either!(self, layer => Layer::start(layer, io))
    }

    #[inline]
    fn ready(&self) -> bool {
        either!(self, layer => Layer::ready(layer))
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        either!(self, layer => open_or_pass(layer, input, io))
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        either!(self, layer => seal_or_pass(layer, clear, io))
    }

    fn shrinks(&self) -> bool {
        either!(self, layer => Layer::shrinks(layer))
    }

    fn finish(&mut self, io: &mut Io<'_>) -> Result {
        either!(self, layer => finish_or_pass(layer, io))
    }

    fn end(&mut self, left: &[u8]) -> Result {
        either!(self, layer => end_or_pass(layer, left))
    }

    fn held(&self) -> usize {
        either!(self, layer => Layer::held(layer))
    }
}

/// Runs any layer, for the price of one allocation and one virtual call per method call.
///
/// ```
/// use session::{Boxed, Session, kit::{Preamble, Toy}};
///
/// let preamble = Preamble::new("HELLO\n", "WELCOME\n");
/// let chosen = [Boxed::new(()), Boxed::new(preamble), Boxed::new(Toy::client(1))];
/// let sessions = chosen.map(Session::new);
/// # let _ = sessions;
/// ```
pub struct Boxed {
    layer: Box<dyn Erased>,
    /// The layer's answer, stored so that a session can bypass the layer without a virtual call.
    transparent: bool,
}

impl Boxed {
    /// Boxes a layer.
    pub fn new(layer: impl Layer) -> Self {
        Boxed { transparent: layer.transparent(), layer: Box::new(layer) }
    }

    /// Returns the layer if it is an `L`, for example to ask for results of its handshake.
    pub fn downcast_ref<L: Layer>(&self) -> Option<&L> {
        self.layer.as_any().downcast_ref()
    }

    /// Returns the layer if it is an `L`, to change it.
    pub fn downcast_mut<L: Layer>(&mut self) -> Option<&mut L> {
        self.layer.as_any_mut().downcast_mut()
    }
}

impl fmt::Debug for Boxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Boxed").field("transparent", &self.transparent).finish_non_exhaustive()
    }
}

impl Layer for Boxed {
    /// The box has no limit of its own. [`Layer::input_max`] returns that of the layer in it.
    const INPUT_MAX: usize = usize::MAX;

    #[inline]
    fn transparent(&self) -> bool {
        self.transparent
    }

    fn input_max(&self) -> usize {
        self.layer.input_max()
    }

    fn start(&mut self, io: &mut Io<'_>) -> Result {
        self.layer.start(io)
    }

    fn ready(&self) -> bool {
        self.layer.ready()
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        self.layer.open(input, io)
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        self.layer.seal(clear, io)
    }

    fn shrinks(&self) -> bool {
        self.layer.shrinks()
    }

    fn finish(&mut self, io: &mut Io<'_>) -> Result {
        self.layer.finish(io)
    }

    fn end(&mut self, left: &[u8]) -> Result {
        self.layer.end(left)
    }

    fn held(&self) -> usize {
        self.layer.held()
    }
}

/// The methods of [`Layer`] that can be called through a pointer.
trait Erased {
    fn input_max(&self) -> usize;
    fn start(&mut self, io: &mut Io<'_>) -> Result;
    fn ready(&self) -> bool;
    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step>;
    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize>;
    fn shrinks(&self) -> bool;
    fn finish(&mut self, io: &mut Io<'_>) -> Result;
    fn end(&mut self, left: &[u8]) -> Result;
    fn held(&self) -> usize;
    fn as_any(&self) -> &dyn std::any::Any;
    fn as_any_mut(&mut self) -> &mut dyn std::any::Any;
}

impl<L: Layer> Erased for L {
    fn input_max(&self) -> usize {
        Layer::input_max(self)
    }

    fn start(&mut self, io: &mut Io<'_>) -> Result {
        Layer::start(self, io)
    }

    fn ready(&self) -> bool {
        Layer::ready(self)
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        open_or_pass(self, input, io)
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        seal_or_pass(self, clear, io)
    }

    fn shrinks(&self) -> bool {
        Layer::shrinks(self)
    }

    fn finish(&mut self, io: &mut Io<'_>) -> Result {
        finish_or_pass(self, io)
    }

    fn end(&mut self, left: &[u8]) -> Result {
        end_or_pass(self, left)
    }

    fn held(&self) -> usize {
        Layer::held(self)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

// A driver that checks only `TRANSPARENT` calls a choice even after it became ready. A transparent layer must
// not be called then, so the choice passes the bytes itself.

fn is_through<L: Layer>(layer: &L) -> bool {
    layer.transparent() && Layer::ready(layer)
}

fn open_or_pass<L: Layer>(layer: &mut L, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
    if is_through(layer) {
        return Layer::open(&mut (), input, io);
    }
    let step = open_once(layer, input, io)?;
    // Bytes after the last message of a transparent handshake pass unchanged.
    Ok(if is_through(layer) { Step { next: Next::Again, ..step } } else { step })
}

fn seal_or_pass<L: Layer>(layer: &mut L, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
    if is_through(layer) { Layer::seal(&mut (), clear, io) } else { seal_once(layer, clear, io) }
}

fn finish_or_pass<L: Layer>(layer: &mut L, io: &mut Io<'_>) -> Result {
    if is_through(layer) { Ok(()) } else { Layer::finish(layer, io) }
}

fn end_or_pass<L: Layer>(layer: &mut L, left: &[u8]) -> Result {
    if is_through(layer) { Layer::end(&mut (), left) } else { Layer::end(layer, left) }
}
