//! The table: all rows, in the order of the scenarios.

mod datagrams;
pub(crate) mod descriptors;
#[cfg(unix)]
mod devices;
mod partial;
mod peers;
#[cfg(unix)]
mod pipes;
mod readiness;
#[cfg(unix)]
mod signals;
mod waits;

use std::sync::OnceLock;

use reactor::Key;

use crate::{
    driver::EngineDriver,
    suite::{Outcome, Row, check},
};

/// What most rows use.
mod prelude {
    pub(super) use std::{io::ErrorKind, time::Duration};

    pub(super) use reactor::{
        Address, Interest, Key, Source,
        engine::{Ending, Role, Transport},
    };

    pub(super) use super::{carry, pattern};
    #[cfg(unix)]
    pub(super) use crate::suite::SOCKETS;
    pub(super) use crate::{
        driver::EngineDriver,
        fixture::{Fixture, accept, connect, listen, pair, pairs},
        suite::{Need, Outcome, Row, Stop, check, row},
    };
}

/// Returns all rows of the suite.
pub fn rows() -> &'static [Row] {
    static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
    ROWS.get_or_init(|| {
        let mut all =
            [descriptors::ROWS, readiness::ROWS, partial::ROWS, datagrams::ROWS, peers::ROWS, waits::ROWS]
                .concat();
        #[cfg(unix)]
        all.extend_from_slice(devices::ROWS);
        #[cfg(unix)]
        all.extend_from_slice(signals::ROWS);
        #[cfg(unix)]
        all.extend_from_slice(pipes::ROWS);
        all.extend_from_slice(crate::canary_rows::ROWS);
        all.extend(crate::runtime_rows::rows());
        all
    })
}

/// Makes bytes in which lost, doubled or moved ones show.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

/// Sends all of `bytes`, and turns until the other end has them, too.
fn carry(driver: &mut EngineDriver, from: Key, to: Key, bytes: &[u8]) -> Outcome {
    let before = driver.events(to).bytes.len();
    driver.send(from, bytes);
    driver.until("all bytes have arrived", |driver| {
        driver.send_rest(from);
        driver.events(to).bytes.len() - before >= bytes.len() && !driver.events(from).is_sending()
    })?;
    check!(driver.events(to).bytes[before..] == *bytes, "what arrived differs from what was sent");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::rows;

    #[test]
    fn an_id_names_one_row() {
        let mut seen = BTreeSet::new();
        let twice: Vec<_> = rows().iter().map(|row| row.id).filter(|id| !seen.insert(*id)).collect();
        assert!(twice.is_empty(), "{twice:?} name two");
    }
}
