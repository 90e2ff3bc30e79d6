//! Datagrams per second of processor time: through a runtime in batches, against one call for each.
//!
//! `cargo bench -p io-reactor --bench datagrams`. One thread repeatedly sends and receives a burst of
//! datagrams over the loopback. The bench counts the processor time of this thread, so other work on the
//! machine does not matter. Each round measures all methods in turn, and the bench prints the median of the
//! rounds:
//!
//! * `calls`: send(2) and recv(2) of the standard library's sockets for each datagram, without a loop or a
//!   service;
//! * `batches`: two services of one runtime, with sendmmsg(2) and recvmmsg(2), each datagram by itself;
//! * `together`: the same with equal datagrams as one packet (UDP_SEGMENT, UDP_GRO), which is the default.

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("datagrams: batches are measured on Linux only; elsewhere there are none");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        net::{Ipv4Addr, UdpSocket},
        time::Duration,
    };

    use reactor::{
        BindOptions, Context, DatagramEvent, Datagrams, Handle, Id, Outbound, Result, Runtime, Service,
        ServiceId,
    };
    use rustix::time::{ClockId, clock_gettime};

    /// How many datagrams are in flight at once. This many fit in a socket's buffer of the default size.
    const BURST: usize = 64;
    const BURSTS: usize = 2_000;
    const ROUNDS: usize = 7;
    const LENGTHS: [usize; 3] = [64, 256, 1_200];

    pub(super) fn main() {
        println!("datagrams per second of processor time, sent and received, {BURST} under way at once");
        println!(
            "{:>7}  {:>10}  {:>10} {:>6}  {:>10} {:>6}",
            "length", "calls", "batches", "ratio", "together", "ratio"
        );
        for length in LENGTHS {
            let mut calls = Calls::new(length);
            let (mut batches, mut together) = (Batches::new(length, false), Batches::new(length, true));
            let mut rates = [const { Vec::new() }; 3];
            for _ in 0..ROUNDS {
                rates[0].push(rate(|| calls.burst()));
                rates[1].push(rate(|| batches.burst()));
                rates[2].push(rate(|| together.burst()));
            }
            let [one, many, joined] = rates.map(middle);
            println!(
                "{length:>7}  {one:>10.0}  {many:>10.0} {:>6.2}  {joined:>10.0} {:>6.2}",
                many / one,
                joined / one
            );
        }
    }

    /// Returns how many datagrams one second of processor time moves.
    fn rate(mut burst: impl FnMut()) -> f64 {
        let began = processor_time();
        (0..BURSTS).for_each(|_| burst());
        (BURSTS * BURST) as f64 / (processor_time() - began).as_secs_f64()
    }

    fn processor_time() -> Duration {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    fn middle(mut rates: Vec<f64>) -> f64 {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    }

    /// One call for each datagram.
    struct Calls {
        from: UdpSocket,
        to: UdpSocket,
        bytes: Vec<u8>,
    }

    impl Calls {
        fn new(length: usize) -> Calls {
            let [from, to] =
                [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("the loopback is there"));
            from.connect(to.local_addr().expect("it is bound")).expect("it is connected");
            Calls { from, to, bytes: vec![7; length] }
        }

        fn burst(&mut self) {
            let mut buffer = [0; 2048];
            for _ in 0..BURST {
                self.from.send(&self.bytes).expect("there is room");
            }
            for _ in 0..BURST {
                let count = self.to.recv(&mut buffer).expect("it has arrived");
                assert_eq!(count, self.bytes.len(), "it is whole");
            }
        }
    }

    /// Counts received datagrams.
    #[derive(Default)]
    struct Count {
        datagrams: usize,
        bytes: usize,
    }

    impl Service for Count {}

    impl Handle<Datagrams> for Count {
        fn handle(&mut self, _: &mut Context<Self>, _: Id<Datagrams>, event: DatagramEvent) -> Result {
            if let DatagramEvent::Received(datagram) = event {
                self.datagrams += 1;
                self.bytes += datagram.bytes.len();
            }
            Ok(())
        }
    }

    /// Two services of one runtime.
    struct Batches {
        runtime: Runtime,
        from: ServiceId<Count>,
        to: ServiceId<Count>,
        id: Id<Datagrams>,
        bytes: Vec<u8>,
        sent: usize,
    }

    impl Batches {
        fn new(length: usize, together: bool) -> Batches {
            let mut runtime = Runtime::new().expect("the platform has an engine");
            let [from, to] =
                [(); 2].map(|()| runtime.add(Count::default()).expect("there is room for services"));
            let mut options = BindOptions::default();
            options.together = together;
            let bound = runtime.with(to, |_, cx| {
                let id =
                    cx.bind_with("127.0.0.1:0", &options, Datagrams::new()).expect("the loopback is there");
                cx.local(id).expect("it is bound")
            });
            options.peer = Some(bound.expect("the service lives"));
            let id = runtime.with(from, |_, cx| {
                cx.bind_with("127.0.0.1:0", &options, Datagrams::new()).expect("the loopback is there")
            });
            let id = id.expect("the service lives");
            Batches { runtime, from, to, id, bytes: vec![7; length], sent: 0 }
        }

        fn burst(&mut self) {
            let (id, bytes) = (self.id, &self.bytes);
            self.runtime.with(self.from, |_, cx| {
                for _ in 0..BURST {
                    cx.send(id, Outbound::new(bytes));
                }
            });
            self.sent += BURST;
            while self.runtime.service(self.to).expect("it lives").datagrams < self.sent {
                self.runtime.turn(None).expect("the engine is whole");
            }
            let bytes = self.runtime.service(self.to).expect("it lives").bytes;
            assert_eq!(bytes, self.sent * self.bytes.len(), "each is whole");
        }
    }
}
