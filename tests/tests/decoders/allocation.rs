//! Allocator that counts the memory of a decoder, thread by thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

#[derive(Clone, Copy)]
struct Bytes {
    live: isize,
    peak: isize,
}

thread_local! {
    /// Bytes of this thread since the last reset. Negative if the thread frees another one's
    /// memory.
    static BYTES: Cell<Bytes> = const { Cell::new(Bytes { live: 0, peak: 0 }) };
}

fn count(change: isize) {
    // A thread that ends may free memory after its counter is gone.
    let _ = BYTES.try_with(|bytes| {
        let Bytes { live, peak } = bytes.get();
        let live = live + change;
        bytes.set(Bytes { live, peak: peak.max(live) });
    });
}

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are those of this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // The old and the new block may exist at once.
        count(size as isize);
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.realloc(place, layout, size) }
    }
}

/// Bytes that a decoder may take for an input of any length: error messages, buffers.
const SLACK_BYTES: usize = 16 << 10;

/// Runs a decoder. Panics if it held more at once than `times` its input and `SLACK_BYTES`.
pub fn bounded<T>(input_bytes: usize, times: usize, decode: impl FnOnce() -> T) -> T {
    bounded_with(input_bytes * times + SLACK_BYTES, decode)
}

/// As [`bounded`], for readers of files, which need room of their own.
pub fn bounded_with<T>(bytes_max: usize, decode: impl FnOnce() -> T) -> T {
    BYTES.set(Bytes { live: 0, peak: 0 });
    let decoded = decode();
    let peak = BYTES.get().peak;
    assert!(peak <= bytes_max as isize, "took {peak} bytes where {bytes_max} are allowed");
    decoded
}

#[test]
fn a_decoder_that_believes_a_length_is_caught() {
    let believing = || bounded(4, 8, || Vec::<u8>::with_capacity(1 << 20));
    assert!(std::panic::catch_unwind(believing).is_err());
    bounded(4, 8, || Vec::<u8>::with_capacity(32));
}
