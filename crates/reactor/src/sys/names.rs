//! Two calls that socket2 lacks: late choice of the local port, and interfaces by name.
#![allow(unsafe_code)]

use std::ffi::CString;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::io;

/// Makes the system choose the port on connect instead of on bind. Then only connections to the same target
/// need different ports. A kernel without this option (Linux before 4.2) ignores it.
///
/// # Errors
/// As setsockopt(2).
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn choose_port_late(socket: &socket2::Socket) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let on: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to a live integer of this length, which the call reads.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            length,
        )
    };
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(()),
        error if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
        error => Err(error),
    }
}

/// Returns the index of the interface of this name, if there is one.
#[cfg(unix)]
pub(crate) fn interface(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the pointer is to a live string that ends with a zero, which the call reads.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}
