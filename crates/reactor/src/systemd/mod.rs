//! What systemd and supervisors like it give a service and want of it: sockets that are open already, and
//! news of how it does.
//!
//! [`activated`] takes the sockets (sd_listen_fds(3)); [`Supervised`] is a service that passes [`Notice`]s on
//! (sd_notify(3)) and feeds the watchdog (sd_watchdog_enabled(3)). Both speak the protocol by themselves, and
//! both do nothing where nobody asked for it: the same program runs by hand.
//!
//! The environment is left as it is: changing it is not safe while there are threads. Children inherit it, and
//! `LISTEN_PID` and `WATCHDOG_PID` say that it is not for them; `NOTIFY_SOCKET` has no such mark, so a child
//! that should not speak for the service is started without it (`Command::env_remove`).

mod activation;
mod environment;
mod notice;
mod supervised;

pub use self::{
    activation::{Activated, activated},
    notice::Notice,
    supervised::Supervised,
};
