//! Path of the binary under test.

use std::path::PathBuf;

/// Returns the path of the `rangedb` that was built beside this test: `make test` builds it first,
/// because cargo does not build a binary for another package's tests.
pub fn rangedb() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    // target/<profile>/deps/<test>
    let profile = test.parent().and_then(|deps| deps.parent()).expect("a test lies in deps/");
    let path = profile.join("rangedb");
    assert!(path.exists(), "{} is not there: build it with `make build`", path.display());
    path
}
