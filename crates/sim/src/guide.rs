//! The guide, as a page of the documentation; its examples are compiled and run.
#![doc = include_str!("../GUIDE.md")]
