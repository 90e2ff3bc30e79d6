//! The protocol between a service and systemd, or a supervisor like it: sockets that the supervisor opened,
//! and notices of the service's state.
//!
//! [`activated`] takes the sockets (sd_listen_fds(3)). [`Supervised`] is a service that forwards [`Notice`]s
//! to the supervisor (sd_notify(3)) and feeds the watchdog (sd_watchdog_enabled(3)). Both implement the
//! protocol themselves. Without a supervisor both do nothing, so the same program also runs by hand.
//!
//! The environment stays unchanged, because changing it is not safe while other threads run. Children inherit
//! it. `LISTEN_PID` and `WATCHDOG_PID` make them ignore the sockets and the watchdog, because they name this
//! process. `NOTIFY_SOCKET` has no such mark, so remove it for a child that must not speak for the service
//! (`Command::env_remove`).

mod activation;
mod environment;
mod notice;
mod supervised;

pub use self::{
    activation::{Activated, activated},
    notice::Notice,
    supervised::Supervised,
};
