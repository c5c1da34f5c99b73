//! One connection through a network that has faults: two directions, each with its link's state.
//!
//! A stalled link behaves as TCP does over a network that loses every packet: nothing is reported,
//! what was sent waits, and it arrives if the link comes back before somebody gives up. A broken
//! link resets its connections and takes no new ones.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Open,
    /// Everything arrives later by this delay.
    Slow(Duration),
    Stalled,
    Broken,
}

/// The state of one direction between two places, as its connections see it.
pub type Link = watch::Receiver<State>;

/// Maximum bytes of one read.
const CHUNK_BYTES: usize = 16 * 1024;

/// Maximum number of chunks in flight in one direction of a connection. With [`CHUNK_BYTES`] that
/// is at most 1 MiB, about what the kernel would keep for a connection that is stuck. Beyond it the
/// sender has to wait.
const CHUNKS_MAX: usize = 64;

/// Carries bytes both ways until either side ends the connection or a link breaks.
pub async fn carry(opener: TcpStream, target: TcpStream, there: Link, back: Link) {
    let (opener_read, opener_write) = opener.into_split();
    let (target_read, target_write) = target.into_split();
    tokio::select! {
        () = pump(opener_read, target_write, there.clone()) => {}
        () = pump(target_read, opener_write, back.clone()) => {}
        () = broken(there) => {}
        () = broken(back) => {}
    }
}

/// Waits until a connection can be opened, which takes packets both ways. False if it is refused.
pub async fn opens(mut there: Link, mut back: Link) -> bool {
    for link in [&mut there, &mut back] {
        let passes = link.wait_for(|state| *state != State::Stalled).await;
        if passes.map_or(true, |state| *state == State::Broken) {
            return false;
        }
    }
    true
}

async fn broken(mut link: Link) {
    // An error means that the network is gone, and its connections with it.
    let _ = link.wait_for(|state| *state == State::Broken).await;
}

/// Carries one direction of a connection.
async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut link: Link) {
    let (give, mut take) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let read = async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = from.read(&mut chunk).await {
            if give.send((Instant::now(), chunk[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((arrived, chunk)) = take.recv().await {
            let Ok(state) = link.wait_for(|state| *state != State::Stalled).await.map(|s| *s)
            else {
                return;
            };
            if let State::Slow(delay) = state {
                sleep_until(arrived + delay).await;
            }
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    // The writer ends when the reader has ended and everything is carried, or when the target takes
    // no more.
    tokio::select! {
        () = async { read.await; std::future::pending().await } => {}
        () = write => {}
    }
}
