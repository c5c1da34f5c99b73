//! Bugs put in on purpose, for the simulator to find (`tests/planted`). Only its own build has them.

/// True if this bug is planted in this thread.
#[cfg(feature = "planted")]
macro_rules! planted {
    ($bug:ident) => {
        rangedb_planted::Bug::$bug.is_planted()
    };
}

/// False: there are no bugs on purpose in this build.
#[cfg(not(feature = "planted"))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

pub(crate) use planted;
