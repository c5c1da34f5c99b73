//! Opener of a connection. Nodes are told apart by their process: all processes on loopback connect
//! from the same address, and only the kernel knows which of them has opened a socket.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Processes by their place in the network.
#[derive(Clone, Default)]
pub struct Sources(Arc<Mutex<Vec<Option<u32>>>>);

impl Sources {
    /// Starts without a process of any node. The last place, that of the clients, is this process.
    pub fn new(nodes: usize) -> Self {
        let mut processes = vec![None; nodes];
        processes.push(Some(std::process::id()));
        Sources(Arc::new(Mutex::new(processes)))
    }

    pub fn set(&self, place: usize, process: Option<u32>) {
        self.0.lock()[place] = process;
    }

    /// Finds the place that opened the connection from `from` to `to`. None if no known process has
    /// it open.
    pub fn of(&self, from: SocketAddr, to: SocketAddr) -> Option<usize> {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel lists sockets");
        let socket = inode(&table, from, to)?;
        let processes = self.0.lock().clone();
        processes.iter().position(|process| process.is_some_and(|process| holds(process, socket)))
    }
}

/// Finds the inode of a connection's socket in the text of `/proc/net/tcp`.
fn inode(table: &str, from: SocketAddr, to: SocketAddr) -> Option<u64> {
    let (from, to) = (kernel_form(from)?, kernel_form(to)?);
    let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = row.into_iter().find(|row| row.len() > 9 && row[1] == from && row[2] == to)?;
    row[9].parse().ok()
}

/// Formats an address as `/proc/net/tcp` prints it: hexadecimal, in the byte order of the machine.
fn kernel_form(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    let bytes = u32::from_ne_bytes(address.ip().octets());
    Some(format!("{bytes:08X}:{:04X}", address.port()))
}

fn holds(process: u32, socket: u64) -> bool {
    let wanted = format!("socket:[{socket}]");
    let Ok(open) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    open.filter_map(Result::ok)
        .filter_map(|file| std::fs::read_link(file.path()).ok())
        .any(|target| target.as_os_str() == wanted.as_str())
}

#[test]
fn a_socket_is_found_in_the_table_of_the_kernel() {
    let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1
   1: 0100007F:D431 0201007F:1F90 01 00000000:00000000 02:00000A39 00000000     0        0 4711 2";
    let (from, to) = ("127.0.0.1:54321", "127.0.1.2:8080");
    let address = |text: &str| text.parse().unwrap();
    if cfg!(target_endian = "little") {
        assert_eq!(inode(table, address(from), address(to)), Some(4711));
    }
    assert_eq!(inode(table, address(to), address(from)), None);
}

#[test]
fn a_connection_of_this_process_comes_from_the_clients() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let stream = std::net::TcpStream::connect(to).unwrap();
    let from = stream.local_addr().unwrap();
    let sources = Sources::new(3);
    assert_eq!(sources.of(from, to), Some(3));
    sources.set(3, None);
    assert_eq!(sources.of(from, to), None);
}
