//! The only place that knows `tracing`: without the feature each function is empty.

use crate::{
    error::{Closed, Fault},
    id::Key,
};

/// An engine was opened.
#[inline]
pub(crate) fn engine(name: &str) {
    #[cfg(feature = "tracing")]
    tracing::debug!(engine = name, "runtime opened");
    #[cfg(not(feature = "tracing"))]
    let _ = name;
}

/// An engine did not open, and the next is tried.
pub(crate) fn engine_passed(name: &str, error: &std::io::Error) {
    #[cfg(feature = "tracing")]
    tracing::warn!(engine = name, %error, "engine passed over");
    #[cfg(not(feature = "tracing"))]
    let _ = (name, error);
}

/// A service did not take a fault itself.
pub(crate) fn fault(service: &str, fault: &Fault) {
    #[cfg(feature = "tracing")]
    tracing::warn!(service, %fault, "fault");
    #[cfg(not(feature = "tracing"))]
    let _ = (service, fault);
}

/// A resource ended. What the reason prints may be users' code.
#[inline]
pub(crate) fn closed(service: &str, key: Key, why: &Closed) {
    #[cfg(feature = "tracing")]
    let _ = crate::guard::call(|| {
        if why.is_clean() {
            tracing::trace!(service, ?key, %why, "closed");
        } else {
            tracing::debug!(service, ?key, %why, "closed");
        }
    });
    #[cfg(not(feature = "tracing"))]
    let _ = (service, key, why);
}

/// A service panicked.
pub(crate) fn panic(service: &str, message: &str) {
    #[cfg(feature = "tracing")]
    tracing::error!(service, message, "panic");
    #[cfg(not(feature = "tracing"))]
    let _ = (service, message);
}

/// What a user gave panicked while the library dropped it, and no service can be blamed.
pub(crate) fn drop_panicked(what: &str, message: &str) {
    #[cfg(feature = "tracing")]
    tracing::error!(what, message, "panic in a drop");
    #[cfg(not(feature = "tracing"))]
    let _ = (what, message);
}

/// The observer panicked, and is told nothing more.
pub(crate) fn observer_panicked(message: &str) {
    #[cfg(feature = "tracing")]
    tracing::error!(message, "panic of the observer");
    #[cfg(not(feature = "tracing"))]
    let _ = message;
}

/// The runtime begins to stop.
pub(crate) fn stop(resources: usize) {
    #[cfg(feature = "tracing")]
    tracing::debug!(resources, "stop begins");
    #[cfg(not(feature = "tracing"))]
    let _ = resources;
}
