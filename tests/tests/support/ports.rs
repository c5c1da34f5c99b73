//! Ports that no other process uses while a test runs.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// First port and number of ports. They lie below the ports that the operating system gives to
/// outgoing connections. Such a connection could take a node's port while the node is down.
const FIRST: u16 = 12_000;
const COUNT: u16 = 16_000;

/// Returns a loopback address that is free now and that no other call in this process returns.
pub fn free_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that run at the same time begin at different places.
    let offset = std::process::id().wrapping_mul(101) % u32::from(COUNT);
    for _ in 0..COUNT {
        let place = u32::from(NEXT.fetch_add(1, Ordering::Relaxed)) + offset;
        let port = FIRST + (place % u32::from(COUNT)) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return format!("127.0.0.1:{port}");
        }
    }
    panic!("no free port from {FIRST} on");
}
