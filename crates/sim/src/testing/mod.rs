//! The tools of a test: the harness, the search for failing seeds, coverage, and the controls of virtual
//! sources.

pub(crate) mod coverage;
pub(crate) mod folder;
pub(crate) mod harness;
pub(crate) mod isolate;
pub(crate) mod line;
pub(crate) mod plan;
pub(crate) mod replay;
pub(crate) mod source;
