//! Stream sockets: listen, connect, accept, and queries.

use std::{io, mem::MaybeUninit, net::Shutdown, time::Duration};

use socket2::{SockRef, Socket, TcpKeepalive, Type};

#[cfg(any(target_os = "linux", target_os = "android"))]
use super::names::choose_port_late;
use super::{
    Borrowed, Owned,
    address::{from_system, to_system},
    bind::{bind, open},
    io::again_if_interrupted,
};
use crate::{
    address::Address,
    engine::Transport,
    options::{ConnectOptions, Keepalive, ListenOptions, SocketOptions},
};

/// Opens a listening socket. It also carries the options of its connections, which inherit them.
///
/// With `reuse_address`, a Unix socket file that nobody listens on is replaced. If two processes start at the
/// same moment, both may do so, and the later one wins. Closing the listener does not remove the file,
/// because by then it may belong to another process.
///
/// # Errors
/// As socket(2), setsockopt(2), bind(2), listen(2).
pub(crate) fn listen(address: &Address, options: &ListenOptions) -> io::Result<Owned> {
    let socket = open(address, Type::STREAM)?;
    if matches!(address, Address::Ip(_)) {
        // On Windows this option would let another program take over the port.
        #[cfg(not(windows))]
        socket.set_reuse_address(options.reuse_address)?;
        #[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
        socket.set_reuse_port(options.reuse_port)?;
    }
    if let (Some(only), Some(true)) = (options.only_v6, address.ip().map(|ip| ip.is_ipv6())) {
        socket.set_only_v6(only)?;
    }
    configure(&socket, address, &options.socket)?;
    bind(&socket, address, options.reuse_address)?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Turns a socket that somebody else opened into a listener: non-blocking, CLOEXEC, and with TCP_NODELAY for
/// its connections, like our own listeners.
///
/// # Errors
/// `InvalidInput` if it is not a listening stream socket, as far as the system reveals that.
pub(crate) fn listener(socket: Owned) -> io::Result<Transport> {
    let socket = Socket::from(socket);
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    let listens = socket.is_listener()?;
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    let listens = true;
    if socket.r#type()? != Type::STREAM || !listens {
        let why = "it is no stream socket that listens";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    socket.set_nonblocking(true)?;
    #[cfg(unix)]
    socket.set_cloexec(true)?;
    #[cfg(windows)]
    socket.set_no_inherit(true)?;
    if from_system(&socket.local_addr()?).ip().is_some() {
        socket.set_tcp_nodelay(true)?;
    }
    Ok(Transport::new(socket))
}

/// Connects a datagram socket to its one peer.
///
/// # Errors
/// As connect(2). An error for an address of the wrong kind.
#[cfg(unix)]
pub(crate) fn connect_datagram(socket: &std::os::unix::net::UnixDatagram, to: &Address) -> io::Result<()> {
    SockRef::from(socket).connect(&to_system(to)?)
}

/// Starts to connect. The socket becomes writable when the connect has succeeded or failed.
///
/// # Errors
/// As socket(2), setsockopt(2) and bind(2), and immediate errors of connect(2).
pub(crate) fn connect(address: &Address, options: &ConnectOptions) -> io::Result<Owned> {
    let name = to_system(address)?;
    let socket = open(address, Type::STREAM)?;
    configure(&socket, address, &options.socket)?;
    if let Some(local) = &options.local {
        // A client may use its port again at once, although its last connection may be in TIME_WAIT.
        if let Some(ip) = local.ip() {
            socket.set_reuse_address(true)?;
            #[cfg(any(target_os = "linux", target_os = "android"))]
            if ip.port() == 0 {
                choose_port_late(&socket)?;
            }
            #[cfg(not(any(target_os = "linux", target_os = "android")))]
            let _ = ip;
        }
        socket.bind(&to_system(local)?)?;
    }
    match socket.connect(&name) {
        Err(e) if !is_under_way(&e) => Err(e),
        _ => Ok(socket.into()),
    }
}

/// Accepts one connection.
///
/// # Errors
/// As accept(2); see [`is_passing`].
pub(crate) fn accept(listener: Borrowed<'_>) -> io::Result<(Owned, Address)> {
    let listener = SockRef::from(&listener);
    let (socket, peer) = again_if_interrupted(|| accept_once(&listener))?;
    Ok((socket.into(), from_system(&peer)))
}

/// Returns whether an error of accept(2) concerns only one connection, or a network outage that will pass.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(
        libc::EPROTO
        | libc::ENETDOWN
        | libc::ENOPROTOOPT
        | libc::EHOSTDOWN
        | libc::ENONET
        | libc::EHOSTUNREACH
        | libc::EOPNOTSUPP
        | libc::ENETUNREACH,
    ) = error.raw_os_error()
    {
        return true;
    }
    // WSAECONNRESET: the peer has reset a connection that waited to be accepted. Wine reports WSAENOTCONN.
    if cfg!(windows) && matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected) {
        return true;
    }
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
}

/// The state of a connect in progress.
pub(crate) enum Connect {
    /// Still in progress: the poll's report was spurious.
    Waits,
    /// The connection was established. It may have failed since. The system reports that error only once, so
    /// it is returned here.
    Up(Option<io::Error>),
}

/// Determines the state of a connect.
///
/// # Errors
/// The reason why the connect failed.
pub(crate) fn is_connected(socket: Borrowed<'_>) -> io::Result<Connect> {
    let socket = SockRef::from(&socket);
    if let Some(error) = socket.take_error()? {
        return if has_been_up(&socket, &error) { Ok(Connect::Up(Some(error))) } else { Err(error) };
    }
    match socket.peer_addr() {
        Ok(_) => Ok(Connect::Up(None)),
        Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(Connect::Waits),
        Err(e) => Err(e),
    }
}

/// Returns whether a socket failed as an established connection, not as a connect. If the peer answers a
/// connect with a reset, the error is ECONNREFUSED, so any other reset belongs to an established connection.
/// A socket with input was connected, too.
fn has_been_up(socket: &Socket, error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
        || socket.peek(&mut [MaybeUninit::uninit()]).is_ok_and(|count| count > 0)
}

/// Returns the local address.
pub(crate) fn local(socket: Borrowed<'_>) -> io::Result<Address> {
    SockRef::from(&socket).local_addr().map(|address| from_system(&address))
}

/// Returns the peer's address.
pub(crate) fn peer(socket: Borrowed<'_>) -> io::Result<Address> {
    let peer = SockRef::from(&socket).peer_addr();
    // After a reset the caller still wants to know whose connection it was.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let peer = peer.or_else(|error| super::lost_peer(socket).map_err(|_| error));
    peer.map(|address| from_system(&address))
}

/// Shuts down the write side.
pub(crate) fn shutdown_write(socket: Borrowed<'_>) -> io::Result<()> {
    SockRef::from(&socket).shutdown(Shutdown::Write)
}

/// Makes the next close a reset, if the transport has resets.
pub(crate) fn reset_at_close(socket: Borrowed<'_>) {
    // If this fails, the close is an ordinary one. Nobody is left who could handle the error.
    let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn accept_once(listener: &Socket) -> io::Result<(Socket, socket2::SockAddr)> {
    listener.accept4(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn accept_once(listener: &Socket) -> io::Result<(Socket, socket2::SockAddr)> {
    let (socket, peer) = listener.accept()?;
    socket.set_nonblocking(true)?;
    // Not every system lets a connection inherit this option.
    if let Ok(true) = listener.tcp_nodelay() {
        socket.set_tcp_nodelay(true)?;
    }
    Ok((socket, peer))
}

fn configure(socket: &Socket, address: &Address, options: &SocketOptions) -> io::Result<()> {
    if let Some(bytes) = options.receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    if !matches!(address, Address::Ip(_)) {
        return Ok(());
    }
    socket.set_tcp_nodelay(options.nodelay)?;
    if let Some(keepalive) = options.keepalive {
        check(&keepalive)?;
        let parameters = TcpKeepalive::new().with_time(keepalive.idle).with_interval(keepalive.interval);
        #[cfg(not(windows))]
        let parameters = parameters.with_retries(keepalive.probes);
        socket.set_tcp_keepalive(&parameters)?;
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        if options.user_timeout.is_some() {
            socket.set_tcp_user_timeout(options.user_timeout)?;
        }
        if let Some(bytes) = options.notsent_lowat {
            socket.set_tcp_notsent_lowat(bytes)?;
        }
    }
    Ok(())
}

/// Rejects values for which the system would return EINVAL, with an error text that explains why.
fn check(keepalive: &Keepalive) -> io::Result<()> {
    let why = if keepalive.idle < SECOND || keepalive.interval < SECOND {
        format!("keepalive counts whole seconds, at least one: {keepalive:?}")
    } else if keepalive.probes == 0 {
        format!("keepalive needs at least one probe: {keepalive:?}")
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

const SECOND: Duration = Duration::from_secs(1);

/// Returns whether connect(2) continues by itself. A signal does not stop it either.
fn is_under_way(error: &io::Error) -> bool {
    #[cfg(unix)]
    return matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR));
    #[cfg(not(unix))]
    return error.kind() == io::ErrorKind::WouldBlock;
}
