//! Sans-IO codecs and layers.
#![forbid(unsafe_code)]
