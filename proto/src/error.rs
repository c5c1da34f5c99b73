//! Constructors of [`v1::Error`]; each names what the caller can do next.

use std::fmt;

use crate::v1::{self, error::Kind};

impl v1::Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        v1::Error { message: message.into(), kind: Some(kind) }
    }

    pub fn invalid(argument: &str, message: impl Into<String>) -> Self {
        let argument = argument.to_owned();
        Self::new(Kind::InvalidArgument(v1::InvalidArgument { argument }), message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable(v1::Unavailable {}), message)
    }

    pub fn undetermined(message: impl Into<String>) -> Self {
        Self::new(Kind::Undetermined(v1::Undetermined {}), message)
    }

    pub fn too_busy(retry_after_ms: u32, message: impl Into<String>) -> Self {
        Self::new(Kind::TooBusy(v1::TooBusy { retry_after_ms }), message)
    }

    pub fn permission_denied(message: impl Into<String>) -> Self {
        Self::new(Kind::PermissionDenied(v1::PermissionDenied {}), message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound(v1::NotFound {}), message)
    }

    pub fn failed_precondition(message: impl Into<String>) -> Self {
        Self::new(Kind::FailedPrecondition(v1::FailedPrecondition {}), message)
    }

    pub fn deadline_exceeded(message: impl Into<String>) -> Self {
        Self::new(Kind::DeadlineExceeded(v1::DeadlineExceeded {}), message)
    }
}

impl fmt::Display for v1::Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for v1::Error {}
