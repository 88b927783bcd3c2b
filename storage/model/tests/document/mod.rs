//! What the tests of documents share.

pub(crate) mod random;
