//! Ending: half-closes, closes and resets, hosts that are powered off, and slots that become free.

use std::io;

use reactor::engine::Ending;

use crate::{
    error,
    ids::EndId,
    net::stream::{
        Streams,
        end::{Holder, Packet},
    },
    world::base::Base,
};

impl Streams {
    /// Ends the write side.
    pub(crate) fn shut(&mut self, base: &mut Base, at: EndId) -> io::Result<()> {
        let end = &mut self.ends[at];
        if !end.medium.is_socket() {
            return Err(error::os(error::NOT_SOCKET));
        }
        if end.other.is_none() || end.failed.is_some() {
            return Err(error::os(error::NOT_CONNECTED));
        }
        if !std::mem::replace(&mut end.shut, true) {
            self.put(base, at, Packet::Fin);
        }
        Ok(())
    }

    /// Closes an end as its holder.
    pub(crate) fn close_end(&mut self, base: &mut Base, at: EndId, how: Ending) {
        let end = &mut self.ends[at];
        if matches!(end.holder, Holder::Nobody | Holder::Free) {
            return;
        }
        if !base.hosts[end.host].is_up {
            return self.drop_silently(at);
        }
        end.holder = Holder::Nobody;
        // As with TCP, a close with unread input sends a reset, because the peer must not believe that its
        // bytes were read. A close with a partly sent queue sends a reset, too. In a pipe, written bytes stay
        // readable.
        let is_reset =
            (how == Ending::Reset || end.has_unsent() || !end.input.is_empty()) && end.medium.is_socket();
        let (is_shut, is_over) = (end.shut, end.failed.is_some());
        self.empty(at);
        if is_reset && !is_over {
            self.drop_wire_to_other(at);
            self.put(base, at, Packet::Reset);
        } else if !is_shut && !is_over {
            self.put(base, at, Packet::Fin);
        }
        self.free_if_over(at);
    }

    /// Ends silently, without a packet.
    fn drop_silently(&mut self, at: EndId) {
        let end = &mut self.ends[at];
        if !matches!(end.holder, Holder::Nobody | Holder::Free) {
            end.holder = Holder::Nobody;
            self.empty(at);
            self.free_if_over(at);
        }
    }

    /// Drops the contents of an end.
    fn empty(&mut self, at: EndId) {
        let end = &mut self.ends[at];
        (end.owner, end.parked, end.sent, end.connected) = (None, None, None, None);
        #[cfg(unix)]
        {
            (end.mover, end.watch) = (None, None);
        }
        end.input_bytes = 0;
        for segment in std::mem::take(&mut end.input) {
            self.buffers.give(segment.buffer);
        }
    }

    /// Drops the packets in flight to the peer.
    fn drop_wire_to_other(&mut self, at: EndId) {
        let Some(other) = self.ends[at].other else { return };
        let end = &mut self.ends[other];
        end.wire_bytes = 0;
        for packet in &mut end.wire {
            if let Packet::Data(segment) = std::mem::replace(packet, Packet::Lost) {
                self.buffers.give(segment.buffer);
            }
        }
    }

    /// Frees both slots when nobody refers to them any more.
    fn free_if_over(&mut self, at: EndId) {
        let other = self.ends[at].other;
        if other.is_some_and(|other| self.ends[other].holder != Holder::Nobody) {
            return;
        }
        for at in [Some(at), other].into_iter().flatten() {
            let wire = std::mem::take(&mut self.ends[at].wire);
            for packet in wire {
                if let Packet::Data(segment) = packet {
                    self.buffers.give(segment.buffer);
                }
            }
            self.ends.free(at);
        }
    }
}
